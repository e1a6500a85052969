// Panel: the primary model as it was cut, with the patches that ran between its segments.

import { count, macs, milliseconds, sheet, vars } from "@backstitch/ui";
import type { Graph, GraphNode } from "@backstitch/client";
import { css, html, nothing, svg } from "lit";
import { customElement, state } from "lit/decorators.js";
import { StudioElement } from "../element.js";
import { layout, type Layout, type Placed } from "../logic/layout.js";

@customElement("bs-graph")
export class GraphPanel extends StudioElement {
  static override styles = [
    sheet,
    css`
      .picture {
        min-height: 184px;
        display: grid;
        align-items: center;
        overflow-x: auto;
      }
      /* Neither so small that nobody can read it, nor larger than the text around it. */
      svg {
        display: block;
        width: 100%;
        height: auto;
        min-width: var(--least);
        max-width: var(--most);
        margin: 0 auto;
      }
      .node {
        cursor: pointer;
      }
      .node:focus-visible {
        outline: none;
      }
      .node:focus-visible rect {
        stroke-width: 3;
      }
      rect {
        fill: var(--surface);
        stroke: var(--line-strong);
        stroke-width: 1.25;
        transition:
          fill var(--motion),
          stroke var(--motion),
          opacity var(--motion);
      }
      .segment rect,
      .input rect,
      .output rect {
        fill: var(--base-soft);
        stroke: var(--base);
      }
      .site rect {
        fill: var(--sunken);
      }
      .patch rect {
        stroke-dasharray: 5 4;
      }
      .patch.lit rect {
        fill: var(--stitch-soft);
        stroke: var(--stitch);
        stroke-width: 2;
      }
      .dim {
        opacity: 0.62;
      }
      text {
        fill: var(--ink);
        font: 600 12px var(--font);
        text-anchor: middle;
      }
      text.sub {
        font-weight: 400;
        font-size: 11px;
        fill: var(--muted);
      }
      path {
        fill: none;
        stroke: var(--line-strong);
        stroke-width: 1.5;
      }
      path.lit {
        stroke: var(--stitch);
        stroke-width: 2.5;
        stroke-dasharray: 7 5;
        animation: sew 900ms linear 4;
      }
      @keyframes sew {
        to {
          stroke-dashoffset: -12;
        }
      }
      @media (prefers-reduced-motion: reduce) {
        path.lit {
          animation: none;
        }
      }
      .detail {
        min-height: 21px;
      }
    `,
  ];

  @state() private selected: string | undefined;
  @state() private narrow = matchMedia("(max-width: 759px)").matches;
  #laidOut: { graph: Graph; narrow: boolean; layout: Layout } | undefined;
  #media = matchMedia("(max-width: 759px)");
  #onMedia = (): void => void (this.narrow = this.#media.matches);

  override connectedCallback(): void {
    super.connectedCallback();
    this.#media.addEventListener("change", this.#onMedia);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#media.removeEventListener("change", this.#onMedia);
  }

  override render() {
    const { model, result } = this.studio;
    const active = new Set(result?.graph.active);
    return html`<bs-panel
      step="4"
      heading="The graph that ran"
      hint="Blue: the base model, cut where patches can go. Orange: what was stitched in for this input."
    >
      <div class="picture">${model ? this.#draw(this.#layout(model.graph), active) : nothing}</div>
      <p class="detail small">${this.#detail()}</p>
    </bs-panel>`;
  }

  /** The layout depends on the library alone, so it is kept while inputs change. */
  #layout(graph: Graph): Layout {
    if (this.#laidOut?.graph !== graph || this.#laidOut.narrow !== this.narrow)
      this.#laidOut = { graph, narrow: this.narrow, layout: layout(graph, this.narrow ? "TB" : "LR") };
    return this.#laidOut.layout;
  }

  #draw({ width, height, nodes, edges }: Layout, active: Set<string>) {
    const patches = new Set(nodes.filter(({ node }) => node.kind === "patch").map(({ node }) => node.id));
    const onPatch = (from: string, to: string): boolean =>
      (patches.has(from) && active.has(from)) || (patches.has(to) && active.has(to));
    const dim = (from: string, to: string): boolean =>
      [from, to].some((id) => patches.has(id) && !active.has(id));
    return html`<svg
      ${vars({ "--least": `${0.7 * width}px`, "--most": `${1.2 * width}px` })}
      viewBox=${`0 0 ${width} ${height}`}
      role="group"
      aria-label="Graph of the stitched model"
    >
      ${edges.map(
        ({ from, to, path }) =>
          svg`<path d=${path} class=${onPatch(from, to) ? "lit" : dim(from, to) ? "dim" : ""}></path>`,
      )}
      ${nodes.map((placed) => this.#node(placed, active.has(placed.node.id)))}
    </svg>`;
  }

  #node({ node, x, y, width, height }: Placed, lit: boolean) {
    const sub = subtitle(node);
    return svg`<g class="node ${node.kind} ${lit ? "lit" : node.kind === "patch" ? "dim" : ""}" tabindex="0" role="button"
        aria-label=${`${node.kind} ${node.label}${node.kind === "patch" ? (lit ? ", stitched" : ", not stitched") : ""}`}
        @click=${() => (this.selected = node.id)} @focus=${() => (this.selected = node.id)} @pointerenter=${() => (this.selected = node.id)}>
      <rect x=${x - width / 2} y=${y - height / 2} width=${width} height=${height} rx=${node.kind === "site" ? height / 2 : 8}></rect>
      <text x=${x} y=${sub ? y - 3 : y + 4}>${node.label}</text>
      ${sub ? svg`<text class="sub" x=${x} y=${y + 13}>${sub}</text>` : nothing}
    </g>`;
  }

  #detail() {
    const { model, result } = this.studio;
    const node = model?.graph.nodes.find(({ id }) => id === this.selected);
    if (!node) return html`<span class="muted">Point at a part to see what is in it.</span>`;
    const about = {
      input: "what goes in",
      output: "what comes out",
      site: "a place where patches can be stitched",
      segment: "a part of the base model, compiled once",
      patch: `a patch, stitched in ${node.mode ?? "series"}`,
    }[node.kind];
    const stage = result?.cost.stages.find(
      ({ name }) => name === `patch:${node.patch ?? ""}` || name === node.id,
    );
    return html`<strong>${node.label}</strong>: ${about}.
      ${node.shape ? html`Shape ${node.shape.join(" × ")}.` : nothing}
      ${node.macs ? html`${macs(node.macs)} (multiply-accumulates).` : nothing}
      ${node.ops?.length ? html`${node.ops.map(({ op, count: n }) => `${count(n)} ${op}`).join(", ")}.` : nothing}
      ${stage ? html`Took ${milliseconds(stage.ms)} for this input.` : nothing}`;
  }
}

function subtitle(node: GraphNode): string {
  if (node.kind === "patch") return node.mode ?? "";
  if (node.kind === "segment") return node.macs ? macs(node.macs) : "";
  if (node.kind === "input" || node.kind === "output") return node.shape?.join("×") ?? "";
  return "";
}
