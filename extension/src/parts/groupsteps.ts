/** The graph before and after a fusion decision: each node with the kernels that have it so far, and how. Nothing moves. */

import type { Row } from "../steps";
import type { Cleanup, Context } from "../views/view";
import { flatScene, type Drawn, type Look } from "./graphscene";
import type { EdgeKind, Item, Scene } from "./scene";
import { twoPictures } from "./stepper";

/** In which kernels a value is, and how the first of them has it. */
interface Place {
  kernels: string[];
  how: "inline" | "at loop" | "whole";
}

const HOW = { inlines: "inline", keeps: "at loop", stores: "whole" } as const;

/** The places that a text of stage fuse tells of. */
export function places(rows: readonly Row[]): Map<number, Place> {
  const out = new Map<number, Place>();
  let kernel = "";
  for (const { text, nodes } of rows) {
    if (nodes.length === 0) kernel = /^(k\d+|group \d+)/.exec(text)?.[0] ?? "?";
    for (const node of nodes) {
      const known = out.get(node);
      if (known) known.kernels.push(kernel);
      else out.set(node, { kernels: [kernel], how: HOW[/\w+/.exec(text)?.[0] as keyof typeof HOW] ?? "inline" });
    }
  }
  return out;
}

export interface GroupPictures {
  pair: HTMLElement;
  draw: (before: readonly Row[], after: readonly Row[], changed: readonly number[], about: readonly number[]) => void;
  destroy: Cleanup;
}

export function groupPictures(context: Context, at: number, key: (event: KeyboardEvent) => boolean): GroupPictures {
  const { recording, links } = context;
  const { program } = links.program(at);
  const index = links.program(at);
  const layout = program.layouts.simplified ?? program.layouts.recorded!;
  const drawn: Drawn = { recording, at, nodes: program.simplified, src: node => program.nodes.src[node]!.map(operand => index.became(operand)), layout };
  const { pair, first, second, destroy } = twoPictures(context, "the kernels", key);
  const sides = [side(), side()] as const;

  /** One picture: boxes are made anew only for nodes of which something else is to be said than in the step before. */
  function side(): (rows: readonly Row[], marked: ReadonlySet<number>, change: Item["change"]) => Scene {
    const boxes = new Map<number, Item>();
    const said = new Map<number, string>();
    return (rows, marked, change) => {
      const now = places(rows);
      const text = (node: number) => {
        const place = now.get(node);
        return place ? `${place.kernels.slice(0, 3).join(", ")}${place.kernels.length > 3 ? "…" : ""} · ${place.how}` : null;
      };
      for (const node of program.simplified) {
        const words = text(node) ?? "";
        if (said.get(node) !== words) said.set(node, words), boxes.delete(node);
      }
      const look: Look = {
        detail: text, category: node => now.get(node)?.how ?? "", change: node => (marked.has(node) ? change : ""),
        edge: from => ({ kind: (now.get(from)?.how ?? "flow") as EdgeKind, key: null }),
      };
      return flatScene(drawn, look, [], boxes);
    };
  }

  return {
    pair, destroy,
    draw: (before, after, changed, about) => {
      const [had, marked] = [places(before), new Set(changed)];
      first.show(sides[0](before, new Set(changed.filter(node => had.has(node))), "removed"));
      second.show(sides[1](after, marked, "new"));
      const spot = second.scene.items.find(item => marked.has(item.node)) ?? second.scene.items.find(item => about.includes(item.node));
      if (spot) first.reveal(spot), second.reveal(spot);
    },
  };
}
