/** What a graph's nodes are part of: modules, lines and parameters as Python found them, or kernels. */

import { kernelName, lineName } from "../names";
import { amount, some } from "../units";
import type { Context } from "../views/view";
import type { GraphData } from "../wire";
import { Replay } from "../frames";
import { groupedScene, type Drawn, type Group } from "./graphscene";
import { mainPhase } from "./phase";
import type { Scene } from "./scene";

export interface Grouping {
  groups: Group[];
  /** the innermost groups of a node: several where it is computed in several */
  home: (node: number) => readonly string[];
}

/** Kernels as groups; a node that several kernels compute stands in each. Inputs stand outside, or, with `src`, with what reads them. */
export function kernelGroups(context: Context, at: number, nodes: readonly number[], src?: (node: number) => readonly number[]): Grouping {
  const index = context.links.program(at);
  const { program } = index;
  const groups = program.kernels.map((kernel, i): Group => {
    const times = program.calls.flatMap((call, c) => (call.kernel === i ? [program.launches.median[c]] : []));
    const measured = times.length > 0 && times.every(time => time !== undefined) ? times.reduce((a, b) => a! + b!, 0)! : null;
    const time = measured ?? kernel.seconds_predicted;
    const detail = `${some(kernel.nodes.filter(node => program.nodes.op[node] !== "buffer").length, "node")}${time === null ? "" : ` · ${amount(time, "s")}${measured === null ? " predicted" : ""}`}`;
    return { id: `k${i}`, title: kernelName(program, i), detail, parent: "", key: { kind: "kernel", id: `${at}.${i}` }, category: mainPhase(program, kernel) };
  });
  const homes = new Map(nodes.map(node => [node, program.nodes.op[node] === "buffer" ? [] : index.kernelsOf.get(node).map(kernel => `k${kernel}`)]));
  if (src) {
    // What no kernel computes is a way of reading, a constant or memory: it stands with each of its users. Users come later.
    const users = new Map<number, Set<string>>();
    for (const node of [...nodes].reverse()) {
      if (homes.get(node)!.length === 0) homes.set(node, [...(users.get(node) ?? [])]);
      for (const operand of src(node)) for (const home of homes.get(node)!) (users.get(operand) ?? users.set(operand, new Set()).get(operand)!).add(home);
    }
  }
  return { groups, home: node => homes.get(node) ?? [] };
}

/** Modules within modules, lines outside of modules, the optimizer by parameter. */
export function treeGroups({ recording, links }: Context, data: GraphData): Grouping {
  const { program } = links.program(data.program);
  const times = new Map<number, number>();
  const first = new Map<number, number>();
  data.home.forEach((home, i) => {
    const time = data.overlays.time?.[i] ?? null;
    for (let at = home; at >= 0; at = data.groups[at]!.parent) {
      if (!first.has(at)) first.set(at, data.drawn[i]!);
      if (time !== null) times.set(at, (times.get(at) ?? 0) + time);
    }
  });
  const names = (at: number): string[] => (at < 0 ? [] : [...names(data.groups[at]!.parent), data.groups[at]!.name]);
  const member = new Map<number, number>(); // of a module: a node that is its own, or of a module within
  data.home.forEach((home, i) => {
    const node = data.drawn[i]!;
    const module = program.nodes.module[node];
    if (module && home >= 0 && module === names(home).join(".")) for (let at = home; at >= 0 && !member.has(at); at = data.groups[at]!.parent) member.set(at, node);
  });
  const moduleKey = (at: number) => (member.has(at) ? { kind: "module", id: `${data.program}.${member.get(at)}.${names(at).length}` } : null);
  const update = new Map<number, number>(); // of a parameter: the node that writes it, which is its last
  data.home.forEach((home, i) => home >= 0 && program.nodes.op[data.drawn[i]!] === "assign" && update.set(home, data.drawn[i]!));
  // The optimizer as a whole is the line that steps it; one parameter of it is its update.
  const line = program.nodes.lines[data.drawn.find(node => program.nodes.op[node] === "assign" && program.nodes.phase[node] === "optimizer") ?? -1]?.[0];
  const optimizerKey = line === undefined ? null : { kind: "line", id: String(line) };
  const parameterKey = (at: number) => (update.has(at) ? { kind: "node", id: `${data.program}.${update.get(at)}` } : null);
  const groups = data.groups.map(({ name, kind, parent, nodes, line }, i): Group => ({
    id: `t${i}`, parent: parent < 0 ? "" : `t${parent}`, detail: `${some(nodes, "node")}${times.has(i) ? ` · ${amount(times.get(i), "s")}` : ""}`,
    title: kind === "line" ? `${lineName(recording, line)} ${(recording.lines.text[line] ?? "").trim()}` : name,
    key: kind === "line" ? { kind: "line", id: String(line) } : kind === "module" ? moduleKey(i) : kind === "optimizer" ? optimizerKey : kind === "parameter" ? parameterKey(i) : null,
    category: kind === "optimizer" || kind === "parameter" ? "optimizer" : (program.nodes.phase[first.get(i) ?? -1] ?? ""),
  }));
  const homes = new Map(data.drawn.map((node, i) => [node, data.home[i]! >= 0 ? [`t${data.home[i]}`] : []]));
  return { groups, home: node => homes.get(node) ?? [] };
}

