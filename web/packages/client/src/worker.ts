// The module worker: it alone owns the wasm client, so that the page never waits for arithmetic.

import { serve } from "./channel.js";
import type { Calls, OpenCall, Snapshot } from "./calls.js";
import { Analyst } from "./analyst.js";
import { decode } from "./decode.js";
import { askForCatalog, loadWasm, measure, openEngine, type Engine, type Stream } from "./engine.js";
import { idle } from "./idle.js";
import { wholeProgress } from "./progress.js";
import type { CostLimit } from "./options.js";
import { PatchError } from "./problem.js";
import { eventsUrl, watch, type Watch } from "./watch.js";

let engine: Engine | undefined;
let analyst: Analyst | undefined;
let opened: OpenCall | undefined;
let following: Watch | undefined;

function current(): Engine {
  if (!engine) throw new PatchError("closed", "no library is open in this worker", "call open() first");
  return engine;
}

async function snapshot(): Promise<Snapshot> {
  const { library, graph, privacy } = {
    library: current().library(),
    graph: current().graph(),
    privacy: current().privacy(),
  };
  return { library, graph, privacy: await privacy };
}

/** Sends the new state before the answer that caused it, so that a caller who awaited sees it. */
async function changed<T>(result: T): Promise<T> {
  server.emit("snapshot", await snapshot());
  return result;
}

const decoded = (input: Parameters<typeof decode>[0]): ReturnType<typeof decode> =>
  decode(input, current().library().modality);

const limits = (limit: CostLimit | undefined): object => ({
  ...(limit?.ms !== undefined && { cost_limit_ms: limit.ms }),
  ...(limit?.bytes !== undefined && { cost_limit_bytes: limit.bytes }),
  ...(limit?.gainPerMs !== undefined && { gain_per_ms: limit.gainPerMs }),
});

const runOptions = ({ costLimit, deadlineMs, ...rest }: Calls["run"]["argument"]["options"]): object => ({
  ...rest,
  ...(deadlineMs !== undefined && { deadline_ms: deadlineMs }),
  ...limits(costLimit),
});

/** By number; a fresh worker has none. */
const streams = new Map<number, Stream>();
let streamed = 0;

function follow(library: string): void {
  if (!opened?.live || typeof EventSource === "undefined") return;
  following = watch({
    events: eventsUrl(opened.url),
    library,
    onChange: (version) => void server.enqueue(() => catchUp(version)),
  });
}

async function catchUp(announced: number | undefined): Promise<void> {
  try {
    if (announced !== undefined && announced <= current().library().catalog_version) return;
    const result = await current().refresh();
    if (!result.changed) return;
    server.emit("version", await changed(result));
    void warmUp();
  } catch (thrown) {
    server.emit("problem", PatchError.from(thrown).toJSON());
  }
}

/** Compiles and measures patches one by one while no call is waiting, so that a selection knows what they take here. */
async function warmUp(): Promise<void> {
  try {
    do await idle();
    while (await server.enqueue(async () => current().warm()));
  } catch {
    // A patch that does not run here shows in the runs that choose it.
  }
}

const server = serve<Calls>(self as unknown as DedicatedWorkerGlobalScope, {
  async open(call, { signal, progress }) {
    const report = wholeProgress(progress);
    report({ stage: "wasm", name: "client_bg.wasm", loaded_bytes: 0, total_bytes: 0 });
    const catalog = askForCatalog(call.url, signal);
    const module = await loadWasm(call.wasm);
    engine = await openEngine(call, signal, report, catalog);
    opened = call;
    analyst = new Analyst(module);
    follow(engine.library().name);
    if (call.live) void warmUp();
    const [state, unfinished] = await Promise.all([snapshot(), engine.unfinished()]);
    return { ...state, module, unfinished };
  },
  async run({ input, options }, { signal }) {
    const prepared = await decoded(input);
    const all = { ...runOptions(options), signal };
    return analyst ? analyst.run(current(), prepared, all) : current().run(prepared, all);
  },
  async learn({ input, target }) {
    return changed(await current().learn(await decoded(input), target));
  },
  async train(options, { signal, progress }) {
    return changed(await current().train({ ...options, signal }, progress));
  },
  async adapt({ inputs, options }, { signal }) {
    const all = await Promise.all(inputs.map(decoded));
    return changed(await current().adapt(all, { ...options, signal }));
  },
  async stream({ hop }) {
    streams.set(++streamed, current().stream(hop));
    return streamed;
  },
  async push({ stream, input, options }, { signal }) {
    const found = streams.get(stream);
    if (!found)
      throw new PatchError("closed", "this stream ended with its worker", "open a new one with stream()");
    return current().push(found, await decoded(input), { ...runOptions(options), signal });
  },
  async end(stream) {
    streams.get(stream)?.free();
    streams.delete(stream);
    return undefined;
  },
  slice: async ({ options, slice_ms }, { signal, progress }) =>
    current().train_slice({ ...options, signal }, slice_ms, progress),
  unfinished: async () => current().unfinished(),
  async abandon() {
    await current().abandon();
    return undefined;
  },
  preview: async () => current().preview(),
  contribute: async () => changed(await current().contribute()),
  consent: async (given) => changed(await current().consent(given)),
  privacy: async () => current().privacy(),
  memory: async () => current().memory(),
  async refresh() {
    const result = await current().refresh();
    if (result.changed) server.emit("version", await changed(result));
    return result;
  },
  async forget() {
    await current().forget();
    return changed(undefined);
  },
  examples: async () => current().examples(),
  samples: async () => current().samples(),
  async load(module) {
    await loadWasm(module);
    return undefined;
  },
  analyse: async ({ input, preprocessing }) => measure(input, preprocessing),
  async reload(_, { signal }) {
    if (!opened) return undefined;
    const next = await openEngine(opened, signal, () => undefined);
    engine?.close();
    engine = next;
    return changed(undefined);
  },
});

self.addEventListener("close", () => following?.stop());

/** Holds a lock as long as this worker lives, and tells its name: see `watchOver` on the page. */
function live(): void {
  if (!("locks" in navigator)) return;
  const name = `backstitch-worker-${crypto.randomUUID()}`;
  const held = navigator.locks.request(name, () => {
    server.emit("alive", name);
    return new Promise(() => undefined);
  });
  // Where locks are refused, nobody watches.
  held.catch(() => undefined);
}

live();
