// The operator: watches rounds and the ledger move, promotes, rolls back, runs an experiment.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, fits, openPage, picture, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";
import { catalog, completeRound } from "./others.mjs";

let demo, browser, page, complaints;

before(async () => {
  [demo, browser] = await Promise.all([startDemo(), startBrowser()]);
  ({ page, complaints } = await openPage(browser));
});
after(async () => {
  await browser?.close();
  await demo?.stop();
});

const champion = () =>
  page.locator('tbody[data-patch="personal-style"] tr.champion').getAttribute("data-version");

async function giveReason(text) {
  await page.locator("dialog[open] textarea").fill(text);
  await page.locator("dialog[open] button.primary").click();
}

test("the token leaves the address and the console opens", async () => {
  await page.goto(demo.console);
  await page.getByText("Privacy ledger").waitFor();
  assert.doesNotMatch(page.url(), /token/);
  // The address keeps the library that is looked at, over a reload too.
  await page.getByRole("button", { name: "Anomalies" }).click();
  await page.locator('tbody[data-patch="shared-forecast"]').waitFor();
  await page.reload();
  await page.locator('tbody[data-patch="shared-forecast"]').waitFor();
  await page.goto(page.url().replace("anomalies", "fashion"));
  await page.locator('tbody[data-patch="personal-style"]').waitFor();
});

test("rounds move and the ledger grows without a reload", async () => {
  const records = () => page.locator("bs-ledger tr[data-sequence]").count();
  const before = [await champion(), await records()];
  await completeRound(demo.page);
  await eventually(champion, (now) => Number(now) > Number(before[0]), "the champion's version");
  await eventually(records, (now) => now > before[1], "ledger records");
  await page
    .locator("bs-ledger")
    .getByText(/spent ε \d\.\d\d of\s+4\.00/)
    .waitFor();
  // What was spent ever, what the next release costs, and who is in it how often.
  const told = await page.locator("bs-ledger p").first().innerText();
  assert.match(told, /since the start at most ε \d\.\d\d\s+\(ρ 0\.\d{4}\)/);
  assert.match(
    told,
    /The next release costs each\s+device in it ρ 0\.\d{4} and takes the worst-placed to ε \d\.\d\d/,
  );
  await page.locator("bs-rounds tr[data-round]").nth(1).waitFor();
  await picture(page, "console-rounds");
});

test("counts and ledger are those of the library that is shown", async () => {
  const accepted = () =>
    page
      .locator('bs-errors [data-code="accepted"] .num')
      .innerText()
      .then((text) => Number(text.replace(/\D/g, "")));
  const facts = page.locator("dl.facts");
  assert.ok((await accepted()) > 0, "this library has contributions");
  assert.match(await facts.innerText(), /to this library accepted/);
  assert.match(await page.locator("bs-errors bs-panel").getAttribute("hint"), /To Clothes alone/);
  const records = page.locator("bs-ledger tr[data-sequence]");
  assert.ok((await records.count()) > 0, "this library has spent something");
  // One that no device of the demo trains has none of it.
  await page.getByRole("button", { name: "Photographs" }).click();
  await eventually(accepted, (now) => now === 0, "no contributions to the other library");
  assert.equal(await records.count(), 0, "the other library has spent nothing");
  await page.getByRole("button", { name: "Clothes", exact: true }).click();
  await eventually(accepted, (now) => now > 0, "the contributions of the first library");
});

test("rolling back takes a reason, moves the alias, and clients see it", async () => {
  await completeRound(demo.page);
  await eventually(champion, (now) => Number(now) > 2, "a version to go back from");
  const [from, version] = [Number(await champion()), (await catalog(demo.page)).version];
  await page.locator("button.rollback").click();
  await giveReason("the tilted pictures got worse");
  await eventually(champion, (now) => Number(now) === from - 1, "the champion after the rollback");
  await page.getByText("Who moved what").click();
  await page.getByText("the tilted pictures got worse").waitFor();
  await eventually(
    async () => await catalog(demo.page),
    (now) => now.version > version && now.tasks[0].base_versions[0] === from - 1,
    "the public catalog",
  );
});

test("promoting takes a reason and moves the alias", async () => {
  await page.getByRole("button", { name: "Promote personal-style v1" }).click();
  await giveReason("start over\nfrom the import");
  await eventually(champion, (now) => now === "1", "the champion after the promotion");
  await page.getByText("start over from the import").waitFor();
  await picture(page, "console-versions");
});

test("an experiment starts, says why there is no decision yet, and stops", async () => {
  await page.getByText("Start an experiment").click();
  await page.locator('input[name="name"]').fill("denoise-or-not");
  await page.locator('select[name="patch"]').selectOption("noise-reduction");
  await page.locator('select[name="challenger"]').selectOption("0");
  await page.locator("bs-experiment-form button.primary").click();
  const experiment = page.locator('article[data-experiment="denoise-or-not"]');
  await experiment.getByText("Why not yet").waitFor();
  assert.match(
    await page.locator("#reports").innerText(),
    /told ε 1\.00 of\s+4\.00 within 30 days.*up to ε 3\.00/s,
  );
  await picture(page, "console-experiment");
  await experiment.getByRole("button", { name: "Stop" }).click();
  await giveReason("only a rehearsal");
  await experiment.getByText("stopped", { exact: true }).waitFor();
  assert.equal((await catalog(demo.page)).experiments.length, 0);
});

test("a refused action says why and what to do", async () => {
  await page.locator('input[name="name"]').fill("denoise-or-not");
  await page.locator("bs-experiment-form button.primary").click();
  await page.locator(".problem").waitFor();
  assert.ok((await page.locator(".problem").innerText()).length > 20);
});

test("a wrong token asks for another one", async () => {
  const stranger = await openPage(browser);
  await stranger.page.goto(demo.console.replace(/token=.*/, "token=wrong"));
  await stranger.page.getByText("the bearer token is missing or wrong").waitFor();
  await stranger.page.locator('input[name="token"]').fill(new URL(demo.console).hash.replace("#token=", ""));
  await stranger.page.getByRole("button", { name: "Open the console" }).click();
  await stranger.page.getByText("Privacy ledger").waitFor();
  await stranger.context.close();
});

test("the console fits on a small screen", async () => {
  assert.ok(await fits(page, 390));
});

test("nothing broke the page's own policy", () => {
  // The browser itself reports refused requests, which two of the tests above ask for.
  assert.deepEqual(
    complaints.filter((text) => !/status of 4\d\d/.test(text)),
    [],
  );
});
