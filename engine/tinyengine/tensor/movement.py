"""Shapes: reshape, permute, expand, slices, padding, and what is made of them. No arithmetic, and nothing is copied until it must
be. What PyTorch returns as a view is one here (see views.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.extent import symbolic
from tinyengine.node import Node, Shape
from tinyengine.origin import here, user_line
from tinyengine.size import Size, SizeError
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.borders import extend
from tinyengine.tensor.casting import Casting
from tinyengine.tensor.core import axes_of, axis_of, make
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.rearrange import rearrange
from tinyengine.tensor.symbolic import measured, resized
from tinyengine.tensor.views import derive

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _ints(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    for a in args:
        if not hasattr(a, "__index__"):
            raise TypeError(f"expected ints, got {a!r}\n  at {user_line()}")
    return tuple([a if isinstance(a, Size) else a.__index__() for a in args])


def _needed(what: str) -> Any:
    raise TypeError(f"{what} needs ints\n  at {user_line()}")


class Movement(Casting):
    """Movement methods. Axes may count from the end; a wrong one raises IndexError, a wrong shape RuntimeError, as in PyTorch."""

    __slots__ = ()

    def numel(self) -> int:
        """How many elements."""
        return self.node.size

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one extent of it."""
        return self.shape if dim is None else self.shape[axis_of(dim, self.ndim)]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.node.nbytes

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in row-major order in another shape; one extent may be -1."""
        flow, n = core.operand(self)
        new = _ints(shape) if shape else _needed("reshape")
        if symbolic((*new, *n.shape)):
            new, always = resized(n.shape, new)
            if not always:
                return measured(self, new)
        if -1 in new:
            rest = 1
            for s in new:
                rest *= s if s != -1 else 1
            if new.count(-1) > 1 or rest == 0 or n.size % rest:
                raise RuntimeError(
                    f"shape {list(new)} does not fit {n.size} elements of shape {list(n.shape)}\n  at {user_line()}"
                )
            new = tuple([n.size // rest if s == -1 else s for s in new])
        size = 1
        for s in new:
            size *= s
        if size != n.size or any(s < 0 for s in new):
            raise RuntimeError(
                f"shape {list(new)} is invalid for a tensor of {n.size} elements, shape {list(n.shape)}\n  at {user_line()}"
            )
        return derive(self, n, record.reshape(n, new, here(2)), flow)

    view = reshape

    def permute(self, *axes: Any) -> Tensor:
        """Axis d of the result is axis axes[d] of this tensor."""
        flow, n = core.operand(self)
        given = _ints(axes) if axes else _needed("permute")
        order = tuple([axis_of(a, self.ndim) for a in given]) if len(given) == self.ndim else ()
        if len(given) != self.ndim or sorted(order) != list(range(self.ndim)):
            raise RuntimeError(f"permute of {self.ndim} axes needs each of them once, not {list(given)}\n  at {user_line()}")
        return derive(self, n, record.permute(n, order, here(2)), flow)

    def transpose(self, dim0: int = 1, dim1: int = 0) -> Tensor:
        """Two axes change places; of what has no axes, itself. IndexError where there is no such axis."""
        order = list(range(self.ndim))
        a, b = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
        if order:
            order[a], order[b] = order[b], order[a]
        return self.permute(order)

    @property
    def T(self) -> Tensor:
        """All axes in reverse order: the transpose of a matrix."""
        return self.permute(list(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The last two axes change places. RuntimeError for a vector."""
        if self.ndim == 1:
            raise RuntimeError(f"mT needs a matrix or a batch of them, not shape {list(self.shape)}\n  at {user_line()}")
        return self.transpose(-2, -1) if self.ndim else self.permute(())

    def expand(self, *shape: Any) -> Tensor:
        """Axes of extent 1 repeat; -1 keeps an extent; new axes may come in front."""
        new = _ints(shape)
        flow, n = core.operand(self)
        old = (1,) * (len(new) - n.shape.__len__()) + n.shape
        wanted = tuple([o if s == -1 else s for s, o in zip(new, old, strict=False)])
        new_axes = new[: len(new) - len(n.shape)]
        if len(old) != len(new) or -1 in new_axes or any(o not in (1, s) for s, o in zip(wanted, old, strict=True)):
            raise RuntimeError(
                f"shape {list(n.shape)} cannot be expanded to {list(new)}: only axes of extent 1 repeat\n  at {user_line()}"
            )
        return derive(self, n, core.broadcast_node(n, wanted, here(2)), flow)

    def expand_as(self, other: Tensor) -> Tensor:
        """`expand` to the shape of another tensor."""
        return self.expand(other.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes start_dim to end_dim become one."""
        a, b = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
        if a > b:
            raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}\n  at {user_line()}")
        size = 1
        for s in self.shape[a : b + 1]:
            size *= s
        return self.reshape((*self.shape[:a], size, *self.shape[b + 1 :]))

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """One axis becomes several, whose extents multiply to its own; one of them may be -1."""
        d = axis_of(dim, self.ndim)
        if not isinstance(sizes, (tuple, list)):
            raise TypeError(f"unflatten: sizes are a tuple of ints, not {sizes!r}\n  at {user_line()}")
        new, n = list(_ints((sizes,))), self.shape[d] if self.ndim else 1
        rest = math.prod(s for s in new if s != -1)
        if new.count(-1) == 1 and rest and n % rest == 0:
            new[new.index(-1)] = n // rest
        if not self.ndim or math.prod(new) != n or any(s < 0 for s in new):
            raise RuntimeError(
                f"unflatten: sizes {list(sizes)} do not multiply to extent {n} of axis {dim}, shape {list(self.shape)}\n"
                f"  at {user_line()}"
            )
        return self.reshape((*self.shape[:d], *new, *self.shape[d + 1 :]))

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Axes of extent 1 go away: all of them, or those named."""
        axes = axes_of(dim, self.ndim)
        return self.reshape(tuple([s for d, s in enumerate(self.shape) if d not in axes or s != 1]))

    def unsqueeze(self, dim: int) -> Tensor:
        """A new axis of extent 1, which is axis `dim` of the result. IndexError where it cannot stand there."""
        d = axis_of(dim, self.ndim + 1)
        return self.reshape((*self.shape[:d], 1, *self.shape[d:]))

    def flip(self, *axes: Any, dims: Any = None, axis: Any = None) -> Tensor:
        """These axes in reverse; `dims` and `axis` are other names for all of them."""
        given = dims if dims is not None else axis
        if given is not None:
            axes = (given,)
        if not axes:
            raise TypeError(f"flip needs the axes to reverse\n  at {user_line()}")
        flow, n = core.operand(self)
        return make(record.flip(n, axes_of(_ints(axes), self.ndim), here(2)), flow)

    def shrink(self, bounds: Sequence[tuple[int, int] | None]) -> Tensor:
        """Elements start <= i < stop of every axis; None keeps an axis whole."""
        flow, n = core.operand(self)
        pairs = [(0, s) if b is None else b for b, s in zip(bounds, n.shape, strict=True)]
        if any(not 0 <= a <= b <= s for (a, b), s in zip(pairs, n.shape, strict=True)):
            raise IndexError(f"shrink to {pairs} is outside shape {list(n.shape)}\n  at {user_line()}")
        part = record.slice_(n, tuple([(a, 1) for a, _ in pairs]), tuple([b - a for a, b in pairs]), here(2))
        return derive(self, n, part, flow)

    def pad(self, padding: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Tensor:
        """`padding` as in PyTorch: (left, right, top, bottom, ...) from the last axis backwards; or one (low, high) or None per
        axis. Negative widths cut. mode: 'constant' with `value`; 'reflect', 'replicate' or 'circular', on any axes."""
        if isinstance(padding, str):
            raise TypeError(f"pad: widths are ints, not {padding!r}\n  at {user_line()}")
        widths: list[tuple[int, int]]
        if all(isinstance(p, int) for p in padding):
            if len(padding) % 2 or len(padding) // 2 > self.ndim:
                raise RuntimeError(
                    f"pad: {list(padding)} is no list of (low, high) pairs for {self.ndim} axes\n  at {user_line()}"
                )
            widths = [(0, 0)] * (self.ndim - len(padding) // 2) + [
                (padding[i], padding[i + 1]) for i in range(len(padding) - 2, -1, -2)
            ]
        else:
            widths = [(0, 0) if p is None else (p[0], p[1]) for p in padding]
        cut = [(max(-a, 0), s - max(-b, 0)) for (a, b), s in zip(widths, self.shape, strict=True)]
        if any(a > b for a, b in cut):
            raise RuntimeError(f"pad: {list(padding)} cuts more than shape {list(self.shape)} has\n  at {user_line()}")
        x: Any = self.shrink(cut) if any(min(w) < 0 for w in widths) else self
        if mode != "constant":
            return extend(x, [(max(a, 0), max(b, 0)) for a, b in widths], mode)
        flow, n = core.operand(x)
        o = here(2)
        wide = tuple([(max(a, 0), max(b, 0), 0) for a, b in widths])
        padded = make(record.pad(n, wide, o), flow)
        if value == 0 or padded.node is n:
            return padded
        inside = make(record.pad(record.const(True, dtypes.bool_, n.shape, o), wide, o), core.NO_FLOW)
        return choose(inside, padded, value).cast(n.dtype)

    def contiguous(self) -> Tensor:
        """The same value, stored in memory of its own: consumers read it from there."""
        flow, n = core.operand(self)
        return make(record.contiguous(n, here(2)), flow)

    def contiguous_backward(self) -> Tensor:
        """The same value: whether a gradient is stored is the engine's decision, which it explains."""
        return core.same(self)

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of that many elements along `dim`; the last may be smaller. A list gives each piece's extent."""
        d = self._parted("split", dim)
        total = self.shape[d]
        if isinstance(split_size, int):
            if split_size < 0 or (split_size == 0 and total):
                raise RuntimeError(f"split: pieces of {split_size} elements\n  at {user_line()}")
            sizes = [min(split_size, total - i) for i in range(0, max(total, 1), max(split_size, 1))]
        else:
            sizes = list(split_size)
        if sum(sizes) != total:
            raise RuntimeError(f"split: sizes {sizes} do not add up to extent {total}\n  at {user_line()}")
        out, start = [], 0
        for s in sizes:
            out.append(self.shrink([(start, start + s) if i == d else None for i in range(self.ndim)]))
            start += s
        return tuple(out)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` pieces of equal extent, the last possibly smaller; of nothing, that many empty ones."""
        d = self._parted("chunk", dim)
        if chunks < 1:
            raise RuntimeError(f"chunk: {chunks} pieces\n  at {user_line()}")
        n = self.shape[d]
        return self.split(-(-n // chunks) if n else [0] * chunks, d)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along `dim`, without that axis."""
        d = self._parted("unbind", dim)
        whole = (slice(None),) * d
        return tuple([self[(*whole, i)] for i in range(self.shape[d])])  # type: ignore[index]

    def _parted(self, what: str, dim: int) -> int:
        if not self.ndim:
            raise RuntimeError(f"{what}: a tensor without axes has no parts\n  at {user_line()}")
        return axis_of(dim, self.ndim)

    def repeat(self, *repeats: Any) -> Tensor:
        """The whole tensor that many times along each axis (torch.Tensor.repeat)."""
        r = _ints(repeats) if repeats else _needed("repeat")
        if len(r) < self.ndim or any(k < 0 for k in r):
            raise RuntimeError(f"repeat: {list(r)} for {self.ndim} axes; one number each, none negative\n  at {user_line()}")
        base = (1,) * (len(r) - self.ndim) + self.shape
        doubled = self.reshape([k for s in base for k in (1, s)]).expand(
            [k for n, s in zip(r, base, strict=True) for k in (n, s)]
        )
        return doubled.reshape([n * s for n, s in zip(r, base, strict=True)])

    def repeat_interleave(self, repeats: int, dim: int | None = None) -> Tensor:
        """Every element `repeats` times in a row along `dim`; None flattens first."""
        x = self.flatten() if dim is None else self
        d = axis_of(dim or 0, x.ndim)
        if repeats < 0:
            raise RuntimeError(f"repeat_interleave: {repeats} times\n  at {user_line()}")
        s = x.shape
        wide = x.reshape((*s[: d + 1], 1, *s[d + 1 :])).expand((*s[: d + 1], repeats, *s[d + 1 :]))
        return wide.reshape((*s[:d], s[d] * repeats, *s[d + 1 :]))

    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
        """Elements move by `shifts` along `dims` and come in again at the other end; dims None rolls the flat tensor."""
        if dims is None:
            return self.flatten().roll(shifts, 0).reshape(self.shape)
        out = self.view(self.shape)
        moves, along = ([v] if isinstance(v, int) else list(v) for v in (shifts, dims))
        if len(moves) != len(along):
            raise RuntimeError(f"roll: shifts {moves} along dims {along}; one for each\n  at {user_line()}")
        for k, dim in zip(moves, along, strict=True):
            d = axis_of(dim, self.ndim)
            n = self.shape[d]
            if not isinstance(n, Size):
                k = k % n if n else 0
            elif not 0 <= k <= n:
                k = k + n if k < 0 and k + n >= 0 else k % n
            if k:
                head, tail = out.split([self.shape[d] - k, k], d)
                out = join([tail, head], d)
        return out

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """The elements i, i + offset of two axes, as the last axis of the result."""
        a, b = axis_of(dim1, self.ndim), axis_of(dim2, self.ndim)
        if a == b:
            raise RuntimeError(f"diagonal: both axes are {dim1}\n  at {user_line()}")
        flow, n = core.operand(self)
        o = here(2)
        x = record.permute(n, (*[d for d in range(self.ndim) if d not in (a, b)], a, b), o)
        *lead, rows, cols = x.shape
        if symbolic((rows, cols)):
            raise SizeError(
                f"diagonal of shape {list(self.shape)}: its elements stand apart by a symbolic extent; expected numbers there, or"
                f" (x * Tensor.eye(n)).sum(-1)\n  at {user_line()}"
            )
        r0, c0 = max(-offset, 0), max(offset, 0)
        k = max(min(rows - r0, cols - c0), 0)
        every = ((0, 1),) * len(lead)
        if k:  # every (k + 1)-th element of the square
            x = record.slice_(x, (*every, (r0, 1), (c0, 1)), (*lead, k, k), o)
        x = record.reshape(x, (*lead, x.shape[-2] * x.shape[-1]), o)
        return derive(self, n, record.slice_(x, (*every, (0, k + 1)), (*lead, k), o), flow, lambda s: _diagonal(s, a, b))

    def diag(self, diagonal: int = 0) -> Tensor:
        """A vector becomes a diagonal matrix; of a matrix the diagonal is taken."""
        if self.ndim == 2:
            return self.diagonal(diagonal)
        if self.ndim != 1:
            raise RuntimeError(f"diag takes a vector or a matrix, not shape {list(self.shape)}\n  at {user_line()}")
        n, k = self.shape[0], abs(diagonal)
        square = self.unsqueeze(1).pad([None, (0, n)]).reshape(n * (n + 1))
        square = square.shrink([(0, n * n)]).reshape(n, n)
        return square.pad([(max(-diagonal, 0), k - max(-diagonal, 0)), (max(diagonal, 0), k - max(diagonal, 0))])

    def unfold(self, dim: int, size: int, step: int) -> Tensor:
        """Windows of `size` elements every `step` along `dim`; they lie along a new last axis (torch.Tensor.unfold)."""
        if not self.ndim and size in (0, 1):
            return self.reshape(1).unfold(dim, size, step).reshape(size)
        d = axis_of(dim, self.ndim)
        if not self.ndim or size > self.shape[d] or size < 0 or step < 1:
            raise RuntimeError(
                f"unfold: windows of {size} every {step} in axis {dim} of shape {list(self.shape)}\n  at {user_line()}"
            )
        wide = self.unsqueeze(-1).expand((*self.shape, size))
        flow, n = core.operand(wide)
        return derive(wide, n, record.window(n, d, self.ndim, step, 1, here(2)), flow)

    def rearrange(self, formula: str, **sizes: int) -> Tensor:
        """Axes by name: x.rearrange('b (h d) t -> b h t d', h=4). Groups in parentheses are one axis; `sizes` gives what the
        shape does not tell. RuntimeError when formula and shape do not fit."""
        return rearrange(self, formula, sizes)

    def shrink_to(self, *shape: Any) -> Tensor:
        """The first elements of each axis; None keeps an axis."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return self.shrink([None if s is None else (0, s) for s in wanted])

    def pad_to(self, *shape: Any, value: float = 0.0) -> Tensor:
        """`value` after the last elements, up to this shape; None keeps an axis."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return self.pad([None if s is None else (0, s - k) for s, k in zip(wanted, self.shape, strict=True)], value=value)

    def tril(self, diagonal: int = 0) -> Tensor:
        """Zero above the diagonal of the last two axes."""
        return self._triangle(diagonal, upper=False)

    def triu(self, diagonal: int = 0) -> Tensor:
        """Zero below the diagonal of the last two axes."""
        return self._triangle(diagonal, upper=True)

    def _triangle(self, diagonal: int, upper: bool) -> Tensor:
        core.count_of(diagonal, "the diagonal")
        if self.ndim < 2:
            raise RuntimeError(f"tril and triu need a matrix, not shape {list(self.shape)}\n  at {user_line()}")
        keep = triangle(self.shape[-2], self.shape[-1], diagonal, upper)
        zero: Any = False if self.dtype is dtypes.bool_ else 0
        return choose(keep, self, zero)


def _diagonal(strides: tuple[int, ...], a: int, b: int) -> tuple[int, ...]:
    return (*[s for d, s in enumerate(strides) if d not in (a, b)], strides[a] + strides[b])


def triangle(rows: int, cols: int, diagonal: int, upper: bool) -> Tensor:
    """bool[rows, cols]: true on and below the diagonal, or on and above it."""
    o = here(3)
    i, j = (make(record.iota(d, dtypes.int32, (rows, cols), o), core.NO_FLOW) for d in (0, 1))
    shifted = i + diagonal if diagonal else i
    return j >= shifted if upper else j <= shifted


def join(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors one after the other along `dim`. Each element is chosen by its position: nothing is computed, -0.0 and NaN stay."""
    from tinyengine.tensor.elementwise import common_dtype, tensor_of

    if not tensors:
        raise ValueError(f"cat of no tensors\n  at {user_line()}")
    xs: list[Any] = [tensor_of(t, "cat") for t in tensors]
    if any(x.ndim == 0 for x in xs):
        raise RuntimeError(f"cat: tensors without axes cannot be joined; use stack\n  at {user_line()}")
    xs = [x for x in xs if x.shape != (0,)] or xs  # PyTorch lets empty vectors pass beside any shape
    d = axis_of(dim, xs[0].ndim)
    first = xs[0].shape
    for x in xs[1:]:
        if x.ndim != len(first) or any(a != b for k, (a, b) in enumerate(zip(x.shape, first, strict=True)) if k != d):
            raise RuntimeError(
                f"cat along axis {dim}: shapes {list(first)} and {list(x.shape)} differ elsewhere\n  at {user_line()}"
            )
    dtype = xs[0].dtype
    for x in xs[1:]:
        dtype = common_dtype(record.const(0, dtype, first, ()), x.node)
    o = here(3)
    flows, pieces, starts = core.NO_FLOW, list[Node](), [0]
    for x in xs:
        flow, n = core.operand(x)
        flows |= flow
        pieces.append(record.cast(n, dtype, o))
        starts.append(starts[-1] + x.shape[d])

    def along(low: Any, inner: Any) -> tuple[tuple[Any, Any, int], ...]:
        """What is missing before and after `inner` elements from `low` on."""
        return tuple([(low, starts[-1] - low - inner, 0) if k == d else (0, 0, 0) for k in range(len(first))])

    def chosen(a: int, b: int) -> Node:
        """Pieces a to b at their places. Halves, so that no piece is behind more conditions than their logarithm."""
        if b - a == 1:
            return record.pad(pieces[a], along(starts[a], xs[a].shape[d]), o)
        mid = starts[(a + b) // 2]
        before = record.const(True, dtypes.bool_, tuple([mid if k == d else s for k, s in enumerate(first)]), o)
        return record.where(record.pad(before, along(0, mid), o), chosen(a, (a + b) // 2), chosen((a + b) // 2, b), o)

    return make(chosen(0, len(xs)), flows)


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    if not tensors:
        raise RuntimeError(f"stack of no tensors\n  at {user_line()}")
    shapes = {x.shape for x in tensors}
    if len(shapes) > 1:
        raise RuntimeError(
            f"stack: shapes {' and '.join(str(list(s)) for s in sorted(shapes))} are not equal\n  at {user_line()}"
        )
    return join([x.unsqueeze(axis_of(dim, x.ndim + 1)) for x in tensors], axis_of(dim, len(next(iter(shapes), ())) + 1))


__all__ = ["Movement", "Shape", "join", "stack", "triangle"]
