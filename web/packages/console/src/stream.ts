// Server-sent events over fetch: EventSource cannot carry a header, and a token has no place in an address.

export interface StreamEvent {
  event: string;
  data: string;
}

/** Splits what arrived so far into whole events and a rest. */
export function parse(text: string): { events: StreamEvent[]; rest: string } {
  const blocks = text.replaceAll("\r\n", "\n").split("\n\n");
  const rest = blocks.pop() ?? "";
  const events = blocks.flatMap((block): StreamEvent[] => {
    const field = (name: string): string[] =>
      block
        .split("\n")
        .filter((line) => line.startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).replace(/^ /, ""));
    const data = field("data");
    return data.length ? [{ event: field("event")[0] ?? "message", data: data.join("\n") }] : [];
  });
  return { events, rest };
}

/** Calls `onOpen`, then `onEvent` until the stream ends or the signal aborts. */
export async function follow(
  url: string,
  headers: Record<string, string>,
  signal: AbortSignal,
  { onOpen, onEvent }: { onOpen(): void; onEvent(event: StreamEvent): void },
): Promise<void> {
  const response = await fetch(url, { headers: { ...headers, accept: "text/event-stream" }, signal });
  if (!response.ok || !response.body) throw new Error(`${url} answered ${response.status}`);
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parsed = parse(rest + value);
    rest = parsed.rest;
    parsed.events.forEach(onEvent);
  }
}
