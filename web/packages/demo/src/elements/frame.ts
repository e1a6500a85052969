// The bytes of a contribution: every one of them, and what they mean.

import { bytes, count, sheet } from "@backstitch/ui";
import type { Preview } from "@backstitch/client";
import { css, html, LitElement, nothing, svg } from "lit";
import { customElement, property } from "lit/decorators.js";
import { frameParts, hexRows } from "../logic/hex.js";

const VALUES_SHOWN = 40;

@customElement("bs-frame")
export class Frame extends LitElement {
  static override styles = [
    sheet,
    css`
      h2 {
        font-size: 16px;
      }
      .parts {
        display: grid;
        grid-template-columns: minmax(0, 3fr) minmax(0, 2fr);
        gap: var(--s3);
      }
      @media (max-width: 760px) {
        .parts {
          grid-template-columns: minmax(0, 1fr);
        }
      }
      .hex {
        max-height: 320px;
        overflow: auto;
        background: var(--sunken);
        border-radius: var(--radius-small);
        padding: var(--s2);
        font: 11px/18px var(--mono);
      }
      .line {
        display: flex;
        gap: 6px;
        white-space: nowrap;
      }
      .offset {
        color: var(--muted);
        margin-inline-end: 6px;
      }
      .base {
        color: var(--base);
      }
      .once {
        color: var(--good);
      }
      .values {
        color: var(--stitch);
      }
      .magic,
      .count {
        color: var(--muted);
      }
      .legend {
        display: grid;
        gap: 2px;
      }
      svg {
        width: 100%;
        height: 56px;
        background: var(--sunken);
        border-radius: var(--radius-small);
      }
    `,
  ];

  @property({ attribute: false }) preview!: Preview;

  override render() {
    const { frame, header_bytes, values, norm, clip_norm, clipped, parameters } = this.preview;
    const parts = frameParts(frame.length, header_bytes);
    return html`<div class="stack tight" id="frame">
      <h2>Everything that one contribution contains</h2>
      <p>
        <strong>${bytes(frame.length)}</strong>, ${count(parameters)} numbers. Your update has the norm
        <strong class="num">${norm.toFixed(3)}</strong>; it may have at most ${clip_norm},
        ${clipped ? "so it is scaled down to that" : "so it stays as it is"}.
      </p>
      <div class="parts">
        <div class="hex" tabindex="0" role="region" aria-label="All bytes, in hexadecimal">
          ${hexRows(frame, parts).map(
            ({ offset, cells }) =>
              html`<div class="line">
                <span class="offset">${offset}</span
                >${cells.map(({ text, part }) => html`<span class=${part}>${text}</span>`)}
              </div>`,
          )}
        </div>
        <div class="stack tight">
          <div class="legend small">
            ${parts.map(({ name, from, to, about }) => html`<span class=${name}>bytes ${from}–${to - 1}: ${about}</span>`)}
          </div>
          <h3>How the numbers are spread</h3>
          ${histogram(values)}
          <h3>The first of them</h3>
          <p class="mono">
            ${[...values.slice(0, VALUES_SHOWN)].join(" ")}${values.length > VALUES_SHOWN ? " …" : nothing}
          </p>
        </div>
      </div>
    </div>`;
  }
}

const BINS = 41;

function histogram(values: Int16Array) {
  const largest = Math.max(1, ...Array.from(values, Math.abs));
  const bins = new Array<number>(BINS).fill(0);
  for (const value of values) bins[Math.round(((value / largest + 1) / 2) * (BINS - 1))]! += 1;
  const most = Math.max(...bins);
  return html`<svg
    viewBox="0 0 ${BINS} 56"
    preserveAspectRatio="none"
    role="img"
    aria-label=${`Distribution of the numbers, from -${largest} to ${largest}`}
  >
    ${bins.map((n, x) => {
      const height = n ? Math.max(1.5, (50 * Math.sqrt(n)) / Math.sqrt(most)) : 0;
      return svg`<rect x=${x + 0.1} y=${54 - height} width="0.8" height=${height} fill="var(--stitch)"></rect>`;
    })}
  </svg>`;
}
