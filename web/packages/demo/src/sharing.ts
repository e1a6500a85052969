// Contributing: nothing leaves before a visible yes, and what leaves can be looked at.

import type { ContributeResult, Preview, SentEntry, TaskPrivacy } from "@backstitch/client";
import { PatchError } from "@backstitch/client";
import type { Studio } from "./studio.js";

export class Sharing {
  preview: Preview | undefined;
  /** Whether the bytes are on the page. */
  shown = false;
  last: ContributeResult | undefined;
  busy = false;

  constructor(private readonly studio: Studio) {}

  get task(): TaskPrivacy | undefined {
    return this.studio.model?.privacy.tasks[0];
  }

  /** What left this device, by its own ledger. */
  get history(): SentEntry[] {
    return this.studio.model?.privacy.history ?? [];
  }

  async consent(given: boolean): Promise<void> {
    await this.#guard(async () => {
      await this.studio.model?.consent(given);
      this.last = undefined;
      await this.#look();
    });
  }

  async toggle(): Promise<void> {
    this.shown = !this.shown;
    if (this.shown) await this.#guard(() => this.#look());
    else this.studio.changed();
  }

  async contribute(): Promise<void> {
    await this.#guard(async () => {
      this.last = await this.studio.model?.contribute();
      await this.#look();
    });
  }

  async forget(): Promise<void> {
    await this.#guard(async () => {
      await this.studio.model?.consent(false);
      await this.studio.model?.forget();
      this.preview = undefined;
      this.shown = false;
      this.last = undefined;
      this.studio.teaching.report = undefined;
      this.studio.teaching.curve = [];
      this.studio.things.forget();
      await this.studio.teaching.load();
    });
    await this.studio.rerun();
  }

  /** Brings the bytes up to date, if somebody looks at them. */
  async refreshPreview(): Promise<void> {
    if (this.shown) await this.#guard(() => this.#look());
  }

  async #look(): Promise<void> {
    if (!this.shown) return;
    try {
      this.preview = await this.studio.model?.preview();
    } catch (thrown) {
      this.preview = undefined;
      // Having nothing to send is no failure of the page.
      if (PatchError.from(thrown).code !== "nothing_to_contribute") throw thrown;
    }
  }

  async #guard(work: () => Promise<void>): Promise<void> {
    this.busy = true;
    this.studio.changed();
    try {
      await work();
    } catch (thrown) {
      this.studio.report(thrown);
    } finally {
      this.busy = false;
      this.studio.changed();
    }
  }
}
