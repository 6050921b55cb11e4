import assert from "node:assert/strict";
import { test } from "node:test";
import { asSelection, selectionOf, SelectionStore, type Selection } from "../src/selection";

test("two bound stores come to rest", () => {
  const [a, b] = [new SelectionStore(), new SelectionStore()];
  let calls = 0;
  a.subscribe(selection => (calls++, b.set(selection)));
  b.subscribe(selection => (calls++, a.set(selection)));
  a.set({ kind: "kernel", id: "k1" });
  assert.deepEqual(b.value, { kind: "kernel", id: "k1" });
  assert.equal(calls, 2);
});

test("a listener that fails does not keep the others from hearing", context => {
  const error = context.mock.method(console, "error", () => undefined);
  const store = new SelectionStore();
  const heard: (Selection | null)[] = [];
  store.subscribe(() => { throw new Error("broken view"); });
  store.subscribe(selection => heard.push(selection));
  store.set({ kind: "node", id: "3" });
  assert.deepEqual(heard, [{ kind: "node", id: "3" }]);
  assert.equal(error.mock.callCount(), 1);
});

test("an unsubscribed listener hears nothing", () => {
  const store = new SelectionStore();
  let heard = 0;
  store.subscribe(() => heard++)();
  store.set({ kind: "node", id: "1" });
  assert.equal(heard, 0);
});

test("views of one recording share a store, others do not", () => {
  assert.equal(selectionOf("a"), selectionOf("a"));
  assert.notEqual(selectionOf("a"), selectionOf("b"));
});

test("only a kind and an id make a selection", () => {
  assert.deepEqual(asSelection({ kind: "line", id: "c:3", more: 1 }), { kind: "line", id: "c:3" });
  for (const wrong of [null, undefined, 3, "k", { kind: "line" }, { kind: 1, id: "x" }]) assert.equal(asSelection(wrong), null);
});
