"""Numbers that vary: where a program differs from an earlier one in numbers alone, those that changed become inputs, so that a
loop over `x[i]` or `x * rate` compiles two programs and not one for each turn.

Numbers are the constants of a graph (bools apart), the positions at which its slices begin, and those at which a pad puts its
operand. What is equal to each other in every graph so far stays one input: a constant becomes a number in memory, a position a
variable (`size.Symbol`) from 0 to the last place where the slice still fits. What else differs (a shape, a step) makes another
program, as ever.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.hooks import Decision
from tinyengine.node import Graph, Node
from tinyengine.runtime.buffer import Buffer
from tinyengine.size import Size, Symbol


class Place(NamedTuple):
    """Where a number stands: in node number `node`; `axis` of a slice or pad, -1 for a constant. `kind`: what it may share an
    input with; `last`: the largest value of a position."""

    node: int
    axis: int
    kind: str
    last: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """The graphs that differ in numbers alone. `texts`: the numbers of the newest one; `group[i]`: equal for numbers that were
    equal to each other in all of them; `varies`: groups whose number has changed."""

    texts: Sequence[str]
    group: Sequence[int]
    varies: frozenset[int] = frozenset()

    def with_graph(self, texts: Sequence[str]) -> Family:
        """The family with one more graph, of these numbers: a group whose numbers differ now falls apart."""
        ids: dict[tuple[int, str], int] = {}
        group = [ids.setdefault(key, len(ids)) for key in zip(self.group, texts, strict=True)]
        changed = [g for g, a, b in zip(group, self.texts, texts, strict=True) if a != b]
        kept = [g for g, old in zip(group, self.group, strict=True) if old in self.varies]
        return Family(texts, group, frozenset(changed + kept))


class General(NamedTuple):
    """`graph` with inputs for numbers; what there is to say about each; where they stood: (node number, axis, name of the
    input)."""

    graph: Graph
    decisions: tuple[Decision, ...] = ()
    inputs: tuple[tuple[int, int, str], ...] = ()


_families: dict[str, Family] = {}


def forget() -> None:
    """Take every graph for the first of its family again."""
    _families.clear()


def generalise(graph: Graph) -> General:
    """`graph` with the numbers that have varied as inputs; the graph itself where it is the first of its family."""
    form, places, values = _numbers(graph)
    texts = [repr(v) for v in values]  # 0.0 and -0.0 differ; nan and nan do not
    known = _families.get(form)
    if known is None:
        ids: dict[tuple[str, str], int] = {}
        group = [ids.setdefault((p.kind, t), len(ids)) for p, t in zip(places, texts, strict=True)]
        _families[form] = Family(texts, group)
        return General(graph)
    family = _families[form] = known.with_graph(texts)
    varying = [i for i, g in enumerate(family.group) if g in family.varies]
    if not varying:
        return General(graph)
    return _with_inputs(graph, [(places[i], values[i], family.group[i], known.texts[i]) for i in varying])


def _numbers(graph: Graph) -> tuple[str, list[Place], list[Any]]:
    """(what is equal for graphs that differ in numbers alone, where the numbers stand, the numbers)."""
    parts: list[str] = []
    places: list[Place] = []
    values: list[Any] = []
    number, memory = graph.number, dict[int, int]()
    for i, n in enumerate(graph.nodes):
        arg = n.arg
        if n.op == "buffer":
            arg = memory.setdefault(id(arg), len(memory))
        elif n.op == "const" and n.dtype is not dtypes.bool_:
            places.append(Place(i, -1, n.dtype.name))
            values.append(arg)
            arg = "#"
        elif n.op in ("slice", "pad"):
            kept = []
            for axis, part in enumerate(arg):
                last = _last(n, axis)
                if last:
                    places.append(Place(i, axis, f"position to {last}", last))
                    values.append(part[0])
                kept.append(("#", part[-1]) if last else part)
            arg = kept
        parts.append(f"{n.op}|{n.dtype.name}|{n.shape}|{[number[s] for s in n.src]}|{arg!r}")
    parts.append(repr([number[r] for r in graph.roots]))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest(), places, values


def _last(n: Node, axis: int) -> int:
    """The last position at which a slice may begin, or at which a pad may put its operand, along an axis; 0 where there is no
    choice, or where a size is unknown."""
    whole, part, widths = n.src[0].shape[axis], n.shape[axis], n.arg[axis]
    if not part or not all([type(x) is int for x in (whole, part, *widths)]):
        return 0
    step = widths[-1]
    if n.op == "pad":  # there may be zeros between its elements; a negative width cuts off, and that is no position
        if min(widths) < 0:
            return 0
        whole, part, step = part, whole, step + 1
    return int(whole - 1 - step * (part - 1))


def _with_inputs(graph: Graph, varying: Sequence[tuple[Place, Any, int, str]]) -> General:
    """The graph with inputs for these numbers: place, value, group and what stood there before."""
    taken = {s.name for s in graph.sizes()}
    names: dict[int, str] = {}
    memory: dict[int, Buffer] = {}
    inputs: dict[int, list[tuple[int, Any]]] = {}  # node -> (axis, its input)
    decisions: list[Decision] = []
    for place, value, group, before in varying:
        known = names.get(group)
        word = "number" if place.axis < 0 else "position"
        if known is None:
            count, stem = len(names), "number" if place.axis < 0 else "at"
            while (name := f"{stem}_{count}") in taken:
                count += len(varying)
            names[group] = known = name
            line = graph.nodes[place.node].origin[0]
            spot = f" at {os.path.basename(line.file)}:{line.line}" if line.frames else ""
            why = f"it is {value!r} and was {before}{spot}: one program serves every {word}"
            decisions.append(Decision("record", "vary", (name,), "input", why))
        if place.axis < 0:
            dtype = graph.nodes[place.node].dtype
            if group not in memory:
                memory[group] = Buffer.of(np.array([value]), dtype, known)
            inputs.setdefault(place.node, []).append((-1, memory[group]))
        else:
            size = Size((((Symbol(known, 0, place.last),), 1),), ((known, value),))
            inputs.setdefault(place.node, []).append((place.axis, size))
    new: dict[Node, Node] = {}
    for i, n in enumerate(graph.nodes):
        if i not in inputs:
            src = tuple([new[s] for s in n.src])
            new[n] = n if all([a is b for a, b in zip(src, n.src, strict=True)]) else n._replace(src=src)
        elif n.op == "const":
            new[n] = _everywhere(n, inputs[i][0][1])
        else:
            starts, arg = dict(inputs[i]), list(n.arg)
            for axis, start in starts.items():
                step = arg[axis][-1]
                arg[axis] = (start, step) if n.op == "slice" else (start, sum(arg[axis][:2]) - start, step)
            new[n] = n._replace(src=(new[n.src[0]],), arg=tuple(arg))
    where = tuple([(p.node, p.axis, names[group]) for p, _, group, _ in varying])
    return General(Graph(new[r] for r in graph.roots), tuple(decisions), where)


def _everywhere(n: Node, memory: Buffer) -> Node:
    """The one number in `memory` in place of the constant `n`."""
    out = Node("buffer", n.dtype, (), (), memory, n.origin)
    if n.shape:
        out = Node("reshape", n.dtype, (1,) * len(n.shape), (out,), None, n.origin)
    return out if out.shape == n.shape else Node("expand", n.dtype, n.shape, (out,), None, n.origin)
