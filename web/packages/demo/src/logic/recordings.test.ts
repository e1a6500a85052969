import { describe, expect, it } from "vitest";
import { Watching } from "../scene.js";
import { path, readRecordings, windowAt, windowsOf } from "./recordings.js";

function file(moments: number, bytes = moments * 4): Uint8Array {
  const numbers = new Int16Array(bytes / 2).map((_, index) => index * 10 - 20);
  const values = btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
  const sample = { person: 9, arm: "first", label: 3, name: "row", moments, values };
  const samples = [sample, { ...sample, label: 1, name: "lift" }, { ...sample, person: 10 }];
  return new TextEncoder().encode(JSON.stringify({ channels: ["x", "y"], rate_hz: 50, scale: 0.1, samples }));
}

describe("recordings", () => {
  it("are read moment by moment, in their own units", () => {
    const { recordings, rateHz } = readRecordings(file(3));
    expect(rateHz).toBe(50);
    expect([...recordings[0]!.values].map((v) => Math.round(v))).toEqual([-2, -1, 0, 1, 2, 3]);
    expect(windowAt(recordings[0]!, 1, 2)).toMatchObject({ shape: [2, 2] });
    expect(() => readRecordings(file(3, 8))).toThrow("not 12");
  });

  it("are cut into windows that stay within the part", () => {
    const [recording] = readRecordings(file(200)).recordings;
    expect(windowsOf(recording!, 100, 36)).toHaveLength(3);
    expect(windowsOf(recording!, 35, 36)).toHaveLength(0);
  });

  it("are drawn from edge to edge", () => {
    const [recording] = readRecordings(file(3)).recordings;
    expect(path(windowAt(recording!, 0, 3), 0, 4)).toBe("M0.00 75.00L50.00 50.00L100.00 25.00");
  });
});

describe("watching", () => {
  it("starts at the newest window, and teaches first halves of one person alone", async () => {
    const scene = new Watching(file(200), 36);
    expect([scene.start, scene.truth, scene.people]).toEqual([164, 3, [9, 10]]);
    const { all, title } = scene.lessons!;
    expect(title).toContain("person 9");
    expect((await all()).map(({ label }) => label).sort()).toEqual([1, 1, 1, 3, 3, 3]);
    scene.pick(2);
    expect(await scene.lessons!.all()).toHaveLength(3);
  });
});
