"""NumPy by hand: what a careful user writes without a framework. In float64 it is the exact result of the others' checks.

Gradients are written out, one line per derivative; temporaries are NumPy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
A, B, C, D = 1.5, 0.5, 2.0, -1.0  # of the elementwise chain
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8

INPUT = {"mlp": (64,), "cnn": (1, 8, 8)}
PARAMETERS = {
    "mlp": {"fc1.weight": (256, 64), "fc1.bias": (256,), "fc2.weight": (10, 256), "fc2.bias": (10,)},
    "cnn": {
        "conv1.weight": (16, 1, 3, 3), "conv1.bias": (16,), "conv2.weight": (32, 16, 3, 3), "conv2.bias": (32,),
        "fc.weight": (10, 128), "fc.bias": (10,),
    },
}  # fmt: skip


def chain(x: Array) -> Array:
    """gelu(x a + b) c + d, gelu by its tanh form."""
    x = x * A + B
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x))) * C + D  # type: ignore[no-any-return]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def layernorm(x: Array) -> Array:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)  # type: ignore[no-any-return]


class Network:
    """Parameters with Adam's state; `gradients` gives the loss and the gradient of each parameter, in order."""

    name = ""

    def __init__(self, inputs: Mapping[str, Array]) -> None:
        self.x, self.y = inputs["x"], inputs["y"]
        self.parameters = [np.array(inputs[p]) for p in PARAMETERS[self.name]]
        self.m = [np.zeros_like(p) for p in self.parameters]
        self.v = [np.zeros_like(p) for p in self.parameters]
        self.t = 0

    def gradients(self) -> tuple[Array, list[Array]]:
        raise NotImplementedError

    def step(self) -> Array:
        loss, gradients = self.gradients()
        self.t += 1
        c1, c2 = 1 - BETA1**self.t, 1 - BETA2**self.t
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            m += (1 - BETA1) * (g - m)
            v += (1 - BETA2) * (g * g - v)
            p -= LR / c1 * m / (np.sqrt(v / c2) + EPS)
        return loss

    def cross_entropy(self, logits: Array) -> tuple[Array, Array]:
        """(mean loss, its gradient with respect to the logits)."""
        n = len(logits)
        shifted = logits - logits.max(1, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(1, keepdims=True)
        loss = (np.log(total[:, 0]) - shifted[np.arange(n), self.y]).mean()
        d = e / total
        d[np.arange(n), self.y] -= 1
        return loss, d / n


class MLP(Network):
    name = "mlp"

    def gradients(self) -> tuple[Array, list[Array]]:
        w1, b1, w2, b2 = self.parameters
        h = np.maximum(self.x @ w1.T + b1, 0)
        loss, d = self.cross_entropy(h @ w2.T + b2)
        dh = d @ w2 * (h > 0)
        return loss, [dh.T @ self.x, dh.sum(0), d.T @ h, d.sum(0)]


class CNN(Network):
    name = "cnn"

    def gradients(self) -> tuple[Array, list[Array]]:
        w1, b1, w2, b2, w3, b3 = self.parameters
        n = len(self.x)
        columns1 = unfold(self.x)
        z1 = columns1 @ w1.reshape(16, -1).T + b1  # (n, 8, 8, 16)
        h1, route1 = max_pool(np.maximum(z1, 0))
        columns2 = unfold(h1.transpose(0, 3, 1, 2))
        z2 = columns2 @ w2.reshape(32, -1).T + b2  # (n, 4, 4, 32)
        h2, route2 = max_pool(np.maximum(z2, 0))
        flat = h2.transpose(0, 3, 1, 2).reshape(n, -1)
        loss, d = self.cross_entropy(flat @ w3.T + b3)
        dh2 = (d @ w3).reshape(n, 32, 2, 2).transpose(0, 2, 3, 1)
        dz2 = unpool(dh2, route2) * (z2 > 0)
        dh1 = fold(dz2 @ w2.reshape(32, -1), 16).transpose(0, 2, 3, 1)
        dz1 = unpool(dh1, route1) * (z1 > 0)
        dw1 = np.tensordot(dz1, columns1, ((0, 1, 2), (0, 1, 2))).reshape(w1.shape)
        dw2 = np.tensordot(dz2, columns2, ((0, 1, 2), (0, 1, 2))).reshape(w2.shape)
        return loss, [dw1, dz1.sum((0, 1, 2)), dw2, dz2.sum((0, 1, 2)), d.T @ flat, d.sum(0)]


def unfold(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C * 9): the 3×3 neighbourhood of each pixel, zeros outside (im2col)."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def fold(columns: Array, c: int) -> Array:
    """The adjoint of `unfold`: (N, H, W, C * 9) -> (N, C, H, W)."""
    n, h, w, _ = columns.shape
    columns = columns.reshape(n, h, w, c, 3, 3)
    out = np.zeros((n, c, h + 2, w + 2), columns.dtype)
    for i in range(3):
        for j in range(3):
            out[:, :, i : i + h, j : j + w] += columns[..., i, j].transpose(0, 3, 1, 2)
    return out[:, :, 1:-1, 1:-1]


def max_pool(x: Array) -> tuple[Array, Array]:
    """(N, H, W, C) -> the largest of each 2×2 block, and the share of its gradient that each element gets: all of it goes to
    one of the largest, the first, as in PyTorch."""
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, c, 4)
    first = blocks.argmax(-1)
    return np.take_along_axis(blocks, first[..., None], -1)[..., 0], np.eye(4, dtype=x.dtype)[first]


def unpool(d: Array, route: Array) -> Array:
    """The adjoint of `max_pool`."""
    n, h, w, c = d.shape
    blocks = (d[..., None] * route).reshape(n, h, w, c, 2, 2)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c)


NETWORKS = {"mlp": MLP, "cnn": CNN}


def make(name: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read): call() does the work; read() gives the results of the last call as a list of arrays."""
    results: list[Any] = []
    if name in NETWORKS:
        network = NETWORKS[name](inputs)

        def step() -> None:
            results[:] = [network.step()]

        return step, lambda: [*results, *network.parameters]
    if name.startswith("matmul"):
        a, b = inputs["a"], inputs["b"]
        return (lambda: results.__setitem__(slice(None), [a @ b])), lambda: results
    f, x = {"chain": chain, "softmax": softmax, "layernorm": layernorm}[name], inputs["x"]
    return (lambda: results.__setitem__(slice(None), [f(x)])), lambda: results
