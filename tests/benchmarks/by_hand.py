"""NumPy by hand: what a careful user writes without a framework. In float64 it is the exact result of the others' checks.

Every work is a function of arrays; `tests.benchmarks.by_hand_networks` has the training steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
A, B, C, D = 1.5, 0.5, 2.0, -1.0  # of the elementwise chain


def gelu(x: Array) -> Array:
    """By its tanh form."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))  # type: ignore[no-any-return]


def chain(x: Array) -> Array:
    return gelu(x * A + B) * C + D


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def layernorm(x: Array) -> Array:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)  # type: ignore[no-any-return]


def attention(q: Array, k: Array, v: Array) -> Array:
    """(batch, heads, time, width): softmax(q kᵀ / √width) v."""
    return softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v  # type: ignore[no-any-return]


def conv(x: Array, w: Array) -> Array:
    """3×3, zeros around: (N, C, H, W), (O, C, 3, 3) -> (N, O, H, W)."""
    columns = unfold(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), 3)
    return (columns @ w.reshape(len(w), -1).T).transpose(0, 3, 1, 2)  # type: ignore[no-any-return]


def unfold(x: Array, k: int) -> Array:
    """(N, C, H, W) -> (N, H-k+1, W-k+1, C k k): the k×k neighbourhoods (im2col)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))
    n, c, h, w, _, _ = windows.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * k * k)


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "chain": chain, "sum": np.sum, "softmax": softmax, "layernorm": layernorm, "matmul": np.matmul, "conv": conv,
    "attention": attention,
}  # fmt: skip


def make(work: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read): call() does the work, and what it returns need not be kept; read() gives results as a list of arrays, of a
    network those of the last call."""
    results: list[Any] = []
    if work in FUNCTIONS:
        f, arguments = FUNCTIONS[work], [np.array(a) for a in inputs.values()]
        return functools.partial(f, *arguments), lambda: [f(*arguments)]
    from tests.benchmarks.by_hand_networks import NETWORKS

    network = NETWORKS[work](inputs)
    return (lambda: results.__setitem__(slice(None), [network.step()])), lambda: [*results, *network.parameters.values()]
