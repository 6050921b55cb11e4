import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { blame, changes, fate, Replay, wordDiff } from "../src/frames";
import type { Page } from "../src/wire";

const { recording } = JSON.parse(readFileSync("../tests/tinyviz/sample.json", "utf8")) as Page;

/** What the roots reach: the other way to know what is in the graph. */
function reached(replay: Replay, program: (typeof recording.programs)[number], stage: number, frame: number): Set<number> {
  const seen = new Set<number>();
  const stack = program.stages[stage]!.roots.map(root => replay.find(root, stage, frame));
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (!seen.has(node)) seen.add(node), stack.push(...replay.src(node, stage, frame));
  }
  return seen;
}

const sorted = (set: ReadonlySet<number>) => [...set].sort((a, b) => a - b);

test("the graph after any frame, forwards, backwards and at random, is what the roots reach", () => {
  for (const program of recording.programs) {
    const stage = program.stages.findIndex(each => each.frames.rule.length > 0 && each.roots.length > 0);
    assert.ok(stage >= 0, "the sample has a stage with firings");
    const count = program.stages[stage]!.frames.rule.length;
    const replay = new Replay(program);
    const order = [...Array(count + 1).keys()];
    for (const frame of [...order, ...order.toReversed(), 3, count, 0, count - 1]) {
      assert.deepEqual(sorted(replay.alive(stage, frame)), sorted(reached(replay, program, stage, frame)), `frame ${frame}`);
    }
    assert.deepEqual(sorted(replay.alive(stage, count)), sorted(new Set(program.stages[stage]!.after)));
    assert.throws(() => replay.alive(stage, count + 1), RangeError);
  }
});

test("a firing changes something, or is said not to", () => {
  const program = recording.programs[0]!;
  const stage = program.stages.findIndex(each => each.frames.rule.length > 0);
  const replay = new Replay(program);
  program.stages[stage]!.frames.rule.forEach((_, k) => {
    const before = sorted(replay.alive(stage, k));
    const after = sorted(replay.alive(stage, k + 1));
    if (!changes(program, stage, k)) assert.deepEqual(before, after);
  });
});

test("blame goes back from firing to firing, and ends", () => {
  const program = recording.programs[0]!;
  for (const [stage, { frames }] of program.stages.entries()) {
    frames.added.forEach((added, k) => added.forEach(node => assert.deepEqual(blame(program, node)[0], [stage, k])));
  }
  const line = program.stages.findIndex(each => each.name === "record");
  program.recorded.forEach(node => assert.equal(blame(program, node).at(-1)?.[0], line, "in the end it is a line of the user's"));
});

test("what became of a node leads from replacement to replacement, and ends", () => {
  const program = recording.programs[0]!;
  const index = program.stages.findIndex(each => each.name === "simplify");
  const { replaced, by, removed } = program.stages[index]!.frames;
  replaced.forEach((node, k) => node !== by[k] && assert.deepEqual(fate(program, node)[0], [index, k]));
  removed.forEach((gone, k) => gone.forEach(node => {
    const path = fate(program, node);
    assert.ok(path.length > 0 && path.at(-1)![1] >= Math.min(k, path.at(-1)![1]));
  }));
  program.simplified.forEach(node => assert.deepEqual(fate(program, node), [], "what is there at the end had nothing done to it"));
});

test("record and differentiate add what they stand for, and nothing else", () => {
  const program = recording.programs[0]!;
  for (const name of ["record", "differentiate"]) {
    const index = program.stages.findIndex(each => each.name === name);
    const { before, after, frames } = program.stages[index]!;
    assert.deepEqual(sorted(new Set([...before, ...frames.added.flat()])), sorted(new Set(after)));
    assert.ok(frames.removed.every(row => row.length === 0) && frames.replaced.every((node, k) => node === frames.by[k]));
    assert.deepEqual(sorted(new Replay(program).alive(index, frames.rule.length)), sorted(new Set(after)));
  }
});

test("replacements in a circle are an error, not a hang", () => {
  const frames = { rule: [0, 0], replaced: [0, 1], by: [1, 0], added: [[], []], removed: [[], []], seconds: [null, null] };
  const program = { nodes: { src: [[], []] }, stages: [{ frames, before: [0], after: [], roots: [] }] };
  assert.throws(() => new Replay(program as never).find(0, 0, 2), /circle/);
});

test("a word diff keeps what both have, and puts both sides back together", () => {
  const [a, b] = ["%5 = mul(%3, %4) : f32[8×4]", "%9 = add(%3, 0.5) : f32[8×4]"];
  const diff = wordDiff(a, b);
  const side = (name: string) => diff.filter(part => part.side === "both" || part.side === name).map(part => part.text).join("");
  assert.deepEqual([side("before"), side("after")], [a, b]);
  assert.ok(diff.some(part => part.side === "both" && part.text === "f32"));
  assert.deepEqual(wordDiff("", ""), []);
});
