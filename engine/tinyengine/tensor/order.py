"""Order statistics and search: the k-th smallest, median, quantiles, and places in a sorted vector.

The k-th smallest of many is found bit by bit from above, as in radix exchange (Knuth 1998, "The Art of Computer Programming" 3,
5.2.2), but in passes that only count: no element is moved. A place in a sorted vector is found by halving it, for all values at
once, without a branch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import user_line
from tinyengine.size import most
from tinyengine.tensor import core
from tinyengine.tensor.core import axis_of
from tinyengine.tensor.elementwise import choose, tensor_of
from tinyengine.tensor.reduce import Selected
from tinyengine.tensor.sorting import _BLOCK, _in_rows, _keys

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_BETWEEN = ("linear", "lower", "higher", "nearest", "midpoint")


def _kth(key: Any, k: Any) -> Any:
    """int32 (rows, 1): the position of the k-th smallest of each row of int32 keys, `k` (rows, 1) from 0; of equal ones the
    first."""
    best = key.dtype.min
    for bit in reversed(range(32)):
        # the largest number with k keys or fewer below it
        more = best + (1 << bit) if bit < 31 else core._cls.full(k.shape, 0, dtype=dtypes.int32)
        best = choose((key < more).sum(1, keepdim=True) <= k, more, best).cast(dtypes.int32)
    return (key == best).argmax(1, keepdim=True)


class Order:
    """Methods that ask for the order of elements and do not sort them all."""

    __slots__ = ()

    def _ranked(self: Any, d: int, rank: Any) -> Any:
        """int32, extent 1 along axis d: the position of the element of this `rank` from 0: an int, or a function of how many are
        no NaN and how many there are in all."""
        n = self.shape[d]

        def found(x: Any) -> Any:
            k = rank if isinstance(rank, int) else rank((x == x).sum(1, keepdim=True), n)
            k = core._cls.full((x.shape[0], 1), k, dtype=dtypes.int32) if isinstance(k, int) else k
            keys = _keys(x)
            return _kth(keys[0], k) if len(keys) == 1 and most(n) > _BLOCK else x.argsort(1).gather(1, k)

        return _in_rows(self.detach(), d, found)

    def _selected(self: Any, dim: int, rank: Any, keepdim: bool) -> Selected:
        """(values, positions) of the elements of a rank along `dim`, see `_ranked`."""
        d = axis_of(dim, self.ndim)
        if not self.ndim:
            return Selected(core.same(self), core._cls.full((), 0, dtype=dtypes.int32))
        shape = [1 if a == d else n for a, n in enumerate(self.shape)]
        at = self._ranked(d, rank) if self.numel() else core._cls.full(shape, 0, dtype=dtypes.int32)
        found = [self.gather(d, at), at]
        return Selected(*(found if keepdim else [x.squeeze(d) for x in found]))

    def kthvalue(self: Any, k: int, dim: int = -1, keepdim: bool = False) -> Selected:
        """(the k-th smallest along `dim`, its int32 position), k from 1; of equal ones any position. RuntimeError for another
        k."""
        d = axis_of(dim, self.ndim)
        if not 1 <= k <= (self.shape[d] if self.ndim else 1):
            raise RuntimeError(f"kthvalue: {k} of shape {list(self.shape)} along axis {dim}\n  at {user_line()}")
        return self._selected(dim, k - 1, keepdim)  # type: ignore[no-any-return]

    def median(self: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        """The middle element, of two the lower one; NaN where there is one. Without `dim` of all elements; else (the elements
        along `dim`, their int32 positions). The gradient goes to the element that was taken. IndexError where there is none."""
        return _median("median", self, dim, keepdim, lambda there, n: choose(there < n, there, (n - 1) // 2))

    def nanmedian(self: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        """`median` of what is no NaN; NaN where nothing else is there."""
        return _median("nanmedian", self, dim, keepdim, lambda there, n: (there - 1).maximum(0) // 2)

    def quantile(self: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
        """What the share `q` (0 to 1) of the elements along `dim`, or of all, lies below: between two elements a line, or with
        `interpolation` the 'lower', 'higher', 'nearest' or 'midpoint'; NaN where there is one. A vector of shares gives an axis
        in front. RuntimeError for ints, ValueError for another interpolation and for a share that is none."""
        if not self.dtype.is_float or not self.numel():
            raise RuntimeError(f"quantile takes floats, some of them, not {self.dtype}{list(self.shape)}\n  at {user_line()}")
        if interpolation not in _BETWEEN:
            words = ", ".join(_BETWEEN)
            raise ValueError(f"quantile: interpolation is one of {words}, not {interpolation!r}\n  at {user_line()}")
        if isinstance(q, (int, float)) and not 0 <= q <= 1:
            raise ValueError(f"quantile: a share is between 0 and 1, not {q}\n  at {user_line()}")
        share: Any = q if isinstance(q, core.Base) else core._cls(q, dtype=self.dtype)
        if share.ndim > 1 or share.dtype is not self.dtype:
            raise RuntimeError(
                f"quantile: shares are a number or a vector of {self.dtype}, not {share.dtype}{list(share.shape)}\n"
                f"  at {user_line()}"
            )
        flat, d = (self.flatten(), 0) if dim is None else (self, axis_of(dim, self.ndim))
        flat = flat if flat.ndim else flat.reshape(1)
        last = [a for a in range(flat.ndim) if a != d]
        rows = flat.permute([*last, d]).sort(-1)[0]  # NaN come last
        n = rows.shape[-1]
        place = share.reshape(-1) * (n - 1)
        place = {"lower": place.floor, "higher": place.ceil, "nearest": place.round}.get(interpolation, lambda: place)()
        below = place.floor()
        weight = (place - below) if interpolation == "linear" else choose(place > below, 0.5, 0.0).cast(self.dtype)
        low, high = (rows.take(x.cast(dtypes.int32).minimum(n - 1), -1) for x in (below, below + 1))
        out = choose(weight > 0, low + (high - low) * weight, low)
        out = choose((rows[..., -1:] != rows[..., -1:]), rows[..., -1:], out)
        out = out.permute([out.ndim - 1, *range(out.ndim - 1)])
        if keepdim:
            shape = [1] * self.ndim if dim is None else [1 if a == d else s for a, s in enumerate(self.shape)]
            out = out.reshape([out.shape[0], *shape])
        return out if share.ndim else out.squeeze(0)

    # Places in a sorted vector.

    def searchsorted(self: Any, values: Any, *, right: bool = False, side: str | None = None, sorter: Any = None) -> Tensor:
        """int32, of the shape of `values`: how many elements of this sorted vector are less than each of them (`right`, or side
        'right': less or equal), so where it can be inserted. Of a tensor (..., n) each row serves the values (..., m) beside it.
        NaN is the largest. `sorter`: the positions that sort it, as of `argsort`. An order that is none gives any place.
        RuntimeError when shapes or dtypes do not fit, or `side` is another word."""
        if side not in (None, "left", "right") or (right and side == "left"):
            raise RuntimeError(f"searchsorted: side is 'left' or 'right', not {side!r} with right={right}\n  at {user_line()}")
        sought: Any = values if isinstance(values, core.Base) else tensor_of(core._cls(values, dtype=self.dtype), "searchsorted")
        if not self.ndim or sought.dtype is not self.dtype or (self.ndim > 1 and sought.shape[:-1] != self.shape[:-1]):
            raise RuntimeError(
                f"searchsorted: values {sought.dtype}{list(sought.shape)} do not fit a sorted {self.dtype}{list(self.shape)}\n"
                f"  at {user_line()}"
            )
        x = self.detach() if sorter is None else self.detach().gather(-1, sorter)
        n, v = self.shape[-1], sought.detach()
        shape, v = v.shape, v if self.ndim > 1 else v.reshape(-1)
        at = core._cls.full(v.shape, 0, dtype=dtypes.int32)
        if not n or not v.numel():
            return at.reshape(shape)  # type: ignore[no-any-return]
        after = right or side == "right"
        for bit in reversed(range(n.bit_length())):
            more = at + (1 << bit)
            here = x.gather(-1, more.minimum(n) - 1)
            before = (_less(v, here).logical_not() if after else _less(here, v)) & (more <= n)
            at = choose(before, more, at)
        return at.cast(dtypes.int32).reshape(shape)  # type: ignore[no-any-return]

    def bucketize(self: Any, boundaries: Any, *, right: bool = False) -> Tensor:
        """int32, same shape: between which of the sorted `boundaries` each element lies, `boundaries.searchsorted(self)`."""
        ends: Any = boundaries if isinstance(boundaries, core.Base) else core._cls(boundaries, dtype=self.dtype)
        if ends.ndim != 1:
            raise RuntimeError(f"bucketize: boundaries are a vector, not of shape {list(ends.shape)}\n  at {user_line()}")
        return ends.searchsorted(self, right=right)  # type: ignore[no-any-return]


def _less(a: Any, b: Any) -> Any:
    """a < b, where NaN is the largest."""
    return (a < b) | ((b != b) & (a == a)) if a.dtype.is_float else a < b


def _median(what: str, x: Any, dim: int | None, keepdim: bool, rank: Any) -> Any:
    if x.ndim and not (x.numel() if dim is None else x.shape[axis_of(dim, x.ndim)]):
        raise IndexError(f"{what} of no elements, shape {list(x.shape)}\n  at {user_line()}")
    if dim is None:
        return x.flatten()._selected(0, rank, False)[0] if x.ndim else core.same(x)
    return x._selected(dim, rank, keepdim)


__all__ = ["Order"]
