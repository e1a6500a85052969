import { aborted } from "./problem.js";

const PATIENCE_MS = 10_000;

/** Resolves when the page has nothing better to do, or after some seconds at the latest. */
export function idle(signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(signal.reason));
    signal?.addEventListener("abort", () => reject(aborted(signal.reason)), { once: true });
    if (typeof requestIdleCallback === "function")
      requestIdleCallback(() => resolve(), { timeout: PATIENCE_MS });
    else setTimeout(resolve, 200);
  });
}
