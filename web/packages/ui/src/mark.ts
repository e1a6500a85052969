// The product's mark: a back stitch, two threads over one line.

import { svg } from "lit";

export const mark = svg`<svg viewBox="0 0 48 24" width="48" height="24" aria-hidden="true" fill="none" stroke-linecap="round" stroke-width="3">
  <path d="M2 16H46" stroke="var(--base)" opacity="0.9"></path>
  <path d="M4 8q6 -5 12 0M18 8q6 -5 12 0M32 8q6 -5 12 0" stroke="var(--stitch)"></path>
</svg>`;
