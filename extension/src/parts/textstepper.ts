/** Steps through the decisions and primitives of one stage: the text that they change, before and after, word by word. */

import { button, h } from "../dom";
import { wordDiff } from "../frames";
import { kernelName, nodeText } from "../names";
import { aligned, Texts, type Pair, type Row } from "../steps";
import { MISSING, seconds, some } from "../units";
import { together, type Cleanup, type Context } from "../views/view";
import type { Program } from "../wire";
import { arenaPictures } from "./arenasteps";
import { scrollTo } from "./code";
import { selectField } from "./controls";
import { decisionCard } from "./decision";
import { groupPictures } from "./groupsteps";
import { choosable } from "./head";
import { ruleRow } from "./stepper";
import { walker, type Steps } from "./steps";

/** lines of a text above which those that stay are folded; and how many of them stand around each change */
const [WHOLE, AROUND] = [160, 6];
/** lines of a text that are shown where it is not compared */
const MOST = 240;

/** How a line reads. */
type Words = (row: Row) => string;

export function textStepper(el: HTMLElement, steps: Steps, context: Context): Cleanup {
  const { at, stage } = steps;
  const { program } = context.links.program(at);
  const given = program.stages[stage]!;
  const texts = new Texts(program, stage);
  const { kernel } = given.steps;

  const what = h(`div.tv-step.tv-of${given.name}`, { role: "status", "aria-live": "polite" });
  const [left, right] = [side("before"), side("after")];
  const together2 = (from: HTMLElement, to: HTMLElement) => from.addEventListener("scroll", () => to.scrollTop !== from.scrollTop && step >= 0 && !texts.makes(step) && (to.scrollTop = from.scrollTop));
  together2(left.body, right.body), together2(right.body, left.body);

  const own = [...new Set(kernel.filter(k => k >= 0))];
  const first = (k: number) => kernel.findIndex((each, i) => each === k && texts.changes(i));
  const jump = own.length > 1 ? selectField("kernel", own.map(k => [String(k), kernelName(program, k)]), String(own[0]), value => context.selection.set({ kind: "firing", id: `${at}.${stage}.${Math.max(first(Number(value)), kernel.indexOf(Number(value)))}` })) : null;

  const words: Words = given.name === "fuse" ? row => valueWords(program, row) : row => row.text;
  const walk = walker(steps, context, {
    of: given.steps.rule, effective: k => texts.changes(k), more: jump, draw: k => draw(k),
    // A kernel that is selected elsewhere is shown here, unless a step of it is already.
    follow: (kind, id) => (kind === "kernel" && id.startsWith(`${at}.`) && kernel[step] !== Number(id.split(".")[1]) ? first(Number(id.split(".")[1])) : -1),
  });
  const pictures = given.name === "fuse" ? groupPictures(context, at, walk.key) : null;
  const arena = given.name === "plan" && (program.arena_bytes ?? 0) > 0 ? arenaPictures(context, at, stage) : null;
  const panes = h("div.tv-pair", {}, left.element, right.element);
  const block = h(pictures || arena ? "div.tv-split.tv-stepper.tv-both" : "div.tv-split.tv-stepper", {}, walk.list, h("div.tv-kernelbody", {}, walk.controls, what, pictures?.pair, arena?.pair, panes));
  el.append(block);

  let step = -1;
  let lines: { row: Row; element: HTMLElement }[] = [];
  const light = () => {
    const lit = context.links.related(context.selection.value);
    const from = lit.selection?.kind;
    for (const { row, element } of lines) element.classList.toggle("tv-lit", from === "node" && row.nodes.some(node => lit.has("node", `${at}.${node}`)));
  };
  const draw = (k: number) => {
    step = k;
    const [before, after] = texts.change(k);
    const compares = !texts.makes(k);
    const held = [left.body, right.body].find(body => body.matches(":focus-within"));
    const row = held ? [...held.children].findIndex(line => line.matches(":focus")) : -1;
    const select = jump?.querySelector("select");
    if (select && kernel[k]! >= 0) select.value = String(kernel[k]);
    what.replaceChildren(...describe(context, program, at, stage, k, texts.makes(k) || texts.edits[k]!.length > 0, texts.changes(k)));
    lines = [];
    const put = (row: Row | null, change: string, content: (Node | string)[]): HTMLElement => {
      const element = h("div.tv-stepline", { "data-change": change || null }, ...content);
      const node = row?.nodes.length === 1 ? row.nodes[0]! : -1;
      if (row) lines.push({ row, element });
      if (node >= 0) {
        element.dataset.node = String(node);
        element.setAttribute("role", "button");
        choosable(element, () => context.selection.set({ kind: "node", id: `${at}.${node}` }));
      }
      return element;
    };
    if (compares) fill(left.body, right.body, aligned(before, after, texts.edits[k]!), words, put);
    else plain(left.body, before, given.name === "loops" ? row => valueWords(program, row) : row => row.text, put), plain(right.body, after, row => row.text, put);
    for (const { body } of [left, right]) body.tabIndex = body.querySelector("[tabindex]") ? -1 : 0; // one stop of the Tab key each
    left.note.textContent = count(before, given.name === "emit" ? "loops" : given.name === "loops" ? "values" : "");
    right.note.textContent = count(after, given.name !== "emit" ? "" : compares ? "loops" : program.kernels[kernel[k]!]?.source.language ?? "");
    const spot = [...right.body.children, ...left.body.children].find(each => (each as HTMLElement).dataset.change);
    if (compares && spot instanceof HTMLElement) scrollTo(spot.parentElement!, spot, true);
    else {
      left.body.scrollTop = right.body.scrollTop = 0;
      // What comes before the first line of the loops only fetches the arguments.
      const begin = given.name === "emit" ? program.kernels[kernel[k]!]!.source.link.findIndex(link => link >= 0) : -1;
      const line = right.body.children[begin - 2];
      if (line instanceof HTMLElement) right.body.scrollTop = line.offsetTop - right.body.offsetTop;
    }
    pictures?.draw(before, after, given.steps.nodes[k]!, program.decisions[given.steps.decision[k]!]?.nodes ?? []);
    arena?.draw(k);
    light();
    if (held) { // what had the focus is gone: the line in its place has it now, and keys go on stepping
      const line = held.children[row];
      (line instanceof HTMLElement && line.hasAttribute("tabindex") ? line : held).focus({ preventScroll: true });
    }
  };
  return together(walk.start(block), context.onSelect(light), () => pictures?.destroy(), () => arena?.destroy());
}

