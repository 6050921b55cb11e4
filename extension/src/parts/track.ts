/** Lanes on screen: W S zoom, A D pan, F the selected or all, comma and period the bar before and after. */

import { cut, h, s, taken } from "../dom";
import { DARK, type Lit } from "../links";
import type { Selection } from "../selection";
import { seconds } from "../units";
import type { Cleanup, Context } from "../views/view";
import type { Segment } from "../wire";
import { colorVariable } from "./head";
import { gaps, lanes, span, ticks, type Bar, type Lane } from "./lanes";

const LABEL = 106;
const ROW = 24;
const AXIS = 22;

export class Track {
  readonly element: HTMLElement;
  private readonly drawing = s("svg.tv-track", { "aria-hidden": true });
  private lanes: Lane[] = [];
  private all: [number, number] = [0, 1];
  private view: [number, number] = [0, 1];
  private width = 600;
  private bars = new Map<SVGElement, Bar>();
  private pinned: Lit = DARK;
  private readonly undo: Cleanup[] = [];

  constructor(el: HTMLElement, private readonly context: Context, private segment: Segment, private readonly key: (at: number) => Selection | null, private empty: string, private readonly spread: (at: number) => [low: number, middle: number, high: number] | null = () => null) {
    const keys = "W and S zoom, A and D pan, F shows the selected or all, comma and period go to the bar before and after";
    this.element = h("div.tv-lanes", { tabindex: 0, role: "application", "aria-label": `launches over time: ${keys}` }, this.drawing);
    el.append(this.element);
    this.element.addEventListener("keydown", event => this.onKey(event));
    this.element.addEventListener("wheel", event => {
      if ((this.element.getRootNode() as Document).activeElement !== this.element) return;
      taken(event);
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan((event.deltaX || event.deltaY) / this.width);
      else this.zoom(Math.exp(event.deltaY * 0.002), this.time(event.clientX - this.element.getBoundingClientRect().left));
    }, { passive: false });
    this.element.addEventListener("dblclick", () => this.fit());
    this.drag();
    const resize = new ResizeObserver(() => {
      if (this.element.clientWidth > 0) (this.width = this.element.clientWidth), this.draw();
    });
    resize.observe(this.element);
    this.undo.push(() => resize.disconnect(), context.onSelect(lit => ((this.pinned = lit), this.light())), context.onHover(lit => this.light(lit)));
    this.show(segment, empty);
  }

  destroy(): void {
    this.undo.forEach(undo => undo());
    this.element.remove();
  }

  show(segment: Segment, empty: string): void {
    this.segment = segment;
    this.empty = empty;
    this.lanes = lanes(segment);
    this.all = span(this.lanes);
    this.fit();
  }

  private fit(): void {
    const pad = (this.all[1] - this.all[0]) * 0.01;
    this.view = [this.all[0] - pad, this.all[1] + pad];
    this.draw();
  }

  private x(time: number): number {
    return LABEL + ((time - this.view[0]) / (this.view[1] - this.view[0])) * (this.width - LABEL - 8);
  }

  private time(x: number): number {
    return this.view[0] + ((x - LABEL) / (this.width - LABEL - 8)) * (this.view[1] - this.view[0]);
  }

  private zoom(factor: number, around = (this.view[0] + this.view[1]) / 2): void {
    const size = Math.min(Math.max((this.view[1] - this.view[0]) * factor, (this.all[1] - this.all[0]) * 1e-4), (this.all[1] - this.all[0]) * 1.5);
    const part = (around - this.view[0]) / (this.view[1] - this.view[0]);
    this.view = [around - part * size, around + (1 - part) * size];
    this.draw();
  }

  private pan(part: number): void {
    const by = part * (this.view[1] - this.view[0]);
    this.view = [this.view[0] + by, this.view[1] + by];
    this.draw();
  }

