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
  const channel = new Channel<Calls>(worker, onEvent);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    channel.end(
      new PatchError(
        "worker_failed",
        event.message || "the worker script cannot be loaded or ended with an error",
        "allow it in worker-src, or set workerUrl to where worker.js is served from your own origin",
      ),
    );
  });
  return {
    channel,
    stop() {
      channel.end();
      worker.terminate();
    },
  };
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
