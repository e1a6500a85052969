// What the page and its worker say to each other.

import type { Memory } from "./memory.js";
import type { AdaptOptions, CostLimit, RunOptions, TrainOptions } from "./options.js";
import type { EngineInput } from "./engine.js";
import type { WireInput } from "./input.js";
import type {
  AdaptReport,
  ContributeResult,
  ExampleCounts,
  FeatureVector,
  Graph,
  LearnResult,
  LibraryInfo,
  Preview,
  Privacy,
  RefreshResult,
  RunResult,
  TrainProgress,
  TrainReport,
  Unfinished,
} from "./results.js";
import type { OpenProgress } from "./options.js";

/** What the page keeps of the worker's state, so that it can be read at once. */
export interface Snapshot {
  library: LibraryInfo;
  graph: Graph;
  privacy: Privacy;
}

export interface OpenCall {
  url: string;
  /** A compiled module, where another worker has one already; else where to fetch it. */
  wasm: WebAssembly.Module | string;
  costLimit: CostLimit;
  memoryBytes: number;
  publicKey: string | undefined;
  voucher: string | undefined;
  persist: boolean;
  live: boolean;
}

export interface Opened extends Snapshot {
  module: WebAssembly.Module;
  unfinished: Unfinished | null;
}

type Plain<T> = Omit<T, "signal" | "onProgress">;

export type Calls = {
  open: { argument: OpenCall; result: Opened; progress: OpenProgress };
  run: { argument: { input: WireInput; options: Plain<RunOptions> }; result: RunResult };
  learn: { argument: { input: WireInput; target: string | number | number[] }; result: LearnResult };
  adapt: { argument: { inputs: WireInput[]; options: Plain<AdaptOptions> }; result: AdaptReport };
  /** Opens a stream and gives its number. */
  stream: { argument: { hop: number }; result: number };
  push: { argument: { stream: number; input: WireInput; options: Plain<RunOptions> }; result: RunResult[] };
  /** Ends a stream. */
  end: { argument: number; result: undefined };
  /** A part of a training; the report when it is the last one. */
  slice: {
    argument: { options: Plain<TrainOptions>; slice_ms: number };
    result: TrainReport | null;
    progress: TrainProgress;
  };
  /** What an earlier page has left of a training in slices. */
  unfinished: { argument: undefined; result: Unfinished | null };
  /** Gives up a training in slices. */
  abandon: { argument: undefined; result: undefined };
  train: { argument: Plain<TrainOptions>; result: TrainReport; progress: TrainProgress };
  preview: { argument: undefined; result: Preview };
  contribute: { argument: undefined; result: ContributeResult };
  consent: { argument: boolean; result: Privacy };
  privacy: { argument: undefined; result: Privacy };
  memory: { argument: undefined; result: Memory };
  refresh: { argument: undefined; result: RefreshResult };
  forget: { argument: undefined; result: undefined };
  examples: { argument: undefined; result: ExampleCounts };
  samples: { argument: undefined; result: Uint8Array | null };
  /** Makes the module's instance in a worker that only measures inputs. */
  load: { argument: WebAssembly.Module; result: undefined };
  analyse: { argument: { input: EngineInput; preprocessing: unknown }; result: FeatureVector };
  /** Reads what another worker has stored on the device. */
  reload: { argument: undefined; result: undefined };
};

/** What the worker tells without being asked. */
export type WorkerEvents = {
  snapshot: Snapshot;
  version: RefreshResult;
  problem: { code: string; message: string; hint?: string };
};
