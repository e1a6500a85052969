import type { Candidate } from "@backstitch/client";
import { describe, expect, it } from "vitest";
import { libraryAddress, readAddress, START, writeAddress } from "./address.js";
import { bounds, scaleOf } from "./features.js";
import { frameParts, hexRows } from "./hex.js";
import { layout } from "./layout.js";
import { LIMIT_STEPS, limitAt, stepOf } from "./limit.js";
import { certainty, oddsSentence, wholePercent } from "./odds.js";
import { readSamples } from "./samples.js";
import { softmax } from "./softmax.js";
import { namedPatches, type Override } from "./whatif.js";

describe("the address", () => {
  it("comes back as it was written", () => {
    const address = { sample: 7, noise: 0.3, blur: 1.5, contrast: 0.45, tilt: -25, mist: 0.75, seed: 12 };
    expect(readAddress(writeAddress(address))).toEqual(address);
  });

  it("takes nothing outside of the sliders", () => {
    expect(readAddress("")).toEqual(START);
    expect(readAddress("#noise=9&contrast=-1&tilt=x&mist=2&sample=1e9&seed=")).toEqual({
      ...START,
      noise: 0.5,
      contrast: 0.1,
      mist: 1,
      sample: 999,
    });
  });
});

describe("the library", () => {
  it("is fashion unless a name says otherwise", () => {
    expect(libraryAddress("")).toBe("/v1/libraries/fashion");
    expect(libraryAddress("?library=fashion-compact")).toBe("/v1/libraries/fashion-compact");
    expect(libraryAddress("?library=../../admin")).toBe("/v1/libraries/fashion");
  });
});

describe("odds", () => {
  it("follow e^ε / (1 + e^ε)", () => {
    expect(certainty(0)).toBe(0.5);
    expect(certainty(1)).toBeCloseTo(0.7311, 4);
  });

  it("are said plainly and never rounded down", () => {
    expect(oddsSentence({ epsilon: 1 })).toContain("certainty about you can rise from 50 % to at most 74 %.");
    expect(oddsSentence({ epsilon: 0 })).toContain("Nothing was sent");
    expect(oddsSentence(null)).toContain("cannot be read");
    expect(wholePercent(0.73)).toBe("73");
    expect(wholePercent(0.9999)).toBe("99.99");
    expect(wholePercent(0.99991)).toBe("100.00");
  });
});

describe("what if", () => {
  const candidate = (name: string, chosen: boolean): Candidate => ({
    name,
    version: 1,
    personal: false,
    chosen,
    reason: "",
    reason_code: "chosen",
    gain: 0,
    cost_ms: 0,
    cost_measured: true,
    cost_bytes: 0,
    sites: [],
    requirements: [],
  });
  const choice = [candidate("a", true), candidate("b", false), candidate("c", true)];
  const names = (entries: [string, Override][]) => namedPatches(choice, new Map(entries));

  it("leaves the choice to Backstitch until somebody changes it", () => {
    expect(names([])).toBeUndefined();
    expect(names([["a", "auto"]])).toBeUndefined();
  });

  it("adds and removes, in stitching order", () => {
    expect(names([["b", "on"]])).toEqual(["a", "b", "c"]);
    expect(names([["a", "off"]])).toEqual(["c"]);
  });
});

describe("the cost limit", () => {
  it("has no limit at its end and even ratios before", () => {
    expect(limitAt(LIMIT_STEPS)).toBeUndefined();
    expect(limitAt(0)).toBe(0.1);
    expect(limitAt(LIMIT_STEPS - 1)).toBe(50);
    for (let step = 0; step <= LIMIT_STEPS; step++)
      expect(Math.abs(stepOf(limitAt(step)) - step)).toBeLessThanOrEqual(1);
  });
});

describe("features", () => {
  const patch = { name: "noise-reduction", requires: [{ feature: "image.noise", at_least: 0.05 }] };

  it("know the bounds that patches ask for", () => {
    const [bound] = bounds("image.noise", [patch] as Parameters<typeof bounds>[1]);
    expect(bound).toMatchObject({ patch: "noise-reduction", value: 0.05, text: "≥ 0.05" });
    expect(bound?.met(0.05)).toBe(true);
    expect(bound?.met(0.04)).toBe(false);
    expect(bounds("image.contrast", [patch] as Parameters<typeof bounds>[1])).toEqual([]);
  });

  it("read a scale out of words", () => {
    expect(scaleOf("0..0.5")).toEqual([0, 0.5]);
    expect(scaleOf("-90 to 90")).toEqual([-90, 90]);
    expect(scaleOf("(−90, 90]")).toEqual([-90, 90]);
    expect(scaleOf("≥ 0")).toEqual([0, 1]);
  });
});

describe("the frame", () => {
  it("shows every byte and what it is", () => {
    const bytes = Uint8Array.from({ length: 76 }, (_, index) => index);
    const rows = hexRows(bytes, frameParts(bytes.length, 72));
    expect(rows.flatMap(({ cells }) => cells)).toHaveLength(76);
    expect(rows[0]).toMatchObject({ offset: "0000" });
    const parts = rows.flatMap(({ cells }) => cells.map(({ part }) => part));
    expect([parts[0], parts[4], parts[36], parts[68], parts[72]]).toEqual([
      "magic",
      "base",
      "once",
      "count",
      "values",
    ]);
  });
});

describe("the graph", () => {
  it("flows from left to right", () => {
    const placed = layout(
      {
        nodes: [
          { id: "a", kind: "input", label: "image" },
          { id: "b", kind: "segment", label: "segment" },
          { id: "c", kind: "output", label: "logits" },
        ],
        edges: [
          { from: "a", to: "b" },
          { from: "b", to: "c" },
        ],
      },
      "LR",
    );
    const [a, b, c] = placed.nodes.map(({ x }) => x);
    expect(a! < b! && b! < c!).toBe(true);
    expect(placed.edges.every(({ path }) => path.startsWith("M"))).toBe(true);
  });
});

describe("samples and shares", () => {
  it("are read from the library's file", () => {
    const pixels = btoa(String.fromCharCode(...new Uint8Array(784).fill(255)));
    const file = new TextEncoder().encode(JSON.stringify({ samples: [{ label: 3, name: "Dress", pixels }] }));
    const [sample] = readSamples(file);
    expect(sample).toMatchObject({ label: 3, name: "Dress" });
    expect(sample?.picture).toEqual(new Float32Array(784).fill(1));
    const short = new TextEncoder().encode(
      JSON.stringify({ samples: [{ label: 3, name: "Dress", pixels: btoa("x") }] }),
    );
    expect(() => readSamples(short)).toThrow("1 pixels, not 784");
  });

  it("add up to 1", () => {
    expect(softmax([1000, 1000])).toEqual([0.5, 0.5]);
    expect(softmax([1, 2, 3]).reduce((a, b) => a + b)).toBeCloseTo(1, 12);
  });
});

describe("the library", () => {
  it("is fashion unless a name says otherwise", () => {
    expect(libraryAddress("")).toBe("/v1/libraries/fashion");
    expect(libraryAddress("?library=sentiment")).toBe("/v1/libraries/sentiment");
    expect(libraryAddress("?library=../../admin")).toBe("/v1/libraries/fashion");
  });
});
