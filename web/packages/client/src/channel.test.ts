import { describe, expect, it, vi } from "vitest";
import { Channel, serve, type Handlers, type Port } from "./channel.js";
import { PatchError } from "./problem.js";

type Calls = {
  double: { argument: number; result: number; progress: string };
  wait: { argument: undefined; result: string };
  fail: { argument: undefined; result: never };
};

/** Two ports that clone like real ones. */
function pair(): [Port, Port] {
  const { port1, port2 } = new MessageChannel();
  const wrap = (port: MessagePort): Port => ({
    postMessage: (message, transfer) => port.postMessage(message, transfer),
    addEventListener: (type, listener) => {
      port.addEventListener(type, listener as EventListener);
      port.start();
      (port as unknown as { unref?(): void }).unref?.();
    },
  });
  return [wrap(port1), wrap(port2)];
}

function connect(handlers: Partial<Handlers<Calls>> = {}, onEvent = vi.fn()) {
  const [near, far] = pair();
  let release: () => void = () => undefined;
  const order: string[] = [];
  const server = serve<Calls>(far, {
    double: async (n, { progress }) => {
      order.push(`double ${n}`);
      progress("half");
      return 2 * n;
    },
    wait: (_, { signal }) =>
      new Promise((resolve, reject) => {
        order.push("wait");
        release = () => resolve("done");
        signal.addEventListener("abort", () => reject(new PatchError("aborted", "stopped")));
      }),
    fail: async () => {
      throw { code: "input_invalid", message: "no pixels", hint: "draw first" };
    },
    ...handlers,
  });
  return { channel: new Channel<Calls>(near, onEvent), server, order, onEvent, release: () => release() };
}

describe("a channel", () => {
  it("answers the caller that asked, with progress on the way", async () => {
    const { channel } = connect();
    const onProgress = vi.fn();
    const [a, b] = await Promise.all([channel.call("double", 2, { onProgress }), channel.call("double", 21)]);
    expect([a, b]).toEqual([4, 42]);
    expect(onProgress).toHaveBeenCalledExactlyOnceWith("half");
  });

  it("runs calls one after the other", async () => {
    const { channel, order, release } = connect();
    const waiting = channel.call("wait", undefined);
    const after = channel.call("double", 1);
    await vi.waitFor(() => expect(order).toEqual(["wait"]));
    release();
    await Promise.all([waiting, after]);
    expect(order).toEqual(["wait", "double 1"]);
  });

  it("carries code, message and hint of a failure", async () => {
    const { channel } = connect();
    const error = await channel.call("fail", undefined).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(PatchError);
    expect(error).toMatchObject({
      code: "input_invalid",
      message: "no pixels",
      hint: "draw first",
      name: "PatchError",
    });
  });

  it("rejects at once when its signal fires, and the work hears of it", async () => {
    const { channel, order } = connect();
    const abort = new AbortController();
    const call = channel.call("wait", undefined, { signal: abort.signal });
    await vi.waitFor(() => expect(order).toEqual(["wait"]));
    abort.abort();
    await expect(call).rejects.toMatchObject({ code: "aborted", name: "AbortError" });
    // The queue is free again: the worker's part has ended too.
    await expect(channel.call("double", 3)).resolves.toBe(6);
  });

  it("does not start what was cancelled while it stood in the queue", async () => {
    const { channel, order, release } = connect();
    const first = channel.call("wait", undefined);
    const abort = new AbortController();
    const queued = channel.call("double", 5, { signal: abort.signal });
    abort.abort();
    await expect(queued).rejects.toMatchObject({ code: "aborted" });
    await vi.waitFor(() => expect(order).toEqual(["wait"]));
    release();
    await first;
    await channel.call("double", 7);
    expect(order).toEqual(["wait", "double 7"]);
  });

  it("refuses a signal that has fired already without a message", async () => {
    const { channel, order } = connect();
    await expect(channel.call("double", 1, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "aborted",
    });
    expect(order).toEqual([]);
  });

  it("fails open and later calls when it ends", async () => {
    const { channel } = connect();
    const open = channel.call("wait", undefined);
    channel.end();
    await expect(open).rejects.toMatchObject({ code: "closed" });
    await expect(channel.call("double", 1)).rejects.toMatchObject({ code: "closed" });
  });

  it("turns what cannot be cloned into an input error", async () => {
    const { channel } = connect();
    const argument = (() => 1) as unknown as number;
    await expect(channel.call("double", argument)).rejects.toMatchObject({ code: "input_invalid" });
  });

  it("delivers events", async () => {
    const { server, onEvent } = connect();
    server.emit("version", { to: 2 });
    await vi.waitFor(() => expect(onEvent).toHaveBeenCalledWith("version", { to: 2 }));
  });
});
