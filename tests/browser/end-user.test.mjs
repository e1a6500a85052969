// The end user: a noisy picture is repaired, why is shown; teaching, training, contributing; a version arrives.

import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { eventually, openPage, picture, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";
import { completeRound } from "./others.mjs";

let demo, browser, context, page, complaints;

before(async () => {
  // Without a fleet: it goes on while the page is slow, and whether a contribution helps depends on the version it starts from.
  [demo, browser] = await Promise.all([startDemo("--clients", "0"), startBrowser()]);
  ({ context, page, complaints } = await openPage(browser));
});
after(async () => {
  await browser?.close();
  await demo?.stop();
});

const text = (selector) => page.locator(selector).innerText();
const chosen = (patch) => page.locator(`tr[data-patch="${patch}"].chosen`);
const slide = (label, value) => page.getByRole("slider", { name: label }).fill(String(value));

test("the page answers within seconds, on its own samples", async () => {
  const started = Date.now();
  await page.goto(demo.page);
  await page.getByText("Running here").waitFor();
  await page.locator("#stitched-answer strong").waitFor();
  assert.ok(Date.now() - started < 10_000, `${Date.now() - started} ms`);
  assert.equal(await page.locator("bs-input .strip button").count(), 20);
  await picture(page, "page-start");
});

test("nothing leaves the page's own origin", async () => {
  const foreign = await page.evaluate(() =>
    performance
      .getEntriesByType("resource")
      .filter(({ name }) => !name.startsWith(location.origin))
      .map(({ name }) => name),
  );
  assert.deepEqual(foreign, []);
});

test("scripts and the engine come packed, to a browser that takes it", async () => {
  const assets = await readdir(new URL("../../web/dist/assets", import.meta.url));
  const engine = assets.find((name) => /^client_relaxed.*\.wasm$/.test(name));
  const codings = await page.evaluate(async (engine) => {
    const own = performance.getEntriesByType("resource").map(({ name }) => name);
    const scripts = own.filter((url) => /\/assets\/.*\.js$/.test(url));
    const coding = async (url) => (await fetch(url)).headers.get("content-encoding");
    return { scripts: await Promise.all(scripts.map(coding)), engine: await coding(engine) };
  }, `/assets/${engine}`);
  assert.ok(codings.scripts.length > 0);
  assert.deepEqual(
    { ...codings, scripts: [...new Set(codings.scripts)] },
    { scripts: ["br"], engine: "zstd" },
  );
});

test("every file of the page comes with a strict policy, its worker's too", async () => {
  const policies = await page.evaluate(async () => {
    const own = performance.getEntriesByType("resource").map(({ name }) => name);
    const urls = [...new Set([location.href.split("#")[0], ...own])].filter(
      (url) => !/\/v1\/events/.test(url),
    );
    return Promise.all(
      urls.map(async (url) => [url, (await fetch(url)).headers.get("content-security-policy")]),
    );
  });
  assert.ok(
    policies.some(([url]) => /worker.*\.js/.test(url)),
    policies.map(([url]) => url).join("\n"),
  );
  for (const [url, policy] of policies) {
    assert.match(policy ?? "", /default-src 'none'.*frame-ancestors 'none'/, url);
    assert.doesNotMatch(policy, /unsafe-inline|'unsafe-eval'|https?:/, url);
  }
});

test("noise makes the base model wrong, and the stitched model right", async () => {
  await slide("Noise", 0.3);
  await chosen("noise-reduction").waitFor();
  await page
    .locator('tr[data-patch="noise-reduction"] .reason')
    .getByText(/Looks noisy \([\d.]+ of 1\)/)
    .waitFor();
  let repaired = 0;
  for (let sample = 0; sample < 20 && repaired === 0; sample++) {
    await page.locator("bs-input .strip button").nth(sample).click();
    await eventually(
      () => settled(sample),
      (done) => done,
      "the answer",
    );
    const [base, stitched] = [await text("#base-answer"), await text("#stitched-answer")];
    if (base.includes("wrong") && stitched.includes("right")) repaired++;
  }
  assert.ok(repaired > 0, "a sample that noise spoils and the patch repairs");
  assert.match(await text("#verdict"), /noise-reduction.*stitched/s);
  await picture(page, "page-noise");
});

/** Whether the shown answer belongs to this sample: the page writes both in one go. */
async function settled(sample) {
  const pressed = await page.locator("bs-input .strip button").nth(sample).getAttribute("aria-pressed");
  return pressed === "true" && (await page.evaluate(() => document.querySelector("bs-app").studio.settled));
}

test("the address brings the same picture back", async () => {
  const [url, answer] = [page.url(), await text("#stitched-answer")];
  assert.match(url, /noise=0\.3/);
  const again = await openPage(browser);
  await again.page.goto(url);
  await again.page.locator("#stitched-answer strong").waitFor();
  await eventually(
    () => again.page.locator("#stitched-answer").innerText(),
    (now) => now === answer,
    "the same answer",
  );
  await again.context.close();
});

test("a patch can be switched off and on by hand", async () => {
  const choice = page.getByLabel("What if: noise-reduction");
  await choice.selectOption("off");
  await eventually(
    () => chosen("noise-reduction").count(),
    (n) => n === 0,
    "noise reduction to be left out",
  );
  await choice.selectOption("auto");
  await chosen("noise-reduction").waitFor();
});

test("a low cost limit leaves dear patches out, and says so", async () => {
  await slide("Limit", 0);
  await eventually(
    () => chosen("noise-reduction").count(),
    (n) => n === 0,
    "noise reduction to be too dear",
  );
  assert.match(await text('tr[data-patch="noise-reduction"] .reason'), /limit|ms/i);
  // The model alone takes longer, so it answers from its first layer. A worker's clock has steps of 0.1 ms: on a fast
  // machine it may not tell that this saves anything, and then nothing is to be shortened.
  const saved = await page.evaluate(() => {
    const { candidates } = document.querySelector("bs-app").studio.result;
    return -candidates.find(({ name }) => name === "early-answer").cost_ms;
  });
  if (saved >= 0.09) {
    await chosen("early-answer").waitFor();
    assert.match(await text('tr[data-patch="early-answer"] .reason'), /saves/i);
  } else assert.equal(await chosen("early-answer").count(), 0);
  await slide("Limit", 60);
  await chosen("noise-reduction").waitFor();
});

test("teaching counts examples, and training in the page brings a better own version", async () => {
  await page.getByRole("button", { name: "Tilted" }).click();
  // A fifth of the examples judges whether contributing pays: of eighty, enough of them for a fair verdict.
  for (const [tilt, count] of [
    [25, 40],
    [20, 80],
  ]) {
    await slide("Tilt", tilt);
    await page.getByRole("button", { name: /Teach all/ }).click();
    await eventually(
      () => text("#examples"),
      (now) => now.startsWith(`${count} `),
      `${count} examples`,
    );
  }
  await page.getByRole("button", { name: "Train here" }).click();
  await page.locator("bs-teach .report strong").waitFor();
  assert.match(await text("bs-teach .report"), /right before, .* after/);
  await picture(page, "page-trained");
});

test("what would be sent can be looked at before anybody agreed to it", async () => {
  assert.equal(await page.locator("#consent").isChecked(), false);
  assert.equal(await page.locator("#contribute").isDisabled(), true);
  await page.locator("#show").click();
  await page.locator("#frame").waitFor();
  assert.match(await text("#frame .hex"), /^0000\s*42\s*53\s*43\s*31/);
  await picture(page, "page-frame");
  await page.getByRole("button", { name: "Close" }).click();
});

test("contributing takes a yes, and the privacy gauge moves", async () => {
  assert.match(await text("#odds"), /Nothing was sent/);
  await page.locator("#consent").check();
  await page.getByText("Contributing is on").waitFor();
  const kinds = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/contributions")) kinds.push(request.headers()["content-type"]);
  });
  await page.locator("#contribute").click();
  await eventually(
    () => text("#outcome"),
    (now) => now.startsWith("Sent."),
    "the contribution",
  );
  assert.deepEqual(kinds, ["application/vnd.backstitch.contribution"]);
  assert.match(await text("#odds"), /from 50 % to at most \d\d %/);
  await page.getByText("What was sent, and when (1)").waitFor();
  await picture(page, "page-contributed");
});

