/** roofline: how far is each kernel from what this machine can do, and what would make it faster? */

import { h, s, taken } from "../dom";
import { kernelName } from "../names";
import { ablation } from "../parts/ablation";
import { bar } from "../parts/controls";
import { colorVariable, head, swatch, twin } from "../parts/head";
import { bytes, count, MISSING, percent, seconds, some } from "../units";
import type { Diagnosis, Roof, RooflineData, RoofPoint } from "../wire";
import { together, type Cleanup, type Context, type Part } from "./view";

const LEFT = 58;
const BELOW = 36;
const [ROOF_NAME, SHORT_NAME, LETTER] = [120, 56, 8]; // pixels that the name of a roof takes, with its rate and without, and a letter of it

export const roofline: Part<RooflineData> = (el, data, context) => {
  const { program } = context.links.program(data.program);
  const key = (kernel: number) => ({ kind: "kernel", id: `${data.program}.${kernel}` });
  const word = data.measured ? "measured" : `predicted: ${MISSING} nothing was measured`;
  const source = data.roofs.length === 0 ? `${MISSING} the machine's peaks were not recorded` : `${context.recording.machine.name}, all cores, peaks: ${data.peaks || "source unknown"}`;
  el.append(head(data), h("div.tv-faint", {}, `${source} · wasted time is ${word}`));

  const list = h("div.tv-kernels", { role: "listbox", tabindex: 0, "aria-label": "kernels, most wasted time first: arrows go from one to the next" });
  const most = Math.max(...data.points.map(point => point.wasted ?? 0)) || 1;
  const rows = data.points.map((point, i) => {
    const row = h("div.tv-kernelrow", { role: "option", "aria-selected": "false" },
      h("span.tv-marks", {}, swatch(context.category(point.category)), h("b.tv-rank", {}, String(i + 1))), h("span.tv-name", { title: kernelName(program, point.kernel) }, kernelName(program, point.kernel)),
      bar((point.wasted ?? 0) / most, `${seconds(point.wasted)} wasted`, colorVariable(point.category)),
      h("span.tv-where2", {}, point.roof ? `${percent(efficiency(point))} of the roof “${point.roof}”` : `${MISSING} no roof known`));
    row.addEventListener("click", () => context.selection.set(key(point.kernel)));
    row.addEventListener("pointerenter", () => context.hover.set(key(point.kernel)));
    list.append(row);
    return row;
  });
  list.addEventListener("pointerleave", () => context.hover.set(null));
  list.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    const at = data.points.findIndex(point => context.links.related(context.selection.value).is("kernel", key(point.kernel).id));
    const next = Math.min(Math.max(at + by, 0), rows.length - 1);
    if (!rows[next]) return;
    context.selection.set(key(data.points[next]!.kernel));
    rows[next]!.scrollIntoView({ block: "nearest" });
  });
  const side = h("div.tv-kernelbody");
  el.append(h("div.tv-split", {}, list, side));
  const drawn = plot(side, data, context);
  const cards = diagnoses(data, context);
  const bound = h("div.tv-boundplace");
  side.append(bound, cards.element);
  el.append(twin("kernels, most wasted time first", [
    { name: "kernel", text: point => kernelName(program, point.kernel) },
    { name: "wasted", text: point => seconds(point.wasted), right: true },
    { name: "measured", text: point => seconds(point.seconds), right: true },
    { name: "predicted", text: point => seconds(point.seconds_predicted), right: true },
    { name: "nearest roof", text: point => point.roof || MISSING },
    { name: "at the roof", text: point => seconds(point.seconds_roof), right: true },
    { name: "of the roof", text: point => percent(efficiency(point)), right: true },
    { name: "FLOPs per byte", text: point => count(point.intensity), right: true },
    { name: "FLOP/s", text: point => count(point.rate), right: true },
    { name: "FLOP/s predicted", text: point => count(point.rate_predicted), right: true },
    { name: "bytes", text: point => bytes(point.nbytes), right: true },
  ], () => data.points, point => context.selection.set(key(point.kernel))));
  let about = -1;
  const light = context.onSelect(lit => {
    rows.forEach((row, i) => {
      const { id } = key(data.points[i]!.kernel);
      row.classList.toggle("tv-lit", lit.has("kernel", id));
      row.classList.toggle("tv-sel", lit.is("kernel", id));
      row.setAttribute("aria-selected", String(lit.is("kernel", id)));
    });
    const own = data.points.find(point => lit.is("kernel", key(point.kernel).id))?.kernel ?? (about < 0 ? data.points[0]?.kernel : undefined);
    if (own === undefined || own === about) return;
    about = own;
    bound.replaceChildren(ablation(context, data.program, own));
  });
  const unhover = context.onHover(lit => rows.forEach((row, i) => row.classList.toggle("tv-hover", lit.has("kernel", key(data.points[i]!.kernel).id))));
  return together(light, unhover, drawn, cards.undo);
};

function efficiency({ seconds, seconds_predicted, seconds_roof }: RoofPoint): number | null {
  const time = seconds ?? seconds_predicted;
  return time && seconds_roof !== null ? seconds_roof / time : null;
}

