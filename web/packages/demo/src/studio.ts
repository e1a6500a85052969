// The page's state, and what people can do to it. Elements read it and call it; it knows no element.

import {
  open,
  PatchError,
  type Input,
  type Model,
  type OpenProgress,
  type RunResult,
} from "@backstitch/client";
import { Camera } from "./camera.js";
import { readAddress, writeAddress, type Address } from "./logic/address.js";
import { photo } from "./logic/photo.js";
import { photograph, SIDE, type Picture } from "./logic/picture.js";
import { readSamples, type Sample } from "./logic/samples.js";
import { namedPatches, type Override } from "./logic/whatif.js";
import { Playing } from "./playing.js";
import { isPlayed, Looking, Monitoring, Watching, Writing, type Scene } from "./scene.js";
import { Sharing } from "./sharing.js";
import { Teaching } from "./teaching.js";
import { Things } from "./things.js";

export interface Arrival {
  at: number;
  catalog_version: number;
  patches: { name: string; from: number; to: number }[];
  swap_ms: number;
}

export class Studio extends EventTarget {
  readonly teaching = new Teaching(this);
  readonly sharing = new Sharing(this);
  readonly playing = new Playing(this);
  readonly camera = new Camera(this);
  readonly things = new Things(this);
  /** Resolves once the worker has begun to open the library, or has failed to. */
  readonly underway: Promise<void>;
  #begun: () => void = () => undefined;
  model: Model | undefined;
  progress: OpenProgress | undefined;
  /** Why the library could not be opened. */
  failure: PatchError | undefined;
  /** What went wrong last, until something works again. */
  problem: PatchError | undefined;
  samples: Sample[] = [];
  address: Address = readAddress(location.hash);
  /** A drawn or loaded picture that stands in for the sample. */
  own: Picture | undefined;
  picture: Picture | undefined;
  /** What a library of texts, series or photographs is shown; small grey pictures are in `picture`. */
  staged: Scene | undefined;
  /** The automatic choice, and what is shown: the same unless something is overridden. */
  automatic: RunResult | undefined;
  result: RunResult | undefined;
  overrides = new Map<string, Override>();
  limitMs: number | undefined;
  arrivals: Arrival[] = [];
  /** Until the first answer is on the screen: what lies further down the page waits for that. */
  opening = true;
  #running = false;
  #again = false;
  #drawing = false;

  constructor() {
    super();
    this.underway = new Promise((resolve) => (this.#begun = resolve));
  }

  /** Has everything drawn again, with the next picture of the screen: what is asked of the worker is on its way first. */
  changed(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.dispatchEvent(new Event("change"));
    });
  }

  async open(url: string): Promise<void> {
    this.failure = undefined;
    this.opening = true;
    this.changed();
    try {
      const model = await open(url, {
        onProgress: (progress) => {
          this.progress = progress;
          this.#begun();
          this.changed();
        },
      });
      this.model = model;
      model.on("version", ({ catalog_version, patches, swap_ms }) => {
        this.arrivals = [
          { at: Date.now() / 1000, catalog_version, patches, swap_ms },
          ...this.arrivals,
        ].slice(0, 12);
        void this.sharing.refreshPreview();
        void this.rerun();
      });
      model.on("privacy", () => this.changed());
      model.on("error", (problem) => this.report(problem));
      this.things.load();
      const [bytes] = await Promise.all([model.samples(), this.teaching.load()]);
      await this.#stage(model, bytes ?? new TextEncoder().encode('{"samples":[]}'));
      await this.rerun();
      await shown();
      this.opening = false;
      // The browser compiles wasm better while it runs: the first times would be shown as if they were usual.
      await this.rerun();
    } catch (thrown) {
      this.failure = PatchError.from(thrown);
      this.#begun();
      this.opening = false;
      this.changed();
    }
  }

