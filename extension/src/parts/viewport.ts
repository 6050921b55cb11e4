/** Pan and zoom. The wheel zooms only once the view has the focus; before, it scrolls the notebook. */

import { taken } from "../dom";
import type { Cleanup } from "../views/view";
import type { Transform } from "./svgpaint";

const MOST = 3;
const STEP = 1.2;

export interface Events {
  moved(transform: Transform): void;
  click(x: number, y: number, event: PointerEvent): void;
  point(x: number, y: number): void;
  leave(): void;
}

export class Viewport {
  transform: Transform = { scale: 1, x: 0, y: 0 };
  size = { width: 1, height: 1 };
  /** whether someone has chosen what is in view: then a resize does not choose again */
  touched = false;
  private drag: { x: number; y: number; from: Transform; moved: boolean } | null = null;

  constructor(private readonly el: HTMLElement, private readonly content: () => { width: number; height: number }, private readonly events: Events) {}

  start(): Cleanup {
    const { el } = this;
    const place = (event: MouseEvent): [number, number] => {
      const box = el.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const down = (event: PointerEvent) => {
      if (event.button !== 0) return;
      el.focus({ preventScroll: true });
      this.drag = { x: event.clientX, y: event.clientY, from: this.transform, moved: false };
    };
    const move = (event: PointerEvent) => {
      const { drag } = this;
      if (!drag) return this.events.point(...this.inside(...place(event)));
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      if (!drag.moved) el.setPointerCapture(event.pointerId);
      drag.moved = true;
      el.classList.add("tv-dragging");
      this.set({ ...drag.from, x: drag.from.x + dx, y: drag.from.y + dy });
    };
    const up = (event: PointerEvent) => {
      const { drag } = this;
      this.drag = null;
      el.classList.remove("tv-dragging");
      if (drag && !drag.moved) this.events.click(...this.inside(...place(event)), event);
    };
    const wheel = (event: WheelEvent) => {
      const root = el.getRootNode() as Document | ShadowRoot;
      if (root.activeElement !== el) return;
      taken(event);
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.002)), ...place(event));
    };
    const leave = () => this.events.leave();
    const twice = () => this.fit();
    const cancel = () => {
      this.drag = null;
      el.classList.remove("tv-dragging");
    };
    el.addEventListener("pointerdown", down);
    el.addEventListener("pointermove", move);
    el.addEventListener("pointerup", up);
    el.addEventListener("pointercancel", cancel);
    el.addEventListener("pointerleave", leave);
    el.addEventListener("wheel", wheel, { passive: false });
    el.addEventListener("dblclick", twice);
    return () => {
      el.removeEventListener("pointerdown", down);
      el.removeEventListener("pointermove", move);
      el.removeEventListener("pointerup", up);
      el.removeEventListener("pointercancel", cancel);
      el.removeEventListener("pointerleave", leave);
      el.removeEventListener("wheel", wheel);
      el.removeEventListener("dblclick", twice);
    };
  }

  /** From places in the element to places in the drawing. */
  inside(x: number, y: number): [number, number] {
    return [(x - this.transform.x) / this.transform.scale, (y - this.transform.y) / this.transform.scale];
  }

  set(transform: Transform, touched = true): void {
    this.transform = transform;
    this.touched = touched;
    this.events.moved(transform);
  }

  refresh(): void {
    this.events.moved(this.transform);
  }

  zoom(factor: number, x = this.size.width / 2, y = this.size.height / 2): void {
    const { transform } = this;
    const scale = Math.min(Math.max(transform.scale * factor, this.least()), MOST);
    const by = scale / transform.scale;
    this.set({ scale, x: x - (x - transform.x) * by, y: y - (y - transform.y) * by });
  }

  private least(): number {
    return Math.min(this.fitting() * 0.5, 0.5);
  }

  private fitting(): number {
    const { width, height } = this.content();
    return Math.min((this.size.width - 16) / Math.max(width, 1), (this.size.height - 16) / Math.max(height, 1));
  }

  /** All of it, in the middle, or at the top of what is left over. */
  fit(top = false): void {
    const { width, height } = this.content();
    const scale = Math.min(Math.max(this.fitting(), 0.01), 1.15);
    const over = (this.size.height - height * scale) / 2;
    this.set({ scale, x: (this.size.width - width * scale) / 2, y: top ? Math.min(over, 20) : over }, false);
  }

  /** A part of it, in the middle, or where that would be too small to read its upper end; `x` and `y` are its centre. */
  fitTo({ x, y, w, h }: { x: number; y: number; w: number; h: number }): void {
    const whole = Math.min((this.size.width - 24) / w, (this.size.height - 24) / h, 1.15);
    const scale = whole >= 0.5 ? whole : Math.max(Math.min((this.size.width - 24) / w, 0.9), 0.5);
    const middle = whole >= 0.5 ? y : y - h / 2 + (this.size.height - 24) / 2 / scale;
    this.set({ scale, x: this.size.width / 2 - x * scale, y: this.size.height / 2 - middle * scale });
  }

  /** Where all of it would be too small to read: the top, at a size that can be read, around `middle`; else all of it. */
  open(middle: number): void {
    if (this.fitting() >= 0.8) return this.fit();
    const { width } = this.content();
    const scale = Math.max(Math.min((this.size.width - 16) / width, 0.95), 0.8);
    const room = this.size.width - width * scale;
    const x = room >= 0 ? room / 2 : Math.min(Math.max(this.size.width / 2 - middle * scale, room - 8), 8);
    this.set({ scale, x, y: 8 }, false);
  }

  /** Brings a place into view, if it is not; `always`: to the middle. */
  reveal(x: number, y: number, always = false): void {
    const { scale } = this.transform;
    const [px, py] = [x * scale + this.transform.x, y * scale + this.transform.y];
    const margin = 50;
    const seen = px > margin && py > margin && px < this.size.width - margin && py < this.size.height - margin;
    if (seen && !always) return;
    const better = Math.max(scale, 0.5);
    this.set({ scale: better, x: this.size.width / 2 - x * better, y: this.size.height / 2 - y * better });
  }

  pan(dx: number, dy: number): void {
    this.set({ ...this.transform, x: this.transform.x + dx, y: this.transform.y + dy });
  }

  /** + − 0 space: true where the key was one of these. */
  key(key: string): boolean {
    if (key === "+" || key === "=") this.zoom(STEP);
    else if (key === "-") this.zoom(1 / STEP);
    else if (key === "0" || key === " ") this.fit();
    else return false;
    return true;
  }
}
