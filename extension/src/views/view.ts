import type { Links, Lit } from "../links";
import type { SelectionStore } from "../selection";
import type { Category, Page, Recording } from "../wire";

export type Cleanup = () => void;

/** What surrounds a view: a live kernel, a saved notebook or an exported page. */
export interface Host {
  /** whether a kernel answers */
  live: boolean;
  /** whether the kernel still has the program, and answers what-ifs and edits */
  editable: boolean;
  /** to the kernel; does nothing where none is */
  send(message: { type: string } & Record<string, unknown>): void;
  /** A question to the kernel (see `tinyviz/answers.py`); fails where none answers. `progress` gets a line of text now and then. */
  ask<Answer>(question: { what: string } & Record<string, unknown>, progress?: (text: string) => void): Promise<Answer>;
}

/** Shown in the place of what a saved notebook or an exported page cannot do. */
export const NEEDS_KERNEL = "this needs a live kernel that still has the program: run the cell again";

/** Draws `data` into `el`, follows and sets `selection`, and returns what undoes it all. */
export type View<Data = unknown> = (el: HTMLElement, data: Data, selection: SelectionStore, host: Host) => Cleanup;

/** What the explorer gives to each of its views. */
export interface Context {
  page: Page;
  recording: Recording;
  links: Links;
  selection: SelectionStore;
  /** what the pointer is on */
  hover: SelectionStore;
  host: Host;
  /** Calls `light` now, and whenever the selection changes: `pinned` is related to it. */
  onSelect(light: (pinned: Lit) => void): Cleanup;
  /** Calls `light` whenever the pointer comes to something else: `shown` is related to that. */
  onHover(light: (shown: Lit) => void): Cleanup;
  /** Calls `redraw` after the theme changed: what is painted, and not styled, has the old colours. */
  onTheme(redraw: () => void): Cleanup;
  category(name: string): Category;
  /** Shows another view of the same explorer, where there is one. */
  open(view: string): void;
  /** To screen readers. */
  say(text: string): void;
}

/** One view of the explorer. */
export type Part<Data> = (el: HTMLElement, data: Data, context: Context) => Cleanup;

/** Runs all of them; what the views return. */
export function together(...cleanups: Cleanup[]): Cleanup {
  return () => cleanups.forEach(cleanup => cleanup());
}
