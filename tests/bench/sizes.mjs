// What a page downloads, as a server sends it.

import { readdir, readFile } from "node:fs/promises";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

/** Most bytes that a page may download of the module, compressed by brotli at its best. */
export const BAR_BYTES = 2_200_000;

const here = (path) => new URL(path, import.meta.url).pathname;

export async function size(path) {
  const bytes = await readFile(path);
  const options = {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_LGWIN]: 24,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  };
  return {
    raw: bytes.length,
    gzip: gzipSync(bytes, { level: 9 }).length,
    brotli: brotliCompressSync(bytes, options).length,
  };
}

export async function sizes() {
  const dist = here("../../web/packages/client/dist/");
  const ours = (await readdir(dist)).filter((name) => name.endsWith(".wasm")).sort();
  const table = {};
  for (const name of ours) table[`ours, ${name}`] = await size(dist + name);
  const ort = here("node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm");
  table["onnxruntime-web, ort-wasm-simd-threaded.wasm"] = await size(ort);
  return table;
}
