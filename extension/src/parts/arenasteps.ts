/** The arena before and after a step of stage plan: calls from left to right, addresses downwards. What is placed stays where it is. */

import { h, s } from "../dom";
import { nodeName } from "../names";
import { bytes } from "../units";
import type { Cleanup, Context } from "../views/view";
import type { Decision } from "../wire";

const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [380, 170, 56, 6, 20];
/** of a box, from which on its name stands in it */
const [NAMED_WIDE, NAMED_HIGH] = [54, 13];

export interface ArenaPictures {
  pair: HTMLElement;
  draw: (step: number) => void;
  destroy: Cleanup;
}

export function arenaPictures(context: Context, at: number, stage: number): ArenaPictures {
  const { program } = context.links.program(at);
  const decisions = program.stages[stage]!.steps.decision.map((d): Decision | undefined => program.decisions[d]);
  const places = decisions.map(d => (d?.kind === "place" ? d.numbers : null));
  const all = Math.max(program.arena_bytes ?? 0, 1);
  const calls = Math.max(program.calls.length, 1);
  const x = (call: number) => LEFT + (call / calls) * (WIDTH - LEFT - 8);
  const y = (offset: number) => TOP + (offset / all) * (HEIGHT - TOP - BOTTOM);

  /** One place: which value, and from which call to which. */
  const box = (step: number, fresh: boolean): SVGGElement => {
    const { offset = 0, bytes: size = 0, first = 0, last = 0 } = places[step]!;
    const node = decisions[step]!.nodes[0] ?? -1;
    const name = node < 0 ? decisions[step]!.subject : `%${node} ${nodeName(program, node)}`;
    const [left, top] = [x(first), y(offset)];
    const [w, high] = [Math.max(x(last + 1) - left, 2), Math.max(y(offset + size) - top, 2)];
    const group = s("g.tv-arenabox", { "data-change": fresh ? "new" : null, "data-id": `${at}.${node}` }, s("rect", { x: left, y: top, width: w, height: high }),
      s("title", {}, `${name}: ${bytes(size)} at ${offset}, from call ${first} to call ${last}`));
    if (w > NAMED_WIDE && high > NAMED_HIGH) group.append(s("text", { x: left + 4, y: top + Math.min(high / 2 + 4, 16) }, `${fresh ? "+ " : ""}${name.slice(0, Math.floor(w / 7) - 2)}`));
    if (node >= 0) group.addEventListener("click", () => context.selection.set({ kind: "node", id: `${at}.${node}` }));
    return group;
  };
  const side = (title: string) => {
    const note = h("span.tv-faint");
    const drawing = s("svg.tv-arena", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "xMidYMin", role: "img" });
    const show = (count: number, step: number) => {
      const shown = places.flatMap((place, i) => (place && i < count ? [i] : []));
      const column = decisions[step]?.kind === "order" ? decisions[step]!.numbers.call! : -1;
      const used = Math.max(0, ...shown.map(i => places[i]!.offset! + places[i]!.bytes!));
      note.textContent = shown.length === 0 ? "nothing is placed yet" : `${shown.length} placed, ${bytes(used)} of ${bytes(all)}`;
      drawing.setAttribute("aria-label", `the arena ${title} this step: ${note.textContent}`);
      drawing.replaceChildren(
        s("rect.tv-arenaground", { x: LEFT, y: TOP, width: x(calls) - LEFT, height: y(all) - TOP }),
        ...(column >= 0 && column < count ? [s("rect.tv-arenacall", { x: x(column), y: TOP, width: Math.max(x(column + 1) - x(column), 2), height: y(all) - TOP })] : []),
        ...shown.map(i => box(i, i === step)),
        s("text.tv-axis", { x: LEFT - 6, y: TOP + 9, "text-anchor": "end" }, "0 B"), s("text.tv-axis", { x: LEFT - 6, y: y(all), "text-anchor": "end" }, bytes(all)),
        s("text.tv-axis", { x: LEFT, y: HEIGHT - 6 }, "call 0"), s("text.tv-axis", { x: x(calls), y: HEIGHT - 6, "text-anchor": "end" }, `call ${calls - 1}`));
    };
    return { element: h("div.tv-side", {}, h("div.tv-panehead", {}, h("span", {}, `arena ${title}`), note), drawing), drawing, show };
  };
  const [left, right] = [side("before"), side("after")];
  const light = () => {
    const lit = context.links.related(context.selection.value);
    for (const { drawing } of [left, right]) {
      drawing.querySelectorAll<SVGGElement>(".tv-arenabox").forEach(each => each.classList.toggle("tv-lit", lit.selection?.kind === "node" && lit.has("node", each.dataset.id!)));
    }
  };
  return {
    pair: h("div.tv-pair", {}, left.element, right.element),
    draw: step => (left.show(step, -1), right.show(step + 1, step), light()),
    destroy: context.onSelect(light),
  };
}
