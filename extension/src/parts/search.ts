/** Finding nodes: by name, op, dtype, shape, module, line or kernel, plain or as a regular expression. */

import { button, h, taken } from "../dom";
import { lineName, nodeName, shapeName } from "../names";
import type { Recording } from "../wire";

const FIELDS = ["name", "op", "dtype", "shape", "module", "phase", "line", "kernel"] as const;
type Field = (typeof FIELDS)[number];

/** What a node is found by. */
export type Fields = Record<Field, string>;

export function fieldsOf(recording: Recording, at: number, node: number, kernels: readonly number[]): Fields {
  const program = recording.programs[at]!;
  const { op, dtype, shape, module, phase, lines } = program.nodes;
  return {
    name: `%${node} ${nodeName(program, node)}`,
    op: op[node] ?? "",
    dtype: dtype[node] ?? "",
    shape: `${shapeName(shape[node])} ${(shape[node] ?? []).join(",")}`,
    module: module[node] ?? "",
    phase: phase[node] ?? "",
    line: (lines[node] ?? []).map(line => `${lineName(recording, line)} ${recording.lines.text[line] ?? ""}`).join(" "),
    kernel: kernels.map(kernel => `k${kernel} ${program.kernels[kernel]?.name ?? ""}`).join(" "),
  };
}

export type Test = (fields: Fields) => boolean;

/**
 * All words must be found. A word is "text", "/regex/", or one of these behind "op:", "shape:", "line:"…
 * Throws SyntaxError for a regular expression that is none.
 */
export function parse(query: string): Test {
  const words = query.match(/(?:[a-z]+:)?(?:\/(?:\\.|[^/\\])*\/i?|"[^"]*"|\S+)/g) ?? [];
  const tests = words.map(word => {
    const [, name, rest] = /^([a-z]+):(.*)$/.exec(word) ?? [];
    const field = FIELDS.find(field => field === name);
    const text = field ? rest! : word;
    const match = field === "op" ? whole(text) : matcher(text);
    return (fields: Fields) => (field ? match(fields[field], field) : FIELDS.some(field => match(fields[field], field)));
  });
  return fields => tests.every(test => test(fields));
}

/** An op is meant by its whole name: "exp" is not "expand". */
function whole(text: string): (value: string, field: Field) => boolean {
  return text.startsWith("/") ? matcher(text) : value => value.toLowerCase() === text.replace(/^"|"$/g, "").toLowerCase();
}

function matcher(text: string): (value: string, field: Field) => boolean {
  const regex = /^\/((?:\\.|[^/\\])+)\/i?$/.exec(text);
  if (regex) {
    const pattern = new RegExp(regex[1]!, "i");
    return value => pattern.test(value);
  }
  const plain = text.replace(/^"|"$/g, "").toLowerCase();
  // "line:12" is line 12, and not 120
  if (/^\d+$/.test(plain)) return (value, field) => (field === "line" ? value.includes(`:${plain} `) || value.endsWith(`:${plain}`) : value.includes(plain));
  return value => value.toLowerCase().includes(plain);
}

export interface SearchBox {
  element: HTMLElement;
  focus(): void;
}

/** `search` is told each query that can be read (null: none) and says how many it found; `step` goes to the next or the one before. */
export function searchBox(search: (test: Test | null) => number, step: (by: 1 | -1) => void, hint = "name op:mul shape:64 line:12 /re.*x/"): SearchBox {
  const input = h("input.tv-input", { type: "search", placeholder: hint, "aria-label": `search: ${hint}`, "data-lm-suppress-shortcuts": true });
  const said = h("span.tv-faint", { role: "status" });
  const run = () => {
    input.removeAttribute("aria-invalid");
    const query = input.value.trim();
    if (!query) {
      search(null);
      said.textContent = "";
      return;
    }
    try {
      const found = search(parse(query));
      said.textContent = found === 0 ? "nothing found" : `${found} found`;
    } catch {
      input.setAttribute("aria-invalid", "true");
      said.textContent = "not a regular expression";
    }
  };
  input.addEventListener("input", run);
  input.addEventListener("keydown", event => {
    event.stopPropagation();
    if (event.key === "Enter") taken(event), step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape" && input.value) taken(event), (input.value = ""), run();
  });
  const previous = button("‹", () => step(-1), { "aria-label": "previous found" });
  const next = button("›", () => step(1), { "aria-label": "next found" });
  return { element: h("span.tv-search", { role: "search" }, input, previous, next, said), focus: () => input.focus() };
}
