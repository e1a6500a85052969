// What the page shows the model: texts, series and photographs. The pictures of clothes have their rooms in `logic`.

import type { Input, RunResult } from "@backstitch/client";
import { through } from "./logic/mist.js";
import { photo, readPhotos, type PhotoSample } from "./logic/photo.js";
import { readRecordings, windowAt, windowsOf, type Recording } from "./logic/recordings.js";
import { readSentences, type Sentence } from "./logic/sentences.js";
import { readSignals, type Score, type Signal } from "./logic/signal.js";

/** An example with its right answer. */
export interface Lesson {
  input: Input;
  label: number | number[];
}

/** What a model that scores should answer to what is ordinary. */
export const ORDINARY = [0];

/** Windows of what came before the strange part that one press teaches. */
const LESSONS = 20;

/** A scene knows what is shown, and what could be taught from the samples. */
export interface Scene {
  readonly kind: "text" | "series" | "signal" | "photo";
  /** What the model is asked; undefined while there is nothing to ask. */
  readonly input: Input | undefined;
  /** The right answer, where it is known. */
  readonly truth: number | undefined;
  /** Everything that one press may teach, and what the press is called. */
  readonly lessons: { title: string; all: () => Lesson[] | Promise<Lesson[]> } | undefined;
}

/** A sentence: a sample, or the user's own words. */
export class Writing implements Scene {
  readonly kind = "text";
  readonly lessons = undefined;
  readonly sentences: Sentence[];
  text: string;

  constructor(samples: Uint8Array) {
    this.sentences = readSentences(samples);
    this.text = this.sentences[0]?.text ?? "";
  }

  get input(): string | undefined {
    return this.text.trim() ? this.text : undefined;
  }

  get sentence(): Sentence | undefined {
    return this.sentences.find(({ text }) => text === this.text);
  }

  get truth(): number | undefined {
    return this.sentence?.label;
  }
}

/** What can be played through a stream of the model. */
export interface Played extends Scene {
  readonly moments: number;
  readonly rateHz: number;
  /** Moments between two answers, and moments that are handed over at once. */
  readonly hop: number;
  readonly stride: number;
  /** What the window is of: another one ends the playing. */
  readonly source: unknown;
  /** The window's first moment, and that of the newest window. */
  start: number;
  readonly last: number;
  /** Moments from here on. */
  part(from: number, moments: number): Input;
  /** Hears the answer to the window before `end`. */
  heard?(result: RunResult, end: number): void;
}

export function isPlayed(scene: Scene | undefined): scene is Played {
  return scene instanceof Watching || scene instanceof Monitoring;
}

/** A window of somebody's recording. */
export class Watching implements Played {
  readonly kind = "series";
  readonly recordings: Recording[];
  readonly moments: number;
  readonly rateHz: number;
  /** A quarter of a second at 50 Hz. */
  readonly hop = 12;
  readonly stride = 12;
  index = 0;
  /** The window's first moment. */
  start: number;

  constructor(samples: Uint8Array, moments: number) {
    const { recordings, rateHz } = readRecordings(samples);
    this.recordings = recordings;
    this.moments = moments;
    this.rateHz = rateHz;
    this.start = this.last;
  }

  get recording(): Recording | undefined {
    return this.recordings[this.index];
  }

  /** The newest window begins here. */
  get last(): number {
    return Math.max(0, (this.recording?.moments ?? 0) - this.moments);
  }

  get source(): Recording | undefined {
    return this.recording;
  }

  part(from: number, moments: number): Input {
    return windowAt(this.recording!, from, moments);
  }

  get people(): number[] {
    return [...new Set(this.recordings.map(({ person }) => person))];
  }

  get input(): Input | undefined {
    return this.recording && windowAt(this.recording, this.start, this.moments);
  }

  get truth(): number | undefined {
    return this.recording?.label;
  }

  /** The first halves of everything that this person recorded; the second halves are left to try out. */
  get lessons(): Scene["lessons"] {
    const person = this.recording?.person;
    const own = this.recordings.filter((recording) => recording.person === person);
    const halves = (): Lesson[] =>
      own.flatMap((recording) =>
        windowsOf(recording, Math.floor(recording.moments / 2), this.moments).map((input) => ({
          input,
          label: recording.label,
        })),
      );
    return {
      title: `Teach the first halves of person ${person ?? ""}'s recordings`,
      all: () => mixed(halves()),
    };
  }

  pick(index: number): void {
    this.index = index;
    this.start = this.last;
  }
}

