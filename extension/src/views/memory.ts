/** memory: which buffers are alive when, where in the arena do they stand, and who holds the peak? */

import { button, cut, h, s, taken } from "../dom";
import { dtypeName, kernelName, lineName, shapeName } from "../names";
import { bar } from "../parts/controls";
import { colorVariable, head, swatch, table, twin } from "../parts/head";
import { recompute, type Recompute } from "../parts/recompute";
import { bytes, MISSING, percent, some } from "../units";
import type { Buffer, Holder, MemoryData, Program } from "../wire";
import { together, type Cleanup, type Context, type Part } from "./view";

const STEPS = 58;
const ARENA = 250;
const GIVEN = 13;
const ROLES = ["input", "state", "output"];
const WAYS = ["role", "kernel", "line", "module"];

export const memory: Part<MemoryData> = (el, data, context) => {
  const { recording } = context;
  const { program } = context.links.program(data.program);
  const key = (slot: number) => ({ kind: "slot", id: `${data.program}.${slot}` });
  el.append(head(data), figures(data));
  if (data.buffers.length === 0) {
    el.append(h("p.tv-missing", {}, `${MISSING} no memory plan was recorded`));
    return () => undefined;
  }
  const card = h("div.tv-cardplace.tv-short", { role: "status" });
  const drawn = picture(el, data, program, context, slot => context.selection.set(key(slot)));
  const again = recompute(context, data.program, program);
  el.append(card, holders(data, context), again.element);
  el.append(twin(`buffers (${data.buffers.length})`, [
    { name: "role", text: b => program.slots[b.slot]!.role },
    { name: "buffer", text: b => program.slots[b.slot]!.name },
    { name: "type", text: b => typeName(program, b) },
    { name: "bytes", text: b => bytes(program.slots[b.slot]!.nbytes), right: true },
    { name: "offset", text: b => String(program.slots[b.slot]!.offset ?? MISSING), right: true },
    { name: "calls", text: b => callsName(program, b), right: true },
    { name: "alive at the peak", text: b => (b.at_peak ? "yes" : "") },
    { name: "made by", text: b => makerName(program, b) },
    { name: "line", text: b => (b.line < 0 ? MISSING : lineName(recording, b.line)) },
    { name: "module", text: b => b.module || MISSING },
  ], () => data.buffers, b => context.selection.set(key(b.slot))));
  el.append(twin("alive at each call", [
    { name: "call", text: call => String(call), right: true },
    { name: "kernel", text: call => kernelName(program, program.calls[call]!.kernel) },
    { name: "alive in the arena", text: call => bytes(data.live[call]) + (call === data.peak_call ? " ◄ peak" : ""), right: true },
  ], () => data.live.map((_, call) => call), call => context.selection.set({ kind: "call", id: `${data.program}.${call}` })));
  const light = context.onSelect(lit => {
    const own = lit.selection?.kind === "slot" ? data.buffers.find(b => lit.is("slot", `${data.program}.${b.slot}`)) : undefined;
    const related = data.buffers.filter(b => lit.has("slot", `${data.program}.${b.slot}`));
    if (own) card.replaceChildren(about(context, program, own, again));
    else if (related.length > 0) card.replaceChildren(h("p.tv-missing", {}, `${related.length} of the buffers belong to what is selected: ${cut(related.map(b => program.slots[b.slot]!.name).join(", "), 200)}`));
    else card.replaceChildren(h("p.tv-missing", {}, lit.selection ? "No buffer belongs to what is selected." : "Select a buffer: what it holds, who makes it, and when."));
  });
  return together(light, drawn);
};

function figures(data: MemoryData): HTMLElement {
  const { arena_bytes: arena, arena_live: live } = data;
  const all: [string, number | null][] = [
    ["peak, predicted", data.peak_bytes], ["peak, counted", data.peak_measured], ["given", data.given_bytes], ["arena", arena],
    ["of it alive at the peak", live], ["of it gaps at the peak", arena === null || live === null ? null : arena - live],
  ];
  return h("dl.tv-figures", {}, ...all.map(([name, value]) => h("div", {}, h("dt.tv-figurename", {}, name), h("dd.tv-figurevalue", {}, bytes(value)))));
}

