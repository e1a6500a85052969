// What is too large to cross to the worker, and what is made smaller on the way. The core has the same upper limits.

import { PatchError } from "./problem.js";

/** Most pixels of a picture: 64 megapixels. */
export const MAX_PIXELS = 64 << 20;

/** Pictures above 16 megapixels are scaled down to that before they are copied into the engine's memory. */
export const SCALED_PIXELS = 16 << 20;

/** Most characters of a text, each of which is a byte at least; the core counts bytes. */
export const MAX_TEXT = 1 << 20;

/** Most numbers of a tensor. */
export const MAX_NUMBERS = 64 << 20;

/** What compiled models may take where the browser does not say how much memory the device has. */
const MEMORY_BYTES = 256 << 20;

/** The share of a device's memory that compiled models may take. */
const MEMORY_SHARE = 1 / 16;

export interface Size {
  width: number;
  height: number;
}

/** Refuses a picture without pixels and one above the limit, before anything of it is copied. */
export function checkPicture({ width, height }: Size): void {
  if (!(width > 0 && height > 0))
    throw new PatchError(
      "input_invalid",
      `the picture is ${width} × ${height} pixels`,
      "wait until the picture is loaded, then give it",
    );
  if (width * height > MAX_PIXELS)
    throw new PatchError(
      "input_invalid",
      `the picture has ${width} × ${height} = ${width * height} pixels, the limit is ${MAX_PIXELS}`,
      "scale it down first",
    );
}

/** The size in which a picture enters the engine: its own, or the same shape with 16 megapixels. */
export function scaled({ width, height }: Size): Size {
  const factor = Math.sqrt(SCALED_PIXELS / (width * height));
  if (factor >= 1) return { width, height };
  const side = (length: number): number => Math.max(1, Math.floor(length * factor));
  return { width: side(width), height: side(height) };
}

/** Bytes that compiled models may take: as the caller says, or by the memory of the device, which is told in GiB. */
export function memoryLimit(
  given: number | undefined,
  device: { deviceMemory?: number } | undefined,
): number {
  if (given === undefined)
    return device?.deviceMemory ? device.deviceMemory * MEMORY_SHARE * 2 ** 30 : MEMORY_BYTES;
  if (Number.isFinite(given) && given >= 0) return given;
  throw new PatchError(
    "request_invalid",
    `memoryBytes is ${given}; it is a number of bytes, at least 0`,
    "leave it out to go by the memory of the device",
  );
}

export function checkText(text: string): void {
  if (text.length > MAX_TEXT)
    throw new PatchError(
      "input_invalid",
      `the text has ${text.length} characters, the limit is ${MAX_TEXT} bytes`,
      "give the part that matters; the model reads the beginning of a text",
    );
}
