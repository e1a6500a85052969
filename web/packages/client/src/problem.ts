// The one error type of the package: a stable code, what was wrong, what to do.

/** The plain form in which an error crosses from the worker to the page. */
export interface ProblemShape {
  code: string;
  message: string;
  hint?: string;
}

/**
 * Every rejection of this package. `code` is stable and the same string that stands in the server's
 * problems, logs and metrics; `hint` says what to do.
 */
export class PatchError extends Error {
  readonly code: string;
  readonly hint: string;

  constructor(code: string, message: string, hint = "", options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.hint = hint;
    // Code that knows only the platform's convention still recognises a cancelled call.
    this.name = code === "aborted" ? "AbortError" : "PatchError";
  }

  toJSON(): ProblemShape {
    return { code: this.code, message: this.message, hint: this.hint };
  }

  /** Whatever was thrown, as a PatchError. */
  static from(thrown: unknown, fallback = "internal"): PatchError {
    if (thrown instanceof PatchError) return thrown;
    if (isShape(thrown))
      return new PatchError(thrown.code, thrown.message, thrown.hint ?? "", { cause: thrown });
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new PatchError(fallback, message, "", { cause: thrown });
  }
}

export function aborted(reason?: unknown): PatchError {
  return new PatchError("aborted", "the call was cancelled by its signal", "", { cause: reason });
}

export function closed(): PatchError {
  return new PatchError("closed", "the model is closed", "call open() again");
}

function isShape(value: unknown): value is ProblemShape {
  if (typeof value !== "object" || value === null) return false;
  const { code, message } = value as Partial<ProblemShape>;
  return typeof code === "string" && typeof message === "string";
}
