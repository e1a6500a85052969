// Panel 1 for series: somebody's recordings, and a window that slides over one.

import { sheet } from "@backstitch/ui";
import { css, html, nothing, svg } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { path, windowAt } from "../logic/recordings.js";
import type { Watching } from "../scene.js";
import "./slider.js";

/** The edge of the drawing, in g. */
const REACH = 2.5;
const AXES = ["var(--stitch)", "var(--base)", "var(--muted)"];

@customElement("bs-recording")
export class RecordingPanel extends StudioElement {
  static override styles = [
    sheet,
    css`
      svg {
        width: 100%;
        height: 168px;
        background: var(--sunken);
        border-radius: var(--radius-small);
      }
      path {
        fill: none;
        stroke-width: 1.5;
        vector-effect: non-scaling-stroke;
      }
      select {
        flex: 1 1 200px;
        min-width: 0;
      }
    `,
  ];

  override render() {
    const scene = this.studio.staged as Watching | undefined;
    const recording = scene?.recording;
    const seconds = (moments: number): string => `${(moments / (scene?.rateHz ?? 1)).toFixed(1)} s`;
    return html`<bs-panel
      step="1"
      heading="Watch somebody move"
      hint="A smartwatch during shoulder exercises. The model was not trained on these two people."
    >
      <div class="stack">
        <div class="row">
          <select id="recording" aria-label="A recording" @change=${this.#pick}>
            ${(scene?.people ?? []).map(
              (person) =>
                html`<optgroup label=${`Person ${person}`}>
                  ${(scene?.recordings ?? []).map((each, index) =>
                    each.person === person
                      ? html`<option value=${index} ?selected=${index === scene?.index}>
                          ${each.name}, ${each.arm} arm
                        </option>`
                      : nothing,
                  )}
                </optgroup>`,
            )}
          </select>
        </div>
        <svg
          viewBox="0 0 100 100"
          preserveAspectRatio="none"
          role="img"
          aria-label="Acceleration over the window"
        >
          ${
            recording && scene
              ? AXES.map(
                  (colour, axis) =>
                    svg`<path stroke=${colour} d=${path(windowAt(recording, scene.start, scene.moments), axis, REACH)}></path>`,
                )
              : nothing
          }
        </svg>
        <div class="row">
          <button id="play" ?disabled=${!this.studio.result} @click=${this.#play}>
            ${this.studio.playing.on ? "Stop" : "Play"}
          </button>
          <span class="small muted">as it came from the watch: a new answer every quarter of a second</span>
        </div>
        <bs-slider
          label="Window"
          hint="The moments that the model sees; the second half of a recording is never taught"
          .min=${0}
          .max=${scene?.last ?? 1}
          .step=${1}
          .value=${scene?.start ?? 0}
          text=${seconds(scene?.start ?? 0)}
          @change-value=${this.#slide}
        ></bs-slider>
        <p class="small muted">
          Acceleration of three axes within ±${REACH} g over ${seconds(scene?.moments ?? 0)}; the model sees
          the turning rates too. The recording lasts ${seconds(recording?.moments ?? 0)}.
        </p>
      </div>
    </bs-panel>`;
  }

  #play = (): void => {
    const { playing } = this.studio;
    if (playing.on) playing.stop();
    else void playing.play();
  };

  #pick = (event: Event): void => {
    (this.studio.staged as Watching | undefined)?.pick(Number((event.target as HTMLSelectElement).value));
    void this.studio.rerun();
  };

  #slide = (event: CustomEvent<number>): void => {
    const scene = this.studio.staged as Watching | undefined;
    this.studio.playing.stop();
    if (scene) scene.start = event.detail;
    void this.studio.rerun();
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-recording": RecordingPanel;
  }
}
