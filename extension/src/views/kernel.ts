/** kernel: the loops of a kernel, its schedule, its source and its instructions, linked line by line, and to the lines of the user. */

import { button, h, taken } from "../dom";
import { message } from "../mount";
import { codePane, scrollTo, type CodeLine, type CodePane } from "../parts/code";
import { bar, selectField } from "../parts/controls";
import { editor, type Editor, type Shown, type Try } from "../parts/editor";
import { colorVariable, head, swatch, table } from "../parts/head";
import { landscape } from "../parts/landscape";
import { instructionNote } from "../parts/mnemonics";
import { flag } from "../parts/flag";
import { mainPhase } from "../parts/phase";
import { iterationSpace } from "../parts/space";
import { kernelName, lineName } from "../names";
import { amount, bytes, count, MISSING, percent, seconds, some } from "../units";
import type { Attempt, Decision, Kernel, KernelData, KernelRow, Program, TuneAnswer } from "../wire";
import { NEEDS_KERNEL, together, type Cleanup, type Context, type Part } from "./view";

const PANES = ["your lines", "loops", "scheduled", "source", "assembly"] as const;
type Pane = (typeof PANES)[number];
/** relative widths, side by side */
const WIDE: Record<Exclude<Pane, "your lines">, number> = { loops: 0.95, scheduled: 1.15, source: 1.25, assembly: 1 };

export const kernel: Part<KernelData> = (el, data, context) => {
  const { program } = context.links.program(data.program);
  const list = h("div.tv-kernels", { role: "listbox", tabindex: 0, "aria-label": "kernels, in the order of the program" });
  const body = h("div.tv-kernelbody");
  el.append(head({ ...data, title: `Kernels: ${program.name}` }), h("div.tv-split", {}, list, body));
  if (data.rows.length === 0) {
    body.append(h("p.tv-missing", {}, `${MISSING} no kernel was recorded: ${program.missing.join("; ") || "nothing was compiled"}`));
    return () => undefined;
  }
  const shown = new Set<Pane>(el.clientWidth > 1650 ? PANES : ["your lines", "scheduled", "source", "assembly"]);
  const longest = Math.max(...data.rows.map(row => row.seconds ?? row.seconds_predicted ?? 0)) || 1;
  const rows = data.rows.map(row => kernelRow(context, program, row, longest));
  list.append(...rows);

  const past = new Map<number, Past>();
  let current = -1;
  let undo: Cleanup = () => undefined;
  const show = (at: number) => {
    if (at === current || !data.rows[at]) return;
    current = at;
    undo();
    undo = one(body, data, at, shown, context, past);
    rows.forEach((row, i) => row.classList.toggle("tv-current", i === at));
    if (!list.contains(document.activeElement)) scrollTo(list, rows[at]!, true);
  };
  const choose = (at: number) => context.selection.set({ kind: "kernel", id: `${data.program}.${data.rows[at]!.kernel}` });
  rows.forEach((row, i) => {
    row.addEventListener("click", () => choose(i));
    row.addEventListener("pointerenter", () => context.hover.set({ kind: "kernel", id: `${data.program}.${data.rows[i]!.kernel}` }));
  });
  list.addEventListener("pointerleave", () => context.hover.set(null));
  list.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    const next = Math.min(Math.max(current + by, 0), rows.length - 1);
    choose(next);
    rows[next]!.scrollIntoView({ block: "nearest" });
  });
  const unselect = context.onSelect(pinned => {
    const ids = pinned.of("kernel").filter(id => id.startsWith(`${data.program}.`)).map(id => Number(id.split(".")[1]));
    rows.forEach((row, i) => {
      const lit = ids.includes(data.rows[i]!.kernel);
      row.classList.toggle("tv-lit", lit);
      row.setAttribute("aria-selected", String(pinned.is("kernel", `${data.program}.${data.rows[i]!.kernel}`)));
    });
    // A selection that reaches into the kernel on show does not take it away.
    if (ids.length > 0 && (pinned.selection?.kind === "kernel" || !ids.includes(data.rows[current]?.kernel ?? -1))) {
      const own = pinned.selection?.kind === "kernel" ? Number(pinned.selection.id.split(".")[1]) : ids[0];
      show(data.rows.findIndex(row => row.kernel === own));
    }
  });
  const unhover = context.onHover(lit => rows.forEach((row, i) => row.classList.toggle("tv-hover", lit.has("kernel", `${data.program}.${data.rows[i]!.kernel}`))));
  if (current < 0) show(Math.max(data.rows.findIndex(row => row.kernel === data.kernel), 0));
  return together(unselect, unhover, () => undo());
};

