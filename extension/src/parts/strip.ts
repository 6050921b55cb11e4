/** Times of several runs, each as a tick, and the middle half as a bar: what was, and what would be. */

import { h, s } from "../dom";
import { seconds, some } from "../units";
import type { Times } from "../wire";

const [WIDTH, ROW, LABEL, RIGHT] = [520, 24, 64, 96];

export function strip(rows: readonly (readonly [string, Times])[]): HTMLElement {
  const all = rows.flatMap(([, times]) => times.samples);
  const low = Math.min(...all);
  // single runs that a busy machine delayed must not squeeze the others
  const high = Math.max(...rows.map(([, times]) => Math.max(times.high, times.seconds * 1.15)), low * 1.02);
  const x = (value: number) => LABEL + (Math.min(value, high) - low) / (high - low || 1) * (WIDTH - LABEL - RIGHT);
  const drawing = s("svg.tv-strip", { viewBox: `0 0 ${WIDTH} ${ROW * rows.length + 16}`, width: WIDTH, role: "img", "aria-label": rows.map(([name, times]) => `${name}: median ${seconds(times.seconds)}, ${some(times.samples.length, "run")}`).join("; ") });
  rows.forEach(([name, times], i) => {
    const y = i * ROW + ROW / 2;
    const beyond = times.samples.filter(value => value > high).length;
    drawing.append(
      s("text.tv-striplabel", { x: LABEL - 8, y: y + 4, "text-anchor": "end" }, name),
      s("rect.tv-stripbar", { x: x(times.low), y: y - 7, width: Math.max(x(times.high) - x(times.low), 1), height: 14 }),
      ...times.samples.filter(value => value <= high).map(value => s("line.tv-striptick", { x1: x(value), x2: x(value), y1: y - 7, y2: y + 7 })),
      s("line.tv-stripmedian", { x1: x(times.seconds), x2: x(times.seconds), y1: y - 10, y2: y + 10 }),
      s("text.tv-striplabel", { x: WIDTH - RIGHT + 8, y: y + 4 }, seconds(times.seconds) + (beyond ? ` +${beyond}▸` : "")));
  });
  const bottom = ROW * rows.length + 12;
  drawing.append(s("text.tv-stripscale", { x: x(low), y: bottom }, seconds(low)), s("text.tv-stripscale", { x: x(high), y: bottom, "text-anchor": "end" }, seconds(high)));
  return h("div.tv-stripplace", { title: "each tick is one run; the bar is the middle half; the long line the median" }, drawing);
}
