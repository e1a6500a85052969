import { describe, expect, it } from "vitest";
import { ordered, seconds, type ConsoleState } from "./state.js";
import { parse } from "./stream.js";

describe("the stream", () => {
  it("is read event by event, and keeps what is not whole yet", () => {
    expect(parse('event: state\ndata: {"a":1}\n\n: heartbeat\n\nevent: state\nda')).toEqual({
      events: [{ event: "state", data: '{"a":1}' }],
      rest: "event: state\nda",
    });
    expect(parse("data: one\r\ndata: two\r\n\r\n").events).toEqual([{ event: "message", data: "one\ntwo" }]);
  });
});

describe("the state", () => {
  it("is shown in the order of time", () => {
    const state = {
      libraries: [
        { ledger: [{ sequence: 2 }, { sequence: 1 }], tasks: [{ rounds: [{ round: 3 }, { round: 1 }] }] },
      ],
    } as unknown as ConsoleState;
    expect(ordered(state).libraries[0]?.ledger.map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect(ordered(state).libraries[0]?.tasks[0]?.rounds.map(({ round }) => round)).toEqual([1, 3]);
  });

  it("takes both kinds of time", () => {
    expect(seconds(1_700_000_000)).toBe(1_700_000_000);
    expect(seconds("2023-11-14T22:13:20Z")).toBe(1_700_000_000);
  });
});
