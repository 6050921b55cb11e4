/** The overview's picture: one box for each module and phase, where Python put it. */

import { some } from "../units";
import { WIDTH, type Edge, type Item, type Scene } from "./scene";
import type { Context } from "../views/view";
import type { OverviewData } from "../wire";

/** A box is lit with its nodes: it carries the first as its key, and says how many there are. */
export function boxScene(context: Context, data: OverviewData): Scene {
  const { program } = context.links.program(data.program);
  const items = data.boxes.map((box): Item => {
    const first = box.nodes[0] ?? -1;
    const phase = program.nodes.phase[first] ?? "";
    const several = some(box.nodes.length, "node");
    return {
      key: { kind: "node", id: `${data.program}.${first}` }, nodes: box.nodes.map(node => `${data.program}.${node}`), node: first, group: "", x: box.x, y: box.y,
      w: Math.max(box.width, WIDTH), h: Math.max(box.height, 42), title: box.name, detail: several, tip: `${box.name}: ${several}, ${phase}`, category: phase, shape: "op", bar: null, change: "", root: false,
    };
  });
  const edges = data.edges.flatMap(([from = -1, to = -1]): Edge[] => (items[from] && items[to] ? [{ from, to, kind: "flow", key: null }] : []));
  return { items, frames: [], edges, width: data.width, height: data.height };
}
