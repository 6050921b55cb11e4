"""Scans: cumsum, cumprod, cummax, cummin, logcumsumexp. Element i of the result combines elements 0 to i.

All but the last are scan primitives. For logcumsumexp an axis is cut into blocks of 16. Within a block each element combines, of
all elements, those that do not come behind it, and the totals of the blocks are scanned in the same way and carried into the
block behind (Blelloch 1990, "Prefix sums and their applications", blockwise). The work is about 16 operations for each element,
side by side in the lanes of one vector, whatever the extent; extents up to 32 are one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here
from tinyengine.size import most
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.activations import Activations
from tinyengine.tensor.core import axis_of, make
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.reduce import _UNSET, Selected

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_BLOCK = 16

Total = Callable[[Any], Any]  # the last axis of a tensor combined to one element, and gone
Both = Callable[[Any, Any], Any]


class Scan(Activations):
    """Scan methods: shape and axes stay. IndexError when there is no such axis."""

    __slots__ = ()

    def _scan(self, op: str, dim: int) -> Tensor:
        """The scan primitive `op` (a key of ops.SCAN)."""
        d = axis_of(dim, self.ndim)
        if not self.ndim or not self.numel():
            return core.same(self)
        return make(record.scan(op, self.node, d, False, here(2)), self.flow)

    def cumsum(self, dim: int = _UNSET, dtype: Any = None, *, axis: int = _UNSET) -> Tensor:
        """Sums of the first 1, 2, 3... elements. Bools and small ints add up as int32."""
        return self.cast(self._sum_dtype(dtype))._scan("scan_add", _dim(dim, axis))

    def cumprod(self, dim: int = _UNSET, dtype: Any = None, *, axis: int = _UNSET) -> Tensor:
        """Products of the first 1, 2, 3... elements; dtypes as in `cumsum`."""
        return self.cast(self._sum_dtype(dtype))._scan("scan_mul", _dim(dim, axis))

    def cummax(self, dim: int = _UNSET, *, axis: int = _UNSET) -> Selected:
        """(the largest so far, its int32 position: of equal ones the last, which takes the gradient). NaN from the first NaN
        on."""
        return self._largest_so_far(_dim(dim, axis))

    def cummin(self, dim: int = _UNSET, *, axis: int = _UNSET) -> Selected:
        """(the smallest so far, its position); see `cummax`."""
        return self._largest_so_far(_dim(dim, axis), _reversed)

    def _largest_so_far(self, dim: int, order: Callable[[Any], Any] = lambda x: x) -> Selected:
        """`order`: from the elements to what is compared, and back."""
        d = axis_of(dim, self.ndim)
        o = here(2)
        if not self.ndim:
            return Selected(core.same(self), make(record.const(0, dtypes.int32, (), o), core.NO_FLOW))
        x: Any = order(self.detach())
        best = x._scan("scan_max", d)
        found: Any = choose((x == best) | (x != x), make(record.iota(d, dtypes.int32, self.shape, o), core.NO_FLOW), 0)
        where = found._scan("scan_max", d)
        return Selected(self.gather(d, where) if self.flow else order(best), where)  # type: ignore[attr-defined]

    def logcumsumexp(self, dim: int = _UNSET, *, axis: int = _UNSET) -> Tensor:
        """log(cumsum(exp(x))), without overflow. Ints and bools become float32 first."""
        x = self.float_()
        d = axis_of(_dim(dim, axis), self.ndim)
        if not self.ndim or not self.numel():
            return core.same(x)
        last = [k for k in range(self.ndim) if k != d] + [d]
        out = _along_last(x.permute(last), _logsumexp, _logaddexp, -math.inf)
        return out.permute(sorted(range(self.ndim), key=last.__getitem__))  # type: ignore[no-any-return]


def _reversed(x: Any) -> Any:
    """In the opposite order."""
    return x.neg() if x.dtype.is_float else x.bitwise_not()


def _dim(dim: int, axis: int) -> int:
    return dim if axis is _UNSET else axis


def _along_last(x: Any, total: Total, both: Both, identity: Any) -> Any:
    *lead, n = x.shape
    if most(n) <= 2 * _BLOCK:
        return _windows(x, total, identity)
    count = -(-most(n) // _BLOCK)
    blocks = _before(x, 0, count * _BLOCK - n, identity).reshape(*lead, count, _BLOCK)
    carried = _before(
        _along_last(total(blocks), total, both, identity).shrink([*[None] * len(lead), (0, count - 1)]), 1, 0, identity
    )
    whole = both(carried.unsqueeze(-1), _windows(blocks, total, identity))
    return whole.reshape(*lead, count * _BLOCK).shrink([*[None] * len(lead), (0, n)])


def _windows(x: Any, total: Total, identity: Any) -> Any:
    i = x.arange(x.shape[-1])
    return total(choose(i <= i.unsqueeze(-1), x.unsqueeze(-2), identity))


def _before(x: Any, low: int, high: int, value: Any) -> Any:
    return x.pad([*[None] * (x.ndim - 1), (low, high)], value=value)


def _finite(peak: Any) -> Any:
    """What to take out before exp: the largest element, or 0 where that is infinite (exp of it is exact then)."""
    return choose(peak.isfinite(), peak, 0.0).detach()


def _logsumexp(x: Any) -> Any:
    m = _finite(x.amax(-1, keepdim=True))
    return (x - m).exp().sum(-1).log() + m.squeeze(-1)


def _logaddexp(a: Any, b: Any) -> Any:
    m = _finite(a.maximum(b))
    return ((a - m).exp() + (b - m).exp()).log() + m


__all__ = ["Scan"]
