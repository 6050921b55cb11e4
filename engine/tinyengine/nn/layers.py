"""Layers with state. Names of parameters, their shapes and initial distributions are PyTorch's; initial values are drawn on the
host."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyengine.nn import functional as F
from tinyengine.nn.module import Module
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, random
from tinyengine.tensor.core import no_grad
from tinyengine.tensor.linalg import couple


def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
    """A parameter, uniform in ±bound."""
    return Tensor(random.host().uniform(-bound, bound, shape).astype(np.float32), requires_grad=True)


def filled(shape: tuple[int, ...], value: float, requires_grad: bool = True) -> Tensor:
    return Tensor(np.full(shape, value, np.float32), requires_grad=requires_grad)


class Linear(Module):
    """x @ weight.T + bias: (..., in_features) -> (..., out_features). weight (out, in), bias (out,), uniform in ±1/sqrt(in)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        if not all(hasattr(n, "__index__") and n >= 0 for n in (in_features, out_features)):
            given = f"{in_features!r}, {out_features!r}"
            raise ValueError(f"Linear: numbers of features are ints from 0 on, not {given}\n  at {user_line()}")
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
    and the running statistics move by `momentum` (None: so that they are the means of all batches) toward the batch's
    (unbiased) ones, in place; in evaluation with the running ones."""

    axes: tuple[int, ...] = ()  # of the input; others raise ValueError

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:  # fmt: skip
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = filled((num_features,), 1.0) if affine else None
        self.bias = filled((num_features,), 0.0) if affine else None
        self.running_mean = filled((num_features,), 0.0, False) if track_running_stats else None
        self.running_var = filled((num_features,), 1.0, False) if track_running_stats else None
        self.num_batches_tracked = Tensor(np.zeros((), np.int32)) if track_running_stats else None

    def forward(self, x: Tensor) -> Tensor:
        if self.axes and x.ndim not in self.axes:
            given = " or ".join(map(str, self.axes))
            raise ValueError(f"{type(self).__name__} takes {given} axes, got shape {list(x.shape)}\n  at {user_line()}")
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise RuntimeError(f"{self!r} takes (N, {self.num_features}, ...), got shape {list(x.shape)}\n  at {user_line()}")
        momentum: Any = self.momentum
        if self.training and self.num_batches_tracked is not None:
            with no_grad():
                count = self.num_batches_tracked + 1
                self.num_batches_tracked.assign(count)
                momentum = 1 / count.float() if momentum is None else momentum
        training = self.training or self.running_mean is None
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(BatchNorm):
    """BatchNorm of (N, C) or (N, C, L)."""

    axes = (2, 3)


class BatchNorm2d(BatchNorm):
    """BatchNorm of (N, C, H, W)."""

    axes = (4,)


class BatchNorm3d(BatchNorm):
    """BatchNorm of (N, C, D, H, W)."""

    axes = (5,)


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose shape is `normalized_shape`."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = filled(self.normalized_shape, 1.0) if elementwise_affine else None
        self.bias = filled(self.normalized_shape, 0.0) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(Module):
    """The same over each of `num_groups` groups of channels, with one weight and bias per channel."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        if num_channels % num_groups:
            raise ValueError(f"{num_channels} channels do not divide into {num_groups} groups\n  at {user_line()}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = filled((num_channels,), 1.0) if affine else None
        self.bias = filled((num_channels,), 0.0) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axes (Zhang and Sennrich 2019); eps None: the dtype's, as in PyTorch."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True) -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = filled(self.normalized_shape, 1.0) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class Embedding(Module):
    """Rows of weight (num_embeddings, embedding_dim), normal with variance 1: ints of shape S -> floats of shape S +
    (embedding_dim,). The row `padding_idx` starts as zeros and gets no gradient."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise AssertionError(f"padding_idx {padding_idx} is no row of {num_embeddings}\n  at {user_line()}")
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        values = random.host().standard_normal((num_embeddings, embedding_dim), np.float32)
        if self.padding_idx is not None:
            values[self.padding_idx] = 0
        self.weight = Tensor(values, requires_grad=True)

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class EmbeddingBag(Module):
    """`functional.embedding_bag` of weight (num_embeddings, embedding_dim), normal with variance 1; the row `padding_idx` starts
    as zeros."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, mode: str = "mean", include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> None:  # fmt: skip
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"EmbeddingBag: mode is 'sum', 'mean' or 'max', not {mode!r}\n  at {user_line()}")
        rows = Embedding(num_embeddings, embedding_dim, padding_idx)
        self.weight, self.padding_idx = rows.weight, rows.padding_idx
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, mode=self.mode, per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset, padding_idx=self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, mode={self.mode!r}"


class Dropout(Module):
    """In training each element is 0 with probability p, else divided by 1 - p. `inplace` changes nothing."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p is a probability, not {p}\n  at {user_line()}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.dropout(self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout2d(Dropout):
    """The same of whole channels of (N, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout2d(x, self.p, self.training)


class PReLU(Module):
    """x where x > 0, else weight * x (He et al. 2015). weight (num_parameters,), one or one for each channel, at first `init`."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.weight = filled((num_parameters,), init)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.weight.shape[0]}"


class Sequential(Module):
    """Layers (or plain functions) one after the other; they are called '0', '1', ... as in PyTorch."""

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        self.layers = list(layers[0]) if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else list(layers)

    def forward(self, x: Tensor) -> Tensor:
        return x.sequential(self.layers)

    def named_children(self) -> list[tuple[str, Module]]:
        return [(str(i), m) for i, m in enumerate(self.layers) if isinstance(m, Module)]

    def __getitem__(self, i: int) -> Callable[[Any], Any]:
        return self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Any:
        return iter(self.layers)


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` become one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(self.start_dim, self.end_dim)


class Unflatten(Module):
    """The axis `dim` becomes several of the extents `unflattened_size`, of which one may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        if not isinstance(dim, int) or not isinstance(unflattened_size, (tuple, list)):
            given = f"{dim!r}, {unflattened_size!r}"
            raise TypeError(f"Unflatten takes an axis and a tuple of extents, not {given}\n  at {user_line()}")
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


__all__ = [
    "BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d", "Dropout", "Dropout2d", "Embedding",
    "EmbeddingBag", "Flatten", "GroupNorm", "LayerNorm", "Linear", "PReLU", "RMSNorm", "Sequential", "Unflatten",
]  # fmt: skip
