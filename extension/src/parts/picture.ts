/** A graph that can be looked at: painted, panned, zoomed, searched, walked through with the keyboard. */

import { h, taken } from "../dom";
import { DARK, type Lit } from "../links";
import type { Selection } from "../selection";
import type { Cleanup, Context } from "../views/view";
import { CanvasPainter } from "./canvaspaint";
import { Minimap } from "./minimap";
import { Places, type Item, type Scene } from "./scene";
import { isLit, SvgPainter, type Light, type Painter } from "./svgpaint";
import { Viewport } from "./viewport";

/** boxes above which the picture is painted on a canvas */
export const SVG_MOST = 1500;

export interface PictureOptions {
  label: string;
  /** opens or closes the group of this id */
  toggle?: (group: string) => void;
  /** keys that the view has beyond the picture's: true where it took one */
  key?: (event: KeyboardEvent) => boolean;
  /** another picture that shows the same places */
  moved?: (picture: Picture) => void;
  /** begins with all of it in view, however small */
  whole?: boolean;
  /** boxes above which it is painted on a canvas */
  svgMost?: number;
  /** brings what is lit into view when the selection comes from elsewhere; true unless told otherwise */
  follow?: boolean;
}

const EMPTY: Scene = { items: [], frames: [], edges: [], width: 1, height: 1 };

export class Picture {
  readonly element: HTMLElement;
  readonly viewport: Viewport;
  scene: Scene = EMPTY;
  private painter: Painter | null = null;
  /** of the scene on show, made when they are first asked for: steps come faster than pointers */
  private index: { places: Places; byNode: Map<string, Item> } | null = null;
  private readonly minimap: Minimap;
  private readonly now: Light = { pinned: DARK, hover: DARK, found: null };
  private readonly undo: Cleanup[] = [];
  private fitted = false;
  /** what was to be revealed before there was room to show it */
  private wanted: Item | null = null;
  private mine: Selection | null = null;

  constructor(el: HTMLElement, private readonly context: Context, private readonly options: PictureOptions) {
    const keys = "arrows walk along values, plus and minus zoom, space fits, Enter opens a group, slash searches";
    this.element = h("div.tv-picture", { tabindex: 0, role: "application", "aria-label": `${options.label}: ${keys}` });
    this.viewport = new Viewport(this.element, () => this.scene, {
      moved: transform => {
        this.painter?.view(transform);
        this.minimap.draw();
        options.moved?.(this);
      },
      click: (x, y) => this.click(x, y),
      point: (x, y) => this.point(x, y),
      leave: () => this.context.hover.set(null),
    });
    this.minimap = new Minimap(this.viewport);
    this.element.append(this.minimap.element);
    el.append(this.element);
    this.element.addEventListener("keydown", event => this.key(event));
    const resize = new ResizeObserver(() => this.resize());
    resize.observe(this.element);
    this.undo.push(
      this.viewport.start(),
      () => resize.disconnect(),
      context.onSelect(pinned => this.select(pinned)),
      context.onHover(hover => this.light({ hover })),
      context.onTheme(() => this.show(this.scene)),
    );
  }

  destroy(): void {
    this.undo.forEach(undo => undo());
    this.element.remove();
  }

  /** Replaces what is shown. `still`: a group whose upper left corner stays where it is on the screen. */
  show(scene: Scene, still?: string): void {
    const before = still === undefined ? null : corner(this.scene, still);
    this.scene = scene;
    this.index = null;
    const canvas = scene.items.length > (this.options.svgMost ?? SVG_MOST);
    if (!this.painter || canvas !== this.painter instanceof CanvasPainter) {
      this.painter?.element.remove();
      const category = (name: string) => this.context.category(name);
      this.painter = canvas ? new CanvasPainter(category) : new SvgPainter(category);
      this.element.prepend(this.painter.element);
    }
    this.painter.resize(this.viewport.size.width, this.viewport.size.height);
    this.painter.show(scene);
    this.minimap.show(scene);
    this.painter.light(this.now);
    const after = still === undefined ? null : corner(scene, still);
    const { transform } = this.viewport;
    if (before && after) {
      const { scale } = transform;
      this.viewport.set({ scale, x: transform.x + (before[0] - after[0]) * scale, y: transform.y + (before[1] - after[1]) * scale });
    } else if (this.fitted) this.viewport.refresh();
    else if (this.viewport.size.width > 1) this.open();
  }

  find(found: ReadonlySet<Item> | null): void {
    this.light({ found });
  }

  private get indexed(): { places: Places; byNode: Map<string, Item> } {
    const { scene } = this;
    return (this.index ??= { places: new Places(scene), byNode: new Map(scene.items.map(item => [`${item.key.kind} ${item.key.id}`, item])) });
  }

  item(selection: Selection): Item | undefined {
    return this.indexed.byNode.get(`${selection.kind} ${selection.id}`);
  }

