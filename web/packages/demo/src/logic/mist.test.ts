import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import federated from "../../../../../onnx/models/photos/federated.json";
import { through } from "./mist.js";

class Picture {
  constructor(
    readonly data: Uint8ClampedArray,
    readonly width: number,
    readonly height: number,
  ) {}
}

describe("mist", () => {
  beforeAll(() => void vi.stubGlobal("ImageData", Picture));
  afterAll(() => void vi.unstubAllGlobals());

  const picture = new Picture(new Uint8ClampedArray([200, 100, 0, 255]), 1, 1) as ImageData;

  it("is the mean window of the library's people", () => {
    const { gain, veil } = federated.clients.window;
    const expected = [200, 100, 0].map((byte, channel) => Math.round(gain[channel]! * byte + veil[channel]!));
    expect([...through(1, picture).data]).toEqual([...expected, 255]);
  });

  it("leaves a picture alone where there is none, and the picture that it was made of always", () => {
    expect([...through(0, picture).data]).toEqual([200, 100, 0, 255]);
    through(0.5, picture);
    expect([...picture.data]).toEqual([200, 100, 0, 255]);
  });
});
