// Bytes as people read them: offset, hex, and which part of the frame they are.

export interface HexRow {
  offset: string;
  cells: { text: string; part: string }[];
}

export interface FramePart {
  name: string;
  from: number;
  to: number;
  about: string;
}

/** The parts of a contribution: see the table in the protocol. */
export function frameParts(length: number, headerBytes: number): FramePart[] {
  const countAt = headerBytes - 4;
  return [
    { name: "magic", from: 0, to: 4, about: "says that this is a contribution" },
    { name: "base", from: 4, to: 36, about: "which weights the training started from" },
    { name: "once", from: 36, to: countAt, about: "a one-time code: it counts once and names nobody" },
    { name: "count", from: countAt, to: headerBytes, about: "how many numbers follow" },
    { name: "values", from: headerBytes, to: length, about: "the clipped, rounded changes of the weights" },
  ];
}

export function hexRows(bytes: Uint8Array, parts: FramePart[], width = 16): HexRow[] {
  const partOf = (at: number): string => parts.find(({ from, to }) => at >= from && at < to)?.name ?? "";
  return Array.from({ length: Math.ceil(bytes.length / width) }, (_, row) => ({
    offset: (row * width).toString(16).padStart(4, "0"),
    cells: [...bytes.subarray(row * width, (row + 1) * width)].map((byte, column) => ({
      text: byte.toString(16).padStart(2, "0"),
      part: partOf(row * width + column),
    })),
  }));
}
