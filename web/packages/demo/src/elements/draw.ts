// A dialog to draw in: white on black, as the library's pictures are.

import { sheet } from "@backstitch/ui";
import { css, html, LitElement } from "lit";
import { customElement } from "lit/decorators.js";
import { shrink } from "../logic/loading.js";
import type { Picture } from "../logic/picture.js";

const SIZE = 280;

/** Fires `picture` with what was drawn. */
@customElement("bs-draw")
export class Draw extends LitElement {
  static override styles = [
    sheet,
    css`
      canvas {
        display: block;
        width: 280px;
        max-width: 100%;
        aspect-ratio: 1;
        background: #000;
        border-radius: var(--radius-small);
        touch-action: none;
        cursor: crosshair;
      }
    `,
  ];

  override render() {
    return html`<dialog aria-label="Draw a piece of clothing">
      <div class="stack">
        <p>Draw a piece of clothing: the filled shape, not its outline.</p>
        <canvas
          width=${SIZE}
          height=${SIZE}
          @pointerdown=${this.#down}
          @pointermove=${this.#move}
          aria-label="Drawing area"
        ></canvas>
        <div class="row">
          <button class="primary" @click=${this.#use}>Use the drawing</button>
          <button @click=${this.#clear}>Clear</button>
          <button class="quiet" @click=${() => this.#dialog.close()}>Cancel</button>
        </div>
      </div>
    </dialog>`;
  }

  show(): void {
    this.#dialog.showModal();
  }

  get #dialog(): HTMLDialogElement {
    return this.renderRoot.querySelector("dialog")!;
  }

  get #canvas(): HTMLCanvasElement {
    return this.renderRoot.querySelector("canvas")!;
  }

  #at(event: PointerEvent): [number, number] {
    const scale = SIZE / this.#canvas.getBoundingClientRect().width;
    return [event.offsetX * scale, event.offsetY * scale];
  }

  #down = (event: PointerEvent): void => {
    this.#canvas.setPointerCapture(event.pointerId);
    const context = this.#canvas.getContext("2d")!;
    Object.assign(context, { strokeStyle: "#d8d8d8", lineWidth: 26, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...this.#at(event));
    context.lineTo(...this.#at(event));
    context.stroke();
  };

  #move = (event: PointerEvent): void => {
    if (event.buttons === 0) return;
    const context = this.#canvas.getContext("2d")!;
    context.lineTo(...this.#at(event));
    context.stroke();
  };

  #clear = (): void => this.#canvas.getContext("2d")!.clearRect(0, 0, SIZE, SIZE);

  #use = (): void => {
    this.dispatchEvent(new CustomEvent<Picture>("picture", { detail: shrink(this.#canvas) }));
    this.#dialog.close();
  };
}