export function rate({ name, rate }: Roof): string {
  return name === "arithmetic" ? `${count(rate)}FLOP/s` : `${bytes(rate)}/s`;
}

/** Decades around the points and the ridges: [least, most] FLOPs per byte and FLOP/s, as powers of ten; null: nothing to draw. */
export function decades(roofs: readonly Roof[], points: readonly RoofPoint[]): [number, number, number, number] | null {
  const flat = roofs.find(roof => roof.name === "arithmetic")?.rate;
  const slanted = roofs.filter(roof => roof.name !== "arithmetic");
  if (!flat || slanted.length === 0) return null;
  const xs = [...points.flatMap(point => point.intensity || []), ...slanted.map(roof => flat / roof.rate)].map(Math.log10);
  const ys = [...points.flatMap(point => [point.rate, point.rate_predicted].flatMap(value => value || [])), flat].map(Math.log10);
  return [Math.floor(Math.min(...xs) - 0.2), Math.ceil(Math.max(...xs) + 0.2), Math.floor(Math.min(...ys) - 0.2), Math.ceil(Math.max(...ys) + 0.1)];
}

function plot(el: HTMLElement, data: RooflineData, context: Context): Cleanup {
  const range = decades(data.roofs, data.points);
  if (range === null) {
    el.append(h("p.tv-missing", {}, `${MISSING} the machine's peaks were not recorded: there are no roofs to draw`));
    return () => undefined;
  }
  const { program } = context.links.program(data.program);
  const [x0, x1, y0, y1] = range;
  const drawing = s("svg.tv-track.tv-roofs", { role: "img", "aria-label": "FLOPs per second against FLOPs per byte, with the roofs of this machine; the table below says the same" });
  const frame = h("div.tv-roofframe", {}, drawing);
  el.append(frame);
  const flat = data.roofs.find(roof => roof.name === "arithmetic")!.rate;
  const slanted = data.roofs.filter(roof => roof.name !== "arithmetic").sort((a, b) => b.rate - a.rate);
  const id = (point: RoofPoint) => `${data.program}.${point.kernel}`;
  const marks = new Map<SVGElement, RoofPoint>();
  let width = 0;
  const draw = () => {
    const height = Math.min(Math.max(width * 0.56, 260), 420);
    const [right, bottom, top] = [width - 14, height - BELOW, 26];
    const px = (log: number) => LEFT + ((right - LEFT) * (log - x0)) / (x1 - x0);
    const py = (log: number) => top + ((bottom - top) * (y1 - log)) / (y1 - y0);
    const parts: SVGElement[] = [s("rect.tv-lanebody", { x: LEFT, y: top, width: right - LEFT, height: bottom - top })];
    for (let e = x0; e <= x1; e++) parts.push(s("line.tv-tick", { x1: px(e), x2: px(e), y1: top, y2: bottom }), s("text.tv-ticktext", { x: px(e), y: bottom + 14 }, String(Number((10 ** e).toPrecision(1)))));
    for (let e = y0; e <= y1; e++) parts.push(s("line.tv-tick", { x1: LEFT, x2: right, y1: py(e), y2: py(e) }), s("text.tv-ticktext.tv-end", { x: LEFT - 5, y: py(e) + 4 }, count(10 ** e)));
    parts.push(s("text.tv-ticktext", { x: (LEFT + right) / 2, y: bottom + 30 }, "FLOPs per byte moved"), s("text.tv-ticktext.tv-left", { x: 4, y: 14 }, "FLOP/s"));
    const peak = py(Math.log10(flat));
    const ridge = px(Math.log10(flat / slanted[0]!.rate));
    parts.push(s("path.tv-roof", { d: `M${ridge} ${peak}H${right}` }), s("text.tv-rooftext.tv-end", { x: right - 4, y: peak - 5 }, `arithmetic ${rate({ name: "arithmetic", rate: flat, holds: null })}`));
    const names: SVGElement[] = []; // above every roof
    slanted.forEach((roof, i) => {
      const log = Math.log10(roof.rate);
      const from = Math.max(x0, y0 - log);
      parts.push(s("path.tv-roof", { d: `M${px(from)} ${py(from + log)}L${px(Math.log10(flat) - log)} ${peak}` }));
      // Along each roof; neighbours begin at different places, so that the names of roofs that nearly meet keep apart.
      const to = Math.log10(flat) - log;
      // Where two of them do not fit one after the other, they are said without their rates.
      const room = px(to) - px(from) - 8;
      const length = room < 2 * ROOF_NAME ? SHORT_NAME : ROOF_NAME;
      const places = room < 3 * ROOF_NAME ? 2 : 3;
      const start = Math.max(px(from) + 8, Math.min(px(from) + 8 + (length === SHORT_NAME ? i / 2 : i % places) * length, px(to) - (length === SHORT_NAME ? LETTER * roof.name.length : length)));
      const place = x0 + ((start - LEFT) * (x1 - x0)) / (right - LEFT);
      const turn = (-Math.atan2(py(place) - py(place + 1), px(place + 1) - px(place)) * 180) / Math.PI;
      const [x, y] = [px(place), py(place + log)];
      names.push(s("text.tv-rooftext", { x, y: y - 4, transform: `rotate(${turn} ${x} ${y})` }, length === ROOF_NAME ? `${roof.name} ${rate(roof)}` : roof.name, s("title", {}, `${roof.name} ${rate(roof)}`)));
    });
    parts.push(...names);
    marks.clear();
    [...data.points].map((point, i) => [point, i] as const).reverse().forEach(([point, i]) => {
      if (!point.intensity || !(point.rate || point.rate_predicted)) return;
      const x = px(Math.log10(point.intensity));
      const [a, b] = [point.rate, point.rate_predicted].map(value => (value ? py(Math.log10(value)) : null)) as [number | null, number | null];
      const label = `${kernelName(program, point.kernel)}: ${count(point.rate)}FLOP/s measured, ${count(point.rate_predicted)}FLOP/s predicted, ${count(point.intensity)} FLOPs per byte`;
      const mark = s("g.tv-launch.tv-point", { "data-kernel": point.kernel }, s("title", {}, label));
      mark.style.setProperty("--c", `var(${colorVariable(point.category)})`);
      if (a !== null && b !== null) mark.append(s("line.tv-stem", { x1: x, x2: x, y1: a, y2: b }));
      if (b !== null) mark.append(s("circle.tv-hollow", { cx: x, cy: b, r: 4.5 }));
      if (a !== null) mark.append(s("circle.tv-full", { cx: x, cy: a, r: 8.5 }), s("text", { x, y: a + 4 }, String(i + 1)));
      marks.set(mark, point);
      parts.push(mark);
    });
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", String(height));
    drawing.replaceChildren(...parts);
    light();
  };
  let pinned = context.links.related(context.selection.value);
  const light = (hover = context.links.related(context.hover.value)) => {
    let some = false;
    for (const [mark, point] of marks) {
      mark.classList.toggle("tv-lit", pinned.has("kernel", id(point)));
      mark.classList.toggle("tv-hover", hover.has("kernel", id(point)));
      some ||= pinned.has("kernel", id(point));
    }
    drawing.classList.toggle("tv-some", some);
  };
  const under = (event: Event) => {
    const mark = (event.target as Element).closest<SVGElement>(".tv-point");
    return mark ? { kind: "kernel", id: id(marks.get(mark)!) } : null;
  };
  drawing.addEventListener("click", event => context.selection.set(under(event)));
  drawing.addEventListener("pointermove", event => context.hover.set(under(event)));
  drawing.addEventListener("pointerleave", () => context.hover.set(null));
  const resize = new ResizeObserver(() => {
    if (frame.clientWidth > 0 && frame.clientWidth !== width) (width = frame.clientWidth), draw();
  });
  resize.observe(frame);
  return together(() => resize.disconnect(), context.onSelect(lit => ((pinned = lit), light())), context.onHover(light));
}

