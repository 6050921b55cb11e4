/** A titled, focusable list: what every drawing also says, for keyboards and screen readers. */

import { same, type Selection } from "../selection";
import type { View } from "./view";

export interface OutlineItem extends Selection {
  label: string;
  detail?: string;
}

export interface Outline {
  title: string;
  items: OutlineItem[];
}

let lists = 0;

export const outline: View<Outline> = (el, { title, items }, selection) => {
  const name = `tinyviz-outline-${++lists}`;
  const heading = element("div", "tinyviz-title", title);
  heading.id = name;
  const list = element("ul", "tinyviz-list");
  list.tabIndex = 0;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-labelledby", name);

  const rows = items.map((item, index) => {
    const row = element("li", "tinyviz-item");
    row.id = `${name}-${index}`;
    row.dataset.kind = item.kind;
    row.dataset.id = item.id;
    row.setAttribute("role", "option");
    row.append(element("span", "tinyviz-label", item.label), element("span", "tinyviz-detail", item.detail ?? ""));
    row.addEventListener("click", () => choose(index));
    return row;
  });
  list.append(...rows);
  el.append(heading, list);

  const current = () => items.findIndex(item => same(selection.value, { kind: item.kind, id: item.id }));
  const choose = (index: number) => {
    const item = items[index];
    if (item) selection.set({ kind: item.kind, id: item.id });
  };
  const show = () => {
    const at = current();
    rows.forEach((row, index) => row.setAttribute("aria-selected", String(index === at)));
    const row = rows[at];
    if (row) list.setAttribute("aria-activedescendant", row.id);
    else list.removeAttribute("aria-activedescendant");
  };
  list.addEventListener("keydown", event => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (step === undefined) return;
    // Otherwise the notebook takes j and k for its own.
    event.preventDefault();
    event.stopPropagation();
    const at = current();
    choose(at < 0 ? 0 : Math.min(Math.max(at + step, 0), items.length - 1));
    rows[current()]?.scrollIntoView({ block: "nearest" });
  });

  const unsubscribe = selection.subscribe(show);
  show();
  return () => {
    unsubscribe();
    heading.remove();
    list.remove();
  };
};

function element<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, className: string, text = ""): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
