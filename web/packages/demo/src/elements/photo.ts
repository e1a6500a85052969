// Panel 1 for photographs: built-in ones, a file, the clipboard, or the camera.

import { percent, sheet } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { pictureAmong, type PhotoSample } from "../logic/photo.js";
import { Looking } from "../scene.js";
import { dropPlace, fileButton, fileStyles } from "./files.js";
import "./seen.js";
import "./slider.js";

@customElement("bs-photo")
export class PhotoPanel extends StudioElement {
  static override styles = [
    sheet,
    fileStyles,
    css`
      .view {
        position: relative;
        width: min(100%, 320px);
        aspect-ratio: 1;
        margin-inline: auto;
        border-radius: var(--radius);
        background: var(--sunken);
        overflow: hidden;
      }
      .view video,
      .view bs-seen {
        position: absolute;
        inset: 0;
        width: 100%;
        height: 100%;
        object-fit: cover;
      }
      .live {
        position: absolute;
        inset: auto auto 8px 8px;
        background: var(--surface);
      }
      .live::before {
        content: "";
        width: 8px;
        height: 8px;
        border-radius: 50%;
        background: var(--bad);
      }
      .strip {
        display: grid;
        grid-template-columns: repeat(8, minmax(0, 1fr));
        gap: 6px;
        min-height: 44px;
      }
      .strip button {
        padding: 2px;
        min-height: 0;
        border: 2px solid transparent;
        background: none;
        border-radius: var(--radius-small);
      }
      .strip button[aria-pressed="true"] {
        border-color: var(--stitch);
      }
      .strip img {
        display: block;
        width: 100%;
        aspect-ratio: 1;
        object-fit: cover;
        border-radius: 4px;
      }
      .caption {
        min-height: 42px;
      }
      .drop .view {
        outline: 2px dashed var(--stitch);
        outline-offset: 4px;
      }
    `,
  ];

  override render() {
    const { camera, model, address } = this.studio;
    const scene = this.#scene;
    const seen = html`<bs-seen
      .picture=${scene?.input}
      label=${`The input: ${scene?.name ?? "nothing yet"}`}
    ></bs-seen>`;
    return html`<bs-panel
      step="1"
      heading="Show it something"
      hint="A photograph, or your camera. The pictures never leave this device."
    >
      <div
        class="stack tight"
        @dragover=${this.#place.over}
        @dragleave=${this.#place.leave}
        @drop=${this.#place.drop}
      >
        <div class="view">
          ${
            camera.on
              ? html`${camera.video}${address.mist ? seen : nothing}<span class="chip live"
                    >live, ${camera.rate.toFixed(0)} answers a second</span
                  >`
              : seen
          }
        </div>
        <div class="row">
          <button id="camera" ?disabled=${!model || camera.starting} @click=${this.#camera}>
            ${camera.on ? "Stop the camera" : camera.starting ? "Asking for the camera …" : "Camera"}
          </button>
          ${fileButton({ id: "photo", label: "Open a picture" }, ([file]) => this.#take(file))}
          <span class="small muted">or drop or paste one</span>
        </div>
        <div class="strip" role="group" aria-label="Samples">
          ${(scene?.samples ?? []).map(
            (sample, index) =>
              html`<button
                aria-pressed=${sample === scene?.sample}
                title=${sample.name}
                @click=${() => this.studio.pick(index)}
              >
                <img src=${this.#address(sample)} alt=${sample.name} />
              </button>`,
          )}
        </div>
        <bs-slider
          id="mist"
          label="Mist"
          hint="A misted, greenish window before the picture: many people teach the patch clear-view to see through theirs"
          .value=${address.mist}
          text=${percent(address.mist)}
          @change-value=${(event: CustomEvent<number>) => this.studio.set({ mist: event.detail })}
        ></bs-slider>
        <p class="small muted caption">
          ${scene?.name ? html`Shown: <strong>${scene.name}</strong>.` : nothing}
          ${scene?.sample ? html`Photograph: ${scene.sample.credit}.` : nothing} The model sees the middle
          square, at 224 × 224 pixels in colour.
        </p>
      </div>
    </bs-panel>`;
  }

  override connectedCallback(): void {
    super.connectedCallback();
    document.addEventListener("paste", this.#paste);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    document.removeEventListener("paste", this.#paste);
    for (const address of this.#addresses.values()) URL.revokeObjectURL(address);
    this.#addresses.clear();
  }

  readonly #addresses = new Map<PhotoSample, string>();

  #address(sample: PhotoSample): string {
    const address = this.#addresses.get(sample) ?? URL.createObjectURL(sample.file);
    this.#addresses.set(sample, address);
    return address;
  }

  get #scene(): Looking | undefined {
    const { staged } = this.studio;
    return staged instanceof Looking ? staged : undefined;
  }

  #camera = (): void => {
    const { camera } = this.studio;
    if (camera.on) camera.stop();
    else void camera.start();
  };

  readonly #place = dropPlace(([file]) => this.#take(file));

  /** Text that is pasted into a name stays text. */
  #paste = (event: ClipboardEvent): void => this.#take(pictureAmong(event.clipboardData?.files));

  #take(file: File | undefined): void {
    if (file) void this.studio.look(file, file.name || "a picture");
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-photo": PhotoPanel;
  }
}
