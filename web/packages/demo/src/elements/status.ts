// How far the library is open, and what went wrong.

import { sheet, vars } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { libraryAddress } from "../logic/address.js";

@customElement("bs-status")
export class Status extends StudioElement {
  static override styles = [
    sheet,
    css`
      .bar {
        height: 32px;
        margin: var(--s1) 0 var(--s2);
        display: flex;
        align-items: center;
        gap: var(--s2);
        font-size: var(--small);
        color: var(--muted);
        min-width: 0;
      }
      .bar > * {
        white-space: nowrap;
      }
      .bar .mono {
        overflow: hidden;
        text-overflow: ellipsis;
        white-space: nowrap;
      }
      .track {
        flex: 0 0 160px;
        height: 6px;
        border-radius: 3px;
        background: var(--line);
        overflow: hidden;
      }
      .track div {
        height: 100%;
        transform: scaleX(var(--done));
        transform-origin: left;
        background: var(--stitch);
        transition: transform var(--motion);
      }
      .dot {
        width: 8px;
        height: 8px;
        border-radius: 50%;
        background: var(--good);
        flex: none;
      }
      .problem {
        margin-bottom: var(--s3);
      }
    `,
  ];

  override render() {
    return html`<div class="bar" role="status">${this.#status()}</div>
      ${this.#problem()}`;
  }

  #status() {
    const { model, progress, result, failure } = this.studio;
    if (failure) return html`Not open.`;
    if (!model) {
      const done = progress?.overall ?? 0;
      const what = {
        wasm: "the engine",
        catalog: "the catalog",
        primary: "the model",
        patch: "patches",
        compile: "compiling",
        ready: "ready",
      };
      return html`<div class="track"><div ${vars({ "--done": `${done}` })}></div></div>
        Loading ${progress ? what[progress.stage] : "the engine"} …
        <span class="num">${Math.round(100 * done)} %</span>`;
    }
    return html`<span class="dot"></span><span>Running here</span>
      <span class="chip" title="The version of everything that the operator signed"
        >catalog ${model.library.catalog_version}</span
      >
      ${result ? html`<span class="mono" title="The id of this stitched combination: the same parts have the same id everywhere">${result.version}</span>` : nothing}`;
  }

  #problem() {
    const problem = this.studio.failure ?? this.studio.problem;
    if (!problem) return nothing;
    return html`<div class="problem" role="alert">
      <strong>${problem.message}</strong> ${problem.hint ? html`<span>${problem.hint}.</span>` : nothing}
      <span class="mono muted">${problem.code}</span>
      ${this.studio.failure ? html`<button @click=${() => this.studio.open(libraryAddress(location.search))}>Try again</button>` : nothing}
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-status": Status;
  }
}
