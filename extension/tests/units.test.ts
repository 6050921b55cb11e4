import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, count, seconds, some } from "../src/units";

test("numbers have three digits and the unit that fits", () => {
  assert.deepEqual([1.234, 0.0123456, 12e-6, 999.96e-6, 3e-9, 0].map(seconds), ["1.23 s", "12.3 ms", "12 µs", "1.00 ms", "3 ns", "0 ns"]);
  assert.deepEqual([512, 4096, 1536, 3 * 2 ** 20].map(bytes), ["512 B", "4 KiB", "1.50 KiB", "3 MiB"]);
  assert.deepEqual([7, 12345, 2.5e9].map(count), ["7", "12.3 k", "2.50 G"]);
});

test("a word stands in the plural where there is more than one, or none", () => {
  assert.deepEqual([some(1, "launch"), some(2, "launch"), some(0, "run"), some(1, "more line"), some(13400, "node")], ["1 launch", "2 launches", "0 runs", "1 more line", "13400 nodes"]);
});

test("what is missing is not zero", () => {
  assert.deepEqual([seconds(null), bytes(undefined), count(NaN)], ["–", "–", "–"]);
});
