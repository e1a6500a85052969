// The styles that every element adopts: type, controls, tables. Tokens come from page.css.

import { css } from "lit";

export const sheet = css`
  :host {
    display: block;
    min-width: 0;
  }
  *,
  *::before,
  *::after {
    box-sizing: border-box;
  }
  [hidden] {
    display: none !important;
  }
  h1,
  h2,
  h3,
  p,
  ul,
  dl,
  dd,
  figure {
    margin: 0;
    padding: 0;
  }
  h3 {
    font-size: var(--small);
    font-weight: 600;
    color: var(--muted);
  }
  .muted {
    color: var(--muted);
  }
  .small {
    font-size: var(--small);
  }
  .num {
    font-variant-numeric: tabular-nums;
  }
  .mono {
    font-family: var(--mono);
    font-size: var(--small);
  }
  .row {
    display: flex;
    align-items: center;
    gap: var(--s2);
    flex-wrap: wrap;
  }
  .stack {
    display: grid;
    gap: var(--s3);
    min-width: 0;
  }
  .tight {
    gap: var(--s2);
  }
  .spread {
    justify-content: space-between;
  }
  .note {
    background: var(--sunken);
    border-radius: var(--radius-small);
    padding: var(--s2) 12px;
  }
  .problem {
    background: var(--bad-soft);
    color: var(--ink);
    border-inline-start: 3px solid var(--bad);
    border-radius: var(--radius-small);
    padding: var(--s2) 12px;
  }
  .visually-hidden {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }

  button,
  .button {
    font: inherit;
    font-weight: 550;
    color: var(--ink);
    background: var(--surface);
    border: 1px solid var(--line-strong);
    border-radius: var(--radius-small);
    min-height: 36px;
    padding: 6px 14px;
    cursor: pointer;
    transition:
      background var(--motion),
      border-color var(--motion);
  }
  button:hover:not(:disabled) {
    background: var(--sunken);
  }
  button.primary {
    background: var(--ink);
    border-color: var(--ink);
    color: var(--surface);
  }
  button.primary:hover:not(:disabled) {
    background: color-mix(in srgb, var(--ink) 86%, var(--surface));
  }
  button.quiet {
    border-color: transparent;
    background: transparent;
    padding-inline: 8px;
  }
  button.danger {
    color: var(--bad);
    border-color: var(--bad);
  }
  button:disabled {
    color: var(--muted);
    border-color: var(--line);
    background: var(--sunken);
    cursor: not-allowed;
  }
  button[aria-pressed="true"],
  button[aria-selected="true"] {
    background: var(--stitch-soft);
    border-color: var(--stitch);
  }
  :focus-visible {
    outline: 2px solid var(--base);
    outline-offset: 2px;
  }

  input[type="range"] {
    appearance: none;
    width: 100%;
    height: 24px;
    margin: 0;
    background: transparent;
    cursor: pointer;
  }
  input[type="range"]::-webkit-slider-runnable-track {
    height: 4px;
    border-radius: 2px;
    background: var(--line-strong);
  }
  input[type="range"]::-moz-range-track {
    height: 4px;
    border-radius: 2px;
    background: var(--line-strong);
  }
  input[type="range"]::-webkit-slider-thumb {
    appearance: none;
    width: 20px;
    height: 20px;
    margin-top: -8px;
    border-radius: 50%;
    border: 2px solid var(--surface);
    background: var(--ink);
    box-shadow: 0 0 0 1px var(--ink);
  }
  input[type="range"]::-moz-range-thumb {
    width: 16px;
    height: 16px;
    border-radius: 50%;
    border: 2px solid var(--surface);
    background: var(--ink);
  }
  input[type="text"],
  input[type="number"],
  select,
  textarea {
    font: inherit;
    color: var(--ink);
    background: var(--surface);
    border: 1px solid var(--line-strong);
    border-radius: var(--radius-small);
    min-height: 36px;
    padding: 6px 10px;
    max-width: 100%;
  }

  label.switch {
    display: inline-flex;
    gap: 10px;
    align-items: center;
    cursor: pointer;
  }
  label.switch input {
    appearance: none;
    flex: none;
    width: 40px;
    height: 24px;
    margin: 0;
    border-radius: 12px;
    border: 1px solid var(--line-strong);
    background: var(--sunken);
    position: relative;
    cursor: pointer;
    transition: background var(--motion);
  }
  label.switch input::before {
    content: "";
    position: absolute;
    inset: 3px auto auto 3px;
    width: 16px;
    height: 16px;
    border-radius: 50%;
    background: var(--line-strong);
    transition: translate var(--motion);
  }
  label.switch input:checked {
    background: var(--stitch);
    border-color: var(--stitch);
  }
  label.switch input:checked::before {
    translate: 16px 0;
    background: var(--surface);
  }

  table {
    border-collapse: collapse;
    width: 100%;
  }
  th {
    font-size: var(--small);
    font-weight: 600;
    color: var(--muted);
    text-align: start;
    padding: 0 var(--s2) var(--s1) 0;
    white-space: nowrap;
  }
  td {
    border-top: 1px solid var(--line);
    padding: var(--s2) var(--s2) var(--s2) 0;
    vertical-align: top;
  }
  th.right,
  td.right {
    text-align: end;
    font-variant-numeric: tabular-nums;
  }
  .scroll {
    overflow-x: auto;
    /* What is hidden for the eye alone stays in here, too. */
    position: relative;
  }
  .chip {
    display: inline-flex;
    align-items: center;
    gap: 6px;
    border: 1px solid var(--line);
    border-radius: 999px;
    padding: 1px 10px;
    font-size: var(--small);
    white-space: nowrap;
    color: var(--muted);
  }
  .chip.on {
    color: var(--stitch);
    border: 1px dashed var(--stitch);
    background: var(--stitch-soft);
  }
  .chip.base {
    color: var(--base);
    border-color: var(--base);
  }
  .chip.bad {
    color: var(--bad);
    border-color: var(--bad);
  }
  .chip.good {
    color: var(--good);
    border-color: var(--good);
  }
  summary {
    cursor: pointer;
    border-radius: var(--radius-small);
  }
  dialog {
    color: var(--ink);
    background: var(--surface);
    border: 1px solid var(--line-strong);
    border-radius: var(--radius);
    padding: var(--s4);
    max-width: min(480px, calc(100vw - 32px));
  }
  dialog::backdrop {
    background: rgb(10 12 16 / 50%);
  }
`;
