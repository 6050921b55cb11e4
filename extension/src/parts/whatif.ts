/** What if an edge had another verdict? Asks the kernel, and shows what would change: predicted, measured, and in the result. */

import { button, h } from "../dom";
import { message } from "../mount";
import { bytes, MISSING, seconds, some } from "../units";
import { NEEDS_KERNEL, type Context } from "../views/view";
import type { Decision, WhatIfAnswer } from "../wire";
import { VERDICTS, verdictMark, verdictOf } from "./decision";
import { table } from "./head";
import { pinLine } from "./pinline";
import { strip } from "./strip";

/** `key`: the decision's place, "program.decision"; answers are kept by it. */
export function whatIf(context: Context, program: number, index: number, decision: Decision, known: Map<string, WhatIfAnswer>): HTMLElement {
  const { host } = context;
  const { simplified } = context.links.program(program).program;
  const ends = decision.nodes.map(node => simplified.indexOf(node));
  const now = verdictOf(decision.verdict);
  const place = h("div.tv-whatifanswer", { role: "status", "aria-live": "polite" });
  const keys = new Map<string, HTMLButtonElement>();
  const show = (verdict: string, answer: WhatIfAnswer) => {
    keys.forEach((key, name) => key.setAttribute("aria-pressed", String(name === verdict)));
    place.replaceChildren(outcome(context, answer));
  };
  const ask = async (verdict: string) => {
    const kept = known.get(`${program}.${index}.${verdict}`);
    if (kept) return show(verdict, kept);
    keys.forEach(key => (key.disabled = true));
    place.replaceChildren(h("p.tv-faint", {}, `asking the kernel: what if it were ${verdict}? A busy kernel answers after its cell.`));
    try {
      const answer = await host.ask<WhatIfAnswer>({ what: "what_if", program, decision: index, verdict });
      known.set(`${program}.${index}.${verdict}`, answer);
      show(verdict, answer);
    } catch (error) {
      place.replaceChildren(h("p.tv-problem", { role: "alert" }, message(error)));
    }
    keys.forEach((key, name) => (key.disabled = name === now));
  };
  for (const verdict of VERDICTS) {
    const key = button(h("span.tv-key", {}, verdictMark(context, verdict), verdict), () => void ask(verdict), {
      "aria-pressed": "false", "data-verdict": verdict, disabled: !host.editable || verdict === now,
      title: verdict === now ? "this is how it is" : host.editable ? `recompile the touched kernels with this value ${verdict}, on copies` : NEEDS_KERNEL,
    });
    keys.set(verdict, key);
  }
  const last = VERDICTS.find(verdict => known.has(`${program}.${index}.${verdict}`));
  if (last) show(last, known.get(`${program}.${index}.${last}`)!);
  return h("div.tv-whatif", {},
    h("div.tv-tools", {}, h("strong", {}, "What if it were"), ...keys.values(),
      host.editable ? null : h("span.tv-faint", {}, `– ${NEEDS_KERNEL}. In Python: `, h("code", {}, `lowered.what_if((${ends.join(", ")}${ends.length === 1 ? "," : ""}), "${now === "whole" ? "inline" : "whole"}")`))),
    place);
}

function outcome(context: Context, a: WhatIfAnswer): HTMLElement {
  const change = (value: number) => `${value >= 0 ? "+" : "−"}${seconds(Math.abs(value))}`;
  const { before, after, difference } = a;
  const noise = difference.low <= 0 && difference.high >= 0;
  const rows: [string, string, string, string][] = [
    ["kernels", String(a.kernels_before), String(a.kernels), a.recompiled.length > 0 ? `compiled anew: ${a.recompiled.join(", ")}` : "none had to be compiled anew"],
    ["bytes moved", bytes(a.bytes_before), bytes(a.bytes_moved), ""],
    ["predicted", seconds(a.seconds_predicted_before), seconds(a.seconds_predicted), change(a.seconds_predicted - a.seconds_predicted_before)],
    ["measured", seconds(before.seconds), seconds(after.seconds), `${change(difference.seconds)}, half of ${some(difference.samples.length, "run")} ${change(difference.low)} to ${change(difference.high)}${noise ? ": inside the noise" : ""}`],
    ["largest difference", "", a.ulp === null ? "a NaN on one side" : `${a.ulp} ulp`, a.result ? `of ${a.result}` : "the results are equal, bit by bit"],
  ];
  const names = ["", "now", a.asked, ""];
  const sheet = table(names.map((name, k) => ({ name, text: (row: (typeof rows)[number]) => row[k]!, right: k === 1 || k === 2 })), rows);
  sheet.classList.add(noise ? "tv-noise" : "tv-signal");
  return h("div.tv-outcome", {},
    h("p", {}, verdictMark(context, a.verdict), " ", h("strong", {}, a.followed ? `${a.subject} would be ${a.verdict}` : `it stays ${a.verdict}`), ` — ${a.reason || MISSING}`),
    sheet, strip([["now", before], [a.asked, after]]), a.pin ? pinLine(context, a.pin) : null);
}
