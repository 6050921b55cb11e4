/** graph: which operations, and what flows between them? By module or by kernel, opened on demand; gradients beside their forward node. */

import { button, h, taken } from "../dom";
import { kernelName } from "../names";
import { Replay } from "../frames";
import { head, twin } from "../parts/head";
import { flatScene, groupedScene, type Drawn, type Group, type Look } from "../parts/graphscene";
import { nodeColumns } from "../parts/nodes";
import { mainPhase } from "../parts/phase";
import { Picture } from "../parts/picture";
import type { Frame, Item, Scene } from "../parts/scene";
import { fieldsOf, searchBox, type Fields, type Test } from "../parts/search";
import { selectField } from "../parts/controls";
import { amount, bytes, count } from "../units";
import type { GraphData } from "../wire";
import { together, type Context, type Part } from "./view";

type By = "flat" | "module" | "kernel";

/** nodes above which groups begin closed */
const OPEN_MOST = 400;
/** frames of modules above which they would hide more than they say */
const FRAMES_MOST = 40;

export const graph: Part<GraphData> = (el, data, context) => {
  const { recording, links } = context;
  const index = links.program(data.program);
  const { program } = index;
  const layout = program.layouts[data.layout];
  if (!layout) throw new Error(`the recording has no layout called “${data.layout}”`);
  const replay = new Replay(program);
  const simplified = data.layout !== "recorded";
  const src = (node: number) => (simplified ? replay.src(node, program.stages.length, Infinity) : (program.nodes.src[node] ?? []));
  const drawn: Drawn = { recording, at: data.program, nodes: data.drawn, src, layout };

  const kernels = program.kernels.some(kernel => kernel.nodes.length > 0);
  const modules = data.boxes.length > 0;
  let by: By = data.drawn.length <= OPEN_MOST ? "flat" : modules ? "module" : kernels ? "kernel" : "flat";
  let gradients = true;
  let overlay = "";
  const open = new Set<string>();

  const groups = (): { groups: Group[]; home: (node: number) => readonly string[] } =>
    by === "kernel" ? kernelGroups(context, data.program, data.drawn) : moduleGroups(context, data);
  const look = (): Look => {
    const values = data.overlays[overlay];
    if (!values) return {};
    const of = new Map(data.drawn.map((node, i) => [node, values[i] ?? null]));
    const most = Math.max(...values.map(value => value ?? 0)) || 1;
    const unit = overlay.includes("seconds") ? "s" : overlay.includes("bytes") ? "bytes" : "";
    return {
      bar: node => (of.get(node) == null ? null : of.get(node)! / most),
      detail: node => `${amount(of.get(node), unit)}${of.get(node) == null ? " not computed" : ""}`,
    };
  };
  const scene = (): Scene => {
    const shown = gradients ? drawn : { ...drawn, nodes: drawn.nodes.filter(node => program.nodes.phase[node] !== "backward") };
    if (by === "flat") return flatScene(shown, look(), data.boxes.length <= FRAMES_MOST ? data.boxes.map(moduleFrame) : []);
    const { groups: all, home } = groups();
    return groupedScene(shown, all, home, open, look(), by === "kernel" && el.clientWidth > 800);
  };

  let found: Item[] = [];
  let at = -1;
  let test: Test | null = null;
  const known = new Map<number, Fields>();
  const fields = (node: number) => {
    let value = known.get(node);
    if (!value) known.set(node, (value = fieldsOf(recording, data.program, node, index.kernelsOf.get(node))));
    return value;
  };
  const run = (): number => {
    found = test ? picture.scene.items.filter(item => (item.node >= 0 ? test!(fields(item.node)) : inside(item.group).some(node => test!(fields(node))))) : [];
    at = -1;
    picture.find(test ? new Set(found) : null);
    return found.length;
  };
  /** The nodes in a closed group. */
  const inside = (group: string): number[] => {
    const { groups: all, home } = groups();
    const under = new Set([group]);
    for (const each of all) if (under.has(each.parent)) under.add(each.id);
    return data.drawn.filter(node => home(node).some(id => under.has(id)));
  };
  const step = (way: 1 | -1) => {
    if (found.length === 0) return;
    at = (at + way + found.length) % found.length;
    picture.choose(found[at]!.key);
    picture.reveal(found[at]!, true);
  };

  const show = (still?: string) => {
    picture.show(scene(), still);
    run();
  };
  const group = selectField("group", [["flat", "by nothing"], ...(modules ? [["module", "by module"] as const] : []), ...(kernels ? [["kernel", "by kernel"] as const] : [])], by, value => {
    by = value as By;
    open.clear();
    if (by !== "flat" && data.drawn.length <= OPEN_MOST) groups().groups.forEach(each => open.add(each.id));
    tools();
    show();
    picture.open();
  });
  const figures = Object.keys(data.overlays).filter(name => data.overlays[name]!.some(value => value !== null));
  const figure = selectField("figure", [["", "shape"], ...figures.map(name => [name, name.replaceAll("_", " ")] as const)], "", value => {
    overlay = value;
    show();
  });
  const fold = h("input", { type: "checkbox", checked: true });
  fold.addEventListener("change", () => {
    gradients = fold.checked;
    show();
  });
  const all = button("open all", () => (groups().groups.forEach(each => open.add(each.id)), show(), picture.open()));
  const none = button("close all", () => (open.clear(), show(), picture.open()));
  const tools = () => (all.hidden = none.hidden = by === "flat");
  const search = searchBox(next => ((test = next), run()), step);
  const hasGradients = data.drawn.some(node => program.nodes.phase[node] === "backward");
  const bar = h("div.tv-tools", {}, search.element, group, figures.length > 0 ? figure : null, hasGradients ? h("label.tv-field", {}, fold, "gradients") : null,
    all, none, button("fit", () => picture.viewport.fit(), { title: "all of it (space)" }));
  el.append(head(data), bar);
  const picture = new Picture(el, context, {
    label: `${data.drawn.length} nodes`,
    toggle: id => {
      if (!open.delete(id)) open.add(id);
      show(id);
    },
    key: event => {
      if (event.key !== "/") return false;
      taken(event);
      search.focus();
      return true;
    },
  });
  tools();
  show();
  el.append(facts(context, data), twin("nodes", nodeColumns(context, data.program, src), () => (test ? data.drawn.filter(node => test!(fields(node))) : data.drawn),
    node => context.selection.set({ kind: "node", id: `${data.program}.${node}` })));
  // Something selected elsewhere may stand in a closed group: that group is lit, because its node is.
  return together(() => picture.destroy());

  function moduleFrame({ name, x, y, width, height }: GraphData["boxes"][number], i: number): Frame {
    const near = (box: GraphData["boxes"][number]) => Math.abs(box.y - box.height / 2 - (y - height / 2)) < 24 && Math.abs(box.x - box.width / 2 - (x - width / 2)) < 160;
    // Room for the title between the rows.
    return { key: null, group: `m${name}`, x, y: y - 6, w: width, h: height + 12, title: name, closes: false, right: data.boxes.some(box => box.parent === i && near(box)) };
  }
};

