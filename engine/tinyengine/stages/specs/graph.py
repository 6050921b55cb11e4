"""The spec of graphs: the sentences that hold after record, differentiate and simplify. `SPEC` is for `spec.check(stage, SPEC,
graph)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinyengine import dtypes
from tinyengine.extent import Extent, plain
from tinyengine.node import Graph, Node
from tinyengine.ops import OPS, REDUCE, SCAN, SCATTER
from tinyengine.origin import PHASES
from tinyengine.size import bounds, most
from tinyengine.spec import Sentence

_FLOAT_ONLY = frozenset({"exp", "exp2", "log", "sin", "tanh", "erf", "sqrt", "reciprocal", "div"})
_BITWISE = frozenset({"and", "or", "xor"})
_SHIFTS = frozenset({"shl", "shr"})
_NO_BOOL = frozenset({"neg", "sub", "div", "floordiv", "mod", "fma"})
_ELEMENTWISE = frozenset(o.name for o in OPS.values() if o.family in ("unary", "binary", "ternary"))


def _each(ops: frozenset[str] | set[str], wrong: Callable[[Node], str]) -> Callable[[Any], Iterator[str]]:
    """A predicate over a graph from one over its nodes with these ops: `wrong` says what is wrong, or ''."""

    def violations(graph: Graph) -> Iterator[str]:
        for i, n in enumerate(graph.nodes):
            if n.op in ops:
                what = wrong(n)
                if what:
                    yield f"%{i} {n!r}: {what}" + (f"   # {n.origin[0]}" if n.origin else "")

    return violations


def _known(n: Node) -> str:
    op = OPS.get(n.op)
    if op is None:
        return f"no op is called {n.op!r}"
    return "" if len(n.src) == op.arity or op.arity < 0 else f"{n.op} takes {op.arity} operands, has {len(n.src)}"


def _all_known(graph: Graph) -> Iterator[str]:
    for i, n in enumerate(graph.nodes):
        what = _known(n)
        if what:
            yield f"%{i} {n!r}: {what}"


def _shape(n: Node) -> str:
    shape = n.shape
    for s in n.src:
        if s.shape != shape:
            return f"operand shapes {[s.shape for s in n.src]}"
    return ""


def _dtype(n: Node) -> str:
    op, dtype, src = n.op, n.dtype, n.src
    if op == "cast":
        return ""
    if op == "bitcast":
        return "" if src[0].dtype.itemsize == dtype.itemsize else f"bits of {src[0].dtype} do not fit {dtype}"
    if op in ("lt", "eq"):
        if dtype is not dtypes.bool_:
            return f"a comparison gives bool, not {dtype}"
        return "" if src[0].dtype is src[1].dtype else f"compares {src[0].dtype} with {src[1].dtype}"
    if op == "where":
        if src[0].dtype is not dtypes.bool_:
            return f"the condition is {src[0].dtype}"
        src = src[1:]
    for s in src:
        if s.dtype is not dtype:
            return f"operand dtypes {[s.dtype for s in n.src]}"
    if op in _FLOAT_ONLY and not dtype.is_float:
        return f"{op} is for floats"
    if op in _BITWISE and dtype.is_float:
        return f"{op} is for integers and bools"
    if op in _SHIFTS and not dtype.is_int:
        return f"{op} is for integers"
    if op in _NO_BOOL and dtype is dtypes.bool_:
        return f"{op} is not for bools"
    if op == "threefry" and dtype is not dtypes.uint32:
        return "threefry is for uint32"
    return ""


def _const(n: Node) -> str:
    value, dtype = n.arg, n.dtype
    if dtype.is_float:
        return "" if type(value) is float else f"{value!r} is no float"
    if dtype is dtypes.bool_:
        return "" if type(value) is bool else f"{value!r} is no bool"
    return "" if type(value) is int and dtype.min <= value <= dtype.max else f"{value!r} is no {dtype}"


def _buffer(n: Node) -> str:
    b = n.arg
    return "" if b.size == most(n.size) and b.dtype is n.dtype else f"the memory holds {b.dtype}[{b.size}]"


def _iota(n: Node) -> str:
    if type(n.arg) is not int or not 0 <= n.arg < len(n.shape):
        return f"axis {n.arg!r} of {len(n.shape)}"
    return "" if n.dtype is not dtypes.bool_ else "a position is no bool"


def _movement(n: Node) -> str:
    (x,) = n.src
    if x.dtype is not n.dtype:
        return f"moves {x.dtype}"
    expected = _MOVES[n.op](x.shape, n.shape, n.arg)
    return "" if expected is True or expected == n.shape else f"operand {x.shape} gives {expected}"


def _reshape(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    a: Any = 1
    b: Any = 1
    for d in x:
        a = a * plain(d)
    for d in out:
        b = b * plain(d)
    return a == b and arg is None


def _permute(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    return sorted(arg) == list(range(len(x))) and tuple([x[a] for a in arg])


def _expand(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    return arg is None and len(x) == len(out) and all([a in (1, b) for a, b in zip(x, out, strict=True)])


def _slice(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    if not len(arg) == len(x) == len(out):
        return False
    return all([
        t >= 1 and bounds(s)[0] >= 0 and (e == 0 or bounds(s + t * (plain(e) - 1) - plain(d))[0] < 0)
        for (s, t), d, e in zip(arg, x, out, strict=True)
    ])  # fmt: skip


def _pad(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    if len(arg) != len(x) or any([bounds(v)[1] < 0 for triple in arg for v in triple]):
        return False
    made = tuple([lo + hi + plain(d) + (i and i * max(0, plain(d) - 1)) for (lo, hi, i), d in zip(arg, x, strict=True)])
    return made == tuple(map(plain, out)) or made


def _flip(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    return len(set(arg)) == len(arg) and all([0 <= a < len(x) for a in arg]) and x


def _window(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    axis, kaxis, stride, dilation = arg
    if len(x) != len(out) or axis == kaxis or stride < 1 or dilation < 1 or (x[kaxis] != out[kaxis] and x[kaxis] != 1):
        return False
    if any([x[a] != out[a] for a in range(len(x)) if a not in (axis, kaxis)]):
        return False
    return out[axis] == 0 or (out[axis] - 1) * stride + (out[kaxis] - 1) * dilation < x[axis]


def _place(x: tuple[int, ...], out: tuple[int, ...], arg: Any) -> Any:
    return _window(out, x, arg) and out[arg[1]] == x[arg[1]]


_MOVES: dict[str, Callable[[tuple[int, ...], tuple[int, ...], Any], Any]] = {
    "reshape": _reshape, "permute": _permute, "expand": _expand, "slice": _slice, "pad": _pad, "flip": _flip,
    "window": _window, "place": _place,
}  # fmt: skip


def _reduce(n: Node) -> str:
    (x,) = n.src
    axes = n.arg
    if not isinstance(axes, tuple) or len(set(axes)) != len(axes) or not all([0 <= a < len(x.shape) for a in axes]):
        return f"axes {axes!r} of an operand of shape {x.shape}"
    if x.dtype is not n.dtype:
        return f"reduces {x.dtype}"
    kept = tuple([1 if a in axes else d for a, d in enumerate(x.shape)])
    return "" if kept == n.shape else f"operand {x.shape} over {axes} gives {kept}"


def _scan(n: Node) -> str:
    (x,) = n.src
    axis, reverse = n.arg
    if type(axis) is not int or not 0 <= axis < len(x.shape) or type(reverse) is not bool:
        return f"axis {axis!r} of {len(x.shape)}, reverse {reverse!r}"
    if reverse and isinstance(x.shape[axis], Extent):
        return f"reversed along an axis of symbolic length {x.shape[axis]}"
    return "" if (x.dtype, x.shape) == (n.dtype, n.shape) else f"scans {x.dtype}{x.shape}"


def _indexed(n: Node) -> str:
    base, index = n.src[0], n.src[1]
    axis, rank = n.arg, len(base.shape)
    if not index.dtype.is_int:
        return f"the index is {index.dtype}"
    values = n if n.op == "gather" else n.src[2]
    if values.shape != index.shape or (n.op != "gather" and n.shape != base.shape):
        return f"operand shapes {[s.shape for s in n.src]}"
    if base.dtype is not n.dtype or values.dtype is not n.dtype:
        return f"operand dtypes {[s.dtype for s in n.src]}"
    if type(axis) is not int or not 0 <= axis < rank or len(index.shape) != rank:
        return f"axis {axis!r}, index of rank {len(index.shape)}, table of rank {rank}"
    if any([i > d for a, (i, d) in enumerate(zip(index.shape, base.shape, strict=True)) if a != axis]):
        return f"the index {index.shape} is larger than the table {base.shape} on an axis that it does not replace"
    return ""


def _effect(n: Node) -> str:
    if n.op == "assign" and n.src[0].op != "buffer":
        return f"the target is a {n.src[0].op}"
    for s in n.src:
        if s.shape != n.shape or s.dtype is not n.dtype:
            return f"operand {s.dtype}{s.shape}"
    return ""


def _function(n: Node) -> str:
    k = n.arg.index
    if not 0 <= k < len(n.src):
        return f"result {k} of {len(n.src)} operands"
    x = n.src[k]
    return "" if x.shape == n.shape and x.dtype is n.dtype else f"its result is {x.dtype}{x.shape}"


def _origins(graph: Graph) -> Iterator[str]:
    for i, n in enumerate(graph.nodes):
        if not n.origin:
            yield f"%{i} {n!r}: no origin"
        for o in n.origin:
            if o.phase not in PHASES:
                yield f"%{i} {n!r}: phase {o.phase!r}"


def _backward(graph: Graph) -> Iterator[str]:
    for i, n in enumerate(graph.nodes):
        for o in n.origin if n.op != "buffer" else ():  # a gradient that was computed before names no node
            if o.phase == "backward" and (o.forward is None or not o.derivative):
                yield f"%{i} {n!r}: forward node {o.forward!r}, derivative rule {o.derivative!r}   # {o}"


SPEC: tuple[Sentence, ...] = (
    ("Every op stands in the op table and has as many operands as it says there.", _all_known),
    ("The operands of an elementwise op have the shape of its result.", _each(_ELEMENTWISE, _shape)),
    ("The operands of an elementwise op have the dtype that the op demands.", _each(_ELEMENTWISE, _dtype)),
    ("A constant is a number of its dtype.", _each({"const"}, _const)),
    ("The memory of a buffer node has its dtype and its size.", _each({"buffer"}, _buffer)),
    ("An iota counts along an axis that it has.", _each({"iota"}, _iota)),
    ("A movement keeps the dtype, and its argument maps the result's shape into the operand's.", _each(set(_MOVES), _movement)),
    ("A reduction names distinct axes of its operand; they stay with extent 1.", _each(set(REDUCE), _reduce)),
    ("A scan goes along an axis of its operand and keeps dtype and shape.", _each(set(SCAN), _scan)),
    ("A gather or scatter has an integer index that fits table, values and axis.", _each({"gather", *SCATTER}, _indexed)),
    ("An effect keeps dtype and shape, and assigns only to buffers.", _each({"assign", "contiguous"}, _effect)),
    ("A user's function has the dtype and shape of what it computed.", _each({"function"}, _function)),
    ("Every node has an origin with a known phase.", _origins),
    ("A backward node names its forward node and the derivative rule.", _backward),
)
