// Panel: the base model's answer and the stitched one, side by side.

import { percent, sheet } from "@backstitch/ui";
import type { RunResult } from "@backstitch/client";
import { css, html, nothing, svg } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { softmax } from "../logic/softmax.js";

const ROWS = 5;

@customElement("bs-result")
export class Result extends StudioElement {
  static override styles = [
    sheet,
    css`
      .answers {
        display: grid;
        grid-template-columns: 1fr 1fr;
        gap: var(--s2);
      }
      .answer {
        border-radius: var(--radius-small);
        padding: var(--s2) 12px;
        min-height: 104px;
        container-type: inline-size;
        display: grid;
        align-content: start;
      }
      .base {
        background: var(--base-soft);
        border: 1px solid var(--base);
      }
      .stitched {
        background: var(--stitch-soft);
        border: 1px dashed var(--stitch);
      }
      .answer strong {
        font-size: clamp(13px, 15cqi, 18px);
        line-height: 24px;
        overflow-wrap: anywhere;
      }
      .base .small,
      .base .num {
        color: var(--base);
      }
      .stitched .small,
      .stitched .num {
        color: var(--stitch);
      }
      .sentence {
        min-height: 63px;
      }
      .bars {
        display: grid;
        gap: var(--s2);
        min-height: 190px;
        align-content: start;
      }
      .class {
        display: grid;
        grid-template-columns: minmax(72px, 96px) 1fr 44px;
        align-items: center;
        column-gap: var(--s2);
      }
      svg {
        width: 100%;
        height: 22px;
      }
      .class .num {
        display: grid;
        text-align: end;
        font-size: 11px;
        line-height: 13px;
      }
      .b {
        color: var(--base);
      }
      .s {
        color: var(--stitch);
      }
    `,
  ];

  override render() {
    const { result, model, truth, labels } = this.studio;
    return html`<bs-panel
      step="2"
      heading="What it says"
      hint="On the left without patches, on the right with those that were stitched."
    >
      ${
        result?.base_output && model
          ? labels.length
            ? this.#answer(result, result.base_output, labels, truth)
            : scored(result, result.base_output)
          : html`<div class="answers">
                <div class="answer base"></div>
                <div class="answer stitched"></div>
              </div>
              <div class="bars"></div>`
      }
    </bs-panel>`;
  }

  #answer(result: RunResult, baseOutput: Float32Array, labels: string[], truth: number | undefined) {
    const [base, stitched] = [softmax(baseOutput), softmax(result.output)];
    const [baseBest, stitchedBest] = [best(base), best(stitched)];
    const rows = labels.map((_, index) => index).sort((a, b) => weight(b) - weight(a));
    function weight(index: number): number {
      return Math.max(base[index] ?? 0, stitched[index] ?? 0);
    }
    const right = (index: number) =>
      truth === undefined
        ? nothing
        : index === truth
          ? html`<span class="small">✓ right</span>`
          : html`<span class="small">✗ wrong</span>`;
    return html`
      <div class="answers" aria-live="polite">
        <div class="answer base" id="base-answer">
          <span class="small">Base model</span>
          <strong>${labels[baseBest]}</strong>
          <span class="num">${percent(base[baseBest] ?? 0)} sure</span>
          ${right(baseBest)}
        </div>
        <div class="answer stitched" id="stitched-answer">
          <span class="small">${result.patches.length ? "Stitched" : "Nothing stitched"}</span>
          <strong>${labels[stitchedBest]}</strong>
          <span class="num">${percent(stitched[stitchedBest] ?? 0)} sure</span>
          ${right(stitchedBest)}
        </div>
      </div>
      <p class="sentence" id="verdict">
        ${verdict(result, labels[baseBest] ?? "", labels[stitchedBest] ?? "")}
      </p>
      <div class="bars">
        ${rows.slice(0, ROWS).map((index) => {
          const [b, s] = [base[index] ?? 0, stitched[index] ?? 0];
          return html`<div class="class">
            <span class="small"
              >${labels[index]}${index === truth ? html` <span title="The right answer">✓</span>` : nothing}</span
            >
            ${bars(b, s)}
            <span class="num"><span class="b">${percent(b)}</span><span class="s">${percent(s)}</span></span>
          </div>`;
        })}
      </div>
    `;
  }
}

/** Where there are no classes: how much the newest moment stands out. */
function scored(result: RunResult, baseOutput: Float32Array) {
  // Adding zero takes the sign of a zero away.
  const shown = (score = NaN): string => (Math.round(100 * score) / 100 + 0).toFixed(2);
  const [base, stitched] = [shown(baseOutput[0]), shown(result.output[0])];
  const names = result.patches.map(({ name }) => name).join(", ");
  return html`<div class="answers">
      <div class="answer base" id="base-answer">
        <span class="small">Base model</span>
        <strong class="num">${base}</strong>
        <span class="small">score of this moment</span>
      </div>
      <div class="answer stitched" id="stitched-answer">
        <span class="small">${names ? "Stitched" : "Nothing stitched"}</span>
        <strong class="num">${stitched}</strong>
        <span class="small">score of this moment</span>
      </div>
    </div>
    <p class="sentence" id="verdict">
      ${
        names
          ? `${names} was stitched: it takes the place of the base model's score, so only the shapes of the two compare, not their size.`
          : "No patch was stitched: the base model's score stands."
      }
    </p>`;
}

function verdict(result: RunResult, base: string, stitched: string): string {
  const names = result.patches.map(({ name }) => name);
  if (names.length === 0) return "No patch was stitched: the base model's answer stands.";
  const who =
    names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)} were` : `${names[0]} was`;
  return base === stitched
    ? `${who} stitched; the answer stays ${base}.`
    : `${who} stitched: the answer moved from ${base} to ${stitched}.`;
}

function best(values: number[]): number {
  return values.indexOf(Math.max(...values));
}

function bars(base: number, stitched: number) {
  const bar = (y: number, share: number, colour: string) =>
    svg`<rect x="0" y=${y} width="100" height="8" fill="var(--sunken)"></rect><rect x="0" y=${y} width=${Math.max(100 * share, 0.6)} height="8" fill=${colour}></rect>`;
  return html`<svg viewBox="0 0 100 22" preserveAspectRatio="none" aria-hidden="true">
    ${bar(1, base, "var(--base)")} ${bar(13, stitched, "var(--stitch)")}
  </svg>`;
}
