import assert from "node:assert/strict";
import { test } from "node:test";
import { compose, layers, type Part } from "../src/parts/compose";
import { verdictOf } from "../src/parts/decision";
import { fit } from "../src/parts/fit";
import type { Group } from "../src/parts/graphscene";
import { openSome } from "../src/parts/grouping";
import { colorRules } from "../src/parts/head";
import { gaps, lanes, span, ticks } from "../src/parts/lanes";
import { curve, Places, type Item, type Scene } from "../src/parts/scene";
import { parse, type Fields } from "../src/parts/search";
import { iterationOf } from "../src/parts/space";
import { groundOf } from "../src/theme";
import { percent, total } from "../src/units";
import type { Space } from "../src/wire";
import { decades } from "../src/views/roofline";

const part = (id: string, x: number, y: number, parts?: Part[]): Part => ({ id, wish: { x, y }, ...(parts ? { parts } : {}) });

test("layers go by longest path; what nothing comes into stands above its first user", () => {
  const parts = ["a", "b", "c", "w"].map((id, i) => part(id, i, i));
  const rows = layers(parts, [["a", "b"], ["b", "c"], ["w", "c"]]).map(row => row.map(each => each.id));
  assert.deepEqual(rows, [["a"], ["b", "w"], ["c"]]);
});

test("a cycle between groups is laid out too", () => {
  const rows = layers([part("a", 0, 0), part("b", 0, 1)], [["a", "b"], ["b", "a"]]);
  assert.deepEqual(rows.flat().map(each => each.id).sort(), ["a", "b"]);
});

test("groups hold their parts, and nothing overlaps", () => {
  for (const across of [0, 3]) {
    const inside = [part("n1", 0, 0), part("n2", 5, 0), part("n3", 0, 9)];
    const { places, width, height } = compose([part("g", 0, 0, inside), part("x", 0, 20), part("y", 9, 20)], [["n1", "n3"], ["n2", "n3"], ["n3", "x"], ["n3", "y"]], across);
    const box = (id: string) => {
      const { x, y, w, h } = places.get(id)!;
      return { left: x - w / 2, right: x + w / 2, top: y - h / 2, bottom: y + h / 2 };
    };
    const apart = (a: string, b: string) => box(a).right <= box(b).left || box(b).right <= box(a).left || box(a).bottom <= box(b).top || box(b).bottom <= box(a).top;
    for (const id of ["n1", "n2", "n3"]) {
      assert.ok(box(id).left >= box("g").left && box(id).right <= box("g").right && box(id).top >= box("g").top && box(id).bottom <= box("g").bottom, id);
    }
    for (const [a, b] of [["n1", "n2"], ["n1", "n3"], ["n2", "n3"], ["g", "x"], ["g", "y"], ["x", "y"]] as const) assert.ok(apart(a, b), `${a} ${b}`);
    assert.ok(box("n1").bottom <= box("n3").top, "values flow downwards within a group");
    for (const id of places.keys()) assert.ok(box(id).left >= 0 && box(id).right <= width && box(id).top >= 0 && box(id).bottom <= height, id);
    if (across) assert.ok(box("g").right < box("x").left);
    else assert.ok(box("g").bottom < box("x").top);
  }
});

test("what is folded stands beside its box, and a long way is broken into bands", () => {
  const folded = { ...part("c", 0, 0, ["f", "b1", "b2", "b3", "b4"].map(id => part(id, 0, 0))), beside: true };
  const { places } = compose([folded, part("after", 0, 9)], [["f", "after"]]);
  const at = (id: string) => places.get(id)!;
  assert.deepEqual(["b1", "b2", "b3"].map(id => at(id).y), [at("f").y, at("f").y, at("f").y]);
  assert.ok(at("f").x < at("b1").x && at("b1").x < at("b2").x && at("b4").y > at("f").y && at("b4").x === at("b1").x);
  assert.ok(at("after").y > at("b4").y);
  const chain = Array.from({ length: 40 }, (_, i) => part(`p${i}`, i, 0));
  const links = chain.slice(1).map((each, i) => [`p${i}`, each.id] as const);
  const { width, height } = compose(chain, links, 2);
  assert.ok(width / height > 1.2 && width / height < 3.3, `${width} × ${height}`);
});

