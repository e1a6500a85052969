// Panel: what was measured in the input, against the bounds that patches ask for.

import { decimal, sheet } from "@backstitch/ui";
import { css, html, nothing, svg } from "lit";
import { customElement, property } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { bounds, scaleOf, type Bound } from "../logic/features.js";

@customElement("bs-features")
export class Features extends StudioElement {
  static override styles = [
    sheet,
    css`
      .list {
        display: grid;
        grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr));
        gap: 10px var(--s4);
        min-height: 264px;
        align-content: start;
      }
      /* A value that has no room beside its name goes below it, so that neither is broken. */
      .feature {
        display: flex;
        flex-wrap: wrap;
        align-content: end;
        justify-content: space-between;
        gap: 2px var(--s2);
      }
      .feature .num {
        margin-inline-start: auto;
        text-align: end;
      }
      svg {
        flex: 0 0 100%;
        width: 100%;
        height: 14px;
        overflow: visible;
      }
      .feature .small {
        flex: 0 0 100%;
      }
      .met {
        color: var(--stitch);
      }
    `,
  ];

  @property() step = "5";

  override render() {
    const { model, automatic } = this.studio;
    return html`<bs-panel
      step=${this.step}
      heading="What was noticed"
      hint="Measured beside the model's first layers. Marks are the bounds that patches ask for."
    >
      <div class="list">
        ${
          model && automatic
            ? model.library.features.map((feature) => {
                const value = automatic.features[feature.name];
                if (value === undefined) return nothing;
                const asked = bounds(feature.name, model.library.patches);
                return html`<div
                  class="feature"
                  title=${`${feature.name}: ${value}. ${feature.about} ${feature.source}`}
                >
                  <span>${capital(feature.label)}</span>
                  <span class="num"
                    >${number(value)}${feature.unit ? html` <span class="muted">${unit(feature.unit)}</span>` : nothing}</span
                  >
                  ${bar(value, scaleOf(feature.range), asked)}
                  ${asked.map(
                    (bound) =>
                      html`<span class="small ${bound.met(value) ? "met" : "muted"}">
                        ${bound.met(value) ? "✓" : "·"} ${bound.patch} asks for ${bound.text}
                      </span>`,
                  )}
                </div>`;
              })
            : nothing
        }
      </div>
    </bs-panel>`;
  }
}

function capital(label: string): string {
  return label.charAt(0).toUpperCase() + label.slice(1);
}

function number(value: number): string {
  return decimal(value, Math.abs(value) >= 10 ? 0 : 3);
}

function unit(text: string): string {
  return text === "degrees" ? "°" : (text.split(",")[0] ?? "");
}

function bar(value: number, [low, high]: [number, number], asked: Bound[]) {
  const at = (v: number): number => 100 * Math.min(1, Math.max(0, (v - low) / (high - low)));
  const [from, to] = [at(Math.min(Math.max(0, low), high)), at(value)];
  return html`<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">
    <rect x="0" y="5" width="100" height="4" rx="2" fill="var(--line)"></rect>
    <rect x=${Math.min(from, to)} y="5" width=${Math.abs(to - from)} height="4" fill="var(--base)"></rect>
    ${asked.map(({ value: bound }) => svg`<rect x=${at(bound) - 0.3} y="0" width="0.6" height="14" fill="var(--stitch)"></rect>`)}
  </svg>`;
}
