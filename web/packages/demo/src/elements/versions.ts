// Panel: which version of each patch runs here; it moves when a new one arrives.

import { bytes, clock, count, milliseconds, sheet } from "@backstitch/ui";
import type { LibraryInfo } from "@backstitch/client";
import { css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { StudioElement } from "../element.js";

type PatchInfo = LibraryInfo["patches"][number];

@customElement("bs-versions")
export class Versions extends StudioElement {
  static override styles = [
    sheet,
    css`
      .ladders {
        display: grid;
        gap: var(--s3);
        min-height: 200px;
        align-content: start;
      }
      .ladder {
        display: grid;
        gap: 6px;
      }
      ol {
        display: flex;
        flex-wrap: wrap;
        gap: 6px 0;
        list-style: none;
        margin: 0;
        padding: 0;
        align-items: center;
      }
      li {
        display: flex;
        align-items: center;
      }
      li + li::before {
        content: "";
        width: 24px;
        border-top: 2px dashed var(--line-strong);
      }
      .rung {
        border: 1px solid var(--line-strong);
        border-radius: 999px;
        padding: 2px 12px;
        font-variant-numeric: tabular-nums;
        white-space: nowrap;
      }
      .rung.now {
        border: 1.5px solid var(--stitch);
        background: var(--stitch-soft);
        color: var(--stitch);
        font-weight: 600;
      }
      .rung.fresh {
        animation: arrive 700ms ease-out;
      }
      @keyframes arrive {
        from {
          translate: 24px 0;
          opacity: 0;
        }
      }
      @media (prefers-reduced-motion: reduce) {
        .rung.fresh {
          animation: none;
        }
      }
      .news {
        display: grid;
        gap: 4px;
        min-height: 60px;
        align-content: start;
      }
    `,
  ];

  /** Its number, where it is not the last. */
  @property() step = "";

  override render() {
    const { model, arrivals } = this.studio;
    return html`<bs-panel
      step=${this.step || (model?.library.tasks.length === 0 ? "8" : "10")}
      heading="Versions"
      hint="New versions arrive while the page is open and are in use from the next answer on."
    >
      <div class="ladders">
        ${(model?.library.patches ?? []).map((patch) => this.#ladder(patch))}
        <div class="news small" role="status" id="arrivals">
          ${
            arrivals.length
              ? arrivals
                  .slice(0, 4)
                  .map(
                    ({ at, patches, catalog_version, swap_ms }) =>
                      html`<span class="num">
                        ${clock(at)}
                        ${
                          patches.length
                            ? patches.map(
                                ({ name, from, to }) => html` <strong>${name}</strong> v${from} → v${to}`,
                              )
                            : html` catalog ${catalog_version}`
                        }${patches.length ? html`, swapped in ${milliseconds(swap_ms)}` : nothing}
                      </span>`,
                  )
              : html`<span class="muted"
                  >No new version since the page was opened. One comes when a round of contributions is
                  complete.</span
                >`
          }
        </div>
      </div>
    </bs-panel>`;
  }

  #ladder(patch: PatchInfo) {
    const fresh = this.studio.arrivals[0]?.patches.some(
      ({ name, to }) => name === patch.name && to === patch.version,
    );
    return html`<div class="ladder" data-patch=${patch.name}>
      <div>
        <strong>${patch.name}</strong>
        <div class="small muted">
          ${patch.trainable ? `${count(patch.parameters)} trainable numbers` : "fixed"} ·
          ${bytes(patch.bytes)}${patch.personal?.in_use ? " · yours in use" : ""}
        </div>
      </div>
      <ol>
        ${[...patch.versions]
          .sort((a, b) => a.version - b.version)
          .map(({ version, aliases }) => {
            const now = version === patch.version;
            return html`<li>
              <span class="rung ${now ? "now" : ""} ${now && fresh ? "fresh" : ""}" data-version=${version}
                >v${version}${aliases.length ? html` <span class="small">${aliases.join(", ")}</span>` : nothing}</span
              >
            </li>`;
          })}
      </ol>
    </div>`;
  }
}
