import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

/** Text (or a control's edge) on a ground, and the least contrast that WCAG 2.2 AA asks for. */
const TEXT = 4.5;
const EDGE = 3;
const PAIRS: [string, string, number][] = [
  ...["ink", "muted"].flatMap((text) =>
    ["paper", "surface", "sunken"].map((ground): [string, string, number] => [text, ground, TEXT]),
  ),
  ...["base", "stitch", "good", "bad"].map((text): [string, string, number] => [text, "surface", TEXT]),
  ["base", "sunken", TEXT],
  ["stitch", "sunken", TEXT],
  ["good", "sunken", TEXT],
  ["base", "base-soft", TEXT],
  ["stitch", "stitch-soft", TEXT],
  ["ink", "base-soft", TEXT],
  ["ink", "stitch-soft", TEXT],
  ["ink", "bad-soft", TEXT],
  ["line-strong", "surface", EDGE],
  ["base", "stitch-soft", EDGE],
];

const css = readFileSync(new URL("./page.css", import.meta.url), "utf8");

function token(name: string, theme: "light" | "dark"): string {
  const found = new RegExp(`--${name}: light-dark\\((#\\w+), (#\\w+)\\)`).exec(css);
  if (!found) throw new Error(`no token --${name}`);
  return theme === "light" ? found[1]! : found[2]!;
}

/** Relative luminance, WCAG 2.2. */
function luminance(hex: string): number {
  const channel = (at: number): number => {
    const share = parseInt(hex.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

describe.each(["light", "dark"] as const)("the %s theme", (theme) => {
  it.each(PAIRS)("shows %s on %s with a contrast of at least %d", (text, ground, least) => {
    expect(contrast(token(text, theme), token(ground, theme))).toBeGreaterThanOrEqual(least);
  });
});
