// Panel 1: what the model is shown.

import { percent, sheet } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { load } from "../logic/loading.js";
import type { Picture } from "../logic/picture.js";
import type { Sample } from "../logic/samples.js";
import type { Draw } from "./draw.js";
import "./draw.js";
import { dropPlace, fileButton, fileStyles } from "./files.js";
import "./picture.js";
import "./slider.js";

const PRESETS = [
  { name: "Clean", noise: 0, blur: 0, contrast: 1, tilt: 0 },
  { name: "Noisy", noise: 0.3, blur: 0, contrast: 1, tilt: 0 },
  { name: "Out of focus", noise: 0, blur: 1.5, contrast: 1, tilt: 0 },
  { name: "Flat light", noise: 0, blur: 0, contrast: 0.2, tilt: 0 },
  { name: "Tilted", noise: 0, blur: 0, contrast: 1, tilt: 25 },
];
type Preset = Omit<(typeof PRESETS)[number], "name">;

@customElement("bs-input")
export class InputPanel extends StudioElement {
  static override styles = [
    sheet,
    fileStyles,
    css`
      .view {
        display: grid;
        grid-template-columns: 168px 1fr;
        gap: var(--s3);
        align-items: start;
      }
      .big {
        width: 168px;
      }
      .strip {
        display: grid;
        grid-template-columns: repeat(10, minmax(0, 1fr));
        gap: 6px;
      }
      .strip button {
        padding: 2px;
        min-height: 0;
        border: 2px solid transparent;
        background: none;
        border-radius: var(--radius-small);
      }
      .strip button[aria-pressed="true"] {
        border-color: var(--stitch);
        background: none;
      }
      .strip bs-picture {
        min-width: 20px;
      }
      .strip-space {
        aspect-ratio: 5 / 1;
      }
      .presets button {
        min-height: 32px;
        padding: 3px 10px;
      }
      .drop {
        outline: 2px dashed var(--stitch);
        outline-offset: 8px;
        border-radius: var(--radius);
      }
      @media (max-width: 420px) {
        .view {
          grid-template-columns: 120px 1fr;
        }
        .big {
          width: 120px;
        }
      }
    `,
  ];

  override render() {
    const { studio } = this;
    const { address, picture, samples } = studio;
    const name = studio.own ? "your own picture" : (studio.sample?.name ?? "");
    return html`<bs-panel
      step="1"
      heading="Show it something"
      hint="Pick a sample, then make it hard to see."
    >
      <div
        class="stack"
        @dragover=${this.#place.over}
        @dragleave=${this.#place.leave}
        @drop=${this.#place.drop}
      >
        <div class="view">
          <bs-picture class="big" .picture=${picture} alt=${`The input: ${name}`}></bs-picture>
          <div class="stack tight">
            <div class="presets row" role="group" aria-label="Conditions">
              ${PRESETS.map(
                ({ name, ...conditions }) =>
                  html`<button
                    aria-pressed=${matches(address, conditions)}
                    @click=${() => studio.set(conditions)}
                  >
                    ${name}
                  </button>`,
              )}
            </div>
            <p class="small muted">
              28 × 28 pixels, grey. ${name ? html`Shown: <strong>${name}</strong>.` : nothing}
            </p>
            <div class="row">
              ${fileButton({ id: "file", label: "Upload" }, ([file]) => void this.#take(file))}
              <button @click=${() => this.renderRoot.querySelector<Draw>("bs-draw")?.show()}>Draw</button>
            </div>
          </div>
        </div>
        <div>
          ${this.#slider("Noise", "noise", 0.5, 0.01, `σ ${address.noise.toFixed(2)}`, "Standard deviation of Gaussian noise, in units of full brightness")}
          ${this.#slider("Blur", "blur", 2.5, 0.1, `${address.blur.toFixed(1)} px`, "Standard deviation of Gaussian blur, in pixels")}
          ${this.#slider("Contrast", "contrast", 1, 0.01, percent(address.contrast), "Share of the original contrast that is left", 0.1)}
          ${this.#slider("Tilt", "tilt", 45, 1, `${address.tilt}°`, "Degrees, positive is anticlockwise", -45)}
        </div>
        ${this.#strip(samples)}
        <bs-draw @picture=${(event: CustomEvent<Picture>) => studio.show(event.detail)}></bs-draw>
      </div>
      <button
        slot="aside"
        class="quiet small"
        title="Draw other random numbers for the noise"
        @click=${this.#reseed}
      >
        New noise
      </button>
    </bs-panel>`;
  }

  #strip(samples: Sample[]) {
    const { studio } = this;
    return html`<div class="strip" role="group" aria-label="Samples">
      ${
        samples.length === 0
          ? html`<div class="strip-space"></div>`
          : samples.map(
              (sample, index) =>
                html`<button
                  aria-pressed=${!studio.own && index === studio.address.sample}
                  aria-label=${sample.name}
                  title=${sample.name}
                  @click=${() => studio.set({ sample: index })}
                >
                  <bs-picture .picture=${sample.picture} alt=""></bs-picture>
                </button>`,
            )
      }
    </div>`;
  }

  #slider(label: string, key: keyof Preset, max: number, step: number, text: string, title: string, min = 0) {
    return html`<bs-slider
      label=${label}
      hint=${title}
      .min=${min}
      .max=${max}
      .step=${step}
      .value=${this.studio.address[key]}
      text=${text}
      @change-value=${(event: CustomEvent<number>) => this.studio.set({ [key]: event.detail })}
    ></bs-slider>`;
  }

  #reseed = (): void => this.studio.set({ seed: (this.studio.address.seed % 9999) + 1 });

  readonly #place = dropPlace(([file]) => void this.#take(file));

  async #take(file: File | undefined): Promise<void> {
    if (!file) return;
    try {
      this.studio.show(await load(file));
    } catch (thrown) {
      this.studio.report(thrown);
    }
  }
}

function matches(now: Preset, preset: Preset): boolean {
  return (["noise", "blur", "contrast", "tilt"] as const).every((name) => now[name] === preset[name]);
}
