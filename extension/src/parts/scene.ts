/** A drawing of a graph before it is painted: boxes, frames around boxes, edges. In drawing units, y downwards. */

import type { Selection } from "../selection";

export const WIDTH = 118;
export const HEIGHT = 46;

export type Shape = "op" | "input" | "constant" | "move" | "group";

/** A box; x and y are its centre. */
export interface Item {
  key: Selection;
  /** node id; -1 for a closed group */
  node: number;
  /** ids of the nodes that it stands for, where it is lit with any of them */
  nodes?: readonly string[];
  /** id of the closed group that it stands for; "" for a node */
  group: string;
  x: number;
  y: number;
  w: number;
  h: number;
  title: string;
  detail: string;
  tip: string;
  category: string;
  shape: Shape;
  /** of a figure, 0 to 1 of the largest; null where it is missing */
  bar: number | null;
  change: "" | "new" | "removed";
  /** a result of the program */
  root: boolean;
}

/** Around the boxes of an open group; x and y are its centre. */
export interface Frame {
  key: Selection | null;
  group: string;
  x: number;
  y: number;
  w: number;
  h: number;
  title: string;
  /** can be closed */
  closes: boolean;
  /** its title stands at the right, because a frame within begins where it does */
  right?: boolean;
}

export type EdgeKind = "flow" | "stub" | "fold" | "inline" | "at loop" | "whole";

/** Between items, by position. */
export interface Edge {
  from: number;
  to: number;
  kind: EdgeKind;
  key: Selection | null;
  /** leaves and enters sideways */
  across?: boolean;
}

export interface Scene {
  items: Item[];
  frames: Frame[];
  edges: Edge[];
  width: number;
  height: number;
}

/** A cubic curve: [x0, y0, x1, y1, x2, y2, x3, y3]. */
export type Curve = [number, number, number, number, number, number, number, number];

/** From the operand's lower side to the user's upper side; sideways within a row. A stub ends just above its user. */
export function curve(from: Item, to: Item, { kind, across }: Pick<Edge, "kind" | "across"> = { kind: "flow" }): Curve {
  if (kind === "stub") {
    const [x, y] = [to.x - to.w / 4, to.y - to.h / 2];
    return [x - 5, y - 11, x - 2, y - 8, x, y - 4, x, y];
  }
  if (across && from.x + from.w / 2 < to.x - to.w / 2) {
    const [x0, x3] = [from.x + from.w / 2, to.x - to.w / 2];
    const bend = Math.min(Math.max((x3 - x0) / 2, 20), 140);
    return [x0, from.y, x0 + bend, from.y, x3 - bend, to.y, x3, to.y];
  }
  const [top, bottom] = [to.y - to.h / 2, from.y + from.h / 2];
  if (top >= bottom) {
    const bend = Math.min(Math.max((top - bottom) / 2, 8), 60);
    return [from.x, bottom, from.x, bottom + bend, to.x, top - bend, to.x, top];
  }
  if (Math.abs(from.y - to.y) < (from.h + to.h) / 2) {
    const sign = to.x >= from.x ? 1 : -1;
    const [x0, x3] = [from.x + (sign * from.w) / 2, to.x - (sign * to.w) / 2];
    const bend = Math.max(Math.abs(x3 - x0) / 2, 6) * sign;
    return [x0, from.y, x0 + bend, from.y, x3 - bend, to.y, x3, to.y];
  }
  // Against the stream: around, from the upper side to the lower.
  const [y0, y3] = [from.y - from.h / 2, to.y + to.h / 2];
  return [from.x, y0, from.x, y0 - 30, to.x, y3 + 30, to.x, y3];
}

export function pointOn([x0, y0, x1, y1, x2, y2, x3, y3]: Curve, t: number): [number, number] {
  const u = 1 - t;
  const mix = (a: number, b: number, c: number, d: number) => u * u * u * a + 3 * u * u * t * b + 3 * u * t * t * c + t * t * t * d;
  return [mix(x0, x1, x2, x3), mix(y0, y1, y2, y3)];
}

/** Which box is at a place, without asking all of them. */
export class Places {
  private readonly cells = new Map<string, number[]>();
  private static readonly SIZE = 160;

  constructor(private readonly scene: Scene) {
    scene.items.forEach((item, i) => {
      for (const cell of this.around(item.x - item.w / 2, item.y - item.h / 2, item.x + item.w / 2, item.y + item.h / 2)) {
        const list = this.cells.get(cell);
        if (list) list.push(i);
        else this.cells.set(cell, [i]);
      }
    });
  }

  private *around(x0: number, y0: number, x1: number, y1: number): Generator<string> {
    const cell = (v: number) => Math.floor(v / Places.SIZE);
    for (let x = cell(x0); x <= cell(x1); x++) for (let y = cell(y0); y <= cell(y1); y++) yield `${x} ${y}`;
  }

  item(x: number, y: number): Item | null {
    for (const cell of this.around(x, y, x, y)) {
      for (const i of [...(this.cells.get(cell) ?? [])].reverse()) {
        const item = this.scene.items[i]!;
        if (Math.abs(x - item.x) <= item.w / 2 && Math.abs(y - item.y) <= item.h / 2) return item;
      }
    }
    return null;
  }

  /** The innermost frame whose title bar, or where `anywhere` whose area, is there. */
  frame(x: number, y: number, anywhere = false): Frame | null {
    let found: Frame | null = null;
    for (const frame of this.scene.frames) {
      const [left, top] = [frame.x - frame.w / 2, frame.y - frame.h / 2];
      const deep = y - top;
      if (x < left || x > left + frame.w || deep < 0 || deep > frame.h || (!anywhere && deep > TITLE)) continue;
      if (!found || frame.w * frame.h <= found.w * found.h) found = frame;
    }
    return found;
  }

  /** The nearest edge that can be selected, within `reach`. */
  edge(x: number, y: number, reach: number): Edge | null {
    let best = reach;
    let found: Edge | null = null;
    for (const edge of this.scene.edges) {
      if (!edge.key) continue;
      const line = curve(this.scene.items[edge.from]!, this.scene.items[edge.to]!, edge);
      const [x0, y0, , , , , x3, y3] = line;
      if (x < Math.min(x0, x3) - 40 || x > Math.max(x0, x3) + 40 || y < Math.min(y0, y3) - 40 || y > Math.max(y0, y3) + 40) continue;
      for (let t = 0; t <= 1; t += 0.04) {
        const [px, py] = pointOn(line, t);
        const distance = Math.hypot(px - x, py - y);
        if (distance < best) [best, found] = [distance, edge];
      }
    }
    return found;
  }
}

/** Height of a frame's title bar. */
export const TITLE = 22;
