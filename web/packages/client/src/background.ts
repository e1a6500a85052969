// Training in the background: in slices, in a worker of its own, one page at a time, while nobody needs the device.
// What a page leaves unfinished, the next one goes on with: after each slice the worker stores where it is.

import type { OpenCall } from "./calls.js";
import { Leisure, type BackgroundSettings, type Pause } from "./idle.js";
import type { TrainOptions } from "./options.js";
import type { TrainProgress, TrainReport } from "./results.js";
import type { Started } from "./workers.js";

/** Short, so that a page that becomes hidden or busy soon has the device for itself. */
const SLICE_MS = 250;

/** The timers of a hidden page come once a second or minute, so that a slice should be worth it. */
const HIDDEN_SLICE_MS = 5000;

export interface Background {
  opening: OpenCall;
  start(): Started;
  settings: BackgroundSettings;
  options: Pick<TrainOptions, "epochs" | "patches" | "seed">;
  /** Only go on with what an earlier page has left. */
  resume: boolean;
  /** The caller's: what was trained is given up. */
  signal: AbortSignal;
  /** The model's end: what was trained waits for the next page. */
  closing: AbortSignal;
  onProgress(progress: TrainProgress): void;
  onPause(pause: Pause): void;
}

/** Resolves with the report, or with `undefined` where there was nothing to go on with. */
export async function trainInBackground(background: Background): Promise<TrainReport | undefined> {
  const { opening, signal, closing } = background;
  const either = AbortSignal.any([signal, closing]);
  const locks = (globalThis.navigator as Navigator | undefined)?.locks as LockManager | undefined;
  const work = (): Promise<TrainReport | undefined> => inSlices(background, either);
  // Two pages would take the device twice and get the same.
  if (!locks) return work();
  return locks.request(`backstitch-training ${opening.url}`, { signal: either }, work);
}

async function inSlices(background: Background, signal: AbortSignal): Promise<TrainReport | undefined> {
  const { opening, settings, options, resume, onProgress, onPause } = background;
  const leisure = await new Leisure(settings).look();
  await leisure.come(signal, onPause);
  const { channel, stop } = background.start();
  // The end of a page is no cancelling: a slice that hears of a signal gives up what was trained.
  background.closing.addEventListener("abort", () => stop(), { once: true });
  try {
    await channel.call("open", { ...opening, live: false }, { signal });
    if (resume && !(await channel.call("unfinished", undefined, { signal }))) return undefined;
    for (;;) {
      await leisure.come(signal, onPause);
      const slice_ms = leisure.hidden ? HIDDEN_SLICE_MS : SLICE_MS;
      const report = await channel.call(
        "slice",
        { options, slice_ms },
        { signal: background.signal, onProgress },
      );
      if (report) return report;
    }
  } catch (thrown) {
    // Who cancels does not want to find it going on the next time.
    if (background.signal.aborted) await channel.call("abandon", undefined).catch(() => undefined);
    throw thrown;
  } finally {
    stop();
  }
}
