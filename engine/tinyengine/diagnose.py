"""After a failed Check: which index was out of range, and where. Evaluates only what the indices of the program depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyengine.extent import plain, symbolic
from tinyengine.node import Graph, Node, toposort
from tinyengine.ops import SCATTER
from tinyengine.runtime.buffer import SizeBuffer


def bad_index(graph: Graph, memory: Mapping[int, Any]) -> str:
    """A sentence that names the first index out of range, its position and the line; empty where none is found.
    `memory`: id of a buffer in the graph -> the Buffer that the program was given in its place."""
    from tinyengine.backends.graph_eval import evaluate

    now = {b.symbol.name: int(b.array[0]) for b in memory.values() if isinstance(b, SizeBuffer)}
    for n in graph.nodes:
        if n.op != "gather" and n.op not in SCATTER:
            continue
        extent = (n.src[0] if n.op == "gather" else n).shape[n.arg]
        extent = plain(extent).at(now) if symbolic((extent,)) else extent
        with np.errstate(all="ignore"):
            (values,) = evaluate(Graph([_given(n.src[1], memory)]), sizes=now)
        wrong = np.argwhere((values < 0) | (values >= extent))
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            where = f"\n  at {n.origin[0]}: {n.origin[0].frames[0].text}" if n.origin and n.origin[0].frames else ""
            value, place = int(values[at]), list(at)
            return f"index {value} at position {place} is out of range in {n.op}: expected 0 <= index < {extent}{where}"
    return ""


def _given(root: Node, memory: Mapping[int, Any]) -> Node:
    """The graph below `root` over the memory of this run."""
    new: dict[Node, Node] = {}
    for n in toposort([root]):
        if n.op == "buffer":
            new[n] = n._replace(arg=memory.get(id(n.arg), n.arg))
        else:
            new[n] = n._replace(src=tuple(new[s] for s in n.src))
    return new[root]
