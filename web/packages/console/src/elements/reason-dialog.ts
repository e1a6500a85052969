// Asks why, before anything moves: the reason stands in the log beside the move.

import { sheet } from "@backstitch/ui";
import { css, html, LitElement } from "lit";
import { customElement, state } from "lit/decorators.js";

interface Question {
  title: string;
  effect: string;
  action: string;
  done(reason: string): void;
}

@customElement("bs-reason-dialog")
export class ReasonDialog extends LitElement {
  static override styles = [
    sheet,
    css`
      textarea {
        width: 100%;
        min-height: 72px;
      }
      h2 {
        font-size: 16px;
      }
    `,
  ];

  @state() private question: Question | undefined;

  override render() {
    return html`<dialog aria-labelledby="title">
      <form class="stack" @submit=${this.#submit}>
        <h2 id="title">${this.question?.title}</h2>
        <p>${this.question?.effect}</p>
        <label class="stack tight"
          ><span>Reason</span
          ><textarea name="reason" required minlength="3" placeholder="What makes you sure?"></textarea>
        </label>
        <div class="row">
          <button class="primary">${this.question?.action}</button>
          <button type="button" @click=${() => this.#dialog.close()}>Cancel</button>
        </div>
      </form>
    </dialog>`;
  }

  ask(question: Question): void {
    this.question = question;
    this.renderRoot.querySelector("form")!.reset();
    this.#dialog.showModal();
  }

  get #dialog(): HTMLDialogElement {
    return this.renderRoot.querySelector("dialog")!;
  }

  #submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const reason = new FormData(event.target as HTMLFormElement).get("reason");
    this.#dialog.close();
    // The server takes one line.
    this.question?.done(String(reason).trim().replace(/\s+/g, " "));
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-reason-dialog": ReasonDialog;
  }
}