/** Opens groups from the outside inwards while not more than `most` boxes are to be seen: modules first, the optimizer last. */
export function openSome({ groups, home }: Grouping, nodes: readonly number[], most: number): Set<string> {
  const open = new Set<string>();
  const children = new Map<string, Group[]>();
  const inside = new Map<string, number>();
  const count = (group: string) => inside.set(group, (inside.get(group) ?? 0) + 1);
  for (const node of nodes) home(node).slice(0, 1).forEach(count);
  for (const group of groups) {
    if (group.parent) count(group.parent);
    (children.get(group.parent) ?? children.set(group.parent, []).get(group.parent)!).push(group);
  }
  const order = (group: Group) => (group.category === "optimizer" ? 2 : group.key?.kind === "line" ? 1 : 0);
  const ready = [...(children.get("") ?? [])];
  let full = Infinity; // what comes after a part that had to stay closed stays closed too
  let seen = ready.length + nodes.filter(node => home(node).length === 0).length;
  while (ready.length > 0) {
    ready.sort((a, b) => order(a) - order(b));
    const group = ready.shift()!;
    const { id } = group;
    const more = (inside.get(id) ?? 0) - 1;
    if (seen + more > most) full = Math.min(full, order(group));
    if (seen + more > most || order(group) > full) continue;
    seen += more;
    open.add(id);
    ready.push(...(children.get(id) ?? []));
  }
  return open;
}

/** boxes of the overview's picture */
const FEW = 14;

/** The graph as few parts: its scene by what is open. */
export function closedParts(context: Context, data: GraphData): { open: Set<string>; scene: () => Scene } {
  const drawn = drawnGraph(context, data);
  const grouping = treeGroups(context, data);
  const open = openSome(grouping, data.drawn, FEW);
  return { open, scene: () => groupedScene(drawn, grouping.groups, grouping.home, open) };
}

/** The nodes of the view “graph” as they stand at the end. */
export function drawnGraph({ recording, links }: Context, data: GraphData): Required<Drawn> {
  const { program } = links.program(data.program);
  const layout = program.layouts[data.layout];
  if (!layout) throw new Error(`the recording has no layout called “${data.layout}”`);
  const replay = new Replay(program);
  const simplified = data.layout !== "recorded";
  return {
    recording, at: data.program, nodes: data.drawn, layout,
    src: node => (simplified ? replay.src(node, program.stages.length, Infinity) : (program.nodes.src[node] ?? [])),
    forward: node => {
      const serves = program.nodes.forward[node] ?? -1;
      return serves < 0 || !simplified ? serves : replay.find(serves, program.stages.length, Infinity);
    },
  };
}
