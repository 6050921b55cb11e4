/** From a program's nodes to a scene: in Python's places, or composed where nodes stand in groups that open and close. */

import { dtypeName, lineName, boxName, nodeName, shapeName } from "../names";
import type { Selection } from "../selection";
import type { Layout, Program, Recording } from "../wire";
import { compose, type Part } from "./compose";
import { HEIGHT, WIDTH, type Edge, type EdgeKind, type Frame, type Item, type Scene, type Shape } from "./scene";

const MOVES = new Set(["reshape", "permute", "expand", "pad", "shrink", "flip", "window", "slice", "stride", "contiguous", "bitcast"]);

/** What is drawn. `src`: operands of a node as they stand in this graph. */
export interface Drawn {
  recording: Recording;
  at: number;
  nodes: readonly number[];
  src: (node: number) => readonly number[];
  layout: Layout;
  /** of a backward node, the forward node that it serves, as it stands in this graph; -1: none. Where given, the one is folded beside the other */
  forward?: (node: number) => number;
}

/** Of a node's look, what the view decides. */
export interface Look {
  bar?: (node: number) => number | null;
  detail?: (node: number) => string | null;
  change?: (node: number) => Item["change"];
  /** of a closed group: what its nodes amount to */
  group?: (id: string, nodes: readonly number[]) => { bar: number | null; detail: string } | null;
  /** a category in the place of the phase's */
  category?: (node: number) => string;
  /** of the edge from operand to user: its kind and what a click selects */
  edge?: (from: number, to: number) => { kind: EdgeKind; key: Selection | null } | null;
}

export function nodeItem({ recording, at }: Drawn, node: number, x: number, y: number, look: Look, roots: ReadonlySet<number>): Item {
  const program = recording.programs[at]!;
  const { nodes } = program;
  const op = nodes.op[node] ?? "?";
  const shape: Shape = op === "buffer" ? "input" : op === "const" ? "constant" : MOVES.has(op) ? "move" : "op";
  const size = `${shapeName(nodes.shape[node])} ${dtypeName(nodes.dtype[node])}`;
  const derivative = nodes.derivative[node];
  const short = derivative && nodes.phase[node] === "backward" ? `${derivative} · ${shapeName(nodes.shape[node])}` : size;
  const lines = (nodes.lines[node] ?? []).slice(0, 3).map(line => `${lineName(recording, line)}  ${recording.lines.text[line] ?? ""}`);
  const tip = [
    `%${node} ${nodeName(program, node)} : ${size}`,
    `phase: ${nodes.phase[node]}${nodes.module[node] ? `, module: ${nodes.module[node]}` : ""}`,
    derivative ? `made by the derivative rule: ${derivative}` : "",
    ...lines,
  ];
  return {
    key: { kind: "node", id: `${at}.${node}` }, node, group: "", x, y, w: WIDTH, h: HEIGHT, shape, tip: tip.filter(Boolean).join("\n"),
    title: boxName(program, node), detail: look.detail?.(node) ?? short, category: look.category?.(node) ?? nodes.phase[node] ?? "",
    bar: look.bar?.(node) ?? null, change: look.change?.(node) ?? "", root: roots.has(node),
  };
}

const stubsOf = new WeakMap<Layout, ReadonlySet<number>>();
const MANY = 2 ** 26;

/** The edges that are drawn as stubs, each as one number. */
function stubs(layout: Layout): ReadonlySet<number> {
  let found = stubsOf.get(layout);
  if (!found) stubsOf.set(layout, (found = new Set(layout.stubs.map(([a, b]) => a! * MANY + b!))));
  return found;
}

