/** compare: what changed from one recording to another, and did it become faster? */

import { h, taken } from "../dom";
import { Replay } from "../frames";
import type { Lit } from "../links";
import { flatScene, groupedScene, type Drawn } from "../parts/graphscene";
import { drawnGraph, openSome, treeGroups } from "../parts/grouping";
import { head, swatch, table, twin, type Column } from "../parts/head";
import { Picture } from "../parts/picture";
import type { Scene } from "../parts/scene";
import { amount, count, MISSING, some } from "../units";
import type { CompareData, Compared, Difference, KernelPair, LinePair, NodeChange, Selectable } from "../wire";
import { together, type Cleanup, type Context, type Part } from "./view";

const SIGNS: Record<string, string> = { equal: "=", more: "▲", less: "▼", noise: "≈", new: "+", gone: "−", untested: "·", unknown: MISSING };
const CODE: Record<string, string> = { same: "nothing", schedule: "schedule", loops: "loops" };
const SURE = new Set(["more", "less", "new", "gone"]);

export const compare: Part<CompareData> = (el, data, context) => {
  const { before, after, figures, kernels, nodes, lines } = data;
  if (!before || !after) throw new Error("this page holds one recording only: tv.compare(before, after) shows two");
  el.append(head(data), sides(before, after));
  if (data.settings.length > 0) el.append(h("div.tv-settings", { role: "note" }, h("strong", {}, "Settings that differ"), h("ul", {}, ...data.settings.map(setting => h("li", {}, setting))), data.caveat));

  if (data.floor) el.append(h("p.tv-verdict", {}, data.floor));
  el.append(section("The program"), h("div.tv-scroll.tv-pairs", { tabindex: 0 }, table(numbers<Difference>("figure", row => row.name, row => row), figures)));
  marked(el.lastElementChild!, figures);

  const undo: Cleanup[] = [];
  el.append(section(`The graph: ${some(data.equal, "node")} equal, ${count(data.behind)} behind a change, ${count(nodes.length)} different`));
  if (nodes.length === 0) el.append(h("p.tv-missing", {}, "Both ask for the same computation."));
  else undo.push(graphOf(el, data, context));

  const keyOf = (pair: KernelPair) => (pair.after < 0 ? null : { kind: "kernel" as const, id: `${data.program}.${pair.after}` });
  undo.push(linked(el, "Kernels", kernels, [
    ...numbers<KernelPair>("kernel", kernelText, pair => pair.time),
    { name: "differs in", text: pair => CODE[pair.code] ?? MISSING, aside: "phone" },
    { name: "bytes", text: pair => both(pair.bytes), right: true, aside: "narrow" },
    { name: "FLOPs", text: pair => both(pair.flops), right: true, aside: "narrow" },
  ], pair => pair.time, keyOf, context));
  undo.push(linked(el, "Lines", lines, [
    ...numbers<LinePair>("line", row => row.where_after || row.where_before, row => row.time),
    { name: "code", text: row => row.code, aside: "phone" },
  ], row => row.time, row => (row.line < 0 ? null : { kind: "line" as const, id: String(row.line) }), context));
  return together(...undo);
};

function section(title: string): HTMLElement {
  return h("div.tv-title.tv-part", { role: "heading", "aria-level": 3 }, title);
}

function sides(before: Compared, after: Compared): HTMLElement {
  const side = (name: string, { recording, program, created, backend, machine, runs }: Compared) => h("div.tv-comparedside", {},
    h("strong", {}, name), ` ${recording}: ${program}`, h("div.tv-faint", {}, `${created} · ${backend} · ${machine || "machine unknown"} · ${some(runs, "run")}`));
  return h("div.tv-compared", {}, side("before", before), h("span.tv-then", { "aria-hidden": true }, "→"), side("after", after));
}

export function ratio({ before, after }: Difference): string {
  return before && after !== null ? `${(after / before).toFixed(2)} ×` : MISSING;
}

export function chance({ chance }: Difference): string {
  return chance === null ? MISSING : chance < 0.001 ? "< 0.001" : String(Number(chance.toPrecision(2)));
}

