/** What stands above every view: its title, how to read it, and the legend; and below it the table that says the same. */

import { fresh, h, taken } from "../dom";
import { MISSING, some } from "../units";
import type { Category, ViewData } from "../wire";

/** A category's square: colour and letter, never the colour alone. */
export function swatch(category: Category, label = ""): HTMLElement {
  const mark = h("span.tv-mark", { title: category.label, "aria-hidden": label ? "true" : null }, category.mark);
  mark.style.setProperty("--c", `var(${colorVariable(category.name)})`);
  return label ? h("span.tv-key", {}, mark, label) : mark;
}

export function colorVariable(category: string): string {
  return `--tv-c-${category.replace(/[^a-z0-9]+/gi, "-").toLowerCase()}`;
}

/** One rule per category, for light and for dark ground. Only colours of the form #rrggbb pass. */
export function colorRules(categories: Iterable<Category>): string {
  const good = [...categories].filter(c => /^#[0-9a-f]{6}$/i.test(c.light) && /^#[0-9a-f]{6}$/i.test(c.dark));
  const set = (ground: "light" | "dark") => good.map(c => `${colorVariable(c.name)}:${c[ground]};`).join("");
  return `.tinyviz{${set("light")}}.tinyviz[data-ground="dark"]{${set("dark")}}`;
}

export function head({ title, howto, legend }: ViewData): HTMLElement {
  const keys = legend.length === 0 ? null : h("div.tv-legend", { role: "list", "aria-label": "legend" });
  for (const category of legend) {
    const key = swatch(category, category.label);
    key.setAttribute("role", "listitem");
    keys!.append(key);
  }
  const name = h("div.tv-title", { role: "heading", "aria-level": 2 }, title);
  if (howto.length === 0) return h("div.tv-head", {}, h("div.tv-headrow", {}, name, keys));
  const text = h("ul.tv-howto", { id: fresh("howto") }, ...howto.map(line => h("li", {}, line)));
  text.hidden = true;
  const toggle = h("button.tv-link", { type: "button", "aria-expanded": "false", "aria-controls": text.id }, "How to read this");
  toggle.addEventListener("click", () => {
    text.hidden = !text.hidden;
    toggle.setAttribute("aria-expanded", String(!text.hidden));
  });
  return h("div.tv-head", {}, h("div.tv-headrow", {}, name, toggle, keys), text);
}

export interface Column<Row> {
  name: string;
  text: (row: Row) => string;
  /** numbers stand right */
  right?: boolean;
  /** where the view is narrow, or as narrow as a phone, it stands below the first cell */
  aside?: "narrow" | "phone";
}

const MOST_ROWS = 500;

/** The same as a drawing, for keyboards and screen readers: made when it is opened first. */
export function twin<Row>(caption: string, columns: Column<Row>[], rows: () => readonly Row[], choose?: (row: Row) => void): HTMLElement {
  const details = h("details.tv-twin", {}, h("summary", {}, `The same as a table: ${caption}`));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const all = rows();
    details.append(h("div.tv-scroll", { tabindex: choose ? null : 0 }, table(columns, all.slice(0, MOST_ROWS), choose)));
    if (all.length > MOST_ROWS) details.append(h("p.tv-faint", {}, `… and ${some(all.length - MOST_ROWS, "more row")}: the search finds them`));
  });
  return details;
}

/** A row that a click, Enter or the space bar chooses. The arrows go to its neighbours, so that all of them are one stop of the Tab key. */
export function choosable(line: HTMLElement, choose: () => void): void {
  line.tabIndex = 0;
  line.addEventListener("focus", () => {
    for (const other of line.parentElement!.children) if (other.hasAttribute("tabindex")) (other as HTMLElement).tabIndex = other === line ? 0 : -1;
  });
  line.addEventListener("click", choose);
  line.addEventListener("keydown", event => {
    if (event.target !== line) return;
    if (event.key === "Enter" || event.key === " ") taken(event), choose();
    const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key] as "nextElementSibling" | "previousElementSibling" | undefined;
    let next = way && line[way];
    while (next && !next.hasAttribute("tabindex")) next = next[way!];
    if (next instanceof HTMLElement) taken(event), next.focus();
  });
}

export function table<Row>(columns: Column<Row>[], rows: readonly Row[], choose?: (row: Row) => void): HTMLTableElement {
  const classes = ({ right, aside }: Column<Row>): `.${string}` | "" => `${right ? ".tv-right" as const : ""}${aside ? `.tv-aside.tv-${aside}` as const : ""}`;
  const headings = columns.map(column => (column.name ? h(`th${classes(column)}`, { scope: "col" }, column.name) : h("td")));
  const body = h("tbody");
  for (const row of rows) {
    const line = h("tr", {}, ...columns.map(column => h(`td${classes(column)}`, {}, column.text(row))));
    const below = columns.filter(({ aside, text }) => aside && !["", MISSING].includes(text(row))).map(({ name, text, aside }) => h(`span.tv-${aside}`, {}, `${name} ${text(row)}`));
    if (below.length > 0) line.firstElementChild!.append(h("div.tv-below", {}, ...below));
    if (choose) {
      choosable(line, () => choose(row));
    }
    body.append(line);
  }
  return h("table.tv-table", {}, h("thead", {}, h("tr", {}, ...headings)), body);
}
