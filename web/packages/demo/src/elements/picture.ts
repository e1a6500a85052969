// A small picture, drawn pixel by pixel.

import { css, html, LitElement } from "lit";
import { customElement, property } from "lit/decorators.js";
import { pixels, SIDE, type Picture } from "../logic/picture.js";

@customElement("bs-picture")
export class PictureView extends LitElement {
  static override styles = css`
    :host {
      display: block;
      aspect-ratio: 1;
      background: #000;
      border-radius: 6px;
      overflow: hidden;
    }
    canvas {
      display: block;
      width: 100%;
      height: 100%;
      image-rendering: pixelated;
    }
  `;

  @property({ attribute: false }) picture: Picture | undefined;
  @property() alt = "";

  override render() {
    return html`<canvas width=${SIDE} height=${SIDE} role="img" aria-label=${this.alt}></canvas>`;
  }

  override updated(): void {
    const context = this.renderRoot.querySelector("canvas")?.getContext("2d");
    if (context && this.picture) context.putImageData(pixels(this.picture), 0, 0);
  }
}
