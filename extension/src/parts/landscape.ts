/** What the tuner tried on a kernel: one mark per schedule, in order, over its time; the best so far as a line. */

import { h, s } from "../dom";
import { MISSING, seconds } from "../units";
import type { Attempt } from "../wire";
import { twin } from "./head";

const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [760, 200, 62, 10, 30];
/** letter and form: the colour is never the only mark */
const MARKS: Record<string, string> = { default: "D", faster: "F", slower: "S", wrong: "W", failed: "X" };

export function landscape(attempts: readonly Attempt[], choose: ((attempt: Attempt) => void) | null): HTMLElement {
  const timed = attempts.flatMap(({ seconds }) => seconds ?? []);
  if (timed.length === 0) return h("p.tv-missing", {}, `${MISSING} no schedule was measured`);
  const [low, high] = [Math.min(...timed) / 1.15, Math.max(...timed) * 1.15];
  const x = (i: number) => LEFT + 16 + i * Math.min(36, (WIDTH - LEFT - 32) / Math.max(attempts.length - 1, 1));
  const y = (value: number) => TOP + (Math.log(high) - Math.log(value)) / (Math.log(high) - Math.log(low)) * (HEIGHT - TOP - BOTTOM);
  const drawing = s("svg.tv-landscape", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${attempts.length} schedules that were tried, and the time of each; fastest ${seconds(Math.min(...timed))}` });
  for (const value of ticks(low, high)) {
    drawing.append(s("line.tv-grid", { x1: LEFT, x2: WIDTH - 4, y1: y(value), y2: y(value) }), s("text.tv-axis", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, seconds(value)));
  }
  drawing.append(s("text.tv-axis", { x: WIDTH - 4, y: HEIGHT - 4, "text-anchor": "end" }, "schedules in the order in which they were tried →"), s("text.tv-axis", { x: 4, y: HEIGHT - 4 }, "time of one launch, logarithmic"));
  let best = Infinity;
  let path = "";
  attempts.forEach((attempt, i) => {
    const value = attempt.seconds;
    const good = attempt.verdict !== "wrong" && attempt.verdict !== "failed";
    if (good && value !== null && value < best) {
      path += path ? `H${x(i)}V${y(value)}` : `M${x(i)} ${y(value)}`;
      best = value;
    }
    const at = value === null ? HEIGHT - BOTTOM + 2 : y(value);
    const what = `${attempt.origin || "the engine’s own schedule"}: ${seconds(value)}, ${attempt.verdict}. ${attempt.reason}`;
    const mark = s("g.tv-attempt", { transform: `translate(${x(i)} ${at})`, "data-verdict": attempt.verdict, tabindex: choose ? 0 : null, role: choose ? "button" : null, "aria-label": what }, s("title", {}, what), s("circle", { r: 8 }), s("text", { y: 4, "text-anchor": "middle" }, MARKS[attempt.verdict] ?? "?"));
    if (value !== null && attempt.seconds_low !== null && attempt.seconds_high !== null) {
      drawing.append(s("line.tv-spread", { x1: x(i), x2: x(i), y1: y(Math.max(attempt.seconds_low, low)), y2: y(Math.min(attempt.seconds_high, high)) }));
    }
    if (choose) {
      mark.addEventListener("click", () => choose(attempt));
      mark.addEventListener("keydown", event => event.key === "Enter" && choose(attempt));
    }
    drawing.append(mark);
  });
  drawing.prepend(s("path.tv-best", { d: `${path}H${x(attempts.length - 1)}` }));
  return h("div.tv-landscapeplace", {},
    h("div.tv-legend", {}, ...Object.entries({ D: "the engine’s own", F: "faster than it", S: "slower", W: "wrong: rejected by the reference", X: "failed" }).map(([mark, label]) => h("span.tv-key", {}, h("b", {}, mark), ` ${label}`)), h("span.tv-faint", {}, "the line is the best so far")),
    drawing,
    twin("what the tuner tried", [
      { name: "changed", text: a => a.origin || "the engine’s own" },
      { name: "time", text: a => seconds(a.seconds), right: true },
      { name: "half of the launches", text: a => (a.seconds_low === null || a.seconds_high === null ? "" : `${seconds(a.seconds_low)} to ${seconds(a.seconds_high)}`) },
      { name: "verdict", text: a => a.verdict },
      { name: "reason", text: a => a.reason },
      { name: "schedule", text: a => a.schedule.join("; ") || "plain loops" },
    ], () => attempts, choose ?? undefined));
}

/** 1, 2 and 5 times powers of ten; fewer where there are many. */
function ticks(low: number, high: number): number[] {
  const out: number[] = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of [1, 2, 5]) if (m * 10 ** e >= low && m * 10 ** e <= high) out.push(m * 10 ** e);
  }
  return out.length > 7 ? out.filter(value => Math.abs(Math.log10(value) % 1) < 1e-9) : out;
}
