"""Pooling and its inverse, transposed convolution, and changes of size. Windows, sums and maxima; addresses are static but for
max_unpool2d, which puts values where the indices say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.function import Function
from tinyengine.tensor.linalg import Linalg, both, couple, steps_and_padding
from tinyengine.tensor.resize import interpolate

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _high(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Padding behind the last element: p, and with `ceil_mode` as much more as one last window needs that begins inside."""
    if not ceil_mode:
        return p
    span = d * (k - 1) + 1
    count = -(-(n + 2 * p - span) // s) + 1
    if (count - 1) * s >= n + p:
        count -= 1
    return max(p, (count - 1) * s + span - n - p)


def _rank(windows: Any, best: Any, axes: tuple[int, int]) -> Any:
    """int32, largest in each window at the element that is its maximum: of equal ones the first (there the number of elements to
    the end), of NaNs the last (there the number of elements from the begin)."""
    shape, o = windows.shape, here()
    height, width = (shape[a] for a in axes)
    row, col = (make(record.iota(windows.ndim + a, dtypes.int32, shape, o), core.NO_FLOW) for a in axes)
    at = row * width + col
    no_number = choose(windows == windows, 0, at + 1) if windows.dtype.is_float else 0
    return choose(windows == best, height * width - at, no_number)


class MaxPool(Function):
    """The maximum of each window (its rows and columns are two axes, which stay with extent 1); the first of equal ones, or the
    last NaN, takes the gradient."""

    @staticmethod
    def forward(ctx: Any, windows: Any, axes: tuple[int, int]) -> Any:
        best = windows.amax(axes, keepdim=True)
        ctx.save_for_backward(windows, best)
        ctx.axes = axes
        return best

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        windows, best = ctx.saved_tensors
        found = _rank(windows, best, ctx.axes)
        return choose(found == found.amax(ctx.axes, keepdim=True), g, 0), None


class Pooling(Linalg):
    """Pooling methods: the last two axes are (H, W), any axes come before. RuntimeError when a window does not fit."""

    __slots__ = ()

    def _pool(
        self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], list[Any]]:
        if self.ndim < 2:
            raise RuntimeError(f"pooling needs (..., H, W), not shape {list(self.shape)}\n  at {user_line()}")
        k = couple(kernel_size, 2, "kernel_size")
        s = couple(k if stride is None else stride, 2, "stride")
        p, d = couple(padding, 2, "padding"), couple(dilation, 2, "dilation")
        if any(v < 1 for v in (*k, *s, *d)) or any(v < 0 or 2 * v > size for v, size in zip(p, k, strict=True)):
            raise RuntimeError(
                f"pooling: kernel {k}, stride {s} and dilation {d} must be positive, padding {p} at most half the kernel\n"
                f"  at {user_line()}"
            )
        pads = [(p[i], _high(self.shape[i - 2], k[i], s[i], p[i], d[i], ceil_mode)) for i in range(2)]
        return k, s, p, d, [*[None] * (self.ndim - 2), *pads]

    def _windowed(self, k: tuple[int, ...], s: tuple[int, ...], d: tuple[int, ...]) -> tuple[Any, tuple[int, int]]:
        """The windows, and the axes of their rows and columns. Windows beside each other stay where they are, so that what is
        found about an element lies where the element does; of others, elements of neighbouring windows are neighbours."""
        if k == s and d == (1, 1):
            return self._tiles(k), (-3, -1)
        x = self._windows(k, s, d)
        return x.permute(*range(x.ndim - 4), -2, -1, -4, -3), (-4, -3)

    def max_pool2d(
        self, kernel_size: Any = 2, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:  # fmt: skip
        """The maximum of each window: (..., H, W) -> (..., OH, OW). Of equal largest elements the first takes the gradient; a NaN
        is larger than all, and of several the last one counts. `return_indices`: (maxima, int32 positions h * W + w of the
        elements that count), for `max_unpool2d`."""
        k, s, p, d, pads = self._pool(kernel_size, stride, padding, dilation, ceil_mode)
        x = self.pad(pads, value=self.dtype.min) if any(map(any, pads[-2:])) else self
        windows, axes = x._windowed(k, s, d)
        best = MaxPool.apply(windows, axes).squeeze(axes) if windows.flow else windows.amax(axes)
        if not return_indices:
            return best
        whole = x.detach()._windows(k, s, d)
        most = whole.amax((-2, -1), keepdim=True)
        rank = _rank(whole, most, (-2, -1)).amax((-2, -1))
        at = math.prod(k) - rank
        if x.dtype.is_float:
            most = most.squeeze((-2, -1))
            at = choose(most == most, at, rank - 1)
        o = here()
        row, col = (make(record.iota(at.ndim - 2 + i, dtypes.int32, at.shape, o), core.NO_FLOW) for i in range(2))
        h = row * s[0] + at // k[1] * d[0] - p[0]
        return best, h * self.shape[-1] + (col * s[1] + at % k[1] * d[1] - p[1])

    def max_unpool2d(
        self, indices: Tensor, kernel_size: Any = 2, stride: Any = None, padding: Any = 0, output_size: Any = None, *,
        dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        """Each value at its position of `indices` (as `max_pool2d` returns them), zeros elsewhere: (..., H, W) -> (..., OH, OW),
        by default (H - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1. Where windows overlap, of several values
        the last wins; where they cannot (stride >= kernel), indices must differ. IndexError for a position outside, when it
        runs."""
        k, s, p, d, _ = self._pool(kernel_size, stride, padding, dilation, False)
        if indices.shape != self.shape:
            raise ValueError(
                f"max_unpool2d: indices {list(indices.shape)} do not have the shape {list(self.shape)}\n  at {user_line()}"
            )
        size = [(n - 1) * s[i] - 2 * p[i] + d[i] * (k[i] - 1) + 1 for i, n in enumerate(self.shape[-2:])]
        if output_size is not None:
            given, least = tuple(output_size), size
            size = list(given[-2:])
            if len(given) not in (2, self.ndim) or any(abs(a - b) >= c for a, b, c in zip(size, least, s, strict=True)):
                raise ValueError(
                    f"max_unpool2d: output_size {given} is no (H, W) less than the stride {s} away from {tuple(least)}\n"
                    f"  at {user_line()}"
                )
        lead = self.shape[:-2]
        flat = (*lead, math.prod(self.shape[-2:]))
        table: Any = core._cls.full((*lead, math.prod(size)), 0, dtype=self.dtype)
        out: Tensor = table._put(len(lead), indices.reshape(flat), self.reshape(flat))
        return out.reshape((*lead, *size))

    def avg_pool2d(
        self, kernel_size: Any = 2, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
        *, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        """The mean of each window; `count_include_pad`: padded zeros count as elements (those that only `ceil_mode` adds do
        not)."""
        k, s, p, d, pads = self._pool(kernel_size, stride, padding, dilation, ceil_mode)
        windows, axes = self.pad(pads)._windowed(k, s, d)
        total: Tensor = windows.sum(axes)
        if not ceil_mode and (count_include_pad or not any(p)):
            return total * (1 / math.prod(k))
        rim = [(v, v) if count_include_pad else (0, 0) for v in p]
        counted: Any = core._cls.ones(self.shape[-2] + 2 * rim[0][0], self.shape[-1] + 2 * rim[1][0], dtype=self.dtype)
        rest = [(a - r[0], b - r[1]) for (a, b), r in zip(pads[-2:], rim, strict=True)]
        return total / counted.pad(rest)._windows(k, s, d).sum((-2, -1))  # type: ignore[no-any-return]

    def conv_transpose2d(
        self, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
        groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        """The adjoint of conv2d, as in PyTorch: x (N, C, H, W), weight (C, O / groups, KH, KW), bias (O,) -> (N, O, OH, OW) with
        OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1. Also of one or three spatial axes.
        Each element of x, times the kernel, is placed where conv2d would have read it. RuntimeError when it does not
        fit."""
        axes = weight.ndim - 2
        if self.ndim == axes + 1:
            y = self.unsqueeze(0).conv_transpose2d(weight, bias, stride, padding, output_padding, groups, dilation)
            return y.squeeze(0)
        channels, per_out, *kernel = weight.shape if weight.ndim > 2 else (0, 0)
        if axes < 1 or self.ndim != axes + 2 or groups < 1 or self.shape[1] != channels or channels % groups:
            raise RuntimeError(
                f"conv_transpose2d: x of shape {list(self.shape)} does not fit weights of shape {list(weight.shape)} in {groups}"
                f" groups\n  at {user_line()}"
            )
        s, d = couple(stride, axes, "stride"), couple(dilation, axes, "dilation")
        steps_and_padding("conv_transpose2d", s, d, padding)
        p, extra = couple(padding, axes, "padding"), couple(output_padding, axes, "output_padding")
        if any(e >= max(a, b) for e, a, b in zip(extra, s, d, strict=True)):
            raise RuntimeError(
                f"conv_transpose2d: output_padding {extra} must be smaller than stride {s} or dilation {d}\n  at {user_line()}"
            )
        o, k, batch, per_group = here(), axes, self.shape[0], channels // groups
        flow, (n, w), dtype = both(self, weight)
        # x as (batch, group, 1, *space, channel, 1...), spread over (..., output channel, ..., kernel) at once, as in conv2d
        n = record.permute(record.reshape(n, (batch, groups, per_group, *n.shape[2:]), o), (0, 1, *range(3, 3 + k), 2), o)
        n = record.reshape(n, (batch, groups, 1, *n.shape[2:], *(1,) * k), o)
        n = record.expand(n, (batch, groups, per_out, *n.shape[3 : 4 + k], *kernel), o)
        w = record.permute(record.reshape(w, (groups, per_group, per_out, *kernel), o), (0, 2, 1, *range(3, 3 + k)), o)
        w = record.expand(record.reshape(w, (1, groups, per_out, *(1,) * k, per_group, *kernel), o), n.shape, o)
        m = record.binary("mul", n, w, o)
        for i in range(k):
            m = record.place(m, (3 + i, 4 + k + i, s[i], d[i]), (m.shape[3 + i] - 1) * s[i] + d[i] * (kernel[i] - 1) + 1, o)
        total = record.result(record.reduce("sum", m, tuple(range(3 + k, 4 + 2 * k)), o), dtype, o)
        z = make(record.reshape(total, (batch, groups * per_out, *total.shape[3 : 3 + k]), o), flow)
        z = z.pad([None, None, *((-pi, e - pi) for pi, e in zip(p, extra, strict=True))]) if any(p) or any(extra) else z
        return z if bias is None else z + bias.reshape((z.shape[1],) + (1,) * k)

    conv_transpose1d = conv_transpose2d

    def interpolate(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> Tensor:
        """(N, C, ...) with other extents of the spatial axes: `size`, or each times `scale_factor`. mode 'nearest',
        'nearest-exact', 'linear' (= 'bilinear' = 'trilinear', as many axes as there are), 'bicubic' or 'area'. Positions are
        PyTorch's, found on the host: the kernel reads static tables. `recompute_scale_factor`: the factor is taken from the new
        extents. NotImplementedError for other shapes and modes; ValueError for what does not fit."""
        return interpolate(self, size, scale_factor, mode, align_corners, recompute_scale_factor)


__all__ = ["Pooling"]
