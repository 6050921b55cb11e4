"""Reductions. `dim` is an axis, several, or None for all; `axis` is accepted as its other name. `keepdim` leaves extent 1.

`max` and `min` along one axis given as `dim` (or by position) return (values, indices), as in PyTorch; given as `axis=`, or as
several axes, the values only, as in NumPy and tinygrad. Integer sums and products are int32 (int64 and uint64 stay).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.size import Size
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import axes_of, axis_of, make
from tinyengine.tensor.elementwise import choose, tensor_of
from tinyengine.tensor.movement import Movement

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

Dim = int | tuple[int, ...] | list[int] | None
_UNSET: Any = object()


class Selected(NamedTuple):
    """What max, min, sort, topk, cummax and cummin along an axis return: what was found, and where (int32)."""

    values: Tensor
    indices: Tensor


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
        which = dim if axis is _UNSET else axis
        axes = axes_of(None if which == () else which, len(n.shape))
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

    def max(self, dim: Any = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Any:
        """The largest element. Along one axis, `dim`: Selected(values, indices); of equal ones the first is found, and takes the
        gradient. `axis=`, or several axes: the values only, as `amax`. With a tensor: `maximum`. NaN counts as largest.
        IndexError for an axis that is empty, RuntimeError for an empty tensor."""
        return self._extreme("max", dim, keepdim, axis)

    def min(self, dim: Any = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Any:
        """The smallest element; see `max`."""
        return self._extreme("min", dim, keepdim, axis)

    def _extreme(self, what: str, dim: Any, keepdim: bool, axis: Any) -> Any:
        if isinstance(dim, core.Base):
            return getattr(self, f"{what}imum")(dim)
        alone, find = getattr(self, f"a{what}"), getattr(self, f"arg{what}")
        if axis is not _UNSET or not isinstance(dim, int):
            return alone(dim if axis is _UNSET else axis, keepdim)
        self._not_empty(what, dim)
        at = find(dim, keepdim=True)
        best = self.gather(dim, at) if self.flow and self.ndim else alone(dim, keepdim=True)  # type: ignore[attr-defined]
        if self.ndim and not keepdim:
            best, at = best.squeeze(dim), at.squeeze(dim)
        return Selected(best, at)

    def amax(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """The largest values; equal ones share the gradient. IndexError for an axis that is empty, RuntimeError for an empty
        tensor."""
        self._not_empty("amax", dim if axis is _UNSET else axis)
        return self._reduce("max", dim, keepdim, axis)

    def amin(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """The smallest values; see `amax`."""
        self._not_empty("amin", dim if axis is _UNSET else axis)
        x = self._reversed()
        return x._reduce("max", dim, keepdim, axis)._reversed()  # type: ignore[no-any-return]

    def _reversed(self) -> Any:
        """The elements in the opposite order: -x overflows at the smallest int; ~x does not."""
        return self.logical_not() if self.dtype is dtypes.bool_ else self.bitwise_not() if self.dtype.is_int else self.neg()

    def _not_empty(self, what: str, dim: Dim) -> None:
        if dim is None or dim == ():
            if not self.numel():
                raise RuntimeError(f"{what} of nothing: shape {list(self.shape)}\n  at {user_line()}")
        elif any(self.shape[a] == 0 for a in axes_of(dim, self.ndim)):
            raise IndexError(f"{what} of nothing: shape {list(self.shape)} is empty along dim {dim}\n  at {user_line()}")

    def all(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """True where every element is true; true of nothing. Of uint8 the result is uint8, as in PyTorch."""
        out: Tensor = self.bool().logical_not()._reduce("max", dim, keepdim, axis).logical_not()
        return out.cast(self.dtype) if self.dtype is dtypes.uint8 else out

    def any(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """True where one element is true."""
        out = self.bool()._reduce("max", dim, keepdim, axis)
        return out.cast(self.dtype) if self.dtype is dtypes.uint8 else out

    def mean(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """The sum times 1/count. RuntimeError for ints, as in PyTorch: cast to float first."""
        if not self.dtype.is_float:
            raise RuntimeError(f"mean of {self.dtype}: cast it to a float first, as in x.float().mean()\n  at {user_line()}")
        which = dim if axis is _UNSET else axis
        return self._share(self.sum(which, keepdim), which)

    def _share(self, total: Tensor, which: Dim, correction: float = 0) -> Tensor:
        """total / (count - correction)."""
        count: Any = math.prod(self.shape[a] for a in axes_of(None if which == () else which, self.ndim))
        if isinstance(count, Size):
            number: Any = tensor_of(count, "mean")
            mean: Tensor = (total * (1.0 / (number.cast(core.wide(self.dtype)) - correction))).cast(self.dtype)
            return mean
        return total * (
            1.0 / (count - correction) if count > correction else math.nan if correction == 0 or count <= 1 else math.inf
        )

    def var(
        self,
        dim: Dim = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
        *,
        axis: Dim = _UNSET,
    ) -> Tensor:
        """The summed squared distance from the mean, divided by count - correction (1, or 0 when not unbiased). RuntimeError for
        ints."""
        which, rest = _variance_of(dim, axis, unbiased, correction)
        if not self.dtype.is_float:
            raise RuntimeError(f"var of {self.dtype}: cast it to a float first, as in x.float().var()\n  at {user_line()}")
        d = self - self.mean(which, keepdim=True)
        return self._share((d * d).sum(which, keepdim), which, rest)

    def std(
        self,
        dim: Dim = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
        *,
        axis: Dim = _UNSET,
    ) -> Tensor:
        """The square root of `var`; where that is 0 the gradient is 0."""
        v = self.var(dim, unbiased, keepdim, correction, axis=axis)
        spread = v > 0
        return choose(spread, choose(spread, v, 1.0).sqrt(), v.detach())

    def var_mean(
        self,
        dim: Dim = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
        *,
        axis: Dim = _UNSET,
    ) -> tuple[Tensor, Tensor]:
        """(variance, mean) along `dim`, or of all elements; see `var`."""
        which, rest = _variance_of(dim, axis, unbiased, correction)
        return self.var(which, keepdim=keepdim, correction=rest), self.mean(which, keepdim)

    def std_mean(
        self,
        dim: Dim = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
        *,
        axis: Dim = _UNSET,
    ) -> tuple[Tensor, Tensor]:
        """(standard deviation, mean) along `dim`, or of all elements; see `var`."""
        which, rest = _variance_of(dim, axis, unbiased, correction)
        return self.std(which, keepdim=keepdim, correction=rest), self.mean(which, keepdim)

    def logsumexp(self, dim: Dim = None, keepdim: bool = False, *, axis: Dim = _UNSET) -> Tensor:
        """log(sum(exp(x))), without overflow: the largest element is taken out first. -inf of nothing."""
        which = axes_of(dim if axis is _UNSET else axis, self.ndim)
        m = self._peak(which)
        m = choose(m.isfinite(), m, 0.0)
        s = (self.float_() - m).exp().sum(which, keepdim=True).log() + m
        return s if keepdim else s.reshape(squeeze_axes(s.shape, which))

    def _peak(self, axes: Dim) -> Tensor:
        """The maximum, a constant for the gradient: what is subtracted before exp does not change the result."""
        x = self.float_()
        if not x.numel():
            return x.sum(axes, keepdim=True).detach()
        return x._reduce("max", axes, True, _UNSET).detach()

    def float_(self) -> Tensor:
        """This tensor, or as the default float where it is none."""
        return self.cast(core.float_of(self.dtype))

    def argmax(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = _UNSET) -> Tensor:
        """int32 position of the first largest element along `dim`, or in the flat tensor. A NaN counts as largest."""
        which = dim if axis is _UNSET else axis
        if which is None:
            if not self.numel():
                raise IndexError(f"argmax of nothing: shape {list(self.shape)}\n  at {user_line()}")
            out = self.flatten().argmax(0)
            return out.reshape((1,) * self.ndim) if keepdim else out
        d = axis_of(which, self.ndim)
        self._not_empty("argmax", d)
        x = self.unsqueeze(0) if not self.ndim else self
        n = x.shape[d]
        best = x == x.amax(d, keepdim=True)
        if x.dtype.is_float:
            best = best | (x != x)
        # the first of equals is the one with most elements from it to the end
        left = make(record.iota(d, dtypes.int32, x.shape, here(2)), core.NO_FLOW)
        found: Tensor = n - choose(best, n - left, 0).amax(d, keepdim=keepdim)
        return found.reshape(()) if not self.ndim else found

    def argmin(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = _UNSET) -> Tensor:
        """int32 position of the first smallest element."""
        return self._reversed().argmax(dim, keepdim, axis=axis)  # type: ignore[no-any-return]

    def softmax(self, dim: int = -1, *, axis: int = _UNSET) -> Tensor:
        """exp(x) / sum(exp(x)) along `dim`, computed from x - max(x)."""
        d = axis_of(dim if axis is _UNSET else axis, self.ndim)
        x = self.float_()
        e = (x - x._peak((d,) if self.ndim else ())).exp()
        return e / e.sum((d,) if self.ndim else (), keepdim=True)

    def log_softmax(self, dim: int = -1, *, axis: int = _UNSET) -> Tensor:
        """log(softmax(x)), without the detour."""
        d = axis_of(dim if axis is _UNSET else axis, self.ndim)
        axes = (d,) if self.ndim else ()
        x = self.float_()
        y = x - x._peak(axes)
        return y - y.exp().sum(axes, keepdim=True).log()

    def softmin(self, dim: int = -1, *, axis: int = _UNSET) -> Tensor:
        """softmax(-x)."""
        return self.neg().softmax(dim, axis=axis)


def _variance_of(dim: Any, axis: Any, unbiased: bool, correction: float | None) -> tuple[Any, float]:
    """(axes, correction); a bool in the place of `dim` is `unbiased`, as in PyTorch."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return (dim if axis is _UNSET else axis), (correction if correction is not None else 1 if unbiased else 0)
