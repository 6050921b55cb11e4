"""What is measured: names, inputs, the least work that any engine must do, and how close to it this engine wants to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.by_hand_networks import LETTERS, NETWORKS, PARAMETERS, TIME, initial

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """`work`: which function of a peer's module does it. `flops`: of the matrix products alone, or 0; `nbytes`: inputs read once
    and results written once, of which `written` are results. `reach`: times the limit or, where `absolute`, seconds."""

    name: str
    title: str
    work: str
    inputs: Callable[[], Arrays]
    reach: float
    flops: int = 0
    nbytes: int = 0
    written: int = 0
    absolute: bool = False

    @property
    def network(self) -> bool:
        return self.work in NETWORKS


def random(*shape: int, seed: int = 0) -> Array:
    """Uniform in [-2, 2)."""
    return np.random.default_rng(seed).random(shape, np.float32) * np.float32(4) - np.float32(2)


def moving(name: str, title: str, work: str, shape: tuple[int, ...], reach: float, absolute: bool = False) -> Case:
    """A function of one array; only `sum` and does not return as much."""
    size = int(np.prod(shape)) * 4
    out = 0 if work == "sum" else size

    def inputs() -> Arrays:
        x = random(*shape)
        return {"x": abs(x) if work == "sum" else x}  # a sum far from 0, so that its relative error means something

    return Case(name, title, work, inputs, reach, 0, size + out, out, absolute)


def matmul(name: str, title: str, a: tuple[int, ...], b: tuple[int, ...], reach: float) -> Case:
    batch = int(np.prod(a[:-2]))
    m, k, n = a[-2], a[-1], b[-1]
    return Case(
        name, title, "matmul", lambda: {"a": random(*a), "b": random(*b, seed=1)}, reach,
        2 * batch * m * k * n, 4 * batch * (m * k + k * n + m * n), 4 * batch * m * n,
    )  # fmt: skip


def square(n: int, reach: float) -> Case:
    return matmul(f"matmul_{n}", f"matrix product, {n} cubed", (n, n), (n, n), reach)


def conv(name: str, batch: int, c: int, size: int, o: int, reach: float) -> Case:
    """3×3, zeros around."""
    title = f"convolution 3×3, {batch}×{c}×{size}² to {o} channels"
    inputs = batch * c * size * size + o * c * 9
    return Case(
        name, title, "conv", lambda: {"x": random(batch, c, size, size), "w": random(o, c, 3, 3, seed=1)}, reach,
        2 * batch * size * size * c * 9 * o, 4 * (inputs + batch * o * size * size), 4 * batch * o * size * size,
    )  # fmt: skip


def attention(name: str, shape: tuple[int, int, int, int], reach: float) -> Case:
    n, h, t, d = shape
    title = f"attention, {n}×{h}×{t}×{d} (batch, heads, time, width)"
    size = 4 * n * h * t * d
    return Case(
        name, title, "attention", lambda: {k: random(*shape, seed=i) for i, k in enumerate("qkv")}, reach,
        4 * n * h * t * t * d, 4 * size, size,
    )  # fmt: skip


def products(name: str) -> int:
    """FLOPs of the matrix products of a training step, per sample: forward, weights and inputs; the first layer needs no
    gradient of its inputs."""
    if name == "mlp":
        return 2 * (2 * 784 * 512 + 3 * 512 * 10)
    if name == "cnn":
        first, others = 24**2 * 25 * 32, 20**2 * 25 * 32 * 32 + 8**2 * 9 * 32 * 64 + 6**2 * 9 * 64 * 64 + 576 * 10
        return 2 * (2 * first + 3 * others)
    tables = ("letters.weight", "places.weight")
    weights = sum(int(np.prod(s)) for k, s in PARAMETERS["gpt"].items() if len(s) == 2 and k not in tables)
    return 3 * TIME * (2 * weights + 4 * 4 * TIME * 128)  # per layer: scores and their product with the values


def batch_of(name: str, batch: int) -> Arrays:
    """Inputs and labels of a training step."""
    rng = np.random.default_rng(0)
    if name == "gpt":
        text = rng.integers(0, LETTERS, (batch, TIME + 1)).astype(np.int32)
        return {"x": text[:, :-1].copy(), "y": text[:, 1:].reshape(-1).copy()}
    shape = {"mlp": (784,), "cnn": (1, 28, 28)}[name]
    return {"x": rng.standard_normal((batch, *shape), np.float32), "y": rng.integers(0, 10, batch).astype(np.int32)}


STEPS = {
    "mlp": ("MLP 784-512-10, batch 128, SGD", 128, 1.4), "cnn": ("MNIST CNN, batch 128, Adam", 128, 1.4),
    "gpt": ("GPT of 4 layers, width 128, 64 positions, batch 16, Adam", 16, 2.0),
}  # fmt: skip


def step(name: str, batch: int | None = None) -> Case:
    title, full, reach = STEPS[name]
    size = batch or full
    inputs: Callable[[], Arrays] = lambda: {**batch_of(name, size), **initial(name)}  # noqa: E731
    return Case(name, f"training step, {title}", name, inputs, reach, size * products(name))


FULL = [
    moving("chain_64M", "gelu(x·a + b)·c + d, 64M floats", "chain", (64 * MIB,), 1.4),
    moving("chain_1M", "gelu(x·a + b)·c + d, 1M floats", "chain", (MIB,), 2.5),
    moving("chain_1k", "gelu(x·a + b)·c + d, 1k floats: one call", "chain", (1000,), 3e-6, absolute=True),
    moving("sum_64M", "sum of 64M floats", "sum", (64 * MIB,), 1.02),
    moving("softmax", "softmax of rows, 8192×1024", "softmax", (8192, 1024), 2.0),
    moving("layernorm", "layer norm of rows, 8192×1024", "layernorm", (8192, 1024), 1.8),
    square(512, 1.08), square(1024, 1.08), square(2048, 1.08),
    matmul("matmul_small", "matrix product, (64×784)·(784×128)", (64, 784), (784, 128), 1.8),
    matmul("matmul_batched", "64 matrix products, (128×64)·(64×128)", (64, 128, 64), (64, 64, 128), 1.4),
    matmul("matvec", "matrix times vector, 4096", (4096, 4096), (4096, 1), 1.05),
    conv("conv_3", 32, 3, 64, 32, 1.8), conv("conv_32", 32, 32, 32, 64, 1.2),
    attention("attention", (4, 8, 256, 64), 1.8),
    *map(step, STEPS),
]  # fmt: skip
QUICK = [
    moving("chain_64M", "gelu(x·a + b)·c + d, 10k floats", "chain", (10_000,), 1.4),
    moving("chain_1k", "gelu(x·a + b)·c + d, 1k floats: one call", "chain", (1000,), 3e-6, absolute=True),
    moving("sum_64M", "sum of 10k floats", "sum", (10_000,), 1.02),
    moving("softmax", "softmax of rows, 64×96", "softmax", (64, 96), 2.0),
    moving("layernorm", "layer norm of rows, 64×96", "layernorm", (64, 96), 1.8),
    square(64, 1.08), matmul("matmul_batched", "4 matrix products, (8×6)·(6×10)", (4, 8, 6), (4, 6, 10), 1.4),
    matmul("matvec", "matrix times vector, 100", (100, 100), (100, 1), 1.05),
    conv("conv_3", 2, 3, 8, 4, 1.8), attention("attention", (1, 2, 16, 8), 1.8),
    step("mlp", 8), step("cnn", 4), step("gpt", 1),
]  # fmt: skip
