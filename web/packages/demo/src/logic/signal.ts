// The built-in series of a library that scores, and what its scores come to.

export interface Signal {
  name: string;
  rateHz: number;
  /** The moments that experts marked. */
  strange: [from: number, to: number];
  values: Float32Array;
}

/** The scores of the moment before `end`. */
export interface Score {
  end: number;
  base: number;
  stitched: number;
}

interface SignalFile {
  samples: { name: string; rate_hz: number; strange: [number, number]; values: (number | null)[] }[];
}

export function readSignals(bytes: Uint8Array): Signal[] {
  const file = JSON.parse(new TextDecoder().decode(bytes)) as SignalFile;
  return file.samples.map(({ name, rate_hz, strange, values }) => ({
    name,
    rateHz: rate_hz,
    strange,
    // A gap is NaN for the model.
    values: Float32Array.from(values, (value) => value ?? NaN),
  }));
}

/** An SVG path over the whole series in a box of 100 by 100, with a gap where there is one. */
export function curve(values: Float32Array): string {
  const known = values.filter((value) => !Number.isNaN(value));
  const [low, high] = [Math.min(...known), Math.max(...known)];
  let path = "";
  let drawing = false;
  values.forEach((value, at) => {
    const gap = Number.isNaN(value);
    if (!gap) {
      const x = (100 * at) / Math.max(1, values.length - 1);
      const y = 96 - (92 * (value - low)) / (high - low || 1);
      path += `${drawing ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(1)}`;
    }
    drawing = !gap;
  });
  return path;
}

/** What somebody would be woken by: the scores above half of the highest, those close together counted once. */
export function alarms(scores: Score[], of: "base" | "stitched", apart: number): number[] {
  const loud = Math.max(0, ...scores.map((score) => score[of])) / 2;
  const found: number[] = [];
  let last = -Infinity;
  for (const score of scores)
    if (loud > 0 && score[of] > loud) {
      if (score.end - last > apart) found.push(score.end);
      last = score.end;
    }
  return found;
}

/** The highest score and where it is. */
export function highest(scores: Score[], of: "base" | "stitched"): Score | undefined {
  return scores.reduce<Score | undefined>(
    (best, score) => (best && best[of] >= score[of] ? best : score),
    undefined,
  );
}
