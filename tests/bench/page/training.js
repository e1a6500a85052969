// One training step, ours beside TensorFlow.js on the same layers.

import * as tf from "@tensorflow/tfjs";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { Training } from "../wasm/bench.js";
import { openLibrary } from "./stitching.js";
import { compare, numbers } from "./timing.js";

const BATCH = 16;

export function prepareTfjs(folder) {
  setWasmPaths(folder);
}

const weight = (shape) =>
  tf.tensor(
    numbers(tf.util.sizeFromShape(shape)).map((v) => 0.2 * v - 0.1),
    shape,
  );
const variable = (shape) => tf.variable(weight(shape));

/** The head and the bridge beside it: only the bridge learns. */
function bridge() {
  const [features, labels] = [tf.tensor(numbers(BATCH * 64), [BATCH, 64]), oneHot()];
  const frozen = { head: weight([64, 10]), bias: weight([10]), to: weight([64, 32]), offset: weight([32]) };
  const learns = [variable([32, 10]), variable([10])];
  const loss = () => {
    const base = features.matMul(frozen.head).add(frozen.bias);
    const change = features.matMul(frozen.to).add(frozen.offset).matMul(learns[0]).add(learns[1]);
    return tf.losses.softmaxCrossEntropy(labels, base.add(change));
  };
  return { loss, learns };
}

/** The noise filter before the frozen network: its three convolutions learn. */
function filter() {
  const [images, labels] = [tf.tensor(numbers(BATCH * 784), [BATCH, 28, 28, 1]), oneHot()];
  const learns = [
    variable([3, 3, 1, 10]),
    variable([10]),
    variable([3, 3, 10, 10]),
    variable([10]),
    variable([3, 3, 10, 1]),
    variable([1]),
  ];
  const convolutions = [
    [1, 16],
    [16, 32],
    [32, 32],
    [32, 64],
    [64, 64],
  ];
  const frozen = convolutions.map(([from, to]) => [weight([3, 3, from, to]), weight([to])]);
  const [head, bias] = [weight([64, 10]), weight([10])];
  const conv = (x, [kernel, offset]) => x.conv2d(kernel, 1, "same").add(offset);
  const loss = () => {
    const hidden1 = conv(images, learns.slice(0, 2)).relu();
    const hidden2 = conv(hidden1, learns.slice(2, 4)).relu();
    let x = images.add(conv(hidden2, learns.slice(4, 6))).clipByValue(0, 1);
    x = conv(x, frozen[0]).relu().maxPool(2, 2, "valid");
    x = conv(x, frozen[1]).relu();
    x = x.add(conv(x, frozen[2])).relu().maxPool(2, 2, "valid");
    x = conv(x, frozen[3]).relu();
    x = x.add(conv(x, frozen[4])).relu();
    return tf.losses.softmaxCrossEntropy(labels, x.mean([1, 2]).matMul(head).add(bias));
  };
  return { loss, learns };
}

function oneHot() {
  return tf.oneHot(
    tf.tensor1d(
      Array.from({ length: BATCH }, (_, i) => i % 10),
      "int32",
    ),
    10,
  );
}

/** A step of these layers, on the first backend of `backends` that has every gradient. */
async function theirs(layers, backends) {
  const refused = [];
  for (const backend of backends) {
    await tf.setBackend(backend);
    await tf.ready();
    const optimizer = tf.train.sgd(0.01);
    const { loss, learns } = layers();
    const step = async () => {
      const value = optimizer.minimize(loss, true, learns);
      await value.data();
      value.dispose();
    };
    try {
      await step();
      return { backend, step, refused };
    } catch (cause) {
      refused.push(`${backend}: ${String(cause.message).split("\n")[0]}`);
    }
  }
  throw new Error(`no backend of TensorFlow.js trains this: ${refused.join("; ")}`);
}

/** Each patch that `config.trainings` names: ours, our forward alone, and TensorFlow.js. */
export async function training(config, options) {
  const { stitching } = await openLibrary(config);
  const images = numbers(BATCH * 784, 7);
  const labels = Uint32Array.from({ length: BATCH }, (_, i) => i % 10);
  const results = [];
  for (const { name, border, layers, what } of config.trainings) {
    const index = config.patches.findIndex((patch) => patch.name === name);
    const ours = new Training(stitching, index, border, images, labels);
    const { backend, step, refused } = await theirs({ bridge, filter }[layers], ["wasm", "cpu"]);
    const repeats = layers === "bridge" ? 20 : 1;
    const times = (work) => ({
      repeats,
      async run() {
        for (let i = 0; i < repeats; i++) await work();
      },
    });
    const result = await compare(
      {
        "our step": times(() => ours.step()),
        "our forward": times(() => ours.forward()),
        [`TensorFlow.js step (${backend})`]: times(step),
      },
      options,
    );
    ours.free();
    results.push({ name, what, refused, ...result });
  }
  stitching.free();
  return results;
}
