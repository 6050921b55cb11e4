"""Shapes and places: what changes no value. Shapes that come as operands are read on the host; those that a model computes from
shapes are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import Array, known, of_sizes, on_host
from tinyengine.size import Size
from tinyengine.tensor import Tensor, core


def ints(a: Any) -> list[Any]:
    """A vector of a model as Python ints; symbolic sizes stay."""
    return [v if isinstance(v, Size) else int(v) for v in np.asarray(a).reshape(-1)]


def axis_of(axis: int, rank: int) -> int:
    """Counted from the front. IndexError when there is none."""
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} is out of range for {rank} axes")
    return axis % rank


@op("Identity", raw=True)
def identity(x: Any) -> Any:
    return x


@op("Shape", moves=False, held=True)
def shape(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    return of_sizes(list(x.shape[start:end]))


@op("Size", held=True)
def size(x: Any) -> Any:
    return of_sizes(math.prod(x.shape))


@op("Reshape", 5, host=(1,), moves=True)
def reshape(x: Any, to: Any, *, allowzero: int = 0) -> Any:
    new = ints(to)
    return x.reshape([x.shape[k] if s == 0 and not allowzero else s for k, s in enumerate(new)])


@op("Flatten", moves=True)
def flatten(x: Any, *, axis: int = 1) -> Any:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@op("Squeeze", moves=True)
def squeeze_1(x: Any, *, axes: list[int] | None = None) -> Any:
    return squeeze(x, axes)


@op("Squeeze", 13, host=(1,), moves=True)
def squeeze(x: Any, axes: Any = None) -> Any:
    gone = [k for k, s in enumerate(x.shape) if s == 1] if axes is None else [axis_of(a, x.ndim) for a in ints(axes)]
    wrong = [k for k in gone if x.shape[k] != 1]
    if wrong:
        raise ValueError(f"axes {wrong} of shape {list(x.shape)} have extents other than 1")
    return x.reshape([s for k, s in enumerate(x.shape) if k not in gone])


@op("Unsqueeze", moves=True)
def unsqueeze_1(x: Any, *, axes: list[int]) -> Any:
    return unsqueeze(x, axes)


@op("Unsqueeze", 13, host=(1,), moves=True)
def unsqueeze(x: Any, axes: Any) -> Any:
    rank = x.ndim + len(ints(axes))
    new = {axis_of(a, rank) for a in ints(axes)}
    rest = iter(x.shape)
    return x.reshape([1 if k in new else next(rest) for k in range(rank)])


@op("Transpose", moves=True)
def transpose(x: Any, *, perm: list[int] | None = None) -> Any:
    return x.permute(list(range(x.ndim))[::-1] if perm is None else perm)


@op("Expand", host=(1,), moves=True)
def expand(x: Any, to: Array) -> Any:
    return x.expand(core.broadcast_shape(x.shape, tuple(ints(to))))


@op("Tile", 6, host=(1,), moves=True)
def tile(x: Any, repeats: Any) -> Any:
    return x.repeat(*ints(repeats)) if x.ndim else x


@op("Concat", moves=True)
def concat(*xs: Any, axis: int) -> Any:
    return Tensor.cat(list(xs), dim=axis)


@op("Split", 2, moves=True)
def split_2(x: Any, *, axis: int = 0, split: list[int] | None = None, call: Any) -> Any:
    return split_18(x, split, axis=axis, call=call)


@op("Split", 13, host=(1,), moves=True)
def split_13(x: Any, split: Any = None, *, axis: int = 0, call: Any) -> Any:
    return split_18(x, split, axis=axis, call=call)


@op("Split", 18, host=(1,), moves=True)
def split_18(x: Any, split: Any = None, *, axis: int = 0, num_outputs: int | None = None, call: Any) -> Any:
    if split is not None:
        return tuple(x.split(ints(split), dim=axis))
    n = x.shape[axis]
    parts = num_outputs or call.results
    each = -(-n // parts)
    return tuple(x.split([max(0, min(each, n - k * each)) for k in range(parts)], dim=axis))


@op("Slice", moves=True)
def slice_1(x: Any, *, starts: list[int], ends: list[int], axes: list[int] | None = None) -> Any:
    return slice_10(x, starts, ends, axes)


@op("Slice", 10, host=(1, 2, 3, 4), moves=True)
def slice_10(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    a, b = ints(starts), ints(ends)
    where = range(len(a)) if axes is None else ints(axes)
    step = [1] * len(a) if steps is None else ints(steps)
    index: list[Any] = [slice(None)] * x.ndim
    for d, i, j, s in zip(where, a, b, step, strict=True):
        d = axis_of(d, x.ndim)
        n = x.shape[d]
        if s < 0 and j < -n:  # before the first element
            j = None
        index[d] = slice(i, j, s)
    return x[tuple(index)]


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@op("Pad", 2)
def pad_2(x: Any, *, pads: list[int], mode: str = "constant", value: float = 0.0) -> Any:
    return _pad(x, pads, value, range(x.ndim), mode)


@op("Pad", 11, host=(1, 2, 3))
def pad_11(x: Any, pads: Array, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    fill = 0 if value is None else np.asarray(value).reshape(-1)[0].item()
    return _pad(x, ints(pads), fill, range(x.ndim) if axes is None else ints(axes), mode)


def _pad(x: Any, pads: list[int], value: Any, axes: Any, mode: str) -> Any:
    widths = [(0, 0)] * x.ndim
    count = len(pads) // 2
    for d, low, high in zip(axes, pads[:count], pads[count:], strict=True):
        widths[axis_of(d, x.ndim)] = (low, high)
    return x.pad(widths, value=value) if mode == "constant" else x.pad(widths, _MODES[mode])


def positions(index: Any, extent: int) -> Any:
    """Positions counted from the front; those that are known are checked."""
    if known(index):
        if index.size and not (-extent <= index.min() and index.max() < extent):
            raise IndexError(f"index {index.min()} to {index.max()} is out of range for an extent of {extent}")
        return np.where(index < 0, index + extent, index)
    return (index < 0).where(index + extent, index)


@op("Gather", either=(1,), moves=True)
def gather(x: Any, index: Any, *, axis: int = 0) -> Any:
    axis = axis_of(axis, x.ndim)
    before = (slice(None),) * axis
    at = positions(index, x.shape[axis])
    if known(at) and at.ndim == 0:
        return x[(*before, int(at))]
    flat = at.reshape(-1) if known(at) else at.reshape((-1,) if at.numel() else (0,))
    if known(flat) and flat.size and (np.diff(flat) == 1).all():  # neighbours are a slice
        y = x[(*before, slice(int(flat[0]), int(flat[-1]) + 1))]
    else:
        y = x.take(Tensor(flat) if known(flat) else flat, axis)
    return y.reshape((*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]))


@op("GatherElements", either=(1,), moves=True)
def gather_elements(x: Any, index: Any, *, axis: int = 0) -> Any:
    at = positions(index, x.shape[axis])
    return x.gather(axis, Tensor(at) if known(at) else at)


@op("GatherND", 11, moves=True)
def gather_nd(x: Any, index: Any, *, batch_dims: int = 0) -> Any:
    b, depth = batch_dims, index.shape[-1]
    lead = x.shape[:b]
    rows = math.prod(lead)
    sizes = x.shape[b : b + depth]
    flat = x.reshape((rows * math.prod(sizes), *x.shape[b + depth :]))
    linear = _linear(index.reshape((rows, -1, depth) if index.numel() else (rows, 0, depth)), sizes)
    if b:
        linear = linear + (Tensor.arange(rows, dtype=linear.dtype) * math.prod(sizes)).reshape(rows, 1)
    return flat.take(linear.flatten(), 0).reshape((*index.shape[:-1], *x.shape[b + depth :]))


def _linear(index: Any, sizes: tuple[int, ...]) -> Any:
    """(..., k) positions of k axes of these extents as positions in all of them taken as one."""
    at: Any = 0
    for k, s in enumerate(sizes):
        part = index[..., k]
        at = at * s + (part < 0).where(part + s, part)
    return at if isinstance(at, Tensor) else index.sum(-1)


_PUT = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("Scatter")
@op("ScatterElements", 11)
def scatter_elements(x: Any, index: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    at = positions(index, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, at, updates)
    return x.scatter_reduce(axis, at, updates, _PUT[reduction]).cast(x.dtype)


@op("ScatterND", 11)
def scatter_nd(x: Any, index: Any, updates: Any, *, reduction: str = "none") -> Any:
    depth = index.shape[-1]
    sizes, tail = x.shape[:depth], x.shape[depth:]
    width = math.prod(tail)
    flat = x.reshape((math.prod(sizes), width))
    at = _linear(index.reshape((-1, depth)), sizes)
    put = updates.reshape((at.shape[0], width))
    at = at.reshape((-1, 1)).expand(put.shape)
    if reduction == "none":
        y = flat.scatter(0, at, put)
    else:
        y = flat.scatter_reduce(0, at, put, _PUT[reduction]).cast(x.dtype)
    return y.reshape(x.shape)


@op("DepthToSpace")
def depth_to_space(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    y = x.reshape(n, c, h // b, b, w // b, b)
    return y.permute(*((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))).reshape(n, c * b**2, h // b, w // b)


@op("Trilu", host=(1,))
def trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    d = 0 if k is None else int(np.asarray(k).reshape(()))
    return x.triu(d) if upper else x.tril(d)


@op("CenterCropPad", host=(1,), moves=True)
def center_crop_pad(x: Any, to: Array, *, axes: list[int] | None = None) -> Any:
    widths = [(0, 0)] * x.ndim
    for d, n in zip(range(x.ndim) if axes is None else axes, ints(to), strict=True):
        d = axis_of(d, x.ndim)
        more = n - x.shape[d]
        low = more // 2 if more >= 0 else -(-more // 2)
        widths[d] = (low, more - low)
    return x.pad(widths)


@op("ReverseSequence", host=(1,))
def reverse_sequence(x: Any, lengths: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    n = x.shape[time_axis]
    i = np.arange(n)[:, None]
    at = np.where(i < lengths[None, :], lengths[None, :] - 1 - i, i)  # (time, batch)
    at = at if time_axis < batch_axis else at.T
    shape = [s if d in (batch_axis, time_axis) else 1 for d, s in enumerate(x.shape)]
    return x.gather(time_axis, Tensor(at.astype(np.int32)).reshape(shape).expand(x.shape))


@op("Constant", held=True)
def constant(
    *, value: Any = None, value_float: float | None = None, value_floats: Any = None, value_int: int | None = None,
    value_ints: Any = None, value_string: str | None = None, value_strings: Any = None, sparse_value: Any = None,
) -> Any:  # fmt: skip
    for given, dtype in (
        (value_float, np.float32), (value_floats, np.float32), (value_int, np.int64), (value_ints, np.int64),
        (value_string, object), (value_strings, object),
    ):  # fmt: skip
        if given is not None:
            return np.array(given, dtype)
    return value if value is not None else sparse_value


@op("ConstantOfShape", host=(0,))
def constant_of_shape(to: Array, *, value: Any = None) -> Any:
    v = np.zeros(1, np.float32) if value is None else value
    if isinstance(v, np.ndarray):
        return Tensor.full(tuple(ints(to)), v.reshape(-1)[0].item(), dtype=v.dtype)
    return v.reshape((1,) * len(ints(to))).expand(tuple(ints(to)))


@op("EyeLike")
def eye_like(x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    from tinyengine.onnx.values import ELEMENTS

    n, m = x.shape
    d = x.dtype if dtype is None else ELEMENTS[dtype]
    return (Tensor.arange(m).reshape(1, m) == (Tensor.arange(n) + k).reshape(n, 1)).cast(d)


@op("Range", 11, either=(0, 1, 2))
def range_(start: Any, limit: Any, delta: Any, *, stash_type: int = 1) -> Any:
    a, b, s = (np.asarray(on_host(v)).reshape(()).item() for v in (start, limit, delta))
    if any(isinstance(v, Size) for v in (a, b, s)):
        return Tensor.arange(a, b, s, dtype=dtypes.int64)
    y = a + np.arange(max(math.ceil((b - a) / s), 0)) * s
    return y.astype(start.dtype) if known(start) else Tensor(y).cast(start.dtype)


@op("OneHot", host=(1,))
def one_hot(index: Any, depth: Array, pair: Any, *, axis: int = -1) -> Any:
    n = int(depth.reshape(()))
    index = index.cast(dtypes.int64)
    axis = axis_of(axis, index.ndim + 1)
    classes = Tensor.arange(n, dtype=dtypes.int64).reshape([n if d == axis else 1 for d in range(index.ndim + 1)])
    at = (index < 0).where(index + n, index).unsqueeze(axis)
    return (at == classes).where(pair[1], pair[0])


__all__ = ["axis_of", "ints", "positions"]
