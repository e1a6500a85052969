// A whole model, ours beside onnxruntime-web.

import * as ort from "onnxruntime-web/wasm";
import { Uncut } from "../wasm/bench.js";
import { compare, difference, numbers } from "./timing.js";

const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());

export function prepareOrt(folder) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = "error";
}

export async function ortSession(file) {
  return ort.InferenceSession.create(file, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
}

/** The inputs of a model, as typed arrays with shapes. */
function feeds(inputs) {
  return Object.entries(inputs).map(([name, { shape, kind }]) => {
    const count = shape.reduce((product, size) => product * size, 1);
    if (kind === "tokens") {
      // [CLS], words, [SEP], as in a vocabulary of some thirty thousand.
      const ids = BigInt64Array.from(numbers(count), (share) => BigInt(1000 + Math.floor(share * 28_000)));
      ids[0] = 101n;
      ids[count - 1] = 102n;
      return { name, shape, data: ids };
    }
    if (kind === "ones") return { name, shape, data: new BigInt64Array(count).fill(1n) };
    return { name, shape, data: numbers(count).map((share) => 2 * share - 1) };
  });
}

/** One model: `ours` is the file that we run, `theirs` the files that onnxruntime-web may run, by name. */
export async function inference({ name, shipped, ours, theirs, inputs, output }, options) {
  const given = feeds(inputs);
  const model = new Uncut(await bytes(ours));
  model.only(output);
  const feed = () => {
    for (const { name, shape, data } of given) {
      if (data instanceof BigInt64Array) model.feed_i64(name, Uint32Array.from(shape), data);
      else model.feed_f32(name, Uint32Array.from(shape), data);
    }
  };
  feed();
  const began = performance.now();
  model.compile();
  const compile_ms = performance.now() - began;
  const variants = {
    ours() {
      feed();
      return model.run();
    },
  };
  const sessions = [];
  const differences = {};
  for (const [label, url] of Object.entries(theirs)) {
    const session = await ortSession(await bytes(url));
    sessions.push(session);
    const run = async () => {
      const tensors = given.map(({ name, shape, data }) => [
        name,
        new ort.Tensor(data instanceof BigInt64Array ? "int64" : "float32", data, shape),
      ]);
      const made = await session.run(Object.fromEntries(tensors), [output]);
      return made[output].data;
    };
    differences[label] = difference([...variants.ours()], [...(await run())]);
    variants[label] = run;
  }
  const result = await compare(variants, options);
  model.free();
  for (const session of sessions) await session.release();
  return { name, shipped: shipped ?? false, compile_ms, differences, ...result };
}