test("groups open from the outside while there is room, modules before lines before the optimizer", () => {
  const group = (id: string, parent: string, category = "forward", line = false): Group => ({ id, parent, category, title: id, detail: "", key: line ? { kind: "line", id: "1" } : null });
  const groups = [group("o", "", "optimizer"), group("l", "", "forward", true), group("m", ""), group("m1", "m"), group("m2", "m")];
  const home = (node: number) => [["o", "l", "m", "m1", "m2"][node % 5]!];
  const nodes = Array.from({ length: 50 }, (_, i) => i);
  assert.deepEqual([...openSome({ groups, home }, nodes, 3)], []);
  assert.deepEqual([...openSome({ groups, home }, nodes, 15)], ["m"]);
  assert.deepEqual([...openSome({ groups, home }, nodes, 40)], ["m", "m1", "m2"]);
  assert.deepEqual([...openSome({ groups, home }, nodes, 50)].sort(), ["l", "m", "m1", "m2", "o"]);
});

test("text is cut to the width that it has", () => {
  assert.equal(fit("short", 200, "12px x"), "short");
  assert.equal(fit("a".repeat(40), 100, "12px x"), `${"a".repeat(12)}…`);
  assert.equal(fit("ab", 1, "12px x"), "…");
});

const item = (id: string, x: number, y: number): Item => ({
  key: { kind: "node", id }, node: 0, group: "", x, y, w: 100, h: 40, title: id, detail: "", tip: "", category: "", shape: "op", bar: null, change: "", root: false,
});

test("the place under the pointer is found, and edges that can be selected", () => {
  const items = [item("a", 60, 30), item("b", 500, 400)];
  const scene: Scene = { items, frames: [], edges: [{ from: 0, to: 1, kind: "whole", key: { kind: "decision", id: "0.1" } }], width: 600, height: 500 };
  const places = new Places(scene);
  assert.equal(places.item(100, 45), items[0]);
  assert.equal(places.item(460, 385), items[1]);
  assert.equal(places.item(300, 200), null);
  assert.equal(places.edge(280, 215, 20), scene.edges[0]);
  assert.equal(places.edge(280, 100, 10), null);
});

test("edges leave from the side that faces their user", () => {
  const [a, below, beside] = [item("a", 100, 100), item("b", 120, 300), item("c", 400, 100)];
  assert.deepEqual(curve(a, below).slice(0, 2), [100, 120]);
  assert.deepEqual(curve(a, below).slice(6), [120, 280]);
  assert.deepEqual(curve(a, beside).slice(0, 2), [150, 100]);
  assert.deepEqual(curve(a, below, { kind: "stub" }).slice(6), [95, 280]);
});

const fields: Fields = { name: "%17 sum (1,)", op: "sum", dtype: "float32", shape: "64×10 64,10", module: "model.fc1", phase: "backward", line: "In [3]:12 h = f(x)", kernel: "k2 matmul" };

test("a search finds by any field, by one, and by regular expression", () => {
  for (const query of ["sum", "op:sum", "SUM fc1", "shape:64×10", "line:12", "/^s.m$/", "module:/fc\\d/", "kernel:k2 phase:backward", "%17"]) assert.ok(parse(query)(fields), query);
  for (const query of ["op:mul", "op:su", "line:1", "line:120", "sum exp", "/^um/", "dtype:int"]) assert.ok(!parse(query)(fields), query);
  assert.throws(() => parse("/(/"), SyntaxError);
});

const segment = (rows: [lane: string, start: number, seconds: number][]) => ({
  lane: rows.map(row => row[0]), start: rows.map(row => row[1]), seconds: rows.map(row => row[2]),
  label: rows.map(() => ""), category: rows.map(() => ""), call: rows.map(() => -1), line: rows.map(() => -1),
});

