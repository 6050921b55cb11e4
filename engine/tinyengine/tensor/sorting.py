"""sort, argsort, topk and multinomial. What is sorted is one int64 per element: an int32 whose order is that of the value above,
the position below, so no two are equal and the order is stable. Blocks of 32 are sorted by counting what comes before each
element; then pairs of sorted runs are merged, doubling them each time: every place of the result finds, by bisection, how many
elements come from the left run (Green, McColl and Bader 2012, "GPU merge path"). That is n log^2 n work in one kernel of indexed
loads per doubling, and no element is moved by a scatter.
"""

from __future__ import annotations

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


def _sorted_blocks(x: Any) -> Any:
    """(..., 32) unequal ints, each row in order."""
    place = (x.unsqueeze(-2) < x.unsqueeze(-1)).sum(-1)
    target = make(record.iota(x.ndim - 1, dtypes.int32, (*x.shape, x.shape[-1]), here()), core.NO_FLOW)
    return choose(place.unsqueeze(-2) == target, x.unsqueeze(-2), 0).cast(x.dtype).sum(-1)


def _merged(x: Any) -> Any:
    """(rows, pairs, 2, m) with sorted runs of m along the last axis -> (rows, pairs, 2m) sorted."""
    rows, pairs, _, m = x.shape
    table = x.reshape(rows, pairs * 2 * m)
    shape = (rows, pairs, 2 * m)
    o = here()
    first, k = (make(record.iota(d, dtypes.int32, shape, o), core.NO_FLOW) for d in (1, 2))
    first = first * (2 * m)

    def read(i: Any) -> Any:
        return table.gather(1, (first + i).reshape(rows, pairs * 2 * m)).reshape(shape)

    low, high = (k - m).maximum(0), k.minimum(m)
    for _ in range(m.bit_length()):  # low <= how many of the first k elements come from the left run <= high
        middle = (low + high) >> 1
        more = (low < high) & (read(middle.minimum(m - 1)) < read((k + (m - 1) - middle).clamp(m, 2 * m - 1)))
        low, high = choose(more, middle + 1, low), choose(more, high, middle)
    right = k - low
    a, b = read(low.minimum(m - 1)), read(right.minimum(m - 1) + m)
    return choose((right >= m) | (low < m) & (a < b), a, b)


def _in_order(key: Any) -> Any:
    """int32 (rows, n): the positions of the elements of each row in order. What fills up the last block comes after them."""
    rows, n = key.shape
    size = n if most(n) <= _BLOCK else _BLOCK << (-(-most(n) // _BLOCK) - 1).bit_length()
    x = key.pad([None, (0, size - n)], value=dtypes.int32.max).cast(dtypes.int64)
    x = (x << 32) + make(record.iota(1, dtypes.int64, (rows, size), here()), core.NO_FLOW)
    run = size if most(size) <= _BLOCK else _BLOCK
    x = _sorted_blocks(x.reshape(rows, size // run, run)).contiguous()
    while most(run) < most(size):
        x = _merged(x.reshape(rows, size // (2 * run), 2, run)).contiguous()
        run *= 2
    return (x.reshape(rows, size).shrink([None, (0, n)]) & 0xFFFFFFFF).cast(dtypes.int32)


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
    """int32 (rows, k): the positions of the k largest elements of each row in order, of equal ones the first: pass after pass
    over the row, each for the largest one below the one before."""
    rows, n = key.shape
    position = make(record.iota(1, dtypes.int64, (rows, n), here()), core.NO_FLOW)
    x = (key.cast(dtypes.int64) << 32) + (n - 1 - position)  # no two are equal
    best = [x.amax(1, keepdim=True)]
    while len(best) < k:
        best.append(choose(x < best[-1], x, dtypes.int64.min).cast(dtypes.int64).amax(1, keepdim=True))
    return (n - 1 - (core._cls.cat(best, dim=1) & 0xFFFFFFFF)).cast(dtypes.int32)


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
        if 0 < k <= _FEW and most(self.shape[d]) > _BLOCK and self.dtype.itemsize < 8:
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
