// Rough treatment: bad inputs, a full device, cleared storage, two tabs at once, killed workers, no memory. Each has its
// code or its documented fallback (docs/ROBUSTNESS.md), the page stays alive, and no example is lost.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, beforeEach, test } from "node:test";
import { serveApp } from "./app-server.mjs";
import { eventually, openPage, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";
import { completeRound } from "./others.mjs";

const DIST = new URL("../../web/packages/client/dist/", import.meta.url).pathname;
let demo, browser, app, context, page;

before(async () => {
  [demo, browser] = await Promise.all([startDemo(), startBrowser()]);
  app = await serveApp({ "/client/": DIST }, demo.page);
});
beforeEach(async () => {
  await context?.close();
  ({ context, page } = await openPage(browser));
  await start(page);
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await demo?.stop();
});

/** What every page here has: the package, a picture, and a way to see what a promise came to. */
async function start(page, library = "fashion", options = {}) {
  await page.goto(`${app.origin}/start`);
  await page.evaluate(
    async ([library, options]) => {
      const { open } = await import("/client/index.js");
      window.picture = (level = 0.4) => ({ data: new Float32Array(784).fill(level), shape: [1, 1, 28, 28] });
      window.outcome = (promise) =>
        promise.then(
          (value) => ({ value }),
          ({ code, message, hint, name }) => ({ code, message, hint, name }),
        );
      window.model = await open(`/v1/libraries/${library}`, options);
      window.answers = async () => (await model.run(picture())).output.length === 10;
    },
    [library, options],
  );
}

/** `work` in the page; what it gives, or the code, message and hint of its error. */
const tried = (work, argument, on = page) => on.evaluate(`outcome((${work})(${JSON.stringify(argument)}))`);

async function refused(work, pattern, on = page) {
  const { code, message, hint } = await tried(work, undefined, on);
  assert.equal(code, "input_invalid", `${work}: ${code} ${message}`);
  assert.match(`${message} ${hint}`, pattern);
  assert.ok(hint || /JPEG|finite|shape/.test(message), `${work} says what to do: ${message}`);
}

test("bad pictures are refused with what to do, and the model goes on", async () => {
  /** A small file that says it holds 400 megapixels. */
  await page.evaluate(() => {
    window.huge = () => {
      const bytes = [0x89, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0x4e, 0x20];
      return new Blob([new Uint8Array([...bytes, 0, 0, 0x4e, 0x20, 8, 2, 0, 0, 0])], { type: "image/png" });
    };
  });
  await refused(() => model.run(huge()), /20000 × 20000 = 400000000 pixels, the limit is 67108864.*scale/);
  await refused(() => model.run(Object.assign(document.createElement("canvas"), { width: 0 })), /0 × 150/);
  await refused(() => model.run(new Image()), /0 × 0.*loaded/);
  await refused(async () => {
    const bitmap = await createImageBitmap(new ImageData(4, 4));
    bitmap.close();
    return model.run(bitmap);
  }, /0 × 0/);
  await refused(() => model.run(new Blob(["no picture"], { type: "image/png" })), /PNG, JPEG/);
  await refused(() => model.run(new Blob([], { type: "image/png" })), /PNG, JPEG/);
  await refused(() => model.run({ ...picture(), data: new Float32Array(784).fill(NaN) }), /NaN/);
  await refused(() => model.run({ ...picture(), data: new Float32Array(784).fill(-Infinity) }), /-inf/);
  await refused(() => model.run({ data: [], shape: [0] }), /empty/);
  await refused(() => model.learn({ ...picture(), data: new Float32Array(784).fill(NaN) }, 1), /NaN/);
  assert.ok(await page.evaluate(() => answers()));
});

test("a picture above 16 megapixels is answered, scaled down", async () => {
  const { value, ...problem } = await tried(async () => {
    const canvas = new OffscreenCanvas(6000, 4000);
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(1500, 800, 3000, 2900);
    const large = canvas.transferToImageBitmap();
    const small = await createImageBitmap(large, { resizeWidth: 600, resizeHeight: 400 });
    const [a, b] = [await model.run(large, { patches: "none" }), await model.run(small, { patches: "none" })];
    return [a, b].map(({ top }) => [top[0].label, top[0].score]);
  });
  assert.deepEqual(problem, {});
  const [[label, score], [small, smallScore]] = value;
  assert.equal(label, small);
  assert.ok(Math.abs(score - smallScore) < 0.05, `${score}, ${smallScore}`);
});

test("bad texts", async () => {
  await start(page, "sentiment");
  for (const text of ["", "  \n\t", "\u0000"])
    await refused(`() => model.run(${JSON.stringify(text)})`, /empty.*write something/);
  await refused(() => model.run("a good film ".repeat(900_000)), /10800000 characters.*beginning/);
  await refused(() => model.run(picture()), /text|shape/);
  const { value } = await tried(() => model.run("a good film"));
  assert.equal(value.shape.length, 2);
});

test("bad series, and gaps that are none", async () => {
  await start(page, "motion");
  await page.evaluate(() => {
    const { window: moments, channels } = model.library.preprocessing;
    window.recording = (change) => {
      const data = Float32Array.from({ length: moments * channels }, (_, i) => Math.sin(i / 7));
      change?.(data);
      return { data, shape: [moments, channels] };
    };
  });
  await refused(() => model.run(recording((data) => (data[5] = Infinity))), /element 5 is inf.*gap/);
  await refused(() => model.run({ data: new Float32Array(0), shape: [0, 6] }), /empty|moments/);
  const { value, ...problem } = await tried(() =>
    model.run(recording((data) => data.fill(NaN, 30, 60))).then(({ features }) => features),
  );
  assert.deepEqual(problem, {});
  assert.ok(value["series.missing_share"] > 0, JSON.stringify(value));
});

/** What the browser lets this origin store; `undefined` is as much as ever. Chromium remembers for seconds how much is
 * left, so this comes before the first write. */
async function allow(page, quotaSize) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Storage.overrideQuotaForOrigin", { origin: app.origin, quotaSize });
}

