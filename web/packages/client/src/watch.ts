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

/**
 * One worker of all pages of this site holds the stream and tells the others: a browser gives a server six lines in all,
 * and a stream keeps one. Where that worker ends, another one takes its place.
 */
export function watch({ events, library, onChange }: WatchOptions): Watch {
  const name = `backstitch-events ${events.href}`;
  const ended = new AbortController();
  const others = new BroadcastChannel(name);
  let quiet = true;
  const hear = (text: string): void => {
    quiet = false;
    const version = announced(text, library);
    if (version !== undefined) onChange(version);
  };
  others.addEventListener("message", ({ data }) => hear(String(data)));
  const tell = (text: string): void => {
    hear(text);
    others.postMessage(text);
  };
  const hold = (): Promise<void> => listen(events, ended.signal, tell);
  if (!("locks" in navigator)) void hold();
  // Rejected when it is stopped, or where locks are refused: then nobody shares.
  else
    navigator.locks.request(name, { signal: ended.signal }, hold).catch(() => {
      if (!ended.signal.aborted) void hold();
    });
  const poll = setInterval(() => {
    if (quiet) onChange(undefined);
    quiet = true;
  }, POLL_MS);
  return {
    stop() {
      clearInterval(poll);
      ended.abort();
      others.close();
    },
  };
}

/** Holds the stream until `ended`, and tells what comes; an empty text now and then says that the line is open. */
function listen(events: URL, ended: AbortSignal, tell: (text: string) => void): Promise<void> {
  let source: EventSource | undefined;
  let reopen: ReturnType<typeof setTimeout> | undefined;
  const open = (): void => {
    source = new EventSource(events);
    source.addEventListener("catalog", (event) => tell((event as MessageEvent<string>).data));
    source.addEventListener("error", () => {
      if (source?.readyState !== EventSource.CLOSED) return;
      clearTimeout(reopen);
      reopen = setTimeout(open, REOPEN_MS);
    });
  };
  const beat = setInterval(() => {
    if (source?.readyState === EventSource.OPEN) tell("");
  }, POLL_MS / 3);
  open();
  return new Promise((resolve) => {
    ended.addEventListener("abort", () => {
      clearInterval(beat);
      clearTimeout(reopen);
      source?.close();
      resolve();
    });
  });
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
