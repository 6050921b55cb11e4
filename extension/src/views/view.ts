import type { SelectionStore } from "../selection";

export type Cleanup = () => void;

/** What surrounds a view: a live kernel, a saved notebook or an exported page. */
export interface Host {
  /** whether a kernel answers */
  live: boolean;
  /** to the kernel; does nothing where none is */
  send(message: { type: string } & Record<string, unknown>): void;
}

/** Draws `data` into `el`, follows and sets `selection`, and returns what undoes it all. */
export type View<Data = unknown> = (el: HTMLElement, data: Data, selection: SelectionStore, host: Host) => Cleanup;
