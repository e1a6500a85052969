// A real server for one test file: `backstitch demo` on free ports, with data that goes away.

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { once } from "node:events";

const ROOT = new URL("../..", import.meta.url).pathname;
const PROGRAM =
  process.env.BACKSTITCH ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug/backstitch");
const START_MS = 60_000;

/** Two neighbouring ports that nothing listens on now; the demo picks others by itself should that change. */
async function freePort() {
  for (;;) {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address();
    server.close();
    await once(server, "close");
    if (port < 65_000) return port;
  }
}

/** Starts the demo; `page`, `console` (with its token) and `stop()`. */
export async function startDemo(...args) {
  const port = await freePort();
  const child = spawn(PROGRAM, ["demo", "--port", String(port), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stderr.on("data", (data) => (err += data));
  const urls = await new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`the demo did not start in ${START_MS} ms: ${out}${err}`)),
      START_MS,
    );
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the demo ended with ${code}: ${out}${err}`)));
    child.stdout.on("data", (data) => {
      out += data;
      const page = /^page\s+(\S+)/m.exec(out)?.[1];
      const operator = /^console\s+(\S+)/m.exec(out)?.[1];
      if (!page || !operator) return;
      clearTimeout(timer);
      resolve({ page, console: operator });
    });
  });
  return {
    ...urls,
    async stop() {
      if (child.exitCode !== null) return;
      child.kill("SIGTERM");
      await once(child, "exit");
    },
  };
}
