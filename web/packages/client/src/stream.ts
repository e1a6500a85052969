// Inputs that follow each other: moments of a series, frames of a video.

import type { Calls } from "./calls.js";
import { cross } from "./input.js";
import type { CallOptions, Input, RunOptions } from "./options.js";
import type { RunResult } from "./results.js";
import type { Station } from "./station.js";

/** Made by `model.stream`. What an input has in common with the one before is not measured again. */
export class Stream {
  /** @internal */
  constructor(
    private readonly station: Station,
    private readonly id: number,
    private readonly options: RunOptions,
  ) {}

  /**
   * Adds moments, `{ data, shape: [n, channels] }` with NaN for what is missing, or a frame, and resolves with the
   * answers that have become due, oldest first: of a series, after each hop once there is a whole window. What is
   * refused adds nothing. Fails with `closed` where the worker was replaced: then open a new stream.
   */
  push(input: Input, { signal }: CallOptions = {}): Promise<RunResult[]> {
    const crossing = async (): Promise<{ argument: Calls["push"]["argument"]; transfer: Transferable[] }> => {
      const { input: wire, transfer } = await cross(input);
      return { argument: { stream: this.id, input: wire, options: this.options }, transfer };
    };
    return this.station.call("push", crossing, { signal });
  }

  /** Frees its memory. */
  async close(): Promise<void> {
    await this.station.call("end", this.id);
  }
}
