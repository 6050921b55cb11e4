/** A kernel's iteration space: choose an iteration, and see which elements of which buffer it touches. All of it is index arithmetic: nothing runs. */

import { button, h, s } from "../dom";
import { MISSING, some } from "../units";
import type { Access, Operand, Space, Trace } from "../wire";
import { twin } from "./head";

const MOST = 4096; // elements of one access that are worked out
const [COLUMNS, ROWS] = [64, 32]; // cells of a picture
const [WIDE, HIGH] = [420, 290]; // pixels
const [SMALL_WIDE, SMALL_HIGH, FEW] = [250, 170, 3]; // the same where a kernel has more buffers than FEW
const SEARCHED = 60_000; // iterations that are tried when an element is clicked

/** The value of arithmetic in postfix ("i 64 * j +") under these variables; null where it depends on data. */
export function evaluate(text: string, values: ReadonlyMap<string, number>): number | null {
  const stack: number[] = [];
  for (const token of text.split(" ")) {
    if (/^-?\d+$/.test(token)) stack.push(Number(token));
    else if (values.has(token)) stack.push(values.get(token)!);
    else if (token === "neg") stack.push(-(stack.pop() ?? NaN));
    else {
      const operate = Object.hasOwn(OPERATE, token) ? OPERATE[token] : undefined;
      const b = stack.pop();
      const a = stack.pop();
      if (!operate || a === undefined || b === undefined) return null;
      stack.push(operate(a, b));
    }
  }
  const value = stack.pop();
  return value === undefined || stack.length > 0 || Number.isNaN(value) ? null : value;
}

const OPERATE: Record<string, (a: number, b: number) => number> = {
  "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b,
  "//": (a, b) => (b === 0 ? 0 : Math.floor(a / b)), "%": (a, b) => (b === 0 ? 0 : a - b * Math.floor(a / b)),
  "<": (a, b) => Number(a < b), "=": (a, b) => Number(a === b), "&": (a, b) => a & b, "|": (a, b) => a | b,
  max: Math.max, min: Math.min,
};

export interface Touched {
  access: Access;
  /** positions per axis; null: they depend on data */
  at: number[][] | null;
  /** how many points were left out */
  more: number;
}

/** What one iteration touches. `fixed`: loop -> its value; loops that are not in it take all their values. */
export function touched(space: Space, access: Access, fixed: ReadonlyMap<number, number>): Touched {
  const free = access.loops.filter(loop => !fixed.has(loop));
  const trips = (loop: number) => Math.max(Math.ceil((space.loops[loop]!.stop - space.loops[loop]!.start) / space.loops[loop]!.step), 0);
  const points = free.reduce((product, loop) => product * trips(loop), 1);
  const values = new Map(access.loops.map(loop => [space.loops[loop]!.name, fixed.get(loop) ?? 0]));
  const at: number[][] = [];
  for (let point = 0; point < Math.min(points, MOST); point++) {
    let rest = point;
    for (const loop of [...free].reverse()) {
      const { name, start, step } = space.loops[loop]!;
      values.set(name, start + step * (rest % trips(loop)));
      rest = Math.floor(rest / trips(loop));
    }
    if (access.mask !== "") {
      const inside = evaluate(access.mask, values);
      if (inside === null) return { access, at: null, more: 0 };
      if (!inside) continue;
    }
    const index = access.index.map(text => evaluate(text, values));
    if (index.includes(null)) return { access, at: null, more: 0 };
    at.push(index as number[]);
  }
  return { access, at, more: Math.max(points - MOST, 0) };
}

