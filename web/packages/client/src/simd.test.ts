import { afterEach, expect, test, vi } from "vitest";
import { lowerRelaxedSimd } from "../lower-relaxed-simd.mjs";
import { bestWasm } from "./simd.js";

afterEach(() => void vi.restoreAllMocks());

test("a browser gets the file that it can run", () => {
  const validate = vi.spyOn(WebAssembly, "validate");
  validate.mockReturnValue(true);
  expect(bestWasm().pathname).toMatch(/\/client_relaxed_bg\.wasm$/);
  validate.mockReturnValue(false);
  expect(bestWasm().pathname).toMatch(/\/client_bg\.wasm$/);
});

test("the question is one that engines without relaxed SIMD deny", () => {
  const asked = vi.spyOn(WebAssembly, "validate").mockReturnValue(true);
  bestWasm();
  const probe = new Uint8Array(asked.mock.calls[0]![0] as Uint8Array<ArrayBuffer>);
  asked.mockRestore();
  expect(WebAssembly.validate(lowerRelaxedSimd(probe))).toBe(true);
  expect(Buffer.from(probe).includes(Buffer.from([0xfd, 0x80, 0x02]))).toBe(true);
  expect(lowerRelaxedSimd(probe).includes(Buffer.from([0xfd, 0x80, 0x02]))).toBe(false);
});

const leb = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, value >> 7]);
const section = (id: number, ...content: number[]): number[] => [id, ...leb(content.length), ...content];
const [F32, I32, F32X4_SPLAT, I8X16_SPLAT, I32X4_SPLAT] = [
  0x7d,
  0x7f,
  [0xfd, 0x13],
  [0xfd, 0x0f],
  [0xfd, 0x11],
];

/** A module whose `f` applies an instruction to three splatted numbers and yields the first lane. */
function module(type: number, splats: number[][], instruction: number, lane: number[]): Uint8Array {
  const code = splats.flatMap((splat, i) => [0x20, i, ...splat]);
  const body = [0, ...code, 0xfd, ...leb(instruction), ...lane, 0, 0x0b];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, 1, 0x60, 3, type, type, type, 1, type),
    ...section(3, 1, 0),
    ...section(7, 1, 1, 0x66, 0, 0),
    ...section(10, 1, ...leb(body.length), ...body),
  ]);
}

async function lowered(bytes: Uint8Array): Promise<(a: number, b: number, c: number) => number> {
  const { instance } = await WebAssembly.instantiate(new Uint8Array(lowerRelaxedSimd(bytes)));
  return instance.exports.f as (a: number, b: number, c: number) => number;
}

test("what takes the place of relaxed instructions computes the same", async () => {
  const floats = [F32X4_SPLAT, F32X4_SPLAT, F32X4_SPLAT];
  const madd = await lowered(module(F32, floats, 0x105, [0xfd, 0x1f]));
  expect(madd(2, 3, 4)).toBe(10);
  const nmadd = await lowered(module(F32, floats, 0x106, [0xfd, 0x1f]));
  expect(nmadd(2, 3, 4)).toBe(-2);
  const dot = await lowered(module(I32, [I8X16_SPLAT, I8X16_SPLAT, I32X4_SPLAT], 0x113, [0xfd, 0x1b]));
  expect(dot(-128, 127, 1000)).toBe(1000 - 4 * 128 * 127);
});

test("a module without relaxed instructions stays as it is", () => {
  const plain = module(F32, [F32X4_SPLAT, F32X4_SPLAT, F32X4_SPLAT], 0x52, [0xfd, 0x1f]);
  expect([...lowerRelaxedSimd(plain)]).toEqual([...plain]);
});
