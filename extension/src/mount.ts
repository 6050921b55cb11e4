/** Puts a bundle's view into an element, wherever that element is: widget, saved notebook or exported page. */

import type { Bundle } from "./bundle";
import { selectionOf } from "./selection";
import { ensureStyle } from "./style";
import { VIEWS } from "./views/index";
import { NEEDS_KERNEL, type Cleanup, type Host, type View } from "./views/view";

export const STATIC: Host = { live: false, editable: false, send: () => undefined, ask: () => Promise.reject(new Error(NEEDS_KERNEL)) };

export function mount(el: HTMLElement, bundle: Bundle, host: Host = STATIC): Cleanup {
  ensureStyle(el);
  const root = document.createElement("div");
  root.className = `tinyviz tinyviz-${bundle.view}`;
  root.dataset.recording = bundle.recording;
  root.dataset.live = String(host.live);
  el.replaceChildren(root);

  let cleanup: Cleanup = () => undefined;
  try {
    const view = Object.hasOwn(VIEWS, bundle.view) ? (VIEWS[bundle.view] as View) : undefined;
    if (!view) throw new Error(`this front end has no view called “${bundle.view}”`);
    cleanup = view(root, bundle.data, selectionOf(bundle.recording), host);
  } catch (error) {
    console.error("tinyviz: a view failed", error);
    fail(root, `The view “${bundle.view}” failed: ${message(error)}`, bundle.text);
  }
  return () => {
    cleanup();
    root.remove();
  };
}

/** A view may fail; what it would have said remains as text. */
export function fail(el: HTMLElement, why: string, text = ""): void {
  ensureStyle(el);
  const error = document.createElement("div");
  error.className = "tinyviz-error";
  error.setAttribute("role", "alert");
  error.textContent = why;
  const twin = document.createElement("pre");
  twin.className = "tinyviz-text";
  twin.textContent = text;
  el.replaceChildren(error, ...(text ? [twin] : []));
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
