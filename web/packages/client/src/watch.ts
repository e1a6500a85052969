// Follows the server's catalog events, and asks now and then where a stream cannot be held.

/** The stream of a server announces every library; the caller refreshes on its own. */
export interface Watch {
  stop(): void;
}

const POLL_MS = 30_000;
/** EventSource retries by itself after a dropped line, but gives up for good on an HTTP error. */
const REOPEN_MS = 15_000;

export interface WatchOptions {
  events: URL;
  library: string;
  /** Called with the announced version, or with undefined when it is time to ask. */
  onChange(version: number | undefined): void;
}

/** `https://host/prefix/v1/libraries/fashion` → `https://host/prefix/v1/events`. */
export function eventsUrl(library: string): URL {
  return new URL("../events", library.replace(/\/+$/, ""));
}

export function watch({ events, library, onChange }: WatchOptions): Watch {
  let source: EventSource | undefined;
  let reopen: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;

  const open = (): void => {
    if (stopped) return;
    source = new EventSource(events);
    source.addEventListener("catalog", (event) => {
      const version = announced((event as MessageEvent<string>).data, library);
      if (version !== undefined) onChange(version);
    });
    source.addEventListener("error", () => {
      if (source?.readyState !== EventSource.CLOSED) return;
      clearTimeout(reopen);
      reopen = setTimeout(open, REOPEN_MS);
    });
  };

  const poll = setInterval(() => {
    if (source?.readyState !== EventSource.OPEN) onChange(undefined);
  }, POLL_MS);
  open();
  return {
    stop() {
      stopped = true;
      clearInterval(poll);
      clearTimeout(reopen);
      source?.close();
    },
  };
}

/** The version in an event's text, if it is about this library. */
export function announced(text: string, library: string): number | undefined {
  try {
    const value = JSON.parse(text) as { library?: unknown; version?: unknown };
    return value.library === library && typeof value.version === "number" ? value.version : undefined;
  } catch {
    return undefined;
  }
}
