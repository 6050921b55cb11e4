"""Tensors with symbolic extents: how they are made from tensors with numbers, cut, and read.

Memory is made for the largest values of the variables. An array of it is that memory, cut to the values of now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine.extent import symbolic
from tinyengine.node import Shape
from tinyengine.origin import here, user_line
from tinyengine.runtime.buffer import Buffer
from tinyengine.size import Size, SizeError, most
from tinyengine.stages import record
from tinyengine.tensor import core

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def whole(shape: Shape) -> Shape:
    """The extents of the memory: the largest values."""
    for d in shape:
        if isinstance(d, Size):
            return tuple(map(most, shape))
    return shape


def values(shape: Shape) -> Shape:
    """The extents of now. SizeError where a variable has no value."""
    out = []
    for d in shape:
        v = d.value if isinstance(d, Size) else d
        if v is None:
            raise SizeError(
                f"a tensor of shape {list(shape)} has no values while {', '.join(s.name for s in d.symbols)} has none; expected a"
                f" bound variable, as in n.bind(7)\n  at {user_line()}"
            )
        out.append(v)
    return tuple(out)


def valued(array: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    """The part of the memory, an array of extents `whole(shape)`, that has values."""
    return array[tuple([slice(v) for v in values(shape)])] if symbolic(shape) else array


def resized(old: Shape, new: Sequence[Any]) -> tuple[tuple[Any, ...], bool]:
    """The shape of a reshape in which an extent is symbolic, -1 filled in; and whether it fits for every value: where numbers
    become sizes, or sizes numbers, it may do so only for the values of now. RuntimeError when it has another number of
    elements."""
    total: Any = math.prod(old)
    out = tuple(new)
    if out.count(-1) == 1:
        rest: Any = math.prod([s for s in out if not (isinstance(s, int) and s == -1)])
        found = _divided(total, rest)
        if found is None:
            raise SizeError(
                f"reshape from {list(old)} to {list(new)}: {total} elements do not divide by {rest} for every value; expected"
                f" extents whose product divides it\n  at {user_line()}"
            )
        out = tuple([found if isinstance(s, int) and s == -1 else s for s in out])
    wanted: Any = math.prod(out)
    if any([isinstance(s, int) and s < 0 for s in out]):
        raise RuntimeError(f"shape {list(new)} is invalid for a tensor of shape {list(old)}\n  at {user_line()}")
    if wanted == total:
        return out, True
    now = [x.value if isinstance(x, Size) else x for x in (wanted, total)]
    if None in now or now[0] != now[1]:
        raise RuntimeError(
            f"shape {list(new)} is invalid for a tensor of {total} elements, shape {list(old)}: it has {wanted}\n"
            f"  at {user_line()}"
        )
    return out, False


def _divided(a: Any, b: Any) -> Any:
    """a / b where that is whole: for every value, or of a number for the values of now; else None."""
    if isinstance(a, Size):
        exact = a.divided(b)
        if exact is not None:
            return exact
    if isinstance(b, Size) and isinstance(a, int):
        b = b.value
    return a // b if isinstance(a, int) and isinstance(b, int) and b and a % b == 0 else None


def measured(x: Any, shape: Shape) -> Tensor:
    """`x` with numbers for extents as a tensor of symbolic `shape`, or the reverse: the values are copied, now."""
    if core.state.trace is not None:
        raise SizeError(
            f"reshape from {list(x.shape)} to {list(shape)} inside a jitted function: they are equal only for the values of now;"
            " expected a tensor that has its symbolic shape before the call, as in step(x.reshape(n.bind(7), ...))\n"
            f"  at {user_line()}"
        )
    if x.flow == core.FLOWS:
        raise SizeError(
            f"reshape from {list(x.shape)} to {list(shape)} copies the values, and no gradient flows through a copy; expected a"
            f" detached tensor, or x[:n], which takes the first of more elements\n  at {user_line()}"
        )
    array = x._values("reshape")
    b = Buffer(math.prod(whole(shape)), x.dtype)
    if symbolic(shape):
        b.array[...] = 0
    target = valued(b.array.reshape(whole(shape)), shape)
    target[...] = x.dtype.encode(np.ascontiguousarray(array).reshape(target.shape))
    return core.computed(record.buffer(b, shape, here(3)))


def part(s: slice, extent: Any) -> tuple[Any, Any]:
    """(start, count) of a slice of step 1 in which the extent or an end is symbolic."""
    if s.step not in (None, 1):
        raise SizeError(f"a slice with step {s.step} of a symbolic extent ({extent}); expected step 1\n  at {user_line()}")

    def place(x: Any, default: Any) -> Any:
        if x is None:
            return default
        x = x if isinstance(x, Size) else x.__index__()
        x = x if x >= 0 else x + extent
        return x if x <= extent else extent

    start, stop = place(s.start, 0), place(s.stop, extent)
    return (start, stop - start) if start <= stop else (start, 0)


__all__ = ["measured", "part", "resized", "valued", "values", "whole"]
