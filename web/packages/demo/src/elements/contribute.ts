// Panel: what would be sent, and the switch that is off until somebody turns it on.

import { bytes, sheet } from "@backstitch/ui";
import type { Preview, Reason } from "@backstitch/client";
import { css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import "./frame.js";

@customElement("bs-contribute")
export class Contribute extends StudioElement {
  static override styles = [
    sheet,
    css`
      .two {
        display: grid;
        grid-template-columns: 1fr 1fr;
        gap: var(--s3);
      }
      ul {
        list-style: none;
        display: grid;
        gap: 4px;
      }
      li {
        padding-inline-start: 18px;
        text-indent: -18px;
      }
      dialog {
        width: min(960px, calc(100vw - 32px));
        max-width: none;
      }
      .why {
        min-height: 48px;
      }
    `,
  ];

  override render() {
    const { model, sharing } = this.studio;
    const privacy = model?.privacy;
    const { task, busy, shown, preview, last } = sharing;
    return html`<bs-panel
      step="8"
      heading="Contribute"
      hint="Only if you want: share what was learnt, never what it was learnt from."
    >
      <label class="switch">
        <input
          type="checkbox"
          id="consent"
          .checked=${privacy?.consent ?? false}
          ?disabled=${!privacy || busy}
          @change=${(event: Event) => sharing.consent((event.target as HTMLInputElement).checked)}
        />
        <span><strong>Contributing is ${privacy?.consent ? "on" : "off"}</strong></span>
      </label>
      <div class="two small">
        <div>
          <h3>Would be sent</h3>
          <ul>
            ${(privacy?.sent ?? []).map((line) => html`<li>→ ${line}</li>`)}
          </ul>
        </div>
        <div>
          <h3>Never sent</h3>
          <ul>
            ${(privacy?.never_sent ?? []).map((line) => html`<li>✗ ${line}</li>`)}
          </ul>
        </div>
      </div>
      <div class="row">
        <button
          class="primary"
          id="contribute"
          ?disabled=${!model || busy || !privacy?.consent}
          @click=${() => sharing.contribute()}
        >
          Contribute
        </button>
        <button id="show" ?disabled=${!model || busy} @click=${() => sharing.toggle()}>
          Show me what is sent
        </button>
      </div>
      <div class="why" role="status" id="outcome">
        ${
          last
            ? last.contributed
              ? html`<strong>Sent.</strong> ${bytes(last.bytes)} went into round ${last.round} of
                  ${last.task}${last.duplicate ? " (it was there already)" : ""}. They are added to those of
                  others, and noise is added before anything is published.`
              : html`<strong>Nothing was sent.</strong> ${reason(last.reason)}`
            : task?.blocked
              ? html`<span class="muted">Not now: ${reason(task.blocked)}</span>`
              : html`<span class="muted"
                  >Round ${task?.round ?? "–"} takes
                  contributions${task ? `; it closes at ${task.goal}` : ""}.</span
                >`
        }
      </div>
      <dialog aria-label="What would be sent" @close=${() => sharing.shown && sharing.toggle()}>
        <div class="stack">
          ${shown ? this.#shown(preview) : nothing}
          <div class="row"><button @click=${() => this.#dialog.close()}>Close</button></div>
        </div>
      </dialog>
    </bs-panel>`;
  }

  override updated(): void {
    if (this.studio.sharing.shown && !this.#dialog.open) this.#dialog.showModal();
  }

  get #dialog(): HTMLDialogElement {
    return this.renderRoot.querySelector("dialog")!;
  }

  #shown(preview: Preview | undefined) {
    if (!preview)
      return html`<p class="note">There is nothing to send yet: teach some examples and train first.</p>`;
    return html`<bs-frame .preview=${preview}></bs-frame>`;
  }
}

function reason(why: Reason | null) {
  if (!why) return nothing;
  return html`${why.message}${why.hint ? html`: ${why.hint}` : nothing}.
    <span class="mono muted">${why.code}</span>`;
}
