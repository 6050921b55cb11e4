/** What all steppers share: which step is on show, the buttons, keys and slider that lead to others, and the rules that fired. */

import { button, h, taken } from "../dom";
import { seconds } from "../units";
import type { Cleanup, Context } from "../views/view";

/** The steps of one stage. */
export interface Steps {
  at: number;
  stage: number;
  /** ids of the rules that fired, how often, and for how long in all */
  rules: number[];
  counts: number[];
  times: (number | null)[];
}

export interface Walk {
  /** the rule of each step */
  of: readonly number[];
  effective: (step: number) => boolean;
  /** stands in the row of the buttons */
  more?: Node | null;
  /** which step to show for another selection; -1: the one on show */
  follow?: (kind: string, id: string) => number;
  /** Shows a step. */
  draw: (step: number) => void;
}

export interface Walker {
  /** stands left of the step, and above it */
  list: HTMLElement;
  controls: HTMLElement;
  /** true where it took the key */
  key: (event: KeyboardEvent) => boolean;
  /** Follows the selection, and shows the first step where it is about none. `block`: where keys are heard. */
  start: (block: HTMLElement) => Cleanup;
}

export function walker({ at, stage, rules, counts, times }: Steps, context: Context, { of, effective, more, follow, draw }: Walk): Walker {
  const { name, reason } = context.recording.rules;
  const all = of.map((_, k) => k);
  const some = all.filter(effective);
  let steps = some.length > 0 ? some : all;
  const idle = new Set(some.length > 0 ? rules.filter(rule => !some.some(k => of[k] === rule)) : []);
  let step = -1;

  const select = (k: number) => context.selection.set({ kind: "firing", id: `${at}.${stage}.${k}` });
  const slider = h("input.tv-slider", { type: "range", min: 0, step: 1, "aria-label": "step", "data-lm-suppress-shortcuts": true });
  const number = h("span.tv-stepnumber");
  number.style.minWidth = `${2 * String(all.length).length + 9}ch`;
  const to = (index: number) => {
    const next = steps[Math.min(Math.max(index, 0), steps.length - 1)];
    if (next !== undefined) select(next);
  };
  /** Where the step stands among those on show; the one before where it is folded. */
  const here = () => steps.findLastIndex(k => k <= step);
  const by = (count: number) => to(here() + count);
  const key = (event: KeyboardEvent): boolean => {
    const count = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (count === undefined || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return false;
    if (Math.abs(count) === Infinity) to(count > 0 ? steps.length - 1 : 0);
    else by(count);
    return true;
  };
  slider.addEventListener("input", () => to(Number(slider.value)));
  const folded = h("input", { type: "checkbox", checked: true });
  folded.addEventListener("change", () => {
    steps = folded.checked && some.length > 0 ? some : all;
    show();
  });
  const unfold = () => ((folded.checked = false), (steps = all));
  const hidden = all.length - steps.length;
  const controls = h("div.tv-tools", { tabindex: -1 }, button("|◀", () => to(0), { "aria-label": "first step" }), button("◀", () => by(-1), { "aria-label": "step back (left arrow, k)" }),
    slider, button("▶", () => by(1), { "aria-label": "next step (right arrow, j)" }), button("▶|", () => to(steps.length - 1), { "aria-label": "last step" }), number,
    hidden > 0 ? h("label.tv-field", {}, folded, `fold ${hidden} without effect`) : null, more);

  const list = h("div.tv-rules", { role: "group", "aria-label": "rules that fired" });
  const rows = rules.map((rule, i) => {
    const row = h("button.tv-rule", { type: "button", title: reason[rule] ?? "" }, h("span.tv-count", {}, `${counts[i]}×`),
      h("span.tv-name", {}, name[rule] ?? "?"), h("span.tv-why", {}, reason[rule] ?? "", times[i] === null || times[i] === undefined ? null : h("span.tv-ruletime", { title: "of all its firings together" }, ` · ${seconds(times[i]!)}`)));
    row.addEventListener("click", () => {
      // The next firing of this rule after the one on show, around the end; one with effect, where there is one.
      const own = all.filter(k => of[k] === rule);
      const shown = own.filter(k => steps.includes(k));
      const among = shown.length > 0 ? shown : own;
      const next = among.find(k => k > step) ?? among[0];
      if (next === undefined) return;
      if (!steps.includes(next)) unfold();
      select(next);
    });
    return row;
  });
  list.append(...rows);

  const show = () => {
    slider.max = String(Math.max(steps.length - 1, 0));
    slider.value = String(Math.max(here(), 0));
    number.textContent = `step ${step + 1} of ${all.length}`;
    slider.setAttribute("aria-valuetext", number.textContent);
    rows.forEach((row, i) => {
      row.classList.toggle("tv-current", of[step] === rules[i]);
      row.hidden = folded.checked && idle.has(rules[i]!);
    });
    draw(step);
  };
  const start = (block: HTMLElement): Cleanup => {
    const undo = context.onSelect(({ selection }) => {
      const ids = selection?.kind === "firing" ? selection.id.split(".").map(Number) : [];
      const own = ids[0] === at && ids[1] === stage ? ids[2] : undefined;
      const next = own ?? (selection && follow ? follow(selection.kind, selection.id) : -1);
      if (next < 0 || next >= all.length || next === step) return;
      step = next;
      if (!steps.includes(step)) unfold();
      show();
    });
    block.addEventListener("keydown", event => {
      if (event.target === slider || !(event.target as HTMLElement).closest("input, select, .tv-picture")) if (key(event)) taken(event);
    });
    if (step < 0 && all.length > 0) {
      step = steps[0]!;
      show();
    }
    return undo;
  };
  return { list, controls, key, start };
}
