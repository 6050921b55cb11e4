/**
 * What the views of a page tell JupyterLab's part of tinyviz: which cell lines are lit by the selection, and what a saved
 * recording's lines cost. It hangs on the page, like the selection, because each widget brings its own copy of this module.
 */

/** A line of a cell, counted from 1, with the text that was recorded for it: beside another text it would be a lie. */
export interface CellLine {
  cell: string;
  line: number;
  text: string;
}

export interface LineNumbers extends CellLine {
  /** of the line in the recording */
  id: string;
  seconds: number | null;
  seconds_predicted: number | null;
  bytes_read: number | null;
  bytes_written: number | null;
  flops: number | null;
}

/** What one mounted explorer says. */
export interface Notice {
  recording: string;
  lit: CellLine[];
  numbers: LineNumbers[];
}

type Listener = () => void;

interface Board {
  notices: Map<object, Notice>;
  listeners: Set<Listener>;
}

function board(): Board {
  const key = Symbol.for("tinyviz.board");
  const page = globalThis as { [key]?: Board };
  return (page[key] ??= { notices: new Map(), listeners: new Set() });
}

/** Replaces what `owner` said; null takes it back. */
export function post(owner: object, notice: Notice | null): void {
  const { notices, listeners } = board();
  if (notice === null) notices.delete(owner);
  else notices.set(owner, notice);
  for (const listener of [...listeners]) listener();
}

export function notices(): Notice[] {
  return [...board().notices.values()];
}

export function onNotice(listener: Listener): () => void {
  board().listeners.add(listener);
  return () => void board().listeners.delete(listener);
}
