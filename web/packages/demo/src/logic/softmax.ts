/** Scores to shares that add up to 1. */
export function softmax(scores: ArrayLike<number>): number[] {
  const values = Array.from(scores);
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
