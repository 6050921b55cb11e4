/**
 * Puts boxes and groups together where groups open and close: layers by longest path, order and wishes from the positions that
 * Python computed, so that a picture changes as little as it can. Each group is laid out for itself, then as one box of its parent.
 */

import { HEIGHT, TITLE, WIDTH } from "./scene";

/** What is put somewhere: a node, or a group with what is in it. `wish`: where Python's layout has it. */
export interface Part {
  id: string;
  wish: { x: number; y: number };
  /** of a group that is open; undefined: a box */
  parts?: Part[];
  /** its parts are a box and what is folded beside it: no frame around them */
  beside?: boolean;
  w?: number;
  h?: number;
}

export interface Place {
  x: number;
  y: number;
  w: number;
  h: number;
}

const GAP_X = 14;
const GAP_Y = 24;
const GAP_ACROSS = 54;
const PADDING = 10;
/** boxes beside another one, in one row */
const BESIDE = 3;
/** a layer wider than this goes on in a second row */
const WIDEST = 1800;

/**
 * Centres and sizes by id; groups included. `edges`: pairs of ids of boxes (closed groups are boxes). `across`: the outermost layers
 * go from left to right, in as many bands as fit this ratio of width to height best (0: they go downwards); within groups values
 * always flow downwards.
 */
export function compose(parts: Part[], edges: readonly (readonly [string, string])[], across = 0): { places: Map<string, Place>; width: number; height: number } {
  const places = new Map<string, Place>();
  const root: Part = { id: "", wish: { x: 0, y: 0 }, parts };
  const parentOf = new Map<string, Part>();
  const walk = (part: Part) => part.parts?.forEach(child => (parentOf.set(child.id, part), walk(child)));
  walk(root);

  // Each edge counts in the group where its two ends part.
  const inside = new Map<Part, [string, string][]>();
  for (const [a, b] of edges) {
    const line = lineage(a, parentOf);
    const depth = new Map(line.map(([id, parent]) => [parent, id]));
    for (const [id, parent] of lineage(b, parentOf)) {
      const other = depth.get(parent);
      if (other === undefined) continue;
      if (other !== id) (inside.get(parent) ?? inside.set(parent, []).get(parent)!).push([other, id]);
      break;
    }
  }
  const size = layGroup(root, inside, places, 0, across);
  moveDown(root, places, 0, 0);
  return { places, width: size.w, height: size.h };
}

function lineage(id: string, parentOf: Map<string, Part>): [string, Part][] {
  const out: [string, Part][] = [];
  for (let parent = parentOf.get(id); parent; parent = parentOf.get(parent.id)) {
    out.push([id, parent]);
    id = parent.id;
  }
  return out;
}

/** Lays out a group's parts in its own coordinates (from its upper left corner) and returns its size. */
function layGroup(group: Part, inside: Map<Part, [string, string][]>, places: Map<string, Place>, top: number, across = 0): { w: number; h: number } {
  const parts = group.parts ?? [];
  if (group.beside) return beside(parts, places);
  for (const part of parts) {
    const size = part.parts ? layGroup(part, inside, places, TITLE) : { w: part.w ?? WIDTH, h: part.h ?? HEIGHT };
    places.set(part.id, { x: 0, y: 0, ...size });
  }
  const rows = layers(parts, inside.get(group) ?? [], across ? Infinity : WIDEST, part => places.get(part.id)!.w);
  if (across) return columns(rows, places, across);
  let y = top + PADDING;
  let right = 0;
  for (const row of rows) {
    const height = Math.max(...row.map(part => places.get(part.id)!.h));
    for (const part of row) places.get(part.id)!.y = y + height / 2;
    y += height + GAP_Y;
  }
  const left = spread(rows, places);
  for (const row of rows) {
    for (const part of row) {
      const place = places.get(part.id)!;
      place.x += PADDING - left;
      right = Math.max(right, place.x + place.w / 2);
    }
  }
  return { w: right + PADDING, h: Math.max(y - GAP_Y, top) + PADDING };
}

/** A box and at its right what is folded beside it. */
function beside(parts: readonly Part[], places: Map<string, Place>): { w: number; h: number } {
  let [right, bottom] = [0, 0];
  parts.forEach((part, i) => {
    const [w, h] = [part.w ?? WIDTH, part.h ?? HEIGHT];
    const [column, row] = i === 0 ? [0, 0] : [1 + ((i - 1) % BESIDE), Math.floor((i - 1) / BESIDE)];
    const place = { x: column * (WIDTH + GAP_X) + w / 2, y: row * (HEIGHT + GAP_X) + h / 2, w, h };
    places.set(part.id, place);
    [right, bottom] = [Math.max(right, place.x + w / 2), Math.max(bottom, place.y + h / 2)];
  });
  return { w: right, h: bottom };
}