/** One line on the selected node: what it is, its kernel's figures, its derivative rule. */
function facts(context: Context, data: GraphData): HTMLElement {
  const line = h("div.tv-facts", { role: "status" });
  const index = context.links.program(data.program);
  const { nodes, kernels } = index.program;
  context.onSelect(({ selection }) => {
    const [at, node] = selection?.kind === "node" ? selection.id.split(".").map(Number) : [];
    if (at !== data.program || node === undefined || nodes.op[node] === undefined) {
      line.replaceChildren(h("span.tv-faint", {}, "Click a box. Wheel zooms once the picture has the focus; drag pans; space fits; / searches."));
      return;
    }
    const part = (name: string, value: string) => h("span", {}, h("span.tv-faint", {}, `${name} `), value);
    const of = index.kernelsOf.get(node);
    const parts = [part(`%${node}`, `${nodes.op[node]} ${nodes.arg[node]}`), part("shape", `${nodes.shape[node]!.join("×") || "scalar"} ${nodes.dtype[node]}`), part("phase", nodes.phase[node]!)];
    if (nodes.module[node]) parts.push(part("module", nodes.module[node]));
    if (nodes.derivative[node]) parts.push(part("derivative rule", `${nodes.derivative[node]} of %${nodes.forward[node]}`));
    const gradients = index.gradientsOf.get(node);
    if (gradients.length > 0) parts.push(part("gradient", gradients.slice(0, 4).map(n => `%${n} ${nodes.op[n]}`).join(", ")));
    for (const k of of.slice(0, 2)) {
      const kernel = kernels[k]!;
      const moved = kernel.bytes_read === null || kernel.bytes_written === null ? null : kernel.bytes_read + kernel.bytes_written;
      parts.push(part("kernel", `${kernelName(index.program, k)}: ${count(kernel.flops)} FLOPs, ${bytes(moved)}`));
    }
    line.replaceChildren(...parts);
  });
  return line;
}

/** Kernels as groups; a node that several kernels compute stands in each. Inputs stand outside. */
export function kernelGroups(context: Context, at: number, nodes: readonly number[]): { groups: Group[]; home: (node: number) => readonly string[] } {
  const index = context.links.program(at);
  const { program } = index;
  const groups = program.kernels.map((kernel, i): Group => {
    const times = program.calls.flatMap((call, c) => (call.kernel === i ? [program.launches.median[c]] : []));
    const measured = times.length > 0 && times.every(time => time !== undefined) ? times.reduce((a, b) => a! + b!, 0)! : null;
    const time = measured ?? kernel.seconds_predicted;
    const detail = `${kernel.nodes.filter(node => program.nodes.op[node] !== "buffer").length} nodes${time === null ? "" : ` · ${amount(time, "s")}${measured === null ? " predicted" : ""}`}`;
    return { id: `k${i}`, title: kernelName(program, i), detail, parent: "", key: { kind: "kernel", id: `${at}.${i}` }, category: mainPhase(program, kernel) };
  });
  const homes = new Map(nodes.map(node => [node, index.kernelsOf.get(node).map(kernel => `k${kernel}`)]));
  return { groups, home: node => homes.get(node) ?? [] };
}

/** Modules as nested groups. */
function moduleGroups(context: Context, data: GraphData): { groups: Group[]; home: (node: number) => readonly string[] } {
  const { program } = context.links.program(data.program);
  const groups = new Map<string, Group & { nodes: number; phases: Set<string> }>();
  const make = (name: string): Group & { nodes: number; phases: Set<string> } => {
    let group = groups.get(name);
    if (!group) {
      const parent = name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : "";
      if (parent) make(parent);
      group = { id: name, title: name, detail: "", parent, key: null, category: "", nodes: 0, phases: new Set() };
      groups.set(name, group);
    }
    return group;
  };
  for (const node of data.drawn) {
    const name = program.nodes.module[node];
    for (let at = name; at; at = make(at).parent) make(at).nodes++, make(at).phases.add(program.nodes.phase[node]!);
  }
  for (const group of groups.values()) {
    group.detail = `${group.nodes} nodes`;
    group.category = group.phases.has("forward") ? "forward" : ([...group.phases][0] ?? "");
  }
  const homes = new Map(data.drawn.map(node => [node, program.nodes.module[node] ? [program.nodes.module[node]] : []]));
  return { groups: [...groups.values()], home: node => homes.get(node) ?? [] };
}
