// The library's built-in pictures.

import { PIXELS, type Picture } from "./picture.js";

export interface Sample {
  label: number;
  name: string;
  picture: Picture;
}

interface SampleFile {
  samples: { label: number; name: string; pixels: string }[];
}

export function readSamples(bytes: Uint8Array): Sample[] {
  const file = JSON.parse(new TextDecoder().decode(bytes)) as SampleFile;
  return file.samples.map(({ label, name, pixels }) => {
    const raw = atob(pixels);
    if (raw.length !== PIXELS) throw new Error(`sample "${name}" has ${raw.length} pixels, not ${PIXELS}`);
    return { label, name, picture: Float32Array.from(raw, (character) => character.charCodeAt(0) / 255) };
  });
}
