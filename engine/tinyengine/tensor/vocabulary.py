"""More names of PyTorch's: each is made of what the other files have, and computes what PyTorch's of that name does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import user_line
from tinyengine.tensor import core
from tinyengine.tensor.core import axis_of
from tinyengine.tensor.elementwise import choose

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


class Vocabulary:
    """Methods beside the families of the other files."""

    __slots__ = ()

    # Rows at positions that depend on data.

    def index_add(self: Any, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        """self plus alpha * slice k of `source` at position index[k] along `dim`; of equal positions all. IndexError for a
        position out of range, RuntimeError when shapes or dtypes do not fit."""
        wide, source = _rows("index_add", self, dim, index, source)
        return self.scatter_add(dim, wide, source if alpha == 1 else source * alpha)  # type: ignore[no-any-return]

    def index_copy(self: Any, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """A copy with slice k of `source` at position index[k] along `dim`; of equal positions the last. Errors as of
        `index_add`."""
        wide, source = _rows("index_copy", self, dim, index, source)
        return self.scatter(dim, wide, source)  # type: ignore[no-any-return]

    def index_fill(self: Any, dim: int, index: Tensor, value: float) -> Tensor:
        """A copy with `value` in the slices at these positions along `dim`. Errors as of `index_add`."""
        d = axis_of(dim, self.ndim)
        shape = [index.numel() if a == d else n for a, n in enumerate(self.shape)]
        return self.index_copy(dim, index, core._cls.full(shape, value, dtype=self.dtype))  # type: ignore[no-any-return]

    def take_along_dim(self: Any, indices: Tensor, dim: int | None = None) -> Tensor:
        """`gather` where both are broadcast along the other axes; None: in the flat tensor, with the shape of `indices`."""
        if dim is None:
            return self.flatten().gather(0, indices.flatten()).reshape(indices.shape)  # type: ignore[no-any-return]
        d = axis_of(dim, self.ndim)
        shape = core.broadcast_shape(*[tuple([1 if a == d else n for a, n in enumerate(x.shape)]) for x in (self, indices)])
        mine, other = ([x.shape[d] if a == d else n for a, n in enumerate(shape)] for x in (self, indices))
        return self.expand(mine).gather(d, indices.expand(other))  # type: ignore[no-any-return]

    def bincount(self: Any, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """How often each of 0, 1, 2... stands in this vector of ints: int32, or the sums of its `weights`. At least `minlength`
        results; how many is known when the largest element is computed, at once. RuntimeError for negative ones, floats and
        matrices."""
        if self.ndim != 1 or not self.dtype.is_int or (self.numel() and self.min().item() < 0):
            raise RuntimeError(f"bincount takes a vector of ints that are not negative\n  at {user_line()}")
        n = max(minlength, self.max().item() + 1 if self.numel() else 0)
        given = core._cls.ones(self.shape[0], dtype=dtypes.default_int) if weights is None else weights
        return core._cls.zeros(n, dtype=given.dtype).scatter_add(0, self, given)  # type: ignore[no-any-return]

    def histc(self: Any, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
        """How many elements lie in each of `bins` equal parts of min to max, both included, in this float dtype; others and NaN
        are left out. Where both are equal, the least and the largest element take their place. RuntimeError for ints."""
        if not self.dtype.is_float or bins < 1 or min > max:
            raise RuntimeError(
                f"histc takes floats, bins > 0 and min <= max, not {self.dtype}, {bins}, {min}, {max}\n  at {user_line()}"
            )
        x = self.detach().flatten()
        low, high = (x.amin(), x.amax()) if min == max else tuple(core._cls.full((), end, dtype=x.dtype) for end in (min, max))
        even = low == high
        low, high = choose(even, low - 1, low), choose(even, high + 1, high)
        there = (x >= low) & (x <= high)
        at = choose(there, (x - low) * bins / (high - low), 0).int().minimum(bins - 1)
        return core._cls.zeros(bins, dtype=self.dtype).scatter_add(0, at, there.cast(self.dtype))  # type: ignore[no-any-return]

    # Reductions.

    def norm(self: Any, p: float | str | None = "fro", dim: Any = None, keepdim: bool = False) -> Tensor:
        """The p-norm of the elements along `dim`, or of all: 2 ('fro', None), 1, 0 (how many are not 0), inf, -inf, or another
        number. RuntimeError for ints."""
        if not self.dtype.is_float:
            raise RuntimeError(f"norm of {self.dtype}: cast it to a float first\n  at {user_line()}")
        if p in ("fro", None, 2):
            total = (self * self).sum(dim, keepdim)
            some = total > 0  # the gradient of the norm of zeros is 0
            return choose(some, choose(some, total, 1.0).sqrt(), total.detach())
        if isinstance(p, str):
            raise RuntimeError(f"norm: p is a number or 'fro', not {p!r}\n  at {user_line()}")
        size = self.abs()
        if p in (math.inf, -math.inf):
            return size.amax(dim, keepdim) if p > 0 else size.amin(dim, keepdim)  # type: ignore[no-any-return]
        if p == 0:
            return (self != 0).cast(self.dtype).sum(dim, keepdim)  # type: ignore[no-any-return]
        return size.sum(dim, keepdim) if p == 1 else (size**p).sum(dim, keepdim) ** (1 / p)  # type: ignore[no-any-return]

    def count_nonzero(self: Any, dim: Any = None) -> Tensor:
        """int32: how many elements are not 0."""
        return (self != 0).sum(dim)  # type: ignore[no-any-return]

    def nansum(self: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
        """The sum of what is no NaN."""
        return (choose(self.isnan(), 0.0, self).cast(self.dtype) if self.dtype.is_float else self).sum(dim, keepdim)

    def nanmean(self: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
        """The mean of what is no NaN. RuntimeError for ints."""
        if not self.dtype.is_float:
            raise RuntimeError(f"nanmean of {self.dtype}: cast it to a float first\n  at {user_line()}")
        count = self.isnan().logical_not().sum(dim, keepdim)
        return self.nansum(dim, keepdim) / count.cast(self.dtype)  # type: ignore[no-any-return]

    def trace(self: Any) -> Tensor:
        """The sum of the diagonal. RuntimeError where it is no matrix."""
        if self.ndim != 2:
            raise RuntimeError(f"trace needs a matrix, not shape {list(self.shape)}\n  at {user_line()}")
        return self.diagonal().sum()  # type: ignore[no-any-return]

    def unique(self: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
        """The distinct elements in order; then, if asked for, for each element the int32 position of its like, and how often each
        comes. How many there are depends on the data: they are computed at once. Each NaN is one of its own."""
        x = self.detach().flatten()
        values, at = x.sort()
        new = core._cls.cat([x.ones(min(1, x.numel()), dtype=dtypes.bool_), values[1:] != values[:-1]])
        number = new.cumsum(0) - 1
        found = [values[new]]
        if return_inverse:
            found.append(number.zeros(x.numel(), dtype=dtypes.int32).scatter(0, at, number).reshape(self.shape))
        if return_counts:
            found.append(number.zeros(found[0].shape[0], dtype=dtypes.int32).scatter_add(0, number, number.ones_like()))
        return tuple(found) if len(found) > 1 else found[0]

    # Elementwise.

    def nan_to_num(self: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """Numbers for NaN and the infinities; None: the largest and the least of the dtype."""
        if not self.dtype.is_float:
            return core.same(self)
        largest = (2 - 2.0 ** (1 - self.dtype.digits)) * 2.0**self.dtype.exponent
        x = choose(self.isnan(), nan, self)
        x = choose(x == math.inf, largest if posinf is None else posinf, x)
        return choose(x == -math.inf, -largest if neginf is None else neginf, x).cast(self.dtype)

    def clamp_min(self: Any, min: Any) -> Tensor:
        """Nothing below `min`."""
        return self.clamp(min=min)  # type: ignore[no-any-return]

    def clamp_max(self: Any, max: Any) -> Tensor:
        """Nothing above `max`."""
        return self.clamp(max=max)  # type: ignore[no-any-return]

    def addcmul(self: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """self + value * tensor1 * tensor2."""
        return self + (tensor1 * tensor2 if value == 1 else value * tensor1 * tensor2)  # type: ignore[no-any-return]

    def addcdiv(self: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """self + value * tensor1 / tensor2."""
        return self + (tensor1 / tensor2 if value == 1 else value * tensor1 / tensor2)  # type: ignore[no-any-return]

    # Shapes.

    def movedim(self: Any, source: Any, destination: Any) -> Tensor:
        """These axes go to those places; the others keep their order."""
        pair = [x if isinstance(x, (tuple, list)) else (x,) for x in (source, destination)]
        given, to = ([axis_of(a, self.ndim) for a in x] for x in pair)
        if len(given) != len(to) or len({*given}) != len(given) or len({*to}) != len(to):
            raise RuntimeError(f"movedim: axes {source} and places {destination} are not paired\n  at {user_line()}")
        place = dict(zip(to, given, strict=True))
        rest = iter([a for a in range(self.ndim) if a not in given])
        return self.permute([place[a] if a in place else next(rest) for a in range(self.ndim)])  # type: ignore[no-any-return]

    def narrow(self: Any, dim: int, start: int, length: int) -> Tensor:
        """`length` elements along `dim` from `start` on. RuntimeError where there are fewer."""
        d = axis_of(dim, self.ndim)
        start = start + self.shape[d] if start < 0 else start
        if not 0 <= start <= start + length <= self.shape[d]:
            raise RuntimeError(f"narrow: {start} to {start + length} of extent {self.shape[d]}\n  at {user_line()}")
        return self.shrink([(start, start + length) if a == d else None for a in range(self.ndim)])  # type: ignore[no-any-return]

    def select(self: Any, dim: int, index: int) -> Tensor:
        """The slice at `index` along `dim`, without that axis."""
        return self[(slice(None),) * axis_of(dim, self.ndim) + (index,)]  # type: ignore[no-any-return]

    def tile(self: Any, *dims: Any) -> Tensor:
        """`repeat`, where numbers of the first axes may be left out."""
        r = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
        return self.repeat((1,) * (self.ndim - len(r)) + r)  # type: ignore[no-any-return]

    def diff(self: Any, n: int = 1, dim: int = -1) -> Tensor:
        """Each element minus the one before it along `dim`, n times."""
        d = axis_of(dim, self.ndim)
        x = self
        for _ in range(n):
            m = x.shape[d]
            ends = ((min(1, m), m), (0, max(0, m - 1)))
            after, before = (x.shrink([b if a == d else None for a in range(x.ndim)]) for b in ends)
            x = after - before if x.dtype is not dtypes.bool_ else after.bitwise_xor(before)
        return x  # type: ignore[no-any-return]

    # Products.

    def mm(self: Any, mat2: Tensor) -> Tensor:
        """The product of two matrices. RuntimeError for other shapes."""
        return _product("mm", self, mat2, 2, 2)

    def bmm(self: Any, mat2: Tensor) -> Tensor:
        """The products of two batches of as many matrices. RuntimeError for other shapes."""
        if self.shape[:1] != mat2.shape[:1]:
            raise RuntimeError(f"bmm of {list(self.shape)} and {list(mat2.shape)}: not as many matrices\n  at {user_line()}")
        return _product("bmm", self, mat2, 3, 3)

    def mv(self: Any, vec: Tensor) -> Tensor:
        """The product of a matrix and a vector. RuntimeError for other shapes."""
        return _product("mv", self, vec, 2, 1)

    def outer(self: Any, vec2: Tensor) -> Tensor:
        """Every product of elements of two vectors. RuntimeError for other shapes."""
        if self.ndim != 1 or vec2.ndim != 1:
            raise RuntimeError(f"outer takes two vectors, not {list(self.shape)} and {list(vec2.shape)}\n  at {user_line()}")
        return self.unsqueeze(1) * vec2  # type: ignore[no-any-return]


def _rows(what: str, x: Any, dim: int, index: Any, source: Any) -> tuple[Any, Any]:
    """(`index` as wide as `source`, `source`), checked."""
    d = axis_of(dim, x.ndim)
    shape = tuple([index.numel() if a == d else n for a, n in enumerate(x.shape)])
    if not x.ndim or index.ndim != 1 or not index.dtype.is_int or source.shape != shape or source.dtype is not x.dtype:
        raise RuntimeError(
            f"{what} along axis {dim} of {x.dtype}{list(x.shape)}: positions {index.dtype}{list(index.shape)} and slices"
            f" {source.dtype}{list(source.shape)} do not fit\n  at {user_line()}"
        )
    return index.reshape([index.shape[0] if a == d else 1 for a in range(x.ndim)]).expand(shape), source


def _product(what: str, a: Any, b: Any, *axes: int) -> Tensor:
    if (a.ndim, b.ndim) != axes:
        raise RuntimeError(f"{what} of shapes {list(a.shape)} and {list(b.shape)}\n  at {user_line()}")
    return a.matmul(b)  # type: ignore[no-any-return]


# x.NAME_(...) is x after x.NAME(...), in its own memory
IN_PLACE = ["add", "sub", "mul", "div", "clamp", "masked_fill", "index_add", "index_copy", "index_fill", "scatter", "scatter_add"]


def _in_place(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.become(getattr(self, name)(*args, **kwargs))

    method.__name__, method.__qualname__ = f"{name}_", f"Tensor.{name}_"
    method.__doc__ = f"`{name}`, in place; returns the tensor."
    return method


for _name in IN_PLACE:
    setattr(Vocabulary, f"{_name}_", _in_place(_name))

__all__ = ["Vocabulary"]
