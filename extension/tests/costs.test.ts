import assert from "node:assert/strict";
import { test } from "node:test";
import { asCosts, CostStore } from "../src/lab/costs";

test("only whole line numbers from 1 stand beside a cell", () => {
  const good = { cell: "c", lines: [{ line: 1, seconds: 0.5 }] };
  assert.equal(asCosts(good), good);
  for (const lines of [[{ line: 0 }], [{ line: 1.5 }], [{}], [null], "no", undefined]) assert.equal(asCosts({ cell: "c", lines }), null);
  assert.equal(asCosts({ lines: [] }), null);
});

test("the store says which cell changed, and forgets what is cleared", () => {
  const store = new CostStore();
  const changed: string[] = [];
  store.changed.connect((_, cell) => void changed.push(cell));
  store.set({ cell: "a", lines: [] });
  store.clear("a");
  store.clear("a");
  assert.deepEqual([changed, store.get("a"), store.latest], [["a", "a"], null, null]);
});
