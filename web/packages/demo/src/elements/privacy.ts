// Panel: what others can have learnt about this device, in odds.

import { clock, sheet } from "@backstitch/ui";
import type { Reason, TaskPrivacy } from "@backstitch/client";
import { css, html, nothing, svg } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { arcPath } from "../logic/arc.js";
import { oddsSentence, wholePercent } from "../logic/odds.js";

@customElement("bs-privacy")
export class PrivacyPanel extends StudioElement {
  static override styles = [
    sheet,
    css`
      .gauge {
        display: grid;
        justify-items: center;
        min-height: 150px;
      }
      svg {
        width: min(100%, 260px);
        height: auto;
      }
      path {
        fill: none;
        stroke-width: 14;
        transition: d var(--motion);
      }
      .whole {
        stroke: var(--line);
      }
      .promise {
        stroke: var(--stitch-soft);
      }
      .now {
        stroke: var(--stitch);
      }
      text {
        fill: var(--ink);
        text-anchor: middle;
        font: 650 28px var(--font);
      }
      text.end {
        font: 400 11px var(--font);
        fill: var(--muted);
      }
      table {
        font-size: var(--small);
      }
      td {
        padding-block: 4px;
      }
      .sentence {
        min-height: 42px;
      }
    `,
  ];

  override render() {
    const { model, sharing } = this.studio;
    const task = sharing.task;
    return html`<bs-panel
      step="9"
      heading="Your privacy"
      hint="Kept on this device; it blocks a contribution that would break the promise."
    >
      <div class="gauge">${gauge(model?.privacy.ever?.certainty ?? 0.5, task)}</div>
      <p class="sentence" id="odds">${model ? oddsSentence(model.privacy.ever) : nothing}</p>
      ${model && !model.privacy.ledger.intact ? html`<p class="small" id="closed" role="status">${closed(model.privacy.ledger.problem)}</p>` : nothing}
      ${task ? this.#numbers(task) : nothing} ${this.#history()}
      <div class="row">
        <button ?disabled=${!model?.privacy.consent || sharing.busy} @click=${() => sharing.consent(false)}>
          Pause contributing
        </button>
        <button class="danger" ?disabled=${!model || sharing.busy} @click=${this.#ask}>Forget me</button>
      </div>
      <dialog aria-labelledby="forget-title">
        <div class="stack">
          <h3 id="forget-title">
            Delete your examples, your trained weights, your consent, unused tokens and downloaded models from
            this device?
          </h3>
          <p>
            What was already contributed cannot be called back: it is a sum with noise. The ledger stays, so
            that the promise holds.
          </p>
          <div class="row">
            <button class="danger" @click=${this.#forget}>Delete</button>
            <button @click=${() => this.#dialog.close()}>Keep</button>
          </div>
        </div>
      </dialog>
    </bs-panel>`;
  }

  #numbers(task: TaskPrivacy) {
    const rows: [string, string, string][] = [
      [
        "Contributions in this period",
        `${task.participations} of at most ${task.max_participations}`,
        `within ${task.period_days} days`,
      ],
      [
        "Spent in this period",
        `ε ${task.spent_epsilon.toFixed(2)}`,
        `ρ ${task.spent_rho.toFixed(4)}, at δ = ${task.delta.toExponential(0)}`,
      ],
      [
        "After one more",
        `ε ${task.next_epsilon.toFixed(2)}`,
        `certainty at most ${wholePercent(1 / (1 + Math.exp(-task.next_epsilon)))} %`,
      ],
      [
        "The promise",
        `ε ${task.epsilon.toFixed(2)}`,
        `in any ${task.period_days} days, certainty at most ${wholePercent(task.certainty_limit)} %`,
      ],
      ...this.#reports(),
      ...this.#ever(),
      ["Noise", `${task.noise_multiplier.toFixed(2)} × clip norm`, `clip norm ${task.clip_norm}`],
    ];
    return html`<details>
      <summary class="small">The numbers behind it</summary>
      <table>
        ${rows.map(
          ([what, value, more]) =>
            html`<tr>
              <td>${what}</td>
              <td class="right">
                ${value}
                <div class="muted">${more}</div>
              </td>
            </tr>`,
        )}
      </table>
    </details>`;
  }

  /** Experiments ask for one noisy bit each; all of them together have a promise of their own. */
  #reports(): [string, string, string][] {
    const reports = this.studio.model?.privacy.reports;
    if (!reports) return [];
    return [
      [
        "Reports of experiments",
        `ε ${reports.spent_epsilon.toFixed(2)} of ${reports.epsilon.toFixed(2)}`,
        `within ${reports.period_days} days, certainty at most ${wholePercent(reports.certainty)} %`,
      ],
    ];
  }

  /** The promise is for a period; what was learnt stays learnt. */
  #ever(): [string, string, string][] {
    const ever = this.studio.model?.privacy.ever;
    if (!ever) return [];
    return [
      [
        "Since the first",
        `ε ${ever.epsilon.toFixed(2)}`,
        `${ever.contributions} contributions, ${ever.reports} reports`,
      ],
    ];
  }

  #history() {
    const { history } = this.studio.sharing;
    return html`<details ?open=${history.length > 0}>
      <summary class="small">What was sent, and when (${history.length})</summary>
      ${
        history.length
          ? html`<table>
              ${history.slice(0, 6).map(
                ({ kind, at, name, round, rho }) =>
                  html`<tr>
                    <td class="num">${clock(at)}</td>
                    <td>${kind === "report" ? `One noisy bit for ${name}` : `${name}, round ${round}`}</td>
                    <td class="right">ρ ${rho.toFixed(3)}</td>
                  </tr>`,
              )}
            </table>`
          : html`<p class="small muted">Nothing was ever sent from here.</p>`
      }
    </details>`;
  }

  get #dialog(): HTMLDialogElement {
    return this.renderRoot.querySelector("dialog")!;
  }

  #ask = (): void => this.#dialog.showModal();

  #forget = (): void => {
    this.#dialog.close();
    void this.studio.sharing.forget();
  };
}

/** The device fails closed, and says so. */
function closed(problem: Reason | null): string {
  return `Contributing is closed on this device. ${problem?.message ?? ""}${problem?.hint ? `; ${problem.hint}` : ""}.`;
}

/** A half circle from 50 % to 100 %: what all that was sent may have told, before the promise for one period. */
function gauge(now: number, task: TaskPrivacy | undefined) {
  const promise = task?.certainty_limit ?? 0.5;
  const share = (certainty: number): number => Math.min(1, Math.max(0, (certainty - 0.5) * 2));
  return html`<svg
    viewBox="0 0 220 132"
    role="img"
    aria-label=${`An observer's certainty: at most ${wholePercent(now)} percent now, the promise for ${task?.period_days ?? 0} days is at most ${wholePercent(promise)} percent`}
  >
    ${svg`<path class="whole" d=${arcPath(110, 108, 88, 1)}></path>
      <path class="promise" d=${arcPath(110, 108, 88, share(promise))}></path>
      <path class="now" d=${arcPath(110, 108, 88, share(now))}></path>`}
    <text x="110" y="98">${wholePercent(now)} %</text>
    <text class="end" x="110" y="116">an observer's certainty</text>
    <text class="end" x="22" y="128">50 %</text>
    <text class="end" x="198" y="128">100 %</text>
  </svg>`;
}
