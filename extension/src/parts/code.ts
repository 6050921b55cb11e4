/** A pane of code whose lines can be lit, previewed and pinned; and just enough colouring to read it: by weight, not by hue. */

import { h, taken } from "../dom";
import type { Lit } from "../links";
import type { Selection } from "../selection";
import { some } from "../units";
import type { Context } from "../views/view";
import type { Selectable } from "../wire";

export interface CodeLine {
  text: string;
  /** what a click selects; null: nothing */
  key: Selection | null;
  /** lit by other things than its key */
  also?: (lit: Lit) => boolean;
  /** stands before the text, such as a line number */
  label?: string;
  /** 0 to 1: a bar behind the label, which says the number too */
  share?: number;
  /** what the line means: shown below the pane while the pointer, or the cursor, is on it */
  note?: string;
}

export interface CodePane {
  element: HTMLElement;
  /** how many lines are lit by the selection */
  light(pinned: Lit, scroll: boolean): number;
  preview(hover: Lit): void;
}

/** `first`: the line that is in view at first. */
export function codePane(title: string, language: string, lines: readonly CodeLine[], context: Context, missing: string, first = 0): CodePane {
  const note = h("span.tv-faint");
  const body = h("div.tv-code", { tabindex: 0, role: "listbox", "aria-label": `${title}: arrows go from line to line, Enter selects` });
  const element = h("section.tv-pane", { "data-pane": language }, h("div.tv-panehead", {}, h("span", {}, title), note), body);
  if (lines.length === 0) {
    body.append(h("p.tv-missing", {}, `– ${missing}`));
    return { element, light: () => 0, preview: () => undefined };
  }
  const width = String(lines.length).length;
  const rows = lines.map((line, i) => {
    const label = h("span.tv-number", { "aria-hidden": true }, line.label ?? String(i + 1).padStart(width));
    if (line.share !== undefined) label.style.setProperty("--share", `${(100 * line.share).toFixed(1)}%`);
    const row = h("div.tv-codeline", { role: "option", "aria-selected": "false", "data-line": i + 1 }, label);
    row.append(...tokens(line.text, language));
    if (line.key) row.dataset.id = line.key.id;
    return row;
  });
  body.append(...rows);
  if (first > 0) requestAnimationFrame(() => body.scrollTop === 0 && !rows.some(row => row.classList.contains("tv-lit")) && (body.scrollTop = rows[first]!.offsetTop));
  const notes = lines.some(line => line.note) ? h("div.tv-panenote", { role: "status", "aria-live": "polite" }, "point at an instruction: what it does") : null;
  if (notes) element.append(notes);
  const explain = (i: number) => {
    const note = lines[i]?.note;
    if (notes && note) notes.textContent = note;
  };
  const at = (event: Event) => rows.indexOf((event.target as HTMLElement).closest<HTMLDivElement>(".tv-codeline")!);
  let cursor = 0;
  const choose = (i: number) => {
    cursor = i;
    context.selection.set(lines[i]?.key ?? null);
  };
  body.addEventListener("click", event => at(event) >= 0 && choose(at(event)));
  body.addEventListener("pointerover", event => {
    context.hover.set(lines[at(event)]?.key ?? null);
    explain(at(event));
  });
  body.addEventListener("pointerleave", () => context.hover.set(null));
  body.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 20, PageUp: -20 }[event.key];
    if (event.key === "Enter") taken(event), choose(cursor);
    else if (event.key === "Escape") taken(event), context.selection.set(null);
    else if (by !== undefined) {
      taken(event);
      rows[cursor]?.classList.remove("tv-cursor");
      cursor = Math.min(Math.max(cursor + by, 0), rows.length - 1);
      rows[cursor]!.classList.add("tv-cursor");
      scrollTo(body, rows[cursor]!);
      context.hover.set(lines[cursor]!.key);
      explain(cursor);
    }
  });
  const on = (lit: Lit, line: CodeLine) => (line.key !== null && lit.has(line.key.kind as Selectable, line.key.id)) || (line.also?.(lit) ?? false);
  return {
    element,
    light: (pinned, scroll) => {
      let first: HTMLElement | null = null;
      let count = 0;
      rows.forEach((row, i) => {
        const { key } = lines[i]!;
        const lit = on(pinned, lines[i]!);
        const own = key !== null && pinned.is(key.kind as Selectable, key.id);
        row.classList.toggle("tv-lit", lit);
        row.classList.toggle("tv-sel", own);
        row.setAttribute("aria-selected", String(own));
        if (lit) count++, (first ??= row);
        if (own) cursor = i;
      });
      note.textContent = count > 0 ? `${count} of ${rows.length} lit` : some(rows.length, "line");
      if (first && scroll) scrollTo(body, first, true);
      return count;
    },
    preview: hover => rows.forEach((row, i) => row.classList.toggle("tv-hover", on(hover, lines[i]!))),
  };
}

/** Scrolls the pane and nothing around it, which `scrollIntoView` would. */
export function scrollTo(pane: HTMLElement, row: HTMLElement, middle = false): void {
  const [top, height] = [row.getBoundingClientRect().top - pane.getBoundingClientRect().top - pane.clientTop + pane.scrollTop, pane.clientHeight];
  if (top >= pane.scrollTop + 4 && top + row.offsetHeight <= pane.scrollTop + height - 4) return;
  pane.scrollTop = middle ? top - height / 3 : top < pane.scrollTop ? top : top + row.offsetHeight - height;
}

const WORDS: Record<string, RegExp> = {
  python: /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\b(def|for|in|if|else|elif|return|with|as|import|from|class|while|lambda|and|or|not|is|None|True|False|yield|try|except|raise)\b/g,
  loops: /(#.*$)|("(?:[^"\\]|\\.)*")|\b(for|kernel|in|parallel|vectorize[d]?|unroll(?:ed)?|step|load|store|let|if|else|local|alloc|reduce|define|var|range|vector|pack)\b/g,
  llvm: /(;.*$)|("(?:[^"\\]|\\.)*")|\b(define|declare|ret|br|label|phi|load|store|getelementptr|fadd|fmul|fsub|fdiv|icmp|fcmp|select|call|add|mul|sub|shl|and|or|bitcast|insertelement|extractelement|shufflevector|zext|sext|trunc|sitofp|alloca|i1|i32|i64|float|double|ptr)\b/g,
  opencl: /(\/\/.*$)|("(?:[^"\\]|\\.)*")|\b(__kernel|kernel|void|for|if|else|int|long|float|double|float4|float8|float16|const|global|__global|local|__local|return|restrict|barrier)\b/g,
  assembly: /([#;].*$)|()(^\s*[a-z][\w.]*)/g,
};

/** Comments faint, keywords heavy; all of it as text nodes. */
export function tokens(text: string, language: string): (Node | string)[] {
  const pattern = WORDS[language];
  if (!pattern || text.length > 400) return [text];
  const out: (Node | string)[] = [];
  let last = 0;
  for (const match of text.matchAll(pattern)) {
    if (match[0] === "") continue;
    out.push(text.slice(last, match.index), h(match[1] ? "span.tv-comment" : match[3] ? "span.tv-word" : "span.tv-string", {}, match[0]));
    last = match.index + match[0].length;
  }
  out.push(text.slice(last));
  return out;
}
