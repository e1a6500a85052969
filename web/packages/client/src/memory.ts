// What a model takes. The bindings of the module have this file's types too.

/** What compiled models take in the worker that runs them. */
export interface Memory {
  /** `memoryBytes` of `open`. */
  limit_bytes: number | null;
  /** Constants of compiled programs, and weights of patches. */
  held_bytes: number;
  /** How many programs and sets of weights that is. */
  held: number;
  /** How many were dropped so far to keep the limit. */
  dropped: number;
}
