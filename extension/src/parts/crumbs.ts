/** The bar under the tabs: what is selected, and how much of each kind is related to it. Each part can be chosen. */

import { button, cut, h } from "../dom";
import type { Lit } from "../links";
import { kernelName, lineName, selectionName } from "../names";
import { some } from "../units";
import type { Context } from "../views/view";
import type { Selectable, Views } from "../wire";

/** Where things of a kind are shown. */
const VIEW: [Selectable, string, keyof Views][] = [
  ["line", "line", "lines"], ["node", "node", "graph"], ["firing", "rule firing", "stages"], ["decision", "decision", "fusion"],
  ["kernel", "kernel", "kernel"], ["source", "source line", "kernel"], ["assembly", "instruction", "kernel"], ["call", "launch", "timeline"], ["slot", "buffer", "memory"],
];

/** The view in which a thing of that kind is at home. */
export function viewOf(kind: string): keyof Views | undefined {
  return VIEW.find(([each]) => each === kind)?.[2];
}

/** `refresh`: after another program came on show. */
export function crumbs(context: Context): { element: HTMLElement; refresh: () => void } {
  const { recording } = context;
  const bar = h("nav.tv-crumbs", { "aria-label": "selected, and related to it" });
  const show = (lit: Lit) => {
    const { selection } = lit;
    const { page } = context;
    if (!selection) {
      const program = recording.programs[page.views.overview?.program ?? 0];
      const about = [recording.title, program?.name, program?.backend || recording.backend, recording.machine.name].filter(Boolean).join(" · ");
      bar.replaceChildren(h("span.tv-faint.tv-selected", {}, about), h("span.tv-faint.tv-counts", {}, "select anything: what belongs to it lights up"));
      return;
    }
    const clear = button("×", () => context.selection.set(null), { "aria-label": "clear the selection", title: "clear the selection (Esc)" });
    const parts: Node[] = [h("strong.tv-crumb", { title: selectionName(recording, selection) }, cut(selectionName(recording, selection), 60)), clear];
    const path = pathOf(context, lit);
    if (path.length > 0) parts.push(h("span.tv-path", {}, ...path.flatMap(part => [" ‹ ", part])));
    const counts = h("span.tv-counts");
    for (const [kind, word, view] of VIEW) {
      const count = lit.count(kind);
      if (count === 0 || (count === 1 && kind === selection.kind)) continue;
      const label = some(count, word);
      if (!page.views[view]) counts.append(h("span.tv-chip", {}, label));
      else counts.append(button(label, () => context.open(view), { class: "tv-chip tv-button", title: `show in ${view}` }));
    }
    bar.replaceChildren(h("span.tv-selected", {}, ...parts), counts);
  };
  context.onSelect(show);
  return { element: bar, refresh: () => show(context.links.related(context.selection.value)) };
}

/** The module, line and kernel that a selected thing stands in. */
function pathOf({ recording, selection }: Context, lit: Lit): HTMLElement[] {
  const out: HTMLElement[] = [];
  const kind = lit.selection!.kind;
  const one = (what: Selectable, name: (id: string) => string) => {
    const ids = lit.of(what);
    if (kind !== what && ids.length === 1) out.push(button(name(ids[0]!), () => selection.set({ kind: what, id: ids[0]! }), { class: "tv-link" }));
  };
  if (kind === "node") {
    const [at, node] = lit.selection!.id.split(".").map(Number) as [number, number];
    const module = recording.programs[at]?.nodes.module[node];
    if (module) out.push(button(module, () => selection.set({ kind: "module", id: `${at}.${node}.${module.split(".").length}` }), { class: "tv-link" }));
  }
  one("line", id => lineName(recording, Number(id)));
  one("kernel", id => {
    const [at, kernel] = id.split(".").map(Number) as [number, number];
    return kernelName(recording.programs[at]!, kernel);
  });
  return out;
}
