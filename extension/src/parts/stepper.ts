/** Steps through the rule firings of one stage: before and after side by side, what changed marked, nothing else moves. */

import { button, h } from "../dom";
import { blame, changes, Replay, wordDiff } from "../frames";
import { nodeName, nodeText, selectionName } from "../names";
import { MISSING, seconds } from "../units";
import { together, type Cleanup, type Context } from "../views/view";
import type { Program } from "../wire";
import { tokens } from "./code";
import { flatScene, type Drawn } from "./graphscene";
import { Picture } from "./picture";
import type { Item } from "./scene";
import { walker, type Steps } from "./steps";

/** boxes above which a step would take longer than the eye waits, if each were an element */
const SVG_MOST = 180;

export function stepper(el: HTMLElement, steps: Steps, context: Context): Cleanup {
  const { at, stage } = steps;
  const { recording, links } = context;
  const { program } = links.program(at);
  const { frames, before } = program.stages[stage]!;
  const layout = program.layouts.stages ?? program.layouts.recorded;
  if (!layout) throw new Error("the recording has no layout for stepping");
  const replay = new Replay(program);

  const what = h("div.tv-step.tv-rewrite", { role: "status", "aria-live": "polite" });
  const fired = frames.rule.length > 0;
  const walk = walker(steps, context, { of: frames.rule, effective: k => changes(program, stage, k), draw: frame => draw(frame) });
  const { pair, left, first, second, destroy } = twoPictures(context, "the graph", fired ? walk.key : () => false);
  const main = h("div.tv-kernelbody", {}, fired ? walk.controls : null, what, pair);
  const block = h(fired ? "div.tv-split.tv-stepper" : "div.tv-stepper", {}, fired ? walk.list : null, main);
  el.append(block);

  const boxes = new Map<number, Item>();
  const scene = (nodes: Iterable<number>, frameAt: number, marked: ReadonlySet<number>, change: Item["change"]) => {
    const drawn: Drawn = { recording, at, nodes: [...nodes], src: node => replay.src(node, stage, frameAt), layout };
    return flatScene(drawn, { change: node => (marked.has(node) ? change : "") }, [], boxes);
  };
  const draw = (frame: number) => {
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
  if (!fired) {
    const old = new Set(before);
    const { after } = program.stages[stage]!;
    left.hidden = before.length === 0;
    first.show(scene(before, 0, new Set(), ""));
    second.show(scene(after, 0, before.length === 0 ? new Set() : new Set(after.filter(node => !old.has(node))), "new"));
  }
  return together(walk.start(block), destroy);
}

/** Two pictures of the same places, side by side: what is panned in one is panned in the other. */
export function twoPictures(context: Context, of: string, key: (event: KeyboardEvent) => boolean): { pair: HTMLElement; left: HTMLElement; first: Picture; second: Picture; destroy: Cleanup } {
  const left = h("div.tv-side", {}, h("div.tv-panehead", {}, "before"));
  const right = h("div.tv-side", {}, h("div.tv-panehead", {}, "after"));
  let [busy, made] = [false, false];
  const moved = (from: Picture, other: () => Picture) => {
    if (busy || !made) return;
    busy = true;
    other().viewport.set(from.viewport.transform);
    busy = false;
  };
  const picture = (place: HTMLElement, when: string, other: () => Picture): Picture =>
    new Picture(place, context, { label: `${of} ${when} this step; arrows step`, key, follow: false, svgMost: SVG_MOST, moved: from => moved(from, other) });
  const first: Picture = picture(left, "before", () => second);
  const second: Picture = picture(right, "after", () => first);
  made = true;
  return { pair: h("div.tv-pair", {}, left, right), left, first, second, destroy: () => (first.destroy(), second.destroy()) };
}

const MOST_BORN = 12;

/** A firing that replaces nothing: what it added, for which line of the user's or which forward node. */
function born({ recording }: Context, program: Program, added: readonly number[], of: number, replay: Replay, stage: number, frame: number): HTMLElement {
  const line = program.nodes.lines[added[0]!]?.[0];
  const why = !added.includes(of) ? `for %${of} ${nodeName(program, of)}` : line === undefined ? "for no line that is known" : `for ${selectionName(recording, { kind: "line", id: String(line) })}`;
  const rows = added.slice(0, MOST_BORN).map(node => h("div", {}, h("ins", {}, nodeText(program, node, replay.src(node, stage, frame + 1)))));
  return h("div.tv-diff.tv-born", {}, h("div.tv-faint", {}, why), ...rows, added.length > MOST_BORN ? h("div.tv-faint", {}, `… and ${added.length - MOST_BORN} more`) : null);
}

/** A rule's name, why it is allowed, and where it is written. */
export function ruleRow({ recording }: Context, rule: number): HTMLElement {
  const { name, reason, file, line } = recording.rules;
  const source = file[rule] ? `${file[rule]}:${line[rule]}` : "";
  return h("div.tv-headrow", {}, h("strong.tv-rulename", {}, name[rule] ?? "?"), h("span", {}, reason[rule] || `${MISSING} no reason was recorded`), sourceLink(source, recording.sources?.[source] ?? ""));
}

/** Where a rule is written, in the engine; its text on demand. */
function sourceLink(place: string, text: string): HTMLElement {
  if (!text) return h("code.tv-faint", { title: "where the rule is written, in the engine" }, place || `${MISSING} source unknown`);
  const code = h("pre.tv-rulesource", {}, ...tokens(text, "python"));
  return h("details.tv-rulecode", {}, h("summary.tv-link", { title: "show how it is written, in the engine" }, place), code);
}

/** Rule, reason, what became what as a word diff, and where it all came from. */
function describe(context: Context, at: number, stage: number, frame: number, replay: Replay): Node[] {
  const { recording, links } = context;
  const { program } = links.program(at);
  const { frames } = program.stages[stage]!;
  const { name } = recording.rules;
  const rule = frames.rule[frame]!;
  const [old, now] = [frames.replaced[frame]!, frames.by[frame]!];
  const only = old === now && frames.added[frame]!.length > 0;
  const diff = only ? born(context, program, frames.added[frame]!, old, replay, stage, frame) : h("div.tv-diff", {}, ...wordDiff(nodeText(program, old, replay.src(old, stage, frame)), nodeText(program, now, replay.src(now, stage, frame + 1)))
    .map(({ side, text }) => (side === "both" ? text : h(side === "before" ? "del" : "ins", {}, text))));
  const [more, less] = [frames.added[frame]!.length, frames.removed[frame]!.length];
  const out: Node[] = [
    ruleRow(context, rule),
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
