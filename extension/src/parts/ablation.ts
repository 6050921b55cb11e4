/** What bounds a kernel, measured: its time beside what is left of it without arithmetic, without memory traffic, and empty. */

import { h } from "../dom";
import { kernelName } from "../names";
import { percent, seconds, some } from "../units";
import type { Context } from "../views/view";
import type { Ablation, Spread } from "../wire";
import { asking } from "./asking";
import { bar } from "./controls";
import { table } from "./head";

export function ablation(context: Context, at: number, kernel: number): HTMLElement {
  const { program } = context.links.program(at);
  const of = program.kernels[kernel]!;
  const place = h("div.tv-ablationplace");
  const show = () => place.replaceChildren(...(of.ablation ? [outcome(of.ablation)] : [h("p.tv-missing", {}, "– not measured yet: what its time would be without its arithmetic, or without its memory traffic")]));
  show();
  return h("div.tv-ablation", {},
    h("div.tv-title", {}, `What bounds ${kernelName(program, kernel)}? Measured by leaving parts of it out`),
    asking<Ablation>(context, {
      label: of.ablation ? "measure again" : "measure (ablate)", title: "build the kernel loads-only, arithmetic-only and empty, and time it beside itself, on copies",
      question: { what: "ablate", program: at, kernel }, python: `rec.ablate(${kernel}, program=${at})`, waiting: "Building the kernel without its parts, and timing them in turn.",
      done: answer => ((of.ablation = answer), show(), context.say(answer.sentence)),
    }), place);
}

function outcome(a: Ablation): HTMLElement {
  const rows: [string, string, Spread][] = [["whole", "the kernel as it is", a.whole], ["loads", "loads and stores alone", a.loads], ["arithmetic", "arithmetic alone", a.arithmetic], ["empty", "empty: its launch and loops", a.empty]];
  const most = Math.max(...rows.map(([, , t]) => t.low)) || 1;
  const share = (t: Spread) => (a.whole.low > 0 ? t.low / a.whole.low : null);
  const made = table([
    { name: "what is left", text: row => row[1] },
    { name: "one launch, first quartile", text: () => "" },
    { name: "of its time", text: row => percent(share(row[2])), right: true },
    { name: "median and third quartile", text: row => `${seconds(row[2].seconds)}, ${seconds(row[2].high)} of ${some(row[2].runs, "run")}`, right: true, aside: "narrow" },
  ], rows);
  made.querySelectorAll("tbody tr").forEach((line, i) => line.children[1]!.append(bar(rows[i]![2].low / most, seconds(rows[i]![2].low))));
  return h("div", {}, h("p.tv-reason", { "data-bound": a.bound }, h("strong", {}, a.sentence), h("span.tv-faint", {}, ` · predicted: ${a.predicted}`)), h("div.tv-scroll", { tabindex: 0 }, made));
}
