// Bundles the bench's page and worker with the web workspace's own bundler.

import { copyFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const web = createRequire(new URL("../../web/packages/client/package.json", import.meta.url));
const here = (path) => new URL(path, import.meta.url).pathname;

export async function bundle(folder) {
  const { rolldown } = await import(web.resolve("rolldown"));
  await mkdir(folder, { recursive: true });
  for (const name of ["page", "worker"]) {
    const build = await rolldown({ input: here(`page/${name}.js`), logLevel: "silent" });
    await build.write({ file: join(folder, `${name}.js`), format: "es", codeSplitting: false });
    await build.close();
  }
  await copyFile(here("page/index.html"), join(folder, "index.html"));
}