/** Every node where Python put it. `known`: boxes of unchanged nodes, kept from one step to the next. */
export function flatScene(drawn: Drawn, look: Look = {}, frames: Frame[] = [], known?: Map<number, Item>): Scene {
  const program = drawn.recording.programs[drawn.at]!;
  const { layout } = drawn;
  const roots = new Set(program.roots);
  const items: Item[] = [];
  const place = new Map<number, number>();
  for (const node of drawn.nodes) {
    const [x, y] = [layout.x[node], layout.y[node]];
    if (x === null || x === undefined || y === null || y === undefined) continue;
    place.set(node, items.length);
    const same = known && !look.change?.(node);
    const item = (same && known.get(node)) || nodeItem(drawn, node, x, y, look, roots);
    if (same) known.set(node, item);
    items.push(item);
  }
  const short = stubs(layout);
  const edges: Edge[] = [];
  for (const [node, to] of place) {
    const operands = drawn.src(node);
    for (let i = 0; i < operands.length; i++) {
      const operand = operands[i]!;
      const from = place.get(operand);
      if (from === undefined || operands.indexOf(operand) < i) continue;
      const kind: EdgeKind = short.has(operand * MANY + node) ? "stub" : "flow";
      edges.push({ from, to, kind, key: null, ...look.edge?.(operand, node) });
    }
  }
  return { items, frames, edges, width: layout.width, height: layout.height };
}

export interface Group {
  id: string;
  title: string;
  detail: string;
  parent: string;
  key: Selection | null;
  category: string;
}