  private drag(): void {
    let from: { x: number; view: [number, number]; moved: boolean } | null = null;
    const { element } = this;
    element.addEventListener("pointerdown", event => void (from = event.button === 0 ? { x: event.clientX, view: this.view, moved: false } : null));
    element.addEventListener("pointermove", event => {
      if (!from) return this.point(event);
      const dx = event.clientX - from.x;
      if (!from.moved && Math.abs(dx) < 4) return;
      if (!from.moved) element.setPointerCapture(event.pointerId);
      from.moved = true;
      const by = (-dx / (this.width - LABEL - 8)) * (from.view[1] - from.view[0]);
      this.view = [from.view[0] + by, from.view[1] + by];
      this.draw();
    });
    element.addEventListener("pointerup", event => {
      const moved = from?.moved;
      from = null;
      if (moved) return;
      const bar = this.barAt(event);
      this.context.selection.set(bar ? this.key(bar.at) : null);
    });
    element.addEventListener("pointerleave", () => this.context.hover.set(null));
  }

  private barAt(event: Event): Bar | undefined {
    const mark = (event.target as Element).closest<SVGElement>(".tv-launch");
    return mark ? this.bars.get(mark) : undefined;
  }

  private point(event: Event): void {
    const bar = this.barAt(event);
    this.context.hover.set(bar ? this.key(bar.at) : null);
  }

