"""One self-contained interactive page: the widget's own module, a model that answers it, and the data. No network."""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyviz.explore import Explorer

# What the widget's module needs of a model: two traits, kept here; nobody answers messages.
SHIM = """
const bytes = Uint8Array.from(atob(document.getElementById("data").textContent.trim()), c => c.charCodeAt(0));
const traits = { payload: new DataView(bytes.buffer), selection: null };
traits.text = JSON.parse(document.getElementById("text").textContent);
// the selection stands in the address, so that a link leads to one step, node or kernel: page.html#firing:0.2.31
const linked = () => {
  const [, kind, id] = /^#([a-z]+):([0-9.]+)$/.exec(location.hash) ?? [];
  return kind ? { kind, id } : null;
};
traits.selection = linked();
addEventListener("hashchange", () => model.set("selection", linked()));
const heard = {};
const model = {
  get: name => traits[name],
  set: (name, value) => {
    if (JSON.stringify(traits[name]) === JSON.stringify(value)) return;
    traits[name] = value;
    const address = value ? `#${value.kind}:${value.id}` : location.pathname + location.search;
    if (name === "selection") history.replaceState(null, "", address);
    for (const f of heard["change:" + name] ?? []) f();
  },
  save_changes: () => {}, send: () => {},
  on: (event, f) => void (heard[event] ??= []).push(f),
  off: (event, f) => { heard[event] = (heard[event] ?? []).filter(g => g !== f); },
};
const source = document.getElementById("module").textContent;
import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))
  .then(({ default: widget }) => widget.render({ model, el: document.getElementById("explorer") }));
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root{{color-scheme:light dark}}
body{{margin:12px;font-family:system-ui,sans-serif;background:Canvas;color:CanvasText}}
h1{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}</style>
</head><body>
<header><h1>{title}</h1></header>
<main id="explorer"><noscript><pre>{text}</pre></noscript></main>
<script type="application/json" id="text">{json}</script>
<script type="text/plain" id="data">{data}</script>
<script type="text/plain" id="module">{module}</script>
<script type="module">{shim}</script>
</body></html>
"""


def document(shown: Explorer) -> str:
    """The page as text. Raises FileNotFoundError in a source tree in which the widget's bundle was not built."""
    from tinyviz.widget import bundle_source

    r, text = shown.recording.data, shown.text
    bundle = {"view": shown.view or "explorer", "recording": r.id, "data": shown.page, "text": text}
    packed = gzip.compress(json.dumps(bundle, separators=(",", ":"), allow_nan=False).encode(), mtime=0)
    return PAGE.format(
        title=html.escape(f"tinyviz: {r.title}"),
        text=html.escape(text),
        json=json.dumps(text).replace("<", "\\u003c"),
        data=base64.b64encode(packed).decode(),
        module=bundle_source().replace("</script", "<\\/script"),
        shim=SHIM,
    )


def write(shown: Explorer, path: str | os.PathLike[str]) -> Path:
    """Write the page; returns its path."""
    path = Path(path)
    path.write_text(document(shown), encoding="utf-8")
    return path
