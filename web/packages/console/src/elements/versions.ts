// Versions of every patch: where they came from, what they bring, and which one is live.

import { clock, count, percent, points, sheet, short } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { ConsoleElement } from "../element.js";
import { seconds, type PatchState, type VersionState } from "../state.js";
import "./reason-dialog.js";

const ROWS = 6;
const MOVES = 20;

@customElement("bs-versions-table")
export class VersionsTable extends ConsoleElement {
  static override styles = [
    sheet,
    css`
      .group th {
        color: var(--ink);
        font-size: var(--text);
        padding: var(--s3) 0 var(--s1);
      }
      .group th span {
        font-weight: 400;
        font-size: var(--small);
      }
      .group td {
        border: 0;
        vertical-align: bottom;
      }
      tr:not(.group) td:first-child {
        padding-inline-start: 12px;
      }
      tr.champion td:first-child {
        box-shadow: inset 3px 0 var(--stitch);
      }
      button {
        min-height: 28px;
        padding: 2px 10px;
      }
      td {
        vertical-align: middle;
      }
    `,
  ];

  override render() {
    return html`<bs-panel
        heading="Versions"
        hint="An alias decides what clients run. Moving it takes a reason, and clients follow within seconds."
      >
        <div class="scroll">
          <table class="small">
            <thead>
              <tr>
                <th>Version</th>
                <th>Alias</th>
                <th>From</th>
                <th class="right">Cohort</th>
                <th>Measured</th>
                <th>Made</th>
                <th>Weights</th>
                <th><span class="visually-hidden">Action</span></th>
              </tr>
            </thead>
            ${this.library.patches.map((patch) => this.#patch(patch))}
          </table>
        </div>
        ${this.#moves()}
      </bs-panel>
      <bs-reason-dialog></bs-reason-dialog>`;
  }

  #patch(patch: PatchState) {
    const champion = patch.versions.find(({ aliases }) => aliases.includes("champion"));
    const previous = patch.versions.find(({ aliases }) => aliases.includes("previous"));
    const shown = [...patch.versions].sort((a, b) => b.version - a.version);
    const hidden = shown.filter(({ aliases }, index) => index >= ROWS && aliases.length === 0).length;
    return html`<tbody data-patch=${patch.name}>
      <tr class="group">
        <th scope="rowgroup" colspan="7">
          ${patch.name}
          <span class="muted"
            >${hidden ? `${count(shown.length)} versions; the newest and the named ones are shown` : nothing}</span
          >
        </th>
        <td class="right">
          ${
            previous
              ? html`<button class="rollback" @click=${() => this.#rollback(patch.name, previous)}>
                  Roll back to v${previous.version}
                </button>`
              : nothing
          }
        </td>
      </tr>
      ${shown.filter(({ aliases }, index) => index < ROWS || aliases.length > 0).map((version) => this.#row(patch.name, version, champion))}
    </tbody>`;
  }

  #moves() {
    // `previous` follows the champion by itself, so it would only say everything twice.
    const moves = (this.library.moves ?? []).filter(({ alias }) => alias !== "previous");
    if (moves.length === 0) return nothing;
    return html`<details>
      <summary class="small">Who moved what, and why (${count(moves.length)})</summary>
      <div class="scroll">
        <table class="small" id="moves">
          ${moves
            .slice(-MOVES)
            .reverse()
            .map(
              ({ at, patch, alias, previous, version, actor, reason }) =>
                html`<tr>
                  <td class="num">${clock(seconds(at))}</td>
                  <td>${patch} ${alias}</td>
                  <td class="num">${previous ? `v${previous}` : "–"} → ${version ? `v${version}` : "–"}</td>
                  <td>${actor}</td>
                  <td>${reason}</td>
                </tr>`,
            )}
        </table>
      </div>
    </details>`;
  }

  #row(patch: string, version: VersionState, champion: VersionState | undefined) {
    const { evaluation } = version;
    return html`<tr class=${version === champion ? "champion" : ""} data-version=${version.version}>
      <td class="num">v${version.version}</td>
      <td>
        ${version.aliases.map((alias) => html`<span class="chip ${alias === "champion" ? "on" : ""}">${alias}</span> `)}
      </td>
      <td>${version.source}</td>
      <td class="right">${version.cohort ? count(version.cohort) : "–"}</td>
      <td class="num">
        ${
          evaluation
            ? html`${evaluation.metric} ${percent(evaluation.base, 1)} → ${percent(evaluation.patched, 1)}
                <span class="muted"
                  >(${points(evaluation.patched - evaluation.base)}, n ${count(evaluation.n)})</span
                >${evaluation.passed === false ? html` <span class="chip bad">held back</span>` : ""}`
            : html`<span class="muted">not measured</span>`
        }
      </td>
      <td class="num">${clock(seconds(version.created_at))}</td>
      <td class="mono" title=${version.weights_digest}>${short(version.weights_digest ?? "")}</td>
      <td class="right">
        ${
          version === champion
            ? nothing
            : html`<button
                class="promote"
                aria-label=${`Promote ${patch} v${version.version}`}
                @click=${() => this.#promote(patch, version, champion)}
              >
                Promote
              </button>`
        }
      </td>
    </tr>`;
  }

  #promote(patch: string, { version }: VersionState, champion: VersionState | undefined): void {
    this.#ask({
      title: `Promote ${patch} v${version}?`,
      effect: `Clients that run v${champion?.version ?? "–"} switch to v${version} within seconds. Nothing happens if the champion has moved meanwhile.`,
      action: "Promote",
      done: (reason) =>
        void this.operator.promote(this.library.name, patch, version, champion?.version, reason),
    });
  }

  #rollback(patch: string, previous: VersionState): void {
    this.#ask({
      title: `Roll ${patch} back?`,
      effect: `Clients go back to v${previous.version} within seconds.`,
      action: "Roll back",
      done: (reason) => void this.operator.rollback(this.library.name, patch, reason),
    });
  }

  #ask(question: { title: string; effect: string; action: string; done(reason: string): void }): void {
    this.renderRoot.querySelector("bs-reason-dialog")!.ask(question);
  }
}
