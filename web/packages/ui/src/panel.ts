// A titled part of the page; the running stitch under its title is the product's mark.

import { css, html, LitElement, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { sheet } from "./sheet.js";

@customElement("bs-panel")
export class Panel extends LitElement {
  static override styles = [
    sheet,
    css`
      :host {
        height: 100%;
      }
      section {
        height: 100%;
        background: var(--surface);
        border: 1px solid var(--line);
        border-radius: var(--radius);
        box-shadow: var(--shadow);
        padding: var(--s3) 20px 20px;
        display: flex;
        flex-direction: column;
        gap: var(--s3);
      }
      header {
        padding-bottom: 10px;
        background: repeating-linear-gradient(90deg, var(--stitch) 0 8px, transparent 8px 14px) bottom / 100%
          1px no-repeat;
      }
      .row {
        flex-wrap: nowrap;
        align-items: baseline;
      }
      h2 {
        font-size: 16px;
        line-height: 24px;
        font-weight: 650;
      }
      .step {
        color: var(--stitch);
        font-variant-numeric: tabular-nums;
        margin-inline-end: 6px;
      }
      p {
        color: var(--muted);
        font-size: var(--small);
        line-height: 18px;
        margin-top: 2px;
      }
      ::slotted(*) {
        min-width: 0;
      }
      ::slotted([slot="aside"]) {
        min-height: 24px !important;
        padding-block: 0 !important;
      }
      @media (max-width: 480px) {
        section {
          padding-inline: var(--s3);
        }
      }
    `,
  ];

  @property() heading = "";
  @property() step = "";
  @property() hint = "";

  override render() {
    return html`<section aria-label=${this.heading}>
      <header>
        <div class="row spread">
          <h2>${this.step ? html`<span class="step">${this.step}</span>` : nothing}${this.heading}</h2>
          <slot name="aside"></slot>
        </div>
        ${this.hint ? html`<p>${this.hint}</p>` : nothing}
      </header>
      <slot></slot>
    </section>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-panel": Panel;
  }
}
