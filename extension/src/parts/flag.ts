/** The flag of a kernel whose results stopped being finite. */

import { h } from "../dom";
import type { Program } from "../wire";

export function flag({ faults }: Program, kernel: number): HTMLElement | null {
  const mine = faults.find(fault => fault.kernels.includes(kernel));
  if (!mine) return null;
  const made = mine.kernels[0] === kernel;
  return h("span.tv-flag", { title: `${made ? "made it: " : "reached by it: "}${mine.sentence}` }, `▲ ${mine.what || "not finite"}${made ? "" : " from before"}`);
}
