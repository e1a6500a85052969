/**
 * What a caller may give: a text (up to 1 MiB; the model reads its beginning), RGBA pixels of any size, or numbers: a
 * series of shape [moments, channels] in its own units, with NaN where something is missing and the newest moments last,
 * or a tensor that already has the model's scale.
 */
export type Input =
  | string
  | { image: { data: Uint8ClampedArray | Uint8Array; width: number; height: number } }
  | { data: Float32Array | Float64Array | Uint8Array | Uint8ClampedArray | number[]; shape: number[] };

export interface OpenOptions {
  /** 64 hex digits: the operator's root key. Without it the first root that is seen is pinned. */
  public_key?: string;
  /** The word of the site's login, where the server enrols nobody without. */
  voucher?: string;
  /** Milliseconds that one answer may take, primary included. Default: no limit. */
  cost_limit_ms?: number;
  /** Bytes of weights that the stitched patches may have together. Default: no limit. */
  cost_limit_bytes?: number;
  /** What a millisecond must gain at least, for a patch to be worth it, and may lose where it is saved. Default: 0. */
  gain_per_ms?: number;
  /** Bytes that compiled programs and weights may take; what was not used for longest makes room. Default: no limit. */
  memory_limit_bytes?: number;
  /** `false` keeps nothing beyond this page. Default `true`: IndexedDB. */
  persist?: boolean;
  /** The answer of `<library>/catalog`, where it was asked for while this module was still loading. */
  catalog?: Promise<Response>;
  signal?: AbortSignal;
}

export interface OpenProgress {
  stage: "catalog" | "primary" | "patch" | "compile" | "ready";
  /** What is loaded now, such as a patch's name. */
  name: string;
  /** Bytes so far and in all, over every file of the library; 0 of 0 before the catalog is known. */
  loaded_bytes: number;
  total_bytes: number;
}

export interface RunOptions {
  /** `"auto"` (default), `"none"`, or names; names are stitched whatever the selector says. */
  patches?: "auto" | "none" | string[];
  /** Also runs the primary alone and fills `base_output` and `base_top`. */
  compare?: boolean;
  /** Replace the limits of `open` for this run; `null` lifts a limit. */
  cost_limit_ms?: number | null;
  cost_limit_bytes?: number | null;
  gain_per_ms?: number | null;
  /** Milliseconds within which the answer must come: patches that would make it late are left out on the way. */
  deadline_ms?: number;
  /** `"shared"` or `"personal"` weights for what was trained here; default: whichever is better here. */
  weights?: "best" | "shared" | "personal";
  signal?: AbortSignal;
}

export interface TrainOptions {
  /** Passes over the examples; default 10. */
  epochs?: number;
  /** Names of trainable patches; default: all that the library's tasks name. */
  patches?: string[];
  seed?: number;
  signal?: AbortSignal;
}

/** Thrown by every method. */
export interface Problem { code: string; message: string; hint: string | null }
