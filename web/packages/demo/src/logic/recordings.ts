// The library's built-in recordings.

import type { TensorInput } from "@backstitch/client";

export interface Recording {
  person: number;
  arm: string;
  label: number;
  name: string;
  moments: number;
  channels: number;
  /** Moment by moment. */
  values: Float32Array;
}

interface RecordingFile {
  channels: string[];
  rate_hz: number;
  scale: number;
  samples: { person: number; arm: string; label: number; name: string; moments: number; values: string }[];
}

/** Windows that are taught begin this many moments after each other. */
const STRIDE = 32;

export function readRecordings(bytes: Uint8Array): { recordings: Recording[]; rateHz: number } {
  const file = JSON.parse(new TextDecoder().decode(bytes)) as RecordingFile;
  const channels = file.channels.length;
  const recordings = file.samples.map(({ values, ...about }) => {
    const raw = Uint8Array.from(atob(values), (character) => character.charCodeAt(0));
    const view = new DataView(raw.buffer);
    if (raw.length !== 2 * channels * about.moments)
      throw new Error(
        `recording "${about.name}" has ${raw.length} bytes, not ${2 * channels * about.moments}`,
      );
    const numbers = Float32Array.from(
      { length: raw.length / 2 },
      (_, i) => view.getInt16(2 * i, true) * file.scale,
    );
    return { ...about, channels, values: numbers };
  });
  return { recordings, rateHz: file.rate_hz };
}

/** `[moments, channels]` from `start` on. */
export function windowAt({ values, channels }: Recording, start: number, moments: number): TensorInput {
  return { data: values.slice(start * channels, (start + moments) * channels), shape: [moments, channels] };
}

/** The windows within the first `until` moments. */
export function windowsOf(recording: Recording, until: number, moments: number): TensorInput[] {
  const count = Math.max(0, Math.floor((until - moments) / STRIDE) + 1);
  return Array.from({ length: count }, (_, index) => windowAt(recording, index * STRIDE, moments));
}

/** An SVG path of one channel over a window, in a box of 100 by 100; the middle is 0, `reach` is the edge. */
export function path({ data, shape }: TensorInput, channel: number, reach: number): string {
  const [moments = 0, channels = 1] = shape;
  const at = (moment: number): string => {
    const y = 50 - (50 * Number(data[moment * channels + channel])) / reach;
    return `${((100 * moment) / Math.max(1, moments - 1)).toFixed(2)} ${Math.min(100, Math.max(0, y)).toFixed(2)}`;
  };
  return `M${Array.from({ length: moments }, (_, moment) => at(moment)).join("L")}`;
}
