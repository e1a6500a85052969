// Numbers for people: few digits, always a unit.

const thin = "\u202f";

export function percent(share: number, digits = 0): string {
  return `${(100 * share).toFixed(digits)}${thin}%`;
}

/** A gain as percentage points, with its sign. */
export function points(share: number): string {
  const value = 100 * share;
  return `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(1)}${thin}pt`;
}

/** With a minus sign rather than a hyphen; what rounds to zero has none. */
export function decimal(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) > 0 ? `−${text}` : text;
}

export function milliseconds(ms: number): string {
  // A page's clock ticks in steps of 0.1 ms, so a zero only says "less than a step".
  if (ms === 0) return `<${thin}0.1${thin}ms`;
  const size = Math.abs(ms);
  return `${decimal(ms, size < 10 ? 2 : size < 100 ? 1 : 0)}${thin}ms`;
}

export function bytes(count: number): string {
  if (count < 1000) return `${count}${thin}B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(1)}${thin}kB`;
  return `${(count / 1e6).toFixed(2)}${thin}MB`;
}

export function count(value: number): string {
  return Math.round(value).toLocaleString("en").replaceAll(",", thin);
}

export function macs(value: number): string {
  return value < 1e6
    ? `${(value / 1e3).toFixed(0)}${thin}k MACs`
    : `${(value / 1e6).toFixed(1)}${thin}M MACs`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)}${thin}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${thin}min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)}${thin}h`;
  return `${Math.floor(seconds / 86_400)}${thin}days`;
}

/** A clock time; with the day where it is not today. */
export function clock(unixSeconds: number, now = Date.now()): string {
  const date = new Date(unixSeconds * 1000);
  const time = date.toLocaleTimeString("en-GB");
  return Math.abs(now - date.getTime()) < 20 * 3600 * 1000
    ? time
    : `${date.toLocaleDateString("en-CA")} ${time}`;
}

/** The first digits of a digest or id. */
export function short(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}