  private onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.key.toLowerCase();
    if (name === "w" || name === "+") this.zoom(0.7);
    else if (name === "s" || name === "-") this.zoom(1 / 0.7);
    else if (name === "a" || event.key === "ArrowLeft") this.pan(-0.15);
    else if (name === "d" || event.key === "ArrowRight") this.pan(0.15);
    else if (name === "f" || name === " " || name === "0") this.focus(name === "f");
    else if (name === "," || name === ".") this.step(name === "." ? 1 : -1);
    else return;
    taken(event);
  }

  private own(): Bar[] {
    return this.lanes.flatMap(lane => lane.bars).filter(bar => {
      const key = this.key(bar.at);
      return key !== null && this.pinned.has(key.kind as "call", key.id);
    });
  }

  private focus(selected: boolean): void {
    const own = selected ? this.own() : [];
    if (own.length === 0) return this.fit();
    const [start, end] = [Math.min(...own.map(bar => bar.start)), Math.max(...own.map(bar => bar.end))];
    const pad = (end - start) * 0.5 || 1e-6;
    this.view = [start - pad, end + pad];
    this.draw();
  }

  private step(by: 1 | -1): void {
    const order = this.lanes.flatMap(lane => lane.bars).filter(bar => this.key(bar.at)).sort((a, b) => a.start - b.start);
    const at = order.indexOf(this.own()[0]!);
    const next = order[at < 0 ? (by > 0 ? 0 : order.length - 1) : Math.min(Math.max(at + by, 0), order.length - 1)];
    if (!next) return;
    this.context.selection.set(this.key(next.at));
    const size = this.view[1] - this.view[0];
    if (next.start < this.view[0] || next.end > this.view[1]) (this.view = [next.start - size / 2, next.start + size / 2]), this.draw();
    this.context.say(`${this.segment.label[next.at]}, ${seconds(this.segment.seconds[next.at])}`);
  }

  private draw(): void {
    const { drawing, segment, width } = this;
    const rows = this.lanes.reduce((sum, lane) => sum + lane.rows, 0);
    const height = AXIS + rows * ROW + this.lanes.length * 8 + 4;
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", String(height));
    this.bars = new Map();
    if (this.lanes.length === 0) {
      drawing.setAttribute("height", "40");
      drawing.setAttribute("viewBox", `0 0 ${width} 40`);
      drawing.replaceChildren(s("text.tv-lanename", { x: 8, y: 24 }, `– ${this.empty}`));
      return;
    }
    const parts: SVGElement[] = [];
    for (const time of ticks(this.view[0], this.view[1], (width - LABEL) / 110)) {
      const x = this.x(time);
      if (x < LABEL) continue;
      parts.push(s("line.tv-tick", { x1: x, x2: x, y1: AXIS - 4, y2: height }), s(x > width - 28 ? "text.tv-ticktext.tv-end" : "text.tv-ticktext", { x, y: 13 }, time === 0 ? "0" : seconds(time)));
    }
    let y = AXIS;
    for (const lane of this.lanes) {
      parts.push(s("rect.tv-lanebody", { x: LABEL, y, width: Math.max(width - LABEL - 8, 0), height: lane.rows * ROW }), s("text.tv-lanename", { x: 6, y: y + 16 }, lane.name));
      const points = lane.bars.every(bar => bar.end === bar.start); // between moments there are no gaps
      for (const [start, end] of points ? [] : gaps(lane)) {
        const [x0, x1] = [Math.max(this.x(start), LABEL), this.x(end)];
        if (x1 - x0 < 3 || x0 > width) continue;
        parts.push(s("rect.tv-gap", { x: x0, y: y + 3, width: x1 - x0, height: ROW - 6 }, s("title", {}, `nothing ran for ${seconds(end - start)}`)));
        if (x1 - x0 > 52) parts.push(s("text.tv-gaptext", { x: (x0 + x1) / 2, y: y + 16 }, seconds(end - start)));
      }
      for (const bar of lane.bars) {
        const [x0, x1] = [Math.max(this.x(bar.start), LABEL), Math.min(this.x(bar.end), width - 8)];
        if (x1 < LABEL || x0 > width) continue;
        const label = segment.label[bar.at] ?? "";
        const among = this.spread(bar.at);
        const beside = among ? `; of all runs: median ${seconds(among[1])}, middle half ${seconds(among[0])} – ${seconds(among[2])}` : "";
        const mark = s("g.tv-launch", { "data-call": segment.call[bar.at] ?? null }, s("title", {}, `${label}: ${seconds(segment.seconds[bar.at])}${beside}`));
        mark.style.setProperty("--c", `var(${colorVariable(segment.category[bar.at] ?? "host")})`);
        const top = y + bar.row * ROW + 2;
        if (bar.end === bar.start) {
          mark.append(s("path", { d: `M${x0} ${top + 2}l5 ${ROW / 2 - 4}l-5 ${ROW / 2 - 4}l-5 -${ROW / 2 - 4}z` }));
          const next = lane.bars.find(other => other.row === bar.row && other.start > bar.start);
          const room = Math.min(next ? this.x(next.start) - 8 : Infinity, width - 8) - (x0 + 9);
          if (room > 40) mark.append(s("text.tv-beside", { x: x0 + 9, y: top + 14 }, cut(label, Math.floor(room / 6.2))));
        } else mark.append(s("rect", { x: x0, y: top, width: Math.max(x1 - x0, 1), height: ROW - 4, rx: Math.min(2, (x1 - x0) / 4) }));
        const letter = this.context.category(segment.category[bar.at] ?? "").mark;
        if (bar.end > bar.start && x1 - x0 > 16) mark.append(s("text", { x: x0 + 4, y: top + 14 }, cut(x1 - x0 > 44 ? `${letter} ${label}` : letter, Math.floor((x1 - x0 - 8) / 7))));
        if (among && x1 - x0 > 6) {
          const [low, high] = [this.x(bar.start + among[0]), this.x(bar.start + among[2])].map(x => Math.min(Math.max(x, LABEL), width - 8)) as [number, number];
          mark.append(s("path.tv-whisker", { d: `M${low} ${top + ROW - 6}v4m0 -2H${high}m0 -2v4` }));
        }
        this.bars.set(mark, bar);
        parts.push(mark);
      }
      y += lane.rows * ROW + 8;
    }
    drawing.replaceChildren(...parts);
    this.light();
  }

  private light(hover: Lit = DARK): void {
    for (const [mark, bar] of this.bars) {
      const key = this.key(bar.at);
      if (!key) {
        mark.classList.remove("tv-lit", "tv-hover");
        continue;
      }
      mark.classList.toggle("tv-lit", this.pinned.has(key.kind as "call", key.id));
      mark.classList.toggle("tv-sel", this.pinned.is(key.kind as "call", key.id));
      mark.classList.toggle("tv-hover", hover.has(key.kind as "call", key.id));
    }
    this.drawing.classList.toggle("tv-some", !this.pinned.empty && this.own().length > 0);
  }
}
