// Panel 1 for libraries that score: a series, played moment by moment, and both models' scores below it.

import { sheet, vars } from "@backstitch/ui";
import { css, html, nothing, svg } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { alarms, curve, highest, type Score } from "../logic/signal.js";
import type { Monitoring } from "../scene.js";
import "./slider.js";

const SIDES = [
  { of: "base", name: "Base model", colour: "var(--base)" },
  { of: "stitched", name: "Stitched", colour: "var(--stitch)" },
] as const;

@customElement("bs-signal")
export class SignalPanel extends StudioElement {
  static override styles = [
    sheet,
    css`
      svg {
        display: block;
        width: 100%;
        height: 132px;
        background: var(--sunken);
        border-radius: var(--radius-small);
      }
      svg.scores {
        height: 56px;
      }
      path {
        fill: none;
        stroke: var(--ink);
        stroke-width: 1.25;
        vector-effect: non-scaling-stroke;
      }
      .scores path {
        stroke: var(--side);
        stroke-width: 1.5;
      }
      .strange {
        fill: var(--bad-soft);
      }
      .seen {
        fill: none;
        stroke: var(--line-strong);
        stroke-dasharray: 3 3;
        vector-effect: non-scaling-stroke;
      }
    `,
  ];

  override render() {
    const scene = this.studio.staged as Monitoring | undefined;
    const signal = scene?.signal;
    const seconds = (moments: number): string => `${(moments / (signal?.rateHz ?? 1)).toFixed(1)} s`;
    return html`<bs-panel
      step="1"
      heading="Watch a heart"
      hint="Heartbeats, one of them strange. The model scores how much each new moment stands out."
    >
      <div class="stack">
        ${scene && signal ? this.#series(scene) : html`<svg></svg>`}
        ${SIDES.map(({ of, name, colour }) => this.#scores(scene, of, name, colour))}
        <div class="row">
          <button id="play" ?disabled=${!this.studio.result} @click=${this.#play}>
            ${this.studio.playing.on ? "Stop" : "Play"}
          </button>
          <span class="small muted">as it came from the heart: a score for every moment</span>
        </div>
        <bs-slider
          label="Now"
          hint="The newest moment that the model sees"
          .min=${0}
          .max=${scene?.last ?? 1}
          .step=${1}
          .value=${scene?.start ?? 0}
          text=${seconds((scene?.start ?? 0) + (scene?.moments ?? 0))}
          @change-value=${this.#slide}
        ></bs-slider>
        <p class="small muted">
          The shaded part is what cardiologists marked; the model does not know it. It sees what is within the
          dashes, ${seconds(scene?.moments ?? 0)}, of ${seconds(signal?.values.length ?? 0)} in all.
        </p>
      </div>
    </bs-panel>`;
  }

  #series({ signal, start, moments }: Monitoring) {
    if (!signal) return nothing;
    const { values, strange } = signal;
    const at = (moment: number): number => (100 * moment) / values.length;
    return html`<svg
      viewBox="0 0 100 100"
      preserveAspectRatio="none"
      role="img"
      aria-label=${`${signal.name}; what the model sees ends at moment ${start + moments} of ${values.length}`}
    >
      ${svg`<rect class="strange" x=${at(strange[0])} y="0" width=${at(strange[1] - strange[0])} height="100"></rect>
        <path d=${curve(values)}></path>
        <rect class="seen" x=${at(start)} y="1" width=${at(moments)} height="98"></rect>`}
    </svg>`;
  }

  #scores(scene: Monitoring | undefined, of: "base" | "stitched", name: string, colour: string) {
    const signal = scene?.signal;
    const scores = scene?.scores ?? [];
    const loudest = highest(scores, of);
    const count = signal ? alarms(scores, of, signal.rateHz / 4).length : 0;
    const loud = Math.max(loudest?.[of] ?? 0, 1e-9);
    const spike = (score: Score): string => {
      const x = ((100 * score.end) / (signal?.values.length ?? 1)).toFixed(2);
      return `M${x} 100V${(100 - (92 * Math.max(0, score[of])) / loud).toFixed(1)}`;
    };
    return html`<div ${vars({ "--side": colour })}>
      <svg class="scores" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
        ${svg`<path d=${scores.map(spike).join("")}></path>`}
      </svg>
      <p class="small" data-side=${of}>
        <strong>${name}</strong>:
        ${
          scores.length < 2
            ? "play it to see where it speaks up."
            : html`loud <strong class="num">${count}</strong> ${count === 1 ? "time" : "times"}, most at
                ${((loudest?.end ?? 0) / (signal?.rateHz ?? 1)).toFixed(1)} s.`
        }
      </p>
    </div>`;
  }

  #play = (): void => {
    const { playing } = this.studio;
    if (playing.on) playing.stop();
    else void playing.play();
  };

  #slide = (event: CustomEvent<number>): void => {
    const scene = this.studio.staged as Monitoring | undefined;
    this.studio.playing.stop();
    if (scene) scene.start = event.detail;
    void this.studio.rerun();
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-signal": SignalPanel;
  }
}
