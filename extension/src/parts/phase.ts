/** The phase that a kernel works for most, by its lines' shares; where none are known, the last that its nodes have. */

import { PHASES, type Kernel, type Program } from "../wire";

export function mainPhase({ nodes }: Program, { shares, nodes: mine }: Kernel): string {
  const sums = PHASES.map(phase => [phase, shares.phase.reduce((sum, each, i) => (each === phase ? sum + (shares.share[i] ?? 0) : sum), 0)] as const);
  const best = sums.reduce((a, b) => (b[1] > a[1] ? b : a));
  if (best[1] > 0) return best[0];
  const there = new Set(mine.map(node => nodes.phase[node]));
  return [...PHASES].reverse().find(phase => there.has(phase)) ?? "";
}
