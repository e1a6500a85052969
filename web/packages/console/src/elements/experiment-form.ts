// Starts an experiment: champion against challenger, for one patch.

import { sheet } from "@backstitch/ui";
import { css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { ConsoleElement } from "../element.js";

@customElement("bs-experiment-form")
export class ExperimentForm extends ConsoleElement {
  static override styles = [
    sheet,
    css`
      form {
        display: grid;
        grid-template-columns: repeat(auto-fill, minmax(140px, 1fr));
        gap: var(--s2) var(--s3);
        padding-top: var(--s2);
      }
      label {
        display: grid;
        gap: 2px;
        font-size: var(--small);
        align-content: start;
      }
      .wide {
        grid-column: 1 / -1;
      }
      input,
      select {
        width: 100%;
      }
    `,
  ];

  @state() private patch: string | undefined;

  override render() {
    const patch = this.library.patches.find(({ name }) => name === this.patch) ?? this.library.patches[0];
    if (!patch) return nothing;
    const versions = patch.versions.map(({ version }) => version);
    const champion = patch.versions.find(({ aliases }) => aliases.includes("champion"))?.version;
    const options = (selected: number | undefined, none: boolean) =>
      html`${none ? html`<option value="0" ?selected=${selected === 0}>without it</option>` : nothing}
      ${versions.map((version) => html`<option value=${version} ?selected=${version === selected}>v${version}</option>`)}`;
    return html`<details>
      <summary>Start an experiment</summary>
      <form @submit=${this.#submit}>
        <label
          >Name<input
            type="text"
            name="name"
            required
            pattern="[a-z0-9\\-]{1,64}"
            placeholder="tilted-again"
            title="Lower-case letters, digits and dashes"
        /></label>
        <label
          >Patch<select
            name="patch"
            @change=${(event: Event) => (this.patch = (event.target as HTMLSelectElement).value)}
          >
            ${this.library.patches.map(({ name }) => html`<option ?selected=${name === patch.name}>${name}</option>`)}
          </select></label
        >
        <label
          >Champion<select name="champion">
            ${options(champion, false)}
          </select></label
        >
        <label
          >Challenger<select name="challenger">
            ${options(versions.find((version) => version !== champion) ?? 0, true)}
          </select></label
        >
        <label
          >Challenger’s share (%)<input type="number" name="share" min="1" max="99" value="50" required
        /></label>
        <label
          >ε of a report<input type="number" name="epsilon" min="0.1" max="8" step="0.1" value="1" required
        /></label>
        <label
          >Inputs before a report<input type="number" name="window" min="1" max="10000" value="32" required
        /></label>
        <div class="wide"><button class="primary">Start</button></div>
      </form>
    </details>`;
  }

  #submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const given = Object.fromEntries(new FormData(form)) as Record<string, string>;
    const number = (name: string): number => Number(given[name]);
    const started = await this.operator.startExperiment(this.library.name, {
      name: given["name"],
      layer: given["patch"],
      patch: given["patch"],
      champion: number("champion"),
      challenger: number("challenger"),
      share: number("share") / 100,
      epsilon: number("epsilon"),
      window: number("window"),
    });
    if (started) form.reset();
  };
}
