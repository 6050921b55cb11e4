/** Steps through the rule firings of one stage: before and after side by side, what changed marked, nothing else moves. */

import { button, h, taken } from "../dom";
import { blame, changes, Replay, wordDiff } from "../frames";
import { nodeName, nodeText, selectionName } from "../names";
import { MISSING, seconds } from "../units";
import { together, type Cleanup, type Context } from "../views/view";
import type { Program } from "../wire";
import { flatScene, type Drawn } from "./graphscene";
import { Picture } from "./picture";
import type { Item } from "./scene";

/** boxes above which a step would take longer than the eye waits, if each were an element */
const SVG_MOST = 250;

export interface Steps {
  at: number;
  stage: number;
  /** ids of the rules that fired, how often, and for how long in all */
  rules: number[];
  counts: number[];
  times: (number | null)[];
}

export function stepper(el: HTMLElement, { at, stage, rules, counts, times }: Steps, context: Context): Cleanup {
  const { recording, links } = context;
  const { program } = links.program(at);
  const { frames, before } = program.stages[stage]!;
  const layout = program.layouts.stages ?? program.layouts.recorded;
  if (!layout) throw new Error("the recording has no layout for stepping");
  const replay = new Replay(program);
  const all = frames.rule.map((_, k) => k);
  const effective = all.filter(k => changes(program, stage, k));
  let steps = effective;
  let frame = -1;

  const slider = h("input.tv-slider", { type: "range", min: 0, step: 1, "aria-label": "step", "data-lm-suppress-shortcuts": true });
  const number = h("span.tv-stepnumber");
  const what = h("div.tv-step", { role: "status", "aria-live": "polite" });
  const to = (index: number) => {
    const next = steps[Math.min(Math.max(index, 0), steps.length - 1)];
    if (next !== undefined) context.selection.set({ kind: "firing", id: `${at}.${stage}.${next}` });
  };
  /** Where the frame stands among the steps on show; the one before where it is folded. */
  const here = () => steps.findLastIndex(k => k <= frame);
  const by = (step: number) => to(here() + step);
  const key = (event: KeyboardEvent): boolean => {
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return false;
    if (Math.abs(step) === Infinity) to(step > 0 ? steps.length - 1 : 0);
    else by(step);
    return true;
  };
  slider.addEventListener("input", () => to(Number(slider.value)));
  const folded = h("input", { type: "checkbox", checked: true });
  folded.addEventListener("change", () => {
    steps = folded.checked ? effective : all;
    draw();
  });
  const controls = h("div.tv-tools", { tabindex: -1 }, button("|◀", () => to(0), { "aria-label": "first step" }), button("◀", () => by(-1), { "aria-label": "step back (left arrow, k)" }),
    slider, button("▶", () => by(1), { "aria-label": "next step (right arrow, j)" }), button("▶|", () => to(steps.length - 1), { "aria-label": "last step" }), number,
    all.length > effective.length ? h("label.tv-field", {}, folded, `fold ${all.length - effective.length} without effect`) : null);

  const list = h("div.tv-rules", { role: "group", "aria-label": "rules that fired" });
  const rows = rules.map((rule, i) => {
    const row = h("button.tv-rule", { type: "button", title: recording.rules.reason[rule] ?? "" }, h("span.tv-count", {}, `${counts[i]}×`),
      h("span.tv-name", {}, recording.rules.name[rule] ?? "?"), h("span.tv-why", {}, recording.rules.reason[rule] ?? "", times[i] === null || times[i] === undefined ? null : h("span.tv-ruletime", { title: "of all its firings together" }, ` · ${seconds(times[i]!)}`)));
    row.addEventListener("click", () => {
      // The next firing of this rule after the one on show, around the end.
      const of = all.filter(k => frames.rule[k] === rule);
      const next = of.find(k => k > frame) ?? of[0];
      if (next === undefined) return;
      if (!steps.includes(next)) (folded.checked = false), (steps = all);
      context.selection.set({ kind: "firing", id: `${at}.${stage}.${next}` });
    });
    return row;
  });
  list.append(...rows);
  const left = h("div.tv-side", {}, h("div.tv-panehead", {}, "before"));
  const right = h("div.tv-side", {}, h("div.tv-panehead", {}, "after"));
  const pair = h("div.tv-pair", {}, left, right);
  const main = h("div.tv-kernelbody", {}, all.length > 0 ? controls : null, what, pair);
  const block = h(all.length > 0 ? "div.tv-split.tv-stepper" : "div.tv-stepper", {}, all.length > 0 ? list : null, main);
  el.append(block);

  let busy = false;
  const together2 = (from: Picture, other: () => Picture) => {
    if (busy) return;
    busy = true;
    other().viewport.set(from.viewport.transform);
    busy = false;
  };
  const picture = (place: HTMLElement, label: string, other: () => Picture): Picture =>
    new Picture(place, context, { label, key, follow: false, svgMost: SVG_MOST, moved: from => made && together2(from, other) });
  let made = false;
  const first: Picture = picture(left, "the graph before this step; arrows step", () => second);
  const second: Picture = picture(right, "the graph after this step; arrows step", () => first);
  made = true;

  const boxes = new Map<number, Item>();
  const scene = (nodes: Iterable<number>, frameAt: number, marked: ReadonlySet<number>, change: Item["change"]) => {
    const drawn: Drawn = { recording, at, nodes: [...nodes], src: node => replay.src(node, stage, frameAt), layout };
    return flatScene(drawn, { change: node => (marked.has(node) ? change : "") }, [], boxes);
  };
  const draw = () => {
    slider.max = String(Math.max(steps.length - 1, 0));
    if (all.length === 0) {
      const old = new Set(before);
      const { after } = program.stages[stage]!;
      left.hidden = before.length === 0;
      first.show(scene(before, 0, new Set(), ""));
      second.show(scene(after, 0, before.length === 0 ? new Set() : new Set(after.filter(node => !old.has(node))), "new"));
      return;
    }
    const index = here();
    slider.value = String(Math.max(index, 0));
    slider.setAttribute("aria-valuetext", `step ${frame + 1} of ${all.length}`);
    number.textContent = `step ${frame + 1} of ${all.length}`;
    rows.forEach((row, i) => row.classList.toggle("tv-current", frames.rule[frame] === rules[i]));
    const [gone, fresh] = [new Set(frames.removed[frame]), new Set(frames.added[frame])];
    if (frames.replaced[frame] !== frames.by[frame]) gone.add(frames.replaced[frame]!);
    const earlier = [...replay.alive(stage, frame)];
    const later = [...replay.alive(stage, frame + 1)];
    first.show(scene(earlier, frame, gone, "removed"));
    const put = fresh.size > 0 ? fresh : new Set([frames.by[frame]!]);
    second.show(scene(later, frame + 1, put, fresh.size > 0 ? "new" : ""));
    what.replaceChildren(...describe(context, at, stage, frame, replay));
    const spot = first.scene.items.find(item => item.node === frames.replaced[frame]) ?? second.scene.items.find(item => item.node === frames.by[frame]) ?? second.scene.items.find(item => put.has(item.node ?? -1));
    if (spot) first.reveal(spot), second.reveal(spot);
  };
  const unselect = context.onSelect(({ selection }) => {
    const ids = selection?.kind === "firing" ? selection.id.split(".").map(Number) : [];
    if (ids[0] !== at || ids[1] !== stage || ids[2] === undefined) return;
    frame = ids[2];
    if (!steps.includes(frame) && folded.checked) (folded.checked = false), (steps = all);
    draw();
  });
  const onKey = (event: KeyboardEvent) => {
    if (event.target === slider || !(event.target as HTMLElement).closest("input, select, .tv-picture")) if (key(event)) taken(event);
  };
  block.addEventListener("keydown", onKey);
  if (frame < 0) {
    frame = steps[0] ?? all[0] ?? -1;
    draw();
  }
  return together(unselect, () => first.destroy(), () => second.destroy());
}

