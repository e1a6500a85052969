// What the page shows the model, for libraries of text and of series. Pictures have their own rooms in `logic`.

import type { Input } from "@backstitch/client";
import { photo, readPhotos, type PhotoSample } from "./logic/photo.js";
import { readRecordings, windowAt, windowsOf, type Recording } from "./logic/recordings.js";
import { readSentences, type Sentence } from "./logic/sentences.js";

/** An example with its right answer. */
export interface Lesson {
  input: Input;
  label: number;
}

/** A scene knows what is shown, and what could be taught from the samples. */
export interface Scene {
  readonly kind: "text" | "series" | "photo";
  /** What the model is asked; undefined while there is nothing to ask. */
  readonly input: Input | undefined;
  /** The right answer, where it is known. */
  readonly truth: number | undefined;
  /** Everything that one press may teach, and what the press is called. */
  readonly lessons: { title: string; all: Lesson[] } | undefined;
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

/** A window of somebody's recording. */
export class Watching implements Scene {
  readonly kind = "series";
  readonly recordings: Recording[];
  readonly moments: number;
  readonly rateHz: number;
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
    const halves = own.flatMap((recording) =>
      windowsOf(recording, Math.floor(recording.moments / 2), this.moments).map((input) => ({
        input,
        label: recording.label,
      })),
    );
    return { title: `Teach the first halves of person ${person ?? ""}'s recordings`, all: mixed(halves) };
  }

  pick(index: number): void {
    this.index = index;
    this.start = this.last;
  }
}

/** A photograph: a sample, the user's own, or a frame of the camera. */
export class Looking implements Scene {
  readonly kind = "photo";
  readonly lessons = undefined;
  readonly truth = undefined;
  readonly samples: PhotoSample[];
  /** The sample that is shown, if it is one. */
  sample: PhotoSample | undefined;
  /** For people. */
  name = "";
  #seen: ImageData | undefined;

  constructor(samples: Uint8Array) {
    this.samples = readPhotos(samples);
  }

  get input(): ImageData | undefined {
    return this.#seen;
  }

  show(seen: ImageData, name: string): void {
    [this.#seen, this.name, this.sample] = [seen, name, undefined];
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
