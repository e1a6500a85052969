// The bench's worker: one engine of each kind, side by side.

import init from "../wasm/bench.js";
import { inference, prepareOrt } from "./inference.js";
import { fused, library, memory, segments } from "./stitching.js";
import { prepareTfjs, training } from "./training.js";

let exports;

const work = {
  async start({ wasm, ort, tfjs }) {
    exports = await init({ module_or_path: wasm });
    prepareOrt(ort);
    prepareTfjs(tfjs);
    return { cross_origin_isolated: self.crossOriginIsolated };
  },
  inference: ([config, options]) => inference(config, options),
  segments: ([config, options]) => segments(config, options),
  fused: ([config, options]) => fused(config, options),
  library: ([config, options]) => library(config, options),
  training: ([config, options]) => training(config, options),
  memory: ([config]) => memory(config, () => exports.memory.buffer.byteLength),
};

self.onmessage = async ({ data: { what, given } }) => {
  try {
    self.postMessage({ done: await work[what](given) });
  } catch (cause) {
    self.postMessage({ failed: cause.stack ?? String(cause) });
  }
};