function typeName(program: Program, b: Buffer): string {
  const { dtype, shape } = program.slots[b.slot]!;
  return `${dtypeName(dtype)} ${shapeName(shape)}`;
}

function callsName(program: Program, b: Buffer): string {
  const { first, last } = program.slots[b.slot]!;
  return first < 0 ? MISSING : first === last ? String(first) : `${first}–${last}`;
}

/** "state …qkv.weight": the end of a long name tells it apart. */
function givenName(program: Program, b: Buffer, width: number): string {
  const { role, name } = program.slots[b.slot]!;
  const room = width - role.length - 1;
  return `${role} ${name.length <= room ? name : `…${name.slice(1 - room)}`}`;
}

function makerName(program: Program, b: Buffer): string {
  return b.kernel >= 0 ? kernelName(program, b.kernel) : "given";
}

function about(context: Context, program: Program, b: Buffer, again: Recompute): HTMLElement {
  const slot = program.slots[b.slot]!;
  const row = (name: string, ...what: (Node | string)[]) => h("div.tv-cardpart", {}, h("span.tv-faint", {}, name), h("span", {}, ...what));
  const link = (text: string, kind: string, id: string) => button(text, () => context.selection.set({ kind, id }), { class: "tv-link" });
  const at = context.selection.value!.id.split(".")[0]!;
  const place = slot.offset === null ? slot.role : `arena, bytes ${slot.offset} to ${slot.offset + slot.nbytes}`;
  const made = b.kernel >= 0 ? link(kernelName(program, b.kernel), "kernel", `${at}.${b.kernel}`) : "given by the caller";
  const line = b.line >= 0 ? link(lineName(context.recording, b.line), "line", String(b.line)) : MISSING;
  return h("div.tv-card", {},
    h("div.tv-cardhead", {}, swatch(context.category(b.category)), h("strong", {}, slot.name), h("code", {}, typeName(program, b)), h("span", {}, bytes(slot.nbytes)), b.at_peak ? h("span.tv-chip", {}, "alive at the peak") : null),
    row("where", place), row("calls", callsName(program, b)), row("made by", made),
    row("line", line, b.line >= 0 ? h("code", {}, `  ${context.recording.lines.text[b.line] ?? ""}`) : "", b.module ? `  in ${b.module}` : ""), again.toggle(b.slot));
}

/** Who holds the peak, in one of four ways. */
function holders(data: MemoryData, context: Context): HTMLElement {
  const place = h("div.tv-scroll");
  const buttons = WAYS.map(by => button(by, () => show(by)));
  const choose = ({ by, id }: Holder) => {
    if (id >= 0 && by === "kernel") context.selection.set({ kind: "kernel", id: `${data.program}.${id}` });
    else if (id >= 0 && by === "line") context.selection.set({ kind: "line", id: String(id) });
  };
  const show = (by: string) => {
    buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(WAYS[i] === by)));
    const rows = data.holders.filter(holder => holder.by === by);
    const code = ({ by, id }: Holder) => (by === "line" && id >= 0 ? (context.recording.lines.text[id] ?? "").trim() : "");
    const made = table([
      { name: by, text: row => row.name },
      { name: "buffers", text: row => String(row.buffers), right: true },
      { name: "bytes", text: row => bytes(row.nbytes), right: true },
      { name: "share", text: () => "" },
    ], rows, rows.some(row => row.id >= 0) ? choose : undefined);
    const most = Math.max(...rows.map(row => row.share ?? 0)) || 1;
    made.querySelectorAll("tbody tr").forEach((line, i) => line.lastElementChild!.append(bar((rows[i]!.share ?? 0) / most, percent(rows[i]!.share))));
    if (by === "line") [...made.tBodies[0]!.rows].forEach((line, i) => line.cells[0]!.replaceChildren(h("div.tv-lineof", {}, h("span", {}, rows[i]!.name), h("code", {}, code(rows[i]!)))));
    place.replaceChildren(made);
  };
  show("line");
  return h("div.tv-ledger", {}, h("div.tv-tools", {}, h("div.tv-title", {}, "Alive at the peak, by"), ...buttons), place);
}

