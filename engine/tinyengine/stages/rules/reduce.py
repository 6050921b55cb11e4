"""The rules of `simplify` for reductions, and `split-large-reduction`, which makes work for every core.

Float sums and products promise no order of their terms: rules may combine terms in another order, never drop or invent one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinyengine.extent import Extent, symbolic
from tinyengine.hooks import Decision
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node, Shape, const
from tinyengine.ops import REDUCE
from tinyengine.rules import Rule
from tinyengine.stages.rules.movement import view
from tinyengine.stages.values import is_contraction

REDUCES = tuple(REDUCE)
SPLIT_SIZE = 1 << 16  # elements; below, one core is done before another has started on its part
PART_SIZE = 1 << 13  # elements that a part has at least
BUSY = 0.75  # share of the cores that must have work
PARTS_PER_CORE = 4  # so that a core that is held up does not hold up the sum


def reduced(op: str, x: Node, axes: tuple[int, ...]) -> Node:
    """`x` reduced over `axes`; `x` itself when there are none."""
    shape = tuple([1 if a in axes else d for a, d in enumerate(x.shape)])
    return Node(op, x.dtype, shape, (x,), axes, ()) if axes else x


def _of_nothing(n: Node) -> Node | None:
    identity = {"sum": 0, "prod": 1, "max": n.dtype.min}
    return const(identity[n.op], n.dtype, n.shape) if n.src[0].size == 0 and n.size else None


def _units(n: Node) -> Node | None:
    (x,) = n.src
    axes = tuple([a for a in n.arg if x.shape[a] != 1])
    return reduced(n.op, x, axes) if axes != n.arg else None


def _reduce_reduce(n: Node) -> Node | None:
    (x,) = n.src
    return reduced(n.op, x.src[0], tuple(sorted({*n.arg, *x.arg}))) if x.op == n.op and not is_contraction(x) else None


def _past_permute(n: Node) -> Node | None:
    (p,) = n.src
    if p.op != "permute" or p.src[0].op != n.op or is_contraction(p.src[0]):
        return None
    inner = reduced(n.op, p.src[0], tuple(sorted(p.arg[a] for a in n.arg)))
    return view("permute", inner, n.shape, p.arg)


def _past_reshape(n: Node) -> Node | None:
    """sum(reshape(sum(x))) -> reshape(sum(sum(x))), where the reshape only adds or drops axes of extent 1."""
    (r,) = n.src
    if r.op != "reshape" or r.src[0].op != n.op or is_contraction(r.src[0]):
        return None
    x = r.src[0]
    inside = [a for a, d in enumerate(x.shape) if d != 1]
    outside = [a for a, d in enumerate(r.shape) if d != 1]
    if [x.shape[a] for a in inside] != [r.shape[a] for a in outside]:
        return None
    to = dict(zip(outside, inside, strict=True))
    axes = tuple([to[a] for a in n.arg if a in to])
    return view("reshape", reduced(n.op, x, axes), n.shape)


def _product(shape: Iterable[Any]) -> Any:
    """An int, or a Size where an extent is symbolic."""
    out: Any = 1
    for d in shape:
        out = out * (d.size if isinstance(d, Extent) else d)
    return out


def _many(count: Any, n: Node) -> Node:
    """A number of terms, as a value beside `n`."""
    return const(count, n.dtype, n.shape) if isinstance(count, int) else Node("size", n.dtype, n.shape, (), count, ())


def _without_repeats(n: Node) -> tuple[Node, tuple[int, ...], Any] | None:
    """For a reduction of an expand that combines elements with themselves: (what is to be reduced without that, along which axes,
    how often each element came); None for another."""
    (e,) = n.src
    if e.op != "expand":
        return None
    x = e.src[0]
    repeated = [a for a in n.arg if x.shape[a] == 1]
    count = _product([e.shape[a] for a in repeated])
    if count == 1 or count == 0:
        return None
    shape = tuple([1 if a in repeated else d for a, d in enumerate(e.shape)])
    return x if x.shape == shape else view("expand", x, shape), tuple([a for a in n.arg if a not in repeated]), count


def _sum_expand(n: Node) -> Node | None:
    found = _without_repeats(n)
    if found is None:
        return None
    x, axes, count = found
    return Node("mul", n.dtype, n.shape, (reduced("sum", x, axes), _many(count, n)), None, ())


def _sum_neg(n: Node) -> Node | None:
    (x,) = n.src
    return Node("neg", n.dtype, n.shape, (reduced("sum", x.src[0], n.arg),), None, ()) if x.op == "neg" else None


def _max_expand(n: Node) -> Node | None:
    found = _without_repeats(n)
    return None if found is None else reduced("max", found[0], found[1])


def _constant(n: Node) -> Node | None:
    (x,) = n.src
    if x.op != "const" or n.op == "prod" or 0 in x.shape:
        return None
    if n.op == "max":
        return const(x.arg, n.dtype, n.shape)
    if n.dtype.kind == "bool":
        return const(x.arg, n.dtype, n.shape)  # a sum of bools is their `or`
    if symbolic(x.shape):
        count = _product([x.shape[a] for a in n.arg])
        return Node("mul", n.dtype, n.shape, (const(x.arg, n.dtype, n.shape), _many(count, n)), None, ())
    count = x.size // n.size
    with np.errstate(all="ignore"):
        if n.dtype.is_float:
            return const(n.dtype.convert(n.dtype.convert(np.asarray(x.arg)).astype(np.float64) * count).item(), n.dtype, n.shape)
        return const(np.multiply(n.dtype.numpy.type(x.arg), np.asarray(count).astype(n.dtype.numpy)).item(), n.dtype, n.shape)


RULES: tuple[Rule, ...] = (
    Rule("reduce-nothing", "Of no terms the sum is 0, the product 1, the maximum the least value.", REDUCES, _of_nothing),
    Rule("reduce-unit-axes", "Over an axis of extent 1 there is nothing to combine.", REDUCES, _units),
    Rule("reduce-constant", "n equal terms: the sum is n times the term, the maximum the term.", ("sum", "max"), _constant),
    Rule("reduce-of-reduce", "All terms are combined in the end; their order is free.", REDUCES, _reduce_reduce, sole=True),
    Rule("reduce-past-permute", "The same terms are combined, whatever order the axes have.", REDUCES, _past_permute),
    Rule("reduce-past-reshape", "Axes of extent 1 come and go; the same terms are combined.", REDUCES, _past_reshape),
    Rule("sum-of-expand", "n equal terms add up to n times the term, rounded once instead of n times.", ("sum",), _sum_expand),
    Rule("sum-of-negated", "Every rounding is symmetric about 0, so the sign may wait for the sum.", ("sum",), _sum_neg),
    Rule("max-of-expand", "The maximum of equal terms is the term.", ("max",), _max_expand),
)


# ---- split-large-reduction: after all other rules


def split_rule(graph: Graph, machine: Machine) -> tuple[Rule | None, Mapping[int, Decision]]:
    """The rule for this machine and graph, or None where it would not fire; and, by node number, a Decision for every reduction
    with fewer results than the cores could share (PARTS_PER_CORE each): split, or not, and why."""
    wanted = PARTS_PER_CORE * machine.cores
    decisions = {}
    plans: dict[tuple[str, Shape, Shape], tuple[int, int]] = {}
    for number, n in enumerate(graph.nodes):
        if n.op not in REDUCE or not 0 < n.size < wanted:
            continue
        (x,) = n.src
        busy = busy_share(n.size, machine)
        axis, parts = _parts(x, n, wanted) if busy < BUSY and x.size >= SPLIT_SIZE else (0, 0)
        if parts:
            plans[n.op, x.shape, n.shape] = (axis, parts)
            verdict = f"split in {parts}"
            few = f"{n.size} result" + "s" * (n.size > 1)
            reason = f"{few} would keep {busy:.0%} of {machine.cores} cores busy; {parts} parts along axis {axis} keep all"
            other = {"one reduction": "it would run on few of the cores"}
        else:
            verdict = "one reduction"
            reason = unsplit(machine, n.size, "results", x.size, "no axis divides")
            other = {"split": reason}
        numbers = {"elements": float(x.size), "results": float(n.size), "cores": float(machine.cores), "parts": float(parts)}
        decisions[number] = Decision("simplify", "split-reduction", (number,), verdict, reason, numbers, other)

    def build(n: Node) -> Node | None:
        plan = plans.get((n.op, n.src[0].shape, n.shape))
        return _split(n, *plan) if plan else None

    reason = "The terms are combined in another order, in parts that the cores share."
    return Rule("split-large-reduction", reason, REDUCES, build) if plans else None, decisions


def busy_share(pieces: int, machine: Machine) -> float:
    """The share of the cores that works, one piece at a time on each."""
    return pieces / (-(-pieces // machine.cores) * machine.cores)


def unsplit(machine: Machine, pieces: int, what: str, elements: int, divides: str) -> str:
    """Why work on so many elements in so many pieces (`what` in words) is not split; `divides`: what no axis does."""
    busy = busy_share(pieces, machine)
    if machine.cores == 1:
        return "there is one core"
    if busy >= BUSY:
        return f"{pieces} {what} keep {busy:.0%} of {machine.cores} cores busy"
    if elements < SPLIT_SIZE:
        return f"{elements} elements are done before a second core has begun"
    return f"{divides} evenly into parts that are large enough"


def _parts(x: Node, n: Node, wanted: int) -> tuple[int, int]:
    """(axis, number of parts) for the outermost reduced axis that divides: at least as many parts as keep the cores busy, the
    fewest."""
    least = -(-wanted // n.size)
    most = x.size // n.size // PART_SIZE
    for axis in n.arg:
        if isinstance(x.shape[axis], Extent):
            continue
        for parts in range(least, min(most, x.shape[axis], 64 * least) + 1):
            if x.shape[axis] % parts == 0:
                return axis, parts
    return 0, 0


def _split(n: Node, axis: int, parts: int) -> Node:
    """n = op over axes of x[.., axis, ..] as two reductions, of x[.., parts, extent / parts, ..] and then of the stored parts."""
    (x,) = n.src
    shape = (*x.shape[:axis], parts, x.shape[axis] // parts, *x.shape[axis + 1 :])
    axes = tuple([a if a < axis else a + 1 for a in n.arg])
    partial = reduced(n.op, view("reshape", x, shape), axes)
    stored = Node("contiguous", n.dtype, partial.shape, (partial,), None, ())
    return view("reshape", reduced(n.op, stored, (axis,)), n.shape)
