"""Elements chosen by their values. Where the number of results depends on the data it is computed at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx.movement import axis_of
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import on_host
from tinyengine.tensor import Tensor


@op("TopK")
def top_k_1(x: Any, *, k: int, axis: int = -1) -> Any:
    return top_k(x, np.array(k), axis=axis)


@op("TopK", 10, host=(1,))
def top_k(x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    best, at = x.topk(int(np.asarray(k).reshape(())), axis, bool(largest))
    return best, at.cast(dtypes.int64)


@op("NonZero")
def nonzero(x: Any) -> Any:
    return x.nonzero().T.cast(dtypes.int64)


@op("Compress", host=(1,))
def compress(x: Any, condition: Any, *, axis: int | None = None) -> Any:
    at = Tensor(np.nonzero(condition)[0].astype(np.int32))
    return (x.flatten() if axis is None else x).take(at, 0 if axis is None else axis)


@op("Unique", 11)
def unique(x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    host = on_host(x)
    d = None if axis is None else axis_of(axis, x.ndim)
    _, first, inverse, counts = np.unique(host, True, True, True, axis=d)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        first, counts, inverse = first[order], counts[order], rank[inverse]
    y = (x.flatten() if d is None else x).take(Tensor(first.astype(np.int32)), 0 if d is None else d)
    return y, *[a.astype(np.int64) for a in (first, inverse, counts)]


@op("NonMaxSuppression", 10, host=(0, 1, 2, 3, 4))
def non_max_suppression(
    boxes: Any, scores: Any, most: Any = None, overlap: Any = None, least: Any = None, *, center_point_box: int = 0
) -> Any:
    """Greedy, by boxes in order of their scores. Computed at once: each decision depends on the one before."""
    limit = 0 if most is None else int(np.asarray(most).reshape(()))
    threshold = 0.0 if overlap is None else float(np.asarray(overlap).reshape(()))
    floor = -np.inf if least is None else float(np.asarray(least).reshape(()))
    if center_point_box:
        x, y, w, h = np.moveaxis(boxes, -1, 0)
        corners = np.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], -1)
    else:
        a, b = boxes[..., :2], boxes[..., 2:]
        corners = np.concatenate([np.minimum(a, b), np.maximum(a, b)], -1)
    area = np.prod(corners[..., 2:] - corners[..., :2], -1)
    found = []
    for n, c in np.ndindex(scores.shape[:2]):
        left = [i for i in np.argsort(-scores[n, c], kind="stable") if scores[n, c, i] > floor]
        kept = 0
        while left and kept < limit:
            best = left.pop(0)
            found.append((n, c, best))
            kept += 1
            rest = np.array(left, np.int64)
            low = np.maximum(corners[n, best, :2], corners[n, rest, :2])
            high = np.minimum(corners[n, best, 2:], corners[n, rest, 2:])
            both = np.prod(np.maximum(high - low, 0), -1)
            left = [
                i for i, over in zip(left, both / (area[n, best] + area[n, rest] - both) > threshold, strict=True) if not over
            ]
    return np.array(found, np.int64).reshape(-1, 3)
