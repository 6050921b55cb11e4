/** graph: which operations, and what flows between them? By module or by kernel, opened on demand; gradients beside their forward node. */

import { button, h, taken } from "../dom";
import { kernelName, nodeName } from "../names";
import { head, swatch, twin } from "../parts/head";
import { flatScene, groupedScene, type Drawn, type Look } from "../parts/graphscene";
import { drawnGraph, kernelGroups, openSome, treeGroups, type Grouping } from "../parts/grouping";
import { nodeColumns } from "../parts/nodes";
import { Picture } from "../parts/picture";
import type { Frame, Scene } from "../parts/scene";
import { fieldsOf, searchBox, type Fields, type Test } from "../parts/search";
import { selectField } from "../parts/controls";
import { amount, bytes, count, percent, some } from "../units";
import type { GraphData } from "../wire";
import { together, type Context, type Part } from "./view";

type By = "flat" | "module" | "kernel";

/** boxes that are to be seen at first */
const SEEN_FIRST = 45;
/** nodes up to which all of them are shown at first, without groups */
const FLAT_MOST = 60;
/** frames of modules above which they would hide more than they say */
const FRAMES_MOST = 40;
/** shown of a neighbourhood */
const NEAR_MOST = 300;
const UNITS: Record<string, string> = { time: "s", bytes: "bytes", FLOPs: "", memory: "bytes" };
const MEANING: Record<string, string> = {
  time: "time of its part of its kernels", bytes: "bytes that its part of its kernels reads and writes", FLOPs: "FLOPs of its part of its kernels", memory: "memory that keeps its value",
};