const MOST_BORN = 12;

/** A firing that replaces nothing: what it added, for which line of the user's or which forward node. */
function born({ recording }: Context, program: Program, added: readonly number[], of: number, replay: Replay, stage: number, frame: number): HTMLElement {
  const line = program.nodes.lines[added[0]!]?.[0];
  const why = !added.includes(of) ? `for %${of} ${nodeName(program, of)}` : line === undefined ? "for no line that is known" : `for ${selectionName(recording, { kind: "line", id: String(line) })}`;
  const rows = added.slice(0, MOST_BORN).map(node => h("div", {}, h("ins", {}, nodeText(program, node, replay.src(node, stage, frame + 1)))));
  return h("div.tv-diff.tv-born", {}, h("div.tv-faint", {}, why), ...rows, added.length > MOST_BORN ? h("div.tv-faint", {}, `… and ${added.length - MOST_BORN} more`) : null);
}

/** Rule, reason, what became what as a word diff, and where it all came from. */
function describe(context: Context, at: number, stage: number, frame: number, replay: Replay): Node[] {
  const { recording, links } = context;
  const { program } = links.program(at);
  const { frames } = program.stages[stage]!;
  const { name, reason, file, line } = recording.rules;
  const rule = frames.rule[frame]!;
  const [old, now] = [frames.replaced[frame]!, frames.by[frame]!];
  const only = old === now && frames.added[frame]!.length > 0;
  const diff = only ? born(context, program, frames.added[frame]!, old, replay, stage, frame) : h("div.tv-diff", {}, ...wordDiff(nodeText(program, old, replay.src(old, stage, frame)), nodeText(program, now, replay.src(now, stage, frame + 1)))
    .map(({ side, text }) => (side === "both" ? text : h(side === "before" ? "del" : "ins", {}, text))));
  const source = file[rule] ? `${file[rule]}:${line[rule]}` : `${MISSING} source unknown`;
  const [more, less] = [frames.added[frame]!.length, frames.removed[frame]!.length];
  const out: Node[] = [
    h("div.tv-headrow", {}, h("strong.tv-rulename", {}, name[rule] ?? "?"), h("span", {}, reason[rule] || `${MISSING} no reason was recorded`), h("code.tv-faint", { title: "where the rule is written, in the engine" }, source)),
    diff,
    h("div.tv-faint", {}, `+${more} −${less} nodes · ${frames.seconds[frame] === null ? "not timed" : seconds(frames.seconds[frame])}`),
  ];
  const chain = blame(program, now).slice(1);
  const lines = program.nodes.lines[now] ?? [];
  const history = h("div.tv-history", {}, h("span.tv-faint", {}, `%${now} ${nodeName(program, now)} came from `));
  for (const [s, k] of chain) {
    history.append(button(`${name[program.stages[s]!.frames.rule[k]!] ?? "?"} (step ${k + 1})`, () => context.selection.set({ kind: "firing", id: `${at}.${s}.${k}` }), { class: "tv-link" }), h("span.tv-faint", {}, " ‹ "));
  }
  lines.slice(0, 3).forEach(each => history.append(button(selectionName(recording, { kind: "line", id: String(each) }), () => context.selection.set({ kind: "line", id: String(each) }), { class: "tv-link" }), " "));
  if (lines.length === 0) history.append(h("span.tv-faint", {}, `${MISSING} no line of yours is known`));
  out.push(history);
  return out;
}
