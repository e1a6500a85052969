// What was refused, by code: the same codes as in logs, metrics and clients.

import { count, sheet, vars } from "@backstitch/ui";
import { css, html } from "lit";
import { customElement } from "lit/decorators.js";
import { ConsoleElement } from "../element.js";

@customElement("bs-errors")
export class Errors extends ConsoleElement {
  static override styles = [
    sheet,
    css`
      .row {
        display: grid;
        grid-template-columns: minmax(120px, 180px) 1fr 56px;
      }
      .bar {
        height: 8px;
        border-radius: 4px;
        background: var(--sunken);
      }
      .bar div {
        height: 100%;
        width: var(--part);
        min-width: 2px;
        border-radius: 4px;
        background: var(--bad);
      }
      .bar.accepted div {
        background: var(--good);
      }
      .num {
        text-align: end;
      }
    `,
  ];

  override render() {
    const { accepted, rejected } = this.library.contributions;
    const codes = Object.entries(rejected).sort((a, b) => b[1] - a[1]);
    const most = Math.max(1, accepted, ...codes.map(([, n]) => n));
    const line = (name: string, n: number, kind: string) =>
      html`<div class="row" data-code=${name}>
        <span class="mono">${name}</span>
        <div class="bar ${kind}"><div ${vars({ "--part": `${(100 * n) / most}%` })}></div></div>
        <span class="num">${count(n)}</span>
      </div>`;
    return html`<bs-panel
      heading="Contributions by outcome"
      hint=${`To ${this.library.title} alone, in its last 200 rounds. A refused contribution changes nothing and can be sent again once its cause is gone.`}
    >
      <div class="stack tight">
        ${line("accepted", accepted, "accepted")} ${codes.map(([code, n]) => line(code, n, ""))}
        ${codes.length ? "" : html`<p class="small muted">Nothing was refused.</p>`}
      </div>
    </bs-panel>`;
  }
}
