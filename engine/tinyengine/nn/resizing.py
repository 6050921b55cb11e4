"""Layers that give pictures and sequences another size; they have no parameters. Arguments are PyTorch's."""

from __future__ import annotations

from typing import Any

from tinyengine.nn import functional as F
from tinyengine.nn.module import Module
from tinyengine.tensor import Tensor
from tinyengine.tensor.linalg import couple


class Upsample(Module):
    """`x.interpolate` as a layer: (N, C, ...) with spatial axes of extents `size`, or each times `scale_factor`."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, x: Tensor) -> Tensor:
        return x.interpolate(self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{given}, mode={self.mode!r}"


class PixelShuffle(Module):
    """`functional.pixel_shuffle` as a layer: (..., C r r, H, W) -> (..., C, H r, W r)."""

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """`functional.pixel_unshuffle` as a layer: (..., C, H r, W r) -> (..., C r r, H, W)."""

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ZeroPad2d(Module):
    """Zeros around (..., H, W): `padding` (left, right, top, bottom), or one number for all. Negative ones cut."""

    axes, mode = 2, "constant"

    def __init__(self, padding: Any) -> None:
        self.padding = couple(padding, 2 * self.axes, "padding")

    def forward(self, x: Tensor) -> Tensor:
        return x.pad(self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


class ZeroPad1d(ZeroPad2d):
    """The same over one axis: `padding` (left, right)."""

    axes = 1


class ReflectionPad2d(ZeroPad2d):
    """What is inside, mirrored at the rim, around (..., H, W); each width is less than the extent."""

    mode = "reflect"


class ReflectionPad1d(ReflectionPad2d):
    """The same over one axis: `padding` (left, right)."""

    axes = 1


class ReplicationPad2d(ZeroPad2d):
    """The rim, repeated, around (..., H, W)."""

    mode = "replicate"


class ReplicationPad1d(ReplicationPad2d):
    """The same over one axis: `padding` (left, right)."""

    axes = 1


__all__ = [
    "PixelShuffle", "PixelUnshuffle", "ReflectionPad1d", "ReflectionPad2d", "ReplicationPad1d", "ReplicationPad2d", "Upsample",
    "ZeroPad1d", "ZeroPad2d",
]  # fmt: skip
