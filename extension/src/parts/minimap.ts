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
    const [width, height] = [Math.ceil(scene.width * scale), Math.ceil(scene.height * scale)];
    element.width = width * 2;
    element.height = height * 2;
    element.style.width = `${width}px`;
    element.style.height = `${height}px`;
    const context = element.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(element);
    context.scale(2, 2);
    context.globalAlpha = 0.8;
    for (const item of scene.items) {
      context.fillStyle = (item.category && style.getPropertyValue(colorVariable(item.category))) || style.color;
      context.fillRect((item.x - item.w / 2) * scale, (item.y - item.h / 2) * scale, Math.max(item.w * scale, 1), Math.max(item.h * scale, 1));
    }
    context.globalAlpha = 1;
    context.strokeStyle = style.outlineColor;
    context.lineWidth = 1.5;
    const [x, y] = viewport.inside(0, 0);
    context.strokeRect(x * scale, y * scale, (size.width / transform.scale) * scale, (size.height / transform.scale) * scale);
  }
}
