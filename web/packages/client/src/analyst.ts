// A second worker that measures an input while this one already runs the model's first segment.

import { Channel } from "./channel.js";
import type { Calls } from "./calls.js";
import type { Engine, EngineInput } from "./engine.js";
import type { RunResult } from "./results.js";

/** What two messages between workers take on a middling device; replaced by what they take here. */
const TYPICAL_HANDOVER_MS = 0.3;
const PROBES = 5;

export class Analyst {
  #channel: Channel<Calls> | undefined;
  #handoverMs = TYPICAL_HANDOVER_MS;
  #starting = false;

  constructor(private readonly module: WebAssembly.Module) {}

  /** Runs with the analysis beside the first segment where the engine's own times say that it pays; else alone. */
  async run(engine: Engine, input: EngineInput, options: object): Promise<RunResult> {
    if (!engine.overlap_pays(this.#handoverMs)) return engine.run(input, options);
    if (!this.#channel) {
      // This run does not wait for a worker to start.
      void this.#start();
      return engine.run(input, options);
    }
    const { preprocessing } = engine.library();
    // An analyst that fails leaves the analysis to the engine.
    const features = this.#channel.call("analyse", { input, preprocessing }).catch(() => null);
    const pending = engine.begin(input);
    return engine.finish(pending, await features, options);
  }

  async #start(): Promise<void> {
    if (this.#starting) return;
    this.#starting = true;
    try {
      // A worker's worker is the same script, and ends with it.
      const worker = new Worker(self.location.href, { type: "module" });
      const channel = new Channel<Calls>(worker, () => undefined);
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        this.#channel = undefined;
        channel.end();
      });
      await channel.call("load", this.module);
      const times: number[] = [];
      for (let probe = 0; probe < PROBES; probe++) {
        const began = performance.now();
        await channel.call("load", this.module);
        times.push(performance.now() - began);
      }
      this.#handoverMs = times.sort((a, b) => a - b)[PROBES >> 1] ?? TYPICAL_HANDOVER_MS;
      this.#channel = channel;
    } catch {
      // Without a second worker everything still runs, one after the other.
    }
  }
}
