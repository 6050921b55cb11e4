/** stages: what did each stage do, rule by rule, firing by firing, and why was it allowed? */

import { button, h, taken } from "../dom";
import { blame, fate } from "../frames";
import { kernelName, lineName, nodeName, subjectName } from "../names";
import { asking } from "../parts/asking";
import { decisionCard } from "../parts/decision";
import { head, table, twin } from "../parts/head";
import { stepper } from "../parts/stepper";
import { textStepper } from "../parts/textstepper";
import { rulesOf, touched } from "../steps";
import { count, MISSING, seconds, some } from "../units";
import type { Bisection, StageRow, StagesData } from "../wire";
import { together, type Cleanup, type Context, type Part } from "./view";

export const stages: Part<StagesData> = (el, data, context) => {
  const body = h("div.tv-stagebody");
  const most = Math.max(...data.rows.map(row => row.seconds ?? 0)) || 1;
  const strip = h("div.tv-strip", { role: "tablist", "aria-label": "stages of the compiler, in order" });
  const cards = data.rows.map((row, i) => {
    const card = h("button.tv-stage", { type: "button", role: "tab", title: row.question }, h("b", {}, row.name), h("span.tv-question", {}, row.question), h("span.tv-stagefacts", {}, did(row)),
      h("span.tv-stagetime", {}, row.seconds === null ? `${MISSING} not timed` : seconds(row.seconds)));
    card.style.setProperty("--part", `${(100 * (row.seconds ?? 0)) / most}%`);
    card.classList.toggle("tv-idle", row.changed === false || (row.changed === null && row.decisions === 0));
    card.addEventListener("click", () => show(i));
    return card;
  });
  strip.append(...cards);
  strip.addEventListener("keydown", event => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by === undefined) return;
    taken(event);
    const next = (current + by + cards.length) % cards.length;
    show(next);
    cards[next]!.focus();
  });
  const told = history(data, context);
  el.append(head(data), strip, ...(data.untimed ? [h("p.tv-faint", {}, `${MISSING} ${data.untimed}`)] : []), bisection(data, context), told.element, body);
  if (data.rows.length === 0) body.append(h("p.tv-missing", {}, `${MISSING} no stage was recorded`));

  let current = -1;
  let undo: Cleanup = () => undefined;
  const show = (at: number) => {
    const row = data.rows[at];
    if (at === current || !row) return;
    current = at;
    undo();
    undo = () => undefined;
    body.replaceChildren();
    cards.forEach((card, i) => {
      card.setAttribute("aria-selected", String(i === at));
      card.tabIndex = i === at ? 0 : -1;
    });
    undo = stage(body, data, row, context);
  };
  const unselect = context.onSelect(({ selection }) => {
    if (selection?.kind !== "firing") return;
    const [program, at] = selection.id.split(".").map(Number);
    if (program === data.program) show(data.rows.findIndex(row => row.stage === at));
  });
  if (current < 0) {
    const fired = data.rows.map((row, i) => [row, i] as const).filter(([row]) => (row.firings ?? 0) > 0);
    show((fired.find(([row]) => row.name === "simplify") ?? fired[0] ?? [null, 0])[1]);
  }
  return together(unselect, told.undo, () => undo());
};

/** Where the selected node came from, back to the user's line, and what became of it. */
function history(data: StagesData, context: Context): { element: HTMLElement; undo: Cleanup } {
  const { recording } = context;
  const { program } = context.links.program(data.program);
  const element = h("div.tv-fate", { role: "status" });
  const link = (stage: number, frame: number) => button(`${recording.rules.name[rulesOf(program.stages[stage]!)[frame]!] ?? "?"} (${program.stages[stage]!.name} step ${frame + 1})`,
    () => context.selection.set({ kind: "firing", id: `${data.program}.${stage}.${frame}` }), { class: "tv-link" });
  const undo = context.onSelect(({ selection }) => {
    if (selection?.kind === "firing") return; // who steps through a node's history keeps it in sight, and nothing below it moves
    const [at, node] = selection?.kind === "node" ? selection.id.split(".").map(Number) : [];
    element.replaceChildren();
    if (at !== data.program || node === undefined || program.nodes.op[node] === undefined) return;
    const back = blame(program, node).map(([stage, frame]) => link(stage, frame));
    const on = fate(program, node).map(([stage, frame]) => link(stage, frame));
    const lines = (program.nodes.lines[node] ?? []).map(line => button(lineName(recording, line), () => context.selection.set({ kind: "line", id: String(line) }), { class: "tv-link" }));
    const end = context.links.program(data.program).became(node);
    const step = (stage: number, k: number) => button(program.stages[stage]!.steps.text[k] || recording.rules.name[rulesOf(program.stages[stage]!)[k]!]!,
      () => context.selection.set({ kind: "firing", id: `${data.program}.${stage}.${k}` }), { class: "tv-link", title: `${program.stages[stage]!.name} step ${k + 1}` });
    const row = (name: string, parts: Node[], none: string) => h("div.tv-cardpart", {}, h("span.tv-faint", {}, name), h("span", {}, ...(parts.length > 0 ? parts.flatMap((part, i) => [i > 0 ? " › " : "", part]) : [none])));
    const later = touched(program, end);
    const after = program.stages.flatMap(({ name }, at) => {
      const own = later.flatMap(([stage, k]) => (stage === at ? [step(stage, k)] : []));
      return own.length > 0 ? [row(name, own, "")] : [];
    });
    const kernels = program.kernels.flatMap((kernel, i) => (kernel.nodes.includes(end) ? [button(kernelName(program, i), () => context.selection.set({ kind: "kernel", id: `${data.program}.${i}` }), { class: "tv-link" })] : []));
    element.append(h("div.tv-card", {}, h("div.tv-cardhead", {}, h("strong", {}, `%${node} ${nodeName(program, node)}`), end === node ? null : h("span", {}, `became %${end} ${nodeName(program, end)}`)),
      row("made by", back, `${MISSING} not known`), row("what became of it", on, "it stayed as it is"), ...after, row("computed in", kernels, "no kernel: nothing of it is left, or it is a view"), row("asked for by", lines, `${MISSING} no line of yours is known`)));
  });
  return { element, undo };
}