function kernelRow(context: Context, program: Program, row: KernelRow, longest: number): HTMLElement {
  const time = row.seconds ?? row.seconds_predicted;
  const phase = mainPhase(program, program.kernels[row.kernel]!);
  const name = kernelName(program, row.kernel);
  const text = time === null ? MISSING : `${seconds(time)}${row.seconds === null ? " predicted" : ""}`;
  const made = h("div.tv-kernelrow", { role: "option", "aria-selected": "false", title: `${name}\n${row.bound}` });
  made.append(h("span.tv-marks", {}, ...row.phases.map(each => swatch(context.category(each)))), h("span.tv-name", {}, name), flag(program, row.kernel) ?? "", bar(time === null ? 0 : time / longest, text, phase ? colorVariable(phase) : ""));
  return made;
}

/** One kernel: figures, schedule, and its panes. */
function one(el: HTMLElement, data: KernelData, at: number, shown: Set<Pane>, context: Context, past: Map<number, Past>): Cleanup {
  const row = data.rows[at]!;
  const { program } = context.links.program(data.program);
  const kernel = program.kernels[row.kernel];
  if (!kernel) throw new Error(`the recording has no kernel ${row.kernel}`);
  const kept = past.get(at) ?? past.set(at, { trail: [], attempts: kernel.attempts ?? [] }).get(at)!;
  let panes = makePanes(context, data.program, row.kernel, kernel);
  const grid = h("div.tv-panes");
  const lines = h("div.tv-ownlines");
  const edited = h("span.tv-editnote", { role: "status" });
  const choice = h("div.tv-tools", { role: "group", "aria-label": "columns" }, ...PANES.map(name => {
    const box = h("input", { type: "checkbox", checked: shown.has(name) });
    box.addEventListener("change", () => {
      if (box.checked) shown.add(name);
      else shown.delete(name);
      place();
    });
    return h("label.tv-field", {}, box, name);
  }), edited);
  const place = () => {
    const visible = PANES.filter(name => shown.has(name));
    const side = visible.filter(name => name !== "your lines") as Exclude<Pane, "your lines">[];
    lines.replaceChildren(panes["your lines"].element);
    lines.hidden = !shown.has("your lines");
    grid.replaceChildren(...side.map(name => panes[name].element));
    grid.style.setProperty("--panes", side.map(name => `minmax(0, ${WIDE[name]}fr)`).join(" "));
  };
  const show = (now: Shown | null) => {
    panes = makePanes(context, data.program, row.kernel, now === null ? kernel : { ...kernel, scheduled: now.scheduled, source: now.source, assembly: now.assembly, missing: "there is none: a line of the schedule is not legal" });
    edited.textContent = now === null ? "" : "the columns show your edit";
    place();
  };
  place();
  const edit = editor(context, data.program, row.kernel, kernel.schedule, kept.trail, show);
  el.replaceChildren(
    h("div.tv-title", {}, kernelName(program, row.kernel)), figures(kernel, row), schedule(context, data, at, kernel), emission(context, data.program, row.kernel) ?? "", edit.element, choice, lines, grid,
    section("iteration space", "which elements one iteration touches", () => (kernel.space ? iterationSpace(kernel.space, kernel.loops.text) : h("p.tv-missing", {}, `${MISSING} not recorded`))),
    section("tuning", kept.attempts.length > 0 ? `${kept.attempts.length} schedules were tried` : "not tuned yet", () => tuning(context, data.program, row.kernel, kernel, kept, edit)),
  );
  return together(
    context.onSelect(lit => Object.values(panes).forEach(pane => pane.light(lit, !pane.element.contains(document.activeElement)))),
    context.onHover(lit => Object.values(panes).forEach(pane => pane.preview(lit))),
  );
}

/** What stage emit did with the scheduled loops before it wrote the source; a row leads to its step. */
function emission(context: Context, at: number, kernel: number): HTMLElement | null {
  const { rules } = context.recording;
  const { program } = context.links.program(at);
  const stage = program.stages.findIndex(({ name }) => name === "emit");
  const steps = program.stages[stage]?.steps;
  const own = (steps?.kernel ?? []).flatMap((of, k) => (of === kernel ? [k] : [])).slice(0, -1);
  if (!steps || own.length === 0) return null;
  const why = (k: number) => program.decisions[steps.decision[k]!];
  return h("details.tv-twin", {}, h("summary", {}, `on the way to the source: ${some(own.length, "step")}`), table([
    { name: "what", text: k => rules.name[steps.rule[k]!]! },
    { name: "about", text: k => steps.text[k]! },
    { name: "reason", text: k => [why(k)?.reason ?? rules.reason[steps.rule[k]!]!, numbers(why(k)), refused(why(k)) && `not ${refused(why(k))}`].filter(Boolean).join("; ") },
  ], own, k => (context.selection.set({ kind: "firing", id: `${at}.${stage}.${k}` }), context.open("stages"))));
}

