/** Paints a scene on a canvas: above about 1,500 boxes, where a DOM element each would be slow. Only what is in view is painted. */

import { h } from "../dom";
import { DARK } from "../links";
import type { Category, Selectable } from "../wire";
import { colorVariable } from "./head";
import { fit } from "./fit";
import { curve, type Edge, type Item, type Scene } from "./scene";
import { edgeLit, isLit, isLong, type Light, type Painter, type Transform } from "./svgpaint";

const NAMES = { back: "--tv-back", ink: "--tv-ink", faint: "--tv-faint", line: "--tv-line", accent: "--tv-accent", raised: "--tv-raised" };
/** scale below which boxes are dots without text */
const FAR = 0.3;

type Colors = Record<keyof typeof NAMES, string>;

export class CanvasPainter implements Painter {
  readonly element = h("canvas.tv-drawing", { "aria-hidden": true });
  private scene: Scene | null = null;
  private transform: Transform = { scale: 1, x: 0, y: 0 };
  private now: Light = { pinned: DARK, hover: DARK, found: null };
  private size = { width: 1, height: 1 };
  private waiting = 0;
  private colors: (Colors & { category: Map<string, string> }) | null = null;

  constructor(private readonly category: (name: string) => Category) {}

  show(scene: Scene): void {
    this.scene = scene;
    this.colors = null;
    this.soon();
  }

  view(transform: Transform): void {
    this.transform = transform;
    this.soon();
  }

  light(light: Light): void {
    this.now = light;
    this.soon();
  }

  resize(width: number, height: number): void {
    this.size = { width, height };
    const ratio = globalThis.devicePixelRatio || 1;
    this.element.width = Math.round(width * ratio);
    this.element.height = Math.round(height * ratio);
    this.colors = null;
    this.soon();
  }

