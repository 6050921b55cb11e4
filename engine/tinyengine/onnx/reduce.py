"""Reductions along axes, running sums, softmax, positions of extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinyengine import dtypes
from tinyengine.onnx.movement import axis_of, ints
from tinyengine.onnx.registry import op


def _sum(x: Any, d: Any, keep: bool) -> Any:
    return x.sum(d, keepdim=keep, dtype=x.dtype)


def _mean(x: Any, d: Any, keep: bool) -> Any:
    if x.dtype.is_float:
        return x.mean(d, keepdim=keep)
    return (x.double().mean(d, keepdim=keep)).trunc().cast(x.dtype)


def _extreme(name: str, empty: str) -> Callable[[Any, Any, bool], Any]:
    def f(x: Any, d: Any, keep: bool) -> Any:
        if not math.prod(x.shape[a] for a in d):  # of nothing
            return (x.sum(d, keepdim=keep, dtype=x.dtype) * 0) + getattr(x.dtype, empty)
        return getattr(x, name)(d, keepdim=keep)

    return f


def _log_sum_exp(x: Any, d: Any, keep: bool) -> Any:
    return x.logsumexp(d, keepdim=keep)


_REDUCE: dict[str, Callable[[Any, Any, bool], Any]] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _extreme("amax", "min"),
    "ReduceMin": _extreme("amin", "max"),
    "ReduceProd": lambda x, d, keep: _prod(x, d, keep),
    "ReduceL1": lambda x, d, keep: _sum(x.abs(), d, keep),
    "ReduceL2": lambda x, d, keep: _sum(x * x, d, keep).sqrt().cast(x.dtype),
    "ReduceSumSquare": lambda x, d, keep: _sum(x * x, d, keep),
    "ReduceLogSum": lambda x, d, keep: _sum(x, d, keep).log().cast(x.dtype),
    "ReduceLogSumExp": _log_sum_exp,
}


def _prod(x: Any, d: Any, keep: bool) -> Any:
    for a in sorted(d, reverse=True):
        x = x.prod(a, keepdim=keep, dtype=x.dtype)
    return x


def _over(f: Callable[[Any, Any, bool], Any], x: Any, axes: Any, keepdims: int, noop: int) -> Any:
    given = [] if axes is None else ints(axes)
    if not given and noop:
        return x
    d = tuple(axis_of(a, x.ndim) for a in given) if given else tuple(range(x.ndim))
    bools = x.dtype is dtypes.bool_
    y = f(x.cast(dtypes.uint8) if bools else x, d, bool(keepdims))
    return y.cast(dtypes.bool_) if bools else y


def _register(name: str, f: Callable[[Any, Any, bool], Any]) -> None:
    @op(name)
    def by_attribute(x: Any, *, axes: list[int] | None = None, keepdims: int = 1) -> Any:
        return _over(f, x, axes, keepdims, 0)

    @op(name, 13 if name == "ReduceSum" else 18, host=(1,))
    def by_operand(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        return _over(f, x, axes, keepdims, noop_with_empty_axes)


for _name, _f in _REDUCE.items():
    _register(_name, _f)


def _argument(name: str) -> None:
    @op(name)
    def f(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
        d = axis_of(axis, x.ndim)
        find = "argmax" if name == "ArgMax" else "argmin"
        if select_last_index:
            at = x.shape[d] - 1 - getattr(x.flip(d), find)(d, keepdim=bool(keepdims))
        else:
            at = getattr(x, find)(d, keepdim=bool(keepdims))
        return at.cast(dtypes.int64)


_argument("ArgMax")
_argument("ArgMin")


def _scan(name: str, method: str, first: int) -> None:
    @op(name, host=(1,))
    def f(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
        d = axis_of(int(axis.reshape(())), x.ndim)
        y = x.flip(d) if reverse else x
        if exclusive:
            n = x.shape[d]
            one = [(1, 0) if k == d else None for k in range(x.ndim)]
            y = y.pad(one, value=first).shrink([(0, n) if k == d else None for k in range(x.ndim)])
        y = getattr(y, method)(d).cast(x.dtype)
        return y.flip(d) if reverse else y


_scan("CumSum", "cumsum", 0)
_scan("CumProd", "cumprod", 1)


def _flat(f: Callable[[Any], Any], x: Any, axis: int) -> Any:
    """f of a matrix: the axes before `axis` are its rows."""
    d = axis_of(axis, x.ndim)
    return f(x.reshape((math.prod(x.shape[:d]), math.prod(x.shape[d:])))).reshape(x.shape)


def _hardmax(x: Any, d: int) -> Any:
    at = x.argmax(d, keepdim=True)
    i = type(x).arange(x.shape[d]).reshape([-1 if k == d % x.ndim else 1 for k in range(x.ndim)])
    return (i == at).cast(x.dtype)


def _softmax(name: str, f: Callable[[Any, int], Any]) -> None:
    @op(name)
    def flat(x: Any, *, axis: int = 1) -> Any:
        return _flat(lambda m: f(m, 1), x, axis)

    @op(name, 13)
    def along(x: Any, *, axis: int = -1) -> Any:
        return f(x, axis)


_softmax("Softmax", lambda x, d: x.softmax(d))
_softmax("LogSoftmax", lambda x, d: x.log_softmax(d))
_softmax("Hardmax", _hardmax)