test("a full device answers, keeps examples and weights in memory, and stores them when there is room", async () => {
  const tab = await openPage(browser);
  await tab.page.goto(`${app.origin}/start`);
  await allow(tab.page, 1);
  await start(tab.page);
  assert.ok(await tab.page.evaluate(() => answers()));
  for (let taught = 1; taught <= 6; taught++) {
    const full = await tried((label) => model.learn(picture(label / 10), label), taught, tab.page);
    assert.equal(full.code, "storage_full", JSON.stringify(full));
    assert.match(full.hint, /free some space.*memory/);
    const counts = await tab.page.evaluate(() => model.examples());
    assert.deepEqual([counts.total, counts.unsaved], [taught, taught]);
  }
  // The weights too are in use, from memory.
  const trained = await tried(() => model.train({ epochs: 2 }), undefined, tab.page);
  assert.equal(trained.code, "storage_full", JSON.stringify(trained));
  assert.match(trained.hint, /weights are used from memory/);
  assert.ok(await tab.page.evaluate(() => answers()));
  const refusal = await tried(() => model.contribute(), undefined, tab.page);
  assert.deepEqual([refusal.value?.contributed, refusal.value?.reason.code], [false, "storage_full"]);
  await allow(tab.page, undefined);
  const saved = await tab.page.evaluate(async () => (await model.learn(picture(0.7), 7)).examples);
  assert.deepEqual([saved.total, saved.unsaved], [7, 0]);
  await tab.page.evaluate(() => model.close());
  await start(tab.page);
  assert.equal((await tab.page.evaluate(() => model.examples())).total, 7);
  await tab.context.close();
});

