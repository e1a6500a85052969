// From what a page has to what can cross to the worker. Nothing is decoded here: that is the worker's work.

import { checkPicture, checkText, MAX_NUMBERS } from "./limits.js";
import { PatchError } from "./problem.js";
import type { Input, TensorInput } from "./options.js";

/** What crosses. */
export type WireInput = ImageData | ImageBitmap | Blob | TensorInput | string;

interface Crossing {
  input: WireInput;
  transfer: Transferable[];
}

/** A class that may not exist here (Node, an old browser) has no instances. */
function isA<T>(value: unknown, name: string): value is T {
  const type = (globalThis as Record<string, unknown>)[name];
  return typeof type === "function" && value instanceof type;
}

export async function cross(input: Input): Promise<Crossing> {
  if (typeof input === "string") {
    checkText(input);
    return { input, transfer: [] };
  }
  if (isA<Blob>(input, "Blob")) return { input, transfer: [] };
  if (isA<ImageData>(input, "ImageData") || isA<ImageBitmap>(input, "ImageBitmap")) {
    checkPicture(input);
    return { input, transfer: [] };
  }
  if (
    isA<HTMLCanvasElement>(input, "HTMLCanvasElement") ||
    isA<OffscreenCanvas>(input, "OffscreenCanvas") ||
    isA<HTMLImageElement>(input, "HTMLImageElement")
  ) {
    checkPicture(
      "naturalWidth" in input ? { width: input.naturalWidth, height: input.naturalHeight } : input,
    );
    const bitmap = await createImageBitmap(input).catch((cause: unknown) => {
      throw new PatchError(
        "input_invalid",
        "the canvas or image has no pixels to read",
        "draw or load it first",
        {
          cause,
        },
      );
    });
    return { input: bitmap, transfer: [bitmap] };
  }
  return { input: tensor(input), transfer: [] };
}

function tensor(input: TensorInput): TensorInput {
  const kinds = "ImageData, ImageBitmap, Blob, canvas, string or { data, shape }";
  if (typeof input !== "object" || input === null || !Array.isArray(input.shape) || !input.data)
    throw new PatchError("input_invalid", `the input is a ${typeof input}`, `give ${kinds}`);
  const { data, shape } = input;
  if (!shape.every((side) => Number.isSafeInteger(side) && side >= 0))
    throw new PatchError(
      "input_invalid",
      `the shape [${shape.join(", ")}] is not a list of sizes`,
      "use whole numbers",
    );
  const wanted = shape.reduce((product, side) => product * side, 1);
  if (wanted > MAX_NUMBERS)
    throw new PatchError(
      "input_invalid",
      `the shape [${shape.join(", ")}] has ${wanted} numbers, the limit is ${MAX_NUMBERS}`,
      "give a part of it, such as the newest moments of a series",
    );
  if (data.length !== wanted)
    throw new PatchError(
      "input_invalid",
      `the shape [${shape.join(", ")}] needs ${wanted} numbers, the data has ${data.length}`,
      "make data.length the product of the shape",
    );
  return { data: numbers(data), shape };
}

/** What the engine takes as it is; other whole numbers as floats. */
function numbers(data: TensorInput["data"]): TensorInput["data"] {
  const others = ["Int8Array", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array"];
  if (others.some((name) => isA<Int32Array>(data, name))) return Float64Array.from(data as Int32Array);
  if (isA<BigInt64Array>(data, "BigInt64Array") || isA<BigUint64Array>(data, "BigUint64Array"))
    throw new PatchError(
      "input_invalid",
      "the data are integers of 64 bits",
      "give them as numbers: Float64Array.from(data, Number)",
    );
  return data;
}