function both({ before, after, unit }: Difference): string {
  const [a, b] = [amount(before, unit), amount(after, unit)];
  return a === b ? a : `${a} → ${b}`;
}

function kernelText({ name_before, name_after }: KernelPair): string {
  return [...new Set([name_before, name_after].filter(Boolean))].join(" → ");
}

/** The columns that every table here has: before, after, verdict, ratio, chance. */
function numbers<Row>(name: string, text: (row: Row) => string, of: (row: Row) => Difference): Column<Row>[] {
  return [
    { name, text },
    { name: "before", text: row => amount(of(row).before, of(row).unit), right: true },
    { name: "after", text: row => amount(of(row).after, of(row).unit), right: true },
    { name: "verdict", text: row => `${SIGNS[of(row).verdict] ?? MISSING} ${of(row).verdict}` },
    { name: "ratio", text: row => ratio(of(row)), right: true },
    { name: "chance", text: row => chance(of(row)), right: true, aside: "phone" },
  ];
}

/** Differences within the noise are grey, the others are not. */
function marked(element: Element, rows: readonly Difference[]): void {
  element.querySelectorAll("tbody tr").forEach((line, i) => {
    const verdict = rows[i]?.verdict ?? "unknown";
    line.classList.toggle("tv-unsure", !SURE.has(verdict));
    line.setAttribute("data-verdict", verdict);
  });
}

function linked<Row>(el: HTMLElement, title: string, rows: readonly Row[], columns: Column<Row>[], of: (row: Row) => Difference, key: (row: Row) => { kind: Selectable; id: string } | null, context: Context): Cleanup {
  el.append(section(title));
  if (rows.length === 0) el.append(h("p.tv-missing", {}, `${MISSING} none was recorded`));
  const made = table(columns, rows, row => context.selection.set(key(row)));
  marked(made, rows.map(of));
  el.append(h("div.tv-scroll.tv-tall.tv-pairs", {}, made));
  const lines = [...made.querySelectorAll("tbody tr")];
  return context.onSelect(lit => lines.forEach((line, i) => {
    const mine = key(rows[i]!);
    line.classList.toggle("tv-lit", mine !== null && lit.has(mine.kind, mine.id));
    line.classList.toggle("tv-sel", mine !== null && lit.is(mine.kind, mine.id));
  }));
}

/** What differs as a list, and where it stands in the program after. */
function graphOf(el: HTMLElement, data: CompareData, context: Context): Cleanup {
  const { nodes } = data;
  const key = (change: NodeChange) => (change.after < 0 ? null : { kind: "node", id: `${data.program}.${change.after}` });
  const list = h("div.tv-edges.tv-changes", { role: "listbox", tabindex: 0, "aria-label": "what differs, in the order of the program: arrows go from one to the next" });
  let current = -1;
  const choose = (at: number) => {
    current = at; // what went is in no view of the program after, and cannot be selected there
    context.selection.set(key(nodes[at]!));
    mark(context.links.related(context.selection.value));
    rows[at]!.scrollIntoView({ block: "nearest" });
  };
  const rows = nodes.map((change, at) => {
    const category = { added: "new", removed: "removed" }[change.kind];
    const sign = category ? swatch(context.category(category)) : h("span.tv-mark", { "aria-hidden": true }, "·");
    const words = h("span.tv-change", {}, change.text_before ? h(change.kind === "removed" ? "span" : "del", {}, change.text_before) : null, change.text_before && change.text_after ? " → " : null,
      change.text_after ? h(change.kind === "added" ? "span" : "ins", {}, change.text_after) : null);
    const row = h("div.tv-edgerow", { role: "option", "aria-selected": "false", title: change.code }, sign, words, h("span.tv-where", {}, `${change.first ? "▸ begins here " : ""}${change.kind}`),
      h("span.tv-why", {}, [change.where, change.code, change.module].filter(Boolean).join(" · ")));
    row.addEventListener("click", () => choose(at));
    row.addEventListener("pointerenter", () => context.hover.set(key(change)));
    list.append(row);
    return row;
  });
  const mark = (lit: Lit) => rows.forEach((row, i) => {
    const mine = key(nodes[i]!);
    const chosen = mine !== null ? lit.is("node", mine.id) : i === current && lit.selection === null;
    row.classList.toggle("tv-lit", mine !== null && lit.has("node", mine.id));
    row.classList.toggle("tv-sel", chosen);
    row.setAttribute("aria-selected", String(chosen));
  });
  list.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    choose(Math.min(Math.max(current + by, 0), nodes.length - 1));
  });
  list.addEventListener("pointerleave", () => context.hover.set(null));
  const place = h("div.tv-fusionpicture");
  el.append(h("div.tv-split.tv-splitwide", {}, list, place));
  const { drawn, open, scene } = parts(data, context);
  const picture = new Picture(place, context, { label: `what differs, in the graph after the change, with its neighbours: ${some(drawn, "node")}`, toggle: id => {
    if (!open.delete(id)) open.add(id);
    picture.show(scene(), id);
  } });
  picture.show(scene());
  el.append(twin("what differs", [
    { name: "what", text: change => change.kind },
    { name: "begins here", text: change => (change.first ? "yes" : "") },
    { name: "before", text: change => change.text_before },
    { name: "after", text: change => change.text_after },
    { name: "line", text: change => change.where },
    { name: "code", text: change => change.code },
  ], () => nodes, change => context.selection.set(key(change))));
  const light = context.onSelect(mark);
  return together(light, () => picture.destroy());
}

