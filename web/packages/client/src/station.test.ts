import { describe, expect, it, vi } from "vitest";
import { Channel } from "./channel.js";
import type { Calls, OpenCall } from "./calls.js";
import { PatchError } from "./problem.js";
import { Station } from "./station.js";

/** A worker that answers by hand: `answer` gets each call. */
function worker(answer: (call: string) => unknown) {
  let listen: (event: MessageEvent) => void = () => undefined;
  const calls: string[] = [];
  const port = {
    postMessage(message: { id: number; call: string }) {
      calls.push(message.call);
      void Promise.resolve(message.call)
        .then(answer)
        .then((value) => value !== undefined && listen({ data: { id: message.id, value } } as MessageEvent));
    },
    addEventListener(_: string, listener: (event: MessageEvent) => void) {
      listen = listener;
    },
  };
  const channel = new Channel<Calls>(port as never, () => undefined);
  const die = (): void => channel.end(new PatchError("worker_failed", "it is gone", "call again"));
  return { channel, calls, die, stop: () => channel.end() };
}

const silent = (): undefined => undefined;
const well = (call: string): unknown => ({ answered: call });

function station(first: ReturnType<typeof worker>, ...next: ReturnType<typeof worker>[]) {
  const start = vi.fn(() => next.shift()!);
  const onReopened = vi.fn();
  return { station: new Station(first, {} as OpenCall, start, onReopened), start, onReopened };
}

describe("a station", () => {
  it("asks again what is safe, on a fresh worker, with its input made anew", async () => {
    const [first, second] = [worker(silent), worker(well)];
    const { station: it, start, onReopened } = station(first, second);
    const cross = vi.fn(async () => ({ argument: { input: "x", options: {} } }));
    const run = it.call("run", cross);
    await vi.waitFor(() => expect(first.calls).toEqual(["run"]));
    first.die();
    await expect(run).resolves.toEqual({ answered: "run" });
    expect(second.calls).toEqual(["open", "run"]);
    expect([start.mock.calls.length, onReopened.mock.calls.length, cross.mock.calls.length]).toEqual([
      1, 1, 2,
    ]);
  });

  it("does not repeat what changes something, and goes on with the next call", async () => {
    const [first, second] = [worker(silent), worker(well)];
    const { station: it } = station(first, second);
    const learn = it.call("learn", { input: "x", target: 1 });
    await vi.waitFor(() => expect(first.calls).toEqual(["learn"]));
    first.die();
    await expect(learn).rejects.toMatchObject({ code: "worker_failed", hint: "call again" });
    await expect(it.call("learn", { input: "x", target: 1 })).resolves.toEqual({ answered: "learn" });
  });

  it("gives up on an input that ends every worker", async () => {
    const first = worker(silent);
    const second: ReturnType<typeof worker> = worker((call) => (call === "open" ? {} : second.die()));
    const third = worker(well);
    const { station: it } = station(first, second, third);
    const run = it.call("run", async () => ({ argument: { input: "x", options: {} } }));
    await vi.waitFor(() => expect(first.calls).toEqual(["run"]));
    first.die();
    await expect(run).rejects.toMatchObject({ code: "worker_failed" });
    await expect(it.call("examples", undefined)).resolves.toEqual({ answered: "examples" });
  });

  it("starts one worker for many callers, and another where that one cannot open", async () => {
    const first = worker(well);
    first.die();
    const broken: ReturnType<typeof worker> = worker(() => broken.die());
    const { station: it, start } = station(first, broken, worker(well));
    const [a, b] = await Promise.allSettled([it.call("privacy", undefined), it.call("examples", undefined)]);
    expect([a.status, b.status]).toEqual(["rejected", "rejected"]);
    expect(start).toHaveBeenCalledTimes(1);
    await expect(it.call("privacy", undefined)).resolves.toEqual({ answered: "privacy" });
  });

  it("starts nothing once it is closed", async () => {
    const first = worker(silent);
    const { station: it, start } = station(first);
    const run = it.call("run", { input: "x", options: {} });
    await vi.waitFor(() => expect(first.calls).toEqual(["run"]));
    it.close();
    await expect(run).rejects.toMatchObject({ code: "closed" });
    await expect(it.call("run", { input: "x", options: {} })).rejects.toMatchObject({ code: "closed" });
    expect(start).not.toHaveBeenCalled();
  });
});
