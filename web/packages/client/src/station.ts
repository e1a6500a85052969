// The worker with the open library; where it ends before its time, another one takes its place.

import type { CallOptions } from "./channel.js";
import type { Calls, OpenCall } from "./calls.js";
import { closed, PatchError } from "./problem.js";
import type { Started } from "./workers.js";

/** Calls that change nothing, so that asking a second time is safe. */
const SAFE: ReadonlySet<keyof Calls> = new Set([
  "run",
  "examples",
  "samples",
  "privacy",
  "preview",
  "refresh",
]);

/** What crosses for one attempt; a transferred buffer is gone with its worker, so it is made anew. */
export interface Crossing<A> {
  argument: A;
  transfer?: Transferable[] | undefined;
}

export class Station {
  #worker: Started | Promise<Started>;
  #closed = false;

  /** `start` makes a worker in which nothing is open yet; `onReopened` hears of what a fresh one has opened. */
  constructor(
    worker: Started,
    private readonly opening: OpenCall,
    private readonly start: () => Started,
    private readonly onReopened: (snapshot: Calls["open"]["result"]) => void,
  ) {
    this.#worker = worker;
  }

  /** Asks the worker. A worker that is gone is replaced; what is safe is asked again, once. */
  async call<K extends keyof Calls & string>(
    call: K,
    cross: Calls[K]["argument"] | (() => Promise<Crossing<Calls[K]["argument"]>>),
    options: Omit<CallOptions<never>, "transfer"> = {},
  ): Promise<Calls[K]["result"]> {
    for (let again = SAFE.has(call); ; again = false) {
      const worker = await this.#ready(options.signal);
      const made = typeof cross === "function" ? await cross() : { argument: cross };
      try {
        const all = { ...options, transfer: made.transfer };
        return await worker.channel.call(call, made.argument, all as never);
      } catch (thrown) {
        if (this.#closed || !worker.channel.ended || !again) throw thrown;
      }
    }
  }

  close(): void {
    this.#closed = true;
    if (!(this.#worker instanceof Promise)) this.#worker.stop();
  }

  async #ready(signal: AbortSignal | undefined): Promise<Started> {
    const worker = await this.#worker;
    if (this.#closed) throw closed();
    if (!worker.channel.ended) return worker;
    // Of several calls that find it gone, one replaces it.
    if (this.#worker === worker) {
      const fresh = this.#replace();
      this.#worker = fresh;
      fresh.then(
        (started) => (this.#worker = started),
        () => (this.#worker = worker),
      );
    }
    return this.#ready(signal);
  }

  async #replace(): Promise<Started> {
    const fresh = this.start();
    try {
      this.onReopened(await fresh.channel.call("open", this.opening));
      if (this.#closed) throw closed();
      return fresh;
    } catch (thrown) {
      fresh.stop();
      throw PatchError.from(thrown);
    }
  }
}
