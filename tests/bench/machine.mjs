// What the figures were measured on and with.

import { cpus, totalmem } from "node:os";
import { readFile } from "node:fs/promises";

const here = (path) => new URL(path, import.meta.url);

export async function machine() {
  const version = async (name) =>
    JSON.parse(await readFile(here(`node_modules/${name}/package.json`), "utf8")).version;
  const lock = await readFile(here("../../Cargo.lock"), "utf8");
  return {
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    memory_gb: Math.round(totalmem() / 2 ** 30),
    date: new Date().toISOString().slice(0, 10),
    tract: /name = "tract-onnx"\nversion = "(.*)"/.exec(lock)?.[1],
    onnxruntime_web: await version("onnxruntime-web"),
    tensorflow_js: await version("@tensorflow/tfjs"),
  };
}
