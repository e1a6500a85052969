// What a training brought, in words.

import { count, milliseconds, percent } from "@backstitch/ui";
import type { TrainReport } from "@backstitch/client";
import { html, nothing, type TemplateResult } from "lit";

/** Where answers are no labels, none of them is right or wrong. */
export function outcome(report: TrainReport, named = true): TemplateResult {
  const { shared, personal, judged_on, improved, steps, step_ms } = report;
  const judged =
    judged_on === "held_out"
      ? `${personal.n} held-out ${personal.n === 1 ? "example" : "examples"}`
      : `the ${personal.n} training examples (teach more to hold some out)`;
  return html`<strong
      >${improved ? "Better here, so your version is in use." : "Not better here, so the shared version stays in use."}</strong
    >
    On ${judged}:
    ${named ? html`${percent(shared.accuracy)} right before, ${percent(personal.accuracy)} after; ` : nothing}loss
    ${shared.loss.toFixed(2)} → ${personal.loss.toFixed(2)}. ${count(steps)} steps at
    ${milliseconds(step_ms)}.`;
}
