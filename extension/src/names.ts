/** How the things of a recording are called on screen. */

import { moduleName, numbers } from "./links";
import type { Selection } from "./selection";
import type { Decision, Program, Recording } from "./wire";

/** "In [3]:12" */
export function lineName({ lines, files }: Recording, line: number): string {
  const file = files[lines.file[line] ?? -1];
  return line < 0 || !file ? "not attributed" : `${file.name}:${lines.line[line]}`;
}

export function shapeName(shape: readonly (number | string)[] = []): string {
  return shape.length === 0 ? "scalar" : shape.join("×");
}

const SHORT: Record<string, string> = {
  float64: "f64", float32: "f32", float16: "f16", bfloat16: "bf16", int64: "i64", int32: "i32", int16: "i16", int8: "i8",
  uint64: "u64", uint32: "u32", uint16: "u16", uint8: "u8",
};
export const dtypeName = (dtype = ""): string => SHORT[dtype] ?? dtype;

/** "sum (1,)", "weight" for a buffer, "0.5" for a constant. */
export function nodeName({ nodes }: Program, node: number): string {
  const [op, arg] = [nodes.op[node] ?? "?", nodes.arg[node] ?? ""];
  if (op === "buffer") return arg || "buffer";
  if (op === "const") return short(arg) || "const";
  return arg && arg.length < 24 ? `${op} ${arg}` : op;
}

/** The name of a node where there is little room: a slice whose ranges are long is known by them. */
export function boxName(program: Program, node: number): string {
  const [name, arg] = [nodeName(program, node), program.nodes.arg[node] ?? ""];
  return program.nodes.op[node] === "slice" && name.length > 15 && arg ? arg : name;
}

/** "0.09999999999999998" → "0.1": a constant in six digits, where that is shorter. */
function short(value: string): string {
  const number = Number(value);
  return value.length > 8 && Number.isFinite(number) ? String(Number(number.toPrecision(6))) : value;
}

/** "%17 max(%3, %5)": a node as a line of text, with operands as the caller finds them. */
export function nodeText(program: Program, node: number, src: readonly number[]): string {
  const { op, arg, dtype, shape } = program.nodes;
  const args = [...src.map(operand => `%${operand}`), ...(arg[node] ? [arg[node]] : [])].join(", ");
  return `%${node} = ${op[node]}(${args}) : ${dtypeName(dtype[node])}[${shapeName(shape[node])}]`;
}

/** "%4 exp → %7 sum" where a decision is about nodes; else the engine's own words. */
export function subjectName(program: Program, decision: Decision): string {
  if (decision.nodes.length === 0) return decision.subject;
  return decision.nodes.map(node => `%${node} ${nodeName(program, node)}`).join(decision.kind === "join" ? ", " : " → "); // kernels side by side are no edge
}

/** The kernel's number and what it does: "k3 matmul_relu". */
export function kernelName({ kernels }: Program, kernel: number): string {
  const name = kernels[kernel]?.name ?? "?";
  return new RegExp(`^k_?${kernel}\\b`).test(name) ? name : `k${kernel} ${name}`;
}

/** Anything that can be selected, in a few words. */
export function selectionName(recording: Recording, { kind, id }: Selection): string {
  const ids = numbers(id);
  const [first = -1, second = -1, third = -1] = ids;
  if (kind === "line") return `${lineName(recording, first)}  ${recording.lines.text[first] ?? ""}`;
  if (kind === "rule") return `rule ${recording.rules.name[first] ?? "?"}`;
  if (kind === "group") return "a part of the graph";
  const program = recording.programs[first];
  if (!program) return `${kind} ${id}`;
  switch (kind) {
    case "node": return `%${second} ${nodeName(program, second)}`;
    case "firing": return `${program.stages[second]?.name ?? "?"} step ${third + 1}`;
    case "decision": {
      const decision = program.decisions[second];
      return decision ? `${decision.kind} ${subjectName(program, decision)}: ${decision.verdict}` : "decision";
    }
    case "kernel": return kernelName(program, second);
    case "call": return `launch ${second} of ${kernelName(program, program.calls[second]?.kernel ?? -1)}`;
    case "module": return `module ${moduleName(program, second, third) || "?"}`;
    case "slot": return `memory ${program.slots[second]?.name ?? "?"}`;
    case "loop": case "source": case "assembly":
      return `${kernelName(program, second)}, ${kind === "loop" ? "loops" : kind} line ${third + 1}`;
    default: return `${kind} ${id}`;
  }
}
