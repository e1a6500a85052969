// ε in words: what an observer who starts at even odds can become sure of.

/** e^ε / (1 + e^ε). */
export function certainty(epsilon: number): number {
  return 1 / (1 + Math.exp(-epsilon));
}

/** Of everything that ever left this device; null where its ledger cannot tell. */
export function oddsSentence(ever: { epsilon: number } | null): string {
  if (!ever) return "This device's ledger cannot be read, so it cannot say what an observer may have learnt.";
  if (ever.epsilon <= 0)
    return "Nothing was sent, so nobody has learnt anything: an observer's certainty about you stays at 50 %.";
  return `By all that was ever sent from here, an observer's certainty about you can rise from 50 % to at most ${wholePercent(certainty(ever.epsilon))} %.`;
}

/** Never rounded down: the promise is an upper bound. */
export function wholePercent(share: number): string {
  const percent = 100 * share;
  return percent > 99 ? (Math.ceil(percent * 100) / 100).toFixed(2) : Math.ceil(percent - 1e-9).toString();
}
