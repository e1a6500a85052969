// What is on the page, in the address, so that it can be sent to somebody.

import type { Conditions } from "./picture.js";

export interface Address extends Conditions {
  sample: number;
  /** How misted the window before a photograph is, 0 to 1. */
  mist: number;
}

export const START: Address = { sample: 2, noise: 0, blur: 0, contrast: 1, tilt: 0, mist: 0, seed: 1 };

const LIMITS = {
  sample: [0, 999],
  noise: [0, 0.5],
  blur: [0, 2.5],
  contrast: [0.1, 1],
  tilt: [-45, 45],
  mist: [0, 1],
  seed: [1, 9999],
} as const;

export function readAddress(hash: string): Address {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const read = (name: keyof Address): number => {
    const text = given.get(name);
    const value = text === null || text === "" ? NaN : Number(text);
    const [low, high] = LIMITS[name];
    return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : START[name];
  };
  return {
    sample: Math.round(read("sample")),
    noise: read("noise"),
    blur: read("blur"),
    contrast: read("contrast"),
    tilt: read("tilt"),
    mist: read("mist"),
    seed: Math.round(read("seed")),
  };
}

/** Which library the page shows: `?library=sentiment`, or fashion. */
export function libraryName(search: string): string {
  const name = new URLSearchParams(search).get("library") ?? "";
  return /^[a-z0-9-]{1,64}$/.test(name) ? name : "fashion";
}

/** Where that library is. */
export function libraryAddress(search: string): string {
  return `/v1/libraries/${libraryName(search)}`;
}

export function writeAddress(address: Address): string {
  const digits = { sample: 0, noise: 2, blur: 1, contrast: 2, tilt: 0, mist: 2, seed: 0 };
  return `#${(Object.keys(digits) as (keyof Address)[])
    .map((name) => `${name}=${Number(address[name].toFixed(digits[name]))}`)
    .join("&")}`;
}
