/** "Compute this activation again instead of keeping it": toggles, and what they would change in peak memory and in time. */

import { button, h, taken } from "../dom";
import { message } from "../mount";
import { bytes, count, MISSING, seconds, some } from "../units";
import { NEEDS_KERNEL, type Context } from "../views/view";
import type { Program, Recomputed, TriedAgain, UnderAnswer } from "../wire";
import { table } from "./head";
import { pinLine } from "./pinline";

export interface Recompute {
  /** The panel below the picture. */
  element: HTMLElement;
  /** The toggle of one buffer; null where it offers none. */
  toggle(slot: number): HTMLElement | null;
}

export function recompute(context: Context, at: number, program: Program): Recompute {
  const { host } = context;
  const offered = program.slots.flatMap((slot, i) => (slot.again ? [i] : []));
  const chosen = new Set<number>(program.recomputed.at(-1)?.slots ?? []);
  const boxes = new Map<number, Set<HTMLInputElement>>();
  const place = h("div.tv-outcome", { role: "status", "aria-live": "polite" });
  let turn = 0;
  const same = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((value, i) => value === b[i]);
  const show = async () => {
    boxes.forEach((all, slot) => all.forEach(box => (box.checked = chosen.has(slot))));
    const slots = [...chosen].sort((a, b) => a - b);
    const mine = ++turn;
    if (slots.length === 0) return place.replaceChildren(h("p.tv-missing", {}, "Tick activations: what peak memory and time would be if they were computed again."));
    const known = program.recomputed.find(each => same(each.slots, slots));
    if (known) return place.replaceChildren(outcome(context, program, known));
    place.replaceChildren(h("p.tv-faint", {}, "asking the kernel: compiling both programs and measuring them in turn. A busy kernel answers after its cell."));
    try {
      const answer = await host.ask<Recomputed>({ what: "recompute", program: at, slots });
      program.recomputed.push(answer);
      if (mine === turn) place.replaceChildren(outcome(context, program, answer));
    } catch (error) {
      if (mine === turn) place.replaceChildren(h("p.tv-problem", { role: "alert" }, message(error)));
    }
  };
  const toggle = (slot: number, words = "compute this activation again instead of keeping it") => {
    const { again, kept, name } = program.slots[slot]!;
    if (!again) return null;
    const recorded = program.recomputed.some(each => each.slots.includes(slot));
    const box = h("input", { type: "checkbox", disabled: kept !== "" || !(host.editable || recorded), "data-again": slot });
    box.addEventListener("change", () => {
      if (!chosen.delete(slot)) chosen.add(slot);
      void show();
    });
    box.checked = chosen.has(slot);
    (boxes.get(slot) ?? boxes.set(slot, new Set()).get(slot)!).add(box);
    return h("label.tv-again", { title: kept || (host.editable ? `${name} is dropped after its last use in the forward pass, and computed again for its gradient` : NEEDS_KERNEL) }, box,
      ` ${words}`, kept ? h("span.tv-faint", {}, ` ${MISSING} ${kept}`) : null);
  };
  const searching = () => {
    const first = Math.round((program.certificate.peak_bytes ?? 0) * 0.75 / 1024);
    const field = h("input.tv-input", { type: "number", min: 1, step: 1, value: first, style: "width:9em", "aria-label": "the most that the peak may be, in KiB" });
    const key = button("search", () => void search(), { title: "Those first that free the most bytes for each FLOP of computing them again; each is compiled, none is run until the end", "data-ask": "recompute_under" });
    const search = async () => {
      const limit = Math.round(Number(field.value) * 1024);
      if (!(limit > 0)) return field.focus();
      turn++;
      key.disabled = true;
      place.replaceChildren(h("p.tv-faint", {}, "searching: one compilation for each step. A busy kernel answers after its cell."));
      try {
        const answer = await host.ask<UnderAnswer>({ what: "recompute_under", program: at, limit }, text => place.replaceChildren(h("p.tv-faint", {}, text)));
        if (answer.measured) program.recomputed.push(answer.measured);
        chosen.clear();
        answer.slots.forEach(slot => chosen.add(slot));
        boxes.forEach((all, slot) => all.forEach(box => (box.checked = chosen.has(slot))));
        place.replaceChildren(found(program, answer), answer.measured ? outcome(context, program, answer.measured) : "");
      } catch (error) {
        place.replaceChildren(h("p.tv-problem", { role: "alert" }, message(error)));
      }
      key.disabled = false;
    };
    field.addEventListener("keydown", event => {
      if (event.key === "Enter") taken(event), void search();
      else event.stopPropagation();
    });
    return h("div.tv-tools", {}, h("label.tv-field", {}, "compute again until the peak is under", field, "KiB"), key);
  };
  const rows = offered.map(slot => h("div.tv-againrow", {}, button(program.slots[slot]!.name, () => context.selection.set({ kind: "slot", id: `${at}.${slot}` }), { class: "tv-link" }),
    h("span", {}, bytes(program.slots[slot]!.nbytes)), toggle(slot, "compute again")!));
  const first = offered.find(slot => !program.slots[slot]!.kept);
  const element = h("div.tv-recompute", {},
    h("div.tv-title", {}, `Computed again instead of kept: ${some(offered.length, "activation")} that the gradient reads`),
    offered.length === 0 ? h("p.tv-missing", {}, `${MISSING} this program stores no activation for its gradient`) : h("div.tv-againlist", { role: "group", "aria-label": "activations that the gradient reads" }, ...rows),
    host.editable && first !== undefined ? searching() : null,
    host.editable || first === undefined ? null : h("div.tv-faint", {}, `– ${NEEDS_KERNEL}. In Python: `, h("code", {}, `rec.recompute("${program.slots[first]!.name}")`), ", or ", h("code", {}, "rec.recompute(under=BYTES)"), " to search for a set of them"),
    offered.length === 0 ? null : place);
  if (offered.length > 0) void show();
  return { element, toggle };
}

