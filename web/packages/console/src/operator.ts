// The console's state, and what an operator can do. Elements read it and call it; it knows no element.

import { ordered, type ConsoleState } from "./state.js";
import { follow } from "./stream.js";
import { dropToken, keepToken, takeToken } from "./token.js";

export interface Failure {
  code: string;
  message: string;
  hint: string;
}

const POLL_MS = 2_000;
const RETRY_MS = 10_000;

export class Operator extends EventTarget {
  state: ConsoleState | undefined;
  failure: Failure | undefined;
  /** What an action answered last. */
  notice: string | undefined;
  live = false;
  #token = takeToken();
  #stop: AbortController | undefined;
  #reading = false;
  #again = false;

  get signedIn(): boolean {
    return this.#token !== undefined;
  }

  changed(): void {
    this.dispatchEvent(new Event("change"));
  }

  signIn(token: string): void {
    keepToken(token);
    this.#token = token;
    this.failure = undefined;
    void this.start();
  }

  signOut(): void {
    dropToken();
    this.#token = undefined;
    this.state = undefined;
    this.#stop?.abort();
    this.changed();
  }

  /** Follows the server's stream; polls while there is none. */
  async start(): Promise<void> {
    this.#stop?.abort();
    if (!this.signedIn) return this.changed();
    const stop = (this.#stop = new AbortController());
    const poll = setInterval(() => void (this.live || this.read()), POLL_MS);
    stop.signal.addEventListener("abort", () => clearInterval(poll));
    await this.read();
    while (!stop.signal.aborted) {
      try {
        await follow("/admin/v1/events", this.#headers(), stop.signal, {
          onOpen: () => {
            this.live = true;
            this.changed();
          },
          onEvent: () => void this.read(),
        });
      } catch {
        // The poll goes on; the next attempt comes below.
      }
      this.live = false;
      this.changed();
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** Reads the state; changes during a read fold into one more read. */
  async read(): Promise<void> {
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    do {
      this.#again = false;
      const state = await this.#call<ConsoleState>("GET", "/admin/v1/state");
      if (state) this.state = ordered(state);
    } while (this.#again);
    this.#reading = false;
    this.changed();
  }

  async promote(
    library: string,
    patch: string,
    version: number,
    expected: number | undefined,
    reason: string,
  ): Promise<void> {
    await this.#act(`${patch} v${version} is the champion now.`, `${this.#patch(library, patch)}/promote`, {
      version,
      reason,
      ...(expected !== undefined && { expected }),
    });
  }

  async rollback(library: string, patch: string, reason: string): Promise<void> {
    await this.#act(`${patch} is back at its previous version.`, `${this.#patch(library, patch)}/rollback`, {
      reason,
    });
  }

  async startExperiment(library: string, body: object): Promise<boolean> {
    return this.#act(
      "The experiment is running.",
      `/admin/v1/libraries/${encodeURIComponent(library)}/experiments`,
      body,
    );
  }

  async stopExperiment(library: string, experiment: string, reason: string): Promise<void> {
    const path = `/admin/v1/libraries/${encodeURIComponent(library)}/experiments/${encodeURIComponent(experiment)}/stop`;
    await this.#act(`${experiment} is stopped.`, path, { reason });
  }

  #patch(library: string, patch: string): string {
    return `/admin/v1/libraries/${encodeURIComponent(library)}/patches/${encodeURIComponent(patch)}`;
  }

  #headers(): Record<string, string> {
    return { authorization: `Bearer ${this.#token ?? ""}` };
  }

  async #act(done: string, path: string, body: object): Promise<boolean> {
    this.notice = undefined;
    const answer = await this.#call("POST", path, body);
    if (answer !== undefined) this.notice = done;
    await this.read();
    return answer !== undefined;
  }

  async #call<T = unknown>(method: string, path: string, body?: object): Promise<T | undefined> {
    try {
      const response = await fetch(path, {
        method,
        headers: { ...this.#headers(), ...(body && { "content-type": "application/json" }) },
        ...(body && { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw failureOf(response.status, text);
      // A read that works does not take away what an action has just said.
      if (method === "POST" || this.failure?.code === "network_failed") this.failure = undefined;
      return (text ? JSON.parse(text) : {}) as T;
    } catch (thrown) {
      this.failure = isFailure(thrown)
        ? thrown
        : {
            code: "network_failed",
            message: "the server cannot be reached",
            hint: "is it running? this page asks again by itself",
          };
      if (this.failure.code === "unauthorized") this.signOut();
      this.changed();
      return undefined;
    }
  }
}

function isFailure(value: unknown): value is Failure {
  return typeof value === "object" && value !== null && "code" in value && "hint" in value;
}

function failureOf(status: number, text: string): Failure {
  try {
    const { code, detail, title, hint } = JSON.parse(text) as Partial<
      Record<"code" | "detail" | "title" | "hint", string>
    >;
    return { code: code ?? "internal", message: detail ?? title ?? `status ${status}`, hint: hint ?? "" };
  } catch {
    return {
      code: status === 401 ? "unauthorized" : "internal",
      message: `the server answered ${status}`,
      hint: "see its log",
    };
  }
}
