/** timeline: when did what run, what did the host wait for, and did the predictions hold? */

import { button, h } from "../dom";
import { lineName } from "../names";
import { asking } from "../parts/asking";
import { choosable, head, twin } from "../parts/head";
import { Track } from "../parts/track";
import { amount, MISSING, seconds, some } from "../units";
import type { CountAnswer, LedgerRow, Segment, TimelineData } from "../wire";
import { together, type Cleanup, type Context, type Part } from "./view";

export const timeline: Part<TimelineData> = (el, data, context) => {
  const { recording } = context;
  const program = context.links.program(data.program).program;
  const choices: [string, Segment, string][] = [
    ["one run", data.run, "no run with clocks was recorded: run the step inside of watch()"],
    ["whole recording", data.recording, "nothing ran while it was recorded"],
    ["compilation", data.compile, "no stage was timed"],
  ];
  let shown = choices.findIndex(([, segment]) => segment.lane.length > 0);
  if (shown < 0) shown = 0;
  const key = (at: number) => {
    const segment = choices[shown]![1];
    if ((segment.call[at] ?? -1) >= 0) return { kind: "call", id: `${data.program}.${segment.call[at]}` };
    return (segment.line[at] ?? -1) >= 0 ? { kind: "line", id: String(segment.line[at]) } : null;
  };
  const buttons = choices.map(([name], i) => button(name, () => {
    shown = i;
    press();
    track.show(choices[i]![1], choices[i]![2]);
  }));
  const press = () => buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(i === shown)));
  press();
  const runs = data.runs === 0 ? `${MISSING} nothing was measured` : `median of ${some(data.runs, "run")}`;
  el.append(head(data), h("div.tv-tools", {}, ...buttons, h("span.tv-faint", {}, `${runs} · W S zoom · A D pan · F focus · , . previous, next`)));
  const { launches } = program;
  if (launches.gap_median !== null) {
    el.append(h("div.tv-faint", {}, `host between the runs (Python, data loading): median ${seconds(launches.gap_median)}, half of them ${seconds(launches.gap_low)} – ${seconds(launches.gap_high)}`));
  }
  // The launch on show beside all of them: the middle half of the runs.
  const spread = (at: number): [number, number, number] | null => {
    const call = shown === 0 && data.run === choices[0]![1] ? (data.run.call[at] ?? -1) : -1;
    const [low, middle, high] = [launches.low[call], launches.median[call], launches.high[call]];
    return low === undefined || middle === undefined || high === undefined ? null : [low, middle, high];
  };
  const track = new Track(el, context, choices[shown]![1], key, choices[shown]![2], spread);
  const table = ledger(data, context);
  el.append(table.element);
  const ofAll = (at: number, column: readonly number[]) => seconds(column[data.run.call[at] ?? -1]);
  el.append(twin("launches", [
    { name: "lane", text: at => data.run.lane[at]! },
    { name: "what", text: at => data.run.label[at]! },
    { name: "start", text: at => seconds(data.run.start[at]), right: true },
    { name: "time", text: at => seconds(data.run.seconds[at]), right: true },
    { name: `median of ${some(data.runs, "run")}`, text: at => ofAll(at, launches.median), right: true },
    { name: "first quartile", text: at => ofAll(at, launches.low), right: true },
    { name: "third quartile", text: at => ofAll(at, launches.high), right: true },
  ], () => data.run.lane.map((_, at) => at), at => {
    const call = data.run.call[at] ?? -1;
    if (call >= 0) context.selection.set({ kind: "call", id: `${data.program}.${call}` });
  }));
  const forced = recording.realized.filter(each => each.program === data.program || each.program < 0);
  if (forced.length > 0) {
    el.append(twin(`what forced a computation (${forced.length})`, [
      { name: "cause", text: each => each.cause },
      { name: "times", text: each => String(each.count), right: true },
      { name: "line", text: each => (each.line < 0 ? MISSING : `${lineName(recording, each.line)}  ${recording.lines.text[each.line]}`) },
    ], () => forced, each => each.line >= 0 && context.selection.set({ kind: "line", id: String(each.line) })));
  }
  if (recording.waits.length > 0) {
    el.append(twin(`what the host waited for (${recording.waits.length})`, [
      { name: "", text: each => each.reason },
      { name: "times", text: each => String(each.count), right: true },
      { name: "in all", text: each => seconds(each.seconds), right: true },
      { name: "each", text: each => seconds(each.seconds / Math.max(each.count, 1)), right: true },
    ], () => recording.waits));
  }
  if (recording.caches.length > 0) {
    el.append(twin(`caches (${recording.caches.length})`, [
      { name: "cache", text: each => each.cache },
      { name: "", text: each => (each.hit ? "hit" : "miss") },
      { name: "times", text: each => String(each.count), right: true },
      { name: "guard that failed", text: each => each.guard },
      { name: "old → new", text: each => (each.old || each.new ? `${each.old} → ${each.new}` : "") },
    ], () => recording.caches));
  }
  if (program.missing.length > 0) el.append(h("p.tv-missing", {}, `${MISSING} missing: ${program.missing.join("; ")}`));
  return together(() => track.destroy(), table.undo);
};

