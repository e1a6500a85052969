// What goes in, and what a listener gets. Field names are those of the wire and of the manifests; every number's
// unit stands in its name or beside it.

import type { BackgroundSettings, Pause } from "./idle.js";
import type { PatchError } from "./problem.js";
import type {
  LibraryInfo,
  Privacy,
  RefreshResult,
  RunResult,
  TrainProgress,
  TrainReport,
} from "./results.js";

/**
 * Numbers with a shape, row-major: a tensor in the model's scale, or a series `[moments, channels]` in its own units, the
 * newest moments last, NaN where something is missing.
 */
export interface TensorInput {
  data:
    | Float32Array
    | Float64Array
    | Uint8Array
    | Uint8ClampedArray
    | Int8Array
    | Int16Array
    | Uint16Array
    | Int32Array
    | Uint32Array
    | number[];
  shape: number[];
}

/**
 * Anything that a model can be run on. A `string` needs a text library, whose model reads its beginning. Pictures
 * above 16 megapixels are scaled down to that; above 64 megapixels they are refused.
 */
export type Input =
  | ImageData
  | ImageBitmap
  | Blob
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLImageElement
  | TensorInput
  | string;

/** What a run may cost. `null` lifts a limit that `open` set. */
export interface CostLimit {
  /** Milliseconds for the whole run, primary model and patches. */
  ms?: number | null;
  /** Bytes of weights that the stitched patches may have together. */
  bytes?: number | null;
  /** What a millisecond must gain at least, in the patch's own metric, to be worth it, and may lose where it is saved. Default: 0. */
  gainPerMs?: number | null;
}

/** How far `open` is. `overall` runs from 0 to 1 and never back. */
export interface OpenProgress {
  stage: "wasm" | "catalog" | "primary" | "patch" | "compile" | "ready";
  /** What is loaded now, such as a patch's name. */
  name: string;
  overall: number;
  loaded_bytes: number;
  total_bytes: number;
}

export interface OpenOptions {
  onProgress?: (progress: OpenProgress) => void;
  signal?: AbortSignal;
  costLimit?: CostLimit;
  /**
   * Bytes that compiled models and weights may take in a worker. What was not used for longest makes room, and is compiled
   * again when it is needed: the answers are the same, some come later. Below what one answer needs, each compiles.
   * Default: a sixteenth of the device's memory; 256 MB where the browser does not say how much it has.
   */
  memoryBytes?: number;
  /** Hex of the operator's Ed25519 root key. Without it the first root seen is pinned on this device. */
  publicKey?: string;
  /** The word of your site's login, where the server enrols nobody without. */
  voucher?: string;
  /** Where the worker script is, if your bundler does not find it by itself. */
  workerUrl?: string | URL;
  /** Where `client_bg.wasm` or `client_relaxed_bg.wasm` is, if your bundler does not find them by itself. */
  wasmUrl?: string | URL;
  /** `memory` leaves nothing behind on the device. Default: `persistent`. */
  storage?: "persistent" | "memory";
  /** Whether to follow new versions while the model is open. Default: true. */
  live?: boolean;
  /** When training in the background has to wait, and whether what an earlier page left is gone on with (yes). */
  background?: BackgroundSettings & { resume?: boolean };
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface RunOptions extends CallOptions {
  /** `auto` selects by the input; `none` runs the primary model alone; names force exactly these. */
  patches?: "auto" | "none" | string[];
  /** Also run the primary model alone, and return its answer as `base_output` and `base_top`. */
  compare?: boolean;
  /** Replaces the limits of `open` for this run. */
  costLimit?: CostLimit;
  /** Milliseconds within which the answer must come: patches that would make it late are left out on the way. */
  deadlineMs?: number;
  /** Which weights of a patch that was trained here. Default `best`: whichever judges better here. */
  weights?: "best" | "shared" | "personal";
}

export interface TrainOptions extends CallOptions {
  onProgress?: (progress: TrainProgress) => void;
  /**
   * Train in slices while the page is idle, as the `background` settings of `open` allow. It goes on in the next visit
   * where this page is closed before the end; the result is the same as without.
   */
  background?: boolean;
  /** Passes over the examples. Default: 10. */
  epochs?: number;
  /** Names of trainable patches. Default: all that the library's tasks name. */
  patches?: string[];
  seed?: number;
}

export interface AdaptOptions extends CallOptions {
  /** Passes over the inputs. Default: what the patch's manifest says. */
  epochs?: number;
  /** Names of patches. Default: all whose manifest names `entropy` as its loss. */
  patches?: string[];
  seed?: number;
}

export interface StreamOptions extends Omit<RunOptions, "signal"> {
  /** Moments of a series between two answers. Default: 1. Of pictures, every frame is answered. */
  hop?: number;
}

/** What a listener of `model.on` gets. */
export interface ModelEvents {
  /** After every run: what was stitched. */
  stitch: Pick<RunResult, "version" | "patches" | "cost">;
  /** A new catalog is in use; runs from now on see it. */
  version: RefreshResult & { library: LibraryInfo };
  /** The device's privacy ledger or consent changed. */
  privacy: Privacy;
  /** A step of a training in the background, or that it has to wait. */
  training: TrainProgress & { paused?: Pause };
  /** A training in the background is done. */
  trained: TrainReport;
  /** Something failed that no call was waiting for. */
  error: PatchError;
  close: undefined;
}
