import { describe, expect, it } from "vitest";
import { checkCostLimit, checkEpochs, checkOpening, checkSignal } from "./checks.js";

const refuses = (work: () => void, hint: RegExp): void => {
  const thrown = expect(work);
  thrown.toThrow(expect.objectContaining({ code: "request_invalid", hint: expect.stringMatching(hint) }));
};

describe("what a caller asks for", () => {
  it("has limits of cost by their names, and none below 0", () => {
    for (const limit of [{}, { ms: null }, { ms: 0, bytes: undefined }, { gainPerMs: 0.01 }])
      expect(() => checkCostLimit(limit)).not.toThrow();
    refuses(() => checkCostLimit(20 as never), /ms, bytes/);
    refuses(() => checkCostLimit({ msec: 20 } as never), /ms, bytes/);
    refuses(() => checkCostLimit({ ms: -1 }), /at least 0/);
    refuses(() => checkCostLimit({ ms: NaN }), /at least 0/);
    refuses(() => checkCostLimit({ bytes: "10" as never }), /at least 0/);
  });

  it("trains a whole number of times", () => {
    for (const epochs of [undefined, 1, 1000]) expect(() => checkEpochs(epochs)).not.toThrow();
    for (const epochs of [0, -1, 1.5, 1e12, NaN]) refuses(() => checkEpochs(epochs), /1 to 1000/);
  });

  it("opens with a key, a storage and a signal that are some", () => {
    expect(() =>
      checkOpening({ publicKey: "aB".repeat(32), storage: "memory", signal: new AbortController().signal }),
    ).not.toThrow();
    refuses(() => checkOpening({ publicKey: "zz" }), /64 hex/);
    refuses(() => checkOpening({ storage: "session" as never }), /memory/);
    refuses(() => checkSignal({}), /AbortController/);
    refuses(() => checkSignal(null), /AbortController/);
  });
});
