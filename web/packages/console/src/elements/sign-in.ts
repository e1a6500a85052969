// Asks for the token where the address brought none.

import { sheet } from "@backstitch/ui";
import { css, html, LitElement } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { Operator } from "../operator.js";

@customElement("bs-sign-in")
export class SignIn extends LitElement {
  static override styles = [
    sheet,
    css`
      :host {
        max-width: 520px;
        margin: var(--s6) auto;
      }
      input {
        width: 100%;
      }
    `,
  ];

  @property({ attribute: false }) operator!: Operator;

  override render() {
    return html`<bs-panel
      heading="The operator's token"
      hint="The server prints it at its first start; backstitch demo opens this page with it."
    >
      <form class="stack" @submit=${this.#submit}>
        <label class="stack tight"
          ><span>Token</span><input type="text" name="token" autocomplete="off" spellcheck="false" required
        /></label>
        <button class="primary">Open the console</button>
        <p class="small muted">It stays in this tab and is sent to this server alone.</p>
      </form>
    </bs-panel>`;
  }

  #submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const token = new FormData(event.target as HTMLFormElement).get("token");
    if (typeof token === "string" && token) this.operator.signIn(token.trim());
  };
}