/** The values of the loops in which an access touches an element, the first such ones; null where there is none, or it depends on data. */
export function iterationOf(space: Space, access: Access, matches: (index: readonly number[]) => boolean): Map<number, number> | null {
  const trips = access.loops.map(loop => Math.max(Math.ceil((space.loops[loop]!.stop - space.loops[loop]!.start) / space.loops[loop]!.step), 0));
  const points = trips.reduce((product, each) => product * each, 1);
  const values = new Map<string, number>();
  for (let point = 0; point < Math.min(points, SEARCHED); point++) {
    let rest = point;
    for (let k = access.loops.length - 1; k >= 0; k--) {
      const { name, start, step } = space.loops[access.loops[k]!]!;
      values.set(name, start + step * (rest % trips[k]!));
      rest = Math.floor(rest / trips[k]!);
    }
    if (access.mask !== "" && !evaluate(access.mask, values)) continue;
    const index = access.index.map(text => evaluate(text, values));
    if (index.includes(null)) return null;
    if (matches(index as number[])) return new Map(access.loops.map(loop => [loop, values.get(space.loops[loop]!.name)!]));
  }
  return null;
}

/** `traces`: what a run really touched; laid over the buffers. `start`: the iteration shown first, by loop. */
export function iterationSpace(space: Space, lines: readonly string[], traces: readonly Trace[] = [], start: ReadonlyMap<number, number> = new Map()): HTMLElement {
  const values = space.loops.map((loop, i) => start.get(i) ?? loop.start);
  const all = space.loops.map(loop => loop.reduce);
  const place = h("div.tv-buffers", { role: "status", "aria-live": "off" });
  const depth = (loop: number): number => (space.loops[loop]!.parent < 0 ? 0 : 1 + depth(space.loops[loop]!.parent));
  const draw = () => {
    const fixed = new Map(values.map((value, loop) => [loop, value] as const).filter(([loop]) => !all[loop]));
    const found = space.accesses.map(access => touched(space, access, fixed));
    place.replaceChildren(...space.operands.flatMap((operand, i) => {
      const own = found.filter(({ access }) => access.operand === i);
      return own.length > 0 ? [buffer(operand, own, traces.filter(trace => space.accesses[trace.access]?.operand === i), space.operands.length > FEW, matches => pick(i, matches))] : [];
    }));
    current = found;
    sheet.replaceChildren(rows(sheet.querySelector("details")?.open ?? false));
  };
  /** Goes to the iteration that touches an element: the one that writes it, else one that reads it. */
  const pick = (operand: number, matches: (index: readonly number[]) => boolean) => {
    const own = space.accesses.filter(access => access.operand === operand).sort((a, b) => Number(b.write) - Number(a.write));
    for (const access of own) {
      const found = iterationOf(space, access, matches);
      if (!found) continue;
      for (const [loop, value] of found) {
        values[loop] = value;
        // A loop that combines runs through for the result that it makes.
        if (!space.loops[loop]!.reduce || !access.write) all[loop] = false;
      }
      settle.forEach(each => each());
      return draw();
    }
  };
  const settle: (() => void)[] = [];
  const sheet = h("div");
  let current: Touched[] = [];
  const rows = (open: boolean) => {
    const made = twin("accesses of this iteration", [
      { name: "buffer", text: t => space.operands[t.access.operand]!.name },
      { name: "how", text: t => (t.access.write ? "written" : "read") },
      { name: "elements", text: t => (t.at === null ? "depends on data" : String(distinct(t.at) + t.more)), right: true },
      { name: "where", text: t => where(t) },
      { name: "line of the loops", text: t => `${t.access.line + 1}: ${lines[t.access.line]?.trim() ?? ""}` },
    ], () => current);
    made.toggleAttribute("open", open);
    return made;
  };
  const controls = space.loops.map((loop, i) => {
    const last = loop.start + loop.step * Math.max(Math.ceil((loop.stop - loop.start) / loop.step) - 1, 0);
    const slider = h("input.tv-slider", { type: "range", min: loop.start, max: last, step: loop.step, value: values[i]!, "aria-label": `iteration of loop ${loop.name}`, "data-lm-suppress-shortcuts": true, disabled: all[i]! });
    const number = h("output.tv-loopvalue");
    const every = h("input", { type: "checkbox", checked: all[i]!, "aria-label": `all iterations of ${loop.name}` });
    const tell = () => (number.textContent = all[i] ? `${loop.start}…${last}` : String(values[i]));
    slider.addEventListener("input", () => { values[i] = Number(slider.value); tell(); draw(); });
    slider.addEventListener("keydown", event => event.stopPropagation());
    every.addEventListener("change", () => { all[i] = every.checked; slider.disabled = every.checked; tell(); draw(); });
    const step = (by: number) => button(by < 0 ? "‹" : "›", () => {
      values[i] = Math.min(Math.max(values[i]! + by * loop.step, loop.start), last);
      slider.value = String(values[i]);
      if (all[i]) { all[i] = every.checked = slider.disabled = false; }
      tell();
      draw();
    }, { "aria-label": `${by < 0 ? "previous" : "next"} iteration of ${loop.name}` });
    tell();
    settle.push(() => {
      slider.value = String(values[i]);
      every.checked = slider.disabled = all[i]!;
      tell();
    });
    const row = h("div.tv-loop", {}, h("code", {}, `${"  ".repeat(Math.min(depth(i), 3))}${loop.reduce ? "sum " : "for "}${loop.name}`), step(-1), slider, step(1), number, h("label.tv-field", {}, every, "all"));
    return row;
  });
  draw();
  const legend = h("div.tv-legend", {},
    h("span.tv-key", {}, s("svg.tv-cellkey", { viewBox: "0 0 12 12" }, s("rect.tv-cellread", { width: 12, height: 12 })), " read"),
    h("span.tv-key", {}, s("svg.tv-cellkey", { viewBox: "0 0 12 12" }, s("rect.tv-cellwrite", { width: 12, height: 12 }), s("path.tv-cellcross", { d: "M1 11L11 1" })), " written"));
  if (space.accesses.length === 0) return h("p.tv-missing", {}, `${MISSING} the kernel touches no buffer`);
  return h("div.tv-space", {},
    h("p.tv-faint", {}, "One iteration of the loops before scheduling: slide to choose it, or click the element that it writes or reads; “all” takes every iteration of that loop. Cells are elements (or blocks of them), rows along the last axis."),
    h("div.tv-spacebody", {}, h("div.tv-loops", { role: "group", "aria-label": "iteration" }, ...controls, legend), place), sheet);
}

