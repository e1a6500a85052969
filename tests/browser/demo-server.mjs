// A real server for one test file, on free ports: `backstitch demo` with data that goes away, or `serve` with libraries
// of the test's own.

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
  return launch(["demo", "--port", String(await freePort()), ...args]);
}

/** Starts a server with these libraries alone, each a folder, and data in another one. */
export function startServer(data, libraries) {
  return launch(["serve", "--data", data], {
    BACKSTITCH_LIBRARIES: JSON.stringify(libraries),
    BACKSTITCH_PUBLIC__LISTEN: "127.0.0.1:0",
    BACKSTITCH_ADMIN__LISTEN: "127.0.0.1:0",
    BACKSTITCH_LOG__FILTER: "warn",
  });
}

/** Runs the program until it has said where its pages are. */
async function launch(args, environment = {}) {
  const child = spawn(PROGRAM, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  let said = "";
  const urls = await new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`${args[0]} did not start in ${START_MS} ms: ${said}`)),
      START_MS,
    );
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${args[0]} ended with ${code}: ${said}`)));
    const hear = (data) => {
      said += data;
      const page = /^page\s+(\S+)/m.exec(said)?.[1];
      const operator = /^console\s+(\S+)\n/m.exec(said)?.[1];
      if (!page || !operator) return;
      clearTimeout(timer);
      resolve({ page, console: operator });
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
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
