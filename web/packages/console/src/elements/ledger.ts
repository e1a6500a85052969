// The privacy ledger: what was spent, what the next release costs, and whether it still fits.

import { clock, sheet, short, type Series } from "@backstitch/ui";
import { css, html } from "lit";
import { customElement } from "lit/decorators.js";
import { ConsoleElement } from "../element.js";
import { seconds, type LedgerRecord, type TaskState } from "../state.js";

const SERIES: Series[] = [
  { label: "Worst-placed device, ever", colour: "--stitch", stepped: true },
  { label: "Promise for a period", colour: "--base", dash: [6, 4] },
];
const ROWS = 8;

@customElement("bs-ledger")
export class Ledger extends ConsoleElement {
  static override styles = [
    sheet,
    css`
      bs-plot {
        min-height: 176px;
      }
    `,
  ];

  override render() {
    const records = this.library.ledger;
    const several = new Set(records.map(({ task }) => task)).size > 1;
    return html`<bs-panel
      heading="Privacy ledger"
      hint=${`The records of ${this.library.title} in the server's one ledger, whose numbers count those of all libraries. Each release is written here before its noise is drawn. A release that does not fit is refused.`}
    >
      ${this.library.tasks.map((task) => this.#task(task))}
      <div class="scroll">
        <table class="small">
          <thead>
            <tr>
              <th class="right">No.</th>
              <th>At</th>
              ${several ? html`<th>Task</th>` : ""}
              <th>Kind</th>
              <th class="right">Round</th>
              <th class="right">ρ</th>
              <th class="right">Σ ρ</th>
              <th>State</th>
              <th>Hash</th>
            </tr>
          </thead>
          <tbody>
            ${records
              .slice(-ROWS)
              .reverse()
              .map((record) => row(record, several))}
          </tbody>
        </table>
        ${records.length ? "" : html`<p class="muted small">Nothing was released yet, so nothing is spent.</p>`}
      </div>
    </bs-panel>`;
  }

  #task(task: TaskState) {
    const own = this.library.ledger.filter((record) => record.task === `${this.library.name}.${task.name}`);
    return html`<p>
        <strong>${task.name}</strong>: the worst-placed device has spent ε ${task.spent_epsilon.toFixed(2)} of
        ${task.budget_epsilon.toFixed(2)} in the last ${task.period_days} days
        <span class="muted num"
          >(ρ ${task.spent_rho.toFixed(4)} of ${task.budget_rho.toFixed(4)}; by the bound that the budget is
          held to, ε ${task.spent_epsilon_bound.toFixed(2)})</span
        >, and since the start at most ε ${task.cumulative_epsilon.toFixed(2)}
        <span class="muted num">(ρ ${task.cumulative_rho.toFixed(4)})</span>. The next release costs each
        device in it ρ ${task.next_release_rho.toFixed(4)} and takes the worst-placed to ε
        ${task.next_release_epsilon.toFixed(2)}; nobody is in more than ${task.max_participations} of them in
        that time${task.noise_band > 1 ? `, and ${task.noise_band} releases in a row share noise` : ""}.
      </p>
      ${task.refused_because ? html`<p class="problem">The next release is refused: ${task.refused_because}.</p>` : ""}
      <bs-plot
        .series=${SERIES}
        .data=${[[0, ...own.map((_, index) => index + 1)], [0, ...own.map(({ cumulative_rho }) => cumulative_rho)], [0, ...own].map(() => task.budget_rho)]}
        .height=${140}
        xLabel="ledger record"
        yLabel="ρ"
        summary=${`Cumulative rho over ${own.length} records: ${task.spent_rho.toFixed(4)} of ${task.budget_rho.toFixed(4)}`}
      ></bs-plot>`;
  }
}

function row(record: LedgerRecord, several: boolean) {
  return html`<tr data-sequence=${record.sequence}>
    <td class="right">${record.sequence}</td>
    <td class="num">${clock(seconds(record.at))}</td>
    ${several ? html`<td>${record.task}</td>` : ""}
    <td>${record.kind}</td>
    <td class="right">${record.round ?? ""}</td>
    <td class="right">${record.rho.toFixed(4)}</td>
    <td class="right">${record.cumulative_rho.toFixed(4)}</td>
    <td>${record.state}</td>
    <td class="mono" title=${record.hash}>${short(record.hash)}</td>
  </tr>`;
}
