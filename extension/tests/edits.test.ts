import assert from "node:assert/strict";
import { test } from "node:test";
import { instructionNote } from "../src/parts/mnemonics";
import { evaluate, touched } from "../src/parts/space";
import type { Access, Space } from "../src/wire";

test("index arithmetic in postfix", () => {
  const at = new Map([["i", 3], ["j", 5]]);
  assert.equal(evaluate("i 64 * j +", at), 197);
  assert.equal(evaluate("i neg 2 //", at), -2);
  assert.equal(evaluate("i neg 4 %", at), 1);
  assert.equal(evaluate("-1 i < j 5 < &", at), 0);
  assert.equal(evaluate("i j max", at), 5);
});

test("what is no arithmetic on the loops is not known", () => {
  const none = new Map<string, number>();
  for (const text of ["?", "", "i", "1 2", "1 +", "constructor", "1 2 __proto__"]) assert.equal(evaluate(text, none), null, text);
});

const access = (index: string[], mask = ""): Access => ({ operand: 0, write: false, line: 0, loops: [0, 1], index, mask });
const loop = (name: string, stop: number, reduce = false) => ({ name, start: 0, stop, step: 1, reduce, parent: -1, line: 0 });
const space = (stop = 4): Space => ({ loops: [loop("i", 3), loop("r", stop, true)], operands: [{ name: "x", dtype: "float32", shape: [3, 4], local: false }], accesses: [] });

test("an iteration touches what its loops say; free loops take every value, masked points nothing", () => {
  assert.deepEqual(touched(space(), access(["i", "r"]), new Map([[0, 2]])).at, [[2, 0], [2, 1], [2, 2], [2, 3]]);
  assert.deepEqual(touched(space(), access(["i", "r"], "r 1 <"), new Map([[0, 2]])).at, [[2, 0]]);
  assert.deepEqual(touched(space(), access(["i", "r"]), new Map([[0, 1], [1, 3]])).at, [[1, 3]]);
  assert.equal(touched(space(), access(["i", "?"]), new Map()).at, null);
});

test("absurd extents are cut short", () => {
  const { at, more } = touched(space(2 ** 40), access(["i", "r"]), new Map([[0, 0]]));
  assert.equal(at!.length, 4096);
  assert.equal(more, 2 ** 40 - 4096);
});

test("instructions have notes, with their kind and width", () => {
  assert.match(instructionNote("        vfmadd231ps     %zmm1, %zmm2, %zmm3"), /^vfmadd231ps: fused multiply-add.*float32, every lane.*512-bit/);
  assert.match(instructionNote("\tvmovntps %ymm0, (%rdi)"), /streaming store.*256-bit/);
  assert.match(instructionNote("\tvbroadcastss 4(%rdi), %zmm2"), /every lane/);
  assert.match(instructionNote("\tprefetcht0 (%rax)"), /ahead of its use/);
  assert.match(instructionNote("\tvmovups 64(%rsp), %zmm1"), /a register that did not fit/);
  assert.match(instructionNote("\tvmovups (%rax), %zmm1 {%k1}"), /only lanes of the mask/);
  for (const name of ["vaddps", "vpaddd", "vmulsd", "addq", "cmpq", "jne", "vxorps", "vgatherdps", "vcmpltps", "kmovw", "leaq", "vpermt2ps", "cmovlq", "vpcmpgtd"]) {
    assert.notEqual(instructionNote(`\t${name} %rax, %rbx`), "", name);
  }
  for (const line of [".LBB1_2:", "", "   .loc 1 4", "\tconstructor x", "\thlt"]) assert.equal(instructionNote(line), "", line);
});
