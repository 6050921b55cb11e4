/** Lanes of bars over time: pure arithmetic, apart from drawing. */

import type { Segment } from "../wire";

export interface Bar {
  /** position in the segment's columns */
  at: number;
  start: number;
  end: number;
  row: number;
}

export interface Lane {
  name: string;
  bars: Bar[];
  rows: number;
}

/** Lanes in order of appearance; bars that overlap stand in rows below each other. */
export function lanes(segment: Segment): Lane[] {
  const byName = new Map<string, Bar[]>();
  segment.lane.forEach((name, at) => {
    const start = segment.start[at] ?? 0;
    const bar = { at, start, end: start + Math.max(segment.seconds[at] ?? 0, 0), row: 0 };
    (byName.get(name) ?? byName.set(name, []).get(name)!).push(bar);
  });
  return [...byName].map(([name, bars]) => {
    bars.sort((a, b) => a.start - b.start || b.end - a.end);
    const ends: number[] = [];
    for (const bar of bars) {
      // Times have six digits: rounded ends of neighbours overlap by less than a part in 100,000.
      const free = ends.findIndex(end => end <= bar.start + 1e-5 * Math.abs(bar.start) + 1e-12);
      bar.row = free < 0 ? ends.length : free;
      ends[bar.row] = bar.end;
    }
    return { name, bars, rows: Math.max(ends.length, 1) };
  });
}

/** The spans of a lane in which nothing ran, between its first and its last bar. */
export function gaps({ bars }: Lane): [start: number, end: number][] {
  const out: [number, number][] = [];
  let reached = bars[0]?.end ?? 0;
  for (const bar of bars) {
    if (bar.start > reached) out.push([reached, bar.start]);
    reached = Math.max(reached, bar.end);
  }
  return out;
}

export function span(all: readonly Lane[]): [start: number, end: number] {
  const bars = all.flatMap(lane => lane.bars);
  if (bars.length === 0) return [0, 1];
  const [start, end] = [Math.min(...bars.map(bar => bar.start)), Math.max(...bars.map(bar => bar.end))];
  return end > start ? [start, end] : [start, start + 1e-6];
}

/** Round places for marks on an axis: about `wanted` of them. */
export function ticks(start: number, end: number, wanted: number): number[] {
  const rough = (end - start) / Math.max(wanted, 1);
  if (!(rough > 0) || !Number.isFinite(rough)) return [start];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough * (1 - 1e-9)) ?? 10 * power;
  const out: number[] = [];
  for (let i = Math.ceil(start / step - 1e-9); i * step <= end + step * 1e-9; i++) out.push(i * step + 0);
  return out;
}
