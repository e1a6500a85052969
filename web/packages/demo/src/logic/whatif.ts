// "What if": the automatic choice, changed by hand.

import type { Candidate } from "@backstitch/client";

export type Override = "auto" | "on" | "off";
export type Overrides = ReadonlyMap<string, Override>;

/** The names to ask for, in stitching order; undefined where nothing is overridden. */
export function namedPatches(automatic: Candidate[], overrides: Overrides): string[] | undefined {
  if (![...overrides.values()].some((override) => override !== "auto")) return undefined;
  return automatic
    .filter(({ name, chosen }) => {
      const override = overrides.get(name) ?? "auto";
      return override === "auto" ? chosen : override === "on";
    })
    .map(({ name }) => name);
}
