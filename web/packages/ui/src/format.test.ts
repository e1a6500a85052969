import { expect, test } from "vitest";
import { decimal, milliseconds } from "./format.js";

test("a negative number has a minus sign, and nothing is less than zero by its sign alone", () => {
  expect(decimal(-0.434, 3)).toBe("−0.434");
  expect(decimal(-0.0001, 3)).toBe("0.000");
  expect(decimal(12.6, 0)).toBe("13");
});

test("times have the digits that their size asks for, whatever their sign", () => {
  expect(milliseconds(0)).toBe("<\u202f0.1\u202fms");
  expect(milliseconds(-2.264)).toBe("−2.26\u202fms");
  expect(milliseconds(-58.02)).toBe("−58.0\u202fms");
  expect(milliseconds(123.4)).toBe("123\u202fms");
});
