"""Stage 1, record. Question: what did you ask for? Input: the user's calls. Output: a Graph of primitive ops; nothing has run.

The constructors below are the only way in which the front end and the derivative rules make nodes. Each takes operand nodes and
the origin of the new node, checks nothing that its caller has checked, and makes no node where the result is the operand itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyengine import dtypes, units
from tinyengine.dtypes import DType
from tinyengine.node import Graph, Node, Shape
from tinyengine.origin import Origin
from tinyengine.size import Size, most
from tinyengine.spec import check
from tinyengine.stages.specs.graph import SPEC

Where = tuple[Origin, ...]
_new = tuple.__new__  # Node(...) goes through a Python-level __new__, which costs as much again
OPERAND, RESULT = "operand", "result"
COMPARE = frozenset({"lt", "eq"})


def const(value: Any, dtype: DType, shape: Shape, o: Where) -> Node:
    """`value` everywhere; an integer beyond the range of its dtype wraps around, as in PyTorch."""
    v: bool | int | float
    if dtype.kind == "float":
        v = float(value)
    elif dtype.kind == "bool":
        v = bool(value)
    else:
        v = int(value)
        if not dtype.min <= v <= dtype.max:
            v = (v - dtype.min) % (1 << 8 * dtype.itemsize) + dtype.min
    return _new(Node, ("const", dtype, shape, (), v, o))


def buffer(memory: Any, shape: Shape, o: Where) -> Node:
    """The content of a runtime Buffer."""
    return _new(Node, ("buffer", memory.dtype, shape, (), memory, o))


def iota(axis: int, dtype: DType, shape: Shape, o: Where) -> Node:
    """The position along `axis`."""
    return _new(Node, ("iota", dtype, shape, (), axis, o))


def unary(op: str, x: Node, o: Where) -> Node:
    return _new(Node, (op, x.dtype, x.shape, (x,), None, o))


def binary(op: str, a: Node, b: Node, o: Where) -> Node:
    """`a` and `b` have one dtype and shape; comparisons give bool."""
    return _new(Node, (op, dtypes.bool_ if op in COMPARE else a.dtype, a.shape, (a, b), None, o))


def where(c: Node, a: Node, b: Node, o: Where) -> Node:
    return _new(Node, ("where", a.dtype, a.shape, (c, a, b), None, o))


def cast(x: Node, dtype: DType, o: Where) -> Node:
    return x if x.dtype is dtype else _new(Node, ("cast", dtype, x.shape, (x,), None, o))


def operand(x: Node, o: Where) -> Node:
    """`x` as float32, in which an op of narrower floats computes."""
    return x if x.dtype is dtypes.float32 else _new(Node, ("cast", dtypes.float32, x.shape, (x,), OPERAND, o))


def result(x: Node, dtype: DType, o: Where) -> Node:
    """`x`, computed in float32 for an op of the narrower float `dtype`. Between a `result` and an `operand` of one kernel nothing
    is rounded; where the value is stored it is, and by a `cast`, which somebody asked for."""
    return x if x.dtype is dtype else _new(Node, ("cast", dtype, x.shape, (x,), RESULT, o))


def bitcast(x: Node, dtype: DType, o: Where) -> Node:
    """The same bits read as `dtype`, of equal size. To the same dtype it is how a gradient is stopped: see `detach`."""
    return _new(Node, ("bitcast", dtype, x.shape, (x,), None, o))


def reshape(x: Node, shape: Shape, o: Where) -> Node:
    return x if x.shape == shape else _new(Node, ("reshape", x.dtype, shape, (x,), None, o))


def expand(x: Node, shape: Shape, o: Where) -> Node:
    return x if x.shape == shape else _new(Node, ("expand", x.dtype, shape, (x,), None, o))


def permute(x: Node, axes: tuple[int, ...], o: Where) -> Node:
    if axes == tuple(range(len(axes))):
        return x
    return _new(Node, ("permute", x.dtype, tuple([x.shape[a] for a in axes]), (x,), axes, o))


def slice_(x: Node, starts_steps: tuple[tuple[int, int], ...], shape: Shape, o: Where) -> Node:
    """in = start + step * out; the extents of the result are given."""
    if shape == x.shape and all(s == (0, 1) for s in starts_steps):
        return x
    # one spelling: the step of an axis of at most one element, and the start of an empty one, mean nothing
    arg = tuple(
        [(s if most(n) else 0, step if step == 1 or n > 1 else 1) for (s, step), n in zip(starts_steps, shape, strict=True)]
    )
    return _new(Node, ("slice", x.dtype, shape, (x,), arg, o))


def pad(x: Node, widths: tuple[tuple[int, int, int], ...], o: Where) -> Node:
    """Zeros: low before, high after, interior between neighbours."""
    shape = tuple([low + n + high + max(n - 1, 0) * inner for n, (low, high, inner) in zip(x.shape, widths, strict=True)])
    return x if shape == x.shape else _new(Node, ("pad", x.dtype, shape, (x,), widths, o))


def flip(x: Node, axes: tuple[int, ...], o: Where) -> Node:
    axes = tuple([a for a in axes if most(x.shape[a]) > 1])
    return _new(Node, ("flip", x.dtype, x.shape, (x,), axes, o)) if axes else x


def window(x: Node, axis: int, kaxis: int, stride: int, dilation: int, o: Where) -> Node:
    """Sliding windows over `axis`; their positions lie along `kaxis`, whose extent is the size of the window."""
    span = dilation * (x.shape[kaxis] - 1) + 1
    shape = list(x.shape)
    shape[axis] = max((shape[axis] - span) // stride + 1, 0)
    return _new(Node, ("window", x.dtype, tuple(shape), (x,), (axis, kaxis, stride, dilation), o))


def place(x: Node, arg: tuple[int, int, int, int], extent: int, o: Where) -> Node:
    """Adjoint of `window` before its sum; `extent` is that of the axis that was windowed."""
    shape = tuple([extent if d == arg[0] else n for d, n in enumerate(x.shape)])
    return _new(Node, ("place", x.dtype, shape, (x,), arg, o))


def reduce(op: str, x: Node, axes: tuple[int, ...], o: Where) -> Node:
    """The axes stay with extent 1."""
    if not axes:
        return x
    return _new(Node, (op, x.dtype, tuple([1 if d in axes else n for d, n in enumerate(x.shape)]), (x,), axes, o))


def scan(op: str, x: Node, axis: int, reverse: bool, o: Where) -> Node:
    """`op`: a key of ops.SCAN. Along a symbolic axis it is never reversed: the view is."""
    if reverse and isinstance(x.shape[axis], Size):
        return flip(scan(op, flip(x, (axis,), o), axis, False, o), (axis,), o)
    return _new(Node, (op, x.dtype, x.shape, (x,), (axis, reverse), o))


def gather(table: Node, index: Node, axis: int, o: Where) -> Node:
    return _new(Node, ("gather", table.dtype, index.shape, (table, index), axis, o))


def scatter(op: str, base: Node, index: Node, values: Node, axis: int, o: Where) -> Node:
    """`op`: a key of ops.SCATTER."""
    return _new(Node, (op, base.dtype, base.shape, (base, index, values), axis, o))


def assign(target: Node, value: Node, o: Where) -> Node:
    return _new(Node, ("assign", target.dtype, target.shape, (target, value), None, o))


def contiguous(x: Node, o: Where) -> Node:
    return _new(Node, ("contiguous", x.dtype, x.shape, (x,), None, o))


def run(roots: Iterable[Node]) -> Graph:
    """The graph under these nodes, checked."""
    g = Graph(roots)
    check("record", SPEC, g)
    return g


def explain(g: Graph) -> str:
    """A sentence and the listing, with the user's lines."""
    phases: dict[str, int] = {}
    for n in g.nodes:
        phases[n.phase] = phases.get(n.phase, 0) + 1
    counts = ", ".join(f"{v} {k}" for k, v in phases.items())
    asked, made = units.some(len(g.roots), "value"), units.some(len(g), "primitive op")
    return f"You asked for {asked}, made of {made} ({counts}). Nothing has run.\n" + g.text(True)
