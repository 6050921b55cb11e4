"""What the stages after simplify mean by a value: a node that is not just a view of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tinyengine.extent import same_memory
from tinyengine.node import Node, Shape
from tinyengine.ops import SCATTER

REACH = 12  # how far below a factor a single look goes


def base(n: Node) -> Node:
    """The node whose memory holds `n`: reshapes and contiguous() of something computed share it."""
    while n.op == "contiguous" or (n.op == "reshape" and same_memory(n.src[0].shape, n.shape)):
        n = n.src[0]
    return n


def is_leaf(n: Node) -> bool:
    return n.op in ("buffer", "const", "iota", "size")


def squeeze(shape: Shape) -> Shape:
    """The extents that are not 1."""
    return tuple(d for d in shape if d != 1)


def is_contraction(n: Node, known: dict[Node, frozenset[int]] | None = None) -> bool:
    """A sum of products in which each factor is used again for other results: matrix products and convolutions.
    `known`: `repeated` of every node of the graph, where the caller has it."""
    if n.op != "sum" or n.size <= 1:
        return False
    m = n.src[0]
    while m.op == "cast" or m.is_movement:  # the gradient of a convolution sums a product that `place` has moved
        m = m.src[0]
    if m.op != "mul" or m.src[0] is m.src[1]:
        return False
    return all(known[s] if known is not None else _look(s, REACH) for s in m.src)


def repeated(nodes: Iterable[Node]) -> dict[Node, frozenset[int]]:
    """For each node (operands first) the axes along which its elements repeat: expanded below, or seen through overlapping
    windows."""
    known: dict[Node, frozenset[int]] = {}
    for n in nodes:
        known[n] = _repeated(n, known.__getitem__)
    return known


def _look(n: Node, depth: int) -> frozenset[int]:
    return _repeated(n, lambda s: _look(s, depth - 1)) if depth else frozenset()


def _repeated(n: Node, of: Callable[[Node], frozenset[int]]) -> frozenset[int]:
    if n.op == "const":
        return frozenset(a for a, d in enumerate(n.shape) if d > 1)
    if not n.src or n.is_reduce or n.is_scan or n.op in ("gather", "assign", *SCATTER):
        return frozenset()
    below = of(n.src[0])
    if n.op == "expand":
        return below | {a for a, (s, d) in enumerate(zip(n.src[0].shape, n.shape, strict=True)) if s != d}
    if n.op == "permute":
        return frozenset(d for d, a in enumerate(n.arg) if a in below)
    if n.op in ("window", "place"):
        return below | {n.arg[0], n.arg[1]}
    if n.op == "reshape":
        inside = [a for a, d in enumerate(n.src[0].shape) if d != 1]
        outside = [a for a, d in enumerate(n.shape) if d != 1]
        if [n.src[0].shape[a] for a in inside] != [n.shape[a] for a in outside]:
            return frozenset()
        return frozenset(o for i, o in zip(inside, outside, strict=True) if i in below)
    for s in n.src[1:]:
        if below:
            below &= of(s)
    return below
