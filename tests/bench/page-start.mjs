// The product's own page from a demo server, over a line of 10 Mbit/s: until its first answer is painted.
//
// Nothing is attached to the page: a debugger that watches a page makes every worker of it start late. The page's own
// clock begins with the navigation, and a script beside the page's own reports what it reads.

import { spawn } from "node:child_process";
import { createServer, request } from "node:http";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { ARGS, EXECUTABLE } from "../browser/browser.mjs";
import { startDemo } from "../browser/demo-server.mjs";
import { quantile } from "./page/timing.js";

const BYTES_PER_MS = 10_000_000 / 8 / 1000;
const ROUND_TRIP_MS = 40;

/** A busy machine makes a start slow, which the figures show; it is no reason to have none. */
const PATIENCE_MS = 300_000;

/** How long a visitor stays: the browser keeps the compiled module some seconds after it was first used. */
const STAY_MS = 6000;

/** Reports when the first answer was painted: in the frame after the one in which it is first seen. */
const REPORTER = `
const shadow = (root, name) => root?.querySelector(name)?.shadowRoot;
const look = () => {
  const result = shadow(shadow(document, "bs-app"), "bs-result");
  if (!result?.querySelector("#stitched-answer strong")) return requestAnimationFrame(look);
  requestAnimationFrame(() => setTimeout(() => navigator.sendBeacon("/answered", String(performance.now()))));
};
requestAnimationFrame(look);
`;

/** Passes everything on, not faster than one line carries all of it together; pages also get the reporter. */
async function slowLine(upstream) {
  let free = 0;
  let carried = 0;
  const through = async (bytes) => {
    free = Math.max(free, performance.now()) + bytes / BYTES_PER_MS;
    carried += bytes;
    await sleep(Math.max(0, free - performance.now()));
  };
  async function* paced(answer) {
    for await (const chunk of answer)
      for (let at = 0; at < chunk.length; at += 4096) {
        const piece = chunk.subarray(at, at + 4096);
        await through(piece.length);
        yield piece;
      }
  }
  let answered = () => undefined;
  const server = createServer(async (from, to) => {
    if (from.url === "/answered") {
      const chunks = await from.toArray();
      to.end();
      return answered(Number(Buffer.concat(chunks).toString()));
    }
    if (from.url === "/reporter.js") {
      to.writeHead(200, { "content-type": "text/javascript", "cache-control": "immutable, max-age=86400" });
      return to.end(REPORTER);
    }
    await sleep(ROUND_TRIP_MS);
    const onward = request(
      new URL(from.url, upstream),
      { method: from.method, headers: { ...from.headers, host: new URL(upstream).host } },
      async (answer) => {
        if (from.url === "/") {
          const page = Buffer.concat(await answer.toArray()).toString();
          const { "content-length": _, ...headers } = answer.headers;
          to.writeHead(answer.statusCode, headers);
          return to.end(page.replace("</head>", '<script async src="/reporter.js"></script></head>'));
        }
        to.writeHead(answer.statusCode, answer.headers);
        to.flushHeaders();
        // A page that is closed ends what it still loads.
        pipeline(answer, paced, to).catch(() => onward.destroy());
      },
    );
    pipeline(from, onward).catch(() => to.destroy());
    to.on("close", () => onward.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    carried: () => carried,
    /** Milliseconds from navigation to painted answer, of the page that reports next. */
    nextAnswer: () => new Promise((resolve) => (answered = resolve)),
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** A browser with a profile of its own, that is told what to open and watched no further. */
async function startUnwatched() {
  const profile = await mkdtemp(join(tmpdir(), "backstitch-start-"));
  const args = [...ARGS, `--user-data-dir=${profile}`, "--remote-debugging-port=0", "about:blank"];
  const browser = spawn(EXECUTABLE, args, { stdio: "ignore" });
  const port = async () => (await readFile(join(profile, "DevToolsActivePort"), "utf8")).split("\n")[0];
  let origin;
  while (!origin)
    origin = await port().then(
      (at) => `http://127.0.0.1:${at}`,
      () => sleep(50),
    );
  return {
    async open(url) {
      const { id } = await (await fetch(`${origin}/json/new?${url}`, { method: "PUT" })).json();
      return { close: () => fetch(`${origin}/json/close/${id}`) };
    },
    async stop() {
      browser.kill();
      await once(browser, "exit");
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

async function visit(browser, line, stay) {
  const answer = line.nextAnswer();
  const page = await browser.open(line.origin);
  const late = sleep(PATIENCE_MS, undefined, { ref: false }).then(() => {
    throw new Error(`the page showed no answer in ${PATIENCE_MS / 1000} s`);
  });
  const ms = await Promise.race([answer, late]);
  await sleep(stay);
  await page.close();
  return ms;
}

export async function pageStart(times = 5) {
  const demo = await startDemo("--clients", "0");
  const line = await slowLine(new URL(demo.page).origin);
  const [cold, warm] = [[], []];
  let downloaded = 0;
  try {
    for (let i = 0; i < times; i++) {
      const browser = await startUnwatched();
      const before = line.carried();
      cold.push(await visit(browser, line, STAY_MS));
      downloaded = line.carried() - before;
      // The compiled module is kept once it was loaded a second time.
      await visit(browser, line, STAY_MS);
      warm.push(await visit(browser, line, 0));
      await browser.stop();
    }
  } finally {
    await line.stop();
    await demo.stop();
  }
  const summary = (ms) => ({ median_ms: quantile(ms, 0.5), p95_ms: quantile(ms, 0.95) });
  return { times, downloaded_bytes: downloaded, cold: summary(cold), warm: summary(warm) };
}
