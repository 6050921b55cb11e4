/**
 * What lights up when something is selected: the query of `tinyviz/links.py`, on indexes that are made once per program.
 * Nodes are the hub: a selection stands for a set of nodes, and everything that serves one of them is related. Within a kernel the
 * texts are linked line by line: a source or instruction line stands for the line of the scheduled loops that it does.
 */

import { same, type Selection } from "./selection";
import { about, rulesOf, stepCount } from "./steps";
import { SELECTABLE, type Kernel, type Program, type Recording, type Selectable } from "./wire";

/** Kind → ids of everything related to a selection, itself included. */
export class Lit {
  private readonly sets = new Map<string, Set<string>>();

  constructor(readonly selection: Selection | null) {}

  add(kind: Selectable, id: string): void {
    let set = this.sets.get(kind);
    if (set === undefined) this.sets.set(kind, (set = new Set()));
    set.add(id);
  }

  has(kind: Selectable, id: string): boolean {
    return this.sets.get(kind)?.has(id) ?? false;
  }

  is(kind: Selectable, id: string): boolean {
    return same(this.selection, { kind, id });
  }

  /** In order of their numbers. */
  of(kind: Selectable): string[] {
    return [...(this.sets.get(kind) ?? [])].sort(byNumbers);
  }

  count(kind: Selectable): number {
    return this.sets.get(kind)?.size ?? 0;
  }

  get empty(): boolean {
    return this.sets.size === 0;
  }
}

export const DARK = new Lit(null);

/** The parts of an id; NaN for what is no number. */
export function numbers(id: string): number[] {
  return id.split(".").map(part => (/^\d+$/.test(part) ? Number(part) : NaN));
}

function byNumbers(a: string, b: string): number {
  const [x, y] = [numbers(a), numbers(b)];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return x[i]! - (y[i] ?? -1);
  return x.length - y.length;
}

/** A map from numbers to lists of T. */
export class Lists<T> {
  private readonly map = new Map<number, T[]>();

  add(key: number, value: T): void {
    const list = this.map.get(key);
    if (list === undefined) this.map.set(key, [value]);
    else list.push(value);
  }

  get(key: number): readonly T[] {
    return this.map.get(key) ?? [];
  }
}

/** Of one program: everything by node, and the other way round. */
export class ProgramIndex {
  readonly nodesOfLine = new Lists<number>();
  readonly nodesOfRule = new Lists<number>();
  readonly gradientsOf = new Lists<number>();
  readonly firingsOf = new Lists<[stage: number, frame: number]>();
  readonly decisionsOf = new Lists<number>();
  readonly kernelsOf = new Lists<number>();
  readonly loopsOf = new Lists<[kernel: number, line: number]>();
  readonly slotsOf = new Lists<number>();
  readonly callsOf = new Lists<number>();
  readonly by = new Map<number, number>();
  private readonly texts = new Map<string, Lists<number>>();

  constructor(readonly program: Program) {
    const { nodes, stages, decisions, kernels, slots, calls } = program;
    // A line stands for what it made itself, and for what was made in the functions that it called.
    nodes.origins.forEach((rows, n) => new Set(rows.flatMap(row => program.origins.lines[row] ?? [])).forEach(line => this.nodesOfLine.add(line, n)));
    nodes.forward.forEach((forward, n) => forward >= 0 && this.gradientsOf.add(forward, n));
    stages.forEach(({ frames }, at) => {
      for (let k = 0; k < frames.rule.length; k++) {
        const [old, now] = [frames.replaced[k]!, frames.by[k]!];
        this.firingsOf.add(old, [at, k]);
        if (now === old) {
          // It replaces nothing: what it put there is all that it added.
          const added = frames.added[k]!;
          (added.length > 0 ? added : [now]).forEach(node => {
            this.nodesOfRule.add(frames.rule[k]!, node);
            if (node !== old) this.firingsOf.add(node, [at, k]);
          });
          continue;
        }
        this.nodesOfRule.add(frames.rule[k]!, now);
        // A node that is gone can neither be replaced again nor replace another: so following replacements ends.
        if (this.by.has(old) || this.by.has(now)) throw new Error(`damaged data: the replacements of stage ${at} go in a circle at step ${k}`);
        this.firingsOf.add(now, [at, k]);
        this.by.set(old, now);
      }
    });
    stages.forEach(({ steps }, at) => steps.rule.forEach((rule, k) => new Set(about(program, at, k)).forEach(node => {
      this.firingsOf.add(node, [at, k]);
      this.nodesOfRule.add(rule, node);
    })));
    decisions.forEach((decision, i) => decision.nodes.forEach(n => this.decisionsOf.add(n, i)));
    kernels.forEach((kernel, i) => {
      kernel.nodes.forEach(n => this.kernelsOf.add(n, i));
      kernel.scheduled.nodes.forEach((row, line) => row.forEach(n => this.loopsOf.add(n, [i, line])));
    });
    slots.forEach((slot, i) => slot.node >= 0 && this.slotsOf.add(slot.node, i));
    calls.forEach((call, i) => this.callsOf.add(call.kernel, i));
  }