/** What happened to a kernel while the view was open. */
interface Past {
  trail: Try[];
  attempts: Attempt[];
}

/** A part that is made when it is opened first. */
function section(title: string, note: string, make: () => HTMLElement): HTMLElement {
  const body = h("div.tv-sectionbody");
  const made = h("details.tv-section", {}, h("summary", {}, title, h("span.tv-faint", {}, ` — ${note}`)), body);
  made.addEventListener("toggle", () => made.open && body.childElementCount === 0 && body.append(make()));
  return made;
}

/** The tuner's landscape, and the button that lets it run. */
function tuning(context: Context, program: number, number: number, kernel: Kernel, kept: Past, edit: Editor): HTMLElement {
  const { host } = context;
  const place = h("div");
  const said = h("span.tv-faint", { role: "status", "aria-live": "polite" });
  const draw = () => place.replaceChildren(kept.attempts.length > 0
    ? landscape(kept.attempts, host.editable ? ({ schedule }) => edit.load(schedule) : null)
    : h("p.tv-missing", {}, `${MISSING} this kernel was not tuned: step.tune(…) or lowered.tune() tries schedules within a budget and keeps the fastest`));
  let budget = "2";
  const run = button("tune this kernel", () => {
    run.disabled = true;
    said.textContent = "asking the kernel… A busy kernel answers after its cell.";
    host.ask<TuneAnswer>({ what: "tune", program, kernel: number, budget: Number(budget) }, text => (said.textContent = text)).then(answer => {
      kept.attempts = answer.attempts;
      said.textContent = answer.text;
      draw();
    }, (error: unknown) => (said.textContent = message(error))).finally(() => (run.disabled = false));
  }, { disabled: !host.editable, title: host.editable ? "measures on copies; what is found is kept for this machine" : NEEDS_KERNEL });
  draw();
  return h("div", {}, h("div.tv-tools", {}, run, selectField("for", [["1", "1 s"], ["2", "2 s"], ["5", "5 s"], ["20", "20 s"]], budget, value => (budget = value)),
    host.editable ? h("span.tv-faint", {}, "click a mark to put its schedule into the editor") : h("span.tv-faint", {}, `– ${NEEDS_KERNEL}`), said),
    kernel.tuned ? h("p.tv-faint", {}, `tuned on this machine at ${kernel.tuned}`) : null, place);
}

function makePanes(context: Context, at: number, number: number, kernel: Kernel): Record<Pane, CodePane> {
  const { recording, links } = context;
  const missing = kernel.missing || "not recorded";
  const key = (kind: string, line: number) => ({ kind, id: `${at}.${number}.${line}` });
  const text = (kind: "source" | "assembly"): CodeLine[] => kernel[kind].text.map((line, i) => ({ text: kind === "assembly" ? instruction(line) : line, note: kind === "assembly" ? instructionNote(line) : "", key: (kernel[kind].link[i] ?? -1) >= 0 ? key(kind, i) : null }));
  // What comes before the first line of the loops only fetches the arguments.
  const begin = (kind: "source" | "assembly") => Math.max(kernel[kind].link.findIndex(link => link >= 0) - 2, 0);
  // A line of the unscheduled loops is known by its nodes: it stands for the scheduled line with the same ones.
  const twins = new Map<string, number>();
  kernel.scheduled.nodes.forEach((nodes, i) => nodes.length > 0 && !twins.has(nodes.join()) && twins.set(nodes.join(), i));
  const loops = kernel.loops.text.map((line, i): CodeLine => {
    const nodes = kernel.loops.nodes[i] ?? [];
    const twin = twins.get(nodes.join()) ?? kernel.scheduled.nodes.findIndex(row => row.some(node => nodes.includes(node)));
    const also = (lit: { has(kind: "node", id: string): boolean }) => nodes.some(node => lit.has("node", `${at}.${node}`));
    return { text: line, key: nodes.length > 0 && twin >= 0 ? key("loop", twin) : null, also };
  });
  const sums = new Map<string, { line: number; phase: string; share: number }>();
  kernel.shares.line.forEach((line, i) => {
    const phase = kernel.shares.phase[i]!;
    const sum = sums.get(`${line} ${phase}`) ?? { line, phase, share: 0 };
    sums.set(`${line} ${phase}`, { ...sum, share: sum.share + kernel.shares.share[i]! });
  });
  const order = [...sums.values()].sort((a, b) => b.share - a.share);
  const lines = order.length > 0
    ? order.map(({ line, phase, share }): CodeLine => ({
      text: line < 0 ? "not attributed" : (recording.lines.text[line] ?? ""), label: `${percent(share).padStart(5)} ${context.category(phase).mark} ${lineName(recording, line)}`, share,
      key: line < 0 ? null : { kind: "line", id: String(line) },
    }))
    : [...new Set(kernel.nodes.flatMap(node => links.program(at).program.nodes.lines[node] ?? []))].map((line): CodeLine => ({
      text: recording.lines.text[line] ?? "", label: lineName(recording, line), key: { kind: "line", id: String(line) },
    }));
  return {
    "your lines": codePane("your lines", "python", lines, context, "no line of yours is known for it"),
    loops: codePane("loops before scheduling", "loops", loops, context, missing),
    scheduled: codePane("scheduled loops", "loops", kernel.scheduled.text.map((line, i) => ({ text: line, key: key("loop", i) })), context, missing),
    source: codePane(`source, ${kernel.source.language || "none"}`, kernel.source.language, text("source"), context, missing, begin("source")),
    assembly: codePane("assembly", "assembly", text("assembly"), context, missing, begin("assembly")),
  };
}

