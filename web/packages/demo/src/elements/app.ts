// The page: the panels in the order in which the data flows.

import { mark, sheet } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { libraryName } from "../logic/address.js";
import { SOURCES } from "../logic/sources.js";
import "./contribute.js";
import "./cost.js";
import "./decision.js";
import "./features.js";
import "./graph.js";
import "./input.js";
import "./photo.js";
import "./privacy.js";
import "./recording.js";
import "./result.js";
import "./sentence.js";
import "./signal.js";
import "./status.js";
import "./teach.js";
import "./things.js";
import "./versions.js";

@customElement("bs-app")
export class App extends StudioElement {
  static override styles = [
    sheet,
    css`
      :host {
        max-width: 1440px;
        margin: 0 auto;
        padding: var(--s3) var(--s4) var(--s6);
      }
      .top {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: var(--s2) var(--s3);
        min-height: 48px;
      }
      h1 {
        font-size: 22px;
        line-height: 32px;
        letter-spacing: -0.01em;
        display: flex;
        align-items: center;
        gap: 10px;
      }
      .lead {
        flex: 1 1 320px;
        color: var(--muted);
      }
      .libraries {
        display: flex;
        flex-wrap: wrap;
        gap: 2px;
        padding: 2px;
        border: 1px solid var(--line);
        border-radius: var(--radius-small);
      }
      .libraries a {
        padding: 4px 12px;
        border-radius: calc(var(--radius-small) - 2px);
        color: var(--muted);
        text-decoration: none;
        font-size: var(--small);
        line-height: 22px;
      }
      .libraries a:hover {
        color: inherit;
        background: var(--sunken);
      }
      .libraries a[aria-current] {
        color: var(--stitch);
        background: var(--stitch-soft);
        font-weight: 600;
      }
      .libraries a:focus-visible {
        outline: 2px solid var(--base);
        outline-offset: 2px;
      }
      main {
        display: grid;
        grid-template-columns: repeat(12, minmax(0, 1fr));
        gap: var(--s3);
      }
      main > * {
        grid-column: span 12;
      }
      footer {
        margin-top: var(--s4);
        color: var(--muted);
        font-size: var(--small);
      }
      @media (min-width: 760px) {
        .half {
          grid-column: span 6;
        }
      }
      @media (min-width: 1120px) {
        .c3 {
          grid-column: span 3;
        }
        .c4 {
          grid-column: span 4;
        }
        .c5 {
          grid-column: span 5;
        }
      }
      @media (max-width: 480px) {
        :host {
          padding-inline: 12px;
        }
        h1 {
          flex: 1;
        }
        .libraries {
          order: 1;
        }
        .libraries a {
          padding-inline: 8px;
        }
        .lead {
          order: 2;
        }
      }
    `,
  ];

  override render() {
    const { studio } = this;
    return html`
      <div class="top">
        <h1>${mark} Backstitch</h1>
        <p class="lead">
          A classifier that stitches repairs into itself while it runs. Everything you see happens on this
          device.
        </p>
        ${this.#switch()}
        <bs-theme></bs-theme>
      </div>
      <bs-status .studio=${studio}></bs-status>
      <main>
        ${this.#input()}
        <bs-result class="half c3" .studio=${studio}></bs-result>
        ${
          this.#photos
            ? html`<bs-things class="c5" .studio=${studio}></bs-things>`
            : html`<bs-decision class="c5" .studio=${studio}></bs-decision>`
        }
        ${studio.opening ? nothing : this.#further()}
      </main>
      <footer>
        ${SOURCES[this.#library]?.credit ?? ""} Nothing on this page is sent
        anywhere${this.#shares ? " unless you switch contributing on and press “Contribute”" : ""}.
      </footer>
    `;
  }

  /** Further down: where samples teach, and people learn from each other. What is measured of photographs is long. */
  #further() {
    const { studio } = this;
    return html`<bs-graph .studio=${studio}></bs-graph>
      ${
        this.#photos
          ? html`<bs-decision class="half c4" step="5" .studio=${studio}></bs-decision>`
          : html`<bs-features
              class=${this.#modality === "image" ? "half c4" : ""}
              .studio=${studio}
            ></bs-features>`
      }
      <bs-cost class="half c4" .studio=${studio}></bs-cost>
      <bs-teach class="half c4" .studio=${studio}></bs-teach>
      ${
        this.#shares
          ? html`<bs-contribute class="half c4" .studio=${studio}></bs-contribute>
              <bs-privacy class="half c4" .studio=${studio}></bs-privacy>`
          : nothing
      }
      <bs-versions class="half c4" .studio=${studio}></bs-versions>
      ${this.#photos ? html`<bs-features step="11" .studio=${studio}></bs-features>` : nothing}`;
  }

  readonly #library = libraryName(location.search);

  /** Whether people learn from each other on this page, as of most before they are open. */
  get #shares(): boolean {
    const tasks = this.studio.model?.library.tasks;
    return tasks ? tasks.length > 0 : (SOURCES[this.#library]?.shares ?? true);
  }

  /** Photographs in colour; the pictures of clothes have sliders of their own. */
  get #photos(): boolean {
    const { model } = this.studio;
    return model
      ? this.#modality === "image" && model.library.input.shape[1] !== 1
      : this.#library === "photos";
  }

  /** Series whose moments are scored, rather than named. */
  get #scores(): boolean {
    const { model } = this.studio;
    return model
      ? this.#modality === "series" && model.library.labels.length === 0
      : this.#library === "anomalies";
  }

  get #modality(): string {
    return this.studio.model?.library.modality ?? SOURCES[this.#library]?.modality ?? "image";
  }

  #switch() {
    return html`<nav class="libraries" aria-label="Libraries">
      ${Object.entries(SOURCES).map(([name, { title }]) =>
        title === undefined
          ? nothing
          : html`<a href=${`?library=${name}`} aria-current=${name === this.#library ? "page" : nothing}
              >${title}</a
            >`,
      )}
    </nav>`;
  }

  #input() {
    const { studio } = this;
    const kind = this.#modality;
    if (kind === "text") return html`<bs-sentence class="half c4" .studio=${studio}></bs-sentence>`;
    if (this.#scores) return html`<bs-signal class="half c4" .studio=${studio}></bs-signal>`;
    if (kind === "series") return html`<bs-recording class="half c4" .studio=${studio}></bs-recording>`;
    if (this.#photos) return html`<bs-photo class="half c4" .studio=${studio}></bs-photo>`;
    return html`<bs-input class="half c4" .studio=${studio}></bs-input>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-app": App;
  }
}
