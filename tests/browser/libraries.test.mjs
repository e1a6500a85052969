// The other libraries of the page: a typed sentence finds its patch, a person's recordings make one.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, fits, openPage, portrait, settled, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";

let demo, browser, context, page, complaints;

before(async () => {
  [demo, browser] = await Promise.all([startDemo("--clients", "0"), startBrowser()]);
  ({ context, page, complaints } = await openPage(browser));
  page.setDefaultTimeout(120_000);
});
after(async () => {
  await browser?.close();
  await demo?.stop();
});

const chosen = (patch) => page.locator(`tr[data-patch="${patch}"].chosen`);
test("the switch leads from pictures to sentences", async () => {
  await page.goto(demo.page);
  await page.getByRole("link", { name: "Sentences" }).click();
  await page.getByText("Running here").waitFor();
  await page.locator("#stitched-answer strong").waitFor();
  assert.equal(await page.getByRole("link", { name: "Sentences" }).getAttribute("aria-current"), "page");
});

test("a typed sentence is answered by the patch of its domain, and the page says why", async () => {
  const say = async (sentence, patch, answer) => {
    await page.locator("#sentence").fill(sentence);
    await chosen(patch).waitFor();
    await settled(page);
    assert.match(await page.locator("#stitched-answer strong").innerText(), answer);
    assert.ok((await page.locator(`tr[data-patch="${patch}"] .reason`).innerText()).length > 10);
    assert.equal(await page.locator("tr.chosen").count(), 1);
  };
  await say("@anonymous omg I love this so much!!! :) http://url_removed", "tweets", /positive/);
  await say("A dull, lifeless film with a plot that goes nowhere.", "films", /negative/);
  await portrait(page, "sentences");
});

test("nothing is asked of an empty sentence, and ten thousand words do no harm", async () => {
  await page.locator("#sentence").fill("   ");
  await settled(page);
  assert.equal(await page.locator("[role=alert]").count(), 0);
  const refused = await page.evaluate(async () => {
    const { model } = document.querySelector("bs-app").studio;
    const codes = [];
    for (const input of ["", "a ".repeat(5 << 20), { data: [1, 2], shape: [2] }])
      codes.push(
        await model.run(input).then(
          () => "answered",
          (problem) => problem.code,
        ),
      );
    codes.push((await model.run("good ".repeat(10_000))).top[0].label);
    return codes;
  });
  assert.deepEqual(refused, ["input_invalid", "input_invalid", "input_invalid", "positive"]);
});

test("a recording is played through a stream, with an answer for each part of it", async () => {
  await page.getByRole("link", { name: "Motion" }).click();
  await page.getByText("Running here").waitFor();
  await page.locator("#stitched-answer strong").waitFor();
  const watch = () =>
    page.evaluate(() => {
      const { staged, result } = document.querySelector("bs-app").studio;
      return { start: staged.start, output: result.output.join(), length: result.features["series.length"] };
    });
  const began = await watch();
  await page.locator("#play").click();
  const answers = new Set();
  await eventually(
    watch,
    ({ start, output, length }) => {
      assert.equal(length, 128);
      return answers.add(output).size > 3 && start !== began.start;
    },
    "answers to follow the recording",
  );
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Play" }).waitFor();
  await settled(page);
  // The window that is shown then, run by itself, says the same.
  const { start } = await watch();
  await page.waitForTimeout(600);
  assert.equal((await watch()).start, start);
});

test("a heart is watched moment by moment, and the stitched model is loud less often than the base model", async () => {
  await page.getByRole("link", { name: "Signals" }).click();
  await page.locator("#stitched-answer strong").waitFor();
  await settled(page);
  assert.match(await page.locator("#verdict").innerText(), /temporal-anomaly was stitched/);
  await page.locator("#play").click();
  await page.locator("#play", { hasText: "Stop" }).waitFor();
  await page.locator("#play", { hasText: "Play" }).waitFor();
  await settled(page);
  const { scores, strange } = await page.evaluate(() => {
    const { scores, signal } = document.querySelector("bs-app").studio.staged;
    return { scores, strange: signal.strange };
  });
  // A score for every moment that has a whole window behind it, each once.
  assert.ok(scores.length > 2000 && scores.every(({ end }, index) => end === scores[0].end + index));
  const loudest = scores.reduce((best, score) => (score.stitched > best.stitched ? score : best));
  assert.ok(strange[0] <= loudest.end && loudest.end <= strange[1], `${loudest.end} is not in ${strange}`);
  const times = async (side) => Number(await page.locator(`[data-side="${side}"] strong.num`).innerText());
  const [base, stitched] = [await times("base"), await times("stitched")];
  assert.ok(stitched >= 1 && stitched < base / 2, `base ${base}, stitched ${stitched}`);
  await portrait(page, "signals");
  assert.ok(await fits(page, 390), "it fits on a small screen");
  await page.setViewportSize({ width: 1280, height: 900 });
});

test("what is ordinary trains the forecast, and nobody calls it right or wrong", async () => {
  await page.getByRole("button", { name: /Teach what comes before the shaded part/ }).click();
  await page.locator("#examples", { hasText: "20 of at most" }).waitFor();
  await page.getByRole("button", { name: "What is seen now is ordinary" }).click();
  await page.locator("#examples", { hasText: "21 of at most" }).waitFor();
  await page.getByRole("button", { name: "Train here" }).click();
  const report = page.locator("bs-teach .report", { hasText: "held-out examples" });
  await report.waitFor();
  assert.match(await report.innerText(), /loss [\d.]+ → [\d.]+/);
  assert.doesNotMatch(await report.innerText(), /right/);
  const { task, parameters, values } = await page.evaluate(() => {
    const { model } = document.querySelector("bs-app").studio;
    return model.preview();
  });
  assert.deepEqual([task, parameters, values.length], ["shared-forecast", 8, 8]);
});

test("a person's own recordings make the model better for them", async () => {
  await page.getByRole("link", { name: "Motion" }).click();
  await page.getByText("Running here").waitFor();
  await page.locator("#stitched-answer strong").waitFor();
  await page.getByRole("button", { name: /Teach the first halves of person/ }).click();
  await page.getByRole("button", { name: "Train here" }).click();
  await page.getByText("your version is in use").waitFor();
  await chosen("personal").waitFor();
  await portrait(page, "motion");
  assert.deepEqual(complaints, []);
});
