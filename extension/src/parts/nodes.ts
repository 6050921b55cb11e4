/** Nodes as rows of a table. */

import { kernelName, lineName, nodeName, shapeName } from "../names";
import type { Context } from "../views/view";
import type { Column } from "./head";

export function nodeColumns({ recording, links }: Context, at: number, src: (node: number) => readonly number[]): Column<number>[] {
  const index = links.program(at);
  const { program } = index;
  const { nodes } = program;
  return [
    { name: "node", text: node => `%${node}` },
    { name: "operation", text: node => nodeName(program, node) },
    { name: "operands", text: node => src(node).map(operand => `%${operand}`).join(", ") },
    { name: "result", text: node => `${shapeName(nodes.shape[node])} ${nodes.dtype[node]}` },
    { name: "phase", text: node => nodes.phase[node] ?? "" },
    { name: "module", text: node => nodes.module[node] ?? "" },
    { name: "derivative rule", text: node => nodes.derivative[node] ?? "" },
    { name: "kernel", text: node => index.kernelsOf.get(node).map(kernel => kernelName(program, kernel)).join(", ") },
    { name: "line", text: node => (nodes.lines[node] ?? []).map(line => lineName(recording, line)).join(", ") },
  ];
}
