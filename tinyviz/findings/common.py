"""What the findings share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinyviz import analysis, units
from tinyviz.viewdata import RoofPoint
from tinyviz.wire import Decision, Program

NEAR = 0.7  # of a roof's rate: near it
FAR = 0.3  # less: far from it
BIG = 10.0  # launches: a kernel that takes as long as these is big enough for all threads
WAKE = 1e-6  # seconds that a second thread costs beside the launch: its caches hold nothing of this
ITEM = {
    "float64": 8,
    "int64": 8,
    "uint64": 8,
    "float32": 4,
    "int32": 4,
    "uint32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "uint16": 2,
}


@dataclass
class Decisions:
    """A program's decisions, by what they are about: every kernel asks for its own."""

    all: list[Decision]
    by_kernel: dict[int, list[int]] = field(default_factory=dict)
    inline: dict[int, list[int]] = field(default_factory=dict)  # by the node that takes the value in
    _kernels: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, d in enumerate(self.all):
            self.by_kernel.setdefault(d.kernel, []).append(i)
            if d.stage == "fuse" and d.kind == "edge" and d.verdict == "inline" and len(d.nodes) == 2:
                self.inline.setdefault(d.nodes[1], []).append(i)

    def kernels(self, p: Program, node: int) -> list[int]:
        """Those that compute a node."""
        self._kernels = self._kernels or analysis.node_kernels(p)
        return self._kernels.get(node, [])


_last = Decisions([])


def decisions(p: Program) -> Decisions:
    """The index of the program that was asked for last is kept."""
    global _last
    if _last.all is not p.decisions or sum(map(len, _last.by_kernel.values())) != len(p.decisions):
        _last = Decisions(p.decisions)
    return _last


def about(p: Program, kernel: int, stage: str, kind: str) -> Iterator[tuple[int, Decision]]:
    """(number, decision) of a kernel's decisions of one kind."""
    mine = decisions(p).by_kernel.get(kernel, ())
    return ((i, p.decisions[i]) for i in mine if p.decisions[i].stage == stage and p.decisions[i].kind == kind)


def said(x: RoofPoint) -> str:
    """Where the time of a kernel comes from."""
    return "measured" if x.seconds is not None else "predicted"


def nbytes(p: Program, node: int) -> int:
    """Of a node's value."""
    n = ITEM.get(p.nodes.dtype[node], 1)
    for d in p.nodes.shape[node]:
        n *= units.most(d)
    return n