  async #stage(model: Model, samples: Uint8Array): Promise<void> {
    const { modality, input, labels } = model.library;
    const moments = input.shape.at(-1) ?? 1;
    if (modality === "text") this.staged = new Writing(samples);
    else if (modality === "series")
      this.staged = labels.length ? new Watching(samples, moments) : new Monitoring(samples, moments);
    else if (input.shape[1] === 1) this.samples = readSamples(samples);
    else {
      const looking = (this.staged = new Looking(samples, (picture) => baseClass(model, picture)));
      await looking.pick(this.address.sample);
    }
  }

  /** The names of the classes; of what the user taught, by the user's own names. */
  get labels(): string[] {
    return this.things.named(this.model?.library.labels ?? []);
  }

  /** What the model is asked. */
  get input(): Input | undefined {
    return this.staged ? this.staged.input : this.picture && tensor(this.picture);
  }

  /** Whether what is drawn belongs to what is set. */
  get settled(): boolean {
    return this.result !== undefined && !this.opening && !this.#running && !this.#drawing;
  }

  /** The picture before anything happened to it. */
  get scene(): Picture | undefined {
    return this.own ?? this.sample?.picture;
  }

  get sample(): Sample | undefined {
    return this.samples[Math.min(this.address.sample, this.samples.length - 1)];
  }

  /** The right answer, where it is known. */
  get truth(): number | undefined {
    if (this.staged) return this.staged.truth;
    return this.own ? undefined : this.sample?.label;
  }

  set(part: Partial<Address>): void {
    this.address = { ...this.address, ...part };
    if (part.sample !== undefined) this.own = undefined;
    history.replaceState(null, "", writeAddress(this.address));
    void this.rerun();
  }

  follow(hash: string): void {
    this.address = readAddress(hash);
    void this.rerun();
  }

  show(picture: Picture): void {
    this.own = picture;
    void this.rerun();
  }

  /** Shows a photograph of the user's own. */
  async look(file: Blob, name: string): Promise<void> {
    try {
      const seen = await photo(file);
      this.camera.stop();
      if (this.staged instanceof Looking) this.staged.show(seen, name);
      await this.rerun();
    } catch (thrown) {
      this.report(thrown);
    }
  }

  /** Shows a built-in photograph, and says so in the address. */
  async pick(sample: number): Promise<void> {
    this.camera.stop();
    if (this.staged instanceof Looking) await this.staged.pick(sample);
    this.set({ sample });
  }

  override(name: string, override: Override): void {
    this.overrides.set(name, override);
    void this.rerun();
  }

  limit(ms: number | undefined): void {
    this.limitMs = ms;
    void this.rerun();
  }

  report(thrown: unknown): void {
    this.problem = PatchError.from(thrown);
    this.changed();
  }

  /** Shows an answer that came without being asked for: the next of a stream. */
  answered(result: RunResult): void {
    this.result = this.automatic = result;
    this.changed();
  }

  /** Runs on what the page shows now. Calls during a run fold into one more run. */
  async rerun(): Promise<void> {
    this.picture = this.scene && photograph(this.scene, this.address);
    if (this.staged instanceof Looking) this.staged.mist = this.address.mist;
    this.changed();
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    try {
      do {
        this.#again = false;
        await this.#run();
      } while (this.#again);
      this.problem = undefined;
    } catch (thrown) {
      this.report(thrown);
    } finally {
      this.#running = false;
      this.changed();
    }
  }

  async #run(): Promise<void> {
    const { model, input, staged } = this;
    if (!model || input === undefined) return;
    const costLimit = { ms: this.limitMs ?? null };
    const automatic = await model.run(input, { compare: true, costLimit });
    const names = namedPatches(automatic.candidates, this.overrides);
    this.result = names ? await model.run(input, { patches: names, compare: true, costLimit }) : automatic;
    this.automatic = automatic;
    // What is shown may have changed meanwhile.
    if (staged instanceof Looking && staged.input === input) staged.heard(this.result);
    if (isPlayed(staged)) staged.heard?.(this.result, staged.start + staged.moments);
    this.changed();
  }
}

/** Resolves when what has changed is on the screen, where it arrives some frames after it was drawn, and nothing waits. */
async function shown(): Promise<void> {
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
  await new Promise<unknown>((resolve) => {
    // A page that is never idle, as with a camera, has the rest drawn all the same.
    if (typeof requestIdleCallback === "function") requestIdleCallback(resolve, { timeout: 500 });
    else setTimeout(resolve);
  });
}

async function baseClass(model: Model, picture: ImageData): Promise<number> {
  const { top } = await model.run(picture, { patches: [] });
  return top[0]?.index ?? 0;
}

export function tensor(picture: Picture): { data: Float32Array; shape: number[] } {
  return { data: picture, shape: [1, 1, SIDE, SIDE] };
}
