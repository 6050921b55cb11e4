"""Where is a value known by its position alone? A causal mask makes scores -inf above the diagonal, so their exponentials are 0.
Padding is 0.

For a value at an index: conditions on positions, each of which makes it 0 (`zero`), or -inf (`low`), where it is false. They are
found in the graph, through values that other kernels store, and say nothing where a mask is data. 0 is meant for finite factors,
as in decision 2, and of exponentials for rows that are not all -inf.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf

from tinyengine import index
from tinyengine.loopnest import Expr, apply, subexprs
from tinyengine.loopnest import index as constant
from tinyengine.node import Graph, Node

At = tuple[Expr, ...]
Conditions = tuple[Expr, ...]
LOOK = 64  # values looked at, for one question
KEEPS_ZERO = ("neg", "cast", "contiguous", "sqrt", "sin", "tanh", "erf", "trunc", "round")


def union(*parts: Conditions) -> Conditions:
    return tuple(dict.fromkeys(c for p in parts for c in p))


def _common(a: Conditions, b: Conditions) -> Conditions:
    return tuple(c for c in a if c in b)


def position(n: Node, at: At) -> Expr | None:
    """`n` at `at` as index arithmetic, where it is an integer that follows from the position."""
    if not n.dtype.is_int:
        return None
    if n.op == "const":
        return constant(n.arg)
    if n.op == "iota":
        axis: int = n.arg
        return at[axis]
    if n.op == "cast":
        return position(n.src[0], at)
    if n.is_movement:
        below, conditions = index.pull(n, at)
        return None if conditions else position(n.src[0], below)
    if n.op in ("add", "sub", "mul", "neg"):
        args = [position(s, at) for s in n.src]
        if any(a is None for a in args):
            return None
        a, b = args[0], args[-1]
        assert a is not None and b is not None
        if n.op == "mul":
            k, other = (b, a) if b.op == "const" else (a, b)
            return index.mul(other, k.arg) if k.op == "const" else None
        return index.mul(a, -1) if n.op == "neg" else index.add(a, b) if n.op == "add" else index.sub(a, b)
    return None


class Support:
    """The questions, asked of one graph; answers are kept."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.counts = graph, Counter[Node]()
        # without positions, or with sizes that are known late, nothing follows
        self.silent = graph.sizes() or not any(n.op in ("iota", "pad", "place") for n in graph)
        self.known: dict[tuple[str, Node, At], Conditions] = {}
        self.left = LOOK

    def zero(self, n: Node, at: At) -> Conditions:
        """Conditions on positions, each of which makes `n` at `at` 0 where it is false."""
        return self._asked("zero", n, at)

    def low(self, n: Node, at: At) -> Conditions:
        """The same for -inf."""
        return self._asked("low", n, at)

    def true(self, n: Node, at: At) -> Conditions:
        """Conditions on positions that hold wherever `n` at `at` is true."""
        return self._asked("true", n, at)

    def idle(self, n: Node, at: At) -> Conditions:
        """For a reduction, whose operand is read at `at`: conditions, without each of which a term changes nothing."""
        return self.zero(n.src[0], at) if n.op == "sum" else self.low(n.src[0], at) if n.op == "max" else ()

    def needed(self, n: Node, operand: int, at: At) -> Conditions:
        """Conditions, without each of which this operand of `n` makes no difference at `at`."""
        if n.op == "where" and operand:
            return self.true(n.src[0], at) if operand == 1 else self._asked("false", n.src[0], at)
        return self.zero(n.src[1 - operand], at) if n.op == "mul" else ()

    def uses(self, n: Node) -> int:
        """How many operands of the graph's nodes `n` is."""
        if not self.counts:
            self.counts.update(s for m in self.graph for s in m.src)
        return self.counts[n]

    def _asked(self, what: str, n: Node, at: At) -> Conditions:
        if self.silent:
            return ()
        self.left = LOOK
        return self._ask(what, n, at)

    def _ask(self, what: str, n: Node, at: At) -> Conditions:
        found = self.known.get((what, n, at))
        if found is None:
            if self.left == 0:
                return ()
            self.left -= 1
            if n.is_movement:
                below, conditions = index.pull(n, at)
                if not conditions:
                    found = self._ask(what, n.src[0], below)
                elif what == "zero":  # a pad adds zeros
                    found = union(tuple(c for c in conditions if c.op == "lt"), self._ask(what, n.src[0], below))
                else:
                    found = ()
            else:
                found = _ANSWERS[what](self, n, at)
            self.known[what, n, at] = found
        return found

    def _chosen(self, what: str, value: float, n: Node, at: At) -> Conditions:
        """Of where(c, a, b)."""
        c, a, b = n.src
        if _is(b, value):
            return union(self._ask("true", c, at), self._ask(what, a, at))
        if _is(a, value):
            return union(self._ask("false", c, at), self._ask(what, b, at))
        return _common(self._ask(what, a, at), self._ask(what, b, at))

    def _zero(self, n: Node, at: At) -> Conditions:
        if n.op == "where":
            return self._chosen("zero", 0, n, at)
        if n.op in KEEPS_ZERO:
            return self._ask("zero", n.src[0], at)
        if n.op in ("exp", "exp2"):
            return self._ask("low", n.src[0], at)
        if n.op in ("mul", "and"):
            return union(*(self._ask("zero", s, at) for s in n.src))
        if n.op in ("add", "sub"):
            return _common(*(self._ask("zero", s, at) for s in n.src))
        if n.op == "div" and _exponentials(n.src[1]):
            return self._ask("zero", n.src[0], at)
        return self._ask("true", n, at) if n.dtype.kind == "bool" else ()

    def _low(self, n: Node, at: At) -> Conditions:
        if n.op == "where":
            return self._chosen("low", -inf, n, at)
        if n.op in ("cast", "contiguous", "sub"):
            return self._ask("low", n.src[0], at)
        if n.op == "add":
            return union(*(self._ask("low", s, at) for s in n.src))
        if n.op == "mul":
            scaled = [a for a, b in (n.src, n.src[::-1]) if _seen(b).op == "const" and _seen(b).arg > 0]
            return union(*(self._ask("low", a, at) for a in scaled))
        return ()

    def _true(self, n: Node, at: At, holds: bool = True) -> Conditions:
        if n.op in ("lt", "eq"):
            a, b = (position(s, at) for s in n.src)
            if a is not None and b is not None:
                less, more = apply("lt", (a, index.add(b, constant(1)))), apply("lt", (b, index.add(a, constant(1))))
                if n.op == "eq":
                    return (less, more) if holds else ()
                return (apply("lt", (a, b)),) if holds else (more,)
            # what is not 0
            zeros = [x for x, y in (n.src, n.src[::-1]) if _is(y, 0)]
            return self._ask("zero", zeros[0], at) if n.op == "eq" and not holds and zeros else ()
        if n.op == "xor":
            one = [x for x, y in (n.src, n.src[::-1]) if _is(y, 1)]
            return self._ask("false" if holds else "true", one[0], at) if one else ()
        if n.op in ("and", "or"):
            parts = [self._ask("true" if holds else "false", s, at) for s in n.src]
            return union(*parts) if (n.op == "and") == holds else _common(*parts)
        if n.op == "cast" and holds:
            return self._ask("true" if n.src[0].dtype.kind == "bool" else "zero", n.src[0], at)
        return ()

    def _false(self, n: Node, at: At) -> Conditions:
        return self._true(n, at, False)


_ANSWERS: dict[str, Callable[[Support, Node, At], Conditions]] = {
    "zero": Support._zero, "low": Support._low, "true": Support._true, "false": Support._false,
}  # fmt: skip


def _seen(n: Node) -> Node:
    """What `n` is a view of; none of these adds zeros."""
    while n.op in ("reshape", "expand", "permute", "slice", "flip", "contiguous"):
        n = n.src[0]
    return n


def _is(n: Node, value: float) -> bool:
    n = _seen(n)
    return n.op == "const" and bool(n.arg == value)


def _exponentials(n: Node) -> bool:
    """Whether `n` is a sum of exponentials, which is not 0 where one of them is not."""
    n = _seen(n)
    return n.op == "sum" and _seen(n.src[0]).op == "exp"


def open_conditions(conditions: Conditions) -> Conditions:
    """Those that loop variables alone decide, and intervals do not."""
    return tuple(c for c in conditions if index.truth(c) is None and not any(x.op in ("load", "name") for x in subexprs(c)))