test("a second contribution to the same round says why not", async () => {
  await page.locator("#contribute").click();
  await eventually(
    () => text("#outcome"),
    (now) => now.startsWith("Nothing was sent."),
    "the reason",
  );
});

test("a new version arrives without a reload", async () => {
  await page.evaluate(() => (window.sameDocument = true));
  const rung = '[data-patch="personal-style"] .rung.now';
  const before = Number(await page.locator(rung).getAttribute("data-version"));
  await completeRound(demo.page);
  await eventually(
    () => page.locator(rung).getAttribute("data-version"),
    (now) => Number(now) > before,
    "the next version",
  );
  await page.locator("#arrivals strong").first().waitFor();
  assert.equal(await page.evaluate(() => window.sameDocument), true);
  await picture(page, "page-version");
});

/** Everything that the page keeps: IndexedDB as text by key, without the library's prefix, and the files in caches. */
const kept = () =>
  page.evaluate(async () => {
    const settled = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const database = await settled(indexedDB.open("backstitch", 1));
    const store = database.transaction("state").objectStore("state");
    const [keys, values] = await Promise.all([settled(store.getAllKeys()), settled(store.getAll())]);
    database.close();
    const rows = keys.map((key, i) => [
      key.split("/").slice(2).join("/"),
      new TextDecoder().decode(values[i]),
    ]);
    const files = [];
    for (const name of await caches.keys())
      files.push(...(await (await caches.open(name)).keys()).map(({ url }) => url));
    return {
      rows: Object.fromEntries(rows),
      files,
      local: localStorage.length,
      cookies: document.cookie,
    };
  });

