"""Comparing the front end with PyTorch: the same function on the same data, values by the graph evaluator, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor
from tinyengine.backends.graph_eval import evaluate
from tinyengine.stages import record

torch = pytest.importorskip("torch")

F = torch.nn.functional


def value(t: Tensor) -> np.ndarray[Any, Any]:
    """What the graph under `t` means, by NumPy; its record spec is checked on the way. The tensor stays lazy."""
    return evaluate(record.run([t.node]))[0]


def draw(shape: tuple[int, ...], low: float, high: float, seed: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        return rng.integers(int(low), int(high) + 1, shape).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)


@dataclass(frozen=True)
class Case:
    """`ours` and `theirs` take the tensors made of `arrays`; `low`, `high`: the range of the data."""

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    low: float = -2.0
    high: float = 2.0
    gradient: bool = True
    atol: float = 2e-6
    rtol: float = 2e-5


def same(ours: Tensor, theirs: Any, atol: float, rtol: float, what: str) -> None:
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape, what
    name = {"int64": "int32"}.get(str(expected.dtype), str(expected.dtype))
    assert ours.dtype.name == name, what
    np.testing.assert_allclose(value(ours), expected, atol=atol, rtol=rtol, err_msg=what)


def compare(case: Case, *arrays: np.ndarray[Any, Any]) -> None:
    """Values, and the gradients of a weighted sum with respect to all operands."""
    xs = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    ts = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y, z = case.ours(*xs), case.theirs(*ts)
    same(y, z, case.atol, case.rtol, case.name)
    if not case.gradient or not z.requires_grad:
        return
    weights = draw(tuple(z.shape), -1, 1, 77)
    (y * Tensor(weights)).sum().backward()
    (z * torch.tensor(weights)).sum().backward()
    for i, (x, t) in enumerate(zip(xs, ts, strict=True)):
        if t.grad is None:
            assert x.grad is None or not value(x.grad).any(), f"{case.name}: operand {i}"
        else:
            assert x.grad is not None, f"{case.name}: operand {i} has no gradient"
            same(x.grad, t.grad, 10 * case.atol, 10 * case.rtol, f"gradient of {case.name} by operand {i}")
