// What all elements of this page share: the studio, and drawing again when it changes.

import { LitElement } from "lit";
import { property } from "lit/decorators.js";
import type { Studio } from "./studio.js";

export class StudioElement extends LitElement {
  @property({ attribute: false }) studio!: Studio;

  readonly #redraw = (): void => this.requestUpdate();

  override connectedCallback(): void {
    super.connectedCallback();
    this.studio.addEventListener("change", this.#redraw);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.studio.removeEventListener("change", this.#redraw);
  }
}
