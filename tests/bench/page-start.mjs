// The product's own page from a demo server, over a line of 10 Mbit/s: until it shows its first answer.

import { createServer, request } from "node:http";
import { once } from "node:events";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { startBrowser } from "../browser/browser.mjs";
import { startDemo } from "../browser/demo-server.mjs";
import { quantile } from "./page/timing.js";

const BYTES_PER_MS = 10_000_000 / 8 / 1000;
const ROUND_TRIP_MS = 40;

/** A busy machine makes a start slow, which the figures show; it is no reason to have none. */
const PATIENCE_MS = 300_000;

/** Passes everything on, not faster than one line carries all of it together. */
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
  const server = createServer(async (from, to) => {
    await sleep(ROUND_TRIP_MS);
    const onward = request(
      new URL(from.url, upstream),
      { method: from.method, headers: { ...from.headers, host: new URL(upstream).host } },
      (answer) => {
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
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

async function firstAnswer(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const began = performance.now();
  await page.goto(url, { waitUntil: "commit" });
  await page.locator("#stitched-answer strong").waitFor();
  const ms = performance.now() - began;
  await page.close();
  return ms;
}

export async function pageStart(times = 5) {
  const demo = await startDemo("--clients", "0");
  const line = await slowLine(new URL(demo.page).origin);
  const browser = await startBrowser();
  const [cold, warm] = [[], []];
  let downloaded = 0;
  try {
    for (let i = 0; i < times; i++) {
      const context = await browser.newContext();
      const before = line.carried();
      cold.push(await firstAnswer(context, line.origin));
      downloaded = line.carried() - before;
      // The compiled module is kept once it was loaded a second time.
      await firstAnswer(context, line.origin);
      warm.push(await firstAnswer(context, line.origin));
      await context.close();
    }
  } finally {
    await browser.close();
    await line.stop();
    await demo.stop();
  }
  const summary = (ms) => ({ median_ms: quantile(ms, 0.5), p95_ms: quantile(ms, 0.95) });
  return { times, downloaded_bytes: downloaded, cold: summary(cold), warm: summary(warm) };
}
