// Bundles each tests/*.test.ts and hands them to node's own test runner: no test framework, no build left behind.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const out = mkdtempSync(join(tmpdir(), "tinyviz-"));
try {
  const tests = readdirSync("tests").filter(name => name.endsWith(".test.ts"));
  await build({
    entryPoints: tests.map(name => join("tests", name)),
    outdir: out,
    outExtension: { ".js": ".cjs" },
    bundle: true,
    platform: "node",
    format: "cjs",
    sourcemap: "inline",
  });
  const files = readdirSync(out).map(name => join(out, name));
  process.exitCode = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...files], { stdio: "inherit" }).status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
