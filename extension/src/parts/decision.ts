/** A decision of the engine: what it chose, why, with which numbers, and what it refused for which reason. */

import { h } from "../dom";
import { subjectName } from "../names";
import { amount, MISSING, seconds } from "../units";
import type { Context } from "../views/view";
import type { Decision, Program } from "../wire";
import { bar } from "./controls";
import { colorVariable, swatch } from "./head";

export const VERDICTS = ["inline", "at loop", "whole"] as const;

/** The category of a verdict: "at loop i0, i1" is "at loop"; "whole, forwarded in a register" is "whole". */
export function verdictOf(text: string): string {
  return VERDICTS.find(name => text.startsWith(name)) ?? "";
}

/** A number in the unit that its name says. */
export function numberText(name: string, value: number): string {
  return amount(value, name.startsWith("seconds") ? "s" : name.includes("bytes") ? "bytes" : "");
}

export function verdictMark(context: Context, verdict: string): HTMLElement {
  const category = verdictOf(verdict);
  return category ? swatch(context.category(category)) : h("span.tv-mark", { "aria-hidden": true }, "·");
}

export function decisionCard(context: Context, program: Program, decision: Decision): HTMLElement {
  const { verdict, reason, numbers, alternatives } = decision;
  const costs = Object.entries(numbers).filter(([name]) => /^seconds_/.test(name));
  const others = Object.entries(numbers).filter(([name]) => !/^seconds_/.test(name));
  const most = Math.max(...costs.map(([, value]) => value)) || 1;
  const card = h("div.tv-card", {},
    h("div.tv-cardhead", {}, verdictMark(context, verdict), h("strong", {}, verdict), h("code", {}, subjectName(program, decision))),
    h("p.tv-reason", {}, reason || `${MISSING} no reason was recorded`));
  if (costs.length > 0) {
    const list = h("div.tv-costs", { "aria-label": "predicted cost of each choice" });
    for (const [name, value] of costs) {
      const choice = name.replace(/^seconds_/, "").replaceAll("_", " ");
      const chosen = choice === verdictOf(verdict);
      const color = VERDICTS.includes(choice as "inline") ? colorVariable(choice) : "";
      list.append(h("span.tv-costname", {}, `${chosen ? "✓ " : ""}${choice}`), bar(value / most, seconds(value), color));
    }
    card.append(h("div.tv-cardpart", {}, h("span.tv-faint", {}, "predicted cost of each choice"), list));
  }
  if (others.length > 0) {
    card.append(h("div.tv-cardpart", {}, h("span.tv-faint", {}, "numbers"), h("span", {}, ...others.map(([name, value]) =>
      h("span.tv-number2", {}, `${name.replaceAll("_", " ")} `, h("b", {}, numberText(name, value)))))));
  }
  const refused = Object.entries(alternatives);
  card.append(h("div.tv-cardpart", {}, h("span.tv-faint", {}, "refused"), refused.length === 0
    ? h("span.tv-faint", {}, "there was no other choice")
    : h("ul.tv-refused", {}, ...refused.map(([name, why]) => h("li", {}, verdictMark(context, name), h("b", {}, ` ${name}`), ` — ${why}`)))));
  return card;
}