test("pausing and forgetting work, and the ledger stays", async () => {
  const before = await kept();
  assert.ok(before.files.length > 0 && before.rows.examples && before.rows.device.includes('"consent":true'));
  await page.getByRole("button", { name: "Pause contributing" }).click();
  await page.getByText("Contributing is off").waitFor();
  await page.getByRole("button", { name: "Forget me" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await eventually(
    () => text("#examples"),
    (now) => now.startsWith("0 "),
    "no examples",
  );
  assert.match(await text("#odds"), /from 50 % to at most/);
  await eventually(
    async () => (await kept()).files.length,
    (n) => n === 0,
    "no stored files",
  );
  const { rows, local, cookies } = await kept();
  // What is left can neither train nor contribute nor tell what somebody did, but for the ledger, which holds the promise.
  const left = Object.keys(rows).filter(
    (key) => !/^(device|ledger|catalog|feedback|windows|personal|examples)$/.test(key),
  );
  assert.deepEqual(left, [], "no example, weights, pending contribution, token or checkpoint is left");
  assert.match(rows.device, /"consent":false/);
  assert.equal(rows.ledger, before.rows.ledger);
  for (const key of ["examples", "personal", "feedback", "windows"])
    assert.match(rows[key] ?? "", /^(|\{\}|\[\]|.*\[\].*|\{"[a-z_]+":(\{\}|\[\])\})$/, key);
  assert.deepEqual([local, cookies], [0, ""]);
});

test("the page works on a small screen and in the dark", async () => {
  const phone = await openPage(browser, {
    viewport: { width: 390, height: 844 },
    colorScheme: "dark",
  });
  await phone.page.goto(`${demo.page}#sample=3&noise=0.3`);
  await phone.page.locator("#stitched-answer strong").waitFor();
  const [content, screen] = await phone.page.evaluate(() => [
    document.documentElement.scrollWidth,
    innerWidth,
  ]);
  assert.ok(content <= screen, `${content} px of content on ${screen} px`);
  await picture(phone.page, "page-phone");
  assert.deepEqual(phone.complaints, []);
  await phone.context.close();
});

test("when the server goes away the page goes on and says so where it matters", async () => {
  await context.setOffline(true);
  await slide("Noise", 0.2);
  await chosen("noise-reduction").waitFor();
  await context.setOffline(false);
});

test("nothing broke the page's own policy", () => {
  assert.deepEqual(
    complaints.filter((line) => !/ERR_INTERNET_DISCONNECTED/.test(line)),
    [],
  );
});