/** A series whose every moment is scored. */
export class Monitoring implements Played {
  readonly kind = "signal";
  readonly truth = undefined;
  readonly hop = 1;
  /** A tenth of a second at 360 Hz. */
  readonly stride = 36;
  readonly signal: Signal | undefined;
  readonly moments: number;
  /** By time. */
  scores: Score[] = [];
  start = 0;

  constructor(samples: Uint8Array, moments: number) {
    this.signal = readSignals(samples)[0];
    this.moments = moments;
  }

  get source(): Signal | undefined {
    return this.signal;
  }

  get rateHz(): number {
    return this.signal?.rateHz ?? 1;
  }

  get last(): number {
    return Math.max(0, (this.signal?.values.length ?? 0) - this.moments);
  }

  get input(): Input | undefined {
    return this.signal && this.part(this.start, this.moments);
  }

  /** Nothing is strange before the part that cardiologists marked. */
  get lessons(): Scene["lessons"] {
    const free = (this.signal?.strange[0] ?? 0) - this.moments;
    const at = (index: number): number => Math.floor((free * index) / LESSONS);
    const all = () =>
      Array.from({ length: LESSONS }, (_, index) => ({
        input: this.part(at(index), this.moments),
        label: ORDINARY,
      }));
    return { title: "Teach what comes before the shaded part as ordinary", all: () => mixed(all()) };
  }

  part(from: number, moments: number): Input {
    const data = this.signal!.values.slice(from, from + moments);
    return { data, shape: [data.length, 1] };
  }

  heard({ base_output, output }: RunResult, end: number): void {
    const score = { end, base: base_output?.[0] ?? NaN, stitched: output[0] ?? NaN };
    const others = this.scores.filter((other) => other.end !== end);
    const at = others.findIndex((other) => other.end > end);
    this.scores = at < 0 ? [...others, score] : others.toSpliced(at, 0, score);
  }
}

/** A photograph: a sample, the user's own, or a frame of the camera, perhaps through a misted window. */
export class Looking implements Scene {
  readonly kind = "photo";
  readonly samples: PhotoSample[];
  /** The sample that is shown, if it is one. */
  sample: PhotoSample | undefined;
  /** For people. */
  name = "";
  /** How misted the window is, 0 to 1. */
  mist = 0;
  /** The picture without the window. */
  #clear: ImageData | undefined;
  /** The picture through the window, as it was last asked for. */
  #seen: { clear: ImageData; mist: number; picture: ImageData } | undefined;
  /** What the base model names while nothing is before the picture. */
  #named: number | undefined;

  /** `nameOf` asks the base model for the class of a picture. */
  constructor(
    samples: Uint8Array,
    private readonly nameOf: (picture: ImageData) => Promise<number>,
  ) {
    this.samples = readPhotos(samples);
  }

  get input(): ImageData | undefined {
    const { mist } = this;
    const clear = this.#clear;
    if (!clear || !mist) return clear;
    if (this.#seen?.clear !== clear || this.#seen.mist !== mist)
      this.#seen = { clear, mist, picture: this.before(clear) };
    return this.#seen.picture;
  }

  /** Through a window, what is seen without it is right. */
  get truth(): number | undefined {
    return this.mist ? this.#named : undefined;
  }

  /** All samples as they look through the window now; what each is, is seen without it. */
  get lessons(): Scene["lessons"] {
    const all = (): Promise<Lesson[]> =>
      Promise.all(
        this.samples.map(async ({ file }) => {
          const clear = await photo(file);
          return { input: this.before(clear), label: await this.nameOf(clear) };
        }),
      );
    return { title: `Teach all ${this.samples.length} samples as they look now`, all };
  }

  /** Puts the window before a picture. */
  before(clear: ImageData): ImageData {
    return this.mist ? through(this.mist, clear) : clear;
  }

  show(clear: ImageData, name: string): void {
    [this.#clear, this.name, this.sample, this.#named] = [clear, name, undefined, undefined];
  }

  heard({ base_top }: RunResult): void {
    if (!this.mist) this.#named = base_top?.[0]?.index;
  }

  async pick(index: number): Promise<void> {
    const sample = this.samples[Math.min(index, this.samples.length - 1)];
    if (!sample) return;
    this.show(await photo(sample.file), sample.name);
    this.sample = sample;
  }
}

/** Every fifth example judges a training, so the order must not follow the exercises. */
function mixed<T>(items: T[]): T[] {
  const step = 97;
  return items.map((_, index) => items[(index * step) % items.length]!);
}
