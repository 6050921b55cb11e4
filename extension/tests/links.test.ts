import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Links } from "../src/links";
import type { Page, Selectable } from "../src/wire";

const folder = "../tests/tinyviz";
const page = JSON.parse(readFileSync(`${folder}/sample.json`, "utf8")) as Page;
const links = new Links(page.recording);

test("what lights up is what Python says, for selections of every kind", () => {
  const cases = JSON.parse(readFileSync(`${folder}/links.json`, "utf8")) as { kind: Selectable; id: string; related: Record<string, string[]> }[];
  assert.ok(cases.length > 15);
  for (const { kind, id, related } of cases) {
    const lit = links.related({ kind, id });
    const found = Object.fromEntries([...Object.keys(related), "call", "node"].map(each => [each, lit.of(each as Selectable)]).filter(([, ids]) => ids!.length > 0));
    assert.deepEqual(found, related, `${kind} ${id}`);
  }
});

test("a selection that is not of this recording lights nothing", () => {
  for (const [kind, id] of [["line", "999"], ["node", "0.-1"], ["node", "7.0"], ["kernel", "x"], ["loop", "0.0"], ["rule", ""], ["cat", "1"], ["call", "0.99"]] as const) {
    assert.ok(links.related({ kind, id }).empty, `${kind} ${id}`);
  }
  assert.ok(links.related(null).empty);
});

test("replacements in a circle are an error, not a hang", () => {
  const frames = { rule: [0, 0], replaced: [0, 1], by: [1, 0], added: [[], []], removed: [[], []], seconds: [null, null] };
  const damaged = structuredClone(page.recording);
  damaged.programs[0]!.stages[2]!.frames = frames;
  assert.throws(() => new Links(damaged).related({ kind: "node", id: "0.0" }), /circle/);
});