  private soon(): void {
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  private readColors(scene: Scene): NonNullable<CanvasPainter["colors"]> {
    // A variable may hold another variable or color-mix(): only a property that takes a colour resolves it.
    const probe = h("span");
    this.element.parentElement?.append(probe);
    const read = (variable: string) => {
      probe.style.color = `var(${variable})`;
      return getComputedStyle(probe).color;
    };
    const colors = Object.fromEntries(Object.entries(NAMES).map(([name, variable]) => [name, read(variable)])) as Colors;
    const names = new Set<string>();
    for (const item of scene.items) names.add(item.category).add(item.change);
    const category = new Map([...names].map(name => [name, name ? read(colorVariable(name)) : colors.line]));
    probe.remove();
    return { ...colors, category };
  }

  private paint(): void {
    const { scene, element, size } = this;
    const context = element.getContext("2d");
    if (!scene || !context || !element.isConnected) return;
    const colors = (this.colors ??= this.readColors(scene));
    const { scale, x, y } = this.transform;
    const ratio = element.width / size.width;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    context.translate(x, y);
    context.scale(scale, scale);
    const view = { left: -x / scale, top: -y / scale, right: (size.width - x) / scale, bottom: (size.height - y) / scale };
    const inView = (cx: number, cy: number, w: number, h: number) =>
      cx + w / 2 > view.left && cx - w / 2 < view.right && cy + h / 2 > view.top && cy - h / 2 < view.bottom;

    context.font = "600 11px system-ui, sans-serif";
    for (const frame of scene.frames) {
      if (!inView(frame.x, frame.y, frame.w, frame.h)) continue;
      context.strokeStyle = colors.line;
      context.strokeRect(frame.x - frame.w / 2, frame.y - frame.h / 2, frame.w, frame.h);
      context.fillStyle = colors.faint;
      context.textAlign = frame.right ? "right" : "left";
      const left = frame.right ? frame.x + frame.w / 2 - 8 : frame.x - frame.w / 2 + 8;
      if (scale > FAR) context.fillText(`${frame.closes ? "▾ " : ""}${frame.title}`, left, frame.y - frame.h / 2 + 15);
      context.textAlign = "left";
    }
    this.edges(context, scene, colors, inView);
    const some = !this.now.pinned.empty || this.now.found !== null;
    const seen = scene.items.filter(item => inView(item.x, item.y, item.w, item.h));
    if (scale < FAR) this.dots(context, seen, colors, scale, some);
    else for (const item of seen) this.box(context, item, colors, some);
    context.globalAlpha = 1;
  }

  /** From far away: one colour after the other, which is what makes it quick. What is lit comes last and larger. */
  private dots(context: CanvasRenderingContext2D, seen: readonly Item[], colors: NonNullable<CanvasPainter["colors"]>, scale: number, some: boolean): void {
    const { pinned, hover, found } = this.now;
    const lit = new Set(some || !hover.empty ? seen.filter(item => isLit(pinned, item) || isLit(hover, item) || found?.has(item)) : []);
    context.globalAlpha = some ? 0.35 : 1;
    for (const [category, color] of colors.category) {
      context.fillStyle = color;
      for (const item of seen) if (item.category === category && !lit.has(item)) context.fillRect(item.x - item.w / 2, item.y - item.h / 2, item.w, item.h);
    }
    context.globalAlpha = 1;
    const grow = Math.max(3 / scale, 4);
    context.fillStyle = colors.accent;
    for (const item of lit) context.fillRect(item.x - item.w / 2 - grow, item.y - item.h / 2 - grow, item.w + 2 * grow, item.h + 2 * grow);
    for (const item of lit) {
      context.fillStyle = colors.category.get(item.category) ?? colors.line;
      context.fillRect(item.x - item.w / 2, item.y - item.h / 2, item.w, item.h);
    }
  }

  private edges(context: CanvasRenderingContext2D, scene: Scene, colors: Colors, inView: (x: number, y: number, w: number, h: number) => boolean): void {
    const lit: Edge[] = [];
    context.beginPath();
    for (const edge of scene.edges) {
      const [a, b] = [scene.items[edge.from]!, scene.items[edge.to]!];
      if (!inView((a.x + b.x) / 2, (a.y + b.y) / 2, Math.abs(a.x - b.x) + a.w, Math.abs(a.y - b.y) + a.h)) continue;
      if (!this.now.pinned.empty && edgeLit(this.now.pinned, edge, scene)) lit.push(edge);
      else if (this.transform.scale < FAR) far(context, a, b);
      else trace(context, a, b, edge);
    }
    context.strokeStyle = colors.faint;
    context.globalAlpha = this.now.pinned.empty ? 0.5 : 0.25;
    context.lineWidth = 1;
    context.stroke();
    context.globalAlpha = 1;
    context.beginPath();
    for (const edge of lit) trace(context, scene.items[edge.from]!, scene.items[edge.to]!, { ...edge, kind: "flow" });
    context.strokeStyle = colors.accent;
    context.lineWidth = 2;
    context.stroke();
  }

  private box(context: CanvasRenderingContext2D, item: Item, colors: NonNullable<CanvasPainter["colors"]>, some: boolean): void {
    const { pinned, hover, found } = this.now;
    const on = isLit(pinned, item);
    const hit = found?.has(item) ?? false;
    const color = colors.category.get(item.category) ?? colors.line;
    const [left, top] = [item.x - item.w / 2, item.y - item.h / 2];
    context.globalAlpha = some && !on && !hit ? 0.35 : 1;
    context.beginPath();
    context.roundRect(left, top, item.w, item.h, item.shape === "input" ? item.h / 2 : 6);
    context.fillStyle = item.shape === "move" ? colors.raised : colors.back;
    context.fill();
    const change = item.change && (colors.category.get(item.change) ?? colors.ink);
    context.strokeStyle = change || (on || hit ? colors.accent : color);
    context.lineWidth = pinned.is(item.key.kind as Selectable, item.key.id) ? 5 : change ? 3.5 : on || hit || isLit(hover, item) ? 3 : 1.2;
    context.setLineDash(item.change === "removed" ? [3, 3] : []);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = color;
    context.fillRect(left + 6, top + 6, 14, 14);
    context.fillStyle = colors.back;
    context.font = "700 10px system-ui, sans-serif";
    if (item.category) context.fillText(this.category(item.category).mark, left + 9.5, top + 16.5);
    context.fillStyle = colors.ink;
    context.font = "600 11px system-ui, sans-serif";
    const mark = item.shape === "group" ? "▸ " : item.change === "new" ? "+ " : item.change === "removed" ? "− " : "";
    context.fillText(fit(mark + item.title, item.w - 31, context.font), left + 25, top + 17);
    context.fillStyle = colors.faint;
    context.font = "10px system-ui, sans-serif";
    context.fillText(fit(item.detail, item.w - 15, context.font), left + 8, top + 33);
    context.fillStyle = color;
    if (item.bar !== null) context.fillRect(left + 8, top + item.h - 8, (item.w - 16) * item.bar, 4);
  }
}

/** A straight line will do; one from end to end would only hide what it passes. */
function far(context: CanvasRenderingContext2D, from: Item, to: Item): void {
  if (isLong((to.y - from.y) / 3, (to.x - from.x) / 3)) return;
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y);
}

function trace(context: CanvasRenderingContext2D, from: Item, to: Item, edge: Pick<Edge, "kind" | "across">): void {
  const [x0, y0, ...rest] = curve(from, to, edge);
  context.moveTo(x0, y0);
  context.bezierCurveTo(...rest);
}
