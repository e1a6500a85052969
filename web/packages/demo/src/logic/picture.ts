// Square grey pictures as numbers in 0..1, and what can happen to them before the model sees them.

import { normal } from "./random.js";

export const SIDE = 28;
export const PIXELS = SIDE * SIDE;

export type Picture = Float32Array;

/** What the sliders say. */
export interface Conditions {
  /** Standard deviation of the noise, 0..0.5. */
  noise: number;
  /** Standard deviation of the blur in pixels. */
  blur: number;
  /** 1 keeps the contrast, 0 leaves grey. */
  contrast: number;
  /** Degrees, positive is anticlockwise. */
  tilt: number;
  seed: number;
}

/** In the order of the real world: the thing is tilted, out of focus, the light is flat, the sensor is noisy. */
export function photograph(scene: Picture, { noise, blur, contrast, tilt, seed }: Conditions): Picture {
  return noisy(flattened(blurred(tilted(scene, tilt), blur), contrast), noise, seed);
}

/** Turned about its centre, bilinear, black outside. */
export function tilted(picture: Picture, degrees: number): Picture {
  if (degrees === 0) return picture.slice();
  const angle = (degrees * Math.PI) / 180;
  const [cos, sin, centre] = [Math.cos(angle), Math.sin(angle), (SIDE - 1) / 2];
  const out = new Float32Array(PIXELS);
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++) {
      const [x, y] = [column - centre, row - centre];
      // Where this pixel comes from; y points down, so the inverse turn has these signs.
      out[row * SIDE + column] = sample(picture, cos * x - sin * y + centre, sin * x + cos * y + centre);
    }
  return out;
}

function sample(picture: Picture, x: number, y: number): number {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [right, down] = [x - left, y - top];
  const at = (column: number, row: number): number =>
    column < 0 || row < 0 || column >= SIDE || row >= SIDE ? 0 : picture[row * SIDE + column]!;
  return (
    (1 - down) * ((1 - right) * at(left, top) + right * at(left + 1, top)) +
    down * ((1 - right) * at(left, top + 1) + right * at(left + 1, top + 1))
  );
}

/** Gaussian blur, mirrored at the border; the kernel ends at three deviations. */
export function blurred(picture: Picture, deviation: number): Picture {
  if (deviation === 0) return picture.slice();
  const radius = Math.ceil(3 * deviation);
  const weights = Array.from({ length: 2 * radius + 1 }, (_, i) =>
    Math.exp(-0.5 * ((i - radius) / deviation) ** 2),
  );
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const mirrored = (at: number): number => {
    const period = 2 * (SIDE - 1);
    const inside = ((at % period) + period) % period;
    return Math.min(inside, period - inside);
  };
  const along = (from: Picture, place: (row: number, column: number, shift: number) => number): Picture =>
    from.map((_, index) => {
      const [row, column] = [Math.floor(index / SIDE), index % SIDE];
      return (
        weights.reduce((sum, weight, i) => sum + weight * from[place(row, column, i - radius)]!, 0) / total
      );
    });
  const rows = along(picture, (row, column, shift) => row * SIDE + mirrored(column + shift));
  return along(rows, (row, column, shift) => mirrored(row + shift) * SIDE + column);
}

/** x′ = mean + contrast · (x − mean). */
export function flattened(picture: Picture, contrast: number): Picture {
  const mean = picture.reduce((sum, value) => sum + value, 0) / picture.length;
  return picture.map((value) => mean + contrast * (value - mean));
}

/** Gaussian noise, then clipped to 0..1 as a camera does. */
export function noisy(picture: Picture, deviation: number, seed: number): Picture {
  const draw = normal(seed);
  return picture.map((value) =>
    Math.min(1, Math.max(0, deviation === 0 ? value : value + deviation * draw())),
  );
}

/** For a canvas. */
export function pixels(picture: Picture): ImageData {
  const image = new ImageData(SIDE, SIDE);
  picture.forEach((value, index) => {
    image.data.fill(Math.round(255 * value), 4 * index, 4 * index + 3);
    image.data[4 * index + 3] = 255;
  });
  return image;
}

/** RGBA bytes of a SIDE × SIDE picture to luminance (BT.601) in 0..1. */
export function luminance(rgba: Uint8ClampedArray): Picture {
  return Float32Array.from({ length: PIXELS }, (_, index) => {
    const [red, green, blue] = [rgba[4 * index]!, rgba[4 * index + 1]!, rgba[4 * index + 2]!];
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
  });
}

/** The library knows clothes that are bright on black; a photograph on white paper is turned over. */
export function onBlack(picture: Picture): Picture {
  let [sum, n] = [0, 0];
  for (let index = 0; index < PIXELS; index++) {
    const [row, column] = [Math.floor(index / SIDE), index % SIDE];
    if (row > 0 && row < SIDE - 1 && column > 0 && column < SIDE - 1) continue;
    sum += picture[index]!;
    n++;
  }
  return sum / n > 0.5 ? picture.map((value) => 1 - value) : picture;
}
