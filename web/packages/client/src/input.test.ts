import { describe, expect, it } from "vitest";
import { cross } from "./input.js";
import type { Input } from "./options.js";

const refused = (input: unknown) => expect(cross(input as Input)).rejects;

describe("inputs", () => {
  it("lets text, blobs and tensors pass", async () => {
    const blob = new Blob(["x"]);
    const data = new Float32Array(6);
    expect(await cross("a coat")).toEqual({ input: "a coat", transfer: [] });
    expect((await cross(blob)).input).toBe(blob);
    expect(await cross({ data, shape: [2, 3] })).toEqual({ input: { data, shape: [2, 3] }, transfer: [] });
  });

  it("never takes the caller's buffer away", async () => {
    expect((await cross({ data: new Float32Array(4), shape: [4] })).transfer).toEqual([]);
  });

  it("says what is wrong with a shape", async () => {
    await refused({ data: new Float32Array(5), shape: [2, 3] }).toMatchObject({
      code: "input_invalid",
      message: "the shape [2, 3] needs 6 numbers, the data has 5",
    });
    await refused({ data: new Float32Array(5), shape: [-5] }).toMatchObject({ code: "input_invalid" });
    await refused({ data: new Float32Array(5), shape: [2.5, 2] }).toMatchObject({ code: "input_invalid" });
  });

  it("refuses what is no input and names what is", async () => {
    for (const input of [null, undefined, 7, {}, { data: [1] }])
      await refused(input).toMatchObject({
        code: "input_invalid",
        hint: expect.stringMatching(/ImageData.*canvas/) as unknown,
      });
  });
});
