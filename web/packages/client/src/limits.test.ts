import { describe, expect, it } from "vitest";
import { sizeOf } from "./header.js";
import { checkPicture, checkText, MAX_TEXT, memoryLimit, scaled, SCALED_PIXELS } from "./limits.js";

const code = (work: () => void): string | undefined => {
  try {
    work();
    return undefined;
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
};

describe("limits", () => {
  it("refuse pictures without pixels and without end", () => {
    const sizes: [number, number][] = [
      [0, 0],
      [0, 5],
      [NaN, 4],
      [20_000, 20_000],
    ];
    for (const [width, height] of sizes)
      expect(code(() => checkPicture({ width, height }))).toBe("input_invalid");
    expect(code(() => checkPicture({ width: 8192, height: 8192 }))).toBeUndefined();
  });

  it("scale what is above 16 megapixels, keep its shape, and leave the rest", () => {
    expect(scaled({ width: 4096, height: 4096 })).toEqual({ width: 4096, height: 4096 });
    const { width, height } = scaled({ width: 10_000, height: 5_000 });
    expect(width * height).toBeLessThanOrEqual(SCALED_PIXELS);
    expect(width * height).toBeGreaterThan(0.99 * SCALED_PIXELS);
    expect(width / height).toBeCloseTo(2, 2);
    expect(scaled({ width: 60_000_000, height: 1 }).height).toBe(1);
  });

  it("refuse a text that cannot fit", () => {
    expect(code(() => checkText("a".repeat(10 << 20)))).toBe("input_invalid");
    expect(code(() => checkText("a".repeat(MAX_TEXT)))).toBeUndefined();
  });
});

describe("the memory of compiled models", () => {
  it("is what the caller says, or goes by the device", () => {
    expect(memoryLimit(5, { deviceMemory: 8 })).toBe(5);
    expect(memoryLimit(0, undefined)).toBe(0);
    expect(memoryLimit(undefined, { deviceMemory: 8 })).toBe(512 << 20);
    expect(memoryLimit(undefined, { deviceMemory: 0.5 })).toBe(32 << 20);
    for (const silent of [undefined, {}]) expect(memoryLimit(undefined, silent)).toBe(256 << 20);
    for (const wrong of [-1, NaN, Infinity])
      expect(code(() => memoryLimit(wrong, undefined))).toBe("request_invalid");
  });
});

describe("the size of a picture file", () => {
  const bytes = (...parts: (string | number[])[]): Uint8Array =>
    Uint8Array.from(
      parts.flatMap((part) => (typeof part === "string" ? [...Buffer.from(part, "latin1")] : part)),
    );

  it("stands in its header", () => {
    const png = bytes("\x89PNG\r\n\x1a\n", [0, 0, 0, 13], "IHDR", [0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x21]);
    expect(sizeOf(png)).toEqual({ width: 20_000, height: 20_001 });
    expect(sizeOf(bytes("GIF89a", [3, 1, 2, 0]))).toEqual({ width: 259, height: 2 });
    const bmp = bytes("BM", new Array<number>(16).fill(0), [7, 0, 0, 0], [0xfb, 0xff, 0xff, 0xff]);
    expect(sizeOf(bmp)).toEqual({ width: 7, height: 5 });
    // An application segment stands before the frame header.
    const jpeg = bytes([0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 1, 0xff, 0xc2, 0, 11, 8, 0x01, 0x00, 0x02, 0x00]);
    expect(sizeOf(jpeg)).toEqual({ width: 512, height: 256 });
  });

  it("stands in the three kinds of WebP", () => {
    const webp = (kind: string, rest: number[]): Uint8Array => bytes("RIFF\0\0\0\0WEBP", kind, rest);
    const lossy = webp("VP8 ", [...new Array<number>(10).fill(0), 0x20, 0x41, 0x10, 0x00]);
    expect(sizeOf(lossy)).toEqual({ width: 0x120, height: 16 });
    const lossless = webp("VP8L", [0, 0, 0, 0, 0x2f, 0xff, 0xc0, 0x03, 0x00]);
    expect(sizeOf(lossless)).toEqual({ width: 256, height: 16 });
    const extended = webp("VP8X", [10, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0x4e, 0, 0xff, 0, 0]);
    expect(sizeOf(extended)).toEqual({ width: 20_000, height: 256 });
  });

  it("is not guessed", () => {
    expect(sizeOf(bytes("\x89PNG"))).toBeUndefined();
    expect(sizeOf(bytes([0xff, 0xd8, 0xff]))).toBeUndefined();
    expect(sizeOf(bytes("no picture"))).toBeUndefined();
    expect(sizeOf(new Uint8Array())).toBeUndefined();
  });
});
