"""Reductions. `dim` is an axis, several, or None for all; `axis` is accepted as its other name. `keepdim` leaves extent 1.

Other than in PyTorch, `max` and `min` along an axis give the values only (as `amax`), and share the gradient among equal largest
elements; integer sums and products are int32 (int64 and uint64 stay).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import axes_of, axis_of, make
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.movement import Movement

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

Dim = int | tuple[int, ...] | list[int] | None
_UNSET: Any = object()


def squeeze_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([s for d, s in enumerate(shape) if d not in axes])


class Reduce(Movement):
    """Reduction methods."""

    __slots__ = ()

    def _reduce(self, op: str, dim: Any, keepdim: bool, axis: Any, accumulate: Any = None) -> Tensor:
        flow, n = core.operand(self)
        o = here(3)
        if accumulate is not None:
            n = record.cast(n, accumulate, o)
        axes = axes_of(dim if axis is _UNSET else axis, len(n.shape))
        r = record.reduce(op, n, axes, o)
        return make(r if keepdim else record.reshape(r, squeeze_axes(r.shape, axes), o), flow)

    def _sum_dtype(self, dtype: Any) -> Any:
        if dtype is not None:
            return core.dtype_of(dtype)
        d = self.dtype
        return d if d.is_float or d.itemsize >= 8 or d is dtypes.uint32 else dtypes.default_int

    def sum(self, dim: Dim = None, keepdim: bool = False, dtype: Any = None, *, axis: Dim = _UNSET) -> Tensor:
        """The sum; 0 of nothing. Bools and small ints add up as int32."""
        return self._reduce("sum", dim, keepdim, axis, self._sum_dtype(dtype))

    def prod(self, dim: Dim = None, keepdim: bool = False, dtype: Any = None, *, axis: Dim = _UNSET) -> Tensor:
        """The product; 1 of nothing."""
        return self._reduce("prod", dim, keepdim, axis, self._sum_dtype(dtype))

    def max(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """The largest values. IndexError for an empty axis, which has none."""
        self._not_empty("max", dim if axis is _UNSET else axis)
        return self._reduce("max", dim, keepdim, axis)

    def min(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """The smallest values."""
        self._not_empty("min", dim if axis is _UNSET else axis)
        if self.dtype is dtypes.bool_:
            return self.logical_not().max(dim, keepdim, axis=axis).logical_not()
        if self.dtype.is_int:  # -x overflows at the smallest int; ~x does not, and reverses the order too
            return self.bitwise_not().max(dim, keepdim, axis=axis).bitwise_not()
        return self.neg().max(dim, keepdim, axis=axis).neg()

    amax, amin = max, min

    def _not_empty(self, what: str, dim: Dim) -> None:
        if any(self.shape[a] == 0 for a in axes_of(dim, self.ndim)):
            raise IndexError(f"{what} of nothing: shape {list(self.shape)} is empty along dim {dim}\n  at {user_line()}")

    def all(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """True where every element is true; true of nothing."""
        return self.bool().logical_not().any(dim, keepdim, axis=axis).logical_not()

    def any(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """True where one element is true."""
        return self.bool()._reduce("max", dim, keepdim, axis)

    def mean(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """The sum times 1/count. RuntimeError for ints, as in PyTorch: cast to float first."""
        if not self.dtype.is_float:
            raise RuntimeError(f"mean of {self.dtype}: cast it to a float first, as in x.float().mean()\n  at {user_line()}")
        which = dim if axis is _UNSET else axis
        count = math.prod(self.shape[a] for a in axes_of(which, self.ndim))
        return self.sum(which, keepdim) * (1.0 / count if count else math.nan)

    def var(
        self,
        dim: Dim = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
        *,
        axis: Dim = _UNSET,
    ) -> Tensor:
        """The mean squared distance from the mean, divided by count - correction (1, or 0 when not unbiased)."""
        which = dim if axis is _UNSET else axis
        count = math.prod(self.shape[a] for a in axes_of(which, self.ndim))
        rest = count - (correction if correction is not None else 1 if unbiased else 0)
        d = self - self.mean(which, keepdim=True)
        return (d * d).sum(which, keepdim) * (1.0 / rest if rest > 0 else math.nan if rest == 0 and count <= 1 else math.inf)

    def std(
        self,
        dim: Dim = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
        *,
        axis: Dim = _UNSET,
    ) -> Tensor:
        """The square root of `var`."""
        return self.var(dim, unbiased, keepdim, correction, axis=axis).sqrt()

    def var_mean(
        self, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, correction: float | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.var(dim, unbiased, keepdim, correction), self.mean(dim, keepdim)

    def std_mean(
        self, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, correction: float | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.std(dim, unbiased, keepdim, correction), self.mean(dim, keepdim)

    def logsumexp(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """log(sum(exp(x))), without overflow: the largest element is taken out first."""
        which = axes_of(dim if axis is _UNSET else axis, self.ndim)
        m = self._peak(which)
        s = (self - m).exp().sum(which, keepdim=True).log() + m
        return s if keepdim else s.reshape(squeeze_axes(s.shape, which))

    def _peak(self, axes: Dim) -> Tensor:
        """The maximum, a constant for the gradient: what is subtracted before exp does not change the result."""
        return self.float_().max(axes, keepdim=True).detach()

    def float_(self) -> Tensor:
        """This tensor, or as the default float where it is none."""
        return self.cast(core.float_of(self.dtype))

    def argmax(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = _UNSET) -> Tensor:
        """int32 position of the first largest element along `dim`, or in the flat tensor. A NaN counts as largest."""
        which = dim if axis is _UNSET else axis
        if which is None:
            out = self.flatten().argmax(0)
            return out.reshape((1,) * self.ndim) if keepdim else out
        d = axis_of(which, self.ndim)
        self._not_empty("argmax", d)
        x = self.unsqueeze(0) if not self.ndim else self
        n = x.shape[d]
        best = x == x.max(d, keepdim=True)
        if x.dtype.is_float:
            best = best | (x != x)
        # the first of equals is the one with most elements from it to the end
        left = make(record.iota(d, dtypes.int32, x.shape, here(2)), core.NO_FLOW)
        out = n - choose(best, n - left, 0).max(d, keepdim=keepdim)
        return out.reshape(()) if not self.ndim else out

    def argmin(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = _UNSET) -> Tensor:
        """int32 position of the first smallest element."""
        x = self.logical_not() if self.dtype is dtypes.bool_ else self.bitwise_not() if self.dtype.is_int else self.neg()
        return x.argmax(dim, keepdim, axis=axis)

    def softmax(self, dim: int = -1, *, axis: int = _UNSET) -> Tensor:
        """exp(x) / sum(exp(x)) along `dim`, computed from x - max(x)."""
        d = axis_of(dim if axis is _UNSET else axis, self.ndim)
        e = (self - self._peak((d,) if self.ndim else ())).exp()
        return e / e.sum((d,) if self.ndim else (), keepdim=True)

    def log_softmax(self, dim: int = -1, *, axis: int = _UNSET) -> Tensor:
        """log(softmax(x)), without the detour."""
        d = axis_of(dim if axis is _UNSET else axis, self.ndim)
        axes = (d,) if self.ndim else ()
        y = self - self._peak(axes)
        return y - y.exp().sum(axes, keepdim=True).log()

    def softmin(self, dim: int = -1) -> Tensor:
        return self.neg().softmax(dim)