/** "        movq    %rcx, %r11" → "  movq     %rcx, %r11": assemblers indent for wider screens. */
function instruction(line: string): string {
  return line.replace(/^\s+(\S+)\s*/, (_, name: string) => `  ${name.padEnd(9)} `).trimEnd();
}

function figures(kernel: Kernel, row: KernelRow): HTMLElement {
  const range = (low: number | null, high: number | null) => (low === null || high === null || low === high ? "" : `${seconds(low)} to ${seconds(high)}`);
  const one = (name: string, value: string, note = "") => h("div.tv-figure", { role: "listitem" }, h("div.tv-figurename", {}, name), h("div.tv-figurevalue", {}, value, note ? h("span.tv-faint", {}, ` ${note}`) : null));
  const moved = row.bytes_read === null || row.bytes_written === null ? null : row.bytes_read + row.bytes_written;
  const intensity = moved && row.flops !== null ? `${Number((row.flops / moved).toPrecision(2))} FLOPs per byte` : "";
  return h("div.tv-figures", { role: "list" },
    one("measured", seconds(row.seconds), row.seconds === null ? "it did not run" : range(row.seconds_low, row.seconds_high)),
    one("predicted", seconds(row.seconds_predicted), row.seconds_predicted === null ? "no prediction" : `${range(kernel.seconds_predicted_low, kernel.seconds_predicted_high)} ${row.bound ? `· ${row.bound} bound` : ""}`),
    one("FLOPs", count(row.flops), kernel.flops_expanded === null ? intensity : `${count(kernel.flops_expanded)} after expansion · ${intensity}`),
    one("read", bytes(row.bytes_read), kernel.bytes_issued === null ? "" : `${bytes(kernel.bytes_issued)} issued`),
    one("written", bytes(row.bytes_written)),
    one("launches", count(row.calls.length), "per run"),
    one("share", percent(row.share), "of kernel time"),
  );
}

function schedule(context: Context, data: KernelData, at: number, kernel: Kernel): HTMLElement {
  const { program } = context.links.program(data.program);
  const list = kernel.schedule.length > 0
    ? h("ol.tv-schedule", {}, ...kernel.schedule.map(primitive => h("li", {}, h("code", {}, primitive))))
    : h("span.tv-faint", {}, "as it is: no primitive was applied");
  const ids = (data.decisions[at] ?? []).filter(i => program.decisions[i]?.stage === "schedule");
  const reasons = ids.length === 0 ? null : h("details.tv-twin", {}, h("summary", {}, `why this schedule: ${some(ids.length, "decision")}`), table([
    { name: "about", text: i => program.decisions[i]!.kind },
    { name: "verdict", text: i => program.decisions[i]!.verdict },
    { name: "reason", text: i => program.decisions[i]!.reason },
    { name: "numbers", text: i => numbers(program.decisions[i]) },
    { name: "refused", text: i => refused(program.decisions[i]) },
  ], ids, i => context.selection.set({ kind: "decision", id: `${data.program}.${i}` })));
  return h("div.tv-schedulebox", {}, h("span.tv-faint", {}, "schedule "), list, reasons);
}

const numbers = (d: Decision | undefined): string => Object.entries(d?.numbers ?? {}).map(([name, value]) => `${name} ${amount(value, name.includes("bytes") ? "bytes" : name.startsWith("seconds") ? "s" : "")}`).join(", ");

const refused = (d: Decision | undefined): string => Object.entries(d?.alternatives ?? {}).map(([name, why]) => `${name}: ${why}`).join("; ");
