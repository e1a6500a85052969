// `just bench`: measures in Chromium, writes the figures as JSON and docs/BENCHMARKS.md. See README.md.

import { readFile, stat, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { openPage, startBrowser } from "../browser/browser.mjs";
import { bundle } from "./bundle.mjs";
import { machine } from "./machine.mjs";
import { fashion, models, stitchedSets, writeTrainableFilter } from "./models.mjs";
import { pageStart } from "./page-start.mjs";
import { report } from "./report.mjs";
import { serve } from "./serve.mjs";
import { server } from "./server.mjs";
import { sizes } from "./sizes.mjs";

const HELP = `usage: just bench [--models DIR] [--runs N] [--only PART,…] [--json FILE]

  --models DIR   folder with efficientnet-lite0.onnx, minilm-l6-v2-w8.onnx and what
                 tests/bench/derive.py makes of it; without it only the libraries
                 of this repository are measured
  --runs N       timed runs of each variant, at least 20 (default 30)
  --only PART    of inference, segments, fused, library, training, memory, sizes,
                 start, server; the report then keeps the other parts of the last JSON
  --json FILE    where the figures are kept (default tests/bench/results.json)`;

const PARTS = ["inference", "segments", "fused", "library", "training", "memory", "sizes", "start", "server"];
const here = (path) => new URL(path, import.meta.url).pathname;
const { values: options } = parseArgs({
  options: {
    models: { type: "string" },
    runs: { type: "string", default: "30" },
    only: { type: "string" },
    json: { type: "string", default: here("results.json") },
    help: { type: "boolean" },
  },
});
if (options.help) {
  console.log(HELP);
  process.exit(0);
}
const runs = Number(options.runs);
if (!(runs >= 20)) throw new Error(`--runs is ${options.runs}; fewer than 20 say too little`);
const parts = new Set(options.only?.split(",") ?? PARTS);

const say = (text) => console.error(`bench: ${text}`);
const exists = (path) =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Runs `work` with the page's `ask`. */
async function inPage(folders, work) {
  const server = await serve(folders);
  const browser = await startBrowser();
  try {
    const { page, complaints } = await openPage(browser);
    await page.goto(`${server.origin}/page/index.html`);
    await page.waitForFunction(() => typeof globalThis.ask === "function");
    const ask = (what, ...given) =>
      page.evaluate(([what, given]) => globalThis.ask(what, given), [what, given]);
    await page.evaluate((given) => globalThis.ask("start", given), {
      wasm: "/wasm/bench_bg.wasm",
      ort: `${server.origin}/ort/`,
      tfjs: `${server.origin}/tfjs/`,
    });
    const result = await work(ask);
    if (complaints.length) say(`the page complained: ${complaints.join("; ")}`);
    return { ...result, browser: `Chromium ${browser.version()}` };
  } finally {
    await browser.close();
    await server.stop();
  }
}

async function measure(found, ask) {
  const figures = {};
  const timed = { runs, warmup: 8 };
  const config = await fashion();
  if (parts.has("inference")) {
    figures.inference = [];
    for (const model of found.inference) {
      say(model.name);
      figures.inference.push(await ask("inference", model, timed));
    }
  }
  if (parts.has("segments")) {
    say("segments");
    figures.segments = [];
    for (const model of found.segments) figures.segments.push(await ask("segments", model, timed));
  }
  if (parts.has("fused")) {
    say("stitched sets, in segments and as one model");
    figures.fused = [];
    for (const set of await stitchedSets()) figures.fused.push(await ask("fused", set, timed));
  }
  if (parts.has("library")) {
    say("switching, new weights, new patches, selection");
    figures.library = await ask("library", config, timed);
  }
  if (parts.has("training")) {
    say("training");
    figures.training = await ask("training", config, timed);
  }
  if (parts.has("memory")) {
    say("memory");
    figures.memory = await ask("memory", config);
  }
  return figures;
}

const before = (await exists(options.json)) ? JSON.parse(await readFile(options.json, "utf8")) : {};
await bundle(here("dist"));
await writeTrainableFilter(here("dist"));
const found = await models(options.models, say);
const folders = { "/page/": here("dist/"), "/wasm/": here("wasm/"), ...found.folders };
const { browser, ...measured } = await inPage(folders, (ask) => measure(found, ask));
if (parts.has("sizes")) measured.sizes = await sizes();
if (parts.has("start")) {
  say("cold and warm start of the page at 10 Mbit/s");
  measured.start = await pageStart();
}
if (parts.has("server")) {
  say("a server under load");
  measured.server = await server();
}
const kept = options.only ? before : {};
const today = { ...(await machine()), browser };
const days = Object.fromEntries(Object.keys(measured).map((part) => [part, today.date]));
const figures = { ...kept, machine: today, ...measured, days: { ...kept.days, ...days } };
await writeFile(options.json, `${JSON.stringify(figures, null, 1)}\n`);
await writeFile(here("../../docs/BENCHMARKS.md"), report(figures));
say(`wrote ${options.json} and docs/BENCHMARKS.md`);
