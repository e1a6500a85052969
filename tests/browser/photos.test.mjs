// Photographs: a file, the clipboard and the camera; things of one's own from a few pictures, judged on others.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually, openPage, portrait, settled, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";

const FOLDER = mkdtempSync(join(tmpdir(), "backstitch-camera-"));
const FILM = join(FOLDER, "camera.y4m");
const FAKE = "--use-fake-device-for-media-stream";
let demo, browser, page, complaints;

before(async () => {
  // The film is written before somebody asks for the camera.
  const flags = [FAKE, "--use-fake-ui-for-media-stream", `--use-file-for-fake-video-capture=${FILM}`];
  [demo, browser] = await Promise.all([startDemo("--clients", "0"), startBrowser(...flags)]);
  ({ page, complaints } = await openPage(browser));
  page.setDefaultTimeout(120_000);
});
after(async () => {
  await browser?.close();
  await demo?.stop();
  rmSync(FOLDER, { recursive: true, force: true });
});

const said = async () => {
  await settled(page);
  const [base, stitched] = await page.locator(".answer strong").allInnerTexts();
  return { base, stitched };
};

/** Somebody's view of a sample: nearer, turned, in other light. No two numbers give the same. */
const views = (sample, numbers, type = "image/jpeg") =>
  page.evaluate(
    async ({ sample, numbers, type }) => {
      const { samples } = document.querySelector("bs-app").studio.staged;
      const bitmap = await createImageBitmap(samples.find(({ name }) => name === sample).file);
      return numbers.map((number) => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [320, 240];
        const context = canvas.getContext("2d");
        const wave = (speed) => Math.sin(number * speed + speed);
        context.filter = `brightness(${1 + 0.25 * wave(1.7)}) contrast(${1 + 0.15 * wave(2.9)})`;
        context.translate(160 + 14 * wave(3.1), 120 + 14 * wave(4.3));
        context.rotate(0.22 * wave(5.3));
        const side = 300 + 60 * wave(0.7);
        context.drawImage(bitmap, -side / 2, -side / 2, side, side);
        if (type === "pixels") return [...context.getImageData(0, 0, 320, 240).data];
        return canvas.toDataURL(type, 0.9).split(",")[1];
      });
    },
    { sample, numbers, type },
  );
const files = async (sample, numbers) =>
  (await views(sample, numbers)).map((text, index) => ({
    name: `${sample} ${numbers[index]}.jpg`,
    mimeType: "image/jpeg",
    buffer: Buffer.from(text, "base64"),
  }));
const show = async (file) => {
  await page.locator("#photo").setInputFiles(file);
  await page.locator("bs-photo .caption strong", { hasText: file.name }).waitFor();
  return said();
};
/** A built-in photograph; its name stands on the page once it is asked about. */
const pick = async (sample) => {
  await page.getByRole("button", { name: sample, exact: true }).click();
  await page.locator("bs-photo .caption strong", { hasText: sample }).waitFor();
};
const name = async (thing) => {
  await page.locator("#new-thing").fill(thing);
  await page.getByRole("button", { name: "Add this thing" }).click();
};
const learnt = async (pictures) => {
  await eventually(
    () =>
      page.evaluate(() => {
        const { teaching, things } = document.querySelector("bs-app").studio;
        return { busy: teaching.busy || things.taking !== undefined, total: teaching.counts.total };
      }),
    ({ busy, total }) => !busy && total === pictures,
    `${pictures} pictures to be learnt`,
    120_000,
  );
  await page.locator("#taught", { hasText: "your version is in use" }).waitFor();
};

/** Raw frames as a fake camera plays them, in a loop. */
function film(frames) {
  const plane = (rgba, step, mix) => {
    const out = Buffer.alloc((320 / step) * (240 / step));
    for (let y = 0, at = 0; y < 240; y += step)
      for (let x = 0; x < 320; x += step, at++) {
        const [r, g, b] = rgba.slice(4 * (y * 320 + x), 4 * (y * 320 + x) + 3);
        out[at] = Math.min(255, Math.max(0, Math.round(mix(r, g, b))));
      }
    return out;
  };
  const parts = frames.flatMap((rgba) => [
    Buffer.from("FRAME\n"),
    plane(rgba, 1, (r, g, b) => 16 + 0.257 * r + 0.504 * g + 0.098 * b),
    plane(rgba, 2, (r, g, b) => 128 - 0.148 * r - 0.291 * g + 0.439 * b),
    plane(rgba, 2, (r, g, b) => 128 + 0.439 * r - 0.368 * g - 0.071 * b),
  ]);
  return Buffer.concat([Buffer.from("YUV4MPEG2 W320 H240 F10:1 Ip A1:1 C420\n"), ...parts]);
}