test("storage that is cleared under an open page is noticed and made anew", async () => {
  await page.evaluate(async () => {
    await model.consent(true);
    await model.learn(picture(), 1);
  });
  const cdp = await context.newCDPSession(page);
  await cdp.send("Storage.clearDataForOrigin", { origin: app.origin, storageTypes: "all" });
  assert.ok(await page.evaluate(() => answers()));
  const left = await page.evaluate(async () => {
    const { contributed, reason } = await model.contribute();
    return { contributed, code: reason.code, total: (await model.examples()).total };
  });
  // Whoever clears a site's data means it; and nobody can say what this device has contributed before.
  assert.deepEqual(left, { contributed: false, code: "consent_missing", total: 0 });
  const privacy = await page.evaluate(() => (model.refresh(), outcome(model.preview())));
  assert.equal(privacy.code, "nothing_to_contribute", JSON.stringify(privacy));
  assert.equal((await page.evaluate(() => model.learn(picture(), 1))).examples.total, 1);
  await page.evaluate(() => model.close());
  await start(page);
  const anew = await page.evaluate(async () => [(await model.examples()).total, model.privacy.ledger.intact]);
  assert.deepEqual(anew, [1, true]);
});

test("two tabs at once lose none of each other's examples", async () => {
  const second = await context.newPage();
  await start(second);
  const teach = (page, label) =>
    page.evaluate(async (label) => {
      for (let i = 0; i < 15; i++) await model.learn(picture(0.3 + i / 100), label);
    }, label);
  await Promise.all([teach(page, 1), teach(second, 2)]);
  for (const tab of [page, second]) {
    const { total, per_label } = await tab.evaluate(() => model.examples());
    assert.equal(total, 30);
    assert.deepEqual(
      per_label.map(({ count }) => count).filter((count) => count > 0),
      [15, 15],
    );
  }
  const [a, b] = await Promise.all(
    [page, second].map((tab) => tab.evaluate(async () => (await model.consent(true), model.contribute()))),
  );
  assert.ok(!(a.contributed && b.contributed), JSON.stringify([a, b]));
  // What one tab forgets, both do.
  await second.evaluate(() => model.forget());
  assert.equal((await page.evaluate(() => model.examples())).total, 0);
});

test("eight models of one site are open at once, and each hears of a new version", async () => {
  // A browser gives a server six lines in all; a stream of versions for each model would take them up.
  const second = await context.newPage();
  await start(second);
  for (const tab of [page, second])
    await tab.evaluate(async () => {
      const { open } = await import("/client/index.js");
      window.more = [];
      for (let i = 0; i < 3; i++) more.push(await open("/v1/libraries/fashion"));
      window.heard = new Map();
      for (const each of [model, ...more])
        each.on("version", (result) => heard.set(each, result.catalog_version));
    });
  const hears = async (tab, count, version) =>
    eventually(
      () => tab.evaluate((version) => [...heard.values()].filter((v) => v >= version).length, version),
      (now) => now === count,
      `${count} models at version ${version}`,
    );
  const version = await completeRound(demo.page);
  await Promise.all([page, second].map((tab) => hears(tab, 4, version)));
  // The first one held the stream for all.
  await page.evaluate(() => (heard.delete(model), model.close()));
  const next = await completeRound(demo.page);
  await Promise.all([hears(page, 3, next), hears(second, 4, next)]);
});

/** Ends the first worker of the page in this way, at once. */
const kill = (page, how) => page.workers()[0].evaluate(how);

test("a worker that is killed is replaced: what was asked is answered, what was taught stays", async () => {
  await page.evaluate(() => model.learn(picture(), 1));
  for (const how of [
    () => setTimeout(() => self.close()),
    () =>
      setTimeout(() => {
        throw new Error("the worker has a fault");
      }),
  ]) {
    const before = page.workers()[0];
    await kill(page, how);
    assert.ok(await page.evaluate(() => answers()));
    await eventually(
      () => page.workers().length === 1 && page.workers()[0] !== before,
      (fresh) => fresh,
      "one fresh worker",
    );
    assert.equal((await page.evaluate(() => model.examples())).total, 1);
  }
});

test("a call that changes something fails typed when its worker dies, and can be made again", async () => {
  await page.evaluate(() => {
    window.contributing = outcome(model.contribute());
  });
  await kill(page, () => self.close());
  const learnt = await tried(() => model.learn(picture(), 1));
  const told = await page.evaluate(() => contributing);
  for (const { code, hint } of [learnt, told])
    if (code) assert.deepEqual([code, /call again/.test(hint)], ["worker_failed", true]);
  assert.ok(learnt.value || (await tried(() => model.learn(picture(), 1))).value);
  assert.ok((await page.evaluate(() => model.examples())).total >= 1);
});