/** A line of stage fuse is about a value, which it names. */
function valueWords(program: Program, { text, nodes: [node] }: Row): string {
  return node === undefined ? text : `${text} ${nodeText(program, node, program.nodes.src[node] ?? [])}`;
}

function side(title: string): { element: HTMLElement; body: HTMLElement; note: HTMLElement } {
  const note = h("span.tv-faint");
  const body = h("div.tv-steptext", { tabindex: 0, role: "group", "aria-label": `the text ${title} this step` });
  return { element: h("div.tv-side", {}, h("div.tv-panehead", {}, h("span", {}, title), note), body), body, note };
}

const count = (rows: readonly Row[], of: string): string => (rows.length === 0 ? "nothing yet" : `${of ? `${of}, ` : ""}${some(rows.length, "line")}`);

type Put = (row: Row | null, change: string, content: (Node | string)[]) => HTMLElement;

function plain(place: HTMLElement, rows: readonly Row[], words: Words, put: Put): void {
  place.replaceChildren(...rows.slice(0, MOST).map(row => put(row, "", [words(row)])),
    ...(rows.length > MOST ? [put(null, "fold", [`⋯ ${some(rows.length - MOST, "more line")}: see the view “kernel”`])] : []));
}

/** Both texts, a line beside the one that it was; what is far from every change is folded in long ones. */
function fill(left: HTMLElement, right: HTMLElement, pairs: readonly Pair[], words: Words, put: Put): void {
  const same = ([before, after]: Pair) => before !== null && after !== null && before.text === after.text && before.nodes.join() === after.nodes.join();
  const shown = new Set<number>();
  if (pairs.length > WHOLE) pairs.forEach((pair, i) => {
    if (!same(pair)) for (let k = i - AROUND; k <= i + AROUND; k++) shown.add(k);
  });
  const [a, b]: [HTMLElement[], HTMLElement[]] = [[], []];
  for (let i = 0; i < pairs.length; i++) {
    if (pairs.length > WHOLE && !shown.has(i)) {
      const begin = i;
      while (i + 1 < pairs.length && !shown.has(i + 1)) i++;
      for (const rows of [a, b]) rows.push(put(null, "fold", [`⋯ ${some(i + 1 - begin, "line")} that ${i === begin ? "stays" : "stay"}`]));
      continue;
    }
    const [before, after] = pairs[i]!;
    if (before && after) {
      const [old, now] = [words(before), words(after)];
      if (old.trimStart() === now.trimStart()) a.push(put(before, "", [old])), b.push(put(after, "", [now]));
      else {
        const diff = wordDiff(old.trimStart(), now.trimStart());
        const part = (side: "before" | "after") => diff.flatMap((each): (Node | string)[] => (each.side === "both" ? [each.text] : each.side === side ? [h(side === "before" ? "del" : "ins", {}, each.text)] : []));
        a.push(put(before, "changed", [indent(old), ...part("before")])), b.push(put(after, "changed", [indent(now), ...part("after")]));
      }
    } else if (before) a.push(put(before, "removed", [words(before)])), b.push(put(null, "", [" "]));
    else a.push(put(null, "", [" "])), b.push(put(after, "new", [words(after!)]));
  }
  left.replaceChildren(...a);
  right.replaceChildren(...b);
}

const indent = (text: string): string => text.slice(0, text.length - text.trimStart().length);

/** Rule, what was done to what, why, and what it cost or refused. */
function describe(context: Context, program: Program, at: number, stage: number, k: number, edits: boolean, changes: boolean): Node[] {
  const { name, steps } = program.stages[stage]!;
  const decision = program.decisions[steps.decision[k]!];
  const kernel = steps.kernel[k]! >= 0 ? steps.kernel[k]! : decision?.kernel ?? -1;
  const changed = steps.nodes[k]!.length;
  const facts = [!changes ? "changes nothing" : name === "emit" && !edits ? "it shows in the source" : "", changed > 0 ? `${some(changed, "node")} touched` : "", steps.seconds[k] === null ? "" : seconds(steps.seconds[k])].filter(Boolean);
  const line = h("div.tv-headrow", {}, h("code", {}, steps.text[k] || "–"));
  if (kernel >= 0) {
    line.append(h("span", {}, "of ", button(kernelName(program, kernel), () => context.selection.set({ kind: "kernel", id: `${at}.${kernel}` }), { class: "tv-link" })),
      button("open in the view kernel", () => (context.selection.set({ kind: "kernel", id: `${at}.${kernel}` }), context.open("kernel")), { class: "tv-link" }));
  }
  if (name === "plan" && steps.nodes[k]!.length > 0) line.append(button("open in the view memory", () => context.open("memory"), { class: "tv-link" }));
  line.append(h("span.tv-faint", {}, facts.join(" · ")));
  return [ruleRow(context, steps.rule[k]!), line, decision ? decisionCard(context, program, decision) : h("p.tv-faint", {}, name === "loops" || (name === "emit" && changes) ? "" : `${MISSING} no decision was recorded about it`)];
}
