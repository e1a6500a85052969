// Plays a recording through a stream of the model, as it would come from a watch.

import type { Stream } from "@backstitch/client";
import { namedPatches } from "./logic/whatif.js";
import { windowAt } from "./logic/recordings.js";
import { Watching } from "./scene.js";
import type { Studio } from "./studio.js";

/** Moments between two answers: a quarter of a second at 50 Hz. */
const HOP = 12;

export class Playing {
  #on = false;

  constructor(private readonly studio: Studio) {}

  get on(): boolean {
    return this.#on;
  }

  stop(): void {
    this.#on = false;
  }

  /** From the window that is shown, or from the beginning where that is the last one, to the recording's end. */
  async play(): Promise<void> {
    const { model, staged, automatic, overrides, limitMs } = this.studio;
    if (this.#on || !model || !(staged instanceof Watching) || !staged.recording) return;
    this.#on = true;
    const patches = (automatic && namedPatches(automatic.candidates, overrides)) ?? "auto";
    let stream: Stream | undefined;
    try {
      stream = await model.stream({ hop: HOP, patches, compare: true, costLimit: { ms: limitMs ?? null } });
      await this.#follow(stream, staged);
    } catch (thrown) {
      this.studio.report(thrown);
    } finally {
      this.#on = false;
      await stream?.close().catch(() => undefined);
      await this.studio.rerun();
    }
  }

  async #follow(stream: Stream, scene: Watching): Promise<void> {
    const { recording, moments, rateHz } = scene;
    if (scene.start + HOP > scene.last) scene.start = 0;
    let next = windowAt(recording!, scene.start, moments);
    while (this.#on && scene.recording === recording) {
      const began = performance.now();
      const answer = (await stream.push(next)).at(-1);
      if (answer) this.studio.answered(answer);
      if (scene.start + HOP > scene.last) return;
      next = windowAt(recording!, scene.start + moments, HOP);
      scene.start += HOP;
      const rest = (1000 * HOP) / rateHz - (performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
    }
  }
}
