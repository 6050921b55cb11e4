"""Random tensors, by the engine's counter: the numbers are reproducible (`manual_seed`), but no other library's. A node's `seed`
is not looked at: the generator belongs to the program that runs the model."""

from __future__ import annotations

from typing import Any

from tinyengine.onnx.registry import op
from tinyengine.onnx.values import ELEMENTS
from tinyengine.tensor import Tensor


@op("RandomNormal", random=True)
def random_normal(*, shape: list[int], dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None) -> Any:
    return Tensor.normal(*shape, mean=mean, std=scale, dtype=ELEMENTS[dtype])


@op("RandomUniform", random=True)
def random_uniform(*, shape: list[int], dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None) -> Any:
    return Tensor.uniform(*shape, low=low, high=high, dtype=ELEMENTS[dtype])


@op("RandomNormalLike", random=True)
def random_normal_like(
    x: Any, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    return Tensor.normal(*x.shape, mean=mean, std=scale, dtype=x.dtype if dtype is None else ELEMENTS[dtype])


@op("RandomUniformLike", random=True)
def random_uniform_like(
    x: Any, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Any:
    return Tensor.uniform(*x.shape, low=low, high=high, dtype=x.dtype if dtype is None else ELEMENTS[dtype])


@op("Bernoulli", random=True)
def bernoulli(x: Any, *, dtype: int | None = None, seed: float | None = None) -> Any:
    return (Tensor.rand(*x.shape) < x).cast(x.dtype if dtype is None else ELEMENTS[dtype])


@op("Multinomial", random=True)
def multinomial(x: Any, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Any:
    return x.softmax(-1).multinomial(sample_size, replacement=True).cast(ELEMENTS[dtype])
