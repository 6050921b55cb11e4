"""The small programs whose stages are kept as text. Each function returns what it asks for: one tensor or several.

Sizes are small enough to read and large enough for vectors of 16 floats to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyengine import Tensor, jit, manual_seed, nn, optim

PROGRAMS: dict[str, Callable[[], Any]] = {}


def program(f: Callable[[], Any]) -> Callable[[], Any]:
    PROGRAMS[f.__name__] = f
    return f


def data(name: str, *shape: int, grad: bool = False) -> Tensor:
    """Random floats in memory that is called `name`."""
    seed = sum(map(ord, name))
    t = Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), requires_grad=grad)
    t.node.arg.name = name
    return t


def labels(name: str, n: int, classes: int) -> Tensor:
    t = Tensor((np.arange(n) * 7 % classes).astype(np.int32))
    t.node.arg.name = name
    return t


@program
def matmul_relu_sum() -> Any:
    x, w, b = data("x", 8, 24), data("w", 24, 32), data("b", 32)
    return (x @ w + b).relu().sum()


@program
def softmax() -> Any:
    x = data("x", 8, 64)
    return x.softmax(-1)


@program
def softmax_gradient() -> Any:
    x, weight = data("x", 8, 64, grad=True), data("weight", 8, 64)
    y = x.softmax(-1)
    (y * weight).sum().backward()
    return x.grad


@program
def layernorm() -> Any:
    x = data("x", 8, 64)
    return x.layernorm()


@program
def layernorm_gradient() -> Any:
    x, weight = data("x", 8, 64, grad=True), data("weight", 8, 64)
    y = x.layernorm()
    (y * weight).sum().backward()
    return x.grad


@program
def cross_entropy() -> Any:
    logits, y = data("logits", 16, 10, grad=True), labels("y", 16, 10)
    loss = logits.log_softmax(-1).nll_loss(y)
    loss.backward()
    return loss, logits.grad


@program
def conv_block() -> Any:
    image, w, b = data("image", 2, 3, 8, 8, grad=True), data("w", 4, 3, 3, 3, grad=True), data("b", 4, grad=True)
    h = image.conv2d(w, b, padding=1).relu()
    y = h.max_pool2d(2)
    y.sum().backward()
    return y, image.grad, w.grad, b.grad


@program
def batchnorm() -> Any:
    norm, x = nn.BatchNorm2d(3), data("x", 4, 3, 4, 4)
    y = norm(x)
    return y, norm.running_mean, norm.running_var


@program
def embedding() -> Any:
    table, tokens = data("table", 10, 16, grad=True), labels("tokens", 6, 10)
    rows = table[tokens]
    (rows * rows).sum().backward()
    return rows, table.grad


@program
def attention() -> Any:
    q, k, v = data("q", 2, 16, 32), data("k", 2, 16, 32), data("v", 2, 16, 32)
    scores = q @ k.transpose(-1, -2) / 32**0.5
    return scores.softmax(-1) @ v


@program
def adam() -> Any:
    w, g = data("w", 4, 32, grad=True), data("g", 4, 32)
    optimizer = optim.Adam([w], lr=0.01)
    memory = {"m": optimizer.m[0], "v": optimizer.v[0], **optimizer.param_groups[0].memory, "lr": optimizer.param_groups[0].rate}
    for name, state in memory.items():
        state.node.arg.name = name

    @jit
    def step() -> None:
        w.grad = g
        optimizer.step()

    return step


@program
def views() -> Any:
    x = data("x", 4, 6)
    y = x.permute(1, 0).reshape(3, 8)
    return y.pad((1, 1, 0, 2))[1:4, ::3].flip(0) + 1


@program
def argmax() -> Any:
    x = data("x", 5, 20)
    return x.argmax(-1)


@program
def dropout() -> Any:
    manual_seed(0)
    x = data("x", 4, 32)
    return x.dropout(0.5)
