// The wasm client as this package uses it, and the way to load it.

import init, { analyse, Client } from "../wasm/backstitch.js";
import type { Pixels } from "./decode.js";
import type { OpenCall } from "./calls.js";
import type { Memory } from "./memory.js";
import type { OpenProgress, TensorInput } from "./options.js";
import { PatchError } from "./problem.js";
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

export type EngineInput = Pixels | TensorInput | string;

/** A run whose first segment is done. */
export type Pending = object;

/** Inputs that follow each other; its memory is the engine's. */
export interface Stream {
  free(): void;
}

/** The exports of the wasm client; every method throws `{ code, message, hint }`. */
export interface Engine {
  run(input: EngineInput, options: object): Promise<RunResult>;
  /** The same in two steps, so that another worker may measure the input between them. */
  begin(input: EngineInput): Pending;
  finish(pending: Pending, features: FeatureVector | null, options: object): Promise<RunResult>;
  /** Measures one patch that was never run here; false when there is none left. */
  warm(): boolean;
  overlap_pays(handover_ms: number): boolean;
  learn(input: EngineInput, target: string | number | number[]): Promise<LearnResult>;
  train(options: object, progress: (value: TrainProgress) => void): Promise<TrainReport>;
  train_slice(
    options: object,
    slice_ms: number,
    progress: (value: TrainProgress) => void,
  ): Promise<TrainReport | null>;
  unfinished(): Promise<Unfinished | null>;
  abandon(): Promise<void>;
  adapt(inputs: EngineInput[], options: object): Promise<AdaptReport>;
  stream(hop: number): Stream;
  push(stream: Stream, input: EngineInput, options: object): Promise<RunResult[]>;
  preview(): Promise<Preview>;
  contribute(): Promise<ContributeResult>;
  consent(given: boolean): Promise<Privacy>;
  privacy(): Promise<Privacy> | Privacy;
  refresh(): Promise<RefreshResult>;
  forget(): Promise<void>;
  examples(): Promise<ExampleCounts> | ExampleCounts;
  samples(): Promise<Uint8Array | null>;
  graph(): Graph;
  library(): LibraryInfo;
  memory(): Memory;
  close(): void;
}

type EngineProgress = Omit<OpenProgress, "overall">;

/** Asks for the catalog of a library, so that it is on its way while the module is loaded. */
export function askForCatalog(url: string, signal: AbortSignal): Promise<Response> {
  const answer = fetch(`${url.replace(/\/+$/, "")}/catalog`, { cache: "no-cache", signal });
  // Whoever takes the answer hears of it; nobody else does.
  answer.catch(() => undefined);
  return answer;
}

export async function openEngine(
  call: OpenCall,
  signal: AbortSignal,
  onProgress: (progress: EngineProgress) => void,
  catalog?: Promise<Response>,
): Promise<Engine> {
  const options = {
    catalog,
    public_key: call.publicKey,
    voucher: call.voucher,
    cost_limit_ms: call.costLimit.ms ?? undefined,
    cost_limit_bytes: call.costLimit.bytes ?? undefined,
    gain_per_ms: call.costLimit.gainPerMs ?? undefined,
    memory_limit_bytes: call.memoryBytes,
    persist: call.persist,
    signal,
  };
  return (await Client.open(call.url, options as never, onProgress)) as unknown as Engine;
}

/** Measures an input in a worker that has no client. */
export function measure(input: EngineInput, preprocessing: unknown): FeatureVector {
  return analyse(input as never, preprocessing as never) as FeatureVector;
}

/** Compiles the module where it was not handed over, and makes this worker's own instance of it. */
export async function loadWasm(wasm: WebAssembly.Module | string): Promise<WebAssembly.Module> {
  const module = typeof wasm === "string" ? await compile(wasm) : wasm;
  await init({ module_or_path: module });
  return module;
}

async function compile(url: string): Promise<WebAssembly.Module> {
  const failed = (what: string, hint: string, cause?: unknown): PatchError =>
    new PatchError("wasm_failed", `${url}: ${what}`, hint, { cause });
  let response: Response;
  try {
    response = await fetch(url);
  } catch (cause) {
    throw failed(
      "cannot be fetched",
      "allow the address in connect-src, or set wasmUrl to where the file is",
      cause,
    );
  }
  const type = response.headers.get("content-type") ?? "no type";
  if (!response.ok || type.startsWith("text/html"))
    throw failed(
      `answered ${response.status} with ${type}`,
      "serve client_bg.wasm there as application/wasm, or set wasmUrl to where it is",
    );
  try {
    // Compiling while loading needs the right type; any other type still works, only later.
    return await (type.startsWith("application/wasm")
      ? WebAssembly.compileStreaming(response)
      : WebAssembly.compile(await response.arrayBuffer()));
  } catch (cause) {
    throw failed(
      cause instanceof Error ? cause.message : "does not compile",
      "allow 'wasm-unsafe-eval' in script-src; if it is allowed, the file is damaged: deploy it again",
      cause,
    );
  }
}
