"""Layers: products, convolutions, pooling, normalisation, dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx.movement import axis_of
from tinyengine.onnx.registry import op
from tinyengine.origin import here
from tinyengine.stages import record
from tinyengine.tensor import Tensor, core

Pads = list[tuple[int, int]]


@op("MatMul")
def matmul(a: Any, b: Any) -> Any:
    return a.matmul(b)


@op("Gemm", 7)
def gemm(a: Any, b: Any, c: Any = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    y = (a.T if transA else a).matmul(b.T if transB else b)
    y = y if alpha == 1 else (y * alpha).cast(a.dtype)
    if c is None or beta == 0:
        return y
    return y + (c if beta == 1 else (c * beta).cast(a.dtype))


@op("Det")
def det(x: Any) -> Any:
    return x.det()


@op("Einsum")
def einsum(*xs: Any, equation: str) -> Any:
    return Tensor.einsum(equation.replace(" ", ""), *xs)


def pads_of(
    auto_pad: str, pads: list[int] | None, space: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:  # fmt: skip
    """(before, after) of each spatial axis."""
    k = len(kernel)
    if auto_pad in ("NOTSET", "VALID"):
        p = pads if pads is not None and auto_pad == "NOTSET" else [0] * 2 * k
        return list(zip(p[:k], p[k:], strict=True))
    out = []
    for n, size, s, d in zip(space, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + d * (size - 1) + 1 - n, 0)
        low = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        out.append((low, total - low))
    return out


def per_axis(given: Any, axes: int) -> list[int]:
    return [1] * axes if given is None else list(given)


@op("Conv")
def conv(
    x: Any, w: Any, b: Any = None, *, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None,
    pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    axes = w.ndim - 2
    s, d = per_axis(strides, axes), per_axis(dilations, axes)
    p = pads_of(auto_pad, pads, x.shape[2:], w.shape[2:], s, d)
    if any(low != high for low, high in p):
        x, p = x.pad([None, None, *p]), [(0, 0)] * axes
    return x.conv2d(w, b, s, [low for low, _ in p], d, group)


@op("ConvTranspose")
def conv_transpose(
    x: Any, w: Any, b: Any = None, *, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None,
    output_padding: Any = None, output_shape: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    axes = w.ndim - 2
    s, d = per_axis(strides, axes), per_axis(dilations, axes)
    extra = [0] * axes if output_padding is None else list(output_padding)
    full = [(n - 1) * a + e * (k - 1) + 1 for n, a, e, k in zip(x.shape[2:], s, d, w.shape[2:], strict=True)]
    if output_shape is None and auto_pad.startswith("SAME"):
        output_shape = [n * a for n, a in zip(x.shape[2:], s, strict=True)]
    if output_shape is not None:
        p = []
        for n, more, asked in zip(full, extra, output_shape[-axes:], strict=True):
            total = n + more - asked
            half = max(total, 0) // 2
            low = half if auto_pad == "SAME_UPPER" else max(total, 0) - half
            p.append((low, total - low))  # what is asked for beyond the sum comes behind it
    else:
        p = pads_of(auto_pad, pads, x.shape[2:], w.shape[2:], s, d)
    plain = all(low == high >= 0 and more < max(a, e) for (low, high), more, a, e in zip(p, extra, s, d, strict=True))
    if plain:
        return x.conv_transpose2d(w, b, s, [low for low, _ in p], extra, group, d)
    y = x.conv_transpose2d(w, None, s, 0, 0, group, d)
    y = y.pad([None, None, *[(-low, more - high) for (low, high), more in zip(p, extra, strict=True)]])
    return y if b is None else y + b.reshape((-1,) + (1,) * axes)


class Window:
    """Where the windows of a pooling lie; `high`: what `ceil_mode` adds behind the padding."""

    def __init__(self, x: Any, kernel: Any, strides: Any, pads: Any, dilations: Any, auto_pad: str, ceil_mode: int) -> None:
        self.kernel, self.axes = list(kernel), len(kernel)
        self.strides, self.dilations = per_axis(strides, self.axes), per_axis(dilations, self.axes)
        self.space = x.shape[2:]
        self.pads = pads_of(auto_pad, pads, self.space, self.kernel, self.strides, self.dilations)
        self.high = []
        for n, (low, high), k, s, d in zip(self.space, self.pads, self.kernel, self.strides, self.dilations, strict=True):
            span = d * (k - 1) + 1
            more = 0
            if ceil_mode:
                count = -(-(n + low + high - span) // s) + 1
                count -= (count - 1) * s >= n + low  # a window must begin before the padding behind
                more = max(0, (count - 1) * s + span - (n + low + high))
            self.high.append(more)

    def of(self, x: Any, fill: Any = 0) -> Any:
        """(N, C, out..., kernel...)."""
        wide = [(low, high + more) for (low, high), more in zip(self.pads, self.high, strict=True)]
        if any(map(any, wide)):
            x = x.pad([None, None, *wide], value=fill)
        return x._windows(self.kernel, self.strides, self.dilations)

    @property
    def inner(self) -> tuple[int, ...]:
        return tuple(range(-self.axes, 0))

    def counts(self, include_pad: bool) -> Any:
        """How many elements of each window count, as a float array (out...)."""
        total: Any = np.ones((), np.float32)
        for n, (low, high), more, k, s, d in zip(
            self.space, self.pads, self.high, self.kernel, self.strides, self.dilations, strict=True
        ):
            there = np.ones(low + n + high + more, np.float32)
            there[low + n + high :] = 0
            if not include_pad:
                there[:low] = there[low + n :] = 0
            starts = np.arange(0, len(there) - d * (k - 1), s)
            axis = there[starts[:, None] + d * np.arange(k)].sum(1)
            total = total[..., None] * axis
        return total


@op("MaxPool")
def max_pool(
    x: Any, *, kernel_shape: list[int], auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Any = None, pads: Any = None,
    storage_order: int = 0, strides: Any = None, call: Any,
) -> Any:  # fmt: skip
    w = Window(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    windows = w.of(x, x.dtype.min)
    best = windows.amax(w.inner)
    if call.outputs < 2:
        return best
    at = windows.flatten(-w.axes).argmax(-1).cast(dtypes.int64)
    order = list(range(w.axes)) if not storage_order else list(range(w.axes))[::-1]
    stride = {}
    step = 1
    for a in order[::-1]:
        stride[a] = step
        step *= w.space[a]
    rest, total = at, 0
    for a in reversed(range(w.axes)):
        within = rest % w.kernel[a]
        rest = rest // w.kernel[a]
        shape = [-1 if k == a + 2 else 1 for k in range(x.ndim)]
        start = Tensor(np.arange(best.shape[a + 2], dtype=np.int64) * w.strides[a] - w.pads[a][0]).reshape(shape)
        total = (within * w.dilations[a] + start) * stride[a] + total
    planes = Tensor(np.arange(x.shape[0] * x.shape[1], dtype=np.int64) * step).reshape((*x.shape[:2], *(1,) * w.axes))
    return best, total + planes


@op("AveragePool")
def average_pool(
    x: Any, *, kernel_shape: list[int], auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
    dilations: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    w = Window(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    counts = w.counts(bool(count_include_pad))
    total = w.of(x).sum(w.inner)
    if (counts == counts.reshape(-1)[0]).all():
        return total * (1 / float(counts.reshape(-1)[0]))
    return total / Tensor(counts).cast(x.dtype)


@op("LpPool")
def lp_pool(
    x: Any, *, kernel_shape: list[int], auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Any = None, p: int = 2,
    pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    windows = Window(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    return _norm(windows.of(x), p, windows.inner, False)


def _norm(x: Any, p: int, d: Any, keep: bool) -> Any:
    if p == 1:
        return x.abs().sum(d, keepdim=keep)
    if p == 2:
        return (x * x).sum(d, keepdim=keep).sqrt()
    return (x.abs() ** p).sum(d, keepdim=keep) ** (1 / p)


def _space(x: Any) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@op("GlobalAveragePool")
def global_average_pool(x: Any) -> Any:
    return x.mean(_space(x), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Any) -> Any:
    return x.amax(_space(x), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(x: Any, *, p: int = 2) -> Any:
    return _norm(x, p, _space(x), True)


@op("MaxUnpool", host=(2,))
def max_unpool(x: Any, index: Any, output_shape: Any = None, *, kernel_shape: Any, pads: Any = None, strides: Any = None) -> Any:
    axes = len(kernel_shape)
    s = per_axis(strides, axes)
    p = [0] * 2 * axes if pads is None else pads
    natural = [
        (n - 1) * a - p[k] - p[k + axes] + size for k, (n, a, size) in enumerate(zip(x.shape[2:], s, kernel_shape, strict=True))
    ]
    small = (*x.shape[:2], *natural)  # the positions count in this
    y = Tensor.zeros(math.prod(small), dtype=x.dtype).scatter(0, index.flatten(), x.flatten()).reshape(small)
    return y if output_shape is None else y.pad_to(*[int(n) for n in output_shape])


def _folded(x: Any, axis: int, kaxis: int, stride: int, dilation: int, extent: int) -> Any:
    """Windows (their elements along `kaxis`, their positions along `axis`) added up where they lie; `kaxis` goes."""
    flow, n = core.operand(x)
    o = here()
    n = record.reduce("sum", record.place(n, (axis, kaxis, stride, dilation), extent, o), (kaxis,), o)
    return core.make(record.reshape(n, tuple([s for k, s in enumerate(n.shape) if k != kaxis]), o), flow)


@op("Col2Im", host=(1, 2))
def col2im(x: Any, image_shape: Any, block_shape: Any, *, dilations: Any = None, pads: Any = None, strides: Any = None) -> Any:
    """The sum of overlapping windows: the adjoint of taking them, axis by axis."""
    image, block = [int(n) for n in image_shape], [int(n) for n in block_shape]
    axes = len(image)
    s, d, p = per_axis(strides, axes), per_axis(dilations, axes), [0] * 2 * axes if pads is None else list(pads)
    wide = [n + p[k] + p[k + axes] for k, n in enumerate(image)]
    counts = [(n - e * (k - 1) - 1) // a + 1 for n, k, a, e in zip(wide, block, s, d, strict=True)]
    y = x.reshape((x.shape[0], -1, *block, *counts))
    for k in range(axes):  # axis 2 is the block along k; its positions lie along axis 2 + axes, for each k in its turn
        y = _folded(y, 2 + axes, 2, s[k], d[k], wide[k])
    return y.shrink([None, None, *[(p[k], p[k] + n) for k, n in enumerate(image)]])


def _channels(v: Any, rank: int) -> Any:
    return v.reshape((-1,) + (1,) * (rank - 2))


@op("BatchNormalization", 7)
def batch_normalization(
    x: Any, scale: Any, b: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0,
    spatial: int = 1, call: Any,
) -> Any:  # fmt: skip
    if call.opset < 14 and call.outputs > 1:
        raise NotImplementedError("BatchNormalization in training mode, before operator set 14")
    if not spatial:
        return (x - mean) * (var + epsilon).rsqrt() * scale + b
    wide = x.float() if x.dtype.itemsize < 4 else x
    running = ()
    if training_mode:
        axes = (0, *_space(x))
        now, spread = wide.mean(axes), wide.var(axes, correction=0)
        running = tuple((old * momentum + new * (1 - momentum)).cast(old.dtype) for old, new in ((mean, now), (var, spread)))
        mean, var = now, spread
    y = wide.batchnorm(scale, b, mean, (var + epsilon).rsqrt()).cast(x.dtype)
    return (y, *running) if training_mode else y


@op("InstanceNormalization")
def instance_normalization(x: Any, scale: Any, b: Any, *, epsilon: float = 1e-5) -> Any:
    return x.layernorm(_space(x), epsilon) * _channels(scale, x.ndim) + _channels(b, x.ndim)


@op("GroupNormalization", 18)
def group_normalization_18(x: Any, scale: Any, b: Any, *, num_groups: int, epsilon: float = 1e-5) -> Any:
    each = x.shape[1] // num_groups
    return group_normalization(
        x, scale.repeat_interleave(each), b.repeat_interleave(each), num_groups=num_groups, epsilon=epsilon
    )


@op("GroupNormalization", 21)
def group_normalization(x: Any, scale: Any, b: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    y = x.reshape((x.shape[0], num_groups, -1))
    y = (y.float() if x.dtype.itemsize < 4 else y).layernorm(-1, epsilon).reshape(x.shape)
    return (y * _channels(scale, x.ndim) + _channels(b, x.ndim)).cast(x.dtype)


@op("LayerNormalization")
def layer_normalization(
    x: Any, scale: Any, b: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1, call: Any
) -> Any:
    d = tuple(range(axis_of(axis, x.ndim), x.ndim))
    wide = x.float() if x.dtype.itemsize < 4 else x
    mean = wide.mean(d, keepdim=True)
    off = wide - mean
    inverse = ((off * off).mean(d, keepdim=True) + epsilon).rsqrt()
    y = (off * inverse).cast(x.dtype) * scale
    y = y if b is None else y + b
    return (y, mean, inverse)[: max(call.outputs, 1)] if call.outputs > 1 else y


@op("RMSNormalization")
def rms_normalization(x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    d = tuple(range(axis_of(axis, x.ndim), x.ndim))
    wide = x.float() if x.dtype.itemsize < 4 else x
    y = wide * ((wide * wide).mean(d, keepdim=True) + epsilon).rsqrt()
    return (y.cast(x.dtype) * scale).cast(scale.dtype)


@op("LpNormalization")
def lp_normalization(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    norm = _norm(x, p, axis, True)
    return (norm == 0).where(0, x / (norm == 0).where(1, norm)).cast(x.dtype)


@op("LRN")
def lrn(x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    low = (size - 1) // 2
    around = (x * x).pad([None, (low, size - 1 - low), *[None] * (x.ndim - 2)]).unfold(1, size, 1).sum(-1)
    return x / (around * (alpha / size) + bias) ** beta


@op("MeanVarianceNormalization")
def mean_variance_normalization(x: Any, *, axes: Any = (0, 2, 3)) -> Any:
    d = x - x.mean(tuple(axes), keepdim=True)
    return d / ((d * d).mean(tuple(axes), keepdim=True).sqrt() + 1e-9)


@op("Dropout", 7)
def dropout_7(x: Any, *, ratio: float = 0.5, call: Any) -> Any:
    return (x, x.full_like(True, dtype="bool")) if call.outputs > 1 else x


@op("Dropout", 12, host=(1, 2), random=True)
def dropout(x: Any, ratio: Any = None, training: Any = None, *, seed: int | None = None, call: Any) -> Any:
    p = 0.5 if ratio is None else float(np.asarray(ratio).reshape(()))
    if training is None or not np.asarray(training).reshape(()) or p == 0:
        keep = x.full_like(True, dtype="bool")
        return (x, keep) if call.outputs > 1 else x
    keep = Tensor.rand(*x.shape) >= p
    y = keep.where(x * (1 / (1 - p)), 0).cast(x.dtype)
    return (y, keep) if call.outputs > 1 else y


__all__ = ["Window", "pads_of", "per_axis"]