/** Nodes in groups. `home`: the innermost group of a node; "": none. A node may be in several places (computed again in each). */
export function groupedScene(drawn: Drawn, groups: readonly Group[], home: (node: number) => readonly string[], open: ReadonlySet<string>, look: Look = {}, across = 0): Scene {
  const program = drawn.recording.programs[drawn.at]!;
  const byId = new Map(groups.map(group => [group.id, group]));
  const wish = (node: number) => ({ x: drawn.layout.x[node] ?? 0, y: drawn.layout.y[node] ?? 0 });

  const parts = new Map<string, Part>();
  const top: Part[] = [];
  const sums = new Map<string, { x: number; y: number; n: number }>();
  const partOf = (id: string): Part => {
    let part = parts.get(id);
    if (part) return part;
    part = { id: `g${id}`, wish: { x: 0, y: 0 }, ...(open.has(id) ? { parts: [] } : { w: 164, h: HEIGHT }) };
    parts.set(id, part);
    const { parent } = byId.get(id)!;
    if (parent && byId.has(parent)) partOf(parent).parts?.push(part);
    else top.push(part);
    return part;
  };
  /** The outermost closed group on the way to `id`, or "" when all are open. */
  const closed = (id: string): string => {
    let found = "";
    for (let at = id; at && byId.has(at); at = byId.get(at)!.parent) if (!open.has(at)) found = at;
    return found;
  };

  const within = new Map<string, number[]>();
  const anchors = drawn.forward ? folds(drawn, program, home) : new Map<number, number>();
  const anchored = new Set(anchors.values());
  const clusters = new Map<number, Part>();
  const boxes = new Map<string, { node: number; in: string }>();
  const copies = new Map<number, string[]>();
  for (const node of drawn.nodes) {
    const homes = home(node);
    for (const group of homes.length > 0 ? homes : [""]) {
      for (let at = group; at && byId.has(at); at = byId.get(at)!.parent) {
        const sum = sums.get(at) ?? { x: 0, y: 0, n: 0 };
        sums.set(at, { x: sum.x + wish(node).x, y: sum.y + wish(node).y, n: sum.n + 1 });
      }
      const shut = group && closed(group);
      const id = shut ? `g${shut}` : `n${node} ${group}`;
      (copies.get(node) ?? copies.set(node, []).get(node)!).push(id);
      if (shut) {
        partOf(shut);
        (within.get(shut) ?? within.set(shut, []).get(shut)!).push(node);
      } else {
        boxes.set(id, { node, in: group });
        const part: Part = { id, wish: wish(node) };
        const place = group && byId.has(group) ? partOf(group).parts! : top;
        const anchor = anchors.get(node) ?? (anchored.has(node) ? node : undefined);
        if (anchor === undefined) place.push(part);
        else {
          let cluster = clusters.get(anchor);
          if (!cluster) place.push((cluster = { id: `c${anchor}`, wish: wish(anchor), parts: [], beside: true })), clusters.set(anchor, cluster);
          if (anchor === node) cluster.parts!.unshift(part);
          else cluster.parts!.push(part);
        }
      }
    }
  }
  for (const [id, part] of parts) {
    const sum = sums.get(id);
    if (sum) part.wish = { x: sum.x / sum.n, y: sum.y / sum.n };
  }

  // A user takes the copy of its operand in its own group, else the one that is stored: the first.
  const links = new Map<string, { from: string; to: string; pair: [number, number]; way: Way }>();
  const { phase } = program.nodes;
  for (const node of drawn.nodes) {
    const homes = home(node);
    (homes.length > 0 ? homes : [""]).forEach((group, i) => {
      const to = copies.get(node)![i]!;
      for (const operand of drawn.src(node)) {
        const options = copies.get(operand);
        if (!options) continue;
        const from = options[home(operand).indexOf(group)] ?? options[0]!;
        if (from === to) continue;
        const way = !drawn.forward ? "on" : wayOf(phase[operand]!, phase[node]!, anchors.has(node) || !boxes.has(to));
        const known = links.get(`${from}|${to}`);
        if (!known || (way === "on" && known.way !== "on")) links.set(`${from}|${to}`, { from, to, pair: [operand, node], way });
      }
    });
  }
  // Two closed groups that feed each other: the way back is that of the gradients, and one line says both.
  for (const [key, { from, to, way }] of links) {
    if (way === "back" && !(boxes.has(from) && boxes.has(to)) && links.has(`${to}|${from}`)) links.delete(key);
    if (way === "kept" && !boxes.has(to)) links.delete(key);
  }
  const ranking = [...links.values()].filter(({ way }) => way === "on").map(({ from, to }) => [from, to] as const);
  const { places, width, height } = compose(top, ranking, across);

  const roots = new Set(program.roots);
  const items: Item[] = [];
  const number = new Map<string, number>();
  for (const [id, { node }] of boxes) {
    const at = places.get(id)!;
    number.set(id, items.length);
    items.push(nodeItem(drawn, node, at.x, at.y, look, roots));
  }
  const frames: Frame[] = [];
  for (const [id, part] of parts) {
    const group = byId.get(id)!;
    const at = places.get(part.id)!;
    const title = group.title;
    if (part.parts) frames.push({ key: group.key, group: id, ...at, title, closes: true });
    else {
      number.set(part.id, items.length);
      const key = group.key ?? { kind: "group", id };
      const tip = `${title}\n${group.detail}\nclick the triangle, or press Enter, to open`;
      const nodes = within.get(id) ?? [];
      const { bar = null, detail = group.detail } = look.group?.(id, nodes) ?? {};
      items.push({ key, node: -1, nodes: nodes.map(node => `${drawn.at}.${node}`), group: id, ...at, title, detail, tip, category: group.category, shape: "group", bar, change: "", root: false });
    }
  }
  const edges: Edge[] = [...links.values()].flatMap(({ from, to, pair, way }) => {
    const [a, b] = [number.get(from), number.get(to)];
    if (a === undefined || b === undefined) return [];
    const sideways = across > 0 && boxes.get(from)?.in !== boxes.get(to)?.in;
    const kind: EdgeKind = way === "kept" && !near(items[a]!, items[b]!) ? "stub" : "flow";
    return [{ from: a, to: b, kind, key: null, across: sideways, ...look.edge?.(...pair) }];
  });
  return { items, frames, edges, width, height };
}

/** What a link does to the layers: on: its user stands below; kept: a value kept for the backward pass; back: gradients. */
type Way = "on" | "kept" | "back";

function wayOf(from: string, to: string, folded: boolean): Way {
  if (to !== "backward") return "on";
  if (from !== "backward") return "kept";
  return folded ? "back" : "on";
}

const near = (a: Item, b: Item) => Math.abs(a.y - b.y) < 2 * HEIGHT && Math.abs(a.x - b.x) < 2 * WIDTH;

/** Backward node → the forward node that it is folded beside: the one that it serves, else that of the gradient which it continues. */
function folds({ nodes, src, forward }: Drawn, program: Program, home: (node: number) => readonly string[]): Map<number, number> {
  const out = new Map<number, number>();
  const there = new Set(nodes);
  const { phase } = program.nodes;
  for (const node of nodes) {
    if (phase[node] !== "backward") continue;
    const serves = forward!(node);
    const own = there.has(serves) && phase[serves] !== "backward" ? serves : src(node).map(each => out.get(each)).find(each => each !== undefined);
    if (own !== undefined && (home(own)[0] ?? "") === (home(node)[0] ?? "")) out.set(node, own);
  }
  return out;
}
