"""Values inside a program: of chosen nodes of its recorded graph, computed beside it on the same memory, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import pipeline
from tinyengine.backends.graph_eval import Evaluator
from tinyengine.node import Graph, Node, toposort
from tinyengine.runtime.buffer import Buffer

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

Array = np.ndarray[Any, Any]


def without_updates(roots: Sequence[Node], memory: Mapping[int, Buffer] | None = None) -> dict[Node, Node]:
    """Every node below `roots` -> the same value in a graph that writes nothing: an update is its new content.
    `memory`: id of a buffer -> the one to read in its place."""
    new: dict[Node, Node] = {}
    for n in toposort(roots):
        if n.op == "assign":
            new[n] = new[n.src[1]]
        elif n.op == "buffer":
            new[n] = n._replace(arg=memory.get(id(n.arg), n.arg)) if memory else n
        else:
            new[n] = n._replace(src=tuple([new[s] for s in n.src]))
    return new


class Probe:
    """A second program, for the values of `nodes` of `lowered.graph` only."""

    def __init__(self, lowered: Lowered, nodes: Sequence[Node]) -> None:
        given = {id(b): i for i, b in enumerate(lowered.buffers)}
        new = without_updates(nodes)
        self._plain = {i: given[id(new[n].arg)] for i, n in enumerate(nodes) if new[n].op == "buffer"}
        self._nodes = list(nodes)
        computed = [new[n] for n in nodes if new[n].op != "buffer"]
        self.lowered = pipeline.lower(Graph(computed), lowered.choices, lowered.machine, lowered.backend) if computed else None
        self._given = [given[id(b)] for b in self.lowered.buffers] if self.lowered is not None else []

    def run(self, memory: Sequence[Buffer]) -> list[Array]:
        """The values on this memory, one Buffer per slot of the first program, as arrays that nobody else holds."""
        values: list[Array] = []
        if self.lowered is not None:
            mine = [memory[i] for i in self._given]
            mine += [Buffer(s.size, s.dtype) for s in self.lowered.outputs]
            if not self.lowered.empty:
                self.lowered.executable.run(mine, False)
            values = [mine[at].array for at in self.lowered.root_slots]
        computed = iter(values)
        out = []
        for i, n in enumerate(self._nodes):
            array = memory[self._plain[i]].array if i in self._plain else next(computed)
            out.append(np.array(array[: n.size]).reshape(n.shape))
        return out


@dataclass(frozen=True)
class Fault:
    """The first value that is not finite although everything it was made of is: `what` is NaN or Inf; `count` of them, the first
    at `place`; `operands`: what stood there in its operands (as far as they have that place)."""

    node: Node
    what: str
    count: int
    place: tuple[int, ...]
    operands: tuple[float, ...]


def replay(lowered: Lowered, memory: Sequence[Buffer]) -> tuple[Fault | None, set[Node]]:
    """Evaluate the program's recorded graph on this memory with the reference, writing nothing: where values stop being finite,
    and all nodes whose values are not. Constants of the program that are infinite (masks) are meant and are no fault."""
    given = {id(b): m for b, m in zip(lowered.buffers, memory, strict=False)}
    new = without_updates(lowered.graph.roots, given)
    evaluator = Evaluator(Graph([new[r] for r in lowered.graph.roots]), sizes=lowered.values)
    evaluator.run()
    bad: set[Node] = set()
    meant: set[Node] = set()
    first: Fault | None = None
    for n in lowered.graph.nodes:
        value = evaluator.values[new[n]]
        if value.dtype.kind != "f" or np.isfinite(value).all():
            continue
        if not np.isnan(value).any() and (not n.src or any(s in meant for s in n.src)):
            meant.add(n)  # an infinity that was given, or handed on
            continue
        if first is None and n.op != "buffer" and not any(s in bad for s in n.src):
            first = _fault(n, value, [evaluator.values[new[s]] for s in n.src])
        bad.add(n)
    return first, bad


def _fault(n: Node, value: Array, operands: Sequence[Array]) -> Fault:
    wrong = np.argwhere(~np.isfinite(value))
    place = tuple(int(i) for i in wrong[0])
    what = "NaN" if np.isnan(value[place]) else "Inf"
    there = [float(x[place]) for x in operands if x.shape == value.shape]
    return Fault(n, what, len(wrong), place, tuple(there))
