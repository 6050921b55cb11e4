"""What the findings share."""

from __future__ import annotations

from collections.abc import Iterator

from tinyviz import units
from tinyviz.viewdata import RoofPoint
from tinyviz.wire import Decision, Program

NEAR = 0.7  # of a roof's rate: near it
FAR = 0.3  # less: far from it
BIG = 10.0  # launches: a kernel that takes as long as these is big enough for all threads
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


def about(p: Program, kernel: int, stage: str, kind: str) -> Iterator[tuple[int, Decision]]:
    """(number, decision) of a kernel's decisions of one kind."""
    return ((i, d) for i, d in enumerate(p.decisions) if d.kernel == kernel and d.stage == stage and d.kind == kind)


def said(x: RoofPoint) -> str:
    """Where the time of a kernel comes from."""
    return "measured" if x.seconds is not None else "predicted"


def nbytes(p: Program, node: int) -> int:
    """Of a node's value."""
    n = ITEM.get(p.nodes.dtype[node], 1)
    for d in p.nodes.shape[node]:
        n *= units.most(d)
    return n
