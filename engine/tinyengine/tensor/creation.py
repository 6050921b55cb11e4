"""Tensors from nothing: constants and ramps. They are nodes without memory; nothing is stored until something must be."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.size import Size
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make, shape_of
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.scan import Scan

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def constant(value: Any, shape: tuple[int, ...], dtype: Any, requires_grad: bool | None) -> Tensor:
    try:
        d = core.dtype_of(dtype) if dtype is not None else dtypes.as_dtype(type(value))
    except TypeError:
        if dtype is not None:
            raise
        raise TypeError(f"a tensor is filled with a number, not {value!r}\n  at {user_line()}") from None
    return leaf(make(record.const(value, d, shape, here(3)), core.NO_FLOW), requires_grad)


def leaf(t: Tensor, requires_grad: bool | None) -> Tensor:
    if requires_grad:
        t.requires_grad = True
    return t


class Creation(Scan):
    """Static methods that make tensors; dtype defaults to float32, and to int32 where all numbers are ints."""

    __slots__ = ()

    @staticmethod
    def full(shape: Any, fill_value: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """`fill_value` everywhere."""
        return constant(fill_value, shape_of((shape,) if isinstance(shape, int) else tuple(shape)), dtype, requires_grad)

    @staticmethod
    def zeros(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """0 everywhere."""
        return constant(0.0, shape_of(shape), dtype or dtypes.default_float, requires_grad)

    @staticmethod
    def ones(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """1 everywhere."""
        return constant(1.0, shape_of(shape), dtype or dtypes.default_float, requires_grad)

    @staticmethod
    def empty(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Zeros: memory with unknown content would make results differ from run to run."""
        return constant(0.0, shape_of(shape), dtype or dtypes.default_float, requires_grad)

    def full_like(self, fill_value: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """`fill_value` everywhere, of this shape and, unless another is given, dtype."""
        return constant(fill_value, self.shape, dtype or self.dtype, requires_grad)

    def zeros_like(self, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """0 everywhere, of this shape and, unless another is given, dtype."""
        return constant(0, self.shape, dtype or self.dtype, requires_grad)

    def ones_like(self, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """1 everywhere, of this shape and, unless another is given, dtype."""
        return constant(1, self.shape, dtype or self.dtype, requires_grad)

    empty_like, const_like = zeros_like, full_like

    @staticmethod
    def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """start, start + step, ... below stop; arange(n) counts from 0. int32 if all are ints, else float32."""
        if stop is None:
            start, stop = 0, start
        if step == 0:
            raise RuntimeError(f"arange: the step is 0\n  at {user_line()}")
        if (stop - start) * step < 0:
            raise RuntimeError(f"arange from {start} to {stop} never arrives with step {step}\n  at {user_line()}")
        whole = all(isinstance(v, (int, Size)) for v in (start, stop, step))
        d = core.dtype_of(dtype) if dtype is not None else dtypes.default_int if whole else dtypes.default_float
        n = -((start - stop) // step) if whole else math.ceil((stop - start) / step)
        o = here()
        work = (
            d if d.itemsize > 2 else dtypes.default_float if d.is_float else dtypes.default_int
        )  # small types would overflow on the way
        t = make(record.iota(0, dtypes.default_int, (max(n, 0),), o), core.NO_FLOW).cast(work)
        t = t * step if step != 1 else t
        t = t + start if start != 0 else t
        return leaf(t.cast(d), requires_grad)

    @staticmethod
    def linspace(start: float, end: float, steps: int, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """`steps` numbers from start to end, both included."""
        if core.count_of(steps, "linspace: steps") < 0:
            raise RuntimeError(f"linspace: {steps} steps\n  at {user_line()}")
        d = core.dtype_of(dtype or dtypes.default_float)
        i = make(record.iota(0, dtypes.default_int, (steps,), here()), core.NO_FLOW).cast(core.float_of(d))
        t = i * ((end - start) / (steps - 1) if steps > 1 else 0.0) + start
        return leaf(t.cast(d), requires_grad)

    @staticmethod
    def from_blob(ptr: int, shape: Any, dtype: Any = None) -> Tensor:
        """The elements that lie at the address `ptr`, row-major: copied at once, so the memory may change or go afterwards. The
        caller answers for there being as many bytes. ValueError for the address 0."""
        s, d = shape_of((shape,) if isinstance(shape, int) else tuple(shape)), core.dtype_of(dtype or dtypes.default_float)
        if not ptr:
            raise ValueError(f"from_blob: the address is {ptr}\n  at {user_line()}")
        raw = core._cls(np.frombuffer(ctypes.string_at(ptr, math.prod(s) * d.itemsize), np.uint8))
        return raw.bitcast(d).reshape(s)  # type: ignore[no-any-return]

    @staticmethod
    def eye(n: int, m: int | None = None, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """1 on the diagonal of an n by m matrix."""
        shape = shape_of((n, n if m is None else m))
        o = here()
        same = record.binary("eq", record.iota(0, dtypes.default_int, shape, o), record.iota(1, dtypes.default_int, shape, o), o)
        return leaf(make(record.cast(same, core.dtype_of(dtype or dtypes.default_float), o), core.NO_FLOW), requires_grad)

    @staticmethod
    def tri(rows: int, cols: int, diagonal: int = 0, dtype: Any = None) -> Tensor:
        """Ones on and below the diagonal."""
        from tinyengine.tensor.movement import triangle

        return choose(triangle(rows, cols, diagonal, upper=False), 1.0, 0.0).cast(core.dtype_of(dtype or dtypes.default_float))

    @staticmethod
    def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
        """Each vector spread over the grid of all of them ('ij': row index first, 'xy': column first)."""
        if indexing not in ("ij", "xy"):
            raise RuntimeError(f"meshgrid: indexing is 'ij' or 'xy', not {indexing!r}\n  at {user_line()}")
        wrong = next((t for t in tensors if t.ndim > 1), None)
        if wrong is not None:
            raise RuntimeError(f"meshgrid takes vectors, not shape {list(wrong.shape)}\n  at {user_line()}")
        order = list(range(len(tensors)))
        if indexing == "xy" and len(order) > 1:
            order[0], order[1] = 1, 0
        shape = [0] * len(tensors)
        for t, d in zip(tensors, order, strict=True):
            shape[d] = t.numel()
        return tuple(
            [
                t.reshape([t.numel() if k == d else 1 for k in range(len(shape))]).expand(shape)
                for t, d in zip(tensors, order, strict=True)
            ]
        )
