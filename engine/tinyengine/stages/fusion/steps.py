"""What each decision of stage 4 changed: derived again, by doing the (deterministic) stage once more.

The kernels to be are told as lines, one for each and one for each value in it, so that what a decision changes is few of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tinyengine.choices import Choices
from tinyengine.hooks import Decision
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node
from tinyengine.stages.fuse import Fuser
from tinyengine.stages.fusion.groups import Fusion, Group

#: kind of decision, or verdict of an edge -> (why it is allowed, the function of `Fuser` that decides it)
RULES: dict[str, tuple[str, Callable[..., Any]]] = {
    "inline": ("A value may be computed where it is used, once for each use.", Fuser.decide),
    "at loop": ("A value may be computed once per iteration of a loop in which it does not change.", Fuser.decide),
    "whole": ("A value that is stored whole may be read by any kernel that runs later.", Fuser.decide),
    "join": ("Kernels over the same space that do not wait for each other may share their loops.", Fuser.can_join),
    "pin": ("A choice of yours comes before the engine's own, where it is legal.", Fuser._find_choices),
}


class Line(NamedTuple):
    """How a kernel has a value: stores, keeps, inlines. `node`: the value; None: the line is about the kernel itself."""

    text: str
    node: Node | None


class Step(NamedTuple):
    """One decision; `kernels`: all kernels as they are then, by the order in which they came to be; `seconds` since the decision
    before."""

    decision: Decision
    kernels: Mapping[int, tuple[Line, ...]]
    seconds: float


def rule(d: Decision) -> str:
    """The entry of `RULES` that a decision belongs to."""
    if d.kind != "edge":
        return d.kind
    return next(name for name in ("inline", "at loop", "whole") if d.verdict.startswith(name))


def explain(graph: Graph, choices: Choices, machine: Machine) -> tuple[tuple[Step, ...], dict[int, int]]:
    """Every decision of `fuse.run` in order, with the kernels after it; and for each kernel that ever was, by the number that it
    has in `Step.kernels`, the position in `Fusion.groups` of the one that it is or has become a part of."""
    fuser = _Watched(graph, choices, machine)
    place = {g: i for i, g in enumerate(fuser.run().groups)}
    return tuple(fuser.steps), {i: place[fuser.find(g)] for i, g in enumerate(fuser.roots)}


class _Watched(Fuser):
    def __init__(self, graph: Graph, choices: Choices, machine: Machine) -> None:
        super().__init__(graph, choices, machine)
        self.steps: list[Step] = []
        self.seen: dict[Group, tuple[Any, tuple[Line, ...]]] = {}
        self.began = time.perf_counter()

    def run(self) -> Fusion:
        self.began = time.perf_counter()
        return super().run()

    def note(self, *args: Any, **kwargs: Any) -> None:
        super().note(*args, **kwargs)
        seconds = time.perf_counter() - self.began
        self.steps.append(Step(self.decisions[-1], self.see(), seconds))
        self.began = time.perf_counter()  # what looking costs is no part of the stage

    def see(self) -> Mapping[int, tuple[Line, ...]]:
        """The kernels of now. The lines of one are made anew only when something came to it."""
        out = {}
        for i, g in enumerate(self.roots):
            if g.merged_into is None:
                mark = (len(g.outputs), len(g.also_stored), len(g.at), len(g.inlined))
                known = self.seen.get(g)
                if known is None or known[0] != mark:
                    known = self.seen[g] = (mark, lines(g, self.graph))
                out[i] = known[1]
        return out


def lines(g: Group, graph: Graph) -> tuple[Line, ...]:
    """A kernel to be: its space, and how it has each value, in the order of the graph."""
    number = graph.number
    how = {v: "inlines" for v in g.inlined}
    how |= {v: f"keeps {g.place(v)}:" for v in g.at}
    how |= {v: "stores" for v in g.outputs}
    how |= {v: f"stores {g.place(v)}:" for v in g.also_stored if v in g.at}
    return (Line(f"over {list(g.space)}", None), *(Line(how[v], v) for v in sorted(how, key=number.__getitem__)))
