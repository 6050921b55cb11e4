/** Reading the steps of stages that make no new graph, as `tinyviz/steps.py` does: the text before and after any of them. */

import type { Code, Program, Stage } from "./wire";

/** A line of a text, and the nodes that it is about. */
export interface Row {
  text: string;
  nodes: readonly number[];
}

/** Lines of a text that become others, as in `Edits` of the wire format. */
export interface Edit {
  at: number;
  gone: number;
  text: readonly string[];
  nodes: readonly (readonly number[])[];
}

/** What each step of a stage changes. */
export function editsOf({ steps, edits }: Stage): Edit[][] {
  const out: Edit[][] = steps.rule.map(() => []);
  edits.step.forEach((step, i) => out[step]!.push({ at: edits.at[i]!, gone: edits.gone[i]!, text: edits.text[i]!, nodes: edits.nodes[i]! }));
  return out;
}

/** How many firings or steps a stage has. */
export const stepCount = ({ frames, steps }: Stage): number => frames.rule.length || steps.rule.length;

/** The rule of each firing or step. */
export const rulesOf = ({ frames, steps }: Stage): readonly number[] => (frames.rule.length > 0 ? frames.rule : steps.rule);

const NONE: readonly number[] = [];

export const rowsOf = ({ text, nodes }: Code): Row[] => text.map((line, i) => ({ text: line, nodes: nodes[i] ?? NONE }));

/** The text after a step. */
export function applied(before: readonly Row[], edits: readonly Edit[], moved: readonly (readonly number[])[]): Row[] {
  const out: Row[] = [];
  let done = 0;
  for (const { at, gone, text, nodes } of edits) {
    for (; done < at; done++) out.push(before[done]!);
    text.forEach((line, i) => out.push({ text: line, nodes: nodes[i] ?? NONE }));
    done += gone;
  }
  for (; done < before.length; done++) out.push(before[done]!);
  for (const [from, to, by] of moved as [number, number, number][]) {
    for (let i = from; i < to; i++) out[i] = { ...out[i]!, text: by > 0 ? " ".repeat(by) + out[i]!.text : out[i]!.text.slice(-by) };
  }
  return out;
}

/** Whether a step makes a text of a kernel from another one, and edits none: every one of loops, and in emit the last of a kernel. */
export const makes = ({ name, steps }: Stage, step: number): boolean => name === "loops" || (name === "emit" && steps.kernel.lastIndexOf(steps.kernel[step]!) === step);

/** The texts of one stage, at any step: from where it stood last on, or anew from the first. */
export class Texts {
  readonly edits: Edit[][];
  private readonly at = new Map<number, { steps: readonly number[]; done: number; text: Row[] }>();

  constructor(private readonly program: Program, private readonly stage: number) {
    this.edits = editsOf(program.stages[stage]!);
  }

  /** Whether a step changed a text, or made one; in emit, what changes no loops shows in the source. */
  changes(step: number): boolean {
    const { name, steps } = this.program.stages[this.stage]!;
    return name === "loops" || name === "emit" || this.edits[step]!.length + steps.moved[step]!.length > 0;
  }

  /** Whether a step makes a text and edits none. */
  makes(step: number): boolean {
    return makes(this.program.stages[this.stage]!, step);
  }

  /** Before and after a step. */
  change(step: number): [before: Row[], after: Row[]] {
    const { name, steps } = this.program.stages[this.stage]!;
    const kernel = steps.kernel[step];
    if (kernel === undefined) throw new RangeError(`there is no step ${step} of stage ${name}`);
    const code = this.program.kernels[kernel];
    if (name === "loops") return [groupRows(this.program, kernel), rowsOf(code!.loops)];
    let text = this.at.get(kernel);
    const before = text?.steps ?? steps.kernel.flatMap((each, i) => (each === kernel ? [i] : []));
    const place = before.indexOf(step);
    if (!text || text.done > place) text = { steps: before, done: 0, text: kernel >= 0 ? rowsOf(name === "emit" ? code!.scheduled : code!.loops) : [] };
    for (; text.done < place; text.done++) {
      const at = before[text.done]!;
      text.text = applied(text.text, this.edits[at]!, steps.moved[at]!);
    }
    this.at.set(kernel, text);
    if (this.makes(step)) return [text.text, rowsOf(code!.source)];
    return [text.text, applied(text.text, this.edits[step]!, steps.moved[step]!)];
  }
}

