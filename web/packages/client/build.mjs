// Bundles the page's part and the worker's part, and puts the wasm beside them, for browsers with relaxed SIMD and for
// those without.

import { copyFile, readFile, stat, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";
import { lowerRelaxedSimd } from "./lower-relaxed-simd.mjs";

const here = (path) => new URL(path, import.meta.url).pathname;

/**
 * wasm-bindgen's default path makes every bundler emit the module a second time, from the worker.
 * The page resolves the address once and hands it over, so the default goes.
 */
const oneWasm = {
  name: "one-wasm",
  transform(code, id) {
    if (!id.includes("/wasm/")) return null;
    const cut = code.replace(/new URL\((["'])[^"']+_bg\.wasm\1, import\.meta\.url\)/g, "undefined");
    if (cut.includes("import.meta")) throw new Error(`${id} still names its own wasm file`);
    return { code: cut, map: null };
  },
};

async function bundle(name) {
  const build = await rolldown({
    input: here(`src/${name}.ts`),
    plugins: [oneWasm],
    tsconfig: here("tsconfig.json"),
  });
  await build.write({ file: here(`dist/${name}.js`), format: "es", comments: false });
  await build.close();
}

await stat(here("wasm/backstitch_bg.wasm")).catch(() => {
  throw new Error("wasm/backstitch_bg.wasm is missing: run `just wasm` first");
});
await Promise.all([bundle("index"), bundle("worker")]);
const built = here("wasm/backstitch_bg.wasm");
await copyFile(built, here("dist/client_relaxed_bg.wasm"));
await writeFile(here("dist/client_bg.wasm"), lowerRelaxedSimd(await readFile(built)));
// Consumers read declarations only; what belongs to the worker's inside is not theirs.
await writeFile(here("dist/worker.d.ts"), "export {};\n");
for (const name of ["index.js", "worker.js", "client_relaxed_bg.wasm", "client_bg.wasm"]) {
  const bytes = await readFile(here(`dist/${name}`));
  console.log(`${name.padEnd(16)} ${bytes.length} bytes, ${gzipSync(bytes).length} gzip`);
}
