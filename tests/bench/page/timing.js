// Times variants of one piece of work in turn, so that a busy machine slows all of them alike.

const sorted = (values) => [...values].sort((a, b) => a - b);
export const quantile = (values, q) => {
  const ordered = sorted(values);
  return ordered[Math.min(ordered.length - 1, Math.floor(q * ordered.length))];
};

/**
 * `variants`: name → work, the first is what the others are compared with. Work of less than the clock's grain says
 * how often it repeats itself in one call: `{ run, repeats }`. Yields per variant the median and the 95th percentile
 * in milliseconds, and per other variant the median of the ratios of runs that were neighbours in time.
 */
export async function compare(variants, { runs = 30, warmup = 8 } = {}) {
  const works = Object.entries(variants).map(([name, work]) => ({
    name,
    run: work.run ?? work,
    repeats: work.repeats ?? 1,
    ms: [],
  }));
  for (let round = -warmup; round < runs; round++) {
    // Whoever comes second finds other caches than who comes first.
    const turn = round % 2 === 0 ? works : [...works].reverse();
    for (const work of turn) {
      const began = performance.now();
      await work.run();
      const ms = (performance.now() - began) / work.repeats;
      if (round >= 0) work.ms.push(ms);
    }
  }
  const [ours, ...others] = works;
  const times = Object.fromEntries(
    works.map(({ name, ms }) => [name, { median_ms: quantile(ms, 0.5), p95_ms: quantile(ms, 0.95) }]),
  );
  const ratios = Object.fromEntries(
    others.map((other) => [
      other.name,
      quantile(
        ours.ms.map((ms, i) => ms / other.ms[i]),
        0.5,
      ),
    ]),
  );
  return { runs, times, ratios };
}

/** The greatest difference between two answers to the same input, relative to the largest number in them. */
export function difference(a, b) {
  const size = Math.max(...a.map(Math.abs), 1e-12);
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]))) / size;
}

/** Numbers that are the same in every run: xorshift32. */
export function numbers(count, seed = 1) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  });
}
