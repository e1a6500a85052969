// What the panels that take pictures share: a button that opens files, and a place to drop them on.

import { css, html, nothing, type TemplateResult } from "lit";

/** The field itself is invisible, but keeps the focus, which shows on its label. */
export const fileStyles = css`
  input[type="file"] {
    position: absolute;
    opacity: 0;
    width: 1px;
  }
  input[type="file"]:focus-visible + .button {
    outline: 2px solid var(--base);
    outline-offset: 2px;
  }
`;

interface FileButton {
  id: string;
  label: string;
  /** What the label alone does not say. */
  name?: string;
  multiple?: boolean;
}

/** A button that opens pictures. The same file can be opened twice in a row. */
export function fileButton(
  { id, label, name, multiple = false }: FileButton,
  take: (files: File[]) => void,
): TemplateResult {
  const change = (event: Event): void => {
    const input = event.target as HTMLInputElement;
    const files = [...(input.files ?? [])];
    input.value = "";
    if (files.length) take(files);
  };
  return html`<input
      id=${id}
      type="file"
      accept="image/*"
      ?multiple=${multiple}
      aria-label=${name ?? nothing}
      @change=${change}
    />
    <label for=${id} class="button">${label}</label>`;
}

/** Handlers of an element that a picture can be dropped on; it has the class `drop` while one is held above it. */
export function dropPlace(
  take: (files: File[]) => void,
): Record<"over" | "leave" | "drop", (event: DragEvent) => void> {
  const held = (event: DragEvent, now: boolean): void =>
    void (event.currentTarget as HTMLElement).classList.toggle("drop", now);
  return {
    over(event) {
      event.preventDefault();
      held(event, true);
    },
    leave: (event) => held(event, false),
    drop(event) {
      event.preventDefault();
      held(event, false);
      const files = [...(event.dataTransfer?.files ?? [])];
      if (files.length) take(files);
    },
  };
}
