// Panel: examples that stay here, and what training on them brings.

import { count, sheet, vars, type Series } from "@backstitch/ui";
import type { ExampleCounts, TrainReport } from "@backstitch/client";
import { css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { outcome } from "../logic/outcome.js";
import { isPlace } from "../logic/own.js";
import { Looking, ORDINARY } from "../scene.js";

const CURVE: Series[] = [{ label: "Loss", colour: "--stitch" }];

/** Classes above which they are told by their names, and not counted one by one. */
const MANY = 50;

const WHAT = { image: "picture", photo: "picture", text: "sentence", series: "window", signal: "moment" };

const NOTHING = {
  training: undefined,
  report: undefined as TrainReport | undefined,
  curve: [] as { step: number; loss: number }[],
};

@customElement("bs-teach")
export class Teach extends StudioElement {
  static override styles = [
    sheet,
    css`
      .counts {
        display: grid;
        grid-template-columns: repeat(10, 1fr);
        gap: 4px;
        align-items: end;
        height: 40px;
      }
      .counts div {
        height: var(--tall);
        min-height: 3px;
        border-radius: 2px;
        background: var(--stitch);
      }
      .counts .none {
        background: var(--line);
      }
      .curve {
        min-height: 130px;
      }
      .report {
        min-height: 44px;
      }
      select,
      #label {
        flex: 1 1 120px;
        min-width: 0;
      }
    `,
  ];

  @state() private picked: number | undefined;
  /** The name that was typed, where there are many. */
  @state() private typed: string | undefined;

  override render() {
    const { model, teaching, input } = this.studio;
    const { counts, busy } = teaching;
    const labels = model?.library.labels ?? [];
    // What is told further up is of the user's own things.
    const { training, report, curve } = teaching.ofThings ? NOTHING : teaching;
    const scores = model !== undefined && labels.length === 0;
    const ready = model !== undefined && input !== undefined;
    return html`<bs-panel
      step="7"
      heading="Teach it"
      hint="Examples stay on this device. Only training reads them."
    >
      <div class="row">
        ${
          scores
            ? html`<button ?disabled=${!ready || busy} @click=${() => teaching.teach(ORDINARY)}>
                What is seen now is ordinary
              </button>`
            : this.#one(labels, !ready || busy)
        }
      </div>
      ${this.#all(!ready || busy)} ${counts ? tally(counts) : html`<div class="counts"></div>`}
      <div class="row">
        <button class="primary" ?disabled=${busy || !counts?.total} @click=${() => teaching.train()}>
          Train here
        </button>
        ${
          training
            ? html`<button @click=${() => teaching.stop()}>Stop</button>
                <span class="small muted num" role="status">step ${training.step} of ${training.steps}</span>`
            : html`<span class="small muted">in a worker of its own, so the page stays quick</span>`
        }
      </div>
      <bs-plot
        class="curve"
        .series=${CURVE}
        .data=${[curve.map(({ step }) => step), curve.map(({ loss }) => loss)]}
        .height=${130}
        xLabel="training step"
        yLabel=${scores ? "loss" : "loss (nats)"}
        summary=${`Training curve, ${curve.length} steps`}
      ></bs-plot>
      <p class="report" role="status">
        ${report ? outcome(report, !scores) : training ? nothing : html`<span class="small muted">The curve above and the result here follow the training.</span>`}
      </p>
    </bs-panel>`;
  }

  /** What is shown now, with its right answer: one of a few, or one of a thousand by its name. */
  #one(labels: string[], disabled: boolean) {
    const { teaching, staged, truth } = this.studio;
    const many = labels.length > MANY;
    const label = many
      ? this.typed === undefined
        ? truth
        : named(labels, this.typed)
      : (this.picked ?? truth ?? 0);
    const what = WHAT[staged?.kind ?? "image"];
    const told = `The right answer for this ${what}`;
    return html`${
        many
          ? html`<input
                id="label"
                type="text"
                list="labels"
                placeholder="its name"
                aria-label=${told}
                .value=${this.typed ?? labels[truth ?? -1] ?? ""}
                @input=${this.#type}
              />
              <datalist id="labels">
                ${labels.filter((name) => !isPlace(name)).map((name) => html`<option value=${name}></option>`)}
              </datalist>`
          : html`<select id="label" aria-label=${told} @change=${this.#pick}>
              ${labels.map((name, index) => html`<option value=${index} ?selected=${index === label}>${name}</option>`)}
            </select>`
      }
      <button
        ?disabled=${disabled || label === undefined}
        @click=${() => label !== undefined && teaching.teach(label)}
      >
        Teach this ${what}
      </button>
      ${many && this.typed && label === undefined ? html`<span class="small muted">The model has no class of this name.</span>` : nothing}`;
  }

  #all(disabled: boolean) {
    const { staged, teaching, samples } = this.studio;
    const lessons = staged?.lessons;
    if (lessons)
      return html`<button ?disabled=${disabled} @click=${() => teaching.teachLessons(lessons)}>
        ${lessons.title}
      </button>`;
    if (staged) return nothing;
    return html`<button
      ?disabled=${disabled}
      @click=${() => teaching.teachAll()}
      title="Every sample twice, as the sliders are set now, tilted by two degrees more and less"
    >
      Teach all ${count(samples.length * 2)} samples as they look now
    </button>`;
  }

  override willUpdate(): void {
    // What is new has a new right answer.
    const { staged, scene, truth } = this.studio;
    const seen = staged instanceof Looking ? staged.name : staged ? truth : scene;
    if (this.#seen !== seen) this.picked = this.typed = undefined;
    this.#seen = seen;
  }

  #seen: unknown;

  #type = (event: Event): void => void (this.typed = (event.target as HTMLInputElement).value);

  #pick = (event: Event): void => void (this.picked = Number((event.target as HTMLSelectElement).value));
}

/** The class of that name, unless it is the place of something of the user's own. */
function named(labels: string[], given: string): number | undefined {
  const wanted = given.trim().toLowerCase();
  const found = labels.findIndex((name) => !isPlace(name) && name.toLowerCase() === wanted);
  return found < 0 ? undefined : found;
}

function tally(counts: ExampleCounts) {
  const most = Math.max(1, ...counts.per_label.map(({ count: n }) => n));
  return html`<div>
    <div
      class="counts"
      ?hidden=${counts.per_label.length === 0 || counts.per_label.length > MANY}
      role="img"
      aria-label=${counts.per_label.map(({ label, count: n }) => `${label} ${n}`).join(", ")}
    >
      ${(counts.per_label.length > MANY ? [] : counts.per_label).map(
        ({ label, count: n }) =>
          html`<div
            class=${n ? "" : "none"}
            title=${`${label}: ${n}`}
            ${vars({ "--tall": `${(100 * n) / most}%` })}
          ></div>`,
      )}
    </div>
    <p class="small muted num" id="examples">
      ${count(counts.total)} of at most ${count(counts.limit)} examples: ${count(counts.training)} to train
      on, ${count(counts.held_out)} held out to
      judge${counts.unsaved ? `; ${count(counts.unsaved)} in memory only, as this device is full` : ""}
    </p>
  </div>`;
}
