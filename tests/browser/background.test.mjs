// Training in the background: it waits for a page that has nothing better to do, goes on in the next visit where a tab is
// closed, and comes to what training in one go comes to.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { serveApp } from "./app-server.mjs";
import { eventually, openPage, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";

const DIST = new URL("../../web/packages/client/dist/", import.meta.url).pathname;
// As many as there may be, so that it takes some seconds.
const EPOCHS = 1000;
let demo, browser, app, context, page;

before(async () => {
  [demo, browser] = await Promise.all([startDemo("--clients", "0"), startBrowser()]);
  app = await serveApp({ "/client/": DIST }, demo.page);
});
beforeEach(async () => {
  await context?.close();
  ({ context, page } = await openPage(browser));
  // Surroundings that the test changes: whether the tab is hidden, and the battery.
  await context.addInitScript(() => {
    window.surroundings = { visibilityState: "visible", charging: true };
    const battery = new EventTarget();
    Object.defineProperty(battery, "charging", { get: () => surroundings.charging });
    Object.defineProperty(navigator, "getBattery", { value: async () => battery });
    Object.defineProperty(document, "visibilityState", { get: () => surroundings.visibilityState });
    window.surround = (change) => {
      Object.assign(surroundings, change);
      document.dispatchEvent(new Event("visibilitychange"));
      battery.dispatchEvent(new Event("chargingchange"));
    };
  });
  await visit(page);
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await demo?.stop();
});

/** Opens the library, in a hidden tab or not; `seen` collects what the model tells of its training. */
async function visit(page, options = {}, hidden = false) {
  await page.goto(`${app.origin}/start`);
  if (hidden) await page.evaluate(() => surround({ visibilityState: "hidden" }));
  await page.evaluate(async (options) => {
    const { open } = await import("/client/index.js");
    window.seen = { steps: [], paused: [], reports: [] };
    window.model = await open("/v1/libraries/fashion", options);
    model.on("training", ({ step, paused }) => {
      (paused ? seen.paused : seen.steps).push(paused ?? step);
      // All steps take a second or two; a hidden tab stops them half-way.
      if (step === window.hideAt) surround({ visibilityState: "hidden" });
    });
    model.on("trained", (report) => seen.reports.push(report));
    window.picture = (index) => {
      const inside = (i) => i % 28 > 6 && i % 28 < 21 && i / 28 > 4 && i / 28 < 23;
      const level = (i) => (inside(i) ? 0.5 + ((i * (index + 3)) % 17) / 40 : ((i * index) % 13) / 60);
      return { data: Float32Array.from({ length: 784 }, (_, i) => level(i)), shape: [1, 1, 28, 28] };
    };
    window.teach = async () => {
      for (let index = 0; index < 120; index++) await model.learn(picture(index), index % 3);
    };
    window.begin = (options) => {
      window.training = model.train({ background: true, ...options }).then(
        (report) => ({ report }),
        ({ code }) => ({ code }),
      );
      window.training.then((outcome) => (window.outcome = outcome));
    };
  }, options);
}

const steps = (page) => page.evaluate(() => seen.steps);
const several = (count) => (list) => list.length >= count;

/** Begins a training and returns the step at which the page was hidden, or the few that came after it. */
async function halfDone(page, options) {
  await page.evaluate((options) => ((window.hideAt = 200), begin(options)), { epochs: EPOCHS, ...options });
  await eventually(
    () => page.evaluate(() => seen.paused.at(-1)),
    (why) => why === "hidden",
    "a pause",
  );
  const taken = (await steps(page)).at(-1);
  assert.ok(taken >= 200 && (await page.evaluate(() => window.outcome)) === undefined, `${taken}`);
  return taken;
}

test("it goes on after the tab was closed, and ends where training in one go does", async () => {
  await page.evaluate(() => teach());
  const taken = await halfDone(page, { seed: 3 });
  // The model answers meanwhile.
  assert.equal(await page.evaluate(async () => (await model.run(picture(1))).output.length), 10);
  await page.close();
  const next = await context.newPage();
  await visit(next, {}, true);
  // Whoever asks for the same training gets the one that goes on.
  await next.evaluate((epochs) => begin({ epochs, seed: 3 }), EPOCHS);
  await next.evaluate(() => surround({ visibilityState: "visible" }));
  await next.waitForFunction(() => window.outcome, undefined, { timeout: 120_000 });
  const [{ report }, reports] = await next.evaluate(() => [outcome, seen.reports.length]);
  assert.deepEqual([(await steps(next))[0], reports], [taken + 1, 1]);
  const { context: other, page: whole } = await openPage(browser);
  await visit(whole);
  await whole.evaluate(() => teach());
  const expected = await whole.evaluate((epochs) => model.train({ epochs, seed: 3 }), EPOCHS);
  await other.close();
  for (const key of ["steps", "curve", "personal", "shared", "in_use"])
    assert.deepEqual(report[key], expected[key], key);
  const used = await next.evaluate(async () => (await model.run(picture(1), { weights: "personal" })).top[0]);
  assert.equal(used.index, 1);
  // Nothing is left to go on with.
  await next.close();
  const last = await context.newPage();
  await visit(last);
  await last.waitForTimeout(1500);
  assert.deepEqual(await steps(last), []);
});

test("it waits in a hidden tab and on battery, unless it may go on there", async () => {
  await page.evaluate(() => teach());
  await page.evaluate(() => surround({ visibilityState: "hidden" }));
  await page.evaluate((epochs) => begin({ epochs }), EPOCHS);
  await eventually(() => page.evaluate(() => seen.paused), several(1), "a pause");
  await page.waitForTimeout(1000);
  assert.deepEqual(await page.evaluate(() => [seen.steps.length, seen.paused[0]]), [0, "hidden"]);
  await page.evaluate(() => surround({ visibilityState: "visible", charging: false }));
  await eventually(
    () => page.evaluate(() => seen.paused),
    (paused) => paused.includes("battery"),
    "battery",
  );
  assert.deepEqual(await steps(page), []);
  await page.evaluate(() => ((window.hideAt = 200), surround({ charging: true })));
  await eventually(
    () => page.evaluate(() => seen.paused.at(-1)),
    (why) => why === "hidden",
    "a pause",
  );
  const taken = (await steps(page)).length;
  assert.ok(taken >= 200 && (await page.evaluate(() => window.outcome)) === undefined, `${taken}`);
  await page.waitForTimeout(1000);
  assert.equal((await steps(page)).length, taken);
  await page.close();
  const next = await context.newPage();
  await visit(next, { background: { whileHidden: true, onBattery: true } }, true);
  assert.equal((await eventually(() => steps(next), several(10), "steps in a hidden tab"))[0], taken + 1);
});

test("a cancelled one leaves nothing, and one page trains at a time", async () => {
  await page.evaluate(() => teach());
  await page.evaluate(() => (window.abort = new AbortController()));
  await page.evaluate((epochs) => ((window.hideAt = 200), begin({ epochs, signal: abort.signal })), EPOCHS);
  await eventually(
    () => page.evaluate(() => seen.paused.at(-1)),
    (why) => why === "hidden",
    "a pause",
  );
  const second = await context.newPage();
  await visit(second);
  await second.waitForTimeout(1000);
  assert.deepEqual(await steps(second), [], "the second tab waits for the first one");
  await page.evaluate(() => abort.abort());
  await page.waitForFunction(() => window.outcome);
  assert.equal(await page.evaluate(() => outcome.code), "aborted");
  await second.waitForTimeout(1500);
  assert.deepEqual(await steps(second), [], "what was cancelled is not gone on with");
  const { improved } = await second.evaluate(() => model.train({ background: true, epochs: 2 }));
  assert.equal(typeof improved, "boolean");
});

test("an example more makes a half-done training begin anew", async () => {
  await page.evaluate(() => teach());
  await halfDone(page, {});
  await page.evaluate(() => model.close());
  assert.equal(await page.evaluate(async () => (await training).code), "closed");
  const next = await context.newPage();
  await visit(next, { background: { resume: false } });
  await next.waitForTimeout(500);
  assert.deepEqual(await steps(next), [], "it was told not to go on");
  await next.evaluate(() => model.learn(picture(130), 1));
  await next.evaluate((epochs) => begin({ epochs }), EPOCHS);
  assert.equal((await eventually(() => steps(next), several(1), "steps"))[0], 1);
});
