"""The rules of `simplify` for reductions, and `split-large-reduction`, which makes work for every core.

Float sums and products promise no order of their terms: rules may combine terms in another order, never drop or invent one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from tinyengine.extent import Extent, symbolic
from tinyengine.hooks import Decision
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node, Shape, const
from tinyengine.ops import ELEMENTWISE, REDUCE
from tinyengine.rules import Rule
from tinyengine.stages.rules.movement import view
from tinyengine.stages.values import is_contraction

REDUCES = tuple(REDUCE)
SPLIT_SIZE = 1 << 16  # elements; below, one core is done before another has started on its part
PART_SIZE = 1 << 13  # elements that a part has at least
BUSY = 0.75  # share of the cores that must have work
LEFT_OVER = 64  # elements that each part has for one that may be left over
CHAINS = 4  # vectors of results that are added to in turn, so that no addition waits for the one before
EMPTY = 1.5  # times as many cycles as full vectors would need, from which on neighbours stand beside each other
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


def _past_repeats(n: Node) -> Node | None:
    """sum(expand(x) * c) -> expand(sum(x * c)) for the axes that stay and along which all operands repeat."""
    (x,) = n.src
    operands = x.src if x.op in ELEMENTWISE else (x,)
    repeats = [s for s in operands if s.op == "expand"]
    if not repeats or any(s.op not in ("expand", "const") for s in operands):
        return None
    once = [a for a, d in enumerate(n.shape) if d != 1 and all(s.src[0].shape[a] == 1 for s in repeats)]
    if not once or 0 in x.shape:
        return None
    shape = tuple([1 if a in once else d for a, d in enumerate(x.shape)])

    def one(s: Node) -> Node:
        if s.op == "const":
            return const(s.arg, s.dtype, shape)
        return view("expand", s.src[0], shape) if s.src[0].shape != shape else s.src[0]

    y = one(x) if x.op == "expand" else Node(x.op, x.dtype, shape, tuple(map(one, operands)), x.arg, ())
    return view("expand", reduced(n.op, y, n.arg), n.shape)


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
    Rule("reduce-past-repeats", "Equal terms combined in one order give one result, which repeats.", REDUCES, _past_repeats),
    Rule("max-of-expand", "The maximum of equal terms is the term.", ("max",), _max_expand),
)


# ---- split-large-reduction: after all other rules


class Parts(NamedTuple):
    """How a reduction is taken apart along `axis`: `parts` that follow each other, for the cores, and in each of them `beside`
    neighbours that are combined apart, so that rows of few results fill vectors."""

    axis: int
    parts: int
    beside: int


def split_rule(graph: Graph, machine: Machine) -> tuple[Rule | None, Mapping[int, Decision]]:
    """The rule for this machine and graph, or None where it would not fire; and, by node number, a Decision for every reduction
    with fewer vectors of results than the cores could share (PARTS_PER_CORE each), or with rows of results that fill none: split,
    or not, and why."""
    wanted = PARTS_PER_CORE * machine.cores
    decisions = {}
    plans: dict[tuple[str, Shape, Shape], Parts] = {}
    for number, n in enumerate(graph.nodes):
        if n.op not in REDUCE or n.size == 0:
            continue
        (x,) = n.src
        row, rows = _row(n, x)
        lanes = max(1, machine.vector_bytes // n.dtype.itemsize)
        beside = _beside(n, row, lanes)
        pieces = rows if beside > 1 else rows * -(-row // lanes)
        if beside == 1 and pieces >= wanted:
            continue
        busy = busy_share(pieces, machine)
        plan = None
        if x.size >= SPLIT_SIZE and (busy < BUSY or beside > 1):
            plan = _parts(x, n, -(-wanted // pieces) if busy < BUSY else 1, beside)
        count = f"{n.size} result" + "s" * (n.size > 1)
        reasons = []
        if plan is not None:
            plans[n.op, x.shape, n.shape] = plan
            if plan.parts > 1:
                reasons.append(
                    f"{count} would keep {busy:.0%} of {machine.cores} cores busy;"
                    f" {plan.parts} parts along axis {plan.axis} keep all"
                )
            if plan.beside > 1:
                reasons.append(
                    f"rows of {row} results leave lanes empty; {plan.beside} neighbours along axis {plan.axis} beside each other"
                    " fill them"
                )
            verdict = "split in " + " times ".join(str(k) for k in (plan.parts, plan.beside) if k > 1)
            other = {"one reduction": "it would run on few of the cores" if plan.parts > 1 else "most lanes would be empty"}
        else:
            verdict = "one reduction"
            reasons.append(unsplit(machine, pieces, "results" if row == 1 else "vectors of results", x.size, "no axis divides"))
            other = {"split": reasons[0]}
        numbers = {
            "elements": float(x.size), "results": float(n.size), "cores": float(machine.cores),
            "parts": float(plan.parts if plan is not None else 0),
        }  # fmt: skip
        decisions[number] = Decision("simplify", "split-reduction", (number,), verdict, "; ".join(reasons), numbers, other)

    def build(n: Node) -> Node | None:
        plan = plans.get((n.op, n.src[0].shape, n.shape))
        return _split(n, plan) if plan else None

    reason = "The terms are combined in another order, in parts that the cores or the lanes share."
    return Rule("split-large-reduction", reason, REDUCES, build) if plans else None, decisions


def _row(n: Node, x: Node) -> tuple[int, int]:
    """(neighbouring results, rows of them): those along the axes behind the last one that is reduced, and all others."""
    last = max([a for a in n.arg if x.shape[a] != 1], default=-1)
    row = prod(map(int, n.shape[last + 1 :]))
    return row, prod(map(int, n.shape)) // max(1, row)


def _beside(n: Node, row: int, lanes: int) -> int:
    """Neighbours along the last reduced axis that are worth being combined apart: rows of few results leave lanes empty, or
    additions waiting for each other. 1: none."""
    vectors = row / lanes
    if row == 1 or lanes == 1 or max(-(-row // lanes), CHAINS) < EMPTY * vectors or is_contraction(n):
        return 1
    whole = lanes // gcd(row, lanes)  # rows that are whole vectors
    return whole * max(1, int(CHAINS // (whole * vectors)))


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


def _parts(x: Node, n: Node, least: int, beside: int) -> Parts | None:
    """At least as many parts as keep the cores busy, the fewest: along the outermost reduced axis that divides, else along the
    longest one, of which a small rest is left over. None where parts would be too small."""
    most = x.size // (n.size if beside == 1 else _row(n, x)[1]) // PART_SIZE
    axes = [a for a in n.arg if not isinstance(x.shape[a], Extent)]
    if beside > 1:  # along the last one
        axes = [a for a in axes if x.shape[a] != 1][-1:]
    for axis in axes:
        for parts in range(least, min(most, x.shape[axis], 64 * least) + 1):
            if x.shape[axis] % (parts * beside) == 0:
                return Parts(axis, parts, beside)
    axis = max(axes, key=lambda a: x.shape[a], default=-1)
    fits = axis >= 0 and least <= most and x.shape[axis] >= least * beside * LEFT_OVER
    return Parts(axis, least, beside) if fits else None


def _split(n: Node, plan: Parts) -> Node:
    """n = op over axes of x[.., axis, ..] as two reductions, of x[.., parts, extent / parts / beside, beside, ..] and then of the
    stored parts; to their total comes what is left over after whole parts."""
    (x,), (axis, parts, beside) = n.src, plan
    extent = x.shape[axis]
    whole = extent - extent % (parts * beside)
    cut = (parts, whole // (parts * beside), beside) if beside > 1 else (parts, whole // parts)
    shape = (*x.shape[:axis], *cut, *x.shape[axis + 1 :])
    axes = tuple([a if a < axis else a + 1 if a == axis else a + len(cut) - 1 for a in n.arg])
    partial = reduced(n.op, view("reshape", between(x, axis, 0, whole), shape), axes)
    stored = Node("contiguous", n.dtype, partial.shape, (partial,), None, ())
    total = view("reshape", reduced(n.op, stored, (axis, axis + 2)[: len(cut) - 1]), n.shape)
    if whole == extent:
        return total
    return Node(REDUCE[n.op], n.dtype, n.shape, (total, reduced(n.op, between(x, axis, whole, extent), n.arg)), None, ())


def between(x: Node, axis: int, start: int, stop: int) -> Node:
    """Elements start <= i < stop along `axis`."""
    if stop - start == x.shape[axis]:
        return x
    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    return view("slice", x, shape, tuple([(start if a == axis else 0, 1) for a in range(len(shape))]))