test("the switch leads to photographs, and the library is fetched only then", async () => {
  const fetched = [];
  page.on("request", (request) => fetched.push(request.url()));
  await page.goto(demo.page);
  await page.getByText("Running here").waitFor();
  assert.ok(!fetched.some((url) => url.includes("/photos/")));
  await page.getByRole("link", { name: "Photos" }).click();
  await page.locator("#stitched-answer strong").waitFor();
  assert.ok(fetched.some((url) => url.includes("/photos/")));
  const headers = (await page.request.get(demo.page)).headers();
  assert.match(headers["permissions-policy"], /camera=\(self\)/);
  assert.doesNotMatch(headers["content-security-policy"], /unsafe-inline|media-src|\*/);
  await portrait(page, "photos-start");
});

test("pictures come from samples, files, a drop and the clipboard", async () => {
  await pick("a cat");
  assert.match((await said()).base, /cat|tabby|lynx/);
  const [cup, rocket, cat] = await Promise.all([
    files("a cup of coffee", [1]),
    files("a rocket", [1]),
    files("a cat", [1]),
  ]);
  assert.match((await show(cup[0])).base, /espresso|cup|mug/);
  const hand = (selector, event, { name, buffer }) =>
    page.evaluate(
      ({ selector, event, name, bytes }) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/jpeg" }));
        const target =
          selector === "document"
            ? document
            : document
                .querySelector("bs-app")
                .renderRoot.querySelector("bs-photo")
                .renderRoot.querySelector(selector);
        const init = { bubbles: true, cancelable: true };
        target.dispatchEvent(
          event === "drop"
            ? new DragEvent("drop", { ...init, dataTransfer: data })
            : new ClipboardEvent("paste", { ...init, clipboardData: data }),
        );
      },
      { selector, event, name, bytes: [...buffer] },
    );
  for (const [selector, event, [file], answer] of [
    [".view", "drop", rocket, /missile|projectile/],
    ["document", "paste", cat, /cat|tabby|lynx/],
  ]) {
    await hand(selector, event, file);
    await page.locator("bs-photo .caption strong", { hasText: file.name }).waitFor();
    assert.match((await said()).base, answer);
  }
  await page
    .locator("#photo")
    .setInputFiles({ name: "x.png", mimeType: "image/png", buffer: Buffer.from("no") });
  await page.getByRole("alert").getByText("not a picture").waitFor();
});

test("things are taught by six pictures each, and known in pictures that were never shown", async () => {
  await name("my mug");
  await page
    .locator(".thing input[type=file]")
    .last()
    .setInputFiles(await files("a cup of coffee", [1, 2, 3, 4, 5, 6]));
  await learnt(6);
  await name("my motorcycle");
  await page
    .locator(".thing input[type=file]")
    .last()
    .setInputFiles(await files("a motorcycle", [1, 2, 3, 4, 5, 6]));
  await learnt(12);
  const others = [11, 12, 13, 14];
  for (const file of await files("a cup of coffee", others)) {
    const { base, stitched } = await show(file);
    assert.equal(stitched, "my mug", file.name);
    assert.notEqual(base, "my mug");
  }
  await portrait(page, "photos-taught");
  // Another photograph of it, from another place.
  for (const file of await files("the motorcycle from beside", others))
    assert.equal((await show(file)).stitched, "my motorcycle", file.name);
  for (const sample of ["a cat", "a rocket", "an astronaut", "galaxies", "grass"])
    for (const file of await files(sample, [11, 12])) {
      const { base, stitched } = await show(file);
      assert.equal(stitched, base, file.name);
    }
});

test("the camera is answered live, teaches a thing, and is let go", async () => {
  writeFileSync(FILM, film(await views("a cat", [21, 22, 23, 24, 25, 26, 27, 28], "pixels")));
  await page.locator("#camera").click();
  await page.locator("bs-photo .live").waitFor();
  const answers = new Set();
  await eventually(
    () => page.evaluate(() => document.querySelector("bs-app").studio.result.output.join()),
    (output) => answers.add(output).size > 3,
    "answers to follow the camera",
  );
  await name("Tom");
  await page.getByRole("button", { name: "Teach: Tom. Take 8 pictures" }).click();
  await learnt(20);
  await page.locator("#stitched-answer strong", { hasText: "Tom" }).waitFor();
  await portrait(page, "photos-camera");
  await page.getByRole("button", { name: "Stop the camera" }).click();
  await page.getByRole("button", { name: "Camera", exact: true }).waitFor();
  assert.equal(await page.locator("bs-photo video").count(), 0);
  // The photograph that the film was made of was itself never taught.
  await pick("a cat");
  assert.equal((await said()).stitched, "Tom");
});

