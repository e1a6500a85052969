// Light, dark, or what the system says; remembered in this browser alone.

import { css, html, LitElement } from "lit";
import { customElement, state } from "lit/decorators.js";
import { sheet } from "./sheet.js";

const KEY = "backstitch-theme";
const NEXT = { system: "light", light: "dark", dark: "system" } as const;
type Theme = keyof typeof NEXT;

@customElement("bs-theme")
export class ThemeButton extends LitElement {
  static override styles = [
    sheet,
    css`
      button {
        min-width: 132px;
      }
    `,
  ];

  @state() private theme: Theme = "system";

  override connectedCallback(): void {
    super.connectedCallback();
    const kept = localStorage.getItem(KEY);
    this.#apply(kept === "light" || kept === "dark" ? kept : "system");
  }

  override render() {
    return html`<button
      class="quiet"
      @click=${this.#next}
      title="Switch between light, dark and the system's choice"
    >
      Theme: ${this.theme}
    </button>`;
  }

  #next = (): void => {
    this.#apply(NEXT[this.theme]);
    localStorage.setItem(KEY, this.theme);
  };

  #apply(theme: Theme): void {
    this.theme = theme;
    document.documentElement.dataset["theme"] = theme;
    window.dispatchEvent(new Event("resize"));
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-theme": ThemeButton;
  }
}
