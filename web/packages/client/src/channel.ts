// Calls over a message port: ids, transfer, cancelling, progress and events, typed from end to end.

import { checkSignal } from "./checks.js";
import { aborted, closed, PatchError, type ProblemShape } from "./problem.js";

/** What a table of calls looks like: name → (argument) => result. */
export type CallTable = Record<string, { argument: unknown; result: unknown; progress?: unknown }>;

type Request<T extends CallTable> = {
  [K in keyof T]: { id: number; call: K; argument: T[K]["argument"] };
}[keyof T];
type ToWorker<T extends CallTable> = Request<T> | { cancel: number };
type FromWorker =
  | { id: number; value: unknown }
  | { id: number; problem: ProblemShape }
  | { id: number; progress: unknown }
  | { event: string; detail: unknown };

/** The part of Worker and MessagePort that is needed here. */
export interface Port {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: PatchError): void;
  progress: ((value: unknown) => void) | undefined;
}

export interface CallOptions<P> {
  signal?: AbortSignal | undefined;
  transfer?: Transferable[] | undefined;
  onProgress?: ((progress: P) => void) | undefined;
}

/** The calling side. */
export class Channel<T extends CallTable> {
  readonly #port: Port;
  readonly #onEvent: (event: string, detail: unknown) => void;
  readonly #pending = new Map<number, Pending>();
  #next = 1;
  #ended: PatchError | undefined;

  constructor(port: Port, onEvent: (event: string, detail: unknown) => void) {
    this.#port = port;
    this.#onEvent = onEvent;
    port.addEventListener("message", (event) => this.#receive(event.data as FromWorker));
  }

  /** Why no call is answered any more, where that is so. */
  get ended(): PatchError | undefined {
    return this.#ended;
  }

  /** Fails every call that is under way, and every later one. */
  end(error: PatchError = closed()): void {
    this.#ended ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
  }

  call<K extends keyof T & string>(
    call: K,
    argument: T[K]["argument"],
    { signal, transfer = [], onProgress }: CallOptions<T[K]["progress"]> = {},
  ): Promise<T[K]["result"]> {
    if (this.#ended) return Promise.reject(this.#ended);
    try {
      checkSignal(signal);
    } catch (thrown) {
      return Promise.reject(PatchError.from(thrown));
    }
    if (signal?.aborted) return Promise.reject(aborted(signal.reason));
    const id = this.#next++;
    return new Promise<T[K]["result"]>((resolve, reject) => {
      const cancel = (): void => {
        this.#pending.delete(id);
        this.#post({ cancel: id });
        reject(aborted(signal?.reason));
      };
      const settle = (): void => signal?.removeEventListener("abort", cancel);
      this.#pending.set(id, {
        resolve: (value) => (settle(), resolve(value as T[K]["result"])),
        reject: (error) => (settle(), reject(error)),
        progress: onProgress as ((value: unknown) => void) | undefined,
      });
      signal?.addEventListener("abort", cancel, { once: true });
      try {
        this.#post({ id, call, argument } as Request<T>, transfer);
      } catch (thrown) {
        this.#take(id)?.reject(PatchError.from(thrown, "input_invalid"));
      }
    });
  }

  #post(message: ToWorker<T>, transfer: Transferable[] = []): void {
    this.#port.postMessage(message, transfer);
  }

  #receive(message: FromWorker): void {
    if ("event" in message) this.#onEvent(message.event, message.detail);
    else if ("progress" in message) this.#pending.get(message.id)?.progress?.(message.progress);
    else if ("problem" in message) this.#take(message.id)?.reject(PatchError.from(message.problem));
    else this.#take(message.id)?.resolve(message.value);
  }

  /** A cancelled call is no longer pending, so its late answer is dropped here. */
  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }
}

export interface Task<P> {
  signal: AbortSignal;
  progress(value: P): void;
}

export type Handlers<T extends CallTable> = {
  [K in keyof T]: (argument: T[K]["argument"], task: Task<T[K]["progress"]>) => Promise<T[K]["result"]>;
};

/** The answering side: what it needs to emit events and to queue work of its own. */
export interface Server {
  emit(event: string, detail: unknown): void;
  /** Runs after everything that is queued: calls never overlap, so no borrow is held over an await. */
  enqueue<R>(work: () => Promise<R>): Promise<R>;
}

export function serve<T extends CallTable>(port: Port, handlers: Handlers<T>): Server {
  const running = new Map<number, AbortController>();
  let tail: Promise<unknown> = Promise.resolve();
  const post = (message: FromWorker): void => port.postMessage(message, []);
  const enqueue = <R>(work: () => Promise<R>): Promise<R> => {
    const result = tail.then(work);
    tail = result.catch(() => undefined);
    return result;
  };
  port.addEventListener("message", (event) => {
    const message = event.data as ToWorker<T>;
    if ("cancel" in message) return running.get(message.cancel)?.abort();
    const { id, call, argument } = message;
    const abort = new AbortController();
    running.set(id, abort);
    void enqueue(async () => {
      if (abort.signal.aborted) throw aborted();
      return handlers[call](argument, {
        signal: abort.signal,
        progress: (progress) => post({ id, progress }),
      });
    })
      .then(
        (value) => post({ id, value }),
        (thrown: unknown) => {
          // What a trap leaves behind cannot be relied on: the other side hears of it as of any end of a worker.
          if (thrown instanceof WebAssembly.RuntimeError) return reportError(thrown);
          post({ id, problem: PatchError.from(thrown).toJSON() });
        },
      )
      .finally(() => running.delete(id));
  });
  return { emit: (event, detail) => post({ event, detail }), enqueue };
}
