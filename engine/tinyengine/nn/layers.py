"""Layers with state. Names of parameters, their shapes and initial distributions are PyTorch's; initial values are drawn on the
host."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyengine.nn.module import Module
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, random
from tinyengine.tensor.core import no_grad
from tinyengine.tensor.linalg import couple


def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
    """A parameter, uniform in ±bound."""
    return Tensor(random.host().uniform(-bound, bound, shape).astype(np.float32), requires_grad=True)


def normal(shape: tuple[int, ...]) -> Tensor:
    return Tensor(random.host().standard_normal(shape, np.float32), requires_grad=True)


def filled(shape: tuple[int, ...], value: float, requires_grad: bool = True) -> Tensor:
    return Tensor(np.full(shape, value, np.float32), requires_grad=requires_grad)


class Linear(Module):
    """x @ weight.T + bias: (..., in_features) -> (..., out_features). weight (out, in), bias (out,), uniform in ±1/sqrt(in)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = uniform((out_features, in_features), bound)
        self.bias = uniform((out_features,), bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if not x.ndim or x.shape[-1] != self.weight.shape[1]:
            raise RuntimeError(f"{self!r} takes (..., {self.weight.shape[1]}), got shape {list(x.shape)}\n  at {user_line()}")
        return x.linear(self.weight, self.bias)

    def extra_repr(self) -> str:
        out, n = self.weight.shape
        return f"in_features={n}, out_features={out}, bias={self.bias is not None}"


class Conv2d(Module):
    """Cross-correlation (N, in, H, W) -> (N, out, OH, OW). weight (out, in / groups, KH, KW); weight and bias uniform in
    ±1/sqrt(in / groups * KH * KW). stride, padding ('same', 'valid'), dilation, groups as in PyTorch."""

    axes = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, bias: bool = True,
    ) -> None:  # fmt: skip
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels must divide into {groups} groups\n  at {user_line()}")
        k = couple(kernel_size, self.axes, "kernel_size")
        self.kernel_size, self.stride, self.padding, self.dilation, self.groups = k, stride, padding, dilation, groups
        bound = 1 / math.sqrt(in_channels // groups * math.prod(k))
        self.weight = uniform((out_channels, in_channels // groups, *k), bound)
        self.bias = uniform((out_channels,), bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x.conv2d(self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        out, per_group = self.weight.shape[:2]
        return f"{per_group * self.groups}, {out}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class Conv1d(Conv2d):
    """The same over one axis: (N, in, L) -> (N, out, OL)."""

    axes = 1


class BatchNorm(Module):
    """Per channel (axis 1): (x - mean) / sqrt(var + eps) * weight + bias. In training with the batch's mean and biased variance,
    and the running statistics move by `momentum` toward the batch's (unbiased) ones, in place; in evaluation with the running
    ones."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        self.eps, self.momentum = eps, momentum
        self.weight = filled((num_features,), 1.0) if affine else None
        self.bias = filled((num_features,), 0.0) if affine else None
        self.running_mean = filled((num_features,), 0.0, False) if track_running_stats else None
        self.running_var = filled((num_features,), 1.0, False) if track_running_stats else None
        self.num_batches_tracked = Tensor(np.zeros((), np.int32)) if track_running_stats else None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return x.batchnorm(self.weight, self.bias, self.running_mean, (self.running_var + self.eps).rsqrt())
        axes = (0, *range(2, x.ndim))
        count = math.prod(x.shape[a] for a in axes)
        if count < 2 and self.training:
            raise ValueError(
                f"batch norm in training needs more than one value per channel, got shape {list(x.shape)}\n  at {user_line()}"
            )
        mean = x.mean(axes)
        d = x - mean.reshape([-1 if a == 1 else 1 for a in range(x.ndim)])
        var = (d * d).mean(axes)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with no_grad():
                m = self.momentum
                self.running_mean.assign(self.running_mean * (1 - m) + mean * m)
                self.running_var.assign(self.running_var * (1 - m) + var * (m * count / (count - 1)))
                self.num_batches_tracked.assign(self.num_batches_tracked + 1)
        return x.batchnorm(self.weight, self.bias, mean, (var + self.eps).rsqrt())


BatchNorm1d = BatchNorm2d = BatchNorm3d = BatchNorm


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose shape is `normalized_shape`."""

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = filled(self.normalized_shape, 1.0) if elementwise_affine else None
        self.bias = filled(self.normalized_shape, 0.0) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        k = len(self.normalized_shape)
        if x.shape[x.ndim - k :] != self.normalized_shape:
            raise RuntimeError(f"layer norm over {list(self.normalized_shape)} got shape {list(x.shape)}\n  at {user_line()}")
        y = x.layernorm(tuple(range(-k, 0)), self.eps)
        return y if self.weight is None or self.bias is None else y * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(Module):
    """The same over each of `num_groups` groups of channels, with one weight and bias per channel."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        if num_channels % num_groups:
            raise ValueError(f"{num_channels} channels do not divide into {num_groups} groups\n  at {user_line()}")
        self.num_groups, self.eps = num_groups, eps
        self.weight = filled((num_channels,), 1.0) if affine else None
        self.bias = filled((num_channels,), 0.0) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(x.shape[0], self.num_groups, -1).layernorm(-1, self.eps).reshape(x.shape)
        shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
        return y if self.weight is None or self.bias is None else y * self.weight.reshape(shape) + self.bias.reshape(shape)


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        self.eps, self.weight = eps, filled((dim,), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * ((x * x).mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


class Embedding(Module):
    """Rows of weight (num_embeddings, embedding_dim), normal with variance 1: ints of shape S -> floats of shape S +
    (embedding_dim,)."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = normal((num_embeddings, embedding_dim))

    def forward(self, index: Tensor) -> Tensor:
        if not index.dtype.is_int:
            raise RuntimeError(f"an embedding is indexed by ints, not {index.dtype}\n  at {user_line()}")
        return self.weight.take(index.flatten(), 0).reshape((*index.shape, self.weight.shape[1]))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class Dropout(Module):
    """In training each element is 0 with probability p, else divided by 1 - p."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p is a probability, not {p}\n  at {user_line()}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.dropout(self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Sequential(Module):
    """Layers (or plain functions) one after the other; they are called '0', '1', ... as in PyTorch."""

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        self.layers = list(layers[0]) if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else list(layers)

    def forward(self, x: Tensor) -> Tensor:
        return x.sequential(self.layers)

    def children(self) -> list[tuple[str, Module]]:
        return [(str(i), m) for i, m in enumerate(self.layers) if isinstance(m, Module)]

    def __getitem__(self, i: int) -> Callable[[Any], Any]:
        return self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Any:
        return iter(self.layers)


def _activation(name: str, doc: str) -> type[Module]:
    def forward(self: Module, x: Tensor) -> Any:
        return getattr(x, name)()

    return type(doc, (Module,), {"forward": forward, "__doc__": f"`x.{name}()` as a layer.", "__module__": __name__})


ReLU, GELU, Tanh, Sigmoid, SiLU = (
    _activation(n, d) for n, d in (("relu", "ReLU"), ("gelu", "GELU"), ("tanh", "Tanh"), ("sigmoid", "Sigmoid"), ("silu", "SiLU"))
)


class Flatten(Module):
    """All axes but the first become one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class MaxPool2d(Module):
    """`x.max_pool2d` as a layer."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x.max_pool2d(self.kernel_size, self.stride, self.padding)
        return out


__all__ = [
    "GELU", "BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d", "Dropout", "Embedding", "Flatten",
    "GroupNorm", "LayerNorm", "Linear", "MaxPool2d", "RMSNorm", "ReLU", "Sequential", "SiLU", "Sigmoid", "Tanh",
]  # fmt: skip
