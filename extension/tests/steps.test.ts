import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { places } from "../src/parts/groupsteps";
import { about, aligned, paired, rowsOf, stepCount, Texts, touched, type Row } from "../src/steps";
import type { Page } from "../src/wire";

const { recording } = JSON.parse(readFileSync("../tests/tinyviz/sample.json", "utf8")) as Page;
const program = recording.programs[0]!;
const stageOf = (name: string) => program.stages.findIndex(each => each.name === name);
const lines = (rows: readonly Row[]) => rows.map(row => row.text);

test("every stage of the sample can be stepped through", () => {
  for (const stage of program.stages) assert.ok(stepCount(stage) > 0, stage.name);
});

test("a kernel's text goes from its loops to its schedule, forwards, backwards and at random", () => {
  const stage = stageOf("schedule");
  const { kernel } = program.stages[stage]!.steps;
  const texts = new Texts(program, stage);
  const order = kernel.map((_, k) => k);
  const known = new Map(order.map(k => [k, new Texts(program, stage).change(k)]));
  for (const k of [...order, ...order.toReversed(), 5, order.length - 1, 0, 7]) assert.deepEqual(texts.change(k), known.get(k), `step ${k}`);
  program.kernels.forEach((each, i) => {
    const own = order.filter(k => kernel[k] === i);
    if (own.length === 0) return;
    assert.deepEqual(known.get(own[0]!)![0], rowsOf(each.loops));
    assert.deepEqual(lines(known.get(own.at(-1)!)![1]), each.scheduled.text);
    own.slice(1).forEach((k, j) => assert.deepEqual(known.get(k)![0], known.get(own[j]!)![1]));
  });
  assert.throws(() => texts.change(order.length), RangeError);
});

test("the kernels of fuse: a value that is marked has another place than before, and no other has", () => {
  const stage = stageOf("fuse");
  const { steps } = program.stages[stage]!;
  const texts = new Texts(program, stage);
  const state = (rows: readonly Row[]) => new Map([...places(rows)].map(([node, { kernels, how }]) => [node, `${kernels.join()} ${how}`]));
  let before = state([]);
  let changed = 0;
  steps.rule.forEach((_, k) => {
    const after = state(texts.change(k)[1]);
    for (const node of after.keys()) {
      if (after.get(node) !== before.get(node)) changed++, assert.ok(steps.nodes[k]!.includes(node), `step ${k}: ${node}`);
    }
    before = after;
  });
  assert.ok(changed > 10);
  assert.deepEqual(new Set([...before.values()].map(text => text.split(" ")[0]!.split(",")).flat()), new Set(program.kernels.map((_, i) => `k${i}`)));
});

test("loops begin with what fuse left of the kernel, and emit ends with its source", () => {
  const [loops, emit] = [stageOf("loops"), stageOf("emit")];
  program.stages[loops]!.steps.kernel.forEach((kernel, k) => {
    const [before, after] = new Texts(program, loops).change(k);
    assert.ok(before[0]!.text.startsWith(`k${kernel} ${program.kernels[kernel]!.name} over `));
    assert.ok(before.slice(1).every(row => row.nodes.every(node => program.kernels[kernel]!.nodes.includes(node))));
    assert.deepEqual(lines(after), program.kernels[kernel]!.loops.text);
  });
  const texts = new Texts(program, emit);
  const now = program.kernels.map(({ scheduled }) => scheduled.text);
  program.stages[emit]!.steps.kernel.forEach((kernel, k) => {
    const [before, after] = texts.change(k);
    assert.deepEqual(lines(before), now[kernel]);
    assert.ok(texts.changes(k));
    now[kernel] = lines(after);
  });
  assert.deepEqual(now, program.kernels.map(({ source }) => source.text));
  assert.ok(program.stages[emit]!.steps.kernel.length > now.length, "some op of the sample is expanded");
});

test("lines side by side are all lines of both, in order", () => {
  for (const name of ["fuse", "schedule", "plan"]) {
    const stage = stageOf(name);
    const texts = new Texts(program, stage);
    program.stages[stage]!.steps.rule.forEach((_, k) => {
      const [before, after] = texts.change(k);
      const pairs = aligned(before, after, texts.edits[k]!);
      assert.deepEqual(pairs.flatMap(([row]) => row ?? []), before);
      assert.deepEqual(pairs.flatMap(([, row]) => row ?? []), after);
    });
  }
  const row = (text: string): Row => ({ text, nodes: [] });
  const pairs = paired([row("for i in 0..8:"), row("  x = y[i]")], [row("for io in 0..8 step 4:"), row("  for ii in 0..4:"), row("    x = y[io + ii]")]);
  assert.ok(pairs.some(([old, now]) => old?.text === "  x = y[i]" && now?.text === "    x = y[io + ii]"));
  const many = Array.from({ length: 400 }, (_, i) => row(`line ${i}`));
  assert.equal(paired(many, many).length, 800);
});

test("a node leads to the steps that touched it, and they lead back", () => {
  const node = program.kernels[0]!.nodes.find(each => program.nodes.op[each] === "sum")!;
  const found = touched(program, node);
  assert.ok(["fuse", "loops", "schedule", "emit"].every(name => found.some(([stage]) => stage === stageOf(name))));
  for (const [stage, k] of found) assert.ok(about(program, stage, k).includes(node));
});
