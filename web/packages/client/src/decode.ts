// In the worker: pictures of any kind become pixels.

import { HEAD_BYTES, sizeOf } from "./header.js";
import { checkPicture, scaled } from "./limits.js";
import type { WireInput } from "./input.js";
import { PatchError } from "./problem.js";
import type { TensorInput } from "./options.js";

export interface Pixels {
  image: { data: Uint8ClampedArray; width: number; height: number };
}

export async function decode(input: WireInput, modality: string): Promise<Pixels | TensorInput | string> {
  if (typeof input === "string") {
    if (modality === "text") return input;
    throw new PatchError(
      "input_invalid",
      `this library takes ${modality} input, not text`,
      modality === "image" ? "give an ImageData, ImageBitmap, Blob or canvas" : "give { data, shape }",
    );
  }
  if (input instanceof Blob) return pixels(await bitmap(input), true);
  if (input instanceof ImageBitmap) return pixels(input, false);
  if (input instanceof ImageData) {
    if (scaled(input).width < input.width) return pixels(await createImageBitmap(input), true);
    return { image: { data: input.data as Uint8ClampedArray, width: input.width, height: input.height } };
  }
  return input;
}

async function bitmap(blob: Blob): Promise<ImageBitmap> {
  const size = sizeOf(new Uint8Array(await blob.slice(0, HEAD_BYTES).arrayBuffer()));
  if (size) checkPicture(size);
  try {
    return await createImageBitmap(blob);
  } catch (cause) {
    throw new PatchError(
      "input_invalid",
      `the ${blob.size} bytes of type "${blob.type}" are not a picture that this browser reads`,
      "use PNG, JPEG, WebP or GIF",
      { cause },
    );
  }
}

/** Reads the pixels, of a huge picture at a smaller size: its bytes would take the engine's memory several times. */
function pixels(source: ImageBitmap, owned: boolean): Pixels {
  checkPicture(source);
  const { width, height } = scaled(source);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context)
    throw new PatchError("input_invalid", "this browser gives no canvas in a worker", "give an ImageData");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  if (owned) source.close();
  return {
    image: { data: context.getImageData(0, 0, width, height).data as Uint8ClampedArray, width, height },
  };
}