/** boxes that are to be seen at first */
const SEEN_FIRST = 90;

/** The graph around what differs; where the view “graph” says what its nodes are part of, in parts that open. */
function parts(data: CompareData, context: Context): { drawn: number; open: Set<string>; scene: () => Scene } {
  const kinds = new Map(data.nodes.map(change => [change.after, change.kind]));
  const change = (node: number) => (kinds.get(node) === "added" ? "new" as const : "" as const);
  const near = neighbourhood(data, context);
  const graph = context.page.views.graph;
  if (!graph || graph.error || graph.program !== data.program || graph.groups.length === 0) return { drawn: near.nodes.length, open: new Set(), scene: () => flatScene(near, { change }) };
  const { groups, home } = treeGroups(context, graph);
  const open = openSome({ groups, home }, near.nodes, SEEN_FIRST);
  const scene = () => {
    const made = groupedScene({ ...drawnGraph(context, graph), nodes: near.nodes }, groups, home, open, {
      change,
      detail: node => (kinds.has(node) && kinds.get(node) !== "added" ? kinds.get(node)! : null),
      group: (_, nodes) => ({ bar: null, detail: `${nodes.filter(node => kinds.has(node)).length} of ${nodes.length} nodes differ` }),
    });
    // A closed part with something new in it is marked as new itself.
    for (const item of made.items) if (item.group && item.nodes?.some(id => change(Number(id.split(".")[1])) === "new")) item.change = "new";
    return made;
  };
  return { drawn: near.nodes.length, open, scene };
}

/** The nodes after that differ, with what they read and what reads them; where only something went, all of the graph. */
function neighbourhood(data: CompareData, context: Context): Drawn {
  const { program } = context.links.program(data.program);
  const simplified = program.simplified.length > 0;
  const layout = program.layouts[simplified ? "simplified" : "recorded"];
  if (!layout) throw new Error("the recording has no layout");
  const replay = new Replay(program);
  const src = (node: number) => (simplified ? replay.src(node, program.stages.length, Infinity) : (program.nodes.src[node] ?? []));
  const all = simplified ? program.simplified : program.recorded;
  const changed = new Set(data.nodes.map(change => change.after));
  const near = new Set([...changed].flatMap(node => (node < 0 ? [] : [node, ...src(node)])));
  for (const node of all) if (src(node).some(operand => changed.has(operand))) near.add(node);
  return { recording: context.recording, at: data.program, nodes: near.size > 0 ? all.filter(node => near.has(node)) : all, src, layout };
}
