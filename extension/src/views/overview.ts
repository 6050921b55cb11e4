/** overview: code | graph | kernels | time, on one screen, linked. */

import { cut, h } from "../dom";
import { kernelName, lineName } from "../names";
import { colorVariable, head, swatch, twin } from "../parts/head";
import { bar } from "../parts/controls";
import { boxScene } from "../parts/boxes";
import { closedParts } from "../parts/grouping";
import { flag } from "../parts/flag";
import { mainPhase } from "../parts/phase";
import { Picture } from "../parts/picture";
import { Track } from "../parts/track";
import { tokens } from "../parts/code";
import { amount, MISSING, percent, seconds } from "../units";
import type { KernelRow, LineRow, OverviewData, Program, Segment } from "../wire";
import { stack } from "./lines";
import { together, type Cleanup, type Context, type Part } from "./view";

export const overview: Part<OverviewData> = (el, data, context) => {
  const undo: Cleanup[] = [];
  const columns = h("div.tv-columns", {});
  el.append(head(data), figures(data), columns);
  undo.push(code(column(columns, "code", "what you wrote, and what it costs"), data, context));
  undo.push(parts(column(columns, "graph", "what it builds: ▸ opens a part"), data, context));
  undo.push(kernels(column(columns, "kernels", "what the engine made of it"), data, context));
  undo.push(time(column(columns, "time", "when each kernel ran"), data, context));
  const { program } = context.links.program(data.program);
  if (program.missing.length > 0) el.append(h("p.tv-missing", {}, `${MISSING} missing: ${program.missing.join("; ")}`));
  el.append(twin("predicted and measured", [
    { name: "figure", text: figure => figure.name },
    { name: "predicted", text: figure => amount(figure.predicted, figure.unit), right: true },
    { name: "measured", text: figure => amount(figure.measured, figure.unit), right: true },
    { name: "note", text: figure => figure.note },
  ], () => data.figures));
  return together(...undo);
};

function column(el: HTMLElement, name: string, about: string): HTMLElement {
  const body = h("div.tv-columnbody");
  el.append(h("section.tv-column", { "data-column": name }, h("div.tv-panehead", {}, h("span", {}, name), h("span.tv-faint", { title: about }, about)), body));
  return body;
}

function figures({ figures }: OverviewData): HTMLElement {
  return h("div.tv-figures.tv-strip2", { role: "list" }, ...figures.map(({ name, unit, predicted, measured, note }) => {
    const both = predicted !== null && measured !== null && predicted !== measured;
    const small = both ? `predicted ${amount(predicted, unit)}` : measured === null && predicted !== null ? "predicted" : note;
    return h("div.tv-figure", { title: note, role: "listitem" }, h("div.tv-figurename", {}, name), h("div.tv-figurevalue", {}, amount(measured ?? predicted, unit), h("span.tv-faint", {}, small)));
  }));
}

const AROUND = 2;

/** The blanks that all of the lines begin with that are shown together from `line` on. */
function margin(text: readonly string[], shown: readonly number[], line: number): number {
  const there = new Set(shown);
  const blanks: number[] = [];
  for (let at = line, last = line; at <= last + AROUND + 1 && at <= text.length; at++) {
    if (!there.has(at) || !text[at - 1]?.trim()) continue;
    blanks.push(text[at - 1]!.search(/\S/));
    last = at;
  }
  return Math.min(...blanks, 40);
}

/** The user's lines with their share of the time, and those around them. */
function code(el: HTMLElement, data: OverviewData, context: Context): Cleanup {
  const { recording } = context;
  const { files, lines } = recording;
  const measured = data.lines.some(row => row.seconds !== null);
  const most = Math.max(...data.lines.map(row => row.share ?? 0)) || 1;
  const list = h("div.tv-lines", { role: "listbox", tabindex: 0, "aria-label": "your lines" });
  const rows: Row[] = [];
  const put = (row: LineRow, indent: number) => {
    const time = measured ? row.seconds : row.seconds_predicted;
    const known = row.line >= 0;
    const whole = known ? (files[lines.file[row.line]!]?.text.split("\n")[lines.line[row.line]! - 1] ?? lines.text[row.line]!) : "not attributed to a line";
    const text = whole.slice(indent);
    const element = h("div.tv-lineRow", { role: "option", "aria-selected": "false", "data-id": row.line, title: `${lineName(recording, row.line)}\n${text}\n${seconds(time)}` },
      h("span.tv-number", {}, known ? String(lines.line[row.line]) : ""), h("span.tv-text", {}, ...(known ? tokens(text, "python") : [text])), h("span.tv-right", {}, percent(row.share)), stack(context, row, time, most));
    const key = known ? { kind: "line", id: String(row.line) } : null;
    element.addEventListener("click", () => context.selection.set(key));
    element.addEventListener("pointerenter", () => context.hover.set(key));
    list.append(element);
    rows.push({ element, kind: "line", id: String(row.line) });
  };
  for (const [at, file] of files.entries()) {
    const own = new Map(data.lines.filter(row => row.line >= 0 && lines.file[row.line] === at).map(row => [lines.line[row.line]!, row]));
    if (own.size === 0) continue;
    list.append(h("div.tv-group", {}, file.name));
    const text = file.text.split("\n");
    let indent = 0;
    const shown = new Set([...own.keys()].flatMap(line => Array.from({ length: 2 * AROUND + 1 }, (_, i) => line - AROUND + i)));
    let last = -1;
    for (const line of [...shown].sort((a, b) => a - b)) {
      const row = own.get(line);
      if (!row && (line < 1 || line > text.length || !text[line - 1]!.trim())) continue;
      if (last < 0 || line > last + AROUND + 1) indent = margin(text, [...shown], line);
      if (last >= 0 && line > last + AROUND + 1) list.append(h("div.tv-between"));
      last = line;
      if (row) put(row, indent);
      else list.append(h("div.tv-lineRow.tv-context", {}, h("span.tv-number", {}, String(line)), h("span.tv-text", {}, text[line - 1]!.slice(indent))));
    }
  }
  data.lines.filter(row => row.line < 0).forEach(row => put(row, 0));
  if (rows.length === 0) list.append(h("p.tv-missing", {}, `${MISSING} no line of yours is known`));
  el.append(list);
  return lit(list, rows, context);
}

