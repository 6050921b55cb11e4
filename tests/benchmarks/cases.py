"""What is measured: names, inputs, the exact result in float64, and the least work that any engine must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks import by_hand

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

BATCH = 128
STEPS = ("mlp", "cnn")


@dataclass(frozen=True)
class Case:
    """`flops`: of the matrix products alone, or 0; `nbytes`: inputs read once and results written once."""

    name: str
    title: str
    inputs: Callable[[], Arrays]
    exact: Callable[[Arrays], list[Array]]
    flops: int = 0
    nbytes: int = 0
    tolerance: float = 1e-4  # relative to the largest element of each result


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def wide(inputs: Arrays) -> Arrays:
    return {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}


def matmul(n: int) -> Case:
    return Case(
        f"matmul_{n}", f"matrix product {n}×{n}×{n}", lambda: {"a": random(n, n), "b": random(n, n, seed=1)},
        lambda x: [wide(x)["a"] @ wide(x)["b"]], flops=2 * n**3, nbytes=3 * n * n * 4,
    )  # fmt: skip


def chain(n: int) -> Case:
    return Case(
        "chain", f"gelu(x·a + b)·c + d, {n:,} elements", lambda: {"x": random(n)},
        lambda x: [by_hand.chain(x["x"].astype(np.float64))], nbytes=2 * n * 4,
    )  # fmt: skip


def rows(name: str, title: str, m: int, n: int) -> Case:
    return Case(
        name, f"{title}, {m}×{n}", lambda: {"x": random(m, n)}, lambda x: [getattr(by_hand, name)(x["x"].astype(np.float64))],
        nbytes=2 * m * n * 4,
    )  # fmt: skip


def digits(name: str) -> Arrays:
    """A batch of scikit-learn's digits and initial parameters: weights uniform in ±1/sqrt(fan in)."""
    from tinyengine import data

    x, y, _, _ = data.digits()
    out = {"x": x[:BATCH].reshape(-1, *by_hand.INPUT[name]), "y": y[:BATCH]}
    rng = np.random.default_rng(0)
    for parameter, shape in by_hand.PARAMETERS[name].items():
        fan_in = np.prod(by_hand.PARAMETERS[name][parameter.replace("bias", "weight")][1:])
        out[parameter] = rng.uniform(-1, 1, shape).astype(np.float32) / np.sqrt(fan_in, dtype=np.float32)
    return out


def step(name: str, title: str) -> Case:
    """One training step with Adam. Its result: the loss, then every parameter after the step."""

    def exact(x: Arrays) -> list[Array]:
        network = by_hand.NETWORKS[name](wide(x))
        return [network.step(), *network.parameters]

    # forward, weights, inputs; the first layer needs no gradient of its inputs
    products = {"mlp": 2 * 64 * 256 + 3 * 256 * 10, "cnn": 2 * 64 * 9 * 16 + 3 * 16 * 9 * 16 * 32 + 3 * 128 * 10}
    # Adam divides by the root of g²: where g is a rounding error, a step of the learning rate may go either way
    return Case(name, title, lambda: digits(name), exact, flops=2 * BATCH * products[name], tolerance=5e-3)


FULL = [
    step("mlp", "training step, MLP 64-256-10, batch 128, Adam"),
    step("cnn", "training step, CNN 2×(conv 3×3, ReLU, pool), batch 128, Adam"),
    matmul(512), matmul(1024), chain(1_000_000),
    rows("softmax", "softmax of rows", 8192, 1024), rows("layernorm", "layer norm of rows", 8192, 1024),
]  # fmt: skip
QUICK = [
    FULL[0], FULL[1], matmul(64), chain(10_000),
    rows("softmax", "softmax of rows", 64, 96), rows("layernorm", "layer norm of rows", 64, 96),
]  # fmt: skip


def check(case: Case, inputs: Arrays, got: list[Any]) -> float:
    """The largest error of a result, relative to its largest element. Raises ValueError when it is too large."""
    exact = case.exact(inputs)
    if len(got) != len(exact):
        raise ValueError(f"{case.name}: {len(got)} results, expected {len(exact)}")
    worst = 0.0
    for g, e in zip(got, exact, strict=True):
        g = np.asarray(g, np.float64)
        if g.shape != np.shape(e):
            raise ValueError(f"{case.name}: shape {g.shape}, expected {np.shape(e)}")
        error = float(np.max(np.abs(g - e), initial=0.0) / max(np.max(np.abs(e), initial=0.0), 1e-30))
        if not error <= case.tolerance:
            raise ValueError(f"{case.name}: relative error {error:.2g}, allowed {case.tolerance:.2g}")
        worst = max(worst, error)
    return worst
