// Inputs that follow each other: a stream answers as runs do, and measures only what is new.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { serveApp } from "./app-server.mjs";
import { openPage, startBrowser } from "./browser.mjs";
import { startDemo } from "./demo-server.mjs";

const DIST = new URL("../../web/packages/client/dist/", import.meta.url).pathname;
let demo, browser, app, page;

before(async () => {
  [demo, browser] = await Promise.all([startDemo("--clients", "0"), startBrowser()]);
  app = await serveApp({ "/client/": DIST }, demo.page);
  ({ page } = await openPage(browser));
  await page.goto(`${app.origin}/start`);
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await demo?.stop();
});

test("a series is answered hop by hop as its windows are, gaps and all", async () => {
  const { pairs, counts, code, moved } = await page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    const model = await open("/v1/libraries/motion");
    const { window: length, channels } = model.library.preprocessing;
    const moments = (from, to) => {
      const at = (i) => Math.sin(i / 9) + ((i * 7919) % 101) / 200;
      const data = Float32Array.from({ length: (to - from) * channels }, (_, i) => at(from * channels + i));
      // A gap in every channel.
      for (let t = Math.max(from, 150); t < Math.min(to, 158); t++)
        data.fill(NaN, (t - from) * channels, (t - from + 1) * channels);
      return { data, shape: [to - from, channels] };
    };
    const stream = await model.stream({ hop: 8, patches: "none" });
    const [counts, pairs] = [[], []];
    let seen = 0;
    // In pieces of any length.
    for (const piece of [100, 28, 8, 3, 5, 40, 16]) {
      const answers = await stream.push(moments(seen, seen + piece));
      seen += piece;
      counts.push(answers.length);
      if (!answers.length) continue;
      const alone = await model.run(moments(seen - length, seen), { patches: "none" });
      pairs.push([answers.at(-1), alone].map(({ output, features }) => ({ output: [...output], features })));
    }
    const infinite = moments(seen, seen + 8);
    infinite.data[3] = Infinity;
    const code = await stream.push(infinite).catch((problem) => problem.code);
    const moved = (await stream.push(moments(seen, seen + 8))).length;
    await stream.close();
    await model.close();
    return { pairs, counts, code, moved };
  });
  assert.deepEqual(counts, [0, 1, 1, 0, 1, 5, 2]);
  assert.deepEqual([code, moved], ["input_invalid", 1]);
  const held = ["dominant_frequency", "spectral_entropy", "seasonality", "period", "change_points"];
  for (const [streamed, alone] of pairs) {
    assert.deepEqual(streamed.output, alone.output);
    for (const [name, value] of Object.entries(alone.features)) {
      if (held.some((end) => name.endsWith(end))) continue;
      const close = Math.abs(streamed.features[name] - value) <= 1e-9 * Math.max(1e-3, Math.abs(value));
      assert.ok(close, `${name}: ${streamed.features[name]}, not ${value}`);
    }
  }
  assert.ok(pairs.some(([streamed]) => streamed.features["series.missing_share"] > 0));
});

test("frames that look the same are measured once, and every one is answered", async () => {
  const frames = await page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    const model = await open("/v1/libraries/fashion");
    const frame = (level, seed) => {
      const noise = (i) => (((i * 7919 + seed * 104729) % 1009) / 1009 - 0.5) / 50;
      return { data: Float32Array.from({ length: 784 }, (_, i) => level + noise(i)), shape: [1, 1, 28, 28] };
    };
    const stream = await model.stream();
    const answers = [];
    for (let seed = 0; seed < 6; seed++)
      answers.push(...(await stream.push(frame(seed < 4 ? 0.3 : 0.6, seed))));
    // What a probe reads of the model's own activations is each frame's own.
    const pictured = (features) =>
      JSON.stringify(Object.entries(features).filter(([name]) => name.startsWith("image.")));
    const text = await model.stream().then((other) => outcomeOf(other.push("a text")));
    function outcomeOf(promise) {
      return promise.then(
        () => "answered",
        (problem) => problem.code,
      );
    }
    await model.close();
    return {
      answers: answers.map(({ output, features }) => [output.join(), pictured(features)]),
      text,
    };
  });
  const [outputs, features] = [0, 1].map((part) => new Set(frames.answers.map((answer) => answer[part])));
  assert.deepEqual([outputs.size, features.size], [6, 2]);
  assert.equal(frames.text, "input_invalid");
});

test("libraries without streams and without patches that adapt say so", async () => {
  const codes = await page.evaluate(async () => {
    const { open } = await import("/client/index.js");
    const told = ({ code, hint }) => [code, hint.length > 5];
    const model = await open("/v1/libraries/fashion");
    const picture = { data: new Float32Array(784).fill(0.4), shape: [1, 1, 28, 28] };
    const adapted = await model.adapt(Array(8).fill(picture)).catch(({ code }) => code);
    const few = await model.adapt([picture]).catch(told);
    await model.close();
    const words = await open("/v1/libraries/sentiment");
    const streamed = await words.stream().catch(told);
    await words.close();
    return { adapted, few, streamed };
  });
  assert.deepEqual(codes, {
    adapted: "nothing_to_contribute",
    few: ["input_invalid", true],
    streamed: ["input_invalid", true],
  });
});
