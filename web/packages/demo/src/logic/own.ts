// The places that a library keeps for what the user teaches, and the names that the user gives them.

const PLACE = /^own \d+$/;

/** Whether a class is the place of something that the user teaches. */
export function isPlace(label: string): boolean {
  return PLACE.test(label);
}

/** Indices of the classes that are nobody's yet. */
export function placesOf(labels: string[]): number[] {
  return labels.flatMap((label, index) => (isPlace(label) ? [index] : []));
}

/** Names by place. What is damaged or not a name is left out. */
export function readNames(stored: string | null): Map<number, string> {
  try {
    const entries = Object.entries(JSON.parse(stored ?? "{}") as Record<string, unknown>);
    return new Map(
      entries.flatMap(([place, name]) =>
        typeof name === "string" && name && Number.isSafeInteger(Number(place))
          ? [[Number(place), name]]
          : [],
      ),
    );
  } catch {
    return new Map();
  }
}

export function writeNames(names: ReadonlyMap<number, string>): string {
  return JSON.stringify(Object.fromEntries(names));
}
