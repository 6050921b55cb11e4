/** A small picture of the whole, with the part that is in view; a click or a drag goes there. */

import { h } from "../dom";
import { colorVariable } from "./head";
import type { Scene } from "./scene";
import type { Viewport } from "./viewport";

const SIZE = 132;

export class Minimap {
  readonly element = h("canvas.tv-minimap", { "aria-hidden": true, title: "the whole graph; click to go there" });
  private scene: Scene | null = null;
  private scale = 1;
  /** the boxes, painted once */
  private still: HTMLCanvasElement | null = null;

  constructor(private readonly viewport: Viewport) {
    const go = (event: PointerEvent) => {
      if (event.buttons !== 1) return;
      event.stopPropagation();
      const box = this.element.getBoundingClientRect();
      this.viewport.reveal((event.clientX - box.left) / this.scale, (event.clientY - box.top) / this.scale, true);
    };
    this.element.addEventListener("pointerdown", go);
    this.element.addEventListener("pointermove", go);
    this.element.addEventListener("pointerup", event => event.stopPropagation());
  }

  show(scene: Scene): void {
    this.scene = scene;
    this.still = null;
    this.scale = Math.min(SIZE / Math.max(scene.width, 1), SIZE / Math.max(scene.height, 1));
    this.draw();
  }

  /** Only where the whole does not fit at a size that can be read. */
  draw(): void {
    const { scene, element, viewport, scale } = this;
    const { transform, size } = viewport;
    if (!scene) return;
    const all = scene.width * transform.scale <= size.width + 4 && scene.height * transform.scale <= size.height + 4;
    element.hidden = all || size.width < 560 || scene.items.length < 12;
    if (element.hidden || !element.isConnected) return;
    const context = element.getContext("2d");
    if (!context) return;
    const still = (this.still ??= this.dots(scene));
    if (element.width !== still.width || element.height !== still.height) {
      element.width = still.width;
      element.height = still.height;
      element.style.width = `${still.width / 2}px`;
      element.style.height = `${still.height / 2}px`;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, still.width, still.height);
    context.drawImage(still, 0, 0);
    context.scale(2, 2);
    context.strokeStyle = getComputedStyle(element).outlineColor;
    context.lineWidth = 1.5;
    const [x, y] = viewport.inside(0, 0);
    context.strokeRect(x * scale, y * scale, (size.width / transform.scale) * scale, (size.height / transform.scale) * scale);
  }

  private dots(scene: Scene): HTMLCanvasElement {
    const still = h("canvas", { width: 2 * Math.ceil(scene.width * this.scale), height: 2 * Math.ceil(scene.height * this.scale) });
    const context = still.getContext("2d");
    const style = getComputedStyle(this.element);
    const colors = new Map<string, string>();
    const color = (category: string) => {
      if (!colors.has(category)) colors.set(category, (category && style.getPropertyValue(colorVariable(category))) || style.color);
      return colors.get(category)!;
    };
    if (!context) return still;
    context.scale(2 * this.scale, 2 * this.scale);
    context.globalAlpha = 0.8;
    for (const item of scene.items) {
      context.fillStyle = color(item.category);
      context.fillRect(item.x - item.w / 2, item.y - item.h / 2, Math.max(item.w, 1 / this.scale), Math.max(item.h, 1 / this.scale));
    }
    return still;
  }
}
