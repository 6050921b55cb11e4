/** The explorer: all views of one recording behind tabs, one selection, and the way from what is selected to what it belongs to. */

import { post, type LineNumbers, type Notice } from "../board";
import { fresh, h, taken } from "../dom";
import { Links, type Lit } from "../links";
import { fail, message } from "../mount";
import { colorRules } from "../parts/head";
import { crumbs, viewOf } from "../parts/crumbs";
import { hoverOf, type Selection, type SelectionStore } from "../selection";
import { followTheme } from "../theme";
import { percent, seconds, some } from "../units";
import { WIRE_VERSION, type Category, type LineRow, type Page, type ProgramPage, type Recording, type ViewData, type Views } from "../wire";
import { addresses } from "./addresses";
import { compare } from "./compare";
import { fusion } from "./fusion";
import { graph } from "./graph";
import { kernel } from "./kernel";
import { lines } from "./lines";
import { memory } from "./memory";
import { overview } from "./overview";
import { roofline } from "./roofline";
import { stages } from "./stages";
import { timeline } from "./timeline";
import { values } from "./values";
import { together, type Cleanup, type Context, type Part, type View } from "./view";

const PARTS: { [Name in keyof Views]: Part<NonNullable<Views[Name]>> } = { overview, graph, stages, fusion, kernel, timeline, lines, memory, roofline, values, addresses, compare };
const NAMES = Object.keys(PARTS) as (keyof Views)[];

export const explorer: View<Page> = (el, page, selection, host) => {
  const { recording } = checked(page);
  let { views } = page;
  const links = new Links(recording);
  const hover = hoverOf(recording.id);
  const status = h("div.tv-status", { role: "status", "aria-live": "polite" });
  const categories = new Map([...(views.graph?.dtypes ?? []), ...NAMES.flatMap(name => views[name]?.legend ?? [])].map(category => [category.name, category]));
  const unknown: Category = { name: "", label: "unknown", light: "", dark: "", mark: "?" };
  const redraws = new Set<() => void>();
  const follow = (store: SelectionStore, light: (lit: Lit) => void) => store.subscribe(value => light(links.related(value)));
  const context: Context = {
    page, recording, links, selection, hover, host,
    onSelect: light => (light(links.related(selection.value)), follow(selection, light)),
    onHover: light => follow(hover, light),
    onTheme: redraw => (redraws.add(redraw), () => void redraws.delete(redraw)),
    category: name => categories.get(name) ?? { ...unknown, name },
    open: name => show(name, true),
    say: text => void (status.textContent = text),
  };

  const there = NAMES.filter(name => views[name]);
  const bar = h("div.tv-tabs", { role: "tablist", "aria-label": `views of ${recording.title}` });
  const panel = h("div.tv-panel", { role: "tabpanel", id: fresh("panel") });
  const tabs = new Map(there.map(name => {
    const tab = h("button.tv-tab", { type: "button", role: "tab", id: fresh("tab"), "aria-controls": panel.id, "data-view": name }, name);
    tab.addEventListener("click", () => show(name));
    return [name as string, tab];
  }));
  bar.append(...tabs.values());
  bar.addEventListener("keydown", event => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    show(there[(there.indexOf(current as keyof Views) + by + there.length) % there.length]!, true);
  });
  const rules = document.createElement("style");
  rules.textContent = colorRules(categories.values());
  const path = crumbs(context);
  const top = h("div.tv-top", {}, h("div.tv-bar", {}, there.length > 1 ? bar : null, programs()), path.element);
  el.append(rules, top, panel, cost(recording), status);

  let current = "";
  let undo: Cleanup = () => undefined;
  const show = (name: string, focus = false, again = false) => {
    const data = views[name as keyof Views];
    if (!data || (name === current && !again)) return;
    current = name;
    for (const [other, tab] of tabs) {
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", tabs.get(name)!.id);
    if (focus) tabs.get(name)!.focus();
    undo();
    undo = () => undefined;
    hover.set(null);
    panel.replaceChildren();
    panel.dataset.view = name;
    const place = h(`div.tv-view.tv-${name}` as "div.");
    panel.append(place);
    try {
      if (data.error) throw new Error(data.error);
      undo = (PARTS[name as keyof Views] as Part<ViewData>)(place, data, context);
    } catch (error) {
      console.error("tinyviz: a view failed", error);
      fail(place, `The view “${name}” failed: ${message(error)}`, context.page.texts[name] ?? "");
    }
  };
  /** Which of the recording's programs the views are of; null where there is one. */
  function programs(): HTMLElement | null {
    const shown = Math.max(...NAMES.map(name => views[name]?.program ?? -1));
    if (recording.programs.length < 2 || shown < 0) return null;
    const more = new Map((page.more ?? []).map(each => [each.program, each]));
    const select = h("select.tv-input", { "aria-label": "program" }, ...recording.programs.map(({ name, launches }, i) => {
      const time = launches.host_median === null ? "" : `, ${seconds(launches.host_median)} each`;
      const absent = i !== shown && !more.has(i) && !host.live;
      return h("option", { value: i, disabled: absent }, `${i}: ${name} · ${some(launches.count, "run")}${time}${absent ? ` · not on this page: view(program=${i})` : ""}`);
    }));
    select.value = String(shown);
    let turn = 0;
    select.addEventListener("change", async () => {
      const at = Number(select.value);
      const mine = ++turn;
      if (at !== shown && !more.has(at)) {
        // a large one: the kernel makes its views when somebody wants them
        said.textContent = "asking the kernel for its views …";
        try {
          more.set(at, await host.ask<ProgramPage>({ what: "page", program: at }));
          said.textContent = "";
        } catch (error) {
          if (mine === turn) said.textContent = message(error);
          select.value = String(on);
          return;
        }
        if (mine !== turn) return;
      }
      on = at;
      const other = more.get(at);
      context.page = other ? { ...page, views: other.views, texts: other.texts } : page;
      views = context.page.views;
      if (programOf(selection.value) !== at) selection.set(null);
      path.refresh();
      show(views[current as keyof Views] ? current : there[0]!, false, true);
    });
    const said = h("span.tv-faint", { role: "status", "aria-live": "polite" });
    let on = shown;
    return h("span.tv-field.tv-program", {}, h("label.tv-field", {}, "program", select), said);
  }

  if (there.length === 0) throw new Error(recording.missing.join("; ") || "this page carries no view");

  if (selection.value === null && page.selection) selection.set(page.selection);
  const owner = {};
  const untheme = followTheme(el, () => redraws.forEach(redraw => redraw()));
  // A link to one thing of an exported page (page.html#firing:0.2.31) leads to the view where it is at home.
  const chosen = selection.value;
  const linked = chosen && location.hash === `#${chosen.kind}:${chosen.id}` ? viewOf(chosen.kind) : undefined;
  show([linked, page.view as keyof Views].find(name => name && there.includes(name)) ?? there[0]!);
  const other = linked && el.querySelector<HTMLOptionElement>(`.tv-program option[value="${programOf(chosen)}"]:not(:checked, :disabled)`);
  if (other) (other.selected = true), other.dispatchEvent(new Event("change", { bubbles: true }));
  const first = notice(page);
  const unpost = context.onSelect(lit => post(owner, { ...first, lit: lit.of("line").flatMap(line => cellLine(recording, Number(line)) ?? []) }));
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Escape" && !event.defaultPrevented && selection.value) taken(event), selection.set(null);
  };
  el.addEventListener("keydown", keys);
  return together(untheme, unpost, () => undo(), () => post(owner, null), () => el.removeEventListener("keydown", keys), () => hover.set(null));
};

