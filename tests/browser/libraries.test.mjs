// The other libraries of the page: a typed sentence finds its patch, a person's recordings make one.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, openPage, picture, startBrowser } from "./browser.mjs";
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
const settled = () =>
  eventually(
    () => page.evaluate(() => document.querySelector("bs-app").studio.settled),
    (done) => done,
    "the answer",
    120_000,
  );

/** Both themes, wide and narrow, where `SCREENSHOTS` asks for pictures. */
async function portrait(name) {
  if (!process.env.SCREENSHOTS) return;
  for (const colorScheme of ["light", "dark"])
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await picture(page, `${name}-${colorScheme}-${width}`);
    }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}

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
    await settled();
    assert.match(await page.locator("#stitched-answer strong").innerText(), answer);
    assert.ok((await page.locator(`tr[data-patch="${patch}"] .reason`).innerText()).length > 10);
    assert.equal(await page.locator("tr.chosen").count(), 1);
  };
  await say("@anonymous omg I love this so much!!! :) http://url_removed", "tweets", /positive/);
  await say("A dull, lifeless film with a plot that goes nowhere.", "films", /negative/);
  await portrait("sentences");
});

test("nothing is asked of an empty sentence, and ten thousand words do no harm", async () => {
  await page.locator("#sentence").fill("   ");
  await settled();
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
  await settled();
  // The window that is shown then, run by itself, says the same.
  const { start } = await watch();
  await page.waitForTimeout(600);
  assert.equal((await watch()).start, start);
});

test("a person's own recordings make the model better for them", async () => {
  await page.getByRole("link", { name: "Motion" }).click();
  await page.getByText("Running here").waitFor();
  await page.locator("#stitched-answer strong").waitFor();
  await page.getByRole("button", { name: /Teach the first halves of person/ }).click();
  await page.getByRole("button", { name: "Train here" }).click();
  await page.getByText("your version is in use").waitFor();
  await chosen("personal").waitFor();
  await portrait("motion");
  assert.deepEqual(complaints, []);
});
