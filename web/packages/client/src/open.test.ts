import { describe, expect, it } from "vitest";
import { aborted, PatchError } from "./problem.js";
import { open } from "./open.js";
import { wholeProgress } from "./progress.js";
import type { OpenProgress } from "./options.js";
import { announced, eventsUrl } from "./watch.js";

describe("open outside of a browser", () => {
  it("says that there is no worker", async () => {
    await expect(open("https://host/v1/libraries/fashion")).rejects.toMatchObject({ code: "unsupported" });
  });

  it("refuses an address that is none, and a signal that has fired", async () => {
    await expect(open("http://")).rejects.toMatchObject({ code: "request_invalid" });
    await expect(open("https://host/x", { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "aborted",
    });
  });
});

describe("errors", () => {
  it("keep their code from wherever they come", () => {
    expect(PatchError.from({ code: "not_found", message: "no library" })).toMatchObject({
      code: "not_found",
      hint: "",
    });
    expect(PatchError.from(new TypeError("odd"))).toMatchObject({ code: "internal", message: "odd" });
    expect(PatchError.from("text", "wasm_failed")).toMatchObject({ code: "wasm_failed", message: "text" });
    const own = aborted("why");
    expect(PatchError.from(own)).toBe(own);
    expect(own.name).toBe("AbortError");
  });
});

describe("progress", () => {
  it("runs from 0 to 1 and never back", () => {
    const seen: number[] = [];
    const report = wholeProgress(({ overall }: OpenProgress) => seen.push(overall));
    const bytes = (stage: OpenProgress["stage"], loaded_bytes: number) =>
      report({ stage, name: "", loaded_bytes, total_bytes: 100 });
    bytes("wasm", 0);
    bytes("catalog", 0);
    bytes("primary", 10);
    bytes("primary", 90);
    bytes("patch", 40);
    bytes("patch", 250);
    bytes("compile", 100);
    bytes("ready", 100);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(seen.at(0)).toBe(0);
    expect(seen.at(-1)).toBe(1);
  });
});

describe("the stream of versions", () => {
  it("stands beside the libraries", () => {
    expect(eventsUrl("https://host/v1/libraries/fashion").href).toBe("https://host/v1/events");
    expect(eventsUrl("https://host/deep/v1/libraries/fashion/").href).toBe("https://host/deep/v1/events");
  });

  it("is read for one library, and nonsense is not news", () => {
    expect(announced('{"library":"fashion","version":7}', "fashion")).toBe(7);
    expect(announced('{"library":"words","version":7}', "fashion")).toBeUndefined();
    expect(announced("not json", "fashion")).toBeUndefined();
    expect(announced('{"library":"fashion","version":"7"}', "fashion")).toBeUndefined();
  });
});
