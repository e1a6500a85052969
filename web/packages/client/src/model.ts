// An open library: what a page holds.

import { trainInBackground } from "./background.js";
import type { OpenCall, Snapshot } from "./calls.js";
import { checkCostLimit, checkEpochs, checkSignal } from "./checks.js";
import { cross } from "./input.js";
import { idle, type BackgroundSettings } from "./idle.js";
import type { Memory } from "./memory.js";
import type {
  AdaptOptions,
  CallOptions,
  Input,
  ModelEvents,
  RunOptions,
  StreamOptions,
  TrainOptions,
} from "./options.js";
import { aborted, closed, PatchError } from "./problem.js";
import type {
  AdaptReport,
  ContributeResult,
  ExampleCounts,
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
import { Station } from "./station.js";
import { Stream } from "./stream.js";
import { startWorker, type Started } from "./workers.js";

type Listener<K extends keyof ModelEvents> = (detail: ModelEvents[K]) => void;

/** A training in the background. */
interface Training {
  key: string;
  abort: AbortController;
  report: Promise<TrainReport | undefined>;
}

const keyOf = ({ epochs, patches, seed = 0 }: TrainOptions): string =>
  JSON.stringify([epochs ?? null, patches ?? null, seed]);

/** Made by `open`. Every call takes an AbortSignal and rejects with a PatchError. */
export class Model {
  readonly #station: Station;
  readonly #workerUrl: string | URL | undefined;
  readonly #call: OpenCall;
  readonly #listeners = new Map<keyof ModelEvents, Set<Listener<never>>>();
  readonly #settings: BackgroundSettings;
  readonly #closing = new AbortController();
  #training: Training | undefined;
  #snapshot: Snapshot;
  #closed = false;

  /** @internal */
  constructor(
    worker: Started,
    workerUrl: string | URL | undefined,
    call: OpenCall,
    snapshot: Snapshot,
    settings: BackgroundSettings,
  ) {
    this.#workerUrl = workerUrl;
    this.#settings = settings;
    this.#call = call;
    this.#snapshot = snapshot;
    const start = (): Started => startWorker(workerUrl, (event, detail) => this.receive(event, detail));
    this.#station = new Station(worker, call, start, (opened) => this.receive("snapshot", opened));
  }

  /** The library as this device sees it now; replaced when a new version arrives. */
  get library(): LibraryInfo {
    return this.#snapshot.library;
  }

  /** The primary model's segments and the patches between them. */
  get graph(): Graph {
    return this.#snapshot.graph;
  }

  /** The device's own privacy ledger. */
  get privacy(): Privacy {
    return this.#snapshot.privacy;
  }

  /** Analyses the input, selects patches, stitches them in and runs. */
  async run(input: Input, { signal, ...options }: RunOptions = {}): Promise<RunResult> {
    checkSignal(signal);
    checkCostLimit(options.costLimit ?? {});
    const crossing = async () => {
      const { input: wire, transfer } = await cross(input);
      return { argument: { input: wire, options }, transfer };
    };
    const result = await this.#station.call("run", crossing, { signal });
    const { version, patches, cost } = result;
    this.#emit("stitch", { version, patches, cost });
    return result;
  }

  /**
   * Keeps an example on this device: the input and its right label, by name or index, or the numbers that the model
   * should answer. On a device without room it fails with `storage_full`; the example is then used from memory until the page is closed, and stored with the
   * next one that fits.
   */
  async learn(
    input: Input,
    target: string | number | number[],
    { signal }: CallOptions = {},
  ): Promise<LearnResult> {
    const crossing = async () => {
      const { input: wire, transfer } = await cross(input);
      return { argument: { input: wire, target }, transfer };
    };
    return this.#station.call("learn", crossing, { signal });
  }

  /**
   * Trains the trainable patches on the kept examples, in a worker of its own, so that runs go on meanwhile.
   * A cancelled training leaves everything as it was.
   */
  async train(given: TrainOptions = {}): Promise<TrainReport> {
    const { signal, onProgress, background = false, ...options } = given;
    checkSignal(signal);
    checkEpochs(options.epochs);
    if (this.#closed) throw closed();
    // What is not stored is known to the first worker alone; runs wait for such a training.
    const inMemory =
      !this.#call.persist || (await this.#station.call("examples", undefined, { signal })).unsaved > 0;
    if (background && !inMemory) return this.#inBackground(given);
    if (background) await idle(signal);
    if (inMemory) return this.#station.call("train", options, { signal, onProgress });
    const trainer = startWorker(this.#workerUrl, () => undefined);
    const end = (): void => trainer.stop();
    this.#closing.signal.addEventListener("abort", end);
    try {
      await trainer.channel.call("open", { ...this.#call, live: false }, { signal });
      const report = await trainer.channel.call("train", options, { signal, onProgress });
      await this.#station.call("reload", undefined, { signal });
      return report;
    } finally {
      // Wasm memory never shrinks, so the worker ends with its work; ending it is also what cancels a step.
      trainer.stop();
      this.#closing.signal.removeEventListener("abort", end);
    }
  }

  /**
   * Adapts the patches that allow it to inputs whose right answers nobody knows, eight at least: by making the answers
   * more certain. The outcome stays on this device, and runs use it if it keeps its promise.
   */
  async adapt(inputs: Input[], { signal, ...options }: AdaptOptions = {}): Promise<AdaptReport> {
    if (!Array.isArray(inputs))
      throw new PatchError("input_invalid", `the inputs are a ${typeof inputs}`, "give a list of inputs");
    const crossing = async () => {
      const crossed = await Promise.all(inputs.map(cross));
      const transfer = crossed.flatMap((each) => each.transfer);
      return { argument: { inputs: crossed.map((each) => each.input), options }, transfer };
    };
    return this.#station.call("adapt", crossing, { signal });
  }

  /** Opens a stream of inputs: moments of a series, or frames. */
  async stream({ hop = 1, ...options }: StreamOptions = {}, { signal }: CallOptions = {}): Promise<Stream> {
    const id = await this.#station.call("stream", { hop }, { signal });
    return new Stream(this.#station, id, options);
  }

  /** @internal Goes on with a training that an earlier page has left. */
  resume({ options: { epochs, patches, seed } }: Unfinished): void {
    const options = { ...(epochs !== null && { epochs }), ...(patches !== null && { patches }), seed };
    void this.#slices(options, true).catch((thrown: unknown) => {
      if (PatchError.from(thrown).code !== "aborted" && !this.#closed)
        this.#emit("error", PatchError.from(thrown));
    });
  }

  async #inBackground({ signal, onProgress, ...options }: TrainOptions): Promise<TrainReport> {
    const stop = onProgress && this.on("training", (progress) => progress.paused ?? onProgress(progress));
    const cancel = (): void => this.#training?.abort.abort(signal?.reason);
    if (signal?.aborted) throw aborted(signal.reason);
    signal?.addEventListener("abort", cancel);
    try {
      // One that goes on since the page was opened is the one that this call asks for.
      const under = this.#training;
      const joined = under?.key === keyOf(options) ? await under.report : void (await under?.report);
      return joined ?? (await this.#slices(options, false))!;
    } finally {
      signal?.removeEventListener("abort", cancel);
      stop?.();
    }
  }

  /** `undefined` where there was nothing to resume. */
  #slices({ background: _, ...options }: TrainOptions, resume: boolean): Promise<TrainReport | undefined> {
    let last: TrainProgress = { step: 0, steps: 0, epoch: 0, loss: 0 };
    const abort = new AbortController();
    const slices = trainInBackground({
      opening: this.#call,
      start: () => startWorker(this.#workerUrl, () => undefined),
      settings: this.#settings,
      options,
      resume,
      signal: abort.signal,
      closing: this.#closing.signal,
      onProgress: (progress) => this.#emit("training", (last = progress)),
      onPause: (paused) => this.#emit("training", { ...last, paused }),
    });
    const report = slices
      .then(async (done) => {
        await this.#station.call("reload", undefined);
        if (done) this.#emit("trained", done);
        return done;
      })
      .catch((thrown: unknown) => Promise.reject(this.#closed ? closed() : thrown))
      .finally(() => (this.#training = undefined));
    this.#training = { key: keyOf(options), abort, report };
    return report;
  }

  /** The exact bytes that `contribute` would send now. Sends nothing. */
  preview({ signal }: CallOptions = {}): Promise<Preview> {
    return this.#station.call("preview", undefined, { signal });
  }

  /** Sends the clipped update once consent, budget and round allow it; else says why not. */
  contribute({ signal }: CallOptions = {}): Promise<ContributeResult> {
    return this.#station.call("contribute", undefined, { signal });
  }

  /** Switches contributing on or off. It is off until this is called with `true`. */
  consent(given: boolean, { signal }: CallOptions = {}): Promise<Privacy> {
    return this.#station.call("consent", given, { signal });
  }

  /** Deletes examples and personal weights from this device. The privacy ledger stays: it protects. */
  async forget({ signal }: CallOptions = {}): Promise<void> {
    await this.#station.call("forget", undefined, { signal });
  }

  /** How many examples are kept here, by label. */
  examples({ signal }: CallOptions = {}): Promise<ExampleCounts> {
    return this.#station.call("examples", undefined, { signal });
  }

  /** The library's built-in samples as bytes, if it has some. */
  samples({ signal }: CallOptions = {}): Promise<Uint8Array | null> {
    return this.#station.call("samples", undefined, { signal });
  }

  /** What is compiled here now, and how often something had to make room. */
  memory({ signal }: CallOptions = {}): Promise<Memory> {
    return this.#station.call("memory", undefined, { signal });
  }

  /** Asks the server for a new version now; an open model also follows by itself. */
  refresh({ signal }: CallOptions = {}): Promise<RefreshResult> {
    return this.#station.call("refresh", undefined, { signal });
  }

  /** Listens; the returned function stops listening. */
  on<K extends keyof ModelEvents>(event: K, listener: Listener<K>): () => void {
    if (typeof listener !== "function")
      throw new PatchError("request_invalid", `the listener is ${String(listener)}`, "give a function");
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener as Listener<never>));
    return () => void listeners.delete(listener as Listener<never>);
  }

  /** Ends the workers and frees their memory. Calls under way reject with `closed`. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#closing.abort();
    this.#station.close();
    this.#emit("close", undefined);
    this.#listeners.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal What the worker tells without being asked. */
  receive(event: string, detail: unknown): void {
    if (event === "snapshot") {
      this.#snapshot = detail as Snapshot;
      this.#emit("privacy", this.#snapshot.privacy);
    } else if (event === "version") {
      this.#emit("version", { ...(detail as RefreshResult), library: this.library });
    } else if (event === "problem") {
      this.#emit("error", PatchError.from(detail));
    }
  }

  #emit<K extends keyof ModelEvents>(event: K, detail: ModelEvents[K]): void {
    for (const listener of this.#listeners.get(event) ?? [])
      try {
        (listener as Listener<K>)(detail);
      } catch (thrown) {
        // As for any listener of the platform: the page's error, not that of the call that it heard of.
        reportError(thrown);
      }
  }
}