/** The first step that changes a value, searched for when asked. */
function bisection(data: StagesData, context: Context): HTMLElement {
  const { program } = context.links.program(data.program);
  const place = h("div.tv-bisection", { role: "status" });
  const show = () => {
    const found = program.bisection;
    const stage = program.stages.findIndex(each => each.name === found?.stage);
    const key = { kind: "firing", id: `${data.program}.${stage}.${found?.firing}` };
    place.replaceChildren(...(found ? [h(found.stage ? "strong.tv-differs" : "span.tv-faint", {}, found.stage ? "✗ " : "✓ ", found.sentence),
      stage >= 0 && found.firing >= 0 ? button("show this step", () => context.selection.set(key), { class: "tv-link" }) : h("span")] : []));
  };
  show();
  return h("div", {}, asking<Bisection>(context, {
    label: "bisect: does any step change a value?", title: "search all stages, with the reference interpreter, for the first step after which a result is another",
    question: { what: "bisect", program: data.program }, python: `rec.bisect(${data.program})`, waiting: "Evaluating the graph between the steps.",
    done: answer => ((program.bisection = answer), show()),
  }), place);
}


function did(row: StageRow): string {
  const parts: string[] = [];
  if (row.nodes_before !== null && row.nodes_after !== null) {
    parts.push(row.nodes_before === row.nodes_after || row.nodes_before === 0 ? some(row.nodes_after, "node") : `${count(row.nodes_before)} → ${some(row.nodes_after, "node")}`);
  }
  if (row.firings !== null) parts.push(some(row.firings, "step"));
  if (row.decisions > 0) parts.push(some(row.decisions, "decision"));
  if (row.changed === false) parts.push("unchanged");
  return parts.join(" · ") || "no rules, no choices";
}

function stage(el: HTMLElement, data: StagesData, row: StageRow, context: Context): Cleanup {
  const { program } = context.links.program(data.program);
  const given = program.stages[row.stage];
  if (!given) throw new Error(`the recording has no stage ${row.stage}`);
  el.append(h("div.tv-headrow", {}, h("span.tv-title", {}, `${row.name}: ${row.question}`),
    given.replayed ? h("span.tv-faint", {}, "steps derived afterwards, by doing the stage again") : null));
  const undo: Cleanup[] = [];
  if (row.name === "record" && row.seconds === null) el.append(h("p.tv-faint", {}, `${MISSING} not timed: outside of a jitted function, operations are recorded between your own lines`));
  const steps = { at: data.program, stage: row.stage, rules: row.rules, counts: row.counts, times: row.times };
  if (given.after.length > 0) undo.push(stepper(el, steps, context));
  else if (given.steps.rule.length > 0) undo.push(textStepper(el, steps, context));
  undo.push(decisions(el, data, row, context));
  if (el.childElementCount === 1) el.append(h("p.tv-missing", {}, `${MISSING} this stage has no graph, and made no decision that was recorded; its output stands in the view “kernel”`));
  return together(...undo);
}

function decisions(el: HTMLElement, data: StagesData, row: StageRow, context: Context): Cleanup {
  const { program } = context.links.program(data.program);
  const ids = program.decisions.flatMap((decision, i) => (decision.stage === row.name ? [i] : []));
  if (ids.length === 0) return () => undefined;
  const columns = [
    { name: "about", text: (i: number) => subjectName(program, program.decisions[i]!) },
    { name: "choice", text: (i: number) => program.decisions[i]!.kind },
    { name: "verdict", text: (i: number) => program.decisions[i]!.verdict },
    { name: "reason", text: (i: number) => program.decisions[i]!.reason },
  ];
  const choose = (i: number) => context.selection.set({ kind: "decision", id: `${data.program}.${i}` });
  if ((program.stages[row.stage]?.after.length ?? 0) > 0 || row.rules.length > 0) {
    el.append(twin(`decisions of ${row.name} (${ids.length})`, columns, () => ids, choose));
    return () => undefined;
  }
  const rows = table(columns, ids, choose);
  const card = h("div.tv-cardplace", { role: "status" });
  el.append(h("div.tv-scroll", {}, rows), card);
  const lines = [...rows.tBodies[0]!.rows];
  return context.onSelect(lit => {
    const own = ids.find(i => lit.is("decision", `${data.program}.${i}`));
    lines.forEach((line, k) => {
      line.classList.toggle("tv-lit", lit.has("decision", `${data.program}.${ids[k]}`));
      line.classList.toggle("tv-sel", ids[k] === own);
    });
    card.replaceChildren(own === undefined ? h("p.tv-missing", {}, "Click a row: the numbers behind it, and what was refused.") : decisionCard(context, program, program.decisions[own]!));
  });
}
