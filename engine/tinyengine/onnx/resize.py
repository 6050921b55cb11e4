"""Resize and Upsample: one axis after the other. Where an output element reads and with which weights depends on extents and
scales only; both are found on the host, so a kernel reads static tables."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyengine.onnx.movement import axis_of
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import Array
from tinyengine.tensor import Tensor


class Axis(NamedTuple):
    """One axis from `old` to `new` elements; `scale` is their ratio as the model states it; `roi`: the part of the input that is
    cropped, as fractions."""

    old: int
    new: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


def _half_pixel_symmetric(i: Array, a: Axis) -> Array:
    return a.old / 2 * (1 - a.new / (a.scale * a.old)) + (i + 0.5) / a.scale - 0.5


def _align_corners(i: Array, a: Axis) -> Array:
    length = a.scale * a.old
    return i * 0.0 if length == 1 else i * ((a.old - 1) / (length - 1))


def _crop(i: Array, a: Axis) -> Array:
    start, end = a.roi
    length = a.scale * a.old
    if length == 1:
        return i * 0.0 + (end - start) * (a.old - 1) / 2 + start * (a.old - 1)
    return i * ((end - start) * (a.old - 1) / (length - 1)) + start * (a.old - 1)


# coordinate_transformation_mode -> where an output position lies in the input
_PLACES: dict[str, Callable[[Array, Axis], Array]] = {
    "half_pixel": lambda i, a: (i + 0.5) / a.scale - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda i, a: (i + 0.5) / a.scale - 0.5 if a.scale * a.old != 1 else i * 0.0 - 0.5,
    "align_corners": _align_corners,
    "asymmetric": lambda i, a: i / a.scale,
    "tf_half_pixel_for_nn": lambda i, a: (i + 0.5) / a.scale,
    "tf_crop_and_resize": _crop,
}
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _triangle(x: Array, a: float) -> Array:
    return np.asarray(np.maximum(1 - np.abs(x), 0))


def _cubic(x: Array, a: float) -> Array:
    """Cubic convolution (Keys 1981)."""
    t = np.abs(x)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.asarray(np.where(t <= 1, near, np.where(t < 2, far, 0)))


_FILTERS = {"linear": (_triangle, 1), "cubic": (_cubic, 2)}  # mode -> (weight at a distance, how far it reaches)


def _taps(at: Array, a: Axis, mode: str, cubic: float, antialias: bool, exclude: bool) -> tuple[Array, Array]:
    """(positions, weights), both (new, taps)."""
    weigh, reach = _FILTERS[mode]
    wide = min(a.scale, 1.0) if antialias else 1.0
    low = np.ceil(at) - 1
    first = math.floor(-reach / wide) + 1
    k = np.arange(first, 2 - first)
    weights = weigh((k + low[:, None] - at[:, None]) * wide, cubic)
    positions = low[:, None] + k
    if exclude:
        weights = weights * ((positions >= 0) & (positions < a.old))
    if exclude or antialias:
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(positions, 0, a.old - 1).astype(np.int32), weights


def _pick(x: Any, d: int, at: Array) -> Any:
    """Elements of axis d at known positions; equal runs of each element in turn are an expansion."""
    times = len(at) // x.shape[d]
    if times and np.array_equal(at, np.repeat(np.arange(x.shape[d]), times)):
        return x.repeat_interleave(times, d) if times > 1 else x
    return x.take(Tensor(at.astype(np.int32)), d)


def _along(x: Any, d: int, positions: Array, weights: Array) -> Any:
    if positions.shape[1] > 4:
        table = np.zeros((len(positions), x.shape[d]), np.float32)
        np.add.at(table, (np.arange(len(positions))[:, None], positions), weights)
        return x.transpose(d, -1).matmul(Tensor(table).cast(x.dtype).T).transpose(d, -1)
    shape = [-1 if k == d else 1 for k in range(x.ndim)]
    terms = [
        _pick(x, d, positions[:, k]) * Tensor(weights[:, k].astype(np.float32)).cast(x.dtype).reshape(shape)
        for k in range(positions.shape[1])
    ]
    return functools.reduce(operator.add, terms)


def _resized(
    x: Any, axes: dict[int, Axis], mode: str, place: str, nearest: str, *, cubic: float = -0.75, antialias: bool = False,
    exclude: bool = False, outside: float = 0.0,
) -> Any:  # fmt: skip
    y = x.float() if mode != "nearest" and not x.dtype.is_float else x
    for d, a in axes.items():
        if a.old == a.new and a.scale == 1 and a.roi == (0.0, 1.0):
            continue
        at = _PLACES[place](np.arange(a.new, dtype=np.float64), a)
        if mode == "nearest":
            y = _pick(y, d, np.clip(_NEAREST[nearest](at), 0, a.old - 1).astype(np.int64))
        else:
            y = _along(y, d, *_taps(at, a, mode, cubic, antialias, exclude))
        beyond = (at < 0) | (at > a.old - 1)
        if place == "tf_crop_and_resize" and beyond.any():
            y = Tensor(beyond).reshape([-1 if k == d else 1 for k in range(y.ndim)]).where(outside, y)
    return y.cast(x.dtype)


def _by_scale(n: Any, s: float, roi: tuple[float, float] = (0.0, 1.0)) -> Axis:
    """An axis as a scale changes it; one that it leaves may be of symbolic size."""
    return Axis(n, n if (s, roi) == (1.0, (0.0, 1.0)) else math.floor(n * (roi[1] - roi[0]) * s), s, roi)


def _by_scales(x: Any, scales: list[float]) -> dict[int, Axis]:
    return {d: _by_scale(n, s) for d, (n, s) in enumerate(zip(x.shape, scales, strict=True))}


@op("Upsample", 7)
def upsample_7(x: Any, *, scales: list[float], mode: str = "nearest") -> Any:
    return _resized(x, _by_scales(x, scales), mode, "asymmetric", "floor")


@op("Upsample", 9, host=(1,))
@op("Resize", 10, host=(1,))
def resize_10(x: Any, scales: Array, *, mode: str = "nearest") -> Any:
    return _resized(x, _by_scales(x, [float(s) for s in scales]), mode, "asymmetric", "floor")


@op("Resize", 11, host=(1, 2, 3))
def resize(
    x: Any, roi: Any = None, scales: Any = None, sizes: Any = None, *, antialias: int = 0, axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75, exclude_outside: int = 0,
    extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Any:  # fmt: skip
    where = list(range(x.ndim)) if axes is None else [axis_of(a, x.ndim) for a in axes]
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    parts = [(0.0, 1.0)] * x.ndim
    if crops and roi is not None and roi.size:
        for k, d in enumerate(where):
            parts[d] = (float(roi[k]), float(roi[k + len(where)]))
    new: dict[int, Axis] = {}
    if sizes is not None and sizes.size:
        asked = [int(s) for s in sizes]
        ratios = [s / x.shape[d] for s, d in zip(asked, where, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            ratio = (min if keep_aspect_ratio_policy == "not_larger" else max)(ratios)
            asked = [math.floor(ratio * x.shape[d] + 0.5) for d in where]
            ratios = [ratio] * len(where)
        new = {d: Axis(x.shape[d], s, r, parts[d]) for d, s, r in zip(where, asked, ratios, strict=True)}
    elif scales is not None and scales.size:
        for s, d in zip([float(s) for s in scales], where, strict=True):
            new[d] = _by_scale(x.shape[d], s, parts[d])
    else:
        raise ValueError("Resize needs scales or sizes")
    return _resized(
        x, new, mode, coordinate_transformation_mode, nearest_mode, cubic=cubic_coeff_a, antialias=bool(antialias),
        exclude=bool(exclude_outside), outside=extrapolation_value,
    )  # fmt: skip
