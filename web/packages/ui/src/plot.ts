// A live line chart: uPlot in an element, with the page's colours.

import { css, html, LitElement, unsafeCSS } from "lit";
import { customElement, property } from "lit/decorators.js";
import UPlot from "uplot";
import plotCss from "uplot/dist/uPlot.min.css?inline";
import { sheet } from "./sheet.js";

export interface Series {
  label: string;
  /** A token, such as `--stitch`. */
  colour: string;
  dash?: number[];
  stepped?: boolean;
}

/** Steps and releases are counted, so the axis is marked in whole numbers. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

@customElement("bs-plot")
export class Plot extends LitElement {
  static override styles = [
    unsafeCSS(plotCss),
    sheet,
    css`
      :host {
        position: relative;
      }
      .uplot {
        font-family: var(--font);
      }
      .u-legend {
        font-size: var(--small);
        text-align: start;
        color: var(--muted);
      }
      .u-legend th,
      .u-legend td {
        border: 0;
        padding: 0 4px;
      }
    `,
  ];

  @property({ attribute: false }) series: Series[] = [];
  /** x first, then one array a series. */
  @property({ attribute: false }) data: UPlot.AlignedData = [[]];
  @property({ type: Number }) height = 140;
  @property() xLabel = "";
  @property() yLabel = "";
  @property({ type: Boolean }) time = false;
  /** What the chart says, for those who do not see it. */
  @property() summary = "";

  #plot: UPlot | undefined;
  #resize = new ResizeObserver(([entry]) => {
    if (entry) this.#plot?.setSize({ width: Math.max(160, entry.contentRect.width), height: this.height });
  });

  override connectedCallback(): void {
    super.connectedCallback();
    this.#resize.observe(this);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#resize.disconnect();
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  override render() {
    return html`<div id="at" role="img" aria-label=${this.summary}></div>`;
  }

  override updated(): void {
    if (this.#plot?.series.length !== this.series.length + 1) this.#make();
    else this.#plot.setData(this.data);
  }

  #make(): void {
    this.#plot?.destroy();
    const root = this.renderRoot.querySelector<HTMLElement>("#at");
    if (!root || this.series.length === 0) return;
    const colour = (token: string): string => getComputedStyle(this).getPropertyValue(token).trim();
    // Resolved at drawing time, so that a change of theme shows on the next redraw.
    const paint = (token: string) => (): string => resolve(this, colour(token));
    const axis = (label: string): UPlot.Axis => ({
      label,
      labelSize: 18,
      labelFont: "12px system-ui, sans-serif",
      font: "11px system-ui, sans-serif",
      stroke: paint("--muted"),
      grid: { stroke: paint("--line"), width: 1 },
      ticks: { show: false },
    });
    this.#plot = new UPlot(
      {
        width: Math.max(160, this.clientWidth),
        height: this.height,
        cursor: { drag: { setScale: false, x: false, y: false } },
        legend: { show: this.series.length > 1, live: false },
        scales: { x: { time: this.time } },
        axes: [
          { ...axis(this.xLabel), size: 28, ...(!this.time && { incrs: WHOLE }) },
          { ...axis(this.yLabel), size: 44 },
        ],
        series: [
          {},
          ...this.series.map((s) => ({
            label: s.label,
            stroke: paint(s.colour),
            width: 2,
            points: { show: false },
            ...(s.dash && { dash: s.dash }),
            ...(s.stepped && UPlot.paths.stepped && { paths: UPlot.paths.stepped({ align: 1 }) }),
          })),
        ],
      },
      this.data,
      root,
    );
  }
}

/** A canvas does not know light-dark(); the element's own computed colour does. */
function resolve(host: HTMLElement, value: string): string {
  host.style.setProperty("outline-color", value);
  const colour = getComputedStyle(host).outlineColor;
  host.style.removeProperty("outline-color");
  return colour;
}

declare global {
  interface HTMLElementTagNameMap {
    "bs-plot": Plot;
  }
}
