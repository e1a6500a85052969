// Sets custom properties through the CSSOM: a style attribute would be refused by the page's own policy.

import { noChange } from "lit";
import { directive, Directive, PartType, type ElementPart, type PartInfo } from "lit/directive.js";

class Vars extends Directive {
  constructor(part: PartInfo) {
    super(part);
    if (part.type !== PartType.ELEMENT) throw new Error("vars() stands where an attribute would");
  }

  render(_values: Record<string, string>): unknown {
    return noChange;
  }

  override update(part: ElementPart, [values]: [Record<string, string>]): unknown {
    for (const [name, value] of Object.entries(values))
      (part.element as HTMLElement).style.setProperty(name, value);
    return noChange;
  }
}

/** `<div ${vars({ "--at": "40%" })}>` */
export const vars = directive(Vars);