test("without memory a run fails typed, and the page goes on", async () => {
  // The engine may have 96 MB: enough for the library, too little for a large picture.
  const small = await startBrowser("--js-flags=--wasm-max-mem-pages=1536");
  try {
    const { page } = await openPage(small);
    await start(page);
    const { code, hint } = await tried(async () => model.run(new ImageData(4000, 4000)), undefined, page);
    assert.equal(code, "worker_failed");
    assert.match(hint, /smaller input/);
    assert.ok(await page.evaluate(() => answers()));
  } finally {
    await small.close();
  }
});

test("a listener that throws is the page's error, and the answer comes", async () => {
  const errors = [];
  page.on("pageerror", ({ message }) => errors.push(message));
  const { value } = await tried(async () => {
    let later = 0;
    model.on("stitch", () => {
      throw new Error("the page's own mistake");
    });
    model.on("stitch", () => later++);
    return [(await model.run(picture())).output.length, later];
  });
  assert.deepEqual(value, [10, 1]);
  assert.deepEqual(errors, ["the page's own mistake"]);
  const none = await tried(async () => model.on("stitch", undefined));
  assert.equal(none.code, "request_invalid");
});

test("numbers of any width are taken, and words that are not known are refused", async () => {
  const { value } = await tried(async () => {
    const data = new Int32Array(784).fill(1);
    const [whole, float] = [data, Float32Array.from(data)].map((data) => ({ data, shape: [1, 1, 28, 28] }));
    return [await model.run(whole), await model.run(float)].map(({ output }) => [...output]);
  });
  assert.deepEqual(value[0], value[1]);
  for (const work of [
    () => model.run(picture(), { costLimit: { msec: 20 } }),
    () => model.run(picture(), { costLimit: { ms: -1 } }),
    () => model.run(picture(), { signal: {} }),
    () => model.train({ epochs: 0 }),
  ])
    assert.equal((await tried(work)).code, "request_invalid", String(work));
  assert.ok(await page.evaluate(() => answers()));
});

test("under a small memory limit the answers are the same, and what is held keeps the limit", async () => {
  const answer = async () => {
    const memory = [];
    const outputs = [];
    for (let turn = 0; turn < 3; turn++)
      for (const patches of [["noise-reduction"], ["rotation"], "none"]) {
        const { output } = await model.run(picture(), { patches });
        outputs.push([...output]);
        memory.push(await model.memory());
      }
    return { outputs, memory };
  };
  const { value: roomy } = await tried(answer);
  assert.ok(
    roomy.memory.every(({ dropped }) => dropped === 0),
    JSON.stringify(roomy.memory),
  );
  const limit = Math.floor(roomy.memory.at(-1).held_bytes / 2);
  await start(page, "fashion", { memoryBytes: limit });
  const { value: tight } = await tried(answer);
  assert.deepEqual(tight.outputs, roomy.outputs);
  for (const memory of tight.memory) {
    assert.equal(memory.limit_bytes, limit);
    assert.ok(memory.held_bytes <= limit, JSON.stringify(memory));
  }
  assert.ok(tight.memory.at(-1).dropped > tight.memory[0].dropped, "what was dropped is made again");
  const { code, hint } = await tried(async () => {
    const { open } = await import("/client/index.js");
    return open("/v1/libraries/fashion", { memoryBytes: -1 });
  });
  assert.equal(code, "request_invalid");
  assert.match(hint, /leave it out/);
});

test("every row of the document names a test that there is", async () => {
  const root = new URL("../../", import.meta.url);
  const text = (path) => readFile(new URL(path, root), "utf8");
  const rows = (await text("docs/ROBUSTNESS.md")).matchAll(/^\| [^|]+ \| [^|]+ \| `([^`]+)`: ([^|]+) \|$/gm);
  let count = 0;
  for (const [, file, name] of rows) {
    const path = file.includes("/") ? file : `tests/browser/${file}.test.mjs`;
    assert.ok((await text(path)).includes(path.endsWith(".rs") ? `fn ${name}()` : `test("${name}"`), name);
    count++;
  }
  assert.ok(count > 20, `${count} rows`);
});
