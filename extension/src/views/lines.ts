/** lines: what does each line of the user's code cost, forward, backward and optimizer apart? */

import { h } from "../dom";
import { kernelName, lineName } from "../names";
import { choosable, colorVariable, head, swatch, twin } from "../parts/head";
import { bytes, count, MISSING, percent, seconds } from "../units";
import { PHASES, type LineRow, type LinesData } from "../wire";
import { together, type Context, type Part } from "./view";

/** kernels of a line that stand in its row; the table below has all */
const FEW = 3;

export const lines: Part<LinesData> = (el, data, context) => {
  const { recording } = context;
  const { program } = context.links.program(data.program);
  const word = data.measured ? "measured" : "predicted";
  const most = Math.max(...data.rows.map(row => row.share ?? 0)) || 1;
  const headings: [name: string, kind: string][] = [["line", ""], [`time, ${word}`, ""], ["share", "right"], ...PHASES.map((phase): [string, string] => [phase, "phase"]), ["bytes", "right"], ["FLOPs", "right"], ["kernels", ""]];
  const body = h("tbody");
  const rows = data.rows.map(row => {
    const time = data.measured ? row.seconds : row.seconds_predicted;
    const name = lineName(recording, row.line);
    const line = h("tr", { "data-id": row.line },
      h("td.tv-linecell", {}, h("div", {}, h("span.tv-faint", {}, name), h("code", { title: recording.lines.text[row.line] ?? null }, row.line < 0 ? "outside of kernels, or of no known line" : (recording.lines.text[row.line] ?? "").trim()))),
      h("td", {}, h("div.tv-timecell", {}, stack(context, row, time, most), h("span", {}, seconds(time))), phases(context, row)), h("td.tv-right", {}, percent(row.share)),
      ...PHASES.map(phase => h("td.tv-right.tv-phase", {}, seconds(row.by_phase[phase]))),
      h("td.tv-right", {}, bytes(row.bytes_read === null || row.bytes_written === null ? null : row.bytes_read + row.bytes_written)), h("td.tv-right", {}, count(row.flops)),
      h("td.tv-few", {}, row.kernels.length === 0 ? MISSING : `${row.kernels.slice(0, FEW).map(kernel => `k${kernel}`).join(" ")}${row.kernels.length > FEW ? ` +${row.kernels.length - FEW}` : ""}`));
    line.lastElementChild!.setAttribute("title", row.kernels.map(kernel => kernelName(program, kernel)).join("\n"));
    const choose = () => context.selection.set(row.line < 0 ? null : { kind: "line", id: String(row.line) });
    choosable(line, choose);
    line.addEventListener("pointerenter", () => context.hover.set(row.line < 0 ? null : { kind: "line", id: String(row.line) }));
    body.append(line);
    return line;
  });
  const all = data.total_seconds === null ? "nothing was measured: shares are of the predicted time" : `a typical run (mean of the middle half of the runs): ${seconds(data.total_seconds)}; the rows together are 100 %`;
  const marks = (name: string) => ((PHASES as readonly string[]).includes(name) ? h("span.tv-key", {}, swatch(context.category(name)), name) : name);
  el.append(head(data), h("div.tv-faint", {}, all));
  if (data.rows.length === 0) el.append(h("p.tv-missing", {}, `${MISSING} no kernel was recorded, so no line has a cost`));
  const heading = ([name, kind]: [string, string]) => h(kind === "phase" ? "th.tv-right.tv-phase" : kind ? "th.tv-right" : "th", { scope: "col" }, marks(name));
  const table = h("table.tv-table.tv-linestable", {}, h("thead", {}, h("tr", {}, ...headings.map(heading))), body);
  table.addEventListener("pointerleave", () => context.hover.set(null));
  el.append(h("div.tv-scroll.tv-tall", {}, table));
  el.append(twin("kernels of each line", [
    { name: "line", text: row => lineName(recording, row.line) },
    { name: "kernels", text: row => row.kernels.map(kernel => kernelName(program, kernel)).join(", ") },
  ], () => data.rows));
  return together(context.onSelect(lit => rows.forEach((line, i) => {
    line.classList.toggle("tv-lit", lit.has("line", String(data.rows[i]!.line)));
    line.classList.toggle("tv-sel", lit.is("line", String(data.rows[i]!.line)));
  })), context.onHover(lit => rows.forEach((line, i) => line.classList.toggle("tv-hover", lit.has("line", String(data.rows[i]!.line))))));
};

/** The time of each phase in words, where the table is too narrow for a column of each. */
function phases(context: Context, row: LineRow): HTMLElement {
  const known = PHASES.filter(phase => row.by_phase[phase]);
  return h("div.tv-phases", {}, ...known.map(phase => h("span.tv-key", {}, swatch(context.category(phase)), seconds(row.by_phase[phase]))));
}

/** A line's time as one bar, phases beside each other; what is left is the host's. */
export function stack(context: Context, row: LineRow, time: number | null, most: number): HTMLElement {
  const made = h("span.tv-stack", { "aria-hidden": true });
  if (!time || row.share === null) return made;
  const parts = PHASES.map(phase => [phase as string, row.by_phase[phase] ?? 0] as const);
  const rest = time - parts.reduce((sum, [, value]) => sum + value, 0);
  for (const [name, value] of [...parts, ["host", rest > time * 1e-3 ? rest : 0] as const]) {
    if (value <= 0) continue;
    const part = h("span", { title: `${name} ${seconds(value)}` }, value / time > 0.25 && row.share / most > 0.3 ? context.category(name).mark : "");
    part.style.setProperty("--c", `var(${colorVariable(name)})`);
    part.style.width = `${((100 * row.share) / most) * (value / time)}%`;
    made.append(part);
  }
  return made;
}
