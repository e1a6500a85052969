// The console: one screen, from the rounds to the evidence.

import { bytes, count, duration, mark, sheet, short } from "@backstitch/ui";
import { css, html, LitElement, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import type { Operator } from "../operator.js";
import type { ConsoleState, LibraryState } from "../state.js";
import "./errors.js";
import "./experiments.js";
import "./ledger.js";
import "./rounds.js";
import "./sign-in.js";
import "./versions.js";

@customElement("bs-console")
export class Console extends LitElement {
  static override styles = [
    sheet,
    css`
      :host {
        max-width: 1440px;
        margin: 0 auto;
        padding: var(--s3) var(--s4) var(--s6);
      }
      header {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: var(--s2) var(--s3);
        min-height: 48px;
      }
      h1 {
        font-size: 22px;
        line-height: 32px;
        display: flex;
        align-items: center;
        gap: 10px;
      }
      .grow {
        flex: 1 1 200px;
      }
      main {
        display: grid;
        grid-template-columns: repeat(12, minmax(0, 1fr));
        gap: var(--s3);
        margin-top: var(--s2);
      }
      main > * {
        grid-column: span 12;
      }
      .facts {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(160px, 1fr));
        background: var(--surface);
        border: 1px solid var(--line);
        border-radius: var(--radius);
        box-shadow: var(--shadow);
      }
      .facts div {
        padding: 12px 20px;
        border-inline-start: 1px solid var(--line);
        margin-inline-start: -1px;
      }
      .facts dd:not(.small) {
        font-size: 22px;
        line-height: 32px;
        font-weight: 650;
        font-variant-numeric: tabular-nums;
      }
      .dot {
        width: 8px;
        height: 8px;
        border-radius: 50%;
        background: var(--line-strong);
      }
      .dot.live {
        background: var(--good);
      }
      @media (min-width: 1000px) {
        .c7 {
          grid-column: span 7;
        }
        .c5 {
          grid-column: span 5;
        }
      }
      @media (max-width: 480px) {
        :host {
          padding-inline: 12px;
        }
      }
    `,
  ];

  @property({ attribute: false }) operator!: Operator;
  /** The library that the address names, so that it is still shown after a reload and can be linked to. */
  @state() private chosen: string | null = new URLSearchParams(location.search).get("library");

  readonly #redraw = (): void => this.requestUpdate();

  override connectedCallback(): void {
    super.connectedCallback();
    this.operator.addEventListener("change", this.#redraw);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.operator.removeEventListener("change", this.#redraw);
  }

  override render() {
    const { operator } = this;
    const { state: now, failure, notice, live } = operator;
    return html`
      <header>
        <h1>${mark} Backstitch console</h1>
        <span class="row small muted grow" role="status">
          ${now ? html`<span class="dot ${live ? "live" : ""}"></span>${live ? "live" : "asking every 2 s"} · server ${now.server.version}, up ${duration(now.server.uptime_s)}` : nothing}
        </span>
        ${operator.signedIn ? html`<button class="quiet" @click=${() => operator.signOut()}>Sign out</button>` : nothing}
        <bs-theme></bs-theme>
      </header>
      ${failure ? html`<div class="problem" role="alert"><strong>${failure.message}</strong> ${failure.hint} <span class="mono muted">${failure.code}</span></div>` : nothing}
      ${notice ? html`<div class="note" role="status" id="notice">${notice}</div>` : nothing}
      ${operator.signedIn ? (now ? this.#state(now) : nothing) : html`<bs-sign-in .operator=${operator}></bs-sign-in>`}
    `;
  }

  #choose(name: string): void {
    this.chosen = name;
    history.replaceState(null, "", `?${new URLSearchParams({ library: name })}`);
  }

  #state(now: ConsoleState) {
    // Before anything is chosen, a library that learns has the most to show.
    const library =
      now.libraries.find(({ name }) => name === this.chosen) ??
      now.libraries.find(({ tasks }) => tasks.length > 0) ??
      now.libraries[0];
    if (!library)
      return html`<p class="note">
        No library is registered yet. Add one with <span class="mono">backstitch library import</span>.
      </p>`;
    const { operator } = this;
    return html`<main>
      ${
        now.libraries.length > 1
          ? html`<div class="row" role="group" aria-label="Library">
              ${now.libraries.map(({ name, title }) => html`<button aria-pressed=${name === library.name} @click=${() => this.#choose(name)}>${title}</button>`)}
            </div>`
          : nothing
      }
      ${this.#facts(library)}
      <bs-rounds class="c7" .operator=${operator} .library=${library}></bs-rounds>
      <bs-ledger class="c5" .operator=${operator} .library=${library}></bs-ledger>
      <bs-versions-table .operator=${operator} .library=${library}></bs-versions-table>
      <bs-experiments class="c7" .operator=${operator} .library=${library}></bs-experiments>
      <bs-errors class="c5" .operator=${operator} .library=${library}></bs-errors>
    </main>`;
  }

  #facts(library: LibraryState) {
    const { accepted, rejected } = library.contributions;
    const refused = Object.values(rejected).reduce((sum, n) => sum + n, 0);
    const task = library.tasks[0];
    const facts: [string, string, string][] = [
      ["Library", library.title, `primary ${short(library.primary.digest)}, ${bytes(library.primary.bytes)}`],
      ["Catalog", `version ${library.catalog_version}`, "signed, what every client sees"],
      ["Contributions", count(accepted), `to this library accepted; ${count(refused)} rejected`],
      ...(task
        ? ([
            ["Open round", `${task.round}`, `${task.received} of ${task.goal} contributions`],
            [
              "Privacy spent",
              `ε ${task.spent_epsilon.toFixed(2)}`,
              `of ${task.budget_epsilon} at δ = ${task.delta.toExponential(0)}`,
            ],
          ] as [string, string, string][])
        : []),
    ];
    return html`<dl class="facts">
      ${facts.map(
        ([term, value, more]) =>
          html`<div>
            <dt class="small muted">${term}</dt>
            <dd>${value}</dd>
            <dd class="small muted facts-more">${more}</dd>
          </div>`,
      )}
    </dl>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-console": Console;
  }
}
