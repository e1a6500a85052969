import { describe, expect, it } from "vitest";
import { blurred, flattened, noisy, onBlack, photograph, PIXELS, SIDE, tilted } from "./picture.js";

const corner = (row: number, column: number): Float32Array => {
  const picture = new Float32Array(PIXELS);
  picture[row * SIDE + column] = 1;
  return picture;
};
const brightest = (picture: Float32Array): [row: number, column: number] => {
  const index = picture.indexOf(Math.max(...picture));
  return [Math.floor(index / SIDE), index % SIDE];
};
const grey = new Float32Array(PIXELS).fill(0.5);

describe("tilt", () => {
  it("leaves a picture alone at 0°", () => {
    expect(tilted(corner(3, 7), 0)).toEqual(corner(3, 7));
  });

  it("turns anticlockwise for positive degrees", () => {
    // Right of the centre goes to the top.
    expect(brightest(tilted(corner(14, 24), 90))).toEqual([3, 14]);
    expect(brightest(tilted(corner(14, 24), -90))).toEqual([24, 13]);
  });

  it("mixes four neighbours and brings black in from outside", () => {
    const turned = tilted(new Float32Array(PIXELS).fill(1), 45);
    expect(turned[0]).toBe(0);
    expect(turned[14 * SIDE + 14]).toBeCloseTo(1, 6);
    const total = tilted(corner(14, 14), 20).reduce((sum, value) => sum + value, 0);
    expect(total).toBeCloseTo(1, 1);
  });
});

describe("blur", () => {
  it("spreads light evenly and keeps its sum", () => {
    const spread = blurred(corner(14, 14), 1);
    expect(spread.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
    expect(spread[14 * SIDE + 15]! / spread[14 * SIDE + 14]!).toBeCloseTo(Math.exp(-0.5), 4);
    expect(spread[13 * SIDE + 14]).toBeCloseTo(spread[14 * SIDE + 13]!, 6);
  });

  it("leaves a picture alone at 0, and a grey one at any", () => {
    expect(blurred(corner(0, 0), 0)).toEqual(corner(0, 0));
    expect(blurred(grey, 2).every((value) => Math.abs(value - 0.5) < 1e-6)).toBe(true);
  });
});

describe("contrast", () => {
  it("shrinks differences about the mean", () => {
    const picture = Float32Array.from({ length: PIXELS }, (_, index) => (index % 2 ? 0.8 : 0.2));
    const flat = flattened(picture, 0.5);
    expect(flat[0]).toBeCloseTo(0.35, 6);
    expect(flat[1]).toBeCloseTo(0.65, 6);
  });
});

describe("noise", () => {
  it("is the same for the same seed and another for another", () => {
    expect(noisy(grey, 0.2, 5)).toEqual(noisy(grey, 0.2, 5));
    expect(noisy(grey, 0.2, 5)).not.toEqual(noisy(grey, 0.2, 6));
  });

  it("has the asked deviation, and stays within 0..1", () => {
    const values = noisy(grey, 0.1, 1);
    const mean = values.reduce((sum, value) => sum + value, 0) / PIXELS;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / PIXELS);
    expect(mean).toBeCloseTo(0.5, 1);
    expect(deviation).toBeGreaterThan(0.09);
    expect(deviation).toBeLessThan(0.11);
    const loud = noisy(grey, 2, 1);
    expect(Math.min(...loud)).toBe(0);
    expect(Math.max(...loud)).toBe(1);
  });
});

describe("a photograph", () => {
  it("is the scene itself when nothing is set", () => {
    const scene = corner(10, 10);
    expect(photograph(scene, { noise: 0, blur: 0, contrast: 1, tilt: 0, seed: 1 })).toEqual(scene);
  });

  it("on white paper is turned over", () => {
    const paper = new Float32Array(PIXELS).fill(1);
    paper[14 * SIDE + 14] = 0.25;
    expect(onBlack(paper)[14 * SIDE + 14]).toBe(0.75);
    expect(onBlack(corner(14, 14))).toEqual(corner(14, 14));
  });
});
