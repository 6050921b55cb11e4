"""interpolate: the axes are resized one after the other. Where each output element reads, and with which weight, depends on the
extents only: both are computed on the host, in float32 as PyTorch does, and stand in small tables."""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine.origin import user_line
from tinyengine.tensor import core

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_LINEAR = {"linear": None, "bilinear": 2, "trilinear": 3}  # mode -> number of spatial axes it is for
_PHASES = 8  # results per element up to which each phase is a copy of its own
_SMOOTH = {**_LINEAR, "bicubic": 2}


def _sizes(x: Any, size: Any, scale_factor: Any) -> tuple[list[int], list[float | None]]:
    """(new extents, factor of each axis or None) of the spatial axes."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate needs size or scale_factor, and not both\n  at {user_line()}")
    given = size if size is not None else scale_factor
    n = x.ndim - 2
    if not 1 <= n <= 3:
        raise NotImplementedError(f"interpolate takes (N, C, ...) with 1 to 3 more axes, not {list(x.shape)}\n  at {user_line()}")
    each = list(given) if isinstance(given, (tuple, list)) else [given] * n
    if len(each) != n:
        raise ValueError(f"interpolate: {given!r} does not fit {n} spatial axes, shape {list(x.shape)}\n  at {user_line()}")
    new = each if size is not None else [math.floor(s * f) for s, f in zip(x.shape[2:], each, strict=True)]
    if any(s < 1 for s in (*new, *x.shape[2:])):
        raise RuntimeError(f"interpolate: extents {list(x.shape[2:])} to {new}, both must be positive\n  at {user_line()}")
    return [int(s) for s in new], [None if size is not None else float(f) for f in each]


def _nearest(old: int, new: int, factor: float | None, exact: bool) -> Any:
    ratio = np.float32(1 / factor if factor else old / new)
    at = np.arange(new, dtype=np.float32)
    return np.minimum(np.floor((at + np.float32(0.5)) * ratio if exact else at * ratio), old - 1).astype(np.int32)


def _linear(old: int, new: int, factor: float | None, align: bool) -> tuple[Any, Any, Any]:
    """(lower position, upper position, weight of the upper one)."""
    at = np.arange(new, dtype=np.float32)
    if align:
        at = at * np.float32((old - 1) / (new - 1) if new > 1 else 0)
    else:
        ratio = np.float32(1 / factor if factor else old / new)
        at = np.maximum(ratio * (at + np.float32(0.5)) - np.float32(0.5), np.float32(0))
    low = np.minimum(at.astype(np.int32), old - 1)
    return low, np.minimum(low + 1, old - 1), (at - low).astype(np.float32)


def area(x: Any, d: int, new: int) -> Any:
    """The mean of elements floor(i * old / new) to ceil((i + 1) * old / new): a product with a static matrix."""
    old = x.shape[d]
    if new == 1:
        return x.mean(d, keepdim=True)
    i, j = np.arange(new)[:, None], np.arange(old)[None, :]
    inside = (j >= i * old // new) & (j < -(-(i + 1) * old // new))
    table = core._cls((inside / inside.sum(1, keepdims=True)).astype(np.float32)).cast(x.dtype)
    return x.transpose(d, -1).matmul(table.T).transpose(d, -1)


def _cubic(old: int, new: int, factor: float | None, align: bool) -> list[tuple[Any, Any]]:
    """(position, weight) of the four elements around each place: cubic convolution with a = -3/4 (Keys 1981)."""
    at = np.arange(new, dtype=np.float64)
    if align:
        at = at * ((old - 1) / (new - 1) if new > 1 else 0)
    else:
        at = (1 / factor if factor else old / new) * (at + 0.5) - 0.5
    low = np.floor(at)
    out = []
    for k in range(-1, 3):
        t = np.abs(at - low - k)
        near = (1.25 * t - 2.25) * t * t + 1
        far = ((-0.75 * t + 3.75) * t - 6) * t + 3
        out.append((np.clip(low + k, 0, old - 1).astype(np.int32), np.where(t <= 1, near, far).astype(np.float32)))
    return out


def _blend(x: Any, d: int, parts: list[tuple[Any, Any]]) -> Any:
    """The sum of slices along axis d, each with its weights."""
    shape = [-1 if a == d else 1 for a in range(x.ndim)]
    terms = [x.take(core._cls(at), d) * core._cls(weight).cast(x.dtype).reshape(shape) for at, weight in parts]
    return functools.reduce(operator.add, terms)


def _taken(x: Any, d: int, at: Any) -> Any:
    """Slices along axis d at static positions; where each is taken the same number of times in order it is a view."""
    times = len(at) // x.shape[d]
    if len(at) == times * x.shape[d] and (at == np.arange(len(at)) // times).all():
        return x.repeat_interleave(times, d)
    return x.take(core._cls(at), d)


def _part(x: Any, d: int, start: int, count: int) -> Any:
    return x.shrink([(start, start + count) if a == d else None for a in range(x.ndim)])


def _phases(x: Any, d: int, low: Any, weight: Any) -> Any:
    """The blend of two neighbours, x[low] (1 - weight) + x[low + 1] weight, for a whole number of results per element: result
    k * i + p lies as far behind element i for each i, so each of the k phases is a sum of two shifted copies of x with constant
    weights. None where positions are not of this kind."""
    old = x.shape[d]
    k, rest = divmod(len(low), old)
    if rest or not 1 < k <= _PHASES or old < 4:
        return None
    shift = (low.reshape(old, k) - np.arange(old)[:, None])[1:-1]
    inner = weight.reshape(old, k)[1:-1]
    if (shift != shift[0]).any() or np.ptp(inner, axis=0).max() > 1e-5 or not set(shift[0]) <= {-1, 0}:
        return None
    around = core._cls.cat([_part(x, d, 0, 1), x, _part(x, d, old - 1, 1)], dim=d)  # beyond its ends x goes on as it ends
    weights = weight.reshape(old, k)[old // 2]
    parts = []
    for start, w in zip(shift[0] + 1, weights, strict=True):
        near, far = (_part(around, d, int(start) + i, old) for i in (0, 1))
        parts.append(near * (1 - float(w)) + far * float(w))
    y = core._cls.stack(parts, dim=d + 1)
    return y.reshape([*x.shape[:d], old * k, *x.shape[d + 1 :]])


def interpolate(
    x: Any, size: Any, scale_factor: Any, mode: str, align_corners: bool | None, recompute: bool | None = None
) -> Tensor:
    """See Pooling.interpolate."""
    new, factors = _sizes(x, size, scale_factor)
    if recompute:
        if size is not None:
            raise ValueError(f"interpolate: recompute_scale_factor goes with scale_factor, not with size\n  at {user_line()}")
        factors = [None] * len(new)
    if mode not in ("nearest", "nearest-exact", "area") and _SMOOTH.get(mode, 0) not in (None, len(new)):
        raise NotImplementedError(f"interpolate: {mode!r} does not resize {len(new)} spatial axes\n  at {user_line()}")
    if align_corners is not None and mode not in _SMOOTH:
        raise ValueError(f"interpolate: align_corners is for smooth modes, not {mode!r}\n  at {user_line()}")
    if mode in _SMOOTH and not x.dtype.is_float:
        raise NotImplementedError(f"interpolate: {mode!r} of {x.dtype}; cast it to a float first\n  at {user_line()}")
    for k, (s, f) in enumerate(zip(new, factors, strict=True)):
        d = k + 2
        old = x.shape[d]
        if mode == "area":
            x = area(x, d, s)
        elif mode == "bicubic":
            x = _blend(x, d, _cubic(old, s, f, bool(align_corners)))
        elif mode in _LINEAR:
            if s == old and f in (None, 1.0):
                continue
            low, high, weight = _linear(old, s, f, bool(align_corners))
            y = None if align_corners else _phases(x, d, low, weight)
            x = _blend(x, d, [(low, 1 - weight), (high, weight)]) if y is None else y
        else:
            x = _taken(x, d, _nearest(old, s, f, mode == "nearest-exact"))
    return x  # type: ignore[no-any-return]


__all__ = ["area", "interpolate"]
