// open(url): from an address to a model that is ready to run.

import type { OpenCall } from "./calls.js";
import { checkOpening } from "./checks.js";
import { memoryLimit } from "./limits.js";
import { Model } from "./model.js";
import type { OpenOptions } from "./options.js";
import { aborted, PatchError } from "./problem.js";
import { bestWasm } from "./simd.js";
import { startWorker } from "./workers.js";

/**
 * Opens a library: `https://host/v1/libraries/<name>`. Nothing is loaded or started before this call.
 *
 * Fails with `network_failed`, `not_found`, `signature_invalid`, `catalog_…`, `blob_mismatch`, `wasm_failed`,
 * `worker_failed`, `unsupported` or `aborted`; a failed open leaves nothing running.
 */
export async function open(url: string | URL, options: OpenOptions = {}): Promise<Model> {
  const {
    onProgress,
    signal,
    costLimit = {},
    memoryBytes,
    publicKey,
    voucher,
    workerUrl,
    wasmUrl,
    storage = "persistent",
    live = true,
    background: { resume = true, ...settings } = {},
  } = options;
  checkOpening(options);
  if (signal?.aborted) throw aborted(signal.reason);
  const call: OpenCall = {
    url: absolute(url).href,
    wasm: (wasmUrl === undefined ? bestWasm() : absolute(wasmUrl)).href,
    costLimit,
    memoryBytes: memoryLimit(memoryBytes, globalThis.navigator as { deviceMemory?: number } | undefined),
    publicKey,
    voucher,
    persist: storage === "persistent",
    live,
  };
  let model: Model | undefined;
  const worker = startWorker(workerUrl, (event, detail) => model?.receive(event, detail));
  try {
    const opened = await worker.channel.call("open", call, { signal, onProgress });
    const { module, unfinished, ...snapshot } = opened;
    model = new Model(worker, workerUrl, { ...call, wasm: module }, snapshot, settings);
    if (resume && unfinished) model.resume(unfinished);
    return model;
  } catch (thrown) {
    worker.stop();
    throw thrown;
  }
}

function absolute(url: string | URL): URL {
  try {
    return new URL(url, globalThis.location?.href);
  } catch (cause) {
    throw new PatchError(
      "request_invalid",
      `"${String(url)}" is not an address`,
      "give https://host/v1/libraries/<name>",
      {
        cause,
      },
    );
  }
}
