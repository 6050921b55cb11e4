// src/widget.ts → tinyviz/static/widget.js, the ES module that anywidget, and an exported page, load.
import { build } from "esbuild";

await build({
  entryPoints: ["src/widget.ts"],
  outfile: "../tinyviz/static/widget.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
});
