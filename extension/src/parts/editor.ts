/** A kernel's schedule as a list that can be edited: each change is tried by the kernel, on copies, and every try stays in a trail. */

import { button, fresh, h, taken } from "../dom";
import { message } from "../mount";
import { MISSING, seconds } from "../units";
import { NEEDS_KERNEL, type Context } from "../views/view";
import type { Code, ScheduleAnswer } from "../wire";
import { pinLine } from "./pinline";
import { strip } from "./strip";

/** one of each form, offered while a line is typed */
const PRIMITIVES = [
  "tile(i, 32)", "split(i, 8)", "phases(i, 2)", "reorder(j, i)", "reorder(k, i, memory=local)", "merge(i, j)", "fission(i, j)", "parallel(i)", "clip(k)",
  "vectorize(j, 16)", "unroll(k)", "unroll(k, 4)", "accumulate(k, 4)", "accumulate(k, 4, memory=local)", "scan(k, 16)", "dot(k)",
  "pack(w, at=jo)", "pack(w, at=jo, axes=(1, 0))", "pack(x, at=jo, of=ji)", "pack(x, at=i, by=(k, j))", "pack(x, at=i, dtype=float32)", "unpack(out, at=mo)", "unpack(out, at=mo, axes=(1, 0))",
  "partial(acc, at=k)", "spill(acc, at=i)", "streaming(out)", "prefetch(x, i, at=j)",
];

export interface Shown {
  schedule: readonly string[];
  scheduled: Code;
  source: Code;
  assembly: Code;
}

export interface Try {
  lines: string[];
  answer: ScheduleAnswer | null; // null: the engine's own
}

export interface Editor {
  element: HTMLElement;
  /** put these lines into the list and try them */
  load(lines: readonly string[]): void;
}

