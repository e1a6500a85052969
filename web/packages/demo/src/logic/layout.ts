// Places the graph's nodes from left to right.

import dagre from "@dagrejs/dagre";
import type { Graph, GraphNode } from "@backstitch/client";

export interface Placed {
  node: GraphNode;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface PlacedEdge {
  from: string;
  to: string;
  /** An SVG path. */
  path: string;
}

export interface Layout {
  width: number;
  height: number;
  nodes: Placed[];
  edges: PlacedEdge[];
}

const SIZE: Record<GraphNode["kind"], [width: number, height: number]> = {
  input: [88, 44],
  output: [72, 44],
  site: [80, 30],
  segment: [120, 56],
  patch: [136, 52],
};

/** The width of a letter of a label, on average. */
const LETTER = 7.2;

export function layout(graph: Graph, direction: "LR" | "TB"): Layout {
  const g = new dagre.graphlib.Graph();
  g.setGraph({ rankdir: direction, nodesep: 20, ranksep: 26, marginx: 8, marginy: 8 });
  g.setDefaultEdgeLabel(() => ({}));
  for (const node of graph.nodes) {
    const [least, height] = SIZE[node.kind];
    const shape = (node.kind === "input" || node.kind === "output" ? node.shape?.join("×") : "") ?? "";
    const width = Math.max(least, LETTER * Math.max(node.label.length, shape.length) + 20);
    g.setNode(node.id, { width, height });
  }
  for (const { from, to } of graph.edges) g.setEdge(from, to);
  dagre.layout(g);
  const box = g.graph();
  return {
    width: box.width ?? 0,
    height: box.height ?? 0,
    nodes: graph.nodes.map((node) => {
      const { x = 0, y = 0, width = 0, height = 0 } = g.node(node.id);
      return { node, x, y, width, height };
    }),
    edges: graph.edges.map(({ from, to }) => ({ from, to, path: smooth(g.edge(from, to)?.points ?? []) })),
  };
}

/** Quadratic curves through the midpoints. */
function smooth(points: { x: number; y: number }[]): string {
  const [first, ...rest] = points.map(
    ({ x, y }) => [Math.round(x * 10) / 10, Math.round(y * 10) / 10] as const,
  );
  if (!first) return "";
  let path = `M${first[0]} ${first[1]}`;
  rest.forEach(([x, y], index) => {
    const next = rest[index + 1];
    path += next ? ` Q${x} ${y} ${(x + next[0]) / 2} ${(y + next[1]) / 2}` : ` L${x} ${y}`;
  });
  return path;
}
