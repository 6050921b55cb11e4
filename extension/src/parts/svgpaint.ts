/** Paints a scene as SVG: up to about 1,500 boxes, where text stays sharp and every box is an element. */

import { s } from "../dom";
import type { Lit } from "../links";
import type { Category, Selectable } from "../wire";
import { colorVariable } from "./head";
import { fit } from "./fit";
import { curve, type Edge, type Item, type Scene } from "./scene";

export interface Transform {
  scale: number;
  x: number;
  y: number;
}

/** What the scene looks like beyond itself: which boxes are lit, under the pointer, found by a search (null: no search). */
export interface Light {
  pinned: Lit;
  hover: Lit;
  found: ReadonlySet<Item> | null;
}

export interface Painter {
  readonly element: Element;
  show(scene: Scene): void;
  view(transform: Transform): void;
  light(light: Light): void;
  resize(width: number, height: number): void;
}

export function isLit(lit: Lit, item: Item): boolean {
  if (lit.empty) return false;
  return item.nodes ? item.nodes.some(id => lit.has("node", id)) : lit.has(item.key.kind as Selectable, item.key.id);
}

/** Passes by so much that it would hide more than it says: faint until it is lit. */
export const isLong = (dy: number, dx: number): boolean => Math.abs(dy) > 420 || Math.abs(dx) > 900;

/** An edge is lit with both of its ends, or by itself. */
export function edgeLit(lit: Lit, edge: Edge, scene: Scene): boolean {
  if (edge.key && edge.key.kind !== "node" && lit.selection?.kind === edge.key.kind) return lit.is(edge.key.kind as Selectable, edge.key.id);
  return isLit(lit, scene.items[edge.from]!) && isLit(lit, scene.items[edge.to]!);
}

export class SvgPainter implements Painter {
  readonly element = s("svg.tv-drawing", { "aria-hidden": true });
  private readonly layer = s("g");
  private scene: Scene | null = null;
  private boxes: SVGGElement[] = [];
  private lines: SVGPathElement[] = [];
  private readonly parts = { frames: s("g"), lines: s("g"), boxes: s("g") };
  private family = "";

  constructor(private readonly category: (name: string) => Category) {
    this.element.append(s("defs", {}, tip("tv-tip", "tv-tip"), tip("tv-tip-lit", "tv-tip-lit")), this.layer);
    this.layer.append(this.parts.frames, this.parts.lines, this.parts.boxes);
  }

  /** What is drawn as before keeps its element: a step changes few of them. */
  show(scene: Scene): void {
    const old = { boxes: new Map(this.scene?.items.map((item, i) => [item, this.boxes[i]!])), lines: new Map(this.lines.map(line => [drawn(line), line])) };
    this.scene = scene;
    this.family ||= getComputedStyle(this.element).fontFamily || ""; // to ask again would lay out all that is there
    const frames = scene.frames.map(frame => {
      const [left, top] = [frame.x - frame.w / 2, frame.y - frame.h / 2];
      const group = s("g.tv-frame", { "data-group": frame.group }, s("rect", { x: left, y: top, width: frame.w, height: frame.h, rx: 8 }));
      const mark = frame.closes ? "▾ " : "";
      const at = frame.right ? { x: left + frame.w - 8, "text-anchor": "end" } : { x: left + 8 };
      group.append(s("text", { ...at, y: top + 15 }, fit(`${mark}${frame.title}`, frame.w - 16, `600 11.5px ${this.family || "sans-serif"}`)));
      return group;
    });
    this.lines = scene.edges.map(edge => {
      const [x0, y0, ...rest] = curve(scene.items[edge.from]!, scene.items[edge.to]!, edge);
      const d = `M${x0.toFixed(1)} ${y0.toFixed(1)}C${rest.map(v => v.toFixed(1)).join(" ")}`;
      const same = old.lines.get(`${edge.kind} ${d}`);
      if (same && old.lines.delete(drawn(same))) return same;
      const line = s("path.tv-edge", { d });
      line.dataset.kind = edge.kind;
      if (isLong(rest[5]! - y0, rest[4]! - x0)) line.classList.add("tv-long");
      if (edge.kind !== "fold") line.setAttribute("marker-end", "url(#tv-tip)");
      return line;
    });
    this.boxes = scene.items.map(item => old.boxes.get(item) ?? this.box(item));
    this.parts.frames.replaceChildren(...frames);
    put(this.parts.lines, this.lines);
    put(this.parts.boxes, this.boxes);
  }

