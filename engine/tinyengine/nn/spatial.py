"""Layers over space: convolutions of three axes, transposed convolutions, and normalisation of each picture or place."""

from __future__ import annotations

import math
from typing import Any

from tinyengine.nn import functional as F
from tinyengine.nn.layers import Conv2d, filled, uniform
from tinyengine.nn.module import Module
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor
from tinyengine.tensor.linalg import couple


class Conv3d(Conv2d):
    """The same over three axes: (N, in, D, H, W)."""

    axes = 3


class ConvTranspose2d(Module):
    """The adjoint of Conv2d: (N, in, H, W) -> (N, out, OH, OW), OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) +
    output_padding + 1. weight (in, out / groups, KH, KW); weight and bias uniform in ±1/sqrt(out / groups * KH * KW)."""

    axes = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
        groups: int = 1, bias: bool = True, dilation: Any = 1,
    ) -> None:  # fmt: skip
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels must divide into {groups} groups\n  at {user_line()}")
        k = couple(kernel_size, self.axes, "kernel_size")
        self.kernel_size, self.stride, self.padding, self.output_padding = k, stride, padding, output_padding
        self.groups, self.dilation = groups, dilation
        bound = 1 / math.sqrt(out_channels // groups * math.prod(k))
        self.weight = uniform((in_channels, out_channels // groups, *k), bound)
        self.bias = uniform((out_channels,), bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x.conv_transpose2d(
            self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def extra_repr(self) -> str:
        n, out = self.weight.shape[:2]
        return f"{n}, {out * self.groups}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class ConvTranspose1d(ConvTranspose2d):
    """The same over one axis: (N, in, L) -> (N, out, OL)."""

    axes = 1


class InstanceNorm(Module):
    """(x - mean) / sqrt(var + eps) over the space of each channel of each element of the batch; then, if `affine`, one weight and
    bias per channel. Statistics are those of the input, in evaluation too; track_running_stats raises NotImplementedError."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False, track_running_stats: bool = False
    ) -> None:
        if track_running_stats:
            raise NotImplementedError(
                f"instance norm keeps no running statistics; use BatchNorm or GroupNorm\n  at {user_line()}"
            )
        self.num_features, self.eps = num_features, eps
        self.weight = filled((num_features,), 1.0) if affine else None
        self.bias = filled((num_features,), 0.0) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or (self.weight is not None and x.shape[1] != self.num_features):
            raise ValueError(f"{self!r} takes (N, {self.num_features}, space...), got shape {list(x.shape)}\n  at {user_line()}")
        if math.prod(x.shape[2:]) == 1 and self.training:
            raise ValueError(
                f"instance norm needs more than one value per channel, got shape {list(x.shape)}\n  at {user_line()}"
            )
        return F.instance_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"


InstanceNorm1d = InstanceNorm2d = InstanceNorm3d = InstanceNorm


class LayerNorm2d(Module):
    """LayerNorm over the channels of each place: (N, C, H, W), weight and bias (C,)."""

    def __init__(self, num_channels: int, eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        self.num_channels, self.eps = num_channels, eps
        self.weight = filled((num_channels,), 1.0) if elementwise_affine else None
        self.bias = filled((num_channels,), 0.0) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.num_channels:
            raise RuntimeError(f"{self!r} takes (N, {self.num_channels}, H, W), got shape {list(x.shape)}\n  at {user_line()}")
        y = x.layernorm(1, self.eps)
        if self.weight is None or self.bias is None:
            return y
        return y * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}"


__all__ = [
    "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "InstanceNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LayerNorm2d",
]  # fmt: skip