export const graph: Part<GraphData> = (el, data, context) => {
  const { recording, links } = context;
  const index = links.program(data.program);
  const { program } = index;
  const { src, forward, layout } = drawnGraph(context, data);
  const place = new Map(data.drawn.map((node, i) => [node, i]));
  const modules = data.groups.length > 0;
  const kernels = program.kernels.some(kernel => kernel.nodes.length > 0);
  const groupings = new Map<By, Grouping>();
  const grouping = (): Grouping => {
    const made = groupings.get(by) ?? (by === "kernel" ? kernelGroups(context, data.program, data.drawn, src) : by === "module" ? treeGroups(context, data) : { groups: [], home: () => [] });
    groupings.set(by, made);
    return made;
  };

  let by: By = data.drawn.length <= FLAT_MOST ? "flat" : modules ? "module" : kernels ? "kernel" : "flat";
  let gradients = true;
  let figure = "";
  let around: { node: number; steps: number } | null = data.around >= 0 ? { node: data.around, steps: 2 } : null;
  let open = by === "flat" ? new Set<string>() : openSome(grouping(), data.drawn, SEEN_FIRST);

  const look = (): Look => {
    if (figure === "dtype") return { category: node => `dtype ${program.nodes.dtype[node]}`, detail: node => `${program.nodes.dtype[node]} ${program.nodes.shape[node]!.join("×")}`.trim() };
    const values = data.overlays[figure];
    if (!values) return {};
    const unit = UNITS[figure] ?? "";
    const value = (node: number) => values[place.get(node) ?? -1] ?? null;
    const sum = (nodes: readonly number[]) => nodes.reduce<number | null>((all, node) => (value(node) === null ? all : (all ?? 0) + value(node)!), null);
    const whole = sum(data.drawn) || 1;
    // Groups and nodes on one scale, each against the largest of what is shown.
    const most = { node: Math.max(...values.map(each => each ?? 0)) || 1 };
    return {
      bar: node => (value(node) === null ? null : value(node)! / most.node),
      detail: node => (value(node) === null ? (figure === "memory" ? "not kept" : "no work of its own") : `${amount(value(node), unit)} · ${percent(value(node)! / whole)}`),
      group: (_, nodes) => {
        const all = sum(nodes);
        return { bar: all === null ? null : all / whole, detail: all === null ? "nothing known" : `${amount(all, unit)} · ${percent(all / whole)}` };
      },
    };
  };
  const shown = (): number[] => {
    const near = around && new Set(neighbours(data.drawn, src, around.node, around.steps));
    return data.drawn.filter(node => (gradients || program.nodes.phase[node] !== "backward") && (!near || near.has(node)));
  };
  const scene = (): Scene => {
    const drawn: Drawn = { recording, at: data.program, nodes: shown(), src, layout };
    if (around) return groupedScene({ ...drawn, forward }, [], () => [], open, look());
    if (by === "flat") return flatScene(drawn, look(), data.boxes.length <= FRAMES_MOST ? data.boxes.map(moduleFrame) : []);
    const { groups, home } = grouping();
    if (by === "module") return groupedScene({ ...drawn, forward }, groups, home, open, look());
    return groupedScene(drawn, groups, home, open, look(), el.clientWidth > 800 ? Math.max(el.clientWidth / 560, 1.4) : 0);
  };

  // The search finds nodes, wherever they are hidden.
  let found: number[] = [];
  let at = -1;
  let test: Test | null = null;
  const known = new Map<number, Fields>();
  const fields = (node: number) => {
    let value = known.get(node);
    if (!value) known.set(node, (value = fieldsOf(recording, data.program, node, index.kernelsOf.get(node))));
    return value;
  };
  const run = (): number => {
    found = test ? data.drawn.filter(node => test!(fields(node))) : [];
    at = -1;
    mark();
    return found.length;
  };
  const mark = () => {
    const ids = new Set(found.map(node => `${data.program}.${node}`));
    picture.find(test ? new Set(picture.scene.items.filter(item => (item.nodes ?? [item.key.id]).some(id => ids.has(id)))) : null);
  };
  const step = (way: 1 | -1) => {
    if (found.length === 0) return;
    at = (at + way + found.length) % found.length;
    bring(found[at]!);
  };
  /** Selects a node and shows it: its groups open. */
  const bring = (node: number) => {
    if (around && !shown().includes(node)) around = null;
    const { groups, home } = grouping();
    const byId = new Map(groups.map(group => [group.id, group]));
    for (let group = home(node)[0] ?? ""; group; group = byId.get(group)?.parent ?? "") open.add(group);
    show();
    const key = { kind: "node", id: `${data.program}.${node}` };
    picture.choose(key);
    const item = picture.item(key);
    if (item) picture.reveal(item, true);
  };

  const show = (still?: string) => {
    picture.show(scene(), still);
    mark();
    tools();
  };
  const again = () => (show(), picture.open());

  const group = selectField("group", [...(modules ? [["module", "by module"] as const] : []), ...(kernels ? [["kernel", "by kernel"] as const] : []), ["flat", "by nothing"]], by, value => {
    by = value as By;
    around = null;
    open = openSome(grouping(), data.drawn, SEEN_FIRST);
    again();
  });
  const figures = Object.keys(data.overlays).filter(name => data.overlays[name]!.some(value => value !== null));
  const overlay = selectField("mark", [["", "shape"], ...figures.map(name => [name, name] as const), ["dtype", "dtype"]], "", value => {
    figure = value;
    show();
  });
  const fold = h("input", { type: "checkbox", checked: true });
  fold.addEventListener("change", () => ((gradients = fold.checked), show()));
  const all = button("open all", () => (grouping().groups.forEach(each => open.add(each.id)), again()));
  const none = button("close all", () => (open.clear(), again()));
  const nearby = button("around it", () => focusOn(), { title: "only the selected node and what is within two steps of it (n)" });
  const steps = selectField("steps", [["1", "1"], ["2", "2"], ["3", "3"], ["5", "5"]], "2", value => around && ((around = { ...around, steps: Number(value) }), again()));
  const whole = button("show all", () => ((around = null), again()));
  const note = h("div.tv-facts.tv-graphnote", {});
  const selected = (): number => {
    const { value } = context.selection;
    const [program = -1, node = -1] = value?.kind === "node" ? value.id.split(".").map(Number) : [];
    return program === data.program && place.has(index.became(node)) ? index.became(node) : -1;
  };
  const focusOn = () => {
    const node = selected();
    if (node < 0) return context.say("select a node first");
    around = { node, steps: Number(steps.querySelector("select")!.value) };
    again();
  };
  const tools = () => {
    all.hidden = none.hidden = by === "flat" || around !== null;
    steps.hidden = whole.hidden = around === null;
    nearby.disabled = selected() < 0;
    note.replaceChildren(...legend());
    path.replaceChildren(...trail());
  };
  const legend = (): Node[] => {
    const out: Node[] = [];
    if (around) out.push(h("span", {}, `${some(picture.scene.items.length, "node")} within ${some(around.steps, "step")} of `, h("strong", {}, `%${around.node} ${nodeName(program, around.node)}`)));
    if (figure === "dtype") for (const category of data.dtypes) out.push(swatch(category, category.label));
    else if (figure) {
      const most = Math.max(...data.overlays[figure]!.map(each => each ?? 0));
      const how = figure === "time" ? (data.measured ? ", measured" : ", predicted") : "";
      out.push(h("span.tv-faint", {}, `Bar of a node: ${MEANING[figure] ?? figure}${how}; a full bar is the most, ${amount(most, UNITS[figure] ?? "")}. Bar of a group: its share of the whole.`));
    }
    return out;
  };

  const search = searchBox(next => ((test = next), run()), step);
  const hasGradients = data.drawn.some(node => program.nodes.phase[node] === "backward");
  const bar = h("div.tv-tools", {}, search.element, group, overlay, hasGradients ? h("label.tv-field", {}, fold, "gradients") : null,
    all, none, nearby, steps, whole, button("fit", () => picture.viewport.fit(), { title: "all of it (space)" }));
  const path = h("nav.tv-graphpath", { "aria-label": "where the selected node stands" });
  el.append(head(data), bar, note, path);
  const picture = new Picture(el, context, {
    label: some(data.drawn.length, "node"),
    toggle: id => {
      if (!open.delete(id)) open.add(id);
      show(id);
    },
    key: event => {
      if (event.key === "n") focusOn();
      else if (event.key === "/") search.focus();
      else if (event.key === "Escape" && around) around = null, again();
      else return false;
      taken(event);
      return true;
    },
  });
  show();
  const follow = context.onSelect(tools);
  el.append(facts(context, data), twin("nodes", nodeColumns(context, data.program, src), () => (test ? found : data.drawn),
    node => bring(node)));
  // Something selected elsewhere may stand in a closed group: that group is lit, because its node is.
  return together(follow, () => picture.destroy());

  /** all › model › fc1 › %7 sum: each a way there. */
  function trail(): Node[] {
    const node = selected();
    const out: Node[] = [h("button.tv-link", { type: "button" }, "all")];
    out[0]!.addEventListener("click", () => ((around = null), show(), picture.viewport.fit()));
    if (node < 0) return out;
    const { groups, home } = grouping();
    const byId = new Map(groups.map(each => [each.id, each]));
    const parts: Node[] = [];
    for (let id = home(node)[0] ?? ""; byId.has(id); id = byId.get(id)!.parent) {
      const link = h("button.tv-link", { type: "button", title: "open it and show it whole" }, byId.get(id)!.title);
      const mine = id;
      link.addEventListener("click", () => zoom(mine));
      parts.unshift(link);
    }
    const last = h("button.tv-link", { type: "button", title: "show it" }, `%${node} ${nodeName(program, node)}`);
    last.addEventListener("click", () => bring(node));
    return [...out, ...parts, last].flatMap((part, i) => (i === 0 ? [part] : [h("span.tv-faint", { "aria-hidden": true }, "›"), part]));
  }

  function zoom(id: string): void {
    const byId = new Map(grouping().groups.map(each => [each.id, each]));
    around = null;
    for (let each = id; each; each = byId.get(each)?.parent ?? "") open.add(each);
    show();
    const frame = picture.scene.frames.find(each => each.group === id);
    if (frame) picture.viewport.fitTo(frame);
  }

  function moduleFrame({ name, x, y, width, height }: GraphData["boxes"][number], i: number): Frame {
    const near = (box: GraphData["boxes"][number]) => Math.abs(box.y - box.height / 2 - (y - height / 2)) < 24 && Math.abs(box.x - box.width / 2 - (x - width / 2)) < 160;
    // Room for the title between the rows.
    return { key: null, group: `m${name}`, x, y: y - 6, w: width, h: height + 12, title: name, closes: false, right: data.boxes.some(box => box.parent === i && near(box)) };
  }
};

/** The nodes within so many steps of one, up or down: the nearest, where they are many. */
function neighbours(nodes: readonly number[], src: (node: number) => readonly number[], from: number, steps: number): number[] {
  const users = new Map<number, number[]>();
  for (const node of nodes) for (const operand of src(node)) (users.get(operand) ?? users.set(operand, []).get(operand)!).push(node);
  const found = new Set([from]);
  let edge = [from];
  for (let i = 0; i < steps && found.size < NEAR_MOST; i++) {
    edge = [...new Set(edge.flatMap(node => [...src(node), ...(users.get(node) ?? [])]))].filter(node => !found.has(node));
    edge.slice(0, NEAR_MOST - found.size).forEach(node => found.add(node));
  }
  return [...found];
}

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
