// Panel: the user's own things, taught by a few pictures each.

import { count, sheet, type Series } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { outcome } from "../logic/outcome.js";
import { FEWEST, SHOTS, type Thing } from "../things.js";
import { fileButton, fileStyles } from "./files.js";
import "./seen.js";

const CURVE: Series[] = [{ label: "Loss", colour: "--stitch" }];

@customElement("bs-things")
export class ThingsPanel extends StudioElement {
  static override styles = [
    sheet,
    fileStyles,
    css`
      .thing {
        display: grid;
        gap: var(--s2);
        border: 1px solid var(--line);
        border-radius: var(--radius-small);
        padding: var(--s2) 12px 12px;
      }
      .name {
        flex: 1 1 140px;
        min-width: 0;
        font-weight: 600;
      }
      .pictures {
        display: grid;
        grid-template-columns: repeat(8, minmax(0, 1fr));
        gap: 4px;
      }
      .pictures bs-seen {
        border-radius: 4px;
      }
      .curve {
        min-height: 110px;
      }
      .told {
        min-height: 42px;
      }
    `,
  ];

  @state() private draft = "";

  override render() {
    const { model, things, teaching } = this.studio;
    const all = things.all;
    return html`<bs-panel
      step="3"
      heading="Teach it your things"
      hint=${`Up to ${things.places.length || 8}, by a few pictures of each. Pictures and names stay on this device.`}
    >
      ${all.map((thing) => this.#thing(thing))}
      ${
        things.full && all.length
          ? html`<p class="small muted">That is as many as this model has room for.</p>`
          : html`<form class="row" @submit=${this.#add}>
              <input
                type="text"
                id="new-thing"
                class="name"
                maxlength="40"
                placeholder=${all.length ? "another thing" : "my mug"}
                aria-label="Name of a new thing"
                .value=${this.draft}
                @input=${(event: Event) => (this.draft = (event.target as HTMLInputElement).value)}
              />
              <button class=${all.length ? "" : "primary"} ?disabled=${!model || !this.draft.trim()}>
                Add this thing
              </button>
            </form>`
      }
      ${this.#mistake()}
      <div class="told" role="status" id="taught">${this.#told()}</div>
      <bs-plot
        class="curve"
        ?hidden=${!teaching.curve.length || !teaching.ofThings}
        .series=${CURVE}
        .data=${[teaching.curve.map(({ step }) => step), teaching.curve.map(({ loss }) => loss)]}
        .height=${110}
        xLabel="training step"
        yLabel="loss (nats)"
        summary=${`Training curve, ${teaching.curve.length} steps`}
      ></bs-plot>
      ${
        teaching.counts?.total
          ? html`<div class="row spread">
              <span class="small muted num"
                >${count(teaching.counts.total)} of at most ${count(teaching.counts.limit)} pictures; the
                oldest leave first</span
              >
              <button class="danger" @click=${() => this.#dialog.showModal()}>Forget all</button>
            </div>`
          : nothing
      }
      <dialog aria-labelledby="forget-things">
        <div class="stack">
          <h3 id="forget-things">Delete every picture, every name and all that was learnt here?</h3>
          <div class="row">
            <button class="danger" id="really-forget" @click=${this.#forget}>Delete</button>
            <button @click=${() => this.#dialog.close()}>Keep</button>
          </div>
        </div>
      </dialog>
    </bs-panel>`;
  }

  #thing({ place, name, count: pictures, pictures: shown }: Thing) {
    const { camera, input, things } = this.studio;
    const busy = things.taking !== undefined;
    const shots = camera.on ? `Take ${SHOTS} pictures` : "Add this picture";
    return html`<div class="thing" data-place=${place}>
      <div class="row">
        <input
          type="text"
          class="name"
          maxlength="40"
          aria-label="Its name"
          .value=${name}
          @change=${(event: Event) => things.rename(place, (event.target as HTMLInputElement).value)}
        />
        <span class="small muted num">${pictures} ${pictures === 1 ? "picture" : "pictures"}</span>
      </div>
      <div class="row">
        <button
          class=${pictures < FEWEST ? "primary" : ""}
          aria-label=${`Teach: ${name}. ${shots}`}
          ?disabled=${busy || input === undefined}
          @click=${() => things.take(place)}
        >
          ${things.taking === place ? "Taking …" : shots}
        </button>
        ${fileButton(
          {
            id: `files-${place}`,
            label: "From files",
            name: `Teach: ${name}, pictures from files`,
            multiple: true,
          },
          (files) => void things.open(place, files),
        )}
      </div>
      ${
        shown.length
          ? html`<div class="pictures">
              ${shown.map((picture, index) => html`<bs-seen .picture=${picture} label=${`${name}, picture ${index + 1}`}></bs-seen>`)}
            </div>`
          : nothing
      }
    </div>`;
  }

  /** Where what is shown is taken for something of the user's, that can be set right. */
  #mistake() {
    const { result, things } = this.studio;
    const said = result?.top[0]?.index;
    const thing = things.all.find(({ place }) => place === said);
    if (!thing) return nothing;
    return html`<div class="row small">
      <span>It takes this for <strong>${thing.name}</strong>.</span>
      <button id="not-mine" ?disabled=${things.taking !== undefined} @click=${() => things.notMine()}>
        It is none of my things
      </button>
    </div>`;
  }

  #told() {
    const { teaching } = this.studio;
    const { training, report, busy } = teaching;
    if (!teaching.ofThings) return this.#next();
    if (training)
      return html`Learning here, in the background: step
        <span class="num">${training.step} of ${training.steps}</span>.`;
    if (busy) return html`Looking at the pictures …`;
    if (report) return outcome(report);
    return this.#next();
  }

  /** What the user could do. */
  #next() {
    const { things } = this.studio;
    const few = things.all.find((thing) => thing.count < FEWEST);
    if (few)
      return html`<span class="muted"
        >Show it <strong>${few.name}</strong> from ${FEWEST} sides at least; learning starts by itself.</span
      >`;
    return html`<span class="muted"
      >Give a thing its name, show it, and add some pictures: nearer, from the side, in other light.</span
    >`;
  }

  #add = (event: Event): void => {
    event.preventDefault();
    if (this.draft.trim()) this.studio.things.add(this.draft);
    this.draft = "";
  };

  get #dialog(): HTMLDialogElement {
    return this.renderRoot.querySelector("dialog")!;
  }

  #forget = (): void => {
    this.#dialog.close();
    void this.studio.sharing.forget();
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-things": ThingsPanel;
  }
}
