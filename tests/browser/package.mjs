// The package as a developer gets it: packed, installed from the tarball, built by Vite.

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const WEB = new URL("../../web", import.meta.url).pathname;

/** A new folder in which `@backstitch/client` is installed from its own tarball. */
export async function installPacked() {
  const folder = await mkdtemp(join(tmpdir(), "backstitch-app-"));
  const { stdout } = await run("npm", ["pack", "--silent", "--pack-destination", folder], {
    cwd: join(WEB, "packages/client"),
  });
  await writeFile(
    join(folder, "package.json"),
    JSON.stringify({ name: "app", private: true, type: "module" }),
  );
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", join(folder, stdout.trim())], {
    cwd: folder,
  });
  return folder;
}

/** Writes the app's two files and builds it with the workspace's Vite. */
export async function buildApp(folder, script) {
  await mkdir(join(folder, "src"), { recursive: true });
  await writeFile(
    join(folder, "index.html"),
    '<!doctype html><title>app</title><script type="module" src="./src/main.js"></script>',
  );
  await writeFile(join(folder, "src/main.js"), script);
  await run(process.execPath, [join(WEB, "node_modules/vite/bin/vite.js"), "build", folder], { cwd: folder });
  return join(folder, "dist");
}

export async function filesIn(folder) {
  return (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ name }) => name);
}