/** `trail` outlives the editor; `show` gets what the panes show now, null: the kernel as it was recorded. */
export function editor(context: Context, program: number, kernel: number, own: readonly string[], trail: Try[], show: (shown: Shown | null) => void): Editor {
  const { host } = context;
  if (trail.length === 0) trail.push({ lines: [...own], answer: null });
  let lines = [...own];
  let turn = 0;
  const list = h("ol.tv-lines", { "aria-label": "primitives of the schedule, in order" });
  const said = h("div.tv-tryanswer", { role: "status", "aria-live": "polite" });
  const past = h("ol.tv-trail", { "aria-label": "trail of attempts" });
  const names = h("datalist", { id: fresh("primitives") }, ...PRIMITIVES.map(value => h("option", { value })));
  const problem = (at: number, text: string) => {
    list.querySelectorAll("input").forEach((input, i) => {
      const row = input.closest("li")!;
      row.querySelector(".tv-problem")?.remove();
      input.toggleAttribute("aria-invalid", i === at);
      if (i === at) row.append(h("p.tv-problem", { role: "alert" }, text));
    });
  };
  const change = (next: string[], focus = -1) => {
    lines = next;
    draw(focus);
    void attempt();
  };
  const draw = (focus = -1) => {
    list.replaceChildren(...lines.map((line, i) => {
      const input = h("input.tv-input", { value: line, list: names.id, spellcheck: "false", "aria-label": `primitive ${i + 1}`, "data-lm-suppress-shortcuts": true });
      input.addEventListener("change", () => {
        lines[i] = input.value;
        if (input.value.trim() !== "") void attempt();
      });
      input.addEventListener("keydown", event => {
        event.stopPropagation();
        if (event.key === "Enter") taken(event), input.blur();
        const by = event.altKey ? { ArrowUp: -1, ArrowDown: 1 }[event.key] : undefined;
        if (by) taken(event), move(i, by);
      });
      const tool = (label: string, title: string, press: () => void, disabled = false) => button(label, press, { title, "aria-label": `${title}: primitive ${i + 1}`, disabled });
      return h("li", {}, h("span.tv-editrow", {}, input, tool("↑", "earlier (Alt+↑)", () => move(i, -1), i === 0), tool("↓", "later (Alt+↓)", () => move(i, 1), i === lines.length - 1), tool("×", "remove", () => change(lines.filter((_, k) => k !== i)))));
    }));
    if (lines.length === 0) list.append(h("li.tv-faint", {}, "no primitive: plain loops"));
    list.querySelectorAll("input")[focus]?.focus();
  };
  const move = (i: number, by: number) => {
    const to = i + by;
    if (to < 0 || to >= lines.length) return;
    const next = [...lines];
    [next[i], next[to]] = [next[to]!, next[i]!];
    change(next, to);
  };
  const attempt = async () => {
    const mine = ++turn;
    const asked = lines.map(line => line.trim()).filter(Boolean);
    said.replaceChildren(h("p.tv-faint", {}, "asking the kernel… A busy kernel answers after its cell."));
    try {
      const answer = await host.ask<ScheduleAnswer>({ what: "schedule", program, kernel, lines: asked });
      if (mine !== turn) return;
      problem(answer.error_line, answer.error);
      trail.push({ lines: asked, answer });
      show(answer.error ? { ...answer, source: nothing(), assembly: nothing() } : answer);
      report(answer);
      history();
    } catch (error) {
      if (mine === turn) said.replaceChildren(h("p.tv-problem", { role: "alert" }, message(error)));
    }
  };
  const report = (answer: ScheduleAnswer) => {
    const { before, after } = answer;
    if (answer.error || !before || !after) return said.replaceChildren(h("p.tv-problem", {}, `line ${answer.error_line + 1} is not legal; the loops beside show what stands before it`));
    const right = answer.wrong
      ? h("p.tv-problem", { role: "alert" }, `✗ wrong: ${answer.wrong}`)
      : h("p", {}, `✓ equal to ${answer.checked}`, answer.error_relative === null ? "" : ` (off by ${answer.error_relative.toPrecision(2)} of the largest value)`);
    const ratio = before.seconds / after.seconds;
    const better = after.high < before.low ? "faster" : after.low > before.high ? "slower" : "no difference beyond the noise";
    said.replaceChildren(
      h("p", {}, h("strong", {}, `${seconds(before.seconds)} → ${seconds(after.seconds)}`), ` · ${ratio >= 1 ? ratio.toPrecision(3) : (1 / ratio).toPrecision(3)} times ${ratio >= 1 ? "as fast" : "as slow"}: ${better} · predicted ${answer.seconds_predicted === null ? MISSING : seconds(answer.seconds_predicted)}`),
      right, strip([["now", before], ["edited", after]]), answer.wrong ? h("span") : pinLine(context, answer.pin));
  };
  const history = () => past.replaceChildren(...trail.map(({ lines: past, answer }, i) => h("li", {},
    button("restore", () => (i === 0 ? reset() : change([...past])), { "aria-label": `restore attempt ${i + 1}` }),
    h("span.tv-trailtime", {}, answer === null ? "engine’s own" : answer.error ? "not legal" : answer.wrong ? "wrong" : seconds(answer.after?.seconds ?? null)),
    h("code", { title: past.join("; ") }, past.join("; ") || "plain loops"))));
  const reset = () => {
    turn++;
    lines = [...own];
    draw();
    said.replaceChildren();
    show(null);
  };
  draw();
  history();
  const adding = h("span.tv-tools", {},
    button("+ add a primitive", () => { lines = [...lines, ""]; draw(lines.length - 1); }),
    button("back to the engine’s own", reset));
  if (!host.editable) {
    return {
      element: h("details.tv-faint.tv-twin", {}, h("summary", {}, `Editing: ${NEEDS_KERNEL}. In Python:`), h("code.tv-pin", { tabindex: 0 }, `lowered.try_schedule(${kernel}, ${JSON.stringify(own)})`)),
      load: () => undefined,
    };
  }
  const element = h("div.tv-editor", {}, names, h("div", {}, h("span.tv-faint", {}, "edit a line and press Enter: it is checked, compiled and measured on copies"), list, adding), h("div", {}, said, h("details.tv-twin", {}, h("summary", {}, "trail of attempts"), past)));
  return { element, load: next => change([...next]) };
}

const nothing = (): Code => ({ language: "", text: [], nodes: [], link: [] });
