// Panel 1 for texts: a sentence to type, and real ones to pick.

import { sheet } from "@backstitch/ui";
import { css, html } from "lit";
import { customElement } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import type { Writing } from "../scene.js";

@customElement("bs-sentence")
export class SentencePanel extends StudioElement {
  static override styles = [
    sheet,
    css`
      textarea {
        width: 100%;
        min-height: 112px;
        resize: vertical;
        font: inherit;
        font-size: 18px;
        line-height: 26px;
        padding: 12px;
        color: inherit;
        background: var(--sunken);
        border: 1px solid var(--line);
        border-radius: var(--radius-small);
      }
      .list {
        display: grid;
        gap: 4px;
        grid-auto-rows: max-content;
        max-height: 264px;
        overflow-y: auto;
      }
      .list button {
        text-align: start;
        min-height: 0;
        padding: 6px 10px;
        display: grid;
        grid-template-columns: 68px 1fr;
        gap: var(--s2);
      }
      .list span:last-child {
        overflow: hidden;
        text-overflow: ellipsis;
        white-space: nowrap;
      }
    `,
  ];

  override render() {
    const scene = this.studio.staged as Writing | undefined;
    return html`<bs-panel
      step="1"
      heading="Say something"
      hint="Type an English sentence, or pick a real one that the model was not trained on."
    >
      <div class="stack">
        <textarea
          id="sentence"
          aria-label="A sentence"
          maxlength="2000"
          .value=${scene?.text ?? ""}
          @input=${this.#type}
        ></textarea>
        <div class="list" role="group" aria-label="Samples">
          ${(scene?.sentences ?? []).map(
            ({ text, domain }) =>
              html`<button aria-pressed=${text === scene?.text} title=${text} @click=${() => this.#say(text)}>
                <span class="small muted">${domain}</span><span>${text}</span>
              </button>`,
          )}
        </div>
      </div>
    </bs-panel>`;
  }

  #type = (event: Event): void => this.#say((event.target as HTMLTextAreaElement).value);

  #say(text: string): void {
    const scene = this.studio.staged as Writing | undefined;
    if (!scene) return;
    scene.text = text;
    void this.studio.rerun();
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-sentence": SentencePanel;
  }
}
