"""sort, argsort, topk and multinomial. The place of an element in the sorted order is the number of elements that come before it:
n^2 comparisons along the axis, in one sum without data-dependent addresses; then one scatter turns places into positions, and one
gather fetches the values. Few kernels, and cheap below some thousand elements; there is no n log n sort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import axis_of, make
from tinyengine.tensor.random import unit
from tinyengine.tensor.scatter import Scatter

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _first(a: Any, b: Any) -> Any:
    """a < b, where NaN is larger than any number."""
    less = a < b
    return less | (a == a).bitwise_and(b != b) if a.dtype.is_float else less


class Sorting(Scatter):
    """Sorting methods. Positions are int32 (PyTorch: int64). Equal elements keep their order; NaN counts as largest."""

    __slots__ = ()

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
        """int32, same shape: the positions of the elements in sorted order. Always stable."""
        d = axis_of(dim, self.ndim)
        if not self.ndim:
            return make(record.const(0, dtypes.int32, (), here()), core.NO_FLOW)
        if not self.numel():
            return make(record.const(0, dtypes.int32, self.shape, here()), core.NO_FLOW)
        key: Any = self.detach()
        key = key.cast(dtypes.int32) if key.dtype is dtypes.bool_ else key
        n, shape = self.shape[d], self.shape
        me, other = key.unsqueeze(d + 1), key.unsqueeze(d)  # element i along axis d, element j along axis d + 1
        pairs = (*shape[:d], n, n, *shape[d + 1 :])
        o = here()
        i, j = (make(record.iota(k, dtypes.int32, pairs, o), core.NO_FLOW) for k in (d, d + 1))
        a, b = (me, other) if descending else (other, me)
        before = _first(a, b) | (_first(b, a).logical_not() & (j < i))
        place = before.sum(d + 1)
        at = make(record.iota(d, dtypes.int32, shape, o), core.NO_FLOW)
        nothing = record.const(0, dtypes.int32, shape, o)
        return make(record.scatter_add(nothing, place.node, at.node, d, o), core.NO_FLOW)

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> tuple[Tensor, Tensor]:
        """(values, positions), each of this shape. The gradient goes back to where the values came from."""
        at = self.argsort(dim, descending)
        return (self.gather(dim, at) if self.ndim else make(self.node, self.flow)), at

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
        """(values, positions) of the k largest (or smallest) elements, always in order. RuntimeError when there are fewer."""
        d = axis_of(dim, self.ndim)
        if not 0 <= k <= (self.shape[d] if self.ndim else 1):
            raise RuntimeError(f"topk: {k} elements along axis {dim} of shape {list(self.shape)}\n  at {user_line()}")
        if not self.ndim:
            return self.sort(dim, largest)
        at = self.argsort(d, largest).shrink([(0, k) if a == d else None for a in range(self.ndim)])
        return self.gather(d, at), at

    def multinomial(self, num_samples: int = 1, replacement: bool = False) -> Tensor:
        """int32 (..., num_samples): positions drawn with probabilities proportional to this vector (or each row of a matrix).
        With replacement by inversion of the cumulative sum; without, the largest of p / exponential noise (Efraimidis and
        Spirakis 2006). RuntimeError for other shapes, for ints, and for more samples than elements without replacement. Weights
        that are negative or all zero are not looked for (PyTorch raises)."""
        if self.ndim not in (1, 2) or not self.dtype.is_float:
            raise RuntimeError(
                f"multinomial needs a float vector or matrix, not {self.dtype}{list(self.shape)}\n  at {user_line()}"
            )
        n = self.shape[-1]
        if num_samples < 1 or (num_samples > n and not replacement) or not n:
            raise RuntimeError(
                f"multinomial: {num_samples} samples of {n} elements, replacement={replacement}\n  at {user_line()}"
            )
        p: Any = self.detach().float_()
        if not replacement:
            # u in (0, 1]: of a weight 0 the key is 0, so it comes last
            return (p / (1 - unit(self.shape)).log().neg().maximum(1e-30)).topk(num_samples)[1]  # type: ignore[no-any-return]
        ends = p.cumsum(-1)
        shots = unit((*self.shape[:-1], num_samples)).unsqueeze(-1) * ends[..., -1:].unsqueeze(-1)
        hit = (ends.unsqueeze(-2) <= shots).sum(-1)
        last = (p > 0).cast(dtypes.int32) * Sorting._steps(n)  # rounding must not lead beyond the last element with weight
        return hit.minimum(last.max(-1, keepdim=True) - 1)  # type: ignore[no-any-return]

    @staticmethod
    def _steps(n: int) -> Any:
        return core._cls.arange(1, n + 1)


__all__ = ["Sorting"]
