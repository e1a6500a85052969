// Panel: every patch, what speaks for it, what it costs, and why it was stitched or not.

import { bytes, milliseconds, points, sheet } from "@backstitch/ui";
import type { Candidate, FeatureVector } from "@backstitch/client";
import { css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import type { Override } from "../logic/whatif.js";

@customElement("bs-decision")
export class Decision extends StudioElement {
  static override styles = [
    sheet,
    css`
      .scroll {
        min-height: 318px;
      }
      td:first-child {
        padding-inline-end: var(--s3);
      }
      tr.chosen td:first-child {
        box-shadow: inset 3px 0 var(--stitch);
        padding-inline-start: 12px;
      }
      tr:not(.chosen) td:first-child {
        padding-inline-start: 12px;
      }
      .name {
        font-weight: 600;
      }
      .reason {
        margin-top: 4px;
      }
      select {
        min-height: 32px;
        padding: 2px 6px;
      }
      .line {
        display: flex;
        gap: var(--s2);
        align-items: center;
        flex-wrap: wrap;
      }
      @media (max-width: 560px) {
        thead {
          position: absolute;
          clip-path: inset(50%);
        }
        tr {
          display: grid;
          grid-template-columns: 1fr 1fr 1fr;
        }
        td:first-child {
          grid-column: 1 / -1;
        }
        tr.chosen {
          box-shadow: inset 3px 0 var(--stitch);
        }
        td[data-label]::before {
          content: attr(data-label);
          display: block;
          font-size: var(--small);
          color: var(--muted);
        }
        td:not(:first-child) {
          border: 0;
          padding-top: 0;
          text-align: start;
          padding-inline-start: 12px;
        }
      }
    `,
  ];

  @property() step = "3";

  override render() {
    const { automatic, result, overrides } = this.studio;
    const overridden = [...overrides.values()].some((value) => value !== "auto");
    return html`<bs-panel
      step=${this.step}
      heading="Which patches, and why"
      hint="The best set within the cost limit, decided anew for every input."
    >
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th>Patch</th>
              <th class="right" title="Expected change of the share of right answers, in percentage points">
                Gain
              </th>
              <th class="right" title="Time and bytes of weights">Cost</th>
              <th>What if</th>
            </tr>
          </thead>
          <tbody>
            ${(automatic?.candidates ?? []).map((candidate) =>
              this.#row(
                candidate,
                result?.candidates.find(({ name }) => name === candidate.name) ?? candidate,
              ),
            )}
          </tbody>
        </table>
      </div>
      ${
        overridden
          ? html`<div class="row small">
              <span>You changed the choice.</span>
              <button class="quiet" @click=${this.#reset}>Back to automatic</button>
            </div>`
          : nothing
      }
    </bs-panel>`;
  }

  #row(automatic: Candidate, shown: Candidate) {
    const override = this.studio.overrides.get(shown.name) ?? "auto";
    return html`<tr class=${shown.chosen ? "chosen" : ""} data-patch=${shown.name}>
      <td>
        <div class="line">
          <span class="name">${shown.name}</span>
          <span class="chip ${shown.chosen ? "on" : ""}">${shown.chosen ? "stitched" : "not stitched"}</span>
        </div>
        <div class="reason" title=${exact(automatic, this.studio.automatic?.features ?? {})}>
          ${override === "auto" ? sentence(automatic.reason) : forced(override, automatic)}
        </div>
        <div class="small muted num">
          v${shown.version}${shown.personal ? ", yours" : ""} · touches ${automatic.sites.join(", ")} ·
          ${automatic.reason_code === "conflict" ? "conflicts with a chosen patch" : "no conflict"}
        </div>
      </td>
      <td class="right" data-label="Gain" title="Expected change of the share of right answers">
        ${automatic.gain === null ? html`<span title="A feature is missing">unknown</span>` : points(automatic.gain)}
      </td>
      <td class="right" data-label="Cost">
        ${milliseconds(automatic.cost_ms)}
        <div class="small muted">
          ${automatic.cost_measured ? "" : "estimated · "}${bytes(automatic.cost_bytes)}
        </div>
      </td>
      <td data-label="What if">
        <select
          aria-label=${`What if: ${shown.name}`}
          @change=${(event: Event) => this.#override(shown.name, event)}
        >
          ${(["auto", "on", "off"] as const).map((value) => html`<option value=${value} ?selected=${value === override}>${value}</option>`)}
        </select>
      </td>
    </tr>`;
  }

  #override(name: string, event: Event): void {
    this.studio.override(name, (event.target as HTMLSelectElement).value as Override);
  }

  #reset = (): void => {
    this.studio.overrides.clear();
    void this.studio.rerun();
  };
}

/** The numbers behind the sentence, under the names that manifests use. */
function exact({ requirements, gain }: Candidate, features: FeatureVector): string {
  const found = requirements.map(
    ({ feature, at_least, at_most }) =>
      `${feature} = ${features[feature] ?? "not measured"}${at_least === undefined ? "" : `, at least ${at_least}`}${at_most === undefined ? "" : `, at most ${at_most}`}`,
  );
  return [...found, `expected gain = ${gain ?? "unknown"}`].join("; ");
}

/** Starts with a capital, unless it starts with a feature's name. */
function sentence(reason: string): string {
  return /^[\w-]+\./.test(reason) ? reason : reason.charAt(0).toUpperCase() + reason.slice(1);
}

function forced(override: Override, automatic: Candidate): string {
  const usual = automatic.chosen ? "stitch it" : "leave it out";
  return `You switched it ${override}. By itself Backstitch would ${usual}: ${automatic.reason}`;
}
