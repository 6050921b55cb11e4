"""Graphviz: the graph in the DOT language, and drawn where the `dot` program exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyviz.palette import CATEGORIES
from tinyviz.views import graph as view
from tinyviz.wire import PHASES, Recording

MAX_DRAWN = 2000  # nodes that `dot` lays out in reasonable time


def digraph(r: Recording, program: int) -> Any:
    """A `graphviz.Digraph`: a cluster for each module, an edge for each operand. Raises ImportError without graphviz."""
    import graphviz

    p = r.programs[program]
    drawn = p.simplified or p.recorded
    out = graphviz.Digraph(graphviz.escape(p.name), node_attr={"shape": "box", "style": "rounded", "fontname": "sans-serif"})
    modules: dict[str, list[int]] = {}
    for n in drawn:
        modules.setdefault(p.nodes.module[n] if p.nodes.phase[n] == "forward" else "", []).append(n)
    for i, (module, members) in enumerate(sorted(modules.items())):
        with out.subgraph(name=f"cluster_{i}" if module else None) as sub:
            if module:
                sub.attr(label=graphviz.escape(module), style="dashed")
            for n in members:
                shape = "×".join(map(str, p.nodes.shape[n])) or "scalar"
                phase = p.nodes.phase[n]
                label = graphviz.escape(f"{view.label(p, n)}\n{p.nodes.dtype[n]} {shape}")
                color = CATEGORIES[phase].light if phase in PHASES else "black"
                sub.node(f"n{n}", label=label, color=color, tooltip=graphviz.escape(phase))
    for n, operands in view.operands(p, list(drawn)).items():
        for s in operands:
            out.edge(f"n{s}", f"n{n}")
    return out


def dot(r: Recording, program: int) -> str:
    """The DOT text."""
    return str(digraph(r, program).source)


def draw(r: Recording, program: int, path: Path) -> Path:
    """Draw with `dot` to `path`; its suffix (svg, pdf, png) is the format. ValueError where the graph is too large for `dot`,
    FileNotFoundError where there is no `dot`, or no folder for the file."""
    import graphviz

    size = len(r.programs[program].simplified or r.programs[program].recorded)
    if size > MAX_DRAWN:
        raise ValueError(f"{size} nodes are too many for Graphviz's dot, which takes minutes beyond {MAX_DRAWN}")
    out = digraph(r, program)
    try:
        drawn = out.pipe(format=path.suffix.lstrip(".") or "svg")
    except graphviz.ExecutableNotFound:
        raise FileNotFoundError(
            "there is no program `dot` on the PATH: install Graphviz (Debian: apt install graphviz), or write a .dot file"
        ) from None
    path.write_bytes(drawn)
    return path
