// One number for a progress bar, out of stages of very different length.

import type { OpenProgress } from "./options.js";

/** Share of the bar that each stage begins at; bytes fill what lies between `primary` and `compile`. */
const STARTS = { wasm: 0, catalog: 0.25, primary: 0.3, patch: 0.3, compile: 0.9, ready: 1 } as const;

export function wholeProgress(
  report: (progress: OpenProgress) => void,
): (part: Omit<OpenProgress, "overall">) => void {
  let furthest = 0;
  return (part) => {
    const start = STARTS[part.stage];
    const loading = part.stage === "primary" || part.stage === "patch";
    const share = loading && part.total_bytes > 0 ? Math.min(1, part.loaded_bytes / part.total_bytes) : 0;
    furthest = Math.max(furthest, start + share * (STARTS.compile - STARTS.primary));
    report({ ...part, overall: furthest });
  };
}
