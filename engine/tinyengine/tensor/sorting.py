"""sort, argsort, topk and multinomial. What is sorted is an int32 per element, whose order is that of the value, with its
position beside it. Blocks of up to 32 are sorted by counting what comes before each element; then pairs of sorted runs are
merged, doubling them each time: every place of the result finds, by bisection, how many elements come from the left run (Green,
McColl and Bader 2012, "GPU merge path"). Of equal elements those of the left run come first, so the order is stable. That is
n log^2 n work in one kernel of indexed loads per doubling, and no element is moved by a scatter.
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


def _sorted_blocks(x: Any) -> tuple[Any, Any]:
    """(..., n) ints, n at most 32 -> each row in order, and the places in the row that its elements come from."""
    n = x.shape[-1]
    shape = (*x.shape, n)
    mine, other = (make(record.iota(x.ndim - 1 + k, dtypes.int32, shape, here()), core.NO_FLOW) for k in (0, 1))
    a, b = x.unsqueeze(-1), x.unsqueeze(-2)
    place = ((b < a) | (b == a) & (other < mine)).sum(-1)
    hit = place.unsqueeze(-2) == mine
    return choose(hit, b, 0).cast(x.dtype).sum(-1), choose(hit, other, 0).cast(dtypes.int32).sum(-1)


def _merged(x: Any, at: Any) -> tuple[Any, Any]:
    """(rows, pairs, 2, m) with sorted runs of m along the last axis, and where they come from -> (rows, pairs, 2m), both."""
    rows, pairs, _, m = x.shape
    shape = (rows, pairs, 2 * m)
    o = here()
    first, k = (make(record.iota(d, dtypes.int32, shape, o), core.NO_FLOW) for d in (1, 2))
    first = first * (2 * m)

    def read(table: Any, i: Any) -> Any:
        return table.reshape(rows, pairs * 2 * m).gather(1, (first + i).reshape(rows, pairs * 2 * m)).reshape(shape)

    low, high = (k - m).maximum(0), k.minimum(m)
    for _ in range(m.bit_length()):  # low <= how many of the first k elements come from the left run <= high
        middle = (low + high) >> 1
        more = (low < high) & (read(x, middle.minimum(m - 1)) <= read(x, (k + (m - 1) - middle).maximum(m).minimum(2 * m - 1)))
        low, high = choose(more, middle + 1, low), choose(more, high, middle)
    right = k - low
    over, some = right >= m, low < m  # nothing is left of the right run, something of the left one
    low, right = low.minimum(m - 1), right.minimum(m - 1).maximum(0) + m
    (a, b), (left, other) = ((read(t, low), read(t, right)) for t in (x, at))
    from_left = over | some & (a <= b)
    return choose(from_left, a, b), choose(from_left, left, other)


def _in_order(key: Any) -> Any:
    """int32 (rows, n): the positions of the elements of each row in order. What fills up the last block comes after them."""
    rows, n = key.shape
    run, count = _runs(most(n)) if most(n) > _BLOCK else (n, 1)
    x = key.pad([None, (0, run * count - n)], value=dtypes.int32.max).reshape(rows, count, run)
    x, at = _sorted_blocks(x)
    if count > 1:
        at = at + make(record.iota(1, dtypes.int32, at.shape, here()), core.NO_FLOW) * run
        x, at = x.contiguous(), at.contiguous()
    while count > 1:
        pairs = (rows, count // 2, 2, run)
        x, at = _merged(x.reshape(pairs), at.reshape(pairs))
        x, at = x.contiguous(), at.contiguous()
        run, count = 2 * run, count // 2
    return at.reshape(rows, run).shrink([None, (0, n)])


def _runs(n: int) -> tuple[int, int]:
    """(elements, number) of the blocks that are sorted first: a power of two of them, few elements more than n in all."""
    count = 1
    while n > _BLOCK * count:
        count *= 2
    return -(-n // (4 * count)) * 4, count


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
