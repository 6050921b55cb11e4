/** Small form controls, labelled. */

import { h } from "../dom";

export function selectField(label: string, options: readonly (readonly [string, string])[], value: string, change: (value: string) => void): HTMLElement {
  const select = h("select.tv-input", { "aria-label": label }, ...options.map(([name, text]) => h("option", { value: name }, text)));
  select.value = value;
  select.addEventListener("change", () => change(select.value));
  return h("label.tv-field", {}, label, select);
}

/** A bar of 0 to 1, with its number beside it. */
export function bar(part: number | null, text: string, category = ""): HTMLElement {
  const made = h("span.tv-meter", { title: text }, h("span.tv-meterbar"), h("span.tv-metertext", {}, text));
  made.style.setProperty("--part", `${(100 * Math.min(Math.max(part ?? 0, 0), 1)).toFixed(2)}%`);
  if (category) made.style.setProperty("--c", `var(${category})`);
  return made;
}
