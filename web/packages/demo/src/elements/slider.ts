// A labelled slider with its value and unit.

import { sheet } from "@backstitch/ui";
import { css, html, LitElement } from "lit";
import { customElement, property } from "lit/decorators.js";

/** Fires `change-value` with the number. */
@customElement("bs-slider")
export class Slider extends LitElement {
  static override styles = [
    sheet,
    css`
      label {
        display: grid;
        grid-template-columns: 72px 1fr 64px;
        align-items: center;
        gap: var(--s2);
      }
      output {
        text-align: end;
        font-variant-numeric: tabular-nums;
      }
    `,
  ];

  @property() label = "";
  @property() hint = "";
  @property({ type: Number }) min = 0;
  @property({ type: Number }) max = 1;
  @property({ type: Number }) step = 0.01;
  @property({ type: Number }) value = 0;
  @property() text = "";

  override render() {
    return html`<label title=${this.hint}>
      <span>${this.label}</span>
      <input
        type="range"
        min=${this.min}
        max=${this.max}
        step=${this.step}
        .value=${String(this.value)}
        aria-valuetext=${this.text}
        @input=${this.#input}
      />
      <output>${this.text}</output>
    </label>`;
  }

  #input = (event: Event): void => {
    const detail = Number((event.target as HTMLInputElement).value);
    this.dispatchEvent(new CustomEvent("change-value", { detail }));
  };
}