/** What stage fuse left of a kernel; nothing where its steps were not recorded. */
function groupRows(program: Program, kernel: number): Row[] {
  const stage = program.stages.findIndex(({ name, steps }) => name === "fuse" && steps.rule.length > 0);
  if (stage < 0) return [];
  const text = new Texts(program, stage).change(stepCount(program.stages[stage]!) - 1)[1];
  const begin = text.findIndex(row => row.nodes.length === 0 && row.text.startsWith(`k${kernel} `));
  if (begin < 0) return [];
  const end = text.findIndex((row, i) => i > begin && row.nodes.length === 0);
  return text.slice(begin, end < 0 ? undefined : end);
}

/** The nodes that a step changed, and those that its decision names. */
export function about(program: Program, stage: number, step: number): readonly number[] {
  const { steps } = program.stages[stage]!;
  return [...(steps.nodes[step] ?? []), ...(program.decisions[steps.decision[step] ?? -1]?.nodes ?? [])];
}

/** The steps that changed where a node, as it is at the end, is computed and kept, in their order. */
export function touched(program: Program, node: number): [stage: number, step: number][] {
  return program.stages.flatMap(({ steps }, stage) => steps.nodes.flatMap((nodes, k): [number, number][] => (nodes.includes(node) ? [[stage, k]] : [])));
}

/** A line before, a line after, or both where they are alike. */
export type Pair = [before: Row | null, after: Row | null];

/** The lines of both in order, those that are alike side by side, where `edits` made one of the other. */
export function aligned(before: readonly Row[], after: readonly Row[], edits: readonly Edit[]): Pair[] {
  const out: Pair[] = [];
  let [i, j] = [0, 0];
  for (const { at, gone, text } of edits) {
    while (i < at) out.push([before[i++]!, after[j++]!]);
    out.push(...paired(before.slice(i, i + gone), after.slice(j, j + text.length)));
    (i += gone), (j += text.length);
  }
  while (i < before.length) out.push([before[i++]!, after[j++]!]);
  return out;
}

/** comparisons of lines */
const PAIRS_MOST = 20_000;

/** Of all ways to put the lines side by side the one in which pairs have most words in common. */
export function paired(before: readonly Row[], after: readonly Row[]): Pair[] {
  const [n, m] = [before.length, after.length];
  if (n * m > PAIRS_MOST) return [...before.map((row): Pair => [row, null]), ...after.map((row): Pair => [null, row])];
  const [a, b] = [before.map(row => bag(row.text)), after.map(row => bag(row.text))];
  const alike = a.map(x => b.map(y => common(x, y)));
  const best = Array.from({ length: n + 1 }, () => new Float64Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) best[i]![j] = Math.max(best[i + 1]![j]!, best[i]![j + 1]!, best[i + 1]![j + 1]! + alike[i]![j]!);
  }
  const out: Pair[] = [];
  for (let i = 0, j = 0; i < n || j < m; ) {
    if (i < n && j < m && alike[i]![j]! > 0 && best[i]![j] === best[i + 1]![j + 1]! + alike[i]![j]!) out.push([before[i++]!, after[j++]!]);
    else if (j >= m || (i < n && best[i]![j] === best[i + 1]![j])) out.push([before[i++]!, null]);
    else out.push([null, after[j++]!]);
  }
  return out;
}

interface Bag {
  words: Map<string, number>;
  total: number;
}

function bag(text: string): Bag {
  const words = new Map<string, number>();
  const all = text.match(/[\w.]+|[^\w\s]/g) ?? [];
  for (const word of all) words.set(word, (words.get(word) ?? 0) + 1);
  return { words, total: all.length };
}

/** The share of words in common, where it is more than half; else 0. */
function common(a: Bag, b: Bag): number {
  let both = 0;
  for (const [word, n] of a.words) both += Math.min(n, b.words.get(word) ?? 0);
  const share = (2 * both) / (a.total + b.total || 1);
  return share > 0.5 ? share : 0;
}
