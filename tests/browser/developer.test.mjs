// The developer: installs the package, builds an app, and has a first result after five lines.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { BAR_BYTES, size } from "../bench/sizes.mjs";
import { serveApp } from "./app-server.mjs";
import { openPage, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";
import { buildApp, filesIn, installPacked } from "./package.mjs";

const FACADE_GZIP_BYTES = 15_000;

/** The quick start as the README gives it, with a picture instead of a camera. */
const QUICK_START = `
import { open } from "@backstitch/client";
const canvas = new OffscreenCanvas(60, 60);
const context = canvas.getContext("2d");
context.fillRect(0, 0, 60, 60);
context.fillStyle = "white";
context.fillRect(15, 8, 30, 44);
const input = context.getImageData(0, 0, 60, 60);
try {
  const model = await open(location.origin + "/v1/libraries/fashion");
  const { output, patches, candidates, cost, version, top } = await model.run(input);
  await model.learn(input, top[0].label);
  const contributed = await model.contribute();
  const inputs = [canvas, await createImageBitmap(canvas), await canvas.convertToBlob(), { data: new Float32Array(784), shape: [1, 1, 28, 28] }];
  const shapes = [];
  for (const other of inputs) shapes.push((await model.run(other)).shape);
  await model.close();
  window.outcome = { output: [...output], patches, candidates, cost, version, top, contributed, shapes };
} catch (error) {
  window.outcome = { error: { code: error.code, message: error.message, hint: error.hint } };
}
`;

let demo, browser, folder, app;

before(async () => {
  [demo, browser, folder] = await Promise.all([startDemo(), startBrowser(), installPacked()]);
  const dist = await buildApp(folder, QUICK_START);
  app = await serveApp({ "/": dist }, demo.page);
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await demo?.stop();
  await rm(folder, { recursive: true, force: true });
});

test("five lines give a first result, built by Vite, under a strict policy", async () => {
  const { page, complaints } = await openPage(browser);
  await page.goto(app.origin);
  await page.waitForFunction(() => window.outcome);
  const outcome = await page.evaluate(() => window.outcome);
  assert.equal(outcome.error, undefined);
  assert.equal(outcome.output.length, 10);
  assert.match(outcome.version, /^bs1-[0-9a-f]{20}$/);
  assert.equal(outcome.candidates.length, 6);
  for (const candidate of outcome.candidates)
    assert.ok(candidate.reason.length > 10, JSON.stringify(candidate));
  assert.ok(outcome.cost.total_ms > 0);
  assert.deepEqual(outcome.shapes, Array(4).fill([1, 10]));
  // Nobody agreed to contribute, so nothing was sent, and the reason is there.
  assert.equal(outcome.contributed.contributed, false);
  assert.equal(outcome.contributed.reason.code, "consent_missing");
  assert.deepEqual(complaints, []);
});

test("a build has a wasm file for each kind of browser, and a page loads one", async () => {
  const wasm = (await filesIn(join(folder, "dist"))).filter((name) => name.endsWith(".wasm"));
  assert.deepEqual(wasm.map((name) => name.replace(/-.*/, "")).sort(), ["client_bg", "client_relaxed_bg"]);
  const { page } = await openPage(browser);
  const loaded = [];
  page.on("request", (request) => {
    if (request.url().endsWith(".wasm")) loaded.push(new URL(request.url()).pathname.split("/").at(-1));
  });
  await page.goto(app.origin);
  await page.waitForFunction(() => window.outcome);
  assert.equal(loaded.length, 1, String(loaded));
  assert.match(loaded[0], /^client_relaxed_bg/);
});

test("the module that a page downloads keeps its bar", async () => {
  const dist = join(folder, "node_modules/@backstitch/client/dist");
  for (const name of ["client_bg.wasm", "client_relaxed_bg.wasm"]) {
    const { brotli } = await size(join(dist, name));
    assert.ok(brotli <= BAR_BYTES, `${name} has ${brotli} bytes, the bar is ${BAR_BYTES}`);
  }
});

test("a browser without relaxed SIMD gets the other file, and the same answers", async () => {
  const empty = await mkdtemp(join(tmpdir(), "backstitch-simd-"));
  const dist = join(folder, "node_modules/@backstitch/client/dist");
  const plain = await serveApp({ "/client/": dist, "/": empty }, demo.page);
  const answers = {};
  for (const relaxed of [true, false]) {
    const { page } = await openPage(browser);
    await page.addInitScript((can) => {
      if (!can) WebAssembly.validate = () => false;
    }, relaxed);
    const loaded = [];
    page.on("request", (request) => {
      if (request.url().endsWith(".wasm")) loaded.push(new URL(request.url()).pathname);
    });
    await page.goto(plain.origin);
    answers[relaxed] = await page.evaluate(async () => {
      const { open } = await import("/client/index.js");
      const model = await open("/v1/libraries/fashion");
      const data = Float32Array.from({ length: 784 }, (_, i) => ((i * 31) % 101) / 100);
      const { output } = await model.run({ data, shape: [1, 1, 28, 28] }, { patches: "none" });
      await model.close();
      return [...output];
    });
    assert.deepEqual(loaded, [`/client/client_${relaxed ? "relaxed_" : ""}bg.wasm`]);
  }
  answers[false].forEach((value, i) =>
    assert.ok(Math.abs(value - answers[true][i]) < 1e-4, `${value}, not ${answers[true][i]}`),
  );
  await plain.stop();
  await rm(empty, { recursive: true });
});

test("the package imports in Node, touches nothing, and says where it runs", async () => {
  const script = `
    import { open, PatchError } from "@backstitch/client";
    const error = await open("https://host/v1/libraries/fashion").catch((thrown) => thrown);
    console.log(JSON.stringify({ typed: error instanceof PatchError, code: error.code, hint: error.hint }));`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], {
    cwd: folder,
  });
  assert.deepEqual({ ...JSON.parse(stdout), hint: "" }, { typed: true, code: "unsupported", hint: "" });
});

test("the package is small, has no dependencies and ships its types", async () => {
  const root = join(folder, "node_modules/@backstitch/client");
  const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  assert.deepEqual(manifest.dependencies ?? {}, {});
  for (const entry of Object.values(manifest.exports)) {
    if (typeof entry === "string") await stat(join(root, entry));
    else {
      assert.equal(Object.keys(entry)[0], "types");
      await Promise.all(Object.values(entry).map((path) => stat(join(root, path))));
    }
  }
  const facade = gzipSync(await readFile(join(root, "dist/index.js"))).length;
  assert.ok(facade <= FACADE_GZIP_BYTES, `${facade} bytes`);
});

test("it runs without a bundler too", async () => {
  const empty = await mkdtemp(join(tmpdir(), "backstitch-plain-"));
  const dist = join(folder, "node_modules/@backstitch/client/dist");
  const plain = await serveApp({ "/client/": dist, "/": empty }, demo.page);
  const { page } = await openPage(browser);
  // Any page of the origin will do, even a missing one.
  await page.goto(plain.origin);
  const version = await page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    const model = await open("/v1/libraries/fashion");
    const { version } = await model.run({ data: new Float32Array(784), shape: [1, 1, 28, 28] });
    await model.close();
    return version;
  });
  assert.match(version, /^bs1-/);
  await plain.stop();
  await rm(empty, { recursive: true });
});