function distinct(at: number[][]): number {
  return new Set(at.map(index => index.join())).size;
}

/** "[3, 0–63]": the range of each axis. */
function where({ at }: Touched): string {
  if (at === null) return "depends on data";
  if (at.length === 0) return "nowhere: masked";
  return `[${at[0]!.map((_, axis) => {
    const low = at.reduce((least, index) => Math.min(least, index[axis]!), Infinity);
    const high = at.reduce((most, index) => Math.max(most, index[axis]!), -Infinity);
    return low === high ? `${low}` : `${low}–${high}`;
  }).join(", ")}]`;
}

/** The buffer as a grid: its last axis from left to right, all others from top to bottom; blocks where it is large. */
function buffer(operand: Operand, found: readonly Touched[], traces: readonly Trace[], small: boolean, pick: (matches: (index: readonly number[]) => boolean) => void): HTMLElement {
  const kept = operand.shape.flatMap((extent, axis) => (extent === 1 ? [] : [axis])); // axes of one element say nothing
  const shape = kept.map(axis => operand.shape[axis]!);
  const columns = Math.max(shape.at(-1) ?? 1, 1);
  const rows = Math.max(shape.slice(0, -1).reduce((product, extent) => product * extent, 1), 1);
  const [across, down] = [Math.ceil(columns / COLUMNS), Math.ceil(rows / ROWS)];
  const [width, height] = [Math.ceil(columns / across), Math.ceil(rows / down)];
  const cell = Math.max(Math.min(Math.floor((small ? SMALL_WIDE : WIDE) / width), Math.floor((small ? SMALL_HIGH : HIGH) / height), 14), 3);
  const marks = new Map<number, { read: boolean; write: boolean }>();
  for (const { access, at } of found) {
    for (const whole of at ?? []) {
      const index = kept.map(axis => whole[axis]!);
      const row = index.slice(0, -1).reduce((sum, position, axis) => sum * shape[axis]! + position, 0);
      const key = Math.floor(row / down) * width + Math.floor((index.at(-1) ?? 0) / across);
      const mark = marks.get(key) ?? { read: false, write: false };
      marks.set(key, { read: mark.read || !access.write, write: mark.write || access.write });
    }
  }
  const drawing = s("svg.tv-bufferpicture", { viewBox: `0 0 ${width * cell + 1} ${height * cell + 1}`, width: width * cell + 1, height: height * cell + 1, "aria-hidden": "true" },
    s("rect.tv-buffergrid", { x: 0.5, y: 0.5, width: width * cell, height: height * cell }));
  if (cell >= 6) {
    let lines = "";
    for (let i = 1; i < width; i++) lines += `M${i * cell + 0.5} 0.5v${height * cell}`;
    for (let i = 1; i < height; i++) lines += `M0.5 ${i * cell + 0.5}h${width * cell}`;
    drawing.append(s("path.tv-bufferlines", { d: lines }));
  }
  drawing.addEventListener("click", event => {
    const box = drawing.getBoundingClientRect();
    const [x, y] = [Math.floor(((event.clientX - box.left) / box.width) * width), Math.floor(((event.clientY - box.top) / box.height) * height)];
    pick(whole => {
      const index = kept.map(axis => whole[axis]!);
      const row = index.slice(0, -1).reduce((sum, position, axis) => sum * shape[axis]! + position, 0);
      return Math.floor(row / down) === y && Math.floor((index.at(-1) ?? 0) / across) === x;
    });
  });
  for (const [key, { write }] of marks) {
    const [x, y] = [(key % width) * cell + 0.5, Math.floor(key / width) * cell + 0.5];
    drawing.append(s(write ? "rect.tv-cellwrite" : "rect.tv-cellread", { x, y, width: cell, height: cell }));
    if (write) drawing.append(s("path.tv-cellcross", { d: `M${x + 1} ${y + cell - 1}L${x + cell - 1} ${y + 1}` }));
  }
  const names = [...new Set(traces.map(trace => trace.name))];
  for (const [k, name] of names.entries()) {
    const cells = new Set<number>();
    for (const trace of traces) {
      if (trace.name !== name) continue;
      for (const element of trace.elements) cells.add(Math.floor(Math.floor(element / columns) / down) * width + Math.floor((element % columns) / across));
    }
    for (const key of cells) {
      // Of two inputs each has its half of the cell, so that both can be seen.
      const [x, y] = [(key % width) * cell + 0.5 + (names.length > 1 ? (k === 0 ? 0.28 : 0.72) : 0.5) * cell, Math.floor(key / width) * cell + 0.5 + cell / 2];
      const r = names.length > 1 ? cell / 4.4 : cell / 3.4;
      drawing.append(k === 0 ? s("circle.tv-traced", { cx: x, cy: y, r }) : s("path.tv-traced.tv-second", { d: `M${x} ${y - 1.5 * r}L${x + r} ${y}L${x} ${y + 1.5 * r}L${x - r} ${y}Z` }));
    }
  }
  const texts = found.map(each => `${each.access.write ? "written" : "read"} ${where(each)}${each.more ? ` (first ${some(MOST, "point")})` : ""}`);
  const block = across > 1 || down > 1 ? ` · a cell is ${down} × ${across} elements` : "";
  return h("figure.tv-buffer", {}, h("figcaption", {}, h("code", {}, `${operand.name}[${operand.shape.join(", ")}]`), ` ${operand.dtype}${operand.local ? ", local" : ""}${block}`), drawing, h("div.tv-faint", {}, [...new Set(texts)].join(" · ")));
}
