// Photographs: the middle square of whatever is shown, at the size that the model sees.

export const VIEW = 224;

export interface PhotoSample {
  name: string;
  credit: string;
  file: Blob;
}

interface PhotoFile {
  samples: { name: string; credit: string; jpeg: string }[];
}

export function readPhotos(bytes: Uint8Array): PhotoSample[] {
  const { samples } = JSON.parse(new TextDecoder().decode(bytes)) as PhotoFile;
  return samples.map(({ name, credit, jpeg }) => {
    const raw = Uint8Array.from(atob(jpeg), (character) => character.charCodeAt(0));
    return { name, credit, file: new Blob([raw], { type: "image/jpeg" }) };
  });
}

/** The largest square in the middle of a picture of this size. */
export function middle(width: number, height: number): { x: number; y: number; side: number } {
  const side = Math.min(width, height);
  return { x: (width - side) / 2, y: (height - side) / 2, side };
}

/** What the model sees of a picture or of a camera's frame; undefined before a camera's first frame. */
export function square(source: ImageBitmap | HTMLVideoElement): ImageData | undefined {
  const [width, height] =
    source instanceof ImageBitmap ? [source.width, source.height] : [source.videoWidth, source.videoHeight];
  if (!width || !height) return undefined;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = VIEW;
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  const { x, y, side } = middle(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, x, y, side, side, 0, 0, VIEW, VIEW);
  return context.getImageData(0, 0, VIEW, VIEW);
}

/** A file as the model sees it. */
export async function photo(file: Blob): Promise<ImageData> {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("this file is not a picture that your browser reads: use PNG, JPEG, WebP or GIF");
  });
  const seen = square(bitmap)!;
  bitmap.close();
  return seen;
}

/** The first picture among what was dropped or pasted. */
export function pictureAmong(files: FileList | undefined): File | undefined {
  return [...(files ?? [])].find(({ type }) => type.startsWith("image/"));
}
