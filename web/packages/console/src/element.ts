// What all elements of the console share.

import { LitElement } from "lit";
import { property } from "lit/decorators.js";
import type { Operator } from "./operator.js";
import type { LibraryState } from "./state.js";

export class ConsoleElement extends LitElement {
  @property({ attribute: false }) operator!: Operator;
  @property({ attribute: false }) library!: LibraryState;
}