  reveal(item: Item, always = false): void {
    if (this.fitted) this.viewport.reveal(item.x, item.y, always);
    else this.wanted = item;
  }

  /** Shows the whole, or its beginning where the whole would be too small to read. */
  open(): void {
    this.fitted = true;
    if (this.options.whole) return this.viewport.fit(true);
    const top = this.scene.items.filter(item => item.y < this.viewport.size.height);
    const [left, right] = [Math.min(...top.map(item => item.x)), Math.max(...top.map(item => item.x))];
    // What begins as wide as the view is read from the left.
    const wide = top.length === 0 || right - left > this.viewport.size.width;
    this.viewport.open(wide ? 0 : (left + right) / 2);
    if (this.wanted) this.viewport.reveal(this.wanted.x, this.wanted.y);
    this.wanted = null;
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (width === 0 || height === 0) return;
    this.viewport.size = { width, height };
    this.painter?.resize(width, height);
    if (this.scene !== EMPTY && !this.viewport.touched) this.open();
    else this.viewport.refresh();
  }

  private light(change: Partial<Light>): void {
    Object.assign(this.now, change);
    this.painter?.light(this.now);
  }

  private select(pinned: Lit): void {
    this.light({ pinned });
    const { selection } = pinned;
    if (!selection || this.options.follow === false || selection === this.mine || !this.fitted) return;
    const first = this.item(selection) ?? this.scene.items.find(item => isLit(pinned, item));
    if (first) this.reveal(first);
  }

  choose(selection: Selection | null): void {
    this.mine = selection;
    this.context.selection.set(selection);
  }

  private click(x: number, y: number): void {
    const item = this.indexed.places.item(x, y);
    if (item) {
      if (item.group && x < item.x - item.w / 2 + 40) return this.options.toggle?.(item.group);
      return this.choose(item.key);
    }
    const edge = this.indexed.places.edge(x, y, 8 / this.viewport.transform.scale);
    if (edge) return this.choose(edge.key);
    const frame = this.indexed.places.frame(x, y);
    if (frame && frame.closes && x < frame.x - frame.w / 2 + 22) return this.options.toggle?.(frame.group);
    this.choose(frame?.key ?? null);
  }

  private point(x: number, y: number): void {
    const item = this.indexed.places.item(x, y);
    const edge = item ? null : this.indexed.places.edge(x, y, 6 / this.viewport.transform.scale);
    const frame = item || edge ? null : this.indexed.places.frame(x, y);
    const key = item?.key ?? edge?.key ?? frame?.key ?? null;
    this.element.classList.toggle("tv-pointing", key !== null || frame !== null);
    this.context.hover.set(key);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.element) return;
    const current = this.context.selection.value;
    const item = current ? this.item(current) : undefined;
    if (this.options.key?.(event) || this.viewport.key(event.key)) return taken(event);
    if (event.key.startsWith("Arrow")) {
      if (event.shiftKey) {
        const sign = event.key === "ArrowLeft" || event.key === "ArrowUp" ? 60 : -60;
        if (event.key === "ArrowLeft" || event.key === "ArrowRight") this.viewport.pan(sign, 0);
        else this.viewport.pan(0, sign);
      } else this.walk(event.key, item);
    } else if (event.key === "Enter" && item?.group) this.options.toggle?.(item.group);
    else if (event.key === "Escape" && current) this.choose(null);
    else if (event.key === "f" && item) this.reveal(item, true);
    else return;
    taken(event);
  }

  /** Up to operands, down to users, sideways to neighbours of the row. */
  private walk(key: string, from: Item | undefined): void {
    const { items, edges } = this.scene;
    if (items.length === 0) return;
    let to: Item | undefined;
    if (!from) to = items[0];
    else if (key === "ArrowUp" || key === "ArrowDown") {
      const down = key === "ArrowDown";
      const at = items.indexOf(from);
      const next = edges.filter(edge => (down ? edge.from : edge.to) === at).map(edge => items[down ? edge.to : edge.from]!);
      to = next.sort((a, b) => Math.abs(a.x - from.x) - Math.abs(b.x - from.x))[0];
    } else {
      const sign = key === "ArrowRight" ? 1 : -1;
      const beside = items.filter(item => Math.abs(item.y - from.y) < from.h && sign * (item.x - from.x) > 0);
      to = beside.sort((a, b) => sign * (a.x - b.x))[0];
    }
    if (!to) return;
    this.choose(to.key);
    this.reveal(to);
    this.context.say(`${to.title}, ${to.detail}`);
  }
}

/** The upper left corner of a group, open or closed. */
function corner({ items, frames }: Scene, group: string): [number, number] | null {
  const found = frames.find(frame => frame.group === group) ?? items.find(item => item.group === group);
  return found ? [found.x - found.w / 2, found.y - found.h / 2] : null;
}
