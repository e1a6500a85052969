// Plays a recording through a stream of the model, as it would come from a watch.

import type { Stream } from "@backstitch/client";
import { namedPatches } from "./logic/whatif.js";
import { isPlayed, type Played } from "./scene.js";
import type { Studio } from "./studio.js";

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
    if (this.#on || !model || !isPlayed(staged) || !staged.source) return;
    this.#on = true;
    const patches = (automatic && namedPatches(automatic.candidates, overrides)) ?? "auto";
    let stream: Stream | undefined;
    try {
      stream = await model.stream({
        hop: staged.hop,
        patches,
        compare: true,
        costLimit: { ms: limitMs ?? null },
      });
      await this.#follow(stream, staged);
    } catch (thrown) {
      this.studio.report(thrown);
    } finally {
      this.#on = false;
      await stream?.close().catch(() => undefined);
      await this.studio.rerun();
    }
  }

  async #follow(stream: Stream, scene: Played): Promise<void> {
    const { source, moments, rateHz, hop, stride } = scene;
    if (scene.start + stride > scene.last) scene.start = 0;
    let next = scene.part(scene.start, moments);
    while (this.#on && scene.source === source) {
      const began = performance.now();
      const answers = await stream.push(next);
      answers.forEach((answer, index) =>
        scene.heard?.(answer, scene.start + moments - (answers.length - 1 - index) * hop),
      );
      const newest = answers.at(-1);
      if (newest) this.studio.answered(newest);
      if (scene.start + stride > scene.last) return;
      next = scene.part(scene.start + moments, stride);
      scene.start += stride;
      const rest = (1000 * stride) / rateHz - (performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
    }
  }
}
