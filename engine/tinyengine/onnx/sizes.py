"""Arithmetic on shapes that hold symbolic sizes (`Variable("n", 1, 64).bind(7)` as an extent of an input): what a model computes
from its shapes is then exact for every value, and one program serves them all."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyengine.onnx.movement import ints
from tinyengine.onnx.values import Array, Sizes, known, of_sizes


def _concat(*xs: Array, axis: int) -> Array:
    return np.concatenate(xs, axis)


def _slice(x: Array, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Array:
    index = [slice(None)] * x.ndim
    step = [1] * len(ints(starts)) if steps is None else ints(steps)
    for d, a, b, s in zip(range(x.ndim) if axes is None else ints(axes), ints(starts), ints(ends), step, strict=False):
        index[d] = slice(a, b, s)
    return np.asarray(x[tuple(index)])


def _squeeze(x: Array, axes: Any = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(ints(axes)))


def _reduced(f: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def of(x: Array, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
        return np.asarray(functools.reduce(f, x.reshape(-1)), object).reshape((1,) * x.ndim if keepdims else ())

    return of


def _cast(x: Array, *, to: int) -> Array:
    if to not in (6, 7):
        raise NotImplementedError
    return x


def _equal(a: Array, b: Array) -> Array:
    return np.asarray(a == b, bool)


# operator -> its meaning for arrays of ints and sizes. TypeError or NotImplementedError: this form of it has none.
_TABLE: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.floordiv, "Mod": operator.mod,
    "Equal": _equal, "Where": lambda c, a, b: np.where(c.astype(bool), a, b), "Cast": _cast, "Concat": _concat,
    "Gather": lambda x, at, axis=0: np.take(x, at.astype(np.int64), axis), "Slice": _slice, "Squeeze": _squeeze,
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(ints(axes))),
    "Reshape": lambda x, to, allowzero=0: x.reshape(ints(to)), "Flatten": lambda x, axis=1: x.reshape(1, -1),
    "ReduceProd": _reduced(operator.mul), "ReduceSum": _reduced(operator.add),
}  # fmt: skip


def computed(name: str, xs: list[Any], attributes: dict[str, Any]) -> Any:
    """The result of this operator on shapes, some of which are symbolic; None when it has to be recorded like any other."""
    f = _TABLE.get(name)
    if f is None or not all(x is None or known(x) for x in xs):
        return None
    arrays = [x.array if isinstance(x, Sizes) else None if x is None else x.astype(object) for x in xs]
    try:
        y = np.asarray(f(*arrays, **attributes))
    except (NotImplementedError, TypeError):
        return None
    return y if y.dtype == bool else of_sizes(y)
