"""Elements read between places: GridSample, RoiAlign, DeformConv. Positions come from data, so each read is an indexed load, with
weights for its neighbours."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx.network import per_axis
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import known, on_host
from tinyengine.tensor import Tensor

Tap = tuple[Any, Any]  # (whole position, weight), both float tensors


def _linear(x: Any) -> list[Tap]:
    low = x.floor()
    t = x - low
    return [(low, 1 - t), (low + 1, t)]


def _cubic(x: Any) -> list[Tap]:
    """Cubic convolution with a = -3/4 (Keys 1981)."""
    a = -0.75
    low = x.floor()
    t = x - low

    def near(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [(low - 1, far(t + 1)), (low, near(t)), (low + 1, near(1 - t)), (low + 2, far(2 - t))]


def _nearest(x: Any) -> list[Tap]:
    return [(x.round(), 1.0)]


_TAPS = {"nearest": _nearest, "linear": _linear, "bilinear": _linear, "cubic": _cubic, "bicubic": _cubic}


def _reflected(x: Any, low: float, high: float) -> Any:
    """Positions mirrored at both ends until they are inside."""
    span = high - low
    if span <= 0:
        return x * 0
    x = (x - low).abs()
    turns = (x / span).floor()
    rest = x - turns * span
    return (turns.mod(2) == 0).where(rest + low, high - rest)


def _inside(x: Any, n: int, padding: str, ends: tuple[float, float]) -> Any:
    """A position, whole or not, brought into the range where the padding asks for that."""
    if padding == "border":
        return x.clamp(0, n - 1)
    return _reflected(x, *ends) if padding == "reflection" else x


def sample(x: Any, at: list[Any], mode: str, padding: str, align: bool) -> Any:
    """(N, C, space...) at positions of each axis, all (N, P) -> (N, C, P)."""
    n, c, *space = x.shape
    flat = x.reshape((n, c, math.prod(space)))
    taps = []
    for p, size in zip(at, space, strict=True):
        ends = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        p = p.round() if mode == "nearest" else p
        taps.append([(_inside(i, size, padding, ends), w) for i, w in _TAPS[mode](_inside(p, size, padding, ends))])
    total: Any = 0
    for corner in itertools.product(*taps):
        index: Any = 0
        weight: Any = 1.0
        for (i, w), size in zip(corner, space, strict=True):
            weight = w * weight
            if padding == "zeros":
                weight = ((i >= 0) & (i <= size - 1)).where(weight, 0.0)
            index = index * size + i.clamp(0, size - 1).cast(dtypes.int32)
        index = index.unsqueeze(1).expand((n, c, index.shape[-1]))
        total = flat.gather(2, index) * (weight.unsqueeze(1) if isinstance(weight, Tensor) else weight) + total
    return total.cast(x.dtype)


@op("GridSample")
def grid_sample(x: Any, grid: Any, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> Any:
    n, c, *space = x.shape
    out = grid.shape[1:-1]
    if not math.prod(grid.shape) or not math.prod(x.shape):
        return Tensor.zeros(n, c, *out, dtype=x.dtype)
    points = grid.reshape((n, math.prod(out), len(space)))
    at = []
    for a, size in enumerate(space):
        g = points[..., len(space) - 1 - a]
        at.append((g + 1) * ((size - 1) / 2) if align_corners else ((g + 1) * size - 1) * 0.5)
    return sample(x, at, mode, padding_mode, bool(align_corners)).reshape((n, c, *out))


@op("DeformConv")
def deform_conv(
    x: Any, w: Any, offset: Any, b: Any = None, mask: Any = None, *, dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, offset_group: int = 1, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    n, c, *space = x.shape
    axes = len(space)
    kernel, out = w.shape[2:], offset.shape[2:]
    s, d, p = per_axis(strides, axes), per_axis(dilations, axes), [0] * axes if pads is None else pads
    taps, places = math.prod(kernel), math.prod(out)
    moved = offset.reshape((n, offset_group, *kernel, axes, *out))
    at = []
    for a in range(axes):
        rows = np.arange(kernel[a])[:, None] * d[a] + np.arange(out[a])[None, :] * s[a] - p[a]
        shape = [1] * (2 * axes)
        shape[a], shape[axes + a] = rows.shape
        base = Tensor(np.broadcast_to(rows.reshape(shape), (*kernel, *out)).astype(np.float32))
        by = moved[(slice(None),) * (2 + axes) + (a,)]
        at.append((by + base).reshape((n * offset_group, taps * places)))
    y = sample(x.reshape((n * offset_group, c // offset_group, *space)), at, "linear", "zeros", True)
    y = y.reshape((n, offset_group, c // offset_group, taps, places))
    if mask is not None:
        y = y * mask.reshape((n, offset_group, 1, taps, places))
    y = y.reshape((n, group, c // group * taps, places))
    y = w.reshape((group, w.shape[0] // group, c // group * taps)).matmul(y).reshape((n, w.shape[0], *out))
    return y if b is None else y + b.reshape((-1,) + (1,) * axes)


@op("RoiAlign", 10, either=(1,))
def roi_align_10(
    x: Any, rois: Any, batch: Any, *, mode: str = "avg", output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:  # fmt: skip
    return roi_align(
        x, rois, batch, coordinate_transformation_mode="output_half_pixel", mode=mode, output_height=output_height,
        output_width=output_width, sampling_ratio=sampling_ratio, spatial_scale=spatial_scale,
    )  # fmt: skip


@op("RoiAlign", 16, either=(1,))
def roi_align(
    x: Any, rois: Any, batch: Any, *, coordinate_transformation_mode: str = "half_pixel", mode: str = "avg",
    output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0, spatial_scale: float = 1.0,
) -> Any:  # fmt: skip
    """With a sampling_ratio of 0 the number of samples follows from the boxes, which are computed at once for it."""
    half = coordinate_transformation_mode == "half_pixel"
    height, width = x.shape[2:]
    axes = []  # for y and for x: positions (R, out, samples), whether each sample counts (R, 1, samples) or None, how many (R,)
    corners = Tensor(rois) if known(rois) else rois
    count = corners.shape[0]
    for first, out in ((1, output_height), (0, output_width)):
        shift = 0.5 if half else 0.0
        start, end = (corners[:, k] * spatial_scale - shift for k in (first, first + 2))
        length = end - start if half else (end - start).maximum(1.0)
        size = length / out
        if sampling_ratio > 0:
            most, grid, counts = sampling_ratio, None, None
        else:
            a = np.asarray(on_host(rois), np.float32)
            extent = a[:, first + 2] * np.float32(spatial_scale) - a[:, first] * np.float32(spatial_scale)
            host = np.ceil((extent if half else np.maximum(extent, 1.0)) / out).astype(np.int32)
            most = max(int(host.max(initial=0)), 1)
            grid = Tensor(host.astype(np.float32)).reshape((count, 1, 1))
            counts = Tensor(np.arange(most)[None, :] < host[:, None]).reshape((count, 1, most))
        i = Tensor.arange(out, dtype=dtypes.float32).reshape(1, out, 1)
        k = Tensor.arange(most, dtype=dtypes.float32).reshape(1, 1, most)
        at = start.reshape((count, 1, 1)) + size.reshape((count, 1, 1)) * (i + (k + 0.5) / (most if grid is None else grid))
        axes.append((at, counts, most if grid is None else grid))
    (ys, y_counts, y_most), (xs, x_counts, x_most) = axes
    shape = (count, output_height, output_width, ys.shape[2], xs.shape[2])
    y = ys.reshape((count, output_height, 1, ys.shape[2], 1)).expand(shape)
    z = xs.reshape((count, 1, output_width, 1, xs.shape[2])).expand(shape)
    there = ~((y < -1.0) | (y > height) | (z < -1.0) | (z > width))
    used: Any = None
    if y_counts is not None and x_counts is not None:
        used = y_counts.reshape((count, 1, 1, -1, 1)) & x_counts.reshape((count, 1, 1, 1, -1))
    flat = x.take(batch, 0).reshape((count, x.shape[1], height * width))
    total: Any = None
    for (i, v), (j, w) in itertools.product(_linear(y.clamp(0, height - 1)), _linear(z.clamp(0, width - 1))):
        index = (i.minimum(height - 1) * width + j.minimum(width - 1)).cast(dtypes.int32).reshape((count, 1, -1))
        value = flat.gather(2, index.expand((count, x.shape[1], index.shape[-1]))).reshape((count, x.shape[1], *shape[1:]))
        weight = there.where(v * w, 0.0)
        value = value * (weight if used is None else used.where(weight, 0.0)).unsqueeze(1)
        if mode == "max":
            value = value if used is None else used.unsqueeze(1).where(value, -math.inf)
            total = value if total is None else total.maximum(value)
        else:
            total = value if total is None else total + value
    if mode == "max":
        return total.amax((-2, -1))
    number = y_most * x_most
    number = number if isinstance(number, int) else number.reshape((count, 1, 1, 1)).maximum(1.0)
    return total.sum((-2, -1)) / number


@op("MaxRoiPool")
def max_roi_pool(x: Any, rois: Any, *, pooled_shape: list[int], spatial_scale: float = 1.0) -> Any:
    """The maximum of each bin of whole places (Girshick 2015); 0 for an empty one. First along the width, then the height."""
    count = rois.shape[0]
    y = x.take(rois[:, 0].cast(dtypes.int32), 0)
    for first, out, d in ((1, pooled_shape[1], 3), (2, pooled_shape[0], 2)):
        n = x.shape[d]
        start, end = ((rois[:, k] * spatial_scale + 0.5).floor().reshape(count, 1) for k in (first, first + 2))
        size = (end - start + 1).maximum(1.0) / out
        i = Tensor.arange(out, dtype=dtypes.float32).reshape(1, out)
        low, high = (i * size).floor() + start, ((i + 1) * size).ceil() + start
        at = Tensor.arange(n, dtype=dtypes.float32)
        inside = (at >= low.unsqueeze(-1)) & (at < high.unsqueeze(-1))  # (R, out, n)
        y = y.transpose(d, -1).unsqueeze(-2)  # (R, C, other, 1, n)
        y = inside.reshape((count, 1, 1, out, n)).where(y, -math.inf).amax(-1).transpose(d, -1)
    return (y > -math.inf).where(y, 0)