function change(value: number, text: (value: number) => string): string {
  return `${value >= 0 ? "+" : "−"}${text(Math.abs(value))}`;
}

/** What the search tried, in its order, and what came of it. */
function found(program: Program, { limit, peak, tried, slots }: UnderAnswer): HTMLElement {
  const reached = peak <= limit;
  const why = reached ? (tried.length === 0 ? "it is under that already: nothing need be computed again" : `${bytes(peak)} with ${slots.length} of the activations computed again`)
    : `out of reach this way; ${bytes(peak)} is the least that was found`;
  const columns = [
    { name: "tried", text: (row: TriedAgain) => program.slots[row.slot]?.name ?? row.subject },
    { name: "bytes per FLOP", text: (row: TriedAgain) => String(Number(row.per_flop.toPrecision(3))), right: true },
    { name: "peak then", text: (row: TriedAgain) => bytes(row.peak), right: true },
    { name: "FLOPs then", text: (row: TriedAgain) => count(row.flops), right: true },
    { name: "", text: (row: TriedAgain) => (row.taken ? "✓ taken" : "✗ not taken") },
    { name: "why", text: (row: TriedAgain) => row.reason },
  ];
  return h("div", {}, h("p", {}, `A peak under ${bytes(limit)}: ${why}.`), tried.length > 0 ? h("div.tv-scroll", { tabindex: 0 }, table(columns, tried)) : null);
}

function outcome(context: Context, program: Program, r: Recomputed): HTMLElement {
  const { before, after, difference } = r;
  const noise = difference.low <= 0 && difference.high >= 0;
  const s = (value: number) => seconds(value);
  const rows: [string, string, string, string, boolean][] = [
    ["peak memory, predicted", bytes(r.peak_before), bytes(r.peak), change(r.peak - r.peak_before, bytes), false],
    ["peak memory, counted", bytes(r.counted_before), bytes(r.counted), r.counted === null ? `${MISSING} counting it would take long` : change(r.counted - (r.counted_before ?? 0), bytes), false],
    ["time, predicted", seconds(r.seconds_predicted_before), seconds(r.seconds_predicted), change(r.seconds_predicted - r.seconds_predicted_before, s), false],
    ["time, measured", seconds(before.seconds), seconds(after.seconds), `${change(difference.seconds, s)}, median of ${difference.runs} pairs of runs; half of them ${change(difference.low, s)} to ${change(difference.high, s)}${noise ? ": inside the noise" : ""}`, noise],
    ["kernels", String(r.kernels_before), String(r.kernels), "", false],
    ["FLOPs", count(r.flops_before), count(r.flops), change(r.flops - r.flops_before, count), false],
    ["largest difference", "", r.ulp === null ? "a NaN on one side" : `${r.ulp} ulp`, r.result ? `of ${r.result}` : "the results are equal, bit by bit", false],
    ...Object.entries(r.refused).map(([name, why]): [string, string, string, string, boolean] => [`${name} stays`, "", "", why, false]),
  ];
  const sheet = table(["", "now", "computed again", "change"].map((name, k) => ({ name, text: (row: (typeof rows)[number]) => row[k] as string, right: k === 1 || k === 2 })), rows);
  [...sheet.tBodies[0]!.rows].forEach((line, i) => line.classList.toggle("tv-insidenoise", rows[i]![4]));
  return h("div.tv-outcome", {}, h("p", {}, "If ", h("strong", {}, r.slots.map(slot => program.slots[slot]!.name).join(", ")), " were computed again:"), h("div.tv-scroll", {}, sheet), ...r.pins.map(pin => pinLine(context, pin)));
}

