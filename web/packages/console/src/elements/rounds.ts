// Rounds: the cohort that is filling up, and those that were released.

import { clock, count, duration, sheet, vars } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { ConsoleElement } from "../element.js";
import { seconds, type RoundState, type TaskState } from "../state.js";

const ROWS = 8;
const COLUMNS = 40;

@customElement("bs-rounds")
export class Rounds extends ConsoleElement {
  static override styles = [
    sheet,
    css`
      .cohort {
        height: 10px;
        border-radius: 5px;
        background: var(--sunken);
        border: 1px solid var(--line);
        overflow: hidden;
      }
      .cohort div {
        height: 100%;
        width: var(--full);
        background: var(--stitch);
        transition: width var(--motion);
      }
      .timeline {
        display: flex;
        align-items: end;
        gap: 3px;
        height: 56px;
        border-bottom: 1px solid var(--line);
      }
      .timeline div {
        flex: 1 1 0;
        max-width: 24px;
        height: var(--tall);
        min-height: 2px;
        background: var(--base);
        border-radius: 2px 2px 0 0;
      }
      .timeline .open {
        background: var(--stitch-soft);
        border: 1px dashed var(--stitch);
        border-bottom: 0;
      }
    `,
  ];

  override render() {
    return html`<bs-panel
      heading="Rounds"
      hint="A round is released when its cohort is complete, never before."
    >
      ${
        this.library.tasks.length === 0
          ? html`<p class="muted">
              No patch of this library learns from devices: its <span class="mono">library.json</span> names
              no task.
            </p>`
          : this.library.tasks.map((task) => this.#task(task))
      }
    </bs-panel>`;
  }

  #task(task: TaskState) {
    const recent = task.rounds.slice(-COLUMNS);
    const most = Math.max(task.goal, ...recent.map(({ accepted }) => accepted));
    return html`<div class="stack tight" data-task=${task.name}>
      <div class="row spread">
        <strong>${task.name}</strong>
        <span class="num"
          >round ${task.round}: <strong id="received">${task.received}</strong> of ${task.goal}
          contributions</span
        >
      </div>
      <div
        class="cohort"
        role="progressbar"
        aria-label="Cohort"
        aria-valuemin="0"
        aria-valuemax=${task.goal}
        aria-valuenow=${task.received}
      >
        <div ${vars({ "--full": `${Math.min(100, (100 * task.received) / task.goal)}%` })}></div>
      </div>
      ${task.open ? nothing : html`<p class="problem">The round takes no contributions: ${task.closed_reason ?? "no reason was given"}.</p>`}
      <p class="small muted num">
        Clip norm ${task.clip_norm} · noise ${task.noise_multiplier.toFixed(2)} × clip norm · at most
        ${task.max_participations} contributions of one device in ${task.period_days} days
      </p>
      <div
        class="timeline"
        role="img"
        aria-label=${`Accepted contributions of the last ${recent.length} rounds`}
      >
        ${recent.map(
          (round) =>
            html`<div
              class=${round.released_at === null ? "open" : ""}
              title=${`Round ${round.round}: ${round.accepted} accepted`}
              ${vars({ "--tall": `${(100 * round.accepted) / most}%` })}
            ></div>`,
        )}
      </div>
      <div class="scroll">
        <table class="small">
          <thead>
            <tr>
              <th>Round</th>
              <th>Opened</th>
              <th>Took</th>
              <th class="right">Accepted</th>
              <th>Rejected</th>
              <th class="right" title="L2 norm of the published change, noise included">Change</th>
              <th title="Means over the round's devices, −1 to 1, under the same noise as the change">
                Measured
              </th>
              <th class="right">Became</th>
            </tr>
          </thead>
          <tbody>
            ${recent.slice(-ROWS).reverse().map(row)}
          </tbody>
        </table>
      </div>
    </div>`;
  }
}

function row(round: RoundState) {
  const { released_at, opened_at } = round;
  return html`<tr data-round=${round.round}>
    <td class="num">${round.round}</td>
    <td class="num">${clock(seconds(opened_at))}</td>
    <td class="num">
      ${released_at === null ? html`<span class="chip on">open</span>` : duration(seconds(released_at) - seconds(opened_at))}
    </td>
    <td class="right">${count(round.accepted)}</td>
    <td>
      ${Object.entries(round.rejected).map(([code, n]) => html`<span class="chip bad">${code} ${n}</span> `)}
      ${Object.keys(round.rejected).length ? nothing : html`<span class="muted">none</span>`}
    </td>
    <td class="right">
      ${round.update_norm === null || round.update_norm === undefined ? "–" : round.update_norm.toFixed(3)}
    </td>
    <td class="num">
      ${round.measured?.length ? round.measured.map(({ kind, value, deviation }) => html`<span>${kind} ${value.toFixed(2)} ± ${deviation.toFixed(2)}</span> `) : "–"}
    </td>
    <td class="right">${round.version ? `v${round.version}` : "–"}</td>
  </tr>`;
}
