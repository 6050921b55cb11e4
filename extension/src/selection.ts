/**
 * The one selection model: one store per recording and page. Each widget brings its own copy of this module, and the
 * JupyterLab extension another, so the stores hang on the page and not on the module.
 */

export interface Selection {
  /** what is selected: node, kernel, line, … */
  kind: string;
  /** which one of its kind */
  id: string;
}

type Listener = (selection: Selection | null) => void;

export class SelectionStore {
  private current: Selection | null = null;
  private readonly listeners = new Set<Listener>();

  get value(): Selection | null {
    return this.current;
  }

  /** Tells every listener, unless this is what is selected already: so two-way bindings come to rest. */
  set(selection: Selection | null): void {
    if (same(selection, this.current)) return;
    this.current = selection;
    for (const listener of [...this.listeners]) {
      try {
        listener(selection);
      } catch (error) {
        console.error("tinyviz: a view failed to follow the selection", error);
      }
    }
  }

  subscribe(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
}

export function same(a: Selection | null, b: Selection | null): boolean {
  return a === b || (a !== null && b !== null && a.kind === b.kind && a.id === b.id);
}

/** A selection from outside (a kernel, a saved file), or null when it is not one. */
export function asSelection(value: unknown): Selection | null {
  const { kind, id } = (value ?? {}) as Partial<Selection>;
  return typeof kind === "string" && typeof id === "string" ? { kind, id } : null;
}

export function selectionOf(recording: string): SelectionStore {
  return storeOf("tinyviz.selections", recording);
}

/** What the pointer is on: a preview of what a click would select. */
export function hoverOf(recording: string): SelectionStore {
  return storeOf("tinyviz.hovers", recording);
}

function storeOf(name: string, recording: string): SelectionStore {
  const key = Symbol.for(name);
  const page = globalThis as { [key]?: Map<string, SelectionStore> };
  const stores = (page[key] ??= new Map());
  let store = stores.get(recording);
  if (store === undefined) stores.set(recording, (store = new SelectionStore()));
  return store;
}
