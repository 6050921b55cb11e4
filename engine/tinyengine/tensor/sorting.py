"""sort, argsort, topk and multinomial. What is sorted is an int64 per element, which no other one equals: above, an int32 whose
order is that of the value; below, its position. So equal elements keep their order, and the position of each comes along.

Up to 32 elements find their places by counting what comes before each of them. Longer rows go through a network of exchanges
between halves (Batcher 1968, "Sorting networks and their applications", the bitonic one with its first half turned): log n (log n
+ 1) / 2 passes over contiguous halves, whole vectors each, and no element is moved by an address that depends on data. The k
largest of many are found among the k parts with the largest peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.size import most
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import axis_of, make
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.random import unit
from tinyengine.tensor.reduce import Selected
from tinyengine.tensor.scatter import Scatter

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


_BLOCK = 32
_FEW = 32  # elements that are found one by one
_PART, _PART_OF_FEW = 4, 16  # elements of a part, at least, whose peak is looked at first


def _sorted_block(x: Any) -> Any:
    """ints (rows, n), n at most 32 -> the positions of the elements of each row in order."""
    shape = (*x.shape, x.shape[-1])
    mine, other = (make(record.iota(x.ndim - 1 + k, dtypes.int32, shape, here()), core.NO_FLOW) for k in (0, 1))
    a, b = x.unsqueeze(-1), x.unsqueeze(-2)
    place = ((b < a) | (b == a) & (other < mine)).sum(-1)
    return choose(place.unsqueeze(-2) == mine, other, 0).cast(dtypes.int32).sum(-1)


def _exchanged(x: Any, half: int, turned: bool) -> Any:
    """int64 (rows, n): of each two elements that stand `half` apart in blocks of 2 half the smaller one first; `turned`: of each
    two that stand at equal distances from the ends of the block."""
    rows, n = x.shape
    pairs = x.reshape(rows, n // (2 * half), 2, half)
    low, high = pairs[:, :, 0], pairs[:, :, 1].flip(2) if turned else pairs[:, :, 1]
    smaller, larger = low.minimum(high), low.maximum(high)
    return core._cls.stack([smaller, larger.flip(2) if turned else larger], dim=2).reshape(rows, n).contiguous()


def _sorted(x: Any) -> Any:
    """int64 (rows, n), n a power of two -> each row in order."""
    n, size = x.shape[1], 2
    while size <= n:
        half = size // 2
        x = _exchanged(x, half, True)
        while half > 1:
            half //= 2
            x = _exchanged(x, half, False)
        size *= 2
    return x


def _in_order(key: Any) -> Any:
    """int32 (rows, n): the positions of the elements of each row in order. What fills up a row comes after them."""
    rows, n = key.shape
    if most(n) <= _BLOCK:
        return _sorted_block(key)
    position = make(record.iota(1, dtypes.int64, (rows, n), here()), core.NO_FLOW)
    x = (key.cast(dtypes.int64) << 32) + position
    size = 1 << (most(n) - 1).bit_length()
    x = _sorted(x.pad([None, (0, size - n)], value=dtypes.int64.max))
    return (x & 0xFFFFFFFF).cast(dtypes.int32).shrink([None, (0, n)])


def _keys(x: Any) -> list[Any]:
    """int32 tensors whose order, the last one first, is that of the elements: NaN is largest, zeros of both signs are equal."""
    if x.dtype.is_float:
        wide = x.dtype.itemsize == 8
        bits = choose(x == 0, 0.0, x if wide else x.cast(dtypes.float32)).bitcast(dtypes.int64 if wide else dtypes.int32)
        key = choose(bits < 0, bits ^ bits.dtype.max, bits)
        x = choose(x != x, key.dtype.max, key)
    elif x.dtype.kind == "uint" and x.dtype.itemsize >= 4:
        x = x.bitcast(f"int{8 * x.dtype.itemsize}")
        x = x ^ x.dtype.min
    if x.dtype.itemsize < 8:
        return [x.cast(dtypes.int32)]
    return [((x & 0xFFFFFFFF) + dtypes.int32.min).cast(dtypes.int32), (x >> 32).cast(dtypes.int32)]


def _order(keys: list[Any]) -> Any:
    """int32 (rows, n): the positions of the elements of each row in the order of the last key, and where that is equal of the one
    before."""
    at = None
    for key in keys:
        at = _in_order(key) if at is None else at.gather(1, _in_order(key.gather(1, at)))
    return at


def _largest(key: Any, k: int) -> Any:
    """int32 (rows, k): the positions of the k largest elements of each row in order, of equal ones the first."""
    rows, n = key.shape
    position = make(record.iota(1, dtypes.int64, (rows, n), here()), core.NO_FLOW)

    def place(x: Any) -> Any:
        return n - 1 - (x & 0xFFFFFFFF)

    return place(_top((key.cast(dtypes.int64) << 32) + (n - 1 - position), k, place)).cast(dtypes.int32)


def _top(x: Any, k: int, place: Callable[[Any], Any]) -> Any:
    """int64 (rows, k): the k largest elements of each row of `x` in order; no two are equal. `place`: where in its row one of
    them stands."""
    rows, n = x.shape
    part = 1 << max(0, int(math.log2(most(n) / k) / 2))
    if part < (_PART if k > _FEW else _PART_OF_FEW):
        return _first(x, k)
    count = -(-most(n) // part)
    parts = x.pad([None, (0, count * part - n)], value=dtypes.int64.min).reshape(rows, count, part)

    def number(x: Any) -> Any:
        return place(x) // part

    # each of the k largest stands in a part whose peak is one of the k largest peaks
    at = number(_top(parts.amax(2), k, number)).unsqueeze(2).expand(rows, k, part)
    return _first(parts.gather(1, at).reshape(rows, k * part).contiguous(), k)


def _first(x: Any, k: int) -> Any:
    """`_top` of short rows: pass after pass, each for the largest one below the one before; or, for many of them, sorted."""
    if k > _FEW:
        size = 1 << (most(x.shape[1]) - 1).bit_length()
        whole = _sorted(x.pad([None, (0, size - x.shape[1])], value=dtypes.int64.min))
        return whole.shrink([None, (size - k, size)]).flip(1)
    best = [x.amax(1, keepdim=True)]
    while len(best) < k:
        best.append(choose(x < best[-1], x, dtypes.int64.min).cast(dtypes.int64).amax(1, keepdim=True))
    return core._cls.cat(best, dim=1)


def _in_rows(x: Any, d: int, f: Callable[[Any], Any]) -> Any:
    """f of the matrix whose rows run along axis d of x, with that axis back in its place."""
    last = [k for k in range(x.ndim) if k != d] + [d]
    y = f(x.permute(last).reshape(-1, x.shape[d]))
    return y.reshape(*[x.shape[k] for k in last[:-1]], y.shape[-1]).permute(sorted(range(x.ndim), key=last.__getitem__))


class Sorting(Scatter):
    """Sorting methods. Positions are int32 (PyTorch: int64). Equal elements keep their order; NaN counts as largest."""

    __slots__ = ()

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
        """int32, same shape: the positions of the elements in sorted order. Always stable."""
        d = axis_of(dim, self.ndim)
        if not self.numel() or not self.ndim or self.shape[d] == 1:
            return make(record.const(0, dtypes.int32, self.shape, here()), core.NO_FLOW)
        return _in_rows(self.detach(), d, lambda x: _order([~k for k in _keys(x)] if descending else _keys(x)))  # type: ignore[no-any-return]

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Selected:
        """(values, positions), each of this shape. The gradient goes back to where the values came from."""
        at = self.argsort(dim, descending)
        return Selected(self.gather(dim, at) if self.ndim else core.same(self), at)

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Selected:
        """(values, positions) of the k largest (or smallest) elements, always in order. RuntimeError when there are fewer."""
        d, k = axis_of(dim, self.ndim), core.count_of(k, "topk: k")
        if not 0 <= k <= (self.shape[d] if self.ndim else 1):
            raise RuntimeError(f"topk: {k} elements along axis {dim} of shape {list(self.shape)}\n  at {user_line()}")
        if not self.ndim:
            return self.sort(dim, largest)
        if k > 0 and most(self.shape[d]) > max(_BLOCK, 2 * k) and self.dtype.itemsize < 8:
            at = _in_rows(self.detach(), d, lambda x: _largest(_keys(x)[0] if largest else ~_keys(x)[0], k))
        else:
            at = self.argsort(d, largest).shrink([(0, k) if a == d else None for a in range(self.ndim)])
        return Selected(self.gather(d, at), at)

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
        return hit.minimum(last.amax(-1, keepdim=True) - 1)  # type: ignore[no-any-return]

    @staticmethod
    def _steps(n: int) -> Any:
        return core._cls.arange(1, n + 1)


__all__ = ["Sorting"]
