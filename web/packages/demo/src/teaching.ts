// Teaching and training: the examples stay on this device.

import type { ExampleCounts, TrainProgress, TrainReport } from "@backstitch/client";
import { photograph } from "./logic/picture.js";
import type { Scene } from "./scene.js";
import { tensor, type Studio } from "./studio.js";

/** One person's pictures are not all tilted alike. */
const JITTER_DEGREES = [-2, 2];

/** A person's movements take more passes than pictures do; the best one on held-out windows is kept. */
const SERIES_EPOCHS = 30;

/** Six numbers are soon learnt, and each step runs the whole of a large model forward and back. */
const PHOTO_EPOCHS = 3;

export class Teaching {
  counts: ExampleCounts | undefined;
  training: TrainProgress | undefined;
  curve: { step: number; loss: number }[] = [];
  report: TrainReport | undefined;
  /** Whether the curve and the report are of things of the user's own. */
  ofThings = false;
  busy = false;
  #abort: AbortController | undefined;

  constructor(private readonly studio: Studio) {}

  async load(): Promise<void> {
    this.counts = await this.studio.model?.examples();
  }

  /** What is shown now. */
  async teach(label: number | number[]): Promise<void> {
    const { model, input } = this.studio;
    if (!model || input === undefined) return;
    await this.#guard(async () => {
      this.counts = (await model.learn(input, label)).examples;
    });
  }

  /** The scene's lessons, one after the other. */
  async teachLessons(lessons: NonNullable<Scene["lessons"]>): Promise<void> {
    const { model } = this.studio;
    if (!model) return;
    await this.#guard(async () => {
      for (const { input, label } of await lessons.all()) {
        this.counts = (await model.learn(input, label)).examples;
        this.studio.changed();
      }
    });
  }

  /** Every sample twice, under the conditions of the sliders. */
  async teachAll(): Promise<void> {
    const { model, samples, address } = this.studio;
    if (!model) return;
    await this.#guard(async () => {
      for (const [turn, jitter] of JITTER_DEGREES.entries())
        for (const [index, { picture, label }] of samples.entries()) {
          const seed = address.seed + 1 + turn * samples.length + index;
          const shown = photograph(picture, { ...address, tilt: address.tilt + jitter, seed });
          this.counts = (await model.learn(tensor(shown), label)).examples;
          this.studio.changed();
        }
    });
  }

  /** Trains on what was taught: the patch of the user's own things, or what people learn together. */
  async train(ofThings = false): Promise<void> {
    const { model } = this.studio;
    if (!model) return;
    this.ofThings = ofThings;
    this.curve = [];
    this.report = undefined;
    this.#abort = new AbortController();
    await this.#guard(async () => {
      this.report = await model.train({
        ...this.#plan(),
        signal: this.#abort!.signal,
        onProgress: (progress) => {
          this.training = progress;
          this.curve = [...this.curve, { step: progress.step, loss: progress.loss }];
          this.studio.changed();
        },
      });
      this.curve = this.report.curve;
    });
    this.training = undefined;
    await this.studio.sharing.refreshPreview();
    await this.studio.rerun();
  }

  /** Patches that exclude each other are trained one at a time: the one that is stitched now. */
  #plan(): { patches?: string[]; epochs?: number } {
    const { staged, result, sharing } = this.studio;
    if (staged?.kind === "photo")
      return this.ofThings ? {} : { patches: sharing.task?.patches ?? [], epochs: PHOTO_EPOCHS };
    if (staged?.kind === "text") return { patches: result?.patches.map(({ name }) => name) ?? [] };
    return staged ? { epochs: SERIES_EPOCHS } : {};
  }

  stop(): void {
    this.#abort?.abort();
  }

  async #guard(work: () => Promise<void>): Promise<void> {
    this.busy = true;
    this.studio.problem = undefined;
    this.studio.changed();
    try {
      await work();
    } catch (thrown) {
      if ((thrown as Error).name !== "AbortError") this.studio.report(thrown);
      // A device without room keeps in memory what was just taught.
      await this.load().catch(() => undefined);
    } finally {
      this.busy = false;
      this.studio.changed();
    }
  }
}
