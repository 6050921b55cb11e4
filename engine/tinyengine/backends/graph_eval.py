"""Evaluate a Graph with NumPy, op by op, straight from the op table: slow, obvious, and the oracle of the property tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinyengine.dtypes import DType
from tinyengine.extent import valued
from tinyengine.node import Graph, Node
from tinyengine.node import at as node_at
from tinyengine.ops import OPS, REDUCE, SCAN, SCATTER
from tinyengine.size import most

Array = np.ndarray[Any, Any]


class Evaluator:
    """`wide`: every float is computed as float64, whatever its dtype says (the oracle against which rounding is measured).
    `values` holds the array of each node after `run`; `sizes`: the values of variables, by default those that they are bound
    to."""

    def __init__(self, graph: Graph, wide: bool = False, sizes: Mapping[str, int] | None = None) -> None:
        self.graph, self.wide = graph, wide
        self.values: dict[Node, Array] = {}
        self.sizes = {s.name: v for s, v in graph.sizes().items() if v is not None} | dict(sizes or {})

    def dtype(self, d: DType) -> np.dtype[Any]:
        return np.dtype(np.float64) if self.wide and d.is_float else d.values

    def convert(self, a: Array, d: DType) -> Array:
        """Numbers as values of `d`."""
        return a.astype(np.float64) if self.wide and d.is_float else d.convert(a)

    def run(self) -> list[Array]:
        """The values of the roots. IndexError, with the line of the gather, when an index is out of range."""
        for n in self.graph.nodes:
            m = node_at(n, self.sizes) if self.sizes else n
            if n.op == "buffer" and m.shape != n.shape:
                out = valued(n.arg.values.reshape(tuple(map(most, n.shape))), n.shape, self.sizes)
            else:
                out = self.compute(m, [self.values[s] for s in n.src])
            self.values[n] = np.ascontiguousarray(out, self.dtype(n.dtype)).reshape(m.shape)
        return [self.values[r] for r in self.graph.roots]

    def compute(self, n: Node, x: list[Array]) -> Array:
        op = OPS[n.op]
        if op.family == "reduce":
            f: Any = OPS[REDUCE[n.op]].numpy
            start = n.dtype.min if n.op == "max" else 1 if n.op == "prod" else 0
            ufunc = {"add": np.add, "maximum": np.maximum, "mul": np.multiply}[REDUCE[n.op]] if not isinstance(f, np.ufunc) else f
            total = _total(x[0])
            with np.errstate(all="ignore"):
                out = np.asarray(ufunc.reduce(x[0], axis=n.arg, keepdims=True, initial=start, dtype=total))
            return self.convert(out, n.dtype)
        if op.numpy is not None:
            with np.errstate(all="ignore"):
                out = np.asarray(op.numpy(*x))
            return out if n.dtype.layout is None or n.op == "where" else self.convert(out, n.dtype)
        return SPECIAL[n.op](self, n, x)


def _total(x: Array) -> np.dtype[Any]:
    """Halves add up in float32."""
    return np.dtype(np.float32) if x.dtype == np.float16 else x.dtype


def _const(e: Evaluator, n: Node, x: list[Array]) -> Array:
    return e.convert(np.full(n.shape, n.arg, e.dtype(n.dtype)), n.dtype)


def _buffer(e: Evaluator, n: Node, x: list[Array]) -> Array:
    return n.arg.values[: n.size].reshape(n.shape).astype(e.dtype(n.dtype))  # type: ignore[no-any-return]


def _iota(e: Evaluator, n: Node, x: list[Array]) -> Array:
    shape = [k if d == n.arg else 1 for d, k in enumerate(n.shape)]
    return np.broadcast_to(e.convert(np.arange(n.shape[n.arg]), n.dtype).reshape(shape), n.shape)


def _cast(e: Evaluator, n: Node, x: list[Array]) -> Array:
    return e.convert(x[0], n.dtype)


def _bitcast(e: Evaluator, n: Node, x: list[Array]) -> Array:
    if n.dtype is n.src[0].dtype:
        return x[0]
    return n.dtype.decode(np.ascontiguousarray(n.src[0].dtype.encode(x[0])).view(n.dtype.numpy))


def _slice(e: Evaluator, n: Node, x: list[Array]) -> Array:
    return x[0][tuple([slice(s, s + step * (k - 1) + 1 if k else s, step) for (s, step), k in zip(n.arg, n.shape, strict=True)])]


def _pad(e: Evaluator, n: Node, x: list[Array]) -> Array:
    out = np.zeros(n.shape, x[0].dtype)
    if x[0].size:
        at = [slice(low, low + (k - 1) * (i + 1) + 1, i + 1) for (low, _, i), k in zip(n.arg, x[0].shape, strict=True)]
        out[tuple(at)] = x[0]
    return out


def _grid(shape: tuple[int, ...]) -> list[Array]:
    return list(np.indices(shape, sparse=True))


def _window(e: Evaluator, n: Node, x: list[Array]) -> Array:
    axis, kaxis, stride, dilation = n.arg
    at = _grid(n.shape)
    at[axis] = at[axis] * stride + at[kaxis] * dilation
    return x[0][tuple(at)]


def _place(e: Evaluator, n: Node, x: list[Array]) -> Array:
    axis, kaxis, stride, dilation = n.arg
    if not x[0].size:
        return np.zeros(n.shape, x[0].dtype)
    at = _grid(n.shape)
    offset = at[axis] - at[kaxis] * dilation
    at[axis] = np.clip(offset // stride, 0, x[0].shape[axis] - 1)
    hit = (offset % stride == 0) & (offset >= 0) & (offset // stride < x[0].shape[axis])
    return np.where(hit, x[0][tuple(at)], np.zeros((), x[0].dtype))


def _checked(n: Node, index: Array, extent: int) -> Array:
    bad = (index < 0) | (index >= extent)
    if bad.any():
        value = index[tuple(np.argwhere(bad)[0])]
        where = f"\n  at {n.origin[0]}" if n.origin else ""
        raise IndexError(f"{n.op}: index {value} is out of range for axis {n.arg} of extent {extent}{where}")
    return index.astype(np.int64)


def _gather(e: Evaluator, n: Node, x: list[Array]) -> Array:
    at = _grid(n.shape)
    at[n.arg] = _checked(n, x[1], x[0].shape[n.arg])
    return x[0][tuple(at)]


_AT = {"add": np.add, "maximum": np.maximum, "mul": np.multiply}


def _scan(e: Evaluator, n: Node, x: list[Array]) -> Array:
    axis, reverse = n.arg
    given = np.flip(x[0], axis) if reverse else x[0]
    with np.errstate(all="ignore"):
        out = _AT[SCAN[n.op]].accumulate(given, axis=axis, dtype=_total(given))
    return e.convert(np.flip(out, axis) if reverse else out, n.dtype)


def _scatter(e: Evaluator, n: Node, x: list[Array]) -> Array:
    at = _grid(x[1].shape)
    at[n.arg] = _checked(n, x[1], n.shape[n.arg])
    if not SCATTER[n.op]:  # NumPy promises no order but that of a vector
        out = x[0].copy()
        out.reshape(-1)[np.ravel_multi_index(np.broadcast_arrays(*at), n.shape).reshape(-1)] = x[2].reshape(-1)
        return out
    out = x[0].astype(_total(x[0]))
    with np.errstate(all="ignore"):
        _AT[SCATTER[n.op]].at(out, tuple(at), x[2])
    return e.convert(out, n.dtype)


SPECIAL: dict[str, Callable[[Evaluator, Node, list[Array]], Array]] = {
    "const": _const, "buffer": _buffer, "iota": _iota, "cast": _cast, "bitcast": _bitcast, "slice": _slice, "pad": _pad,
    "window": _window, "place": _place, "gather": _gather, **dict.fromkeys(SCATTER, _scatter),
    **dict.fromkeys(SCAN, _scan),
    "reshape": lambda e, n, x: x[0].reshape(n.shape),
    "permute": lambda e, n, x: x[0].transpose(n.arg),
    "expand": lambda e, n, x: np.broadcast_to(x[0], n.shape),
    "flip": lambda e, n, x: np.flip(x[0], n.arg),
    "assign": lambda e, n, x: x[1],
    "contiguous": lambda e, n, x: x[0],
    "function": lambda e, n, x: x[n.arg.index],
}  # fmt: skip


def evaluate(graph: Graph, wide: bool = False, sizes: Mapping[str, int] | None = None) -> list[Array]:
    """One array for each root of `graph`, of its shape and dtype (float64 for floats when `wide`). Writes nothing: an `assign` is
    its value. Raises IndexError for a gather or scatter out of range."""
    return Evaluator(graph, wide, sizes).run()
