"""Stage 1, record. Question: what did you ask for? Input: the user's calls. Output: a Graph of primitive ops; nothing has run.

The constructors below are the only way in which the front end and the derivative rules make nodes. Each takes operand nodes and
the origin of the new node, checks nothing that its caller has checked, and makes no node where the result is the operand itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.node import Graph, Node, Shape
from tinyengine.ops import ELEMENTWISE, OPS, REDUCE
from tinyengine.origin import Origin
from tinyengine.spec import Sentence, check

Where = tuple[Origin, ...]
_new = tuple.__new__  # Node(...) goes through a Python-level __new__, which costs as much again
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
    arg = tuple([(s if n else 0, step if n > 1 else 1) for (s, step), n in zip(starts_steps, shape, strict=True)])
    return _new(Node, ("slice", x.dtype, shape, (x,), arg, o))


def pad(x: Node, widths: tuple[tuple[int, int, int], ...], o: Where) -> Node:
    """Zeros: low before, high after, interior between neighbours."""
    shape = tuple([low + n + high + max(n - 1, 0) * inner for n, (low, high, inner) in zip(x.shape, widths, strict=True)])
    return x if shape == x.shape else _new(Node, ("pad", x.dtype, shape, (x,), widths, o))


def flip(x: Node, axes: tuple[int, ...], o: Where) -> Node:
    axes = tuple([a for a in axes if x.shape[a] > 1])
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


def gather(table: Node, index: Node, axis: int, o: Where) -> Node:
    return _new(Node, ("gather", table.dtype, index.shape, (table, index), axis, o))


def scatter_add(base: Node, index: Node, values: Node, axis: int, o: Where) -> Node:
    return _new(Node, ("scatter_add", base.dtype, base.shape, (base, index, values), axis, o))


def assign(target: Node, value: Node, o: Where) -> Node:
    return _new(Node, ("assign", target.dtype, target.shape, (target, value), None, o))


def contiguous(x: Node, o: Where) -> Node:
    return _new(Node, ("contiguous", x.dtype, x.shape, (x,), None, o))


# The spec: what holds for every graph that was recorded (and after simplify, which may not break it).


def _operands(g: Graph) -> Iterable[str]:
    for n in g.nodes:
        if n.op not in OPS:
            yield f"{n!r}: {n.op} is not in the op table"
        elif len(n.src) != OPS[n.op].arity:
            yield f"{n!r} has {len(n.src)} operands, not {OPS[n.op].arity}"


def _elementwise(g: Graph) -> Iterable[str]:
    for n in g.nodes:
        if n.op in ELEMENTWISE or n.op in ("assign", "contiguous"):
            for s in n.src:
                if s.shape != n.shape:
                    yield f"{n!r} reads {s!r}"


def _dtypes(g: Graph) -> Iterable[str]:
    for n in g.nodes:
        if n.op in ("cast", "const", "iota"):
            continue
        if n.op == "bitcast":
            if n.dtype.itemsize != n.src[0].dtype.itemsize:
                yield f"{n!r} reads {n.src[0]!r}"
        elif n.op in COMPARE:
            if n.dtype is not dtypes.bool_ or n.src[0].dtype is not n.src[1].dtype:
                yield f"{n!r} compares {n.src[0].dtype} with {n.src[1].dtype}"
        elif n.op == "where" and n.src[0].dtype is not dtypes.bool_:
            yield f"{n!r} chooses by {n.src[0].dtype}"
        else:
            same = n.src[1:] if n.op == "where" else (n.src[0], *n.src[2:]) if OPS[n.op].family == "index" else n.src
            for s in same:
                if s.dtype is not n.dtype:
                    yield f"{n!r} reads {s!r}"
            if OPS[n.op].family == "index" and not n.src[1].dtype.is_int:
                yield f"{n!r} is indexed by {n.src[1].dtype}"


def _maps(g: Graph) -> Iterable[str]:
    for n in g.nodes:
        if OPS[n.op].family != "movement":
            continue
        s = n.src[0].shape
        ok: bool
        if n.op == "reshape":
            ok = n.size == n.src[0].size
        elif len(n.shape) != len(s):
            ok = False
        elif n.op == "permute":
            ok = sorted(n.arg) == list(range(len(s))) and n.shape == tuple(s[a] for a in n.arg)
        elif n.op == "expand":
            ok = all(a in (1, b) for a, b in zip(s, n.shape, strict=True))
        elif n.op == "slice":
            ok = all(
                m == 0 or (step >= 1 and start >= 0 and start + step * (m - 1) < k)
                for (start, step), m, k in zip(n.arg, n.shape, s, strict=True)
            )
        elif n.op == "pad":
            ok = all(
                min(w) >= 0 and m == w[0] + k + w[1] + max(k - 1, 0) * w[2] for w, m, k in zip(n.arg, n.shape, s, strict=True)
            )
        elif n.op == "flip":
            ok = n.shape == s and all(0 <= a < len(s) for a in n.arg)
        else:
            ok = _window_fits(n, s)
        if not ok:
            yield f"{n!r} of {list(s)}"


def _window_fits(n: Node, s: Shape) -> bool:
    axis, kaxis, stride, dilation = n.arg
    inner, outer = (s, n.shape) if n.op == "window" else (n.shape, s)
    if (
        axis == kaxis
        or stride < 1
        or dilation < 1
        or any(a != b for d, (a, b) in enumerate(zip(s, n.shape, strict=True)) if d != axis)
    ):
        return False
    return 0 in outer or (outer[axis] - 1) * stride + (s[kaxis] - 1) * dilation < inner[axis]


def _reduces(g: Graph) -> Iterable[str]:
    for n in g.nodes:
        if n.op in REDUCE:
            s = n.src[0].shape
            if not n.arg or len(set(n.arg)) < len(n.arg) or n.shape != tuple(1 if d in n.arg else k for d, k in enumerate(s)):
                yield f"{n!r} of {list(s)}"


def _effects(g: Graph) -> Iterable[str]:
    targets: dict[int, Node] = {}
    for n in g.nodes:
        if n.op == "assign":
            if n.src[0].op != "buffer":
                yield f"{n!r} writes to {n.src[0]!r}"
            elif targets.setdefault(id(n.src[0].arg), n) is not n:
                yield f"{n!r} writes to {n.src[0].arg!r}, and so does {targets[id(n.src[0].arg)]!r}"


def _origins(g: Graph) -> Iterable[str]:
    for n in g.nodes:
        if not n.origin:
            yield f"{n!r}"


SPEC: Sequence[Sentence] = (
    ("Every node is a row of the op table, with that many operands.", _operands),
    ("Elementwise operands have the shape of the result; broadcasting is an explicit expand.", _elementwise),
    ("Operands have the dtype of the result, except for casts, comparisons, conditions and indices.", _dtypes),
    ("Every movement op maps each output index to one input index, or to outside only where it pads.", _maps),
    ("Reduced axes are listed once and stay with extent 1.", _reduces),
    ("An assign writes to a buffer, and a graph holds at most one for each buffer.", _effects),
    ("Every node knows where it came from.", _origins),
)


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
    return f"You asked for {len(g.roots)} value(s), made of {len(g)} primitive ops ({counts}). Nothing has run.\n" + g.text(True)
