"""Fourier transforms and mel filters. A transform is a product with a matrix that is known; a complex number is a last axis of
two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyengine.onnx.cast import cast
from tinyengine.onnx.movement import axis_of
from tinyengine.onnx.registry import ALL, op
from tinyengine.onnx.values import Array
from tinyengine.tensor import Tensor


def _number(a: Any) -> int:
    return int(np.asarray(a).reshape(()))


def _turns(rows: Array, columns: Array, n: int) -> tuple[Any, Any]:
    """(cosines, sines) of 2 pi r c / n; the product is taken modulo n first, so that the angle is precise."""
    angle = 2 * math.pi * (np.outer(rows, columns) % n) / n
    return np.cos(angle), np.sin(angle)


def _fitted(x: Any, d: int, n: int) -> Any:
    """Cut, or filled with zeros, to n elements."""
    return x.pad([(0, n - x.shape[d]) if k == d else None for k in range(x.ndim)])


def dft(x: Any, n: int | None, axis: int, inverse: bool, onesided: bool) -> Any:
    """(..., 1 or 2) -> (..., 2), or (..., 1) where a onesided spectrum is turned back."""
    d = axis_of(axis, x.ndim)
    if n is None:
        n = 2 * (x.shape[d] - 1) if inverse and onesided else x.shape[d]
    bins = n // 2 + 1
    x = _fitted(x, d, min(x.shape[d], bins) if inverse and onesided else n)
    real = x[..., 0].transpose(d, -1)
    imaginary = x[..., 1].transpose(d, -1) if x.shape[-1] == 2 else None
    used = real.shape[-1]
    into = np.arange(bins if onesided and not inverse else n)
    cos, sin = _turns(np.arange(used), into, n)
    if inverse and onesided:  # the other half is the conjugate of this one
        weight = np.where((np.arange(used) == 0) | (2 * np.arange(used) == n), 1.0, 2.0)[:, None] / n
        c, s = (Tensor((m * weight).astype(np.float32)).cast(x.dtype) for m in (cos, sin))
        y = real.matmul(c)
        y = y if imaginary is None else y - imaginary.matmul(s)
        return y.transpose(d, -1).unsqueeze(-1)
    sign = 1.0 if inverse else -1.0
    scale = 1 / n if inverse else 1.0
    wide = np.float64 if x.dtype.itemsize == 8 else np.float32
    c, s = (Tensor(np.asarray(m * scale, wide)).cast(x.dtype) for m in (cos, sin * sign))
    re, im = real.matmul(c), real.matmul(s)
    if imaginary is not None:
        re, im = re - imaginary.matmul(s), im + imaginary.matmul(c)
    return Tensor.stack([re.transpose(d, -1), im.transpose(d, -1)], dim=-1)


@op("DFT", 17, host=(1,))
def dft_17(x: Any, length: Any = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Any:
    return dft(x, None if length is None else _number(length), axis, bool(inverse), bool(onesided))


@op("DFT", 20, host=(1, 2))
def dft_20(x: Any, length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    where = -2 if axis is None else _number(axis)
    return dft(x, None if length is None else _number(length), where, bool(inverse), bool(onesided))


@op("STFT", 17, host=(1, 3))
def stft(x: Any, step: Any, window: Any = None, length: Any = None, *, onesided: int = 1) -> Any:
    n = _number(length) if length is not None else x.shape[1] if window is None else window.shape[0]
    frames = x.unfold(1, n, _number(step)).transpose(-2, -1)  # (batch, frames, n, 1 or 2)
    if window is not None:
        frames = frames * window.reshape(1, 1, -1, 1)
    return dft(frames, n, 2, False, bool(onesided))


@op("MelWeightMatrix", 17, host=ALL)
def mel_weight_matrix(bands: Any, length: Any, rate: Any, low: Any, high: Any, *, output_datatype: int = 1) -> Any:
    """Triangles between neighbouring bins that lie evenly on the mel scale, 2595 log10(1 + f / 700)."""
    n, size = _number(bands), _number(length)
    first, last = (2595 * math.log10(1 + float(np.asarray(f).reshape(())) / 700) for f in (low, high))
    mel = first + np.arange(n + 2) * ((last - first) / (n + 2))
    bins = ((size + 1) * 700 * (10 ** (mel / 2595) - 1) // _number(rate)).astype(int)
    out = np.zeros((size // 2 + 1, n), np.float32)
    for i, (a, b, c) in enumerate(zip(bins, bins[1:], bins[2:], strict=False)):
        up, down = np.arange(a, b + 1), np.arange(b, c)
        out[up, i] = (up - a) / (b - a) if b > a else 1.0
        out[down, i] = (c - down) / (c - b) if c > b else 0.0
    return cast(out, output_datatype)