  /** Lines of a kernel's source or assembly that do a line of its scheduled loops. */
  doing(kernel: number, kind: "source" | "assembly", loop: number): readonly number[] {
    const key = `${kernel}.${kind}`;
    let lists = this.texts.get(key);
    if (lists === undefined) {
      this.texts.set(key, (lists = new Lists()));
      this.program.kernels[kernel]?.[kind].link.forEach((link, line) => link >= 0 && lists!.add(link, line));
    }
    return lists.get(loop);
  }

  /** What a node has become at last. */
  became(node: number): number {
    for (let next = this.by.get(node); next !== undefined; next = this.by.get(node)) node = next;
    return node;
  }

  /** A node with its gradient's nodes, or a backward node with its forward node; and what each has become. */
  family(node: number): Set<number> {
    const family = new Set([node, ...this.gradientsOf.get(node)]);
    const forward = this.program.nodes.forward[node] ?? -1;
    if (forward >= 0) family.add(forward);
    for (const member of [...family]) {
      for (let next = this.by.get(member); next !== undefined; next = this.by.get(next)) family.add(next);
    }
    return family;
  }
}

export class Links {
  private readonly programs = new Map<number, ProgramIndex>();
  private readonly known = new Map<string, Lit>();

  constructor(readonly recording: Recording) {}

  program(at: number): ProgramIndex {
    let index = this.programs.get(at);
    if (index === undefined) {
      const program = this.recording.programs[at];
      if (!program) throw new RangeError(`the recording has no program ${at}`);
      this.programs.set(at, (index = new ProgramIndex(program)));
    }
    return index;
  }

  /** Everything related; nothing for a selection that is not of this recording. */
  related(selection: Selection | null): Lit {
    if (selection === null) return DARK;
    const key = `${selection.kind} ${selection.id}`;
    let lit = this.known.get(key);
    if (lit === undefined) {
      if (this.known.size > 200) this.known.clear();
      this.known.set(key, (lit = this.find(selection)));
    }
    return lit;
  }

  private find(selection: Selection): Lit {
    const kind = selection.kind as Selectable;
    const ids = numbers(selection.id);
    if (!SELECTABLE.includes(kind) || ids.length === 0 || ids.some(i => !Number.isInteger(i) || i < 0)) return DARK;
    const lit = new Lit(selection);
    if (kind === "line" || kind === "rule") {
      const names = kind === "line" ? this.recording.lines.line : this.recording.rules.name;
      if (ids[0]! >= names.length) return DARK;
      this.recording.programs.forEach((_, at) => {
        const index = this.program(at);
        this.add(lit, at, new Set(kind === "line" ? index.nodesOfLine.get(ids[0]!) : index.nodesOfRule.get(ids[0]!)), null);
      });
    } else {
      const [at, ...rest] = ids as [number, ...number[]];
      if (at >= this.recording.programs.length || !exists(this.recording.programs[at]!, kind, rest)) return DARK;
      const index = this.program(at);
      if (kind === "loop" || kind === "source" || kind === "assembly") {
        const [kernel, line] = rest as [number, number];
        const loop = kind === "loop" ? line : (index.program.kernels[kernel]![kind].link[line] ?? -1);
        this.add(lit, at, new Set(index.program.kernels[kernel]!.scheduled.nodes[loop]), { kernel, loops: loop >= 0 ? [loop] : [] });
      } else if (kind === "kernel" || kind === "call") {
        // Not the other kernels that compute some of its nodes again.
        const kernel = kind === "kernel" ? rest[0]! : index.program.calls[rest[0]!]!.kernel;
        // Memory that it reads was made elsewhere.
        const nodes = new Set(index.program.kernels[kernel]!.nodes.filter(node => index.program.nodes.op[node] !== "buffer"));
        const loops = index.program.kernels[kernel]!.scheduled.nodes.flatMap((row, line) => (row.some(node => nodes.has(node)) ? [line] : []));
        this.add(lit, at, nodes, { kernel, loops });
      } else {
        this.add(lit, at, nodesOf(index, kind, rest), null);
      }
    }
    lit.add(kind, selection.id);
    return lit;
  }

