/** addresses: which elements of memory does each element of a result read, and is that known before anything runs? */

import { h, taken } from "../dom";
import { kernelName } from "../names";
import { selectField } from "../parts/controls";
import { head, table, twin, type Column } from "../parts/head";
import { iterationSpace } from "../parts/space";
import { count, MISSING, percent } from "../units";
import type { AccessRow, AddressesData, Kernel, Space } from "../wire";
import type { Part } from "./view";

export const addresses: Part<AddressesData> = (el, data, context) => {
  const { program } = context.links.program(data.program);
  el.append(head(data));
  if (data.rows.length === 0) {
    el.append(h("p.tv-missing", {}, `${MISSING} no accesses were recorded`), sheet());
    return () => undefined;
  }
  const total = data.static + data.dynamic;
  el.append(h("p.tv-verdict", {}, data.dynamic === 0 ? h("span", {}, h("strong", {}, "All static: "), `the addresses of all ${count(total)} accesses are known before anything runs.`)
    : h("span", {}, h("strong", {}, `${count(data.dynamic)} of ${count(total)} accesses (${data.dynamic / total < 0.0005 ? "less than 0.1 %" : percent(data.dynamic / total)}) depend on data; `), "the others are known before anything runs.")));
  const kernels = [...new Set(data.rows.map(row => row.kernel))];
  const names = [...new Set(program.traces.map(trace => trace.name))];
  const place = h("div.tv-addressesbody");
  let kernel = kernels.includes(data.kernel) ? data.kernel : kernels[0]!;
  let laid = names.length > 0;
  const picker = selectField("kernel", kernels.map(i => [String(i), kernelName(program, i)] as const), String(kernel), value => context.selection.set({ kind: "kernel", id: `${data.program}.${value}` }));
  const box = h("input", { type: "checkbox", checked: laid });
  box.addEventListener("change", () => ((laid = box.checked), show()));
  const marks = names.map((name, i) => `${i === 0 ? "●" : "◆"} ${name || "the run"}`).join(", ");
  el.append(h("div.tv-tools", {}, picker, names.length > 0 ? h("label.tv-field", {}, box, `lay the trace over it: ${marks}`) : null), place);

  const show = () => {
    picker.querySelector("select")!.value = String(kernel);
    const { space, loops } = program.kernels[kernel]!;
    const rows = data.rows.filter(row => row.kernel === kernel);
    const traces = laid ? program.traces.filter(trace => trace.kernel === kernel) : [];
    place.replaceChildren(space ? iterationSpace(space, loops.text, traces, middle(space)) : h("p.tv-missing", {}, `${MISSING} its accesses were not recorded`),
      h("div.tv-scroll", { tabindex: 0 }, table(columns(program.kernels), rows)));
  };
  const unselect = context.onSelect(({ selection }) => {
    const [at, of = -1] = (selection?.id ?? "").split(".").map(Number);
    if (selection && ["kernel", "loop", "source", "assembly"].includes(selection.kind) && at === data.program && kernels.includes(of) && of !== kernel) (kernel = of), show();
  });
  show();
  const keys = (event: KeyboardEvent) => {
    const by = { n: 1, p: -1 }[event.key];
    if (by === undefined || (event.target as HTMLElement).closest("input, select")) return;
    taken(event);
    kernel = kernels[(kernels.indexOf(kernel) + by + kernels.length) % kernels.length]!;
    show();
  };
  el.addEventListener("keydown", keys);
  el.append(sheet());
  return () => (unselect(), el.removeEventListener("keydown", keys));

  function sheet(): HTMLElement {
    return twin("all accesses", [{ name: "kernel", text: (row: AccessRow) => kernelName(program, row.kernel) }, ...columns(program.kernels)], () => data.rows);
  }
};

/** The middle of the loops around the last write; loops that combine run through. As tinyviz/access.py. */
function middle({ loops, accesses, operands }: Space): Map<number, number> {
  const write = accesses.findLast(access => access.write && !operands[access.operand]?.local);
  return new Map((write?.loops ?? []).filter(i => !loops[i]!.reduce).map(i => {
    const { start, stop, step } = loops[i]!;
    return [i, start + step * Math.floor(Math.max(Math.ceil((stop - start) / step), 0) / 2)];
  }));
}

function columns(kernels: readonly Kernel[]): Column<AccessRow>[] {
  const of = (row: AccessRow) => {
    const space = kernels[row.kernel]?.space;
    const access = space?.accesses[row.access];
    return access ? { ...access, buffer: space!.operands[access.operand]! } : null;
  };
  return [
    { name: "access", text: row => `${of(row)?.write ? "write" : "read"} ${of(row)?.buffer.name ?? "?"}[${of(row)?.buffer.shape.join(", ") ?? ""}]` },
    { name: "verdict", text: row => row.verdict },
    { name: "times", text: row => count(row.executions), right: true },
    { name: "index", text: row => of(row)?.index.map(infix).join(", ") ?? "" },
    { name: "only where", text: row => infix(of(row)?.mask ?? "") },
    { name: "in the middle iteration", text: row => row.example, aside: "narrow" },
    { name: "traced", text: row => row.traced, aside: "narrow" },
  ];
}

const SIGNS: Record<string, string> = { "-": "−", "*": "·", "&": "and", "|": "or" };

/** Postfix arithmetic as people write it. */
export function infix(postfix: string): string {
  const stack: string[] = [];
  const inner = (text: string) => (/^[\w?.]+$/.test(text) ? text : `(${text})`);
  for (const token of postfix.split(" ")) {
    if (["+", "-", "*", "//", "%", "<", "=", "&", "|"].includes(token)) {
      const [b, a] = [stack.pop() ?? "?", stack.pop() ?? "?"];
      stack.push(`${token === "+" ? a : inner(a)} ${SIGNS[token] ?? token} ${token === "+" ? b : inner(b)}`);
    } else if (token === "max" || token === "min") {
      const [b, a] = [stack.pop() ?? "?", stack.pop() ?? "?"];
      stack.push(`${token}(${a}, ${b})`);
    } else if (token === "neg") stack.push(`−${inner(stack.pop() ?? "?")}`);
    else if (token !== "") stack.push(token);
  }
  return stack.at(-1) ?? "";
}
