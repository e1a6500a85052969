// The cost limit's slider: even steps in ratio, and no limit at its end.

const LOWEST_MS = 0.1;
const HIGHEST_MS = 50;
export const LIMIT_STEPS = 60;

export function limitAt(step: number): number | undefined {
  if (step >= LIMIT_STEPS) return undefined;
  return Number((LOWEST_MS * (HIGHEST_MS / LOWEST_MS) ** (step / (LIMIT_STEPS - 1))).toPrecision(2));
}

export function stepOf(ms: number | undefined): number {
  if (ms === undefined) return LIMIT_STEPS;
  const step = ((LIMIT_STEPS - 1) * Math.log(ms / LOWEST_MS)) / Math.log(HIGHEST_MS / LOWEST_MS);
  return Math.min(LIMIT_STEPS - 1, Math.max(0, Math.round(step)));
}