  private add(lit: Lit, at: number, nodes: Set<number>, inside: { kernel: number; loops: number[] } | null): void {
    const index = this.program(at);
    const { program } = index;
    const kernels = new Set<number>(inside ? [inside.kernel] : []);
    for (const n of nodes) {
      lit.add("node", `${at}.${n}`);
      for (const line of program.nodes.lines[n] ?? []) lit.add("line", String(line));
      for (const [stage, k] of index.firingsOf.get(n)) {
        lit.add("firing", `${at}.${stage}.${k}`);
        lit.add("rule", String(rulesOf(program.stages[stage]!)[k]));
      }
      for (const i of index.decisionsOf.get(n)) lit.add("decision", `${at}.${i}`);
      for (const i of index.slotsOf.get(n)) lit.add("slot", `${at}.${i}`);
      if (inside) continue;
      for (const i of index.kernelsOf.get(n)) kernels.add(i);
    }
    // Not the lines of kernels that only read what another left in memory.
    for (const n of inside ? [] : nodes) for (const [kernel, line] of index.loopsOf.get(n)) if (kernels.has(kernel)) this.addLoop(lit, at, index, kernel, line);
    for (const i of kernels) {
      lit.add("kernel", `${at}.${i}`);
      for (const call of index.callsOf.get(i)) lit.add("call", `${at}.${call}`);
    }
    for (const loop of inside?.loops ?? []) this.addLoop(lit, at, index, inside!.kernel, loop);
  }

  private addLoop(lit: Lit, at: number, index: ProgramIndex, kernel: number, loop: number): void {
    if (lit.has("loop", `${at}.${kernel}.${loop}`)) return;
    lit.add("loop", `${at}.${kernel}.${loop}`);
    for (const kind of ["source", "assembly"] as const) {
      for (const line of index.doing(kernel, kind, loop)) lit.add(kind, `${at}.${kernel}.${line}`);
    }
  }
}

function exists(program: Program, kind: Selectable, ids: number[]): boolean {
  const [first = -1, second = -1] = ids;
  const inKernel = (code: (kernel: Kernel) => string[]) => second >= 0 && second < (program.kernels[first] ? code(program.kernels[first]).length : 0);
  switch (kind) {
    case "node": return first < program.nodes.op.length;
    case "firing": return second >= 0 && program.stages[first] !== undefined && second < stepCount(program.stages[first]);
    case "decision": return first < program.decisions.length;
    case "kernel": return first < program.kernels.length;
    case "loop": return inKernel(kernel => kernel.scheduled.text);
    case "source": return inKernel(kernel => kernel.source.text);
    case "assembly": return inKernel(kernel => kernel.assembly.text);
    case "module": return first < program.nodes.op.length && moduleName(program, first, second) !== "";
    case "slot": return first < program.slots.length;
    case "call": return first < program.calls.length;
    default: return false;
  }
}

/** The first `depth` names of the module that a node belongs to; "" where it has not so many. */
export function moduleName({ nodes }: Program, node: number, depth: number): string {
  const parts = (nodes.module[node] ?? "").split(".");
  return depth > 0 && depth <= parts.length && parts[0] ? parts.slice(0, depth).join(".") : "";
}

function nodesOf(index: ProgramIndex, kind: Selectable, ids: number[]): Set<number> {
  const { program } = index;
  const [first = -1, second = -1] = ids;
  switch (kind) {
    case "node": return index.family(first);
    case "firing": {
      const { replaced, by, added, removed } = program.stages[first]!.frames;
      return new Set(replaced.length === 0 ? about(program, first, second) : [replaced[second]!, by[second]!, ...added[second]!, ...removed[second]!]);
    }
    case "decision": return new Set(program.decisions[first]!.nodes);
    case "module": {
      const name = moduleName(program, first, second);
      return new Set(program.nodes.module.flatMap((each, node) => (each === name || each.startsWith(`${name}.`) ? [node] : [])));
    }
    case "slot": {
      const { node } = program.slots[first]!;
      return new Set(node >= 0 ? [node] : []);
    }
    default: return new Set();
  }
}
