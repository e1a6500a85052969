// Scales and bounds of features.

import type { LibraryInfo } from "@backstitch/client";

export interface Bound {
  patch: string;
  value: number;
  text: string;
  met(value: number): boolean;
}

/** Every bound on this feature, over all patches. */
export function bounds(feature: string, patches: LibraryInfo["patches"]): Bound[] {
  return patches.flatMap(({ name, requires }) =>
    requires
      .filter((rule) => rule.feature === feature)
      .flatMap(({ at_least, at_most }): Bound[] => [
        ...(typeof at_least !== "number"
          ? []
          : [
              {
                patch: name,
                value: at_least,
                text: `≥ ${trim(at_least)}`,
                met: (v: number) => v >= at_least,
              },
            ]),
        ...(typeof at_most !== "number"
          ? []
          : [{ patch: name, value: at_most, text: `≤ ${trim(at_most)}`, met: (v: number) => v <= at_most }]),
      ]),
  );
}

function trim(value: number): string {
  return String(Number(value.toFixed(3)));
}

/** The first two numbers of a range in words, such as `0..1` or `-90 to 90`. */
export function scaleOf(range: string): [low: number, high: number] {
  const [low, high] = [...range.replaceAll("−", "-").matchAll(/-?\d+(?:\.\d+)?/g)].map(Number);
  return low !== undefined && high !== undefined && high > low ? [low, high] : [0, 1];
}
