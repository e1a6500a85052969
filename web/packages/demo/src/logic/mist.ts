// A misted, greenish window before a photograph: what the simulated people of the library look through.

/** A byte b becomes gain · b + veil, in red, green and blue: the mean window of the library's `federated.json`. */
const GAIN = [0.22, 0.32, 0.28];
const VEIL = [70, 115, 100];

/** A picture through mist of this thickness: 0 is a clear window, 1 the mean one of those people. */
export function through(mist: number, { data, width, height }: ImageData): ImageData {
  const seen = new Uint8ClampedArray(data);
  for (const [channel, gain] of GAIN.entries()) {
    const [scale, veil] = [1 + mist * (gain - 1), mist * VEIL[channel]!];
    for (let at = channel; at < seen.length; at += 4) seen[at] = scale * seen[at]! + veil;
  }
  return new ImageData(seen, width, height);
}