  private box(item: Item): SVGGElement {
    const [x, y] = [item.x - item.w / 2, item.y - item.h / 2];
    const group = s("g.tv-box", { "data-kind": item.key.kind, "data-id": item.key.id, "data-shape": item.shape });
    if (item.change) group.dataset.change = item.change;
    const round = item.shape === "input" ? item.h / 2 : item.shape === "constant" ? 2 : 6;
    group.append(s("rect.tv-body", { x, y, width: item.w, height: item.h, rx: round }));
    if (item.root) group.append(s("rect.tv-root", { x: x - 3, y: y - 3, width: item.w + 6, height: item.h + 6, rx: round + 3 }));
    if (item.category) {
      const { mark } = this.category(item.category);
      const letter = s("g.tv-letter", {}, s("rect", { x: x + 6, y: y + 6, width: 14, height: 14, rx: 3 }), s("text", { x: x + 13, y: y + 16.5 }, mark));
      letter.style.setProperty("--c", `var(${colorVariable(item.category)})`);
      group.style.setProperty("--c", `var(${colorVariable(item.category)})`);
      group.append(letter);
    }
    const mark = item.shape === "group" ? "▸ " : item.change === "new" ? "+ " : item.change === "removed" ? "− " : "";
    group.append(s("text.tv-name", { x: x + 25, y: y + 17 }, fit(mark + item.title, item.w - 31, `600 12px ${this.family || "sans-serif"}`)));
    group.append(s("text.tv-small", { x: x + 8, y: y + 33 }, fit(item.detail, item.w - 15, `11px ${this.family || "sans-serif"}`)));
    if (item.bar !== null) group.append(s("rect.tv-bar", { x: x + 8, y: y + item.h - 8, width: Math.max((item.w - 16) * item.bar, 1), height: 4, rx: 2 }));
    group.append(s("title", {}, item.tip));
    return group;
  }

  view({ scale, x, y }: Transform): void {
    this.layer.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    this.element.classList.toggle("tv-far", scale < 0.45);
  }

  light({ pinned, hover, found }: Light): void {
    const { scene } = this;
    if (!scene) return;
    this.element.classList.toggle("tv-some", !pinned.empty);
    this.element.classList.toggle("tv-search", found !== null);
    scene.items.forEach((item, i) => {
      const { classList } = this.boxes[i]!;
      classList.toggle("tv-lit", isLit(pinned, item));
      classList.toggle("tv-sel", pinned.is(item.key.kind as Selectable, item.key.id));
      classList.toggle("tv-hover", isLit(hover, item));
      classList.toggle("tv-found", found?.has(item) ?? false);
    });
    scene.edges.forEach((edge, i) => {
      const line = this.lines[i]!;
      const on = edgeLit(pinned, edge, scene);
      line.classList.toggle("tv-lit", on);
      line.classList.toggle("tv-hover", edgeLit(hover, edge, scene));
      if (edge.kind !== "fold") line.setAttribute("marker-end", on ? "url(#tv-tip-lit)" : "url(#tv-tip)");
    });
  }

  resize(width: number, height: number): void {
    this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }
}

const drawn = (line: SVGPathElement): string => `${line.dataset.kind} ${line.getAttribute("d")}`;

/** Makes these the children of a group, and moves none that stands there already. */
function put(group: SVGGElement, children: readonly SVGElement[]): void {
  const kept = new Set<Element>(children);
  for (const child of [...group.children]) if (!kept.has(child)) child.remove();
  let at = group.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else group.insertBefore(child, at);
  }
}

function tip(id: string, className: string): SVGMarkerElement {
  const size = { viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto", markerUnits: "userSpaceOnUse" };
  return s("marker", { id, ...size }, s("path", { d: "M0 0L8 4L0 8z", class: className }));
}
