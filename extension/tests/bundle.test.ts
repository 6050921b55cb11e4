import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { BundleError, readSaved, VERSION } from "../src/bundle";

const BUNDLE = { view: "outline", recording: "r", data: { title: "µs" }, text: "t" };
const packed = (value: unknown) => gzipSync(JSON.stringify(value)).toString("base64");

test("a saved bundle is read back, readable or compressed", async () => {
  assert.deepEqual(await readSaved({ tinyviz: VERSION, bundle: BUNDLE }), BUNDLE);
  assert.deepEqual(await readSaved({ tinyviz: VERSION, gzip: packed(BUNDLE) }), BUNDLE);
});

test("what cannot be read says why", async () => {
  const damaged = packed(BUNDLE).slice(0, 20);
  const cases: [unknown, RegExp][] = [
    [null, /version undefined/],
    [{ tinyviz: 99, bundle: BUNDLE }, /version 99/],
    [{ tinyviz: VERSION }, /no data/],
    [{ tinyviz: VERSION, gzip: "?" }, /damaged/],
    [{ tinyviz: VERSION, gzip: damaged }, /damaged/],
    [{ tinyviz: VERSION, gzip: packed({ view: 3 }) }, /view, recording or text/],
  ];
  for (const [value, why] of cases) {
    await assert.rejects(readSaved(value), (error: Error) => error instanceof BundleError && why.test(error.message), String(why));
  }
});
