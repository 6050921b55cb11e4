/** fusion: what is computed together, where is each value kept, and what was refused for which reason? */

import { button, h, taken } from "../dom";
import { Replay } from "../frames";
import { kernelName, subjectName } from "../names";
import { scrollTo } from "../parts/code";
import { decisionCard, numberText, verdictMark, verdictOf, VERDICTS } from "../parts/decision";
import { groupedScene, type Drawn } from "../parts/graphscene";
import { head, twin } from "../parts/head";
import { Picture } from "../parts/picture";
import type { EdgeKind } from "../parts/scene";
import { whatIf } from "../parts/whatif";
import { bytes, count, MISSING, some } from "../units";
import type { FusionData, FusionEdge, Program, WhatIfAnswer } from "../wire";
import { kernelGroups } from "../parts/grouping";
import { together, type Context, type Part } from "./view";

const OPEN_MOST = 250;

export const fusion: Part<FusionData> = (el, data, context) => {
  const { program } = context.links.program(data.program);
  const id = (decision: number) => ({ kind: "decision", id: `${data.program}.${decision}` });
  el.append(head(data));
  if (data.edges.length === 0) {
    el.append(h("p.tv-missing", {}, `${MISSING} no decision about fusion was recorded`));
    return () => undefined;
  }

  const list = h("div.tv-edges", { role: "listbox", tabindex: 0, "aria-label": "edges with their verdicts: arrows go from one to the next" });
  const rows: { element: HTMLElement; decision: number; verdict: string; text: string }[] = [];
  let last = -2;
  for (const edge of data.edges) {
    if (edge.kernel !== last) {
      last = edge.kernel;
      const name = last >= 0 ? kernelName(program, last) : "in no kernel";
      const heading = h("div.tv-group", {}, name);
      if (last >= 0) {
        const key = { kind: "kernel", id: `${data.program}.${last}` };
        heading.dataset.id = key.id;
        heading.addEventListener("click", () => context.selection.set(key));
      }
      list.append(heading);
    }
    rows.push(edgeRow(context, program, edge, data.program));
    list.append(rows.at(-1)!.element);
  }
  rows.forEach(({ element, decision }) => {
    element.addEventListener("click", () => context.selection.set(id(decision)));
    element.addEventListener("pointerenter", () => context.hover.set(id(decision)));
  });
  list.addEventListener("pointerleave", () => context.hover.set(null));

  // Filters: by verdict, and by words.
  const off = new Set<string>();
  const words = h("input.tv-input", { type: "search", placeholder: "filter: op, reason…", "aria-label": "filter edges", "data-lm-suppress-shortcuts": true });
  const said = h("span.tv-faint", { role: "status" });
  const filter = () => {
    const text = words.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      row.element.hidden = off.has(row.verdict) || !row.text.includes(text);
      if (!row.element.hidden) count++;
    }
    for (const heading of list.querySelectorAll<HTMLElement>(".tv-group")) {
      let next = heading.nextElementSibling as HTMLElement | null;
      while (next && !next.classList.contains("tv-group") && next.hidden) next = next.nextElementSibling as HTMLElement | null;
      heading.hidden = !next || next.classList.contains("tv-group");
    }
    said.textContent = count === rows.length ? some(count, "edge") : `${count} of ${some(rows.length, "edge")}`;
  };
  words.addEventListener("input", filter);
  words.addEventListener("keydown", event => event.stopPropagation());
  const kinds = VERDICTS.map(name => {
    const box = button(h("span.tv-key", {}, verdictMark(context, name), `${name} ${data.counts[name] ?? 0}`), () => {
      if (!off.delete(name)) off.add(name);
      box.setAttribute("aria-pressed", String(!off.has(name)));
      filter();
      draw();
    }, { "aria-pressed": "true", title: `show or hide edges that are ${name}` });
    return box;
  });
  filter();

  const card = h("div.tv-cardplace", { role: "status" });
  const place = h("div.tv-fusionpicture");
  el.append(h("div.tv-tools", {}, ...kinds, words, said), h("div.tv-split.tv-splitwide", {}, list, h("div.tv-kernelbody", {}, place, card)));

  // The picture: kernels as frames around what they compute; edges as the engine decided.
  const open = new Set(program.kernels.map((_, i) => `k${i}`));
  const drawn = fusionNodes(context, data);
  if (drawn.nodes.length > OPEN_MOST) open.clear();
  const decided = new Map(data.edges.map(edge => [`${edge.producer} ${edge.consumer}`, edge]));
  const { groups, home } = kernelGroups(context, data.program, drawn.nodes, drawn.src);
  const stored = new Map(data.edges.filter(edge => edge.producer === edge.consumer).map(edge => [edge.producer, edge]));
  const draw = (still?: string) => {
    const scene = groupedScene(drawn, groups, home, open, {
      edge: (from, to) => {
        const edge = decided.get(`${from} ${to}`);
        return edge ? { kind: edge.verdict as EdgeKind, key: id(edge.decision) } : null;
      },
      detail: node => (stored.has(node) ? "stored whole" : null),
    }, el.clientWidth > 800 ? Math.max(place.clientWidth / 620, 1) : 0);
    scene.edges = scene.edges.filter(edge => !off.has(edge.kind));
    picture.show(scene, still);
  };
  const picture = new Picture(place, context, {
    label: `${some(groups.length, "kernel")} with what they compute`,
    toggle: group => {
      if (!open.delete(group)) open.add(group);
      draw(group);
    },
  });
  draw();

  const chosen = () => rows.findIndex(row => context.links.related(context.selection.value).is("decision", `${data.program}.${row.decision}`));
  list.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    let next = chosen() + by;
    while (rows[next]?.element.hidden) next += by;
    const row = rows[next];
    if (!row) return;
    context.selection.set(id(row.decision));
    row.element.scrollIntoView({ block: "nearest" });
  });
  /** Opens the kernels that an edge stands in, and shows them. */
  const reveal = (nodes: readonly number[]) => {
    const homes = nodes.flatMap(node => home(node).slice(0, nodes.length > 1 ? undefined : 1));
    const shared = homes.filter((each, i) => homes.indexOf(each) !== i);
    const opened = (shared.length > 0 ? shared : homes).filter(each => !open.has(each));
    if (opened.length > 0) opened.forEach(each => open.add(each)), draw();
    const items = nodes.flatMap(node => picture.scene.items.filter(item => item.node === node));
    if (items.length > 0) picture.reveal(items.at(-1)!, opened.length > 0);
  };
  const answers = new Map<string, WhatIfAnswer>();
  let shown = -1;
  const light = context.onSelect(pinned => {
    let first: HTMLElement | null = null;
    for (const row of rows) {
      const lit = pinned.has("decision", `${data.program}.${row.decision}`);
      const own = pinned.is("decision", `${data.program}.${row.decision}`);
      row.element.classList.toggle("tv-lit", lit);
      row.element.classList.toggle("tv-sel", own);
      row.element.setAttribute("aria-selected", String(own));
      if (own || (lit && !first)) first = row.element;
    }
    if (first && !list.contains(document.activeElement)) scrollTo(list, first, true);
    const ids = pinned.of("decision").filter(each => each.startsWith(`${data.program}.`)).map(each => Number(each.split(".")[1]));
    const own = pinned.selection?.kind === "decision" ? ids.find(each => pinned.is("decision", `${data.program}.${each}`)) : undefined;
    const about = own ?? ids.find(each => program.decisions[each]?.stage === "fuse");
    if (about === undefined) card.replaceChildren(h("p.tv-missing", {}, "Click an edge, here or in the list: what was decided, why, and what was refused."));
    else if (about !== shown) {
      const decision = program.decisions[about]!;
      if (own !== undefined) reveal(decision.nodes);
      const made = decisionCard(context, program, decision);
      if (decision.stage === "fuse" && decision.kind === "edge") made.append(whatIf(context, data.program, about, decision, answers));
      card.replaceChildren(made);
    }
    shown = about ?? -1;
  });
  const unhover = context.onHover(lit => rows.forEach(row => row.element.classList.toggle("tv-hover", lit.has("decision", `${data.program}.${row.decision}`))));

  const joined = data.groups.filter(i => program.decisions[i]);
  if (joined.length > 0) {
    el.append(twin(`kernels joined or kept apart (${joined.length})`, [
      { name: "about", text: i => subjectName(program, program.decisions[i]!) },
      { name: "verdict", text: i => program.decisions[i]!.verdict },
      { name: "reason", text: i => program.decisions[i]!.reason },
    ], () => joined, i => context.selection.set(id(i))));
  }
  el.append(twin("edges", [
    { name: "edge", text: edge => subjectName(program, program.decisions[edge.decision]!) },
    { name: "kernel", text: edge => (edge.kernel >= 0 ? kernelName(program, edge.kernel) : "") },
    { name: "verdict", text: edge => `${edge.verdict} ${edge.where}`.trim() },
    { name: "reason", text: edge => program.decisions[edge.decision]!.reason },
    { name: "numbers", text: edge => Object.entries(program.decisions[edge.decision]!.numbers).map(([name, value]) => `${name} ${numberText(name, value)}`).join(", ") },
    { name: "refused", text: edge => Object.entries(program.decisions[edge.decision]!.alternatives).map(([name, why]) => `${name}: ${why}`).join("; ") },
  ], () => data.edges, edge => context.selection.set(id(edge.decision))));
  return together(light, unhover, () => picture.destroy());
};