test("bars that overlap stand below each other; gaps are where nothing ran", () => {
  const all = lanes(segment([["kernels", 0, 2], ["host", 0, 9], ["kernels", 1, 2], ["kernels", 5, 1]]));
  assert.deepEqual(all.map(lane => [lane.name, lane.rows]), [["kernels", 2], ["host", 1]]);
  assert.deepEqual(gaps(all[0]!), [[3, 5]]);
  assert.equal(lanes(segment([["kernels", 1.74985e-3, 1.2117e-4], ["kernels", 1.87101e-3, 1e-6]]))[0]!.rows, 1, "rounding is no overlap");
  assert.deepEqual(span(all), [0, 9]);
  assert.deepEqual(span([]), [0, 1]);
});

test("marks of an axis are round, and few", () => {
  assert.deepEqual(ticks(0, 10e-6, 5).map(time => Math.round(time * 1e6)), [0, 2, 4, 6, 8, 10]);
  for (const [start, end] of [[0, 1e-9], [3, 3000], [-1, 1]] as const) assert.ok(ticks(start, end, 6).length <= 7);
  assert.deepEqual(ticks(1, 1, 5), [1]);
});

test("verdicts have one category each", () => {
  assert.deepEqual(["inline", "at loop i0, i1", "whole, forwarded in a register", "kept apart"].map(verdictOf), ["inline", "at loop", "whole", ""]);
});

test("only colours pass from data into a style sheet", () => {
  const good = { name: "at loop", label: "", light: "#112233", dark: "#aabbcc", mark: "l" };
  assert.match(colorRules([good]), /--tv-c-at-loop:#112233;.*--tv-c-at-loop:#aabbcc;/);
  assert.doesNotMatch(colorRules([{ ...good, light: "red;}body{display:none" }]), /body/);
  assert.doesNotMatch(colorRules([{ ...good, name: "x}*{color:red" }]), /\*\{/);
});

test("dark and light are told from the ground", () => {
  assert.deepEqual(["rgb(255, 255, 255)", "rgb(17, 17, 17)", "rgba(0, 0, 0, 0)", "color(srgb 0.1 0.1 0.1)"].map(groundOf), ["light", "dark", "light", "dark"]);
});

test("shares and sums", () => {
  assert.deepEqual([0.5, 0.0123, null, 0].map(percent), ["50 %", "1.2 %", "–", "0 %"]);
  assert.deepEqual([total([1, 2]), total([1, null]), total([])], [3, null, 0]);
});

test("the axes of the roofline hold every point and every ridge, in whole decades", () => {
  const roofs = [{ name: "L1", rate: 1e12, holds: null }, { name: "memory", rate: 2e10, holds: null }, { name: "arithmetic", rate: 5e11, holds: null }];
  const point = { kernel: 0, category: "", flops: 1, nbytes: 1, intensity: 0.05, rate: 3e8, rate_predicted: 2e7, roof: "", seconds_roof: null, seconds: null, seconds_predicted: null, wasted: null };
  assert.deepEqual(decades(roofs, [point, { ...point, intensity: null, rate: null, rate_predicted: null }]), [-2, 2, 7, 12]);
  assert.equal(decades(roofs.slice(0, 2), [point]), null);
  assert.equal(decades(roofs.slice(2), [point]), null);
});

test("an element leads to the iteration that touches it", () => {
  const space: Space = {
    loops: [{ name: "i", start: 0, stop: 6, step: 1, parent: -1, reduce: false, line: 0 }, { name: "j", start: 0, stop: 4, step: 1, parent: 0, reduce: false, line: 1 }],
    operands: [{ name: "y", dtype: "float32", shape: [6, 8], local: false, read: false, written: true } as unknown as Space["operands"][number]],
    accesses: [{ operand: 0, write: true, index: ["i", "j 2 * 1 +"], mask: "i 4 <", loops: [0, 1], line: 0 } as unknown as Space["accesses"][number]],
  };
  const to = (row: number, column: number) => iterationOf(space, space.accesses[0]!, ([i, j]) => i === row && j === column);
  assert.deepEqual([...to(3, 5)!], [[0, 3], [1, 2]]);
  assert.equal(to(3, 4), null, "an even column is never written");
  assert.equal(to(5, 5), null, "masked");
  assert.equal(iterationOf(space, { ...space.accesses[0]!, index: ["?", "j"] }, () => true), null, "it depends on data");
});
