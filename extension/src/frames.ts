/** Reading rewrite steps, as `tinyviz/frames.py` does: the graph after any frame, rebuilt from the deltas. */

import type { Program } from "./wire";

export class Replay {
  private readonly by = new Map<number, { node: number; order: number }>();
  private readonly offset: number[] = [];
  private at: { stage: number; frame: number; alive: Set<number> } | null = null;

  constructor(private readonly program: Program) {
    let order = 0;
    for (const { frames } of program.stages) {
      this.offset.push(order);
      for (let k = 0; k < frames.rule.length; k++) {
        const [old, node] = [frames.replaced[k]!, frames.by[k]!];
        if (old !== node && !this.by.has(old)) this.by.set(old, { node, order: order + k });
      }
      order += frames.rule.length;
    }
  }

  frames(stage: number): number {
    return this.program.stages[stage]?.frames.rule.length ?? 0;
  }

  /** What stands for `node` after `frame` firings of `stage`. */
  find(node: number, stage: number, frame: number): number {
    const until = (this.offset[stage] ?? 0) + frame;
    for (let steps = this.by.size; steps >= 0; steps--) {
      const next = this.by.get(node);
      if (next === undefined || next.order >= until) return node;
      node = next.node;
    }
    throw new Error("the recording's replacements go in a circle");
  }

  /** Operands of `node` after `frame` firings of `stage`. */
  src(node: number, stage: number, frame: number): number[] {
    return (this.program.nodes.src[node] ?? []).map(operand => this.find(operand, stage, frame));
  }

  /** The node ids that are in the graph after `frame` firings: 0 is the stage's input. Steps from where it stood last. */
  alive(stage: number, frame: number): ReadonlySet<number> {
    const given = this.program.stages[stage];
    if (!given || frame < 0 || frame > given.frames.rule.length) throw new RangeError(`there is no frame ${frame} of stage ${stage}`);
    if (this.at?.stage !== stage) this.at = { stage, frame: 0, alive: new Set(given.before) };
    const { alive } = this.at;
    const { added, removed } = given.frames;
    for (; this.at.frame < frame; this.at.frame++) {
      added[this.at.frame]!.forEach(node => alive.add(node));
      removed[this.at.frame]!.forEach(node => alive.delete(node));
    }
    for (; this.at.frame > frame; this.at.frame--) {
      added[this.at.frame - 1]!.forEach(node => alive.delete(node));
      removed[this.at.frame - 1]!.forEach(node => alive.add(node));
    }
    return alive;
  }
}

/** The firings that led to `node`, newest first: what made it, what made the node that it replaced… As `tinyviz.frames.blame`. */
export function blame(program: Program, node: number): [stage: number, frame: number][] {
  const made = new Map<number, [number, number]>();
  program.stages.forEach(({ frames }, stage) =>
    frames.added.forEach((added, k) => added.forEach(each => made.has(each) || made.set(each, [stage, k]))));
  const out: [number, number][] = [];
  for (let at = made.get(node); at && !out.some(([stage, k]) => stage === at![0] && k === at![1]); at = made.get(node)) {
    out.push(at);
    node = program.stages[at[0]]!.frames.replaced[at[1]]!;
  }
  return out;
}

/** The firings that `node`'s value went through after it was made, oldest first. As `tinyviz.frames.fate`. */
export function fate(program: Program, node: number): [stage: number, frame: number][] {
  const replaced = new Map<number, [number, number]>();
  const removed = new Map<number, [number, number]>();
  program.stages.forEach(({ frames }, stage) => frames.rule.forEach((_, k) => {
    if (frames.replaced[k] !== frames.by[k]) replaced.set(frames.replaced[k]!, [stage, k]);
    frames.removed[k]!.forEach(each => removed.set(each, [stage, k]));
  }));
  const out: [number, number][] = [];
  for (let at = replaced.get(node); at && out.length <= replaced.size; at = replaced.get(node)) {
    out.push(at);
    node = program.stages[at[0]]!.frames.by[at[1]]!;
  }
  const end = removed.get(node);
  return end ? [...out, end] : out;
}

/** Whether a firing changed anything that is drawn. */
export function changes(program: Program, stage: number, frame: number): boolean {
  const { replaced, by, added, removed } = program.stages[stage]!.frames;
  return replaced[frame] !== by[frame] || added[frame]!.length > 0 || removed[frame]!.length > 0;
}

/** The words of two texts with what is common to both (longest common subsequence). */
export function wordDiff(before: string, after: string): { side: "both" | "before" | "after"; text: string }[] {
  const [a, b] = [words(before), words(after)];
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i]![j] = a[i] === b[j] ? table[i + 1]![j + 1]! + 1 : Math.max(table[i + 1]![j]!, table[i]![j + 1]!);
    }
  }
  const out: { side: "both" | "before" | "after"; text: string }[] = [];
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    if (i < a.length && j < b.length && a[i] === b[j]) out.push({ side: "both", text: (j++, a[i++]!) });
    else if (j >= b.length || (i < a.length && table[i + 1]![j]! >= table[i]![j + 1]!)) out.push({ side: "before", text: a[i++]! });
    else out.push({ side: "after", text: b[j++]! });
  }
  return out;
}

function words(text: string): string[] {
  return text.match(/[\w.]+|\s+|[^\w\s]/g)?.slice(0, 400) ?? [];
}