/** Predicted beside measured; the two ranges on one scale show at a glance whether they meet. A kernel's counts are folded below its time. */
function ledger(data: TimelineData, context: Context): { element: HTMLElement; undo: Cleanup } {
  const { program } = context.links.program(data.program);
  const body = h("tbody");
  const opened = new Set<number>();
  let lines: [HTMLElement, LedgerRow][] = [];
  let undo: Cleanup = () => undefined;
  const draw = () => {
    undo();
    lines = data.ledger.filter(row => row.kernel < 0 || row.unit === "s" || row.agrees === false || opened.has(row.kernel)).map(row => [line(row), row]);
    body.replaceChildren(...lines.map(([element]) => element));
    undo = context.onSelect(lit => lines.forEach(([element, { kernel }]) => {
      element.classList.toggle("tv-lit", kernel >= 0 && lit.has("kernel", `${data.program}.${kernel}`));
      element.classList.toggle("tv-sel", kernel >= 0 && lit.is("kernel", `${data.program}.${kernel}`));
    }));
  };
  const line = (row: LedgerRow) => {
    const { kernel } = row;
    const first = kernel >= 0 && row.unit === "s";
    const fold = first ? button(opened.has(kernel) ? "▾" : "▸", event => {
      event.stopPropagation();
      if (!opened.delete(kernel)) opened.add(kernel);
      draw();
      (lines.find(([, other]) => other.kernel === kernel)?.[0].querySelector("button") as HTMLElement | null)?.focus();
    }, { class: "tv-link tv-fold", "aria-expanded": String(opened.has(kernel)), "aria-label": `FLOPs and bytes of ${row.name.replace(/^time of /, "")}` }) : null;
    const made = h(kernel >= 0 && !first ? "tr.tv-under" : "tr", { "data-agrees": row.agrees === null ? "missing" : String(row.agrees) },
      h("td", {}, fold, row.name), h("td.tv-right", {}, amount(row.predicted, row.unit), range(row.predicted_low, row.predicted_high, row.unit)),
      h("td.tv-right", {}, amount(row.measured, row.unit), range(row.measured_low, row.measured_high, row.unit)), h("td.tv-rangecell", {}, ranges(row)), h("td", {}, verdict(row)));
    if (kernel >= 0) choosable(made, () => context.selection.set({ kind: "kernel", id: `${data.program}.${kernel}` }));
    return made;
  };
  draw();
  const headings = ["figure", "predicted", "measured", "", "verdict"].map((name, i) => h(i === 1 || i === 2 ? "th.tv-right" : i === 3 ? "th.tv-rangecell" : "th", { scope: "col" }, name));
  headings[3]!.append(h("span.tv-key2", {}, h("span.tv-rangekey.tv-p"), "predicted ", h("span.tv-rangekey.tv-m"), "measured"));
  const count = asking<CountAnswer>(context, {
    label: program.peak_bytes === null ? "count FLOPs, bytes and peak memory" : "count again", title: "run the program once in the reference interpreter, on copies, and count what it does",
    question: { what: "count", program: data.program }, python: `rec.count(${data.program})`, waiting: "Counting every access in the interpreter.",
    done: answer => {
      program.peak_bytes = answer.peak_bytes;
      answer.kernels.forEach((counted, i) => void (program.kernels[i]!.counted = counted));
      data.ledger = answer.ledger;
      draw();
    },
  });
  const element = h("div.tv-ledger", {}, h("div.tv-title", {}, "Ledger: what was predicted before the run, what was measured after"), count,
    h("div.tv-scroll", { tabindex: 0 }, h("table.tv-table", {}, h("thead", {}, h("tr", {}, ...headings)), body)));
  return { element, undo: () => undo() };
}

function range(low: number | null, high: number | null, unit: string): HTMLElement | null {
  const [from, to] = [amount(low, unit), amount(high, unit)];
  return low === null || high === null || from === to ? null : h("div.tv-range", {}, `${from} – ${to}`);
}

function verdict({ agrees, predicted, measured }: LedgerRow): HTMLElement {
  if (agrees === null) return h("span.tv-faint", {}, `${MISSING} ${predicted === null ? "not predicted" : "not measured"}`);
  if (agrees) return h("span.tv-faint", {}, "✓ agrees");
  const factor = predicted && measured ? measured / predicted : null;
  return h("strong.tv-differs", {}, `✗ differs${factor === null ? "" : `: ${factor >= 1 ? `${Number(factor.toPrecision(2))} × slower` : `${Number((1 / factor).toPrecision(2))} × faster`}`}`);
}

/** Both ranges on a logarithmic scale. */
function ranges(row: LedgerRow): HTMLElement | null {
  if (row.unit !== "s") return null;
  const values = [row.predicted_low, row.predicted, row.predicted_high, row.measured_low, row.measured, row.measured_high].filter(value => value !== null && value > 0) as number[];
  if (values.length === 0) return null;
  const [low, high] = [Math.log(Math.min(...values) / 1.15), Math.log(Math.max(...values) * 1.15)];
  const at = (value: number) => (100 * (Math.log(value) - low)) / (high - low);
  const made = h("div.tv-ranges", { "aria-hidden": true });
  const put = (name: string, from: number | null, middle: number | null, to: number | null) => {
    if (middle === null || middle <= 0) return;
    const [left, right] = [at(from && from > 0 ? from : middle), at(to && to > 0 ? to : middle)];
    const bar = h(`span.tv-rangebar.${name}` as "span.");
    bar.style.left = `${left}%`;
    bar.style.width = `${Math.max(right - left, 0.5)}%`;
    const dot = h(`span.tv-rangedot.${name}` as "span.");
    dot.style.left = `${at(middle)}%`;
    made.append(bar, dot);
  };
  put("tv-p", row.predicted_low, row.predicted, row.predicted_high);
  put("tv-m", row.measured_low, row.measured, row.measured_high);
  return made;
}
