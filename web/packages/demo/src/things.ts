// The user's own things: their names, the pictures that teach them, and training that follows by itself.

import { placesOf, readNames, writeNames } from "./logic/own.js";
import { photo } from "./logic/photo.js";
import { Looking } from "./scene.js";
import type { Studio } from "./studio.js";

/** Pictures that one press takes of what the camera sees, and milliseconds between two of them. */
export const SHOTS = 8;
const SHOT_MS = 250;

/** Pictures of a thing before training is worth its while: every fifth only judges. */
export const FEWEST = 3;

/** Pictures that the page shows of each thing; all of them are kept. */
const SHOWN = 8;

export interface Thing {
  place: number;
  name: string;
  count: number;
  /** The newest pictures of this visit. */
  pictures: ImageData[];
}

export class Things {
  /** Taking pictures of this one now. */
  taking: number | undefined;
  #names = new Map<number, string>();
  #pictures = new Map<number, ImageData[]>();
  #untrained = false;
  #training = false;

  constructor(private readonly studio: Studio) {}

  get places(): number[] {
    return placesOf(this.studio.model?.library.labels ?? []);
  }

  /** What has a name or pictures. */
  get all(): Thing[] {
    const counts = this.studio.teaching.counts?.per_label ?? [];
    return this.places
      .map((place, index) => ({
        place,
        name: this.#names.get(place) ?? (counts[place]?.count ? `thing ${index + 1}` : ""),
        count: counts[place]?.count ?? 0,
        pictures: this.#pictures.get(place) ?? [],
      }))
      .filter(({ name }) => name);
  }

  get full(): boolean {
    return this.all.length >= this.places.length;
  }

  /** The labels with the user's names in their places. */
  named(labels: string[]): string[] {
    if (!placesOf(labels).length) return labels;
    const own = new Map(this.all.map(({ place, name }) => [place, name]));
    return labels.map((label, index) => own.get(index) ?? label);
  }

  /** Reads the names that were given in earlier visits. */
  load(): void {
    this.#names = readNames(localStorage.getItem(this.#key));
  }

  /** Takes the first free place; returns it, or undefined where there is none. */
  add(name: string): number | undefined {
    const taken = new Set(this.all.map(({ place }) => place));
    const place = this.places.find((each) => !taken.has(each));
    if (place !== undefined) this.rename(place, name);
    return place;
  }

  rename(place: number, name: string): void {
    const trimmed = name.trim().slice(0, 40);
    if (trimmed) this.#names.set(place, trimmed);
    localStorage.setItem(this.#key, writeNames(this.#names));
    this.studio.changed();
  }

  /** What is shown now; from the camera, some in a row. */
  async take(place: number): Promise<void> {
    const { camera, staged } = this.studio;
    if (!(staged instanceof Looking)) return;
    await this.#teach(place, async (learn) => {
      for (let shot = 0; shot < (camera.on ? SHOTS : 1); shot++) {
        if (shot) await new Promise((next) => setTimeout(next, SHOT_MS));
        if (staged.input) await learn(staged.input);
      }
    });
  }

  /** Pictures from files. */
  async open(place: number, files: File[]): Promise<void> {
    await this.#teach(place, async (learn) => {
      for (const file of files) await learn(await photo(file));
    });
  }

  /** What is shown is none of them: it keeps the answer of the base model, to the clear picture where that is known. */
  async notMine(): Promise<void> {
    const { staged, result, truth } = this.studio;
    const answer = truth ?? result?.base_top?.[0]?.index;
    if (!(staged instanceof Looking) || answer === undefined) return;
    await this.#teach(answer, async (learn) => {
      if (staged.input) await learn(staged.input);
    });
  }

  forget(): void {
    this.#names.clear();
    this.#pictures.clear();
    localStorage.removeItem(this.#key);
  }

  get #key(): string {
    return `backstitch.things.${this.studio.model?.library.name ?? ""}`;
  }

  async #teach(
    place: number,
    work: (learn: (picture: ImageData) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const { model, teaching } = this.studio;
    if (!model || this.taking !== undefined) return;
    this.taking = place;
    this.studio.changed();
    try {
      await work(async (picture) => {
        teaching.counts = (await model.learn(picture, place)).examples;
        this.#pictures.set(place, [...(this.#pictures.get(place) ?? []), picture].slice(-SHOWN));
        this.#untrained = true;
        this.studio.changed();
      });
    } catch (thrown) {
      this.studio.report(thrown);
    } finally {
      this.taking = undefined;
      this.studio.changed();
    }
    void this.#train();
  }

  /** Trains in the background whenever something new was taught, and once more if that went on meanwhile. */
  async #train(): Promise<void> {
    if (this.#training || !this.all.some(({ count }) => count >= FEWEST)) return;
    this.#training = true;
    try {
      while (this.#untrained) {
        this.#untrained = false;
        await this.studio.teaching.train(true);
      }
    } finally {
      this.#training = false;
    }
  }
}
