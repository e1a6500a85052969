import { expect, test } from "vitest";
import { alarms, curve, highest, readSignals, type Score } from "./signal.js";

const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const scores = (stitched: number[]): Score[] =>
  stitched.map((value, end) => ({ end, base: 1, stitched: value }));

test("what is missing in a series is a gap, for the model and in the drawing", () => {
  const [signal] = readSignals(
    bytes({ samples: [{ name: "heart", rate_hz: 2, strange: [1, 2], values: [0, 1, null, 1, 0] }] }),
  );
  expect([...signal!.values]).toEqual([0, 1, NaN, 1, 0]);
  expect(curve(signal!.values)).toBe("M0.00 96.0L25.00 4.0M75.00 4.0L100.00 96.0");
  expect(curve(Float32Array.of(3, 3))).not.toContain("NaN");
});

test("alarms that are close together are one, and silence is none", () => {
  expect(alarms(scores([0, 4, 5, 0, 0, 0, 0, 6, 2, 7]), "stitched", 3)).toEqual([1, 7]);
  expect(alarms(scores([0, 4, 5, 0, 6]), "stitched", 1)).toEqual([1, 4]);
  expect(alarms(scores([0, 0]), "stitched", 3)).toEqual([]);
  expect(alarms([], "base", 3)).toEqual([]);
});

test("the highest score is the first of its height", () => {
  expect(highest(scores([0, 7, 7, 1]), "stitched")?.end).toBe(1);
  expect(highest([], "base")).toBeUndefined();
});
