/** values: how do weights, activations, gradients and updates develop over training, and where did a NaN come from? */

import { h, s, taken } from "../dom";
import { kernelName, lineName } from "../names";
import { head, swatch, twin } from "../parts/head";
import { count, MISSING, percent } from "../units";
import type { Fault, Samples, Series, ValueRow, ValuesData } from "../wire";
import { together, type Cleanup, type Context, type Part } from "./view";

/** Update over weight: what many healthy trainings are near. */
const USUAL = 1e-3;

export const values: Part<ValuesData> = (el, data, context) => {
  const { program } = context.links.program(data.program);
  const key = (series: Series) => (series.node < 0 ? null : { kind: "node" as const, id: `${data.program}.${series.node}` });
  el.append(head(data), ...program.faults.map(fault => alarm(fault, data.program, context)));
  if (data.rows.length === 0) {
    el.append(h("p.tv-missing", {}, `${MISSING} no values were sampled: record with tv.watch(values=10), for every tenth run; with finite=True the first NaN is caught`), sheet());
    return () => undefined;
  }
  const list = h("div.tv-kernels.tv-series", { role: "listbox", tabindex: 0, "aria-label": "values, by module: arrows go from one to the next" });
  const side = h("div.tv-kernelbody.tv-seriesbody");
  const undos: Cleanup[] = [];
  let module: string | null = null;
  const rows = data.rows.map((row, i) => {
    const series = program.values[row.series]!;
    if (series.module !== module) list.append(h("div.tv-group", {}, (module = series.module) || "given"));
    const element = h("div.tv-seriesrow", { role: "option", "aria-selected": "false" },
      h("span.tv-name", { title: series.name }, swatch(context.category({ gradient: "backward", update: "optimizer" }[series.kind] ?? "forward")), ` ${shortName(series)}`), h("span.tv-where2", {}, `${series.kind} ${series.shape.join("×") || "scalar"}`),
      curve(series.samples.norm, 84, 22), row.remarks.length > 0 ? h("span.tv-remark", { title: row.remarks.join("\n") }, "!") : null);
    element.addEventListener("click", () => show(i, true));
    list.append(element);
    return element;
  });
  list.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    show(Math.min(Math.max(current + by, 0), rows.length - 1), true);
    rows[current]!.scrollIntoView({ block: "nearest" });
  });
  el.append(h("div.tv-split", {}, list, side), ...program.missing.filter(said => said.includes("not sampled")).map(said => h("p.tv-missing", {}, `${MISSING} ${said}`)));

  let current = -1;
  const show = (at: number, select = false) => {
    if (select) context.selection.set(key(program.values[data.rows[at]!.series]!));
    if (at === current) return;
    current = at;
    rows.forEach((row, i) => {
      row.classList.toggle("tv-sel", i === at);
      row.setAttribute("aria-selected", String(i === at));
    });
    side.replaceChildren(...detail(program.values[data.rows[at]!.series]!, data.rows[at]!));
    paintAll(side);
  };
  const first = data.rows.findIndex(row => row.remarks.length > 0);
  show(Math.max(first, 0));
  undos.push(context.onSelect(lit => {
    data.rows.forEach((row, i) => rows[i]!.classList.toggle("tv-lit", lit.has("node", key(program.values[row.series]!)?.id ?? "")));
    const own = data.rows.findIndex(row => lit.is("node", key(program.values[row.series]!)?.id ?? ""));
    if (own >= 0) show(own);
  }), context.onTheme(() => paintAll(side)));
  el.append(sheet());
  return together(...undos);

  function sheet(): HTMLElement {
    return twin("values in the last sampled run", [
    { name: "value", text: row => of(row).name },
    { name: "kind", text: row => of(row).kind },
    { name: "shape", text: row => of(row).shape.join("×") || "scalar" },
    ...(["norm", "mean", "std", "low", "high"] as const).map(name => ({ name, text: (row: ValueRow) => figure(of(row).samples[name].at(-1)), right: true })),
    { name: "zeros", text: row => percent(of(row).samples.zeros.at(-1)), right: true },
    { name: "ratio", text: row => figure(row.ratio.findLast(value => value !== null)), right: true },
    { name: "remarks", text: row => row.remarks.join("; ") },
    ], () => data.rows, row => context.selection.set(key(of(row))));
  }

  function of(row: ValueRow): Series {
    return program.values[row.series]!;
  }
};

/** Without the module, which stands above it. */
function shortName({ name, module }: Series): string {
  if (name.startsWith(`${module}: `)) return name.slice(module.length + 2);
  const at = name.lastIndexOf(".");
  return at > 0 && (module === name.slice(0, at) || module.endsWith(`.${name.slice(0, at)}`)) ? name.slice(at + 1) : name;
}

function figure(value?: number | null): string {
  return value === null || value === undefined || !Number.isFinite(value) ? MISSING : String(Number(value.toPrecision(3)));
}