/** The findings, largest gain first; those about what is selected are lit. */
function diagnoses(data: RooflineData, context: Context): { element: HTMLElement; undo: Cleanup } {
  const { program } = context.links.program(data.program);
  const place = h("div.tv-findings", { role: "list", "aria-label": "findings, largest gain first" });
  const element = h("div", {}, h("div.tv-title", {}, `Diagnosis: ${some(data.diagnoses.length, "finding")}, largest gain first`), place);
  if (data.diagnoses.length === 0) place.append(h("p.tv-missing", {}, data.roofs.length > 0 ? "Nothing to report." : `${MISSING} there are no peaks to compare with`));
  const cards = new Map<HTMLElement, Diagnosis>();
  for (const found of data.diagnoses) {
    const key = found.kernel < 0 ? null : { kind: "kernel", id: `${data.program}.${found.kernel}` };
    const name = found.kernel < 0 ? "the program" : kernelName(program, found.kernel) + (found.also.length > 0 ? ` and ${found.also.length} more` : "");
    const card = h("div.tv-finding", { role: "listitem", tabindex: 0 },
      h("div.tv-cardhead", {}, h("span.tv-chip", {}, found.code), h("code", { title: found.also.map(kernel => kernelName(program, kernel)).join("\n") }, name), h("span.tv-gain", {}, found.gain === null ? `gain ${MISSING}` : `gain at most ${seconds(found.gain)}`)),
      h("p.tv-reason", {}, found.sentence), h("div.tv-faint", {}, found.evidence));
    const choose = () => context.selection.set(key);
    card.addEventListener("click", choose);
    card.addEventListener("keydown", event => event.key === "Enter" && (taken(event), choose()));
    cards.set(card, found);
    place.append(card);
  }
  const undo = context.onSelect(lit => cards.forEach((found, card) => card.classList.toggle("tv-lit", [found.kernel, ...found.also].some(kernel => lit.has("kernel", `${data.program}.${kernel}`)))));
  return { element, undo };
}