/** The program that a selected thing belongs to; -1 for lines and rules, which all share. */
function programOf(selected: Selection | null): number {
  return selected && selected.kind !== "line" && selected.kind !== "rule" ? Number(selected.id.split(".")[0]) : -1;
}

/** What watching cost, by the recorder's own clock. */
function cost({ seconds: watched, observer_seconds: own, observer_apart }: Recording): HTMLElement | string {
  if (!watched || own === null) return "";
  const apart = Object.entries(observer_apart ?? {}).map(([name, time]) => ` · ${name} ${seconds(time)}`).join("");
  return h("div.tv-cost", { title: "time inside the recorder, of the time that was watched; apart from it what was asked for beside recording (values), and Python's garbage collector where it began inside the recorder. The clocks in the kernels come on top: some tens of nanoseconds for each launch" },
    `recording cost ${seconds(own)} of ${seconds(watched)} watched: ${percent(own / watched)}${apart}`);
}

/** The few things without which nothing can be shown; what a view needs beyond them, it misses in its own place. */
function checked(page: Page): Page {
  const { recording, views } = page;
  if (!recording || !views || !Array.isArray(recording.programs)) throw new Error("the page holds no recording");
  if (recording.version !== WIRE_VERSION) throw new Error(`recorded as version ${String(recording.version)}; this front end reads version ${WIRE_VERSION}`);
  return page;
}

function cellLine({ lines, files }: Recording, line: number): { cell: string; line: number; text: string } | null {
  const cell = files[lines.file[line] ?? -1]?.cell;
  return cell ? { cell, line: lines.line[line]!, text: lines.text[line] ?? "" } : null;
}

/** What this recording's lines cost, for a gutter that no kernel fills. */
function notice({ recording, views }: Page): Notice {
  const rows: LineRow[] = views.lines?.rows ?? views.overview?.lines ?? [];
  const costs = rows.flatMap((row): LineNumbers[] => {
    const at = cellLine(recording, row.line);
    const { seconds, seconds_predicted, bytes_read, bytes_written, flops } = row;
    return at ? [{ ...at, id: String(row.line), seconds, seconds_predicted, bytes_read, bytes_written, flops }] : [];
  });
  return { recording: recording.id, lit: [], numbers: costs };
}

