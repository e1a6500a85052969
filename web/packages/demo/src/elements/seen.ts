// A photograph as the model sees it.

import { css, html, LitElement } from "lit";
import { customElement, property } from "lit/decorators.js";
import { VIEW } from "../logic/photo.js";

@customElement("bs-seen")
export class Seen extends LitElement {
  static override styles = css`
    :host {
      display: block;
      aspect-ratio: 1;
    }
    canvas {
      display: block;
      width: 100%;
      height: 100%;
      border-radius: inherit;
    }
  `;

  @property({ attribute: false }) picture: ImageData | undefined;
  @property() label = "";

  override render() {
    return html`<canvas width=${VIEW} height=${VIEW} role="img" aria-label=${this.label}></canvas>`;
  }

  override updated(): void {
    const context = this.renderRoot.querySelector("canvas")?.getContext("2d");
    if (context && this.picture) context.putImageData(this.picture, 0, 0);
  }
}
