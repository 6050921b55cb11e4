"""x[...] with ints, slices of any step, None, Ellipsis, lists, bool and int tensors; gather, scatter and one_hot.

Positions known on the host are checked at once; positions in a tensor carry a guard, and raise IndexError when the program has
run. A bool mask has as many results as true elements, so it is computed at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import dtypes
from tinyengine.extent import symbolic
from tinyengine.node import Node
from tinyengine.origin import here, user_line
from tinyengine.size import Size
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import axis_of, make
from tinyengine.tensor.elementwise import choose, tensor_of
from tinyengine.tensor.pooling import Pooling
from tinyengine.tensor.symbolic import part, valued, values, whole
from tinyengine.tensor.views import derive

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _array(index: Any) -> Any:
    """An index of many positions: a tensor of ints, or a NumPy array of ints for what the host knows; None for other kinds."""
    if isinstance(index, core.Base):
        if index.dtype is dtypes.bool_:
            return np.asarray(index.numpy())  # type: ignore[attr-defined]
        if not index.dtype.is_int:
            raise IndexError(f"tensors used as indices must hold ints or bools, not {index.dtype}\n  at {user_line()}")
        return index
    if isinstance(index, (list, np.ndarray)):
        a = np.asarray(index)
        if a.size == 0:
            a = a.astype(np.int32)
        if a.dtype.kind not in "iub":
            raise IndexError(f"indices must be ints or bools, not {a.dtype}\n  at {user_line()}")
        return a
    return None


class NewAxis:
    """A mask without axes: a new axis of extent 1, indexed by [0] where it is true and by [] where it is false."""

    def __init__(self, mask: bool) -> None:
        self.at = np.zeros(int(mask), np.int32)


def _normalise(index: Any, shape: tuple[int, ...]) -> list[Any]:
    """One entry for each axis (int, slice or array), for each None and each mask without axes; Ellipsis and missing axes filled
    in; other masks as positions."""
    raw = index if isinstance(index, tuple) else (index,)
    items: list[Any] = []
    for i in raw:
        if type(i) in (slice, int):  # the most usual ones first
            items.append(i)
            continue
        if one_mask(i):
            items.append(NewAxis(bool(i)))
            continue
        a = _array(i)
        if a is not None and a.dtype == np.bool_:
            items.append(("mask", a))
        else:
            items.append(i if a is None else ("at", a))
    used = sum(
        1 if not (isinstance(i, tuple) and i[0] == "mask") else i[1].ndim
        for i in items
        if not (i is None or i is Ellipsis or isinstance(i, NewAxis))
    )
    if used > len(shape):
        raise IndexError(f"too many indices: {used} for a tensor of {len(shape)} axes, shape {list(shape)}\n  at {user_line()}")
    at = next((k for k, i in enumerate(items) if i is Ellipsis), len(items))
    items = [i for k, i in enumerate(items) if i is not Ellipsis or k <= at]  # what the first leaves for another is nothing
    items[at : at + 1] = [slice(None)] * (len(shape) - used)
    out: list[Any] = []
    d = 0
    for i in items:
        if i is None or isinstance(i, NewAxis):
            out.append(i)
            continue
        if isinstance(i, tuple) and i[0] == "mask":
            if i[1].shape != values(shape[d : d + i[1].ndim]):
                raise IndexError(
                    f"a mask of shape {list(i[1].shape)} does not fit axes {d}.. of shape {list(shape)}\n  at {user_line()}"
                )
            out += [p.astype(np.int32) for p in np.nonzero(i[1])]
            d += i[1].ndim
            continue
        if isinstance(i, tuple):
            out.append(i[1])
        elif isinstance(i, slice):
            if i.step == 0:
                raise ValueError(f"the step of a slice is 0\n  at {user_line()}")
            out.append(i)
        elif hasattr(i, "__index__") and not isinstance(i, bool):
            k = i if isinstance(i, Size) else i.__index__()
            if not -shape[d] <= k < shape[d]:
                raise IndexError(
                    f"index {k} is out of range for axis {d} of extent {shape[d]}, shape {list(shape)}\n  at {user_line()}"
                )
            out.append(k if k >= 0 else k + shape[d])
        else:
            error = TypeError if isinstance(i, str) else IndexError
            raise error(f"an index is an int, slice, None, Ellipsis, list or tensor, not {type(i).__name__}\n  at {user_line()}")
        d += 1
    return out


def _basic(n: Node, items: list[Any], o: record.Where) -> tuple[Node, list[Any]]:
    """Ints and slices done; returns the node (int axes gone, None axes in) and for each of its axes the array, or None."""
    starts: list[tuple[Any, int]] = []
    extents: list[Any] = []
    flips: list[int] = []
    for d, i in enumerate([i for i in items if not (i is None or isinstance(i, NewAxis))]):
        if isinstance(i, (int, Size)):
            starts.append((i, 1))
            extents.append(1)
        elif isinstance(i, slice) and symbolic((i.start, i.stop, n.shape[d])):
            a, count = part(i, n.shape[d])
            starts.append((a, 1))
            extents.append(count)
        elif isinstance(i, slice):
            a, b, step = i.indices(n.shape[d])
            count = len(range(a, b, step))
            if step < 0 and count:
                flips.append(d)
                a = a + (count - 1) * step
            starts.append((a if count else 0, abs(step)))
            extents.append(count)
        else:
            starts.append((0, 1))
            extents.append(n.shape[d])
    n = record.flip(record.slice_(n, tuple(starts), tuple(extents), o), tuple(flips), o)
    shape: list[int] = []
    arrays: list[Any] = []
    d = 0
    for i in items:
        if i is None or isinstance(i, NewAxis):
            shape.append(1)
            arrays.append(None if i is None else i.at)
            continue
        if not isinstance(i, (int, Size)):
            shape.append(n.shape[d])
            arrays.append(None if isinstance(i, slice) else i)
        d += 1
    return record.reshape(n, tuple(shape), o), arrays


def one_mask(index: Any) -> bool:
    """Whether this index is a bool without axes."""
    if isinstance(index, bool):
        return True
    return isinstance(index, (core.Base, np.ndarray, np.bool_)) and index.shape == () and index.dtype in (dtypes.bool_, np.bool_)


def place_of(axes: list[int], arrays: list[Any], rest: list[int]) -> int:
    """How many of the whole axes come before those of the index in the result: those before it where the index tensors stand side
    by side, else none. Tensors without axes count as ints, which take their axis away."""
    wide = [d for d in axes if arrays[d].ndim] or axes
    between = [d for d in range(wide[0], wide[-1]) if d in rest]
    return 0 if between else sum(d < wide[0] for d in rest)


def _positions(a: Any, extent: int, axis: int) -> Tensor:
    """An int32 (or int64) tensor of positions counted from the front; what the host knows is checked here."""
    if extent == 0 and math.prod(a.shape):
        raise IndexError(f"an index of shape {list(a.shape)} into axis {axis} of extent 0\n  at {user_line()}")
    if isinstance(a, np.ndarray):
        if a.size and not (-extent <= a.min() and a.max() < extent):
            bad = a.reshape(-1)[np.argmax((a.reshape(-1) < -extent) | (a.reshape(-1) >= extent))]
            raise IndexError(f"index {bad} is out of range for axis {axis} of extent {extent}\n  at {user_line()}")
        return core._cls(np.where(a < 0, a + extent, a).astype(np.int32))  # type: ignore[no-any-return]
    if a.dtype.kind == "uint":
        return a.cast(dtypes.int64 if a.dtype.itemsize >= 4 else dtypes.int32)  # type: ignore[no-any-return]
    return choose(a < 0, a + extent, a)


def spread(v: Any, shape: tuple[int, ...]) -> Any:
    """`v` broadcast to `shape`; axes of extent 1 in front that are too many go away."""
    while v.ndim > len(shape) and v.shape[0] == 1:
        v = v.squeeze(0)
    return v.expand(shape) if v.shape != shape else v


def together(at: list[Any]) -> tuple[int, ...]:
    """The common shape of index tensors. IndexError when there is none."""
    try:
        return core.broadcast_shape(*[p.shape for p in at])
    except RuntimeError as e:
        raise IndexError(f"as indices, {e}") from None


class Indexing(Pooling):
    """Indexing methods."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Tensor:
        """See the top of this file; NumPy's rules for where the axes of index tensors go. IndexError for what is out of range."""
        if one_mask(index):  # all or nothing, along a new axis
            return self.unsqueeze(0).shrink([(0, int(bool(index))), *[(0, s) for s in self.shape]])
        items = _normalise(index, self.shape)  # may compute a mask
        flow, whole = core.operand(self)
        n, arrays = _basic(whole, items, here())
        axes = [d for d, a in enumerate(arrays) if a is not None]
        if not axes:
            return derive(self, whole, n, flow)
        x = make(n, flow, True)
        at = [_positions(arrays[d], n.shape[d], d) for d in axes]
        if len(axes) == 1:  # rows stay where they are
            d = axes[0]
            return x.take(at[0].flatten(), d).reshape((*n.shape[:d], *at[0].shape, *n.shape[d + 1 :]))
        where = together(at)
        # the indexed axes come first and become one, so that one gather serves all of them
        rest = [d for d in range(len(arrays)) if d not in axes]
        sizes = [n.shape[d] for d in axes]
        flat = x.permute(axes + rest).reshape([math.prod(sizes), *[n.shape[d] for d in rest]])
        linear: Any = at[0]
        for p, s in zip(at[1:], sizes[1:], strict=True):
            linear = linear * s + p
        picked = flat.take(linear.expand(where).flatten(), 0).reshape((*where, *[n.shape[d] for d in rest]))
        k, w = place_of(axes, arrays, rest), len(where)
        if k:
            picked = picked.permute([*range(w, w + k), *range(w), *range(w + k, picked.ndim)])
        return picked

    def _part(self, items: list[Any]) -> Tensor:
        """self[items] for ints, slices and None."""
        flow, n = core.operand(self)
        return derive(self, n, _basic(n, items, here())[0], flow)

    def _set_slices(self, items: list[Any], v: Any) -> None:
        """self[items] = v for ints, slices and None. After `self[items] += ...` it holds `v` already."""
        part: Any = self._part(items)
        if v.viewed is None or v.viewed[:2] != part.viewed[:2]:
            new: Any = spread(v, part.shape)
            if part.flow == core.FLOWS:  # what is overwritten has a gradient too: zeros
                new = choose(make(record.const(True, dtypes.bool_, part.shape, here()), core.NO_FLOW), new, part)
            part.become(new)

    def take(self, index: Tensor, dim: int = 0) -> Tensor:
        """Slices along `dim` at the positions in a vector of ints (torch.index_select). A position out of range raises
        IndexError."""
        d = axis_of(dim, self.ndim)
        if index.ndim != 1 or not index.dtype.is_int:
            raise IndexError(f"take needs a vector of ints, not {index.dtype}{list(index.shape)}\n  at {user_line()}")
        shape = (*self.shape[:d], index.shape[0], *self.shape[d + 1 :])
        wide = (
            index.reshape([-1 if k == d else 1 for k in range(self.ndim)])
            if index.numel()
            else index.reshape([0 if k == d else 1 for k in range(self.ndim)])
        )
        return self.gather(d, wide.expand(shape))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """`take` with PyTorch's order of arguments."""
        return self.take(index, dim)

    def gather(self, dim: int, index: Tensor) -> Tensor:
        """out[p] = self[p with axis `dim` replaced by index[p]] (torch.gather). Positions count from the front; out of range
        raises."""
        d = axis_of(dim, self.ndim)
        if not isinstance(index, core.Base):
            raise TypeError(f"gather needs an index tensor, not {type(index).__name__}\n  at {user_line()}")
        if not index.dtype.is_int:
            raise RuntimeError(f"gather needs an index of ints, not {index.dtype}\n  at {user_line()}")
        if not self.ndim and index.ndim < 2:
            return self.reshape(1).gather(0, index.reshape(-1)).reshape(index.shape)
        if index.ndim != self.ndim or any(i > s for k, (i, s) in enumerate(zip(index.shape, self.shape, strict=True)) if k != d):
            raise RuntimeError(
                f"gather along axis {d}: an index of shape {list(index.shape)} does not fit into shape {list(self.shape)}\n"
                f"  at {user_line()}"
            )
        flow, n = core.operand(self)
        return make(record.gather(n, index.node, d, here()), flow)

    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """self plus each src[p] at p with axis `dim` replaced by index[p] (torch.scatter_add)."""
        d = axis_of(dim, self.ndim)
        values = tensor_of(src, "scatter_add")
        if self.ndim == index.ndim == values.ndim == 0:
            whole = self.reshape(1).scatter_add(0, index.reshape(1), values.reshape(1))  # type: ignore[attr-defined]
            return whole.reshape(())
        fits = index.ndim == self.ndim == values.ndim and all(
            i <= v and (k == d or i <= s) for k, (i, v, s) in enumerate(zip(index.shape, values.shape, self.shape, strict=True))
        )
        if not index.dtype.is_int or not fits:
            raise RuntimeError(
                f"scatter_add along axis {d}: index {index.dtype}{list(index.shape)} and values {list(values.shape)} do not fit"
                f" shape {list(self.shape)}\n  at {user_line()}"
            )
        o = here()
        flow = self.flow | values.flow
        m, v = self.node, values.node
        if flow > core.state.limit:
            flow, (m, v) = core.settle(self, values)
        v = record.slice_(record.cast(v, m.dtype, o), ((0, 1),) * len(index.shape), index.shape, o)
        return make(record.scatter("scatter_add", m, index.node, v, d, o), flow)

    def one_hot(self, num_classes: int = -1) -> Tensor:
        """int32 (..., num_classes): 1 where the last axis equals the class. -1: one more than the largest, which is computed for
        that. RuntimeError for a class out of range that is known already; one that is not computed yet has zeros only."""
        if not self.dtype.is_int:
            raise RuntimeError(f"one_hot needs ints, not {self.dtype}\n  at {user_line()}")
        array = self.node.arg.array if self.node.op == "buffer" else None  # inside jit an argument has none
        known = None if array is None else valued(array.reshape(whole(self.shape)), self.shape)
        if num_classes < 0 and not self.numel():
            raise RuntimeError(f"one_hot of nothing needs num_classes\n  at {user_line()}")
        if known is not None and known.size and not (known.min() >= 0 and (num_classes < 0 or known.max() < num_classes)):
            raise RuntimeError(f"one_hot: classes {known.min()} to {known.max()} of {num_classes}\n  at {user_line()}")
        n = num_classes
        if n < 0:
            low, high = self.min(), self.max()
            low.realize(high)
            if low.item() < 0:
                raise RuntimeError(f"one_hot: class {low.item()} is negative\n  at {user_line()}")
            n = int(high.item()) + 1
        classes = make(record.iota(self.ndim, self.dtype, (*self.shape, n), here()), core.NO_FLOW)
        return (self.unsqueeze(-1) == classes).cast(dtypes.default_int)

    def masked_select(self, mask: Any, size: int | None = None, fill_value: Any = 0) -> Tensor:
        """The elements where `mask` is true, in row-major order; the mask is computed at once. With a `size`: that many, those
        that are too many `fill_value`; the mask is not computed, so that it can stand in a jitted function. RuntimeError when
        the mask is not bool."""
        if not isinstance(mask, Indexing) or mask.dtype is not dtypes.bool_:
            raise RuntimeError(f"masked_select takes a bool mask\n  at {user_line()}")
        shape = core.broadcast_shape(self.shape, mask.shape)
        x, mask = self.expand(shape), mask.expand(shape)
        if size is None:
            return x[mask]
        at, there = mask._first_true(size)
        return choose(there, x.flatten().take(at), fill_value).cast(self.dtype)

    def _first_true(self, size: int) -> tuple[Tensor, Tensor]:
        """(int32 (size,) positions of the first true elements of the flat tensor, bool: whether there are as many)."""
        flat = self.flatten() if self.numel() else self.reshape(-1).pad((0, 1))
        at = flat.logical_not().argsort()[:size]
        there = core._cls.arange(size) < flat.sum()
        return at.pad((0, size - at.shape[0])), there