/** The picture: bytes alive above, the arena in the middle, given memory below. Comma and period step through the buffers. */
function picture(el: HTMLElement, data: MemoryData, program: Program, context: Context, choose: (slot: number) => void): Cleanup {
  const drawing = s("svg.tv-track.tv-memorymap", { "aria-hidden": true });
  const keys = "comma and period, or the arrows, go to the buffer before and after";
  const frame = h("div.tv-lanes.tv-memoryframe", { tabindex: 0, role: "application", "aria-label": `buffers over the calls of the program: ${keys}` }, drawing);
  el.append(h("div.tv-faint", {}, `${some(data.live.length, "call")}, ${some(data.buffers.length, "buffer")} · , . previous, next buffer · click a buffer or, in the steps, a call`), frame);
  const marks = new Map<SVGElement, Buffer>();
  const columns = new Map<SVGElement, number>();
  const calls = Math.max(program.calls.length, 1);
  const arena = data.arena_bytes || 1;
  const given = data.buffers.filter(b => program.slots[b.slot]!.offset === null)
    .sort((a, b) => ROLES.indexOf(program.slots[a.slot]!.role) - ROLES.indexOf(program.slots[b.slot]!.role) || a.slot - b.slot);
  const inArena = data.buffers.filter(b => program.slots[b.slot]!.offset !== null && program.slots[b.slot]!.first >= 0);
  const order = [...inArena].sort((a, b) => program.slots[a.slot]!.first - program.slots[b.slot]!.first).concat(given);
  let width = 0;
  const draw = () => {
    const LEFT = width > 900 ? 190 : 104;
    const step = Math.max(width - LEFT - 8, 10) / calls;
    const x = (call: number) => LEFT + step * call;
    const top = 18;
    const floor = top + STEPS;
    const ground = floor + 8 + (inArena.length > 0 ? ARENA : 0);
    const first = ground + 44;
    const height = first + GIVEN * given.length + 6;
    const parts: SVGElement[] = [];
    marks.clear();
    columns.clear();
    const box = (b: Buffer, y: number, tall: number, hollow: boolean) => {
      const slot = program.slots[b.slot]!;
      const [from, to] = slot.first < 0 ? [x(0), x(0) + 4] : [x(slot.first), x(slot.last + 1)];
      const mark = s(hollow ? "g.tv-launch.tv-givenbox" : "g.tv-launch", { "data-slot": b.slot }, s("title", {}, `${slot.name}: ${typeName(program, b)}, ${bytes(slot.nbytes)}, ${slot.role}, calls ${callsName(program, b)}`));
      mark.style.setProperty("--c", `var(${colorVariable(b.category)})`);
      mark.append(s("rect", { x: from + 0.5, y: y + 0.5, width: Math.max(to - from - 1, 1), height: Math.max(tall - 1, 1), rx: 2 }));
      const text = `${context.category(b.category).mark} ${slot.name} ${bytes(slot.nbytes)}`;
      if (!hollow && tall > 13 && to - from > 26) mark.append(s("text", { x: from + 5, y: y + Math.min(tall / 2 + 4, 15) }, cut(text, Math.floor((to - from - 8) / 6.6))));
      marks.set(mark, b);
      parts.push(mark);
    };
    parts.push(s("text.tv-lanename", { x: 6, y: top + 12 }, "alive"), s("text.tv-ticktext.tv-left", { x: 6, y: top + 27 }, bytes(data.arena_live)));
    let way = `M${LEFT} ${floor}`;
    data.live.forEach((live, call) => (way += `V${floor - (STEPS * live) / arena}H${x(call + 1)}`));
    parts.push(s("path.tv-alive", { d: `${way}V${floor}Z` }));
    if (inArena.length > 0) {
      parts.push(s("rect.tv-lanebody", { x: LEFT, y: floor + 8, width: x(calls) - LEFT, height: ARENA }));
      parts.push(s("text.tv-lanename", { x: 6, y: floor + 22 }, "arena"), s("text.tv-ticktext.tv-left", { x: 6, y: floor + 37 }, bytes(data.arena_bytes)));
      parts.push(s("text.tv-ticktext.tv-left", { x: 6, y: ground - 3 }, "address 0"));
      for (const b of inArena) {
        const slot = program.slots[b.slot]!;
        const tall = Math.max((ARENA * slot.nbytes) / arena, 1.5);
        box(b, ground - (ARENA * slot.offset!) / arena - tall, tall, false);
      }
    } else parts.push(s("text.tv-lanename", { x: LEFT, y: floor - 8 }, "no temporaries: nothing is in the arena"));
    const every = Math.max(1, Math.ceil(30 / step));
    for (let call = 0; call < program.calls.length; call += every) parts.push(s("text.tv-ticktext", { x: x(call + 0.5), y: ground + 14 }, String(call)));
    parts.push(s("text.tv-lanename", { x: 6, y: ground + 14 }, "call"));
    if (given.length > 0) parts.push(s("text.tv-lanename", { x: 6, y: first - 6 }, "given"), s("text.tv-ticktext.tv-left", { x: LEFT, y: first - 6 }, cut("stays for the whole run: each bar reaches from its first use to its last", Math.floor((width - LEFT) / 6))));
    given.forEach((b, i) => {
      parts.push(s("text.tv-ticktext.tv-left", { x: 6, y: first + GIVEN * i + 10 }, givenName(program, b, Math.floor((LEFT - 10) / 6.2))));
      box(b, first + GIVEN * i, GIVEN - 2, true);
    });
    if (data.peak_call >= 0 && inArena.length > 0) {
      const middle = x(data.peak_call + 0.5);
      parts.push(s("line.tv-peak", { x1: middle, x2: middle, y1: top, y2: ground }), s("text.tv-lanename.tv-middle", { x: Math.min(Math.max(middle, LEFT + 24), width - 34), y: 13 }, "▼ peak"));
    }
    for (let call = 0; call < program.calls.length; call++) {
      const column = s("rect.tv-callcolumn", { x: x(call), y: top, width: Math.max(step, 1), height: floor - top }, s("title", {}, `call ${call}: ${kernelName(program, program.calls[call]!.kernel)}, ${bytes(data.live[call])} alive`));
      columns.set(column, call);
      parts.push(column);
    }
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", String(height));
    drawing.replaceChildren(...parts);
    light();
  };
  let pinned = context.links.related(context.selection.value);
  const id = (n: number) => `${data.program}.${n}`;
  const light = (hover = context.links.related(context.hover.value)) => {
    let some = false;
    for (const [mark, b] of marks) {
      mark.classList.toggle("tv-lit", pinned.has("slot", id(b.slot)));
      mark.classList.toggle("tv-sel", pinned.is("slot", id(b.slot)));
      mark.classList.toggle("tv-hover", hover.has("slot", id(b.slot)));
      some ||= pinned.has("slot", id(b.slot));
    }
    for (const [column, call] of columns) {
      column.classList.toggle("tv-lit", pinned.has("call", id(call)));
      column.classList.toggle("tv-hover", hover.has("call", id(call)));
    }
    drawing.classList.toggle("tv-some", some);
  };
  const under = (event: Event) => {
    const target = event.target as Element;
    const mark = target.closest<SVGElement>(".tv-launch");
    const call = columns.get(target as SVGElement);
    if (mark) return { kind: "slot", id: id(marks.get(mark)!.slot) };
    return call === undefined ? null : { kind: "call", id: id(call) };
  };
  frame.addEventListener("click", event => context.selection.set(under(event)));
  frame.addEventListener("pointermove", event => context.hover.set(under(event)));
  frame.addEventListener("pointerleave", () => context.hover.set(null));
  frame.addEventListener("keydown", event => {
    const by = { ",": -1, ".": 1, ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    taken(event);
    const at = order.findIndex(b => pinned.is("slot", id(b.slot)));
    const next = order[at < 0 ? (by > 0 ? 0 : order.length - 1) : Math.min(Math.max(at + by, 0), order.length - 1)];
    if (!next) return;
    choose(next.slot);
    context.say(`${program.slots[next.slot]!.name}, ${bytes(program.slots[next.slot]!.nbytes)}, calls ${callsName(program, next)}`);
    for (const [mark, b] of marks) if (b === next) mark.scrollIntoView({ block: "nearest" });
  });
  const resize = new ResizeObserver(() => {
    if (frame.clientWidth > 0 && frame.clientWidth !== width) (width = frame.clientWidth), draw();
  });
  resize.observe(frame);
  const undo = [context.onSelect(lit => ((pinned = lit), light())), context.onHover(light)];
  return together(() => resize.disconnect(), ...undo);
}
