// Panel: where the time went, and how much may be spent.

import { bytes, milliseconds, sheet } from "@backstitch/ui";
import type { RunResult } from "@backstitch/client";
import { css, html, nothing, svg } from "lit";
import { customElement, property } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { LIMIT_STEPS, limitAt, stepOf } from "../logic/limit.js";
import "./slider.js";

@customElement("bs-cost")
export class CostPanel extends StudioElement {
  static override styles = [
    sheet,
    css`
      svg {
        width: 100%;
        height: 40px;
        overflow: visible;
      }
      dl {
        display: grid;
        grid-template-columns: 12px 1fr auto;
        gap: 4px var(--s2);
        align-items: center;
        min-height: 176px;
        align-content: start;
      }
      dt {
        display: contents;
      }
      dd {
        text-align: end;
        font-variant-numeric: tabular-nums;
      }
      .key {
        width: 12px;
        height: 12px;
        border-radius: 3px;
      }
      .prepare {
        background: var(--line-strong);
        fill: var(--line-strong);
      }
      .segment {
        background: var(--base);
        fill: var(--base);
      }
      .patch {
        background: var(--stitch);
        fill: var(--stitch);
      }
      .total {
        font-size: 22px;
        line-height: 32px;
        font-weight: 650;
      }
      .limit {
        stroke: var(--ink);
        stroke-width: 2;
      }
    `,
  ];

  @property() step = "6";

  override render() {
    const { result, limitMs } = this.studio;
    const step = stepOf(limitMs);
    return html`<bs-panel
      step=${this.step}
      heading="What it cost"
      hint="Measured on this device, for this input."
    >
      ${result ? this.#meter(result) : html`<div class="total">–</div>`}
      <bs-slider
        label="Limit"
        hint="Milliseconds that one answer may take; dear patches are left out"
        .min=${0}
        .max=${LIMIT_STEPS}
        .step=${1}
        .value=${step}
        text=${limitMs === undefined ? "none" : milliseconds(limitMs)}
        @change-value=${(event: CustomEvent<number>) => this.studio.limit(limitAt(event.detail))}
      ></bs-slider>
      <p class="small muted">
        Lower the limit, and patches that do not fit are left out; the table above then says so.
      </p>
    </bs-panel>`;
  }

  #meter({ cost }: RunResult) {
    const stages = cost.stages.filter(({ name }) => name !== "base");
    const spent = stages.reduce((sum, { ms }) => sum + ms, 0);
    const scale = 100 / Math.max(spent, cost.limit_ms ?? 0, 0.001);
    let x = 0;
    return html`
      <div class="row spread">
        <span class="total num">${milliseconds(cost.total_ms)}</span>
        <span class="small muted"
          >${bytes(cost.bytes)} of stitched weights${cost.overlapped ? ", analysis in parallel" : ""}</span
        >
      </div>
      <svg
        viewBox="0 0 100 40"
        preserveAspectRatio="none"
        role="img"
        aria-label=${`${milliseconds(cost.total_ms)} in all`}
      >
        <rect x="0" y="12" width="100" height="16" rx="1" fill="var(--sunken)"></rect>
        ${stages.map(({ name, ms }) => {
          const part = svg`<rect x=${x} y="12" width=${Math.max(0, ms * scale - 0.2)} height="16" class=${kind(name)}><title>${name}</title></rect>`;
          x += ms * scale;
          return part;
        })}
        ${cost.limit_ms === null ? nothing : svg`<line class="limit" vector-effect="non-scaling-stroke" x1=${cost.limit_ms * scale} x2=${cost.limit_ms * scale} y1="4" y2="36"></line>`}
      </svg>
      <dl class="small">
        ${stages.map(
          ({ name, ms }) =>
            html`<dt><span class="key ${kind(name)}"></span><span>${stageName(name)}</span></dt>
              <dd>${milliseconds(ms)}</dd>`,
        )}
      </dl>
    `;
  }
}

function kind(stage: string): "patch" | "segment" | "prepare" {
  return stage.startsWith("patch") ? "patch" : stage.startsWith("segment") ? "segment" : "prepare";
}

function stageName(stage: string): string {
  const [what, which] = stage.split(":");
  const names: Record<string, string> = {
    prepare: "prepare the input",
    analyse: "measure features",
    probe: "ask the probes",
    select: "select patches",
    compile: "compile patches, this once",
  };
  if (which === undefined) return names[stage] ?? stage;
  return what === "patch" ? `patch ${which}` : `base model, part ${Number(which) + 1}`;
}
