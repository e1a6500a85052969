// Experiments: intervals that may be looked at any time, and why there is no decision yet.

import { count, percent, sheet } from "@backstitch/ui";
import { css, html, nothing, svg } from "lit";
import { customElement } from "lit/decorators.js";
import { ConsoleElement } from "../element.js";
import type { ArmState, ExperimentState } from "../state.js";
import "./experiment-form.js";
import "./reason-dialog.js";

@customElement("bs-experiments")
export class Experiments extends ConsoleElement {
  static override styles = [
    sheet,
    css`
      article + article {
        border-top: 1px solid var(--line);
        padding-top: var(--s3);
      }
      .arm {
        display: grid;
        grid-template-columns: minmax(96px, 140px) 1fr 200px;
        gap: var(--s2);
        align-items: center;
      }
      svg {
        width: 100%;
        height: 24px;
        overflow: visible;
      }
      @media (max-width: 560px) {
        .arm {
          grid-template-columns: 1fr;
          gap: 0;
        }
      }
    `,
  ];

  override render() {
    const { experiments, reports } = this.library;
    return html`<bs-panel
        heading="Experiments"
        hint="Devices draw their arm themselves and report one randomised bit. Looking early does no harm."
      >
        <p class="small" id="reports">
          A device that is in all of them has told ε ${reports.spent_epsilon.toFixed(2)} of
          ${reports.budget_epsilon.toFixed(2)} within ${reports.period_days} days; the next experiment may ask
          for up to ε ${Math.max(0, reports.budget_epsilon - reports.spent_epsilon).toFixed(2)}.
        </p>
        <bs-experiment-form .operator=${this.operator} .library=${this.library}></bs-experiment-form>
        ${experiments.length ? experiments.map((experiment) => this.#experiment(experiment)) : html`<p class="muted">No experiment was started yet.</p>`}
      </bs-panel>
      <bs-reason-dialog></bs-reason-dialog>`;
  }

  #experiment(experiment: ExperimentState) {
    const { name, state, arms, difference, decision, reason, epsilon, window } = experiment;
    return html`<article class="stack tight" data-experiment=${name}>
      <div class="row spread">
        <span class="row"
          ><strong>${name}</strong
          ><span class="chip ${state === "running" ? "good" : ""}">${state}</span></span
        >
        ${state === "running" ? html`<button @click=${() => this.#stop(name)}>Stop</button>` : nothing}
      </div>
      <p class="small muted num">ε ${epsilon} for each report · one report after ${count(window)} inputs</p>
      ${arms.map((arm, index) => line(arm, index))}
      ${
        difference
          ? html`<div class="arm">
              <span>difference</span>
              ${band(difference.estimate, difference.low, difference.high, -0.5, 0.5, "var(--ink)", 0)}
              <span class="small num"
                >${signed(difference.estimate)} (${signed(difference.low)} to
                ${signed(difference.high)})</span
              >
            </div>`
          : nothing
      }
      <p class="note small">
        ${decision && decision !== "not yet" ? html`<strong>Decision: ${decision}.</strong> ` : html`<strong>Why not yet:</strong> `}${reason.replace(/^not yet: /, "")}
      </p>
    </article>`;
  }

  #stop(name: string): void {
    this.renderRoot.querySelector("bs-reason-dialog")!.ask({
      title: `Stop ${name}?`,
      effect:
        "Devices go back to the champion. The reports so far stay, and the experiment cannot be started again under this name.",
      action: "Stop",
      done: (reason) => void this.operator.stopExperiment(this.library.name, name, reason),
    });
  }
}

function line(arm: ArmState, index: number) {
  const { rate, ci_low, ci_high } = arm;
  const known = typeof rate === "number" && typeof ci_low === "number" && typeof ci_high === "number";
  return html`<div class="arm" data-arm=${arm.name}>
    <span>${arm.name} <span class="small muted">${percent(arm.weight / 65_536)}</span></span>
    ${known ? band(rate, ci_low, ci_high, 0, 1, index === 0 ? "var(--base)" : "var(--stitch)") : html`<span class="muted small">no reports yet</span>`}
    <span class="small num">
      ${known ? html`${percent(rate, 1)} (${percent(ci_low, 0)} to ${percent(ci_high, 0)}), ` : nothing}${count(arm.reports)}
      reports
    </span>
  </div>`;
}

function band(
  middle: number,
  low: number,
  high: number,
  from: number,
  to: number,
  colour: string,
  zero?: number,
) {
  const at = (value: number): number => 100 * Math.min(1, Math.max(0, (value - from) / (to - from)));
  return html`<svg viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
    <rect x="0" y="11" width="100" height="2" fill="var(--line)"></rect>
    ${zero === undefined ? nothing : svg`<rect x=${at(zero) - 0.15} y="2" width="0.3" height="20" fill="var(--line-strong)"></rect>`}
    <rect
      x=${at(low)}
      y="8"
      width=${Math.max(0.5, at(high) - at(low))}
      height="8"
      fill=${colour}
      opacity="0.35"
    ></rect>
    <rect x=${at(middle) - 0.4} y="5" width="0.8" height="14" fill=${colour}></rect>
  </svg>`;
}

function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${percent(Math.abs(value), 1)}`;
}
