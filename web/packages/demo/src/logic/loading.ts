// From a file or a drawing to a picture of the model's size.

import { luminance, onBlack, SIDE, type Picture } from "./picture.js";

/** Fits the source into the square, on black. */
export function shrink(source: HTMLCanvasElement | ImageBitmap): Picture {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  const scale = SIDE / Math.max(source.width, source.height);
  const [width, height] = [source.width * scale, source.height * scale];
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, SIDE, SIDE);
  context.drawImage(source, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  return luminance(context.getImageData(0, 0, SIDE, SIDE).data);
}

export async function load(file: Blob): Promise<Picture> {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("this file is not a picture that your browser reads: use PNG, JPEG, WebP or GIF");
  });
  const picture = onBlack(shrink(bitmap));
  bitmap.close();
  return picture;
}