/** What stopped being finite, and the way to it. */
function alarm(fault: Fault, at: number, context: Context): HTMLElement {
  const { program } = context.links.program(at);
  const made = h("div.tv-alarm", { role: "alert" }, h("strong", {}, `▲ ${fault.what || "not finite"} `), fault.sentence);
  const link = (text: string, choose: () => void) => {
    const button = h("button.tv-link", { type: "button" }, text);
    button.addEventListener("click", choose);
    made.append(" ", button);
  };
  if (fault.line >= 0) link(lineName(context.recording, fault.line), () => context.selection.set({ kind: "line", id: String(fault.line) }));
  if (fault.node >= 0) link(`%${fault.node}`, () => context.selection.set({ kind: "node", id: `${at}.${fault.node}` }));
  fault.kernels.slice(0, 6).forEach(kernel => link(kernelName(program, kernel), () => context.selection.set({ kind: "kernel", id: `${at}.${kernel}` })));
  return made;
}

/** A curve with gaps where a value is missing. */
export function curve(points: readonly (number | null)[], width: number, height: number, guide: number | null = null, log = false): SVGElement {
  const scale = (value: number) => (log ? Math.log10(Math.max(value, 1e-12)) : value);
  const fine = [...points, guide].filter((value): value is number => value !== null && Number.isFinite(value)).map(scale);
  const [low, high] = [Math.min(...fine), Math.max(...fine)];
  const y = (value: number) => height - 3 - (height - 6) * (high > low ? (scale(value) - low) / (high - low) : 0.5);
  const x = (i: number) => 2 + ((width - 4) * i) / Math.max(points.length - 1, 1);
  let pen = "M";
  const path = points.map((value, i) => {
    const step = value === null ? "" : `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = value === null ? "M" : "L";
    return step;
  }).join("");
  return s("svg.tv-curve", { width, height, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": true },
    guide === null ? null : s("path.tv-guide", { d: `M0 ${y(guide).toFixed(1)}H${width}` }), fine.length > 0 ? s("path", { d: path }) : null,
    points.length === 1 && points[0] !== null ? s("circle", { cx: x(0), cy: y(points[0]!), r: 2 }) : null);
}

function detail(series: Series, row: ValueRow): HTMLElement[] {
  const { samples } = series;
  const last = samples.run.length - 1;
  const facts = [["norm", samples.norm[last]], ["mean", samples.mean[last]], ["standard deviation", samples.std[last]], ["least", samples.low[last]], ["most", samples.high[last]]] as const;
  const out: HTMLElement[] = [
    h("div.tv-title", {}, `${series.name}${series.name.endsWith(series.kind) ? "" : `: ${series.kind}`}, ${series.shape.join("×") || "scalar"}`),
    h("div.tv-facts", {}, ...facts.map(([name, value]) => h("span.tv-number2", {}, `${name} `, h("strong", {}, figure(value)))), h("span.tv-number2", {}, "zeros ", h("strong", {}, percent(samples.zeros[last]))),
      samples.dead[last] === null || samples.dead[last] === undefined ? null : h("span.tv-number2", {}, "dead units ", h("strong", {}, count(samples.dead[last]))),
      samples.nonfinite[last] ? h("span.tv-number2", {}, "not finite ", h("strong", {}, count(samples.nonfinite[last]))) : null),
    ...row.remarks.map(remark => h("p.tv-settings", {}, remark)),
  ];
  const ends = (name: string, column: readonly (number | null)[], more: readonly number[] = []) => {
    const known = [...column.filter(value => value !== null), ...more];
    return known.length === 0 ? { name, low: MISSING, high: MISSING } : { name, low: figure(Math.min(...known)), high: figure(Math.max(...known)) };
  };
  const [from, to] = [`run ${samples.run[0]}`, samples.run.length > 1 ? `run ${samples.run[last]}` : ""];
  const grid = h("div.tv-valuegrid", {}, panel(`norm, in ${samples.run.length} samples`, axes(ends("norm", samples.norm), from, to, curve(samples.norm, 520, 128))));
  if (row.ratio.length > 0) grid.append(panel("norm of the update over norm of the weight, logarithmic; dashed: 0.001", axes(ends("ratio", row.ratio, [USUAL]), from, to, curve(row.ratio, 520, 128, USUAL, true))));
  grid.append(panel(`distribution: each column is one sample; stronger is more elements${samples.histogram.some(histogram => histogram.length === 0) ? "; hatched: nothing was finite" : ""}`, axes({ name: "value", low: figure(least(samples.low)), high: figure(most(samples.high)) }, from, to, heat(samples))));
  out.push(grid);
  if (series.picture) out.push(panel(pictureTitle(series, samples.run[last]!), tiles(series)));
  return out;
}

function panel(title: string, content: Element): HTMLDivElement {
  return h("div.tv-valuepanel", {}, h("div.tv-faint", {}, title), content);
}

/** A picture between its scales: what is upwards, and from which run to which. */
function axes({ low, high, name }: { low: string; high: string; name: string }, from: string, to: string, content: Element): HTMLElement {
  return h("div.tv-axes", {}, h("div.tv-upwards", {}, h("span", {}, high), h("span.tv-faint", {}, name), h("span", {}, low)), content, h("span"), h("div.tv-rightwards", {}, h("span", {}, from), h("span", {}, to)));
}

/** What the small pictures are: "8 of 64 maps [batch, head]: 32 queries down, 32 keys across…" */
function pictureTitle({ kind, shape, picture, module }: Series, run: number): string {
  const { rows, columns, low, high, tiles } = picture!;
  const planes = shape.slice(0, -2).reduce((a, b) => a * b, 1);
  const [down, across] = [shape.at(-2)!, shape.at(-1)!];
  const what = kind === "softmax" ? `attention ${planes === 1 ? "map" : "maps"}: queries down, keys across` : shape.length === 4 && kind === "activation" ? "feature maps" : kind === "input" && shape.length >= 3 ? "inputs" : shape.length === 2 ? `all of it as one picture: ${down} rows, ${across} columns` : "slices along the last two axes";
  const part = planes > tiles.length ? `the first ${tiles.length} of ${count(planes)} ` : "";
  const broken = tiles.some(tile => tile.includes(-1)) ? " · hatched: NaN or infinite" : "";
  const thin = rows < down || columns < across ? `, one of ${Math.ceil(Math.max(down / rows, across / columns))} elements along each axis` : "";
  return `run ${run}: ${part}${what}${thin}${tiles.some(tile => tile.some(value => value >= 0)) ? ` · dark ${figure(low)}, bright ${figure(high)}` : ""}${broken}${module ? ` · ${module}` : ""}`;
}

/** The place of a plane among the axes before the last two: "[0, 2]". */
export function planeName(shape: readonly number[], plane: number): string {
  const index: number[] = [];
  for (const size of shape.slice(0, -2).reverse()) index.unshift(plane % size), (plane = Math.floor(plane / size));
  return index.length > 0 ? `[${index.join(", ")}]` : "";
}

const least = (column: readonly (number | null)[]) => Math.min(...column.filter(value => value !== null));
const most = (column: readonly (number | null)[]) => Math.max(...column.filter(value => value !== null));

const paints = new WeakMap<Element, () => void>();
/** Canvases take their colours when they are painted. */
function paintAll(el: Element): void {
  el.querySelectorAll("canvas").forEach(canvas => paints.get(canvas)?.());
}

/** Histograms beside each other on one scale. */
function heat(samples: Samples): HTMLElement {
  const [low, high] = [least(samples.low), most(samples.high)];
  const rows = 32;
  const canvas = h("canvas.tv-heat", { width: samples.run.length, height: rows, role: "img", "aria-label": "distribution over the runs; the table below has its ends" });
  paints.set(canvas, () => {
    const context = canvas.getContext("2d")!;
    context.clearRect(0, 0, canvas.width, rows);
    const { color, backgroundColor } = getComputedStyle(canvas);
    samples.histogram.forEach((histogram, i) => {
      const [a, b] = [samples.low[i], samples.high[i]];
      if (a === null || a === undefined || b === null || b === undefined) return; // the hatching behind shows
      context.globalAlpha = 1;
      context.fillStyle = backgroundColor;
      context.fillRect(i, 0, 1, rows);
      context.fillStyle = color;
      const column = new Float64Array(rows);
      histogram.forEach((n, j) => (column[Math.min(Math.floor((rows * (a + ((j + 0.5) / histogram.length) * (b - a) - low)) / (high - low || 1)), rows - 1)]! += n));
      const peak = Math.max(...column);
      column.forEach((n, j) => {
        if (n === 0) return;
        context.globalAlpha = 0.12 + 0.88 * Math.sqrt(n / peak);
        context.fillRect(i, rows - 1 - j, 1, 1);
      });
    });
  });
  return canvas;
}

function tiles({ shape, picture }: Series): HTMLElement {
  const { rows, columns, tiles } = picture!;
  const wide = `width:${Math.round(Math.min(Math.max(columns, 12) * (tiles.length === 1 ? 10 : 5), 400))}px`;
  return h("div.tv-tiles", {}, ...tiles.map((tile, i) => {
    const canvas = h("canvas.tv-tile", { width: columns, height: rows, role: "img", "aria-label": `plane ${planeName(shape, i)}`, style: wide });
    paints.set(canvas, () => {
      const image = new ImageData(columns, rows);
      tile.forEach((value, j) => image.data.set([value, value, value, value < 0 ? 0 : 255], 4 * j));
      canvas.getContext("2d")!.putImageData(image, 0, 0);
    });
    return h("figure.tv-tilebox", {}, canvas, h("figcaption.tv-faint", {}, planeName(shape, i)));
  }));
}
