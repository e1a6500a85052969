// What leaves a browser in a contribution, read from the wire: clipped in integers, all patches of the task together,
// whatever was taught and whatever stands in the device's storage.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serveApp } from "./app-server.mjs";
import { openPage, startBrowser } from "./browser.mjs";
import { startServer } from "./demo-server.mjs";

const ROOT = new URL("../../", import.meta.url).pathname;
const FOLDER = mkdtempSync(join(tmpdir(), "backstitch-contribution-"));
/** The integer image of the clip norm, the header's length, and the trainable values of one patch. */
const [BOUND, HEADER, VALUES] = [32_767, 72, 330];
/** So small that every training is longer. */
const CLIP = 0.02;
let server, app, browser;

/** The sample library with a task that trains two patches. */
function library() {
  const folder = join(FOLDER, "library");
  cpSync(join(ROOT, "onnx/models/fashion"), folder, { recursive: true });
  const [first, second] = ["personal-style", "second-style"].map((name) => join(folder, "patches", name));
  cpSync(first, second, { recursive: true });
  const edit = (file, change) => {
    const value = JSON.parse(readFileSync(file, "utf8"));
    change(value);
    writeFileSync(file, JSON.stringify(value));
  };
  edit(join(second, "patch.json"), (manifest) => (manifest.name = "second-style"));
  edit(join(folder, "library.json"), (library) => {
    library.patches.push("second-style");
    Object.assign(library.tasks[0], { patches: ["personal-style", "second-style"], clip_norm: CLIP });
  });
  return folder;
}

before(async () => {
  [server, browser] = await Promise.all([startServer(join(FOLDER, "data"), [library()]), startBrowser()]);
  app = await serveApp({ "/client/": join(ROOT, "web/packages/client/dist/") }, server.page);
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await server?.stop();
  rmSync(FOLDER, { recursive: true, force: true });
});

/** A device of its own, which has agreed; `sent` gets the bytes of every contribution that leaves its page. */
async function device() {
  const { context, page } = await openPage(browser);
  const sent = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/contributions")) sent.push(request.postDataBuffer());
  });
  await page.goto(`${app.origin}/start`);
  await reopen(page);
  await page.evaluate(() => model.consent(true));
  return { page, sent, close: () => context.close() };
}

const reopen = (page) =>
  page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    await window.model?.close();
    window.model = await open("/v1/libraries/fashion");
  });

/** Teaches pictures, all of them pullovers, of up to this level. */
const teach = (page, level) =>
  page.evaluate(async (level) => {
    for (let i = 1; i <= 12; i++) {
      const data = Float32Array.from({ length: 784 }, (_, at) => ((at % (i + 2)) / (i + 2)) * level);
      await model.learn({ data, shape: [1, 1, 28, 28] }, 2);
    }
  }, level);

const contribute = (page) =>
  page.evaluate(() => model.contribute().catch(({ code }) => ({ contributed: false, reason: { code } })));

/** The values of a frame, after everything about it was checked that can be. */
function values(frame) {
  assert.equal(frame.subarray(0, 4).toString(), "BSC1");
  assert.equal(frame.readUInt32LE(HEADER - 4), 2 * VALUES);
  assert.equal(frame.length, HEADER + 2 * 2 * VALUES);
  const all = Array.from({ length: 2 * VALUES }, (_, i) => frame.readInt16LE(HEADER + 2 * i));
  assert.ok(squares(all) <= BOUND ** 2, `${Math.sqrt(squares(all))} is above ${BOUND}`);
  return all;
}
const squares = (values) => values.reduce((sum, value) => sum + value * value, 0);

/** Changes what the page's storage holds under keys with this ending. */
const tamper = (page, ending, change) =>
  page.evaluate(
    async ([ending, change]) => {
      const settled = (request) =>
        new Promise((resolve, reject) => {
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
      const database = await settled(indexedDB.open("backstitch", 1));
      const store = database.transaction("state", "readwrite").objectStore("state");
      let changed = 0;
      for (const key of await settled(store.getAllKeys()))
        if (key.endsWith(ending)) {
          const value = new Uint8Array(await settled(store.get(key)));
          await settled(store.put(window[change](value), key));
          changed++;
        }
      database.close();
      return changed;
    },
    [ending, change],
  );

test("two patches are clipped together, and what is sent is at the norm and not above", async () => {
  const { page, sent, close } = await device();
  await teach(page, 1);
  const preview = await page.evaluate(() => model.preview());
  assert.deepEqual(
    preview.patches.map(({ name }) => name),
    ["personal-style", "second-style"],
  );
  assert.ok(preview.clipped && preview.norm > 2 * CLIP, `a training of norm ${preview.norm} is clipped`);
  const { contributed, reason } = await contribute(page);
  assert.ok(contributed, JSON.stringify(reason));
  assert.equal(sent.length, 1);
  const all = values(sent[0]);
  assert.deepEqual(all, [...preview.values]);
  const whole = Math.sqrt(squares(all));
  assert.ok(whole > 0.99 * BOUND, `${whole}: nothing is given away`);
  for (const patch of [all.slice(0, VALUES), all.slice(VALUES)])
    assert.ok(Math.sqrt(squares(patch)) > 0.1 * BOUND, "both patches have a part in it");
  await close();
});

test("own weights that are broken do not get into a contribution", async () => {
  const { page, sent, close } = await device();
  await teach(page, 1);
  const { values: before } = await page.evaluate(() => model.preview());
  await page.evaluate(() => model.train({ epochs: 1 }));
  await page.evaluate(() => {
    const filled = (number) => (bytes) =>
      new Uint8Array(new Float32Array(bytes.length / 4).fill(number).buffer);
    Object.assign(window, { nan: filled(NaN), infinite: filled(-Infinity), huge: filled(3e38) });
  });
  for (const damage of ["nan", "infinite", "huge"]) {
    assert.ok((await tamper(page, "personal/personal-style", damage)) > 0);
    await reopen(page);
    assert.deepEqual((await page.evaluate(() => model.preview())).values, before, damage);
  }
  const { contributed, reason } = await contribute(page);
  assert.ok(contributed, JSON.stringify(reason));
  assert.deepEqual(values(sent[0]), [...before]);
  await close();
});

test("a training that runs out of numbers sends nothing", async () => {
  const { page, sent, close } = await device();
  await teach(page, 3e38);
  const { contributed, reason } = await contribute(page);
  assert.deepEqual([contributed, reason.code], [false, "training_diverged"]);
  // What was taught is the cause, and can be forgotten.
  await page.evaluate(() => model.forget());
  await page.evaluate(() => model.consent(true));
  await teach(page, 1);
  assert.ok((await contribute(page)).contributed);
  assert.equal(sent.length, 1);
  values(sent[0]);
  await close();
});

test("a contribution that was changed in storage before it was sent again is not sent", async () => {
  const { page, sent, close } = await device();
  await teach(page, 1);
  await page.route("**/contributions", (route) => route.abort());
  assert.equal((await contribute(page)).contributed, false);
  await page.unroute("**/contributions");
  const begun = sent.length;
  assert.ok(begun > 0, "it was begun");
  await page.evaluate(() => {
    window.loud = (bytes) => {
      const pending = JSON.parse(new TextDecoder().decode(bytes));
      pending.frame = pending.frame.slice(0, 144) + "ff7f".repeat((pending.frame.length - 144) / 4);
      return new TextEncoder().encode(JSON.stringify(pending));
    };
  });
  assert.equal(await tamper(page, "pending/personal-style", "loud"), 1);
  await contribute(page);
  for (const frame of sent.slice(begun)) values(frame);
  await close();
});