function edgeRow(context: Context, program: Program, edge: FusionEdge, at: number): { element: HTMLElement; decision: number; verdict: string; text: string } {
  const decision = program.decisions[edge.decision];
  if (!decision) throw new Error(`an edge names decision ${edge.decision}; the recording has ${program.decisions.length}`);
  const name = subjectName(program, decision);
  const again = edge.flops_recomputed === null ? "" : `, computes ${edge.flops_recomputed === 0 ? "nothing" : `${count(edge.flops_recomputed)} FLOPs`} again`;
  const saved = edge.bytes_saved === null ? "" : `saves ${bytes(edge.bytes_saved)}${again}`;
  const element = h("div.tv-edgerow", { role: "option", "aria-selected": "false", "data-id": `${at}.${edge.decision}`, title: decision.reason },
    verdictMark(context, edge.verdict), h("span.tv-name", {}, name), h("span.tv-where", {}, edge.where), h("span.tv-why", {}, [decision.reason, saved].filter(Boolean).join(" · ")));
  const text = [name, edge.verdict, edge.where, decision.reason, ...Object.keys(decision.numbers), ...Object.values(decision.alternatives)].join(" ").toLowerCase();
  return { element, decision: edge.decision, verdict: verdictOf(edge.verdict), text };
}

/** What computes, and what it reads: views (reshape, expand…) are ways of reading and are passed through. */
function fusionNodes(context: Context, data: FusionData): Drawn {
  const { recording, links } = context;
  const { program } = links.program(data.program);
  const layout = program.layouts.simplified ?? program.layouts.recorded;
  if (!layout) throw new Error("the recording has no layout");
  const ends = new Set(data.edges.flatMap(edge => [edge.producer, edge.consumer]));
  const replay = new Replay(program);
  const operands = (node: number) => replay.src(node, program.stages.length, Infinity);
  const known = new Map<number, number[]>();
  const through = (node: number): number[] => {
    let found = known.get(node);
    if (!found) {
      known.set(node, []);
      found = [...new Set(operands(node).flatMap(each => (ends.has(each) || program.nodes.op[each] === "buffer" ? [each] : through(each))))];
      known.set(node, found);
    }
    return found;
  };
  const nodes = new Set<number>();
  for (const node of ends) {
    nodes.add(node);
    through(node).forEach(each => nodes.add(each));
  }
  return { recording, at: data.program, nodes: [...nodes].sort((a, b) => a - b), src: node => (program.nodes.op[node] === "buffer" ? [] : through(node)), layout };
}