/** The same turned: each layer is a column; a long way is broken into bands, so that the whole is about `aspect` times as wide as high. */
function columns(layers: Part[][], places: Map<string, Place>, aspect: number): { w: number; h: number } {
  const size = layers.map(layer => ({
    w: Math.max(...layer.map(part => places.get(part.id)!.w)),
    h: layer.reduce((sum, part) => sum + places.get(part.id)!.h + GAP_Y, -GAP_Y),
  }));
  const all = size.reduce((sum, { w }) => sum + w + GAP_ACROSS, -GAP_ACROSS);
  let best: { bands: number[][]; w: number; h: number } | null = null;
  for (let n = 1; n <= layers.length; n++) {
    const made = banded(size, all / n);
    const off = (of: { w: number; h: number }) => Math.abs(Math.log(of.w / of.h / aspect));
    if (best && off(made) > off(best)) break;
    best = made;
  }
  let y = PADDING;
  for (const band of best?.bands ?? []) {
    let x = PADDING;
    for (const i of band) {
      let down = y;
      for (const part of layers[i]!) {
        const place = places.get(part.id)!;
        place.x = x + size[i]!.w / 2;
        place.y = down + place.h / 2;
        down += place.h + GAP_Y;
      }
      x += size[i]!.w + GAP_ACROSS;
    }
    y += Math.max(...band.map(i => size[i]!.h)) + GAP_ACROSS;
  }
  return { w: (best?.w ?? 0) + 2 * PADDING, h: (best?.h ?? 0) + 2 * PADDING };
}

/** Columns in bands that are not wider than `most`. */
function banded(size: readonly { w: number; h: number }[], most: number): { bands: number[][]; w: number; h: number } {
  const bands: number[][] = [];
  let [x, w, h] = [Infinity, 0, -GAP_ACROSS];
  size.forEach((column, i) => {
    if (x + column.w > most + 1) bands.push([]), (x = 0);
    bands.at(-1)!.push(i);
    w = Math.max(w, x + column.w);
    x += column.w + GAP_ACROSS;
  });
  for (const band of bands) h += Math.max(...band.map(i => size[i]!.h)) + GAP_ACROSS;
  return { bands, w, h };
}

/** Rows from top to bottom; each from left to right. */
export function layers(parts: readonly Part[], edges: readonly (readonly [string, string])[], widest = WIDEST, wide = (part: Part) => part.w ?? WIDTH): Part[][] {
  const byId = new Map(parts.map(part => [part.id, part]));
  const up = new Map<string, Set<string>>(parts.map(part => [part.id, new Set()]));
  const down = new Map<string, Set<string>>(parts.map(part => [part.id, new Set()]));
  const order = [...parts].sort((a, b) => a.wish.y - b.wish.y || a.wish.x - b.wish.x);
  for (const [a, b] of edges) if (byId.has(a) && byId.has(b) && a !== b) up.get(b)!.add(a), down.get(a)!.add(b);

  // Longest path; where groups make a cycle, the uppermost in Python's layout goes first.
  const rank = new Map<string, number>();
  const waiting = new Map([...up].map(([id, set]) => [id, set.size]));
  let ready = order.filter(part => waiting.get(part.id) === 0);
  const left = new Set(order);
  while (left.size > 0) {
    if (ready.length === 0) ready = [left.values().next().value!];
    const next: Part[] = [];
    for (const part of ready) {
      if (!left.delete(part)) continue;
      const above = [...up.get(part.id)!].flatMap(id => rank.get(id) ?? []);
      rank.set(part.id, Math.max(-1, ...above) + 1);
      for (const id of down.get(part.id)!) {
        const rest = waiting.get(id)! - 1;
        waiting.set(id, rest);
        if (rest === 0 && left.has(byId.get(id)!)) next.push(byId.get(id)!);
      }
    }
    ready = next;
  }
  // What nothing comes into stands right above its first user.
  for (const part of order) {
    if (up.get(part.id)!.size > 0) continue;
    const users = [...down.get(part.id)!].map(id => rank.get(id)!);
    if (users.length > 0) rank.set(part.id, Math.max(Math.min(...users) - 1, 0));
  }
  const rows: Part[][] = [];
  for (const part of order) (rows[rank.get(part.id)!] ??= []).push(part);
  const full = rows.filter(row => row?.length > 0);
  const place = new Map<string, number>();
  const number = (row: Part[]) => row.forEach((part, i) => place.set(part.id, i / row.length));
  for (const row of full) number(row.sort((a, b) => a.wish.x - b.wish.x));
  for (const [list, near] of [[full, up], [[...full].reverse(), down], [full, up]] as const) {
    for (const row of list) {
      const key = new Map(row.map(part => [part.id, median([...near.get(part.id)!].map(id => place.get(id)!)) ?? place.get(part.id)!]));
      number(row.sort((a, b) => key.get(a.id)! - key.get(b.id)!));
    }
  }
  return full.flatMap(row => broken(row, widest, wide));
}

function broken(row: Part[], widest: number, wide: (part: Part) => number): Part[][] {
  const rows: Part[][] = [[]];
  let width = 0;
  for (const part of row) {
    width += wide(part) + GAP_X;
    if (width > widest && rows.at(-1)!.length > 0) rows.push([]), (width = wide(part));
    rows.at(-1)!.push(part);
  }
  return rows;
}

function median(values: number[]): number | undefined {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

/** Left to right as near to the rows' common middle as the widths allow. Returns the leftmost edge. */
function spread(rows: Part[][], places: Map<string, Place>): number {
  let left = 0;
  for (const row of rows) {
    const width = row.reduce((sum, part) => sum + places.get(part.id)!.w + GAP_X, -GAP_X);
    let x = -width / 2;
    left = Math.min(left, x);
    for (const part of row) {
      const place = places.get(part.id)!;
      place.x = x + place.w / 2;
      x += place.w + GAP_X;
    }
  }
  return left;
}

/** From coordinates of each group to those of the whole. */
function moveDown(group: Part, places: Map<string, Place>, x: number, y: number): void {
  for (const part of group.parts ?? []) {
    const place = places.get(part.id)!;
    place.x += x;
    place.y += y;
    if (part.parts) moveDown(part, places, place.x - place.w / 2, place.y - place.h / 2);
  }
}