/** The graph by its parts, as the view “graph” has them; where that view is not on the page, modules as Python placed them. */
function parts(el: HTMLElement, data: OverviewData, context: Context): Cleanup {
  const nodes = context.page.views.graph;
  const there = nodes && !nodes.error && nodes.program === data.program && nodes.groups.length > 0 && context.recording.programs[data.program]!.layouts[nodes.layout];
  const tree = there ? closedParts(context, nodes) : null;
  const open = tree?.open ?? new Set<string>();
  const show = (still?: string) => picture.show(tree?.scene() ?? boxScene(context, data), still);
  const picture = new Picture(el, context, { label: "parts of the program", follow: false, whole: true, toggle: id => {
    if (!open.delete(id)) open.add(id);
    show(id);
  } });
  show();
  return () => picture.destroy();
}

function kernels(el: HTMLElement, data: OverviewData, context: Context): Cleanup {
  const { program } = context.links.program(data.program);
  const longest = Math.max(...data.kernels.map(row => row.seconds ?? row.seconds_predicted ?? 0)) || 1;
  const list = h("div.tv-lines", { role: "listbox", tabindex: 0, "aria-label": "kernels" });
  const rows = data.kernels.map(row => {
    const element = h("div.tv-kernelrow", { role: "option", "aria-selected": "false", "data-id": `${data.program}.${row.kernel}` }, h("span.tv-marks", {}, ...row.phases.map(phase => swatch(context.category(phase)))),
      h("span.tv-name", { title: kernelName(program, row.kernel) }, kernelName(program, row.kernel)), flag(program, row.kernel), meter(program, row, longest));
    const key = { kind: "kernel", id: `${data.program}.${row.kernel}` };
    element.addEventListener("click", () => context.selection.set(key));
    element.addEventListener("dblclick", () => context.open("kernel"));
    element.addEventListener("pointerenter", () => context.hover.set(key));
    list.append(element);
    return { element, kind: "kernel" as const, id: key.id };
  });
  if (rows.length === 0) list.append(h("p.tv-missing", {}, `${MISSING} no kernel was recorded`));
  el.append(list);
  return lit(list, rows, context);
}

function meter(program: Program, row: KernelRow, longest: number): HTMLElement {
  const time = row.seconds ?? row.seconds_predicted;
  const phase = mainPhase(program, program.kernels[row.kernel]!);
  return bar(time === null ? 0 : time / longest, time === null ? MISSING : `${seconds(time)}${row.seconds === null ? " predicted" : ""}`, phase ? colorVariable(phase) : "");
}

function time(el: HTMLElement, data: OverviewData, context: Context): Cleanup {
  const { program } = context.links.program(data.program);
  const runs = program.launches.runs.filter(run => run.starts.length > 0);
  // of the runs kept in full, the one that is nearest to the median of all
  const median = program.launches.host_median;
  const run = median === null ? runs.at(-1) : runs.toSorted((a, b) => Math.abs(a.host_seconds - median) - Math.abs(b.host_seconds - median))[0];
  // One lane per kernel: a staircase that reads from top to bottom.
  const order = program.calls.map((_, i) => i);
  const segment: Segment = run
    ? {
      lane: order.map(i => `k${program.calls[i]!.kernel}`), label: order.map(i => cut(program.kernels[program.calls[i]!.kernel]?.name ?? "", 40)),
      start: run.starts, seconds: run.seconds, category: order.map(i => mainPhase(program, program.kernels[program.calls[i]!.kernel]!) || "host"), call: order, line: order.map(() => -1),
    }
    : { lane: [], label: [], start: [], seconds: [], category: [], call: [], line: [] };
  const track = new Track(el, context, segment, at => ({ kind: "call", id: `${data.program}.${at}` }), "no run with clocks was recorded");
  return () => track.destroy();
}

interface Row {
  element: HTMLElement;
  kind: "line" | "kernel";
  id: string;
}

/** Lights rows, and walks through them with the arrows. */
function lit(list: HTMLElement, rows: Row[], context: Context): Cleanup {
  list.addEventListener("pointerleave", () => context.hover.set(null));
  list.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const { value } = context.selection;
    const at = rows.findIndex(row => value?.kind === row.kind && value.id === row.id);
    const next = rows[Math.min(Math.max(at + by, 0), rows.length - 1)];
    if (next && next.id !== "-1") context.selection.set({ kind: next.kind, id: next.id });
  });
  return together(
    context.onSelect(pinned => rows.forEach(({ element, kind, id }) => {
      element.classList.toggle("tv-lit", pinned.has(kind, id));
      element.classList.toggle("tv-sel", pinned.is(kind, id));
      element.setAttribute("aria-selected", String(pinned.is(kind, id)));
    })),
    context.onHover(hover => rows.forEach(({ element, kind, id }) => element.classList.toggle("tv-hover", hover.has(kind, id)))),
  );
}
