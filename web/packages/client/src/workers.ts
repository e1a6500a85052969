// Starts module workers and turns their silent failures into errors that say what to do.

import { Channel } from "./channel.js";
import type { Calls } from "./calls.js";
import { PatchError } from "./problem.js";

export interface Started {
  channel: Channel<Calls>;
  stop(): void;
}

export function startWorker(
  workerUrl: string | URL | undefined,
  onEvent: (event: string, detail: unknown) => void,
): Started {
  if (typeof Worker === "undefined")
    throw new PatchError(
      "unsupported",
      "this environment has no Worker",
      "open() runs in browsers; on a server, import the package but call open() in the page",
    );
  const worker = make(workerUrl);
  const channel = new Channel<Calls>(worker, (event, detail) => {
    if (event !== "alive") return onEvent(event, detail);
    watchOver(detail as string, stopped.signal, () => end(broken("it was ended by the browser")));
  });
  const stopped = new AbortController();
  const end = (problem?: PatchError): void => {
    channel.end(problem);
    stopped.abort();
    worker.terminate();
  };
  let loaded = false;
  worker.addEventListener("message", () => (loaded = true), { once: true });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    end(loaded ? broken(event.message) : unloadable(event.message));
  });
  return { channel, stop: end };
}

/**
 * Nothing tells a page that a worker is gone. So the worker holds a lock as long as it lives, and the page waits for
 * that lock. Where there are no locks (a page without https), a worker that vanishes is not noticed.
 */
function watchOver(lock: string, stopped: AbortSignal, gone: () => void): void {
  const waiting = navigator.locks.request(lock, { signal: stopped }, async () => gone());
  // Rejected when the worker is stopped: then nobody needs to hear of its end.
  waiting.catch(() => undefined);
}

function unloadable(message: string): PatchError {
  return new PatchError(
    "worker_failed",
    message || "the worker script cannot be loaded or ended with an error",
    "allow it in worker-src, or set workerUrl to where worker.js is served from your own origin",
  );
}

function broken(message: string): PatchError {
  const memory = /memory|unreachable/i.test(message)
    ? "; the device may be out of memory: try a smaller input"
    : "";
  return new PatchError(
    "worker_failed",
    `the worker ended while it worked: ${message}`,
    `call again, the next call starts a fresh worker${memory}`,
  );
}

function make(workerUrl: string | URL | undefined): Worker {
  try {
    // Bundlers find the worker by exactly this expression.
    if (workerUrl === undefined)
      return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    return new Worker(workerUrl, { type: "module" });
  } catch (cause) {
    throw new PatchError(
      "worker_failed",
      cause instanceof Error ? cause.message : "the worker cannot be made",
      "serve worker.js from your own origin and set workerUrl, and allow it in worker-src",
      { cause },
    );
  }
}
