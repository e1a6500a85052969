// When a page has nothing better to do.

import { aborted } from "./problem.js";

const PATIENCE_MS = 10_000;

/** Why background work waits: the tab is hidden, the device runs on battery, or the user saves data. */
export type Pause = "hidden" | "battery" | "saver";

/** What background work may do; all of it is off where left out. */
export interface BackgroundSettings {
  /** Go on while the tab is hidden. */
  whileHidden?: boolean;
  /** Go on while the device is not charging, where the browser says so. */
  onBattery?: boolean;
  /** Go on while the user asks sites to save data. */
  onSaver?: boolean;
}

type Battery = EventTarget & { charging: boolean };
type Surroundings = { getBattery?(): Promise<Battery>; connection?: EventTarget & { saveData?: boolean } };

/** Resolves when the page has nothing better to do, or after some seconds at the latest. */
export function idle(signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(signal.reason));
    const cancel = (): void => reject(aborted(signal?.reason));
    signal?.addEventListener("abort", cancel, { once: true });
    const ready = (): void => {
      signal?.removeEventListener("abort", cancel);
      resolve();
    };
    if (typeof requestIdleCallback === "function") requestIdleCallback(ready, { timeout: PATIENCE_MS });
    else setTimeout(ready, 200);
  });
}

/** Watches what decides whether background work may go on. */
export class Leisure {
  readonly #settings: BackgroundSettings;
  readonly #surroundings = (globalThis.navigator ?? {}) as unknown as Surroundings;
  readonly #document: Document | undefined = globalThis.document;
  #battery: Battery | undefined;

  constructor(settings: BackgroundSettings) {
    this.#settings = settings;
  }

  /** Asks for the battery, where the browser tells. */
  async look(): Promise<this> {
    this.#battery = await this.#surroundings.getBattery?.().catch(() => undefined);
    return this;
  }

  get hidden(): boolean {
    return this.#document?.visibilityState === "hidden";
  }

  /** Why work has to wait now, if it has to. */
  get pause(): Pause | undefined {
    const { whileHidden, onBattery, onSaver } = this.#settings;
    if (this.hidden && !whileHidden) return "hidden";
    if (this.#battery?.charging === false && !onBattery) return "battery";
    if (this.#surroundings.connection?.saveData === true && !onSaver) return "saver";
    return undefined;
  }

  /** Resolves when work may go on and the page is idle. `onPause` hears when it has to wait. */
  async come(signal: AbortSignal, onPause: (pause: Pause) => void): Promise<void> {
    for (let pause = this.pause; pause; pause = this.pause) {
      onPause(pause);
      await this.#change(signal);
    }
    // A hidden page is never busy, and its idle callbacks come late.
    if (!this.hidden) await idle(signal);
    if (signal.aborted) throw aborted(signal.reason);
  }

  #change(signal: AbortSignal): Promise<void> {
    const heard = new AbortController();
    const once = { once: true, signal: heard.signal };
    return new Promise<void>((resolve, reject) => {
      if (signal.aborted) return reject(aborted(signal.reason));
      signal.addEventListener("abort", () => reject(aborted(signal.reason)), once);
      this.#document?.addEventListener("visibilitychange", () => resolve(), once);
      this.#battery?.addEventListener("chargingchange", () => resolve(), once);
      this.#surroundings.connection?.addEventListener("change", () => resolve(), once);
    }).finally(() => heard.abort());
  }
}