test("a mistake is set right, what was learnt lasts, and is forgotten when asked", async () => {
  await page.reload();
  await page.locator("#stitched-answer strong").waitFor();
  const names = () => page.locator(".thing input.name").evaluateAll((all) => all.map(({ value }) => value));
  assert.deepEqual(await names(), ["my mug", "my motorcycle", "Tom"]);
  await pick("a cat");
  assert.equal((await said()).stitched, "Tom");
  // A rocket, taught by mistake three times.
  await pick("a rocket");
  await name("blunder");
  for (let taught = 21; taught <= 23; taught++) {
    await page.getByRole("button", { name: "Teach: blunder. Add this picture" }).click();
    await learnt(taught);
  }
  const { base, stitched: mistaken } = await said();
  assert.equal(mistaken, "blunder");
  for (let taught = 24; taught <= 31 && (await page.locator("#not-mine").count()); taught++) {
    await page.locator("#not-mine").click();
    await learnt(taught);
    await settled(page);
  }
  assert.equal((await said()).stitched, base);
  // What was right before still is.
  await pick("a cat");
  assert.equal((await said()).stitched, "Tom");
  await page.getByRole("button", { name: "Forget all" }).click();
  await page.locator("#really-forget").click();
  await eventually(names, ({ length }) => length === 0, "the names to be gone");
  await pick("a cup of coffee");
  const { base: plain, stitched } = await said();
  assert.equal(stitched, plain);
  assert.deepEqual(complaints, []);
});

test("what is seen through mist is taught, trained on and contributed; a thing of one's own is not", async () => {
  await page.goto(`${demo.page}?library=photos`);
  await page.locator("#stitched-answer strong").waitFor();
  await pick("a motorcycle");
  const { base: clear } = await said();
  await page.locator("#mist input").fill("1");
  assert.notEqual((await said()).base, clear);
  await page.locator("#base-answer").getByText("wrong").waitFor();
  // What it is was seen before the mist came, and anything else goes by its name.
  const one = page.getByRole("button", { name: "Teach this picture", exact: true });
  const answer = page.locator("bs-teach #label");
  assert.equal(await answer.inputValue(), clear);
  await answer.fill("own 1");
  await page.getByText("no class of this name").waitFor();
  await page.locator("bs-teach button:disabled", { hasText: "Teach this picture" }).waitFor();
  await answer.fill(clear.toUpperCase());
  await one.click();
  await page.locator("#examples", { hasText: "1 of at most" }).waitFor();
  await page.getByRole("button", { name: "Teach all 8 samples as they look now" }).click();
  await page.locator("#examples", { hasText: "9 of at most" }).waitFor();
  const sent = () =>
    page.evaluate(async () => {
      const { norm, examples } = await document.querySelector("bs-app").studio.model.preview();
      return { norm, examples };
    });
  const before = await sent();
  await name("my scooter");
  await page.getByRole("button", { name: "Teach: my scooter. Add this picture" }).click();
  await page.locator("#examples", { hasText: "10 of at most" }).waitFor();
  assert.deepEqual(await sent(), before);
  await page.getByRole("button", { name: "Train here" }).click();
  await page.locator("bs-teach .report", { hasText: "before," }).waitFor();
  assert.equal(await page.locator("bs-things .curve:visible").count(), 0);
  await page.locator("#consent").check();
  await page.locator("#contribute").click();
  // The last word is that of its own held-out pictures, which are few.
  await page.locator("#outcome", { hasText: /Sent\.|not_improved/ }).waitFor();
  await portrait(page, "photos-misted");
  assert.deepEqual(complaints, []);
});

test("a camera that is refused or missing is a sentence that says what to do", async () => {
  for (const [flags, code] of [
    [[FAKE, "--deny-permission-prompts"], "camera_refused"],
    [[], "camera_missing"],
  ]) {
    const other = await startBrowser(...flags);
    try {
      const { page, complaints } = await openPage(other);
      await page.goto(`${demo.page}?library=photos`);
      await page.locator("#stitched-answer strong").waitFor({ timeout: 120_000 });
      await page.locator("#camera").click();
      const alert = page.getByRole("alert");
      await alert.getByText(code).waitFor();
      assert.match(await alert.innerText(), /open, drop or paste a picture instead/);
      assert.deepEqual(complaints, []);
    } finally {
      await other.close();
    }
  }
});
