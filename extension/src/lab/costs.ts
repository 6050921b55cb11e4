/** What each line of each cell cost: the messages that a kernel sends over the comm `tinyviz.gutter`, kept by cell. */

import { Signal } from "@lumino/signaling";

/** One line of a cell, counted from 1. A number that was not recorded is absent. */
export interface LineCost {
  line: number;
  /** of the line in the recording: what a click on its number selects */
  id?: string | null;
  seconds?: number | null;
  seconds_predicted?: number | null;
  bytes_read?: number | null;
  bytes_written?: number | null;
  flops?: number | null;
  launches?: number | null;
}

export interface CellCosts {
  cell: string;
  /** id of the recording that the numbers come from; its selection follows a click on a line */
  recording?: string | null;
  lines: LineCost[];
  total?: Omit<LineCost, "line" | "id"> | null;
}

export class CostStore {
  private readonly cells = new Map<string, CellCosts>();
  /** the newest cell with numbers, for the status bar */
  latest: CellCosts | null = null;
  /** says which cell changed */
  readonly changed = new Signal<this, string>(this);

  get(cell: string): CellCosts | null {
    return this.cells.get(cell) ?? null;
  }

  set(costs: CellCosts): void {
    this.cells.set(costs.cell, costs);
    this.latest = costs;
    this.changed.emit(costs.cell);
  }

  clear(cell: string): void {
    if (!this.cells.delete(cell)) return;
    if (this.latest?.cell === cell) this.latest = null;
    this.changed.emit(cell);
  }
}

/** A message from outside, or null when it is not what it should be: a wrong number must not stand beside a line. */
export function asCosts(value: unknown): CellCosts | null {
  const costs = (value ?? {}) as Partial<CellCosts>;
  const good = (line: unknown) => Number.isInteger((line as Partial<LineCost> | null)?.line) && (line as LineCost).line > 0;
  return typeof costs.cell === "string" && Array.isArray(costs.lines) && costs.lines.every(good) ? (costs as CellCosts) : null;
}
