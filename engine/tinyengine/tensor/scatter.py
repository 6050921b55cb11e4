"""Writing at positions that depend on data: scatter, scatter_reduce, and assignment through index tensors and masks.

All of it is made of the scatter primitives, which write a value or join it with what is there: m steps for m indices, in order.
So of several values for one place the last one stays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import axis_of, make
from tinyengine.tensor.elementwise import choose, tensor_of
from tinyengine.tensor.indexing import Indexing, NewAxis, _array, _normalise, _positions, one_mask, place_of, spread, together

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_MODES = ("sum", "prod", "mean", "amax", "amin")
_SHORT = {"add": "sum", "multiply": "prod"}  # of torch.scatter


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    return core._cls.full(shape, 0, dtype=dtype)


def _scattered(op: str, table: Any, d: int, index: Any, values: Any) -> Any:
    """The scatter primitive `op`; bools are joined as bytes."""
    if table.dtype is dtypes.bool_ and op != "scatter":
        return _scattered(op, table.cast(dtypes.uint8), d, index, values.cast(dtypes.uint8)).cast(dtypes.bool_)
    flow: int = table.flow | values.flow
    nodes: tuple[Any, ...] = (table.node, values.node)
    if flow > core.state.limit:
        flow, nodes = core.settle(table, values)
    return make(record.scatter(op, nodes[0], index.node, nodes[1], d, here()), flow)


def put(table: Any, d: int, index: Any, values: Any) -> Any:
    """`table` with the values at their places along axis d; the last one of equal places. `index` has the shape of `values`, or
    extent 1 on every axis but d: it gives whole rows."""
    return _scattered("scatter", table, d, index.expand(values.shape), values)


def _reversed(x: Any) -> Any:
    """In the opposite order."""
    return x.neg() if x.dtype.is_float else x.bitwise_not()


class Scatter(Indexing):
    """Scatter methods and item assignment. A position out of range raises IndexError when the program has run."""

    __slots__ = ()

    def scatter(self, dim: int, index: Tensor, src: Any, reduce: str | None = None) -> Tensor:
        """A copy in which src[p] (or the number `src`) stands at p with axis `dim` replaced by index[p]. Of several values for
        one place the last wins and takes the gradient (PyTorch: any of them). reduce='add' or 'multiply' combines with what is
        there. RuntimeError when shapes or dtypes do not fit."""
        d = axis_of(dim, self.ndim)
        values = self._values_for("scatter", d, index, src)
        if reduce is not None:
            if reduce not in _SHORT:
                raise RuntimeError(f"scatter: reduce is 'add' or 'multiply', not {reduce!r}\n  at {user_line()}")
            return self.scatter_reduce(dim, index, values, _SHORT[reduce])
        return self._put(d, index, values)

    def _put(self, d: int, index: Any, values: Any) -> Tensor:
        """Without checks."""
        if not index.numel():
            return self + values.sum(dtype=self.dtype) if values.flow else core.same(self)
        if not self.ndim:
            return self.reshape(1)._put(0, index.reshape(1), values.reshape(1)).reshape(())
        return put(self, d, index, values)  # type: ignore[no-any-return]

    def scatter_reduce(self, dim: int, index: Tensor, src: Any, reduce: str, include_self: bool = True) -> Tensor:
        """Each place becomes the sum, product, mean, amax or amin of all that is put there and, if `include_self`, of what it
        held; other places stay. Means of ints round down. RuntimeError for another `reduce`, or for shapes and
        dtypes that do not fit."""
        d = axis_of(dim, self.ndim)
        values = self._values_for("scatter_reduce", d, index, src)
        if not isinstance(reduce, str):
            raise TypeError(f"scatter_reduce: reduce is a str, not {reduce!r}\n  at {user_line()}")
        if reduce not in _MODES:
            raise RuntimeError(f"scatter_reduce: reduce is one of {', '.join(_MODES)}, not {reduce!r}\n  at {user_line()}")
        if not index.numel():
            return core.same(self)
        if not self.ndim:
            return self.reshape(1).scatter_reduce(0, index.reshape(1), values.reshape(1), reduce, include_self).reshape(())
        x: Any = self
        hits: Any = None
        if reduce == "mean" or not include_self:
            ones = core._cls.full(index.shape, 1, dtype=dtypes.int32)
            hits = _zeros(self.shape, dtypes.int32).scatter_add(d, index, ones)
        if not include_self:
            first = {"prod": 1, "amax": self.dtype.min, "amin": self.dtype.max}.get(reduce, 0)
            x = choose(hits > 0, core._cls.full(self.shape, first, dtype=self.dtype), x)
        if reduce == "amin":
            return _reversed(_scattered("scatter_max", _reversed(x), d, index, _reversed(values)))  # type: ignore[no-any-return]
        op = {"prod": "scatter_mul", "amax": "scatter_max"}.get(reduce, "scatter_add")
        out = _scattered(op, x, d, index, values)
        if reduce == "mean":
            count = (hits + 1 if include_self else hits.maximum(1)).cast(self.dtype)
            out = out / count if self.dtype.is_float else out // count
        return out  # type: ignore[no-any-return]

    def _values_for(self, what: str, d: int, index: Any, src: Any) -> Any:
        """`src` cut to the shape of `index`, checked."""
        if not isinstance(index, Indexing) or not index.dtype.is_int:
            raise RuntimeError(f"{what} needs an index tensor of ints\n  at {user_line()}")
        if isinstance(src, (bool, int, float, np.generic)):
            src = core._cls.full(index.shape, src, dtype=self.dtype)
        values: Any = tensor_of(src, what)
        if values.dtype is not self.dtype:
            raise RuntimeError(
                f"{what}: values of {values.dtype} into a tensor of {self.dtype}; cast one of them\n  at {user_line()}"
            )
        fits = index.ndim == self.ndim == values.ndim and all(
            i <= v and (k == d or i <= s) for k, (i, v, s) in enumerate(zip(index.shape, values.shape, self.shape, strict=True))
        )
        if index.numel() and not fits:
            raise RuntimeError(
                f"{what} along axis {d}: index {list(index.shape)} and values {list(values.shape)} do not fit shape"
                f" {list(self.shape)}\n  at {user_line()}"
            )
        return values.shrink([(0, i) for i in index.shape]) if fits else values

    # Assignment.
    def __setitem__(self, index: Any, value: Any) -> None:
        """x[index] = value for everything that x[index] reads: this tensor gets the new content (memory that was computed is
        overwritten). `value` broadcasts to the shape of x[index]; the dtype stays. Of several values for one place the last one
        wins. One value through one mask is a `where`; other masks are computed at once, for they decide a shape. RuntimeError
        when the value does not fit."""
        v: Any = value if isinstance(value, core.Base) else core._cls(value, dtype=self.dtype)
        given, v = v.dtype, v.cast(self.dtype)
        mask = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        mask = core._cls(mask) if one_mask(mask) and not isinstance(mask, core.Base) else mask
        if isinstance(mask, core.Base) and mask.dtype is dtypes.bool_ and mask.shape == self.shape[: mask.ndim]:
            rest = self.shape[mask.ndim :]
            if v.ndim <= len(rest):
                spread = mask.reshape((*mask.shape, *(1,) * len(rest)))  # type: ignore[attr-defined]
                self.become(choose(spread, v.expand(rest), self))  # type: ignore[attr-defined]
                return
        items = _normalise(index, self.shape)
        arrays = [
            i.at if isinstance(i, NewAxis) else None if i is None or isinstance(i, (int, slice)) else _array(i) for i in items
        ]
        if all(a is None for a in arrays):
            self._set_slices(items, v)
            return
        if given is not self.dtype:
            raise RuntimeError(
                f"x[indices] = y: y of {given} for x of {self.dtype}; cast it, as in y.cast(x.dtype)\n  at {user_line()}"
            )
        # first the part that ints and slices choose, then the indexed axes of that
        basic = tuple(
            [None if isinstance(i, NewAxis) else slice(None) if a is not None else i for i, a in zip(items, arrays, strict=True)]
        )
        part = self[basic]
        inner = [a for i, a in zip(items, arrays, strict=True) if not isinstance(i, int)]
        changed = _set_arrays(part, inner, v)
        if changed is not None:
            self._set_slices(list(basic), changed)


def _set_arrays(x: Any, arrays: list[Any], v: Any) -> Any:
    """x with v at the positions in `arrays` (one entry for each axis, None for whole axes); None if nothing is written."""
    axes = [d for d, a in enumerate(arrays) if a is not None]
    rest = [d for d in range(x.ndim) if d not in axes]
    at: list[Any] = [_positions(arrays[d], x.shape[d], d) for d in axes]
    where = together(at)
    k = place_of(axes, arrays, rest)
    tail = [x.shape[d] for d in rest]
    v = spread(v, (*tail[:k], *where, *tail[k:]))
    v = v.permute([*range(k, k + len(where)), *range(k), *range(k + len(where), v.ndim)])
    if not v.numel():
        return None
    sizes = [x.shape[d] for d in axes]
    rows, width = math.prod(sizes), math.prod(tail)
    values = v.reshape(math.prod(where), width)
    table = x.permute(axes + rest).reshape(rows, width)
    if all(isinstance(arrays[d], np.ndarray) for d in axes):
        host = [
            np.broadcast_to(np.where(a < 0, a + s, a), where).reshape(-1)
            for a, s in zip([arrays[d] for d in axes], sizes, strict=True)
        ]
        linear = np.ravel_multi_index(host, sizes)
        index: Any = core._cls(linear.astype(np.int32 if rows < 1 << 31 else np.int64))
    else:
        index = at[0]
        for p, s in zip(at[1:], sizes[1:], strict=True):
            index = index * s + p
        index = index.expand(where).flatten()
    new = put(table, 0, index.unsqueeze(1), values)
    order = axes + rest
    new = new.reshape([x.shape[d] for d in order])
    return new.permute(sorted(range(x.ndim), key=order.__getitem__))


__all__ = ["Scatter"]
