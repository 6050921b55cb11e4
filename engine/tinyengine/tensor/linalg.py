"""matmul and its relatives, einsum and convolution: broadcasts, windows and sums of the primitives.

matmul is expand + mul + sum with the summed axis last. conv2d is a window over each spatial axis, mul and one sum; in its
gradient the windows become `place` and all sums stay one sum, so that it can be computed directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinyengine.dtypes import DType
from tinyengine.node import Node
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make
from tinyengine.tensor.einsum import einsum
from tinyengine.tensor.elementwise import common_dtype, tensor_of
from tinyengine.tensor.random import Random

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def couple(x: Any, n: int, what: str) -> tuple[int, ...]:
    """One number for each of n axes."""
    if isinstance(x, str):
        raise TypeError(f"{what} takes an int or {n} ints, not {x!r}\n  at {user_line()}")
    out = (x,) * n if isinstance(x, int) else tuple(x)
    if len(out) == 1:
        out *= n
    if len(out) != n or not all(isinstance(v, int) for v in out):
        raise RuntimeError(f"{what} takes an int or {n} ints, not {x!r}\n  at {user_line()}")
    return out


def _fits(extents: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> None:
    """RuntimeError when a window is larger than what it is to move over."""
    for size, extent, dil in zip(kernel, extents, dilation, strict=True):
        if dil * (size - 1) + 1 > extent:
            raise RuntimeError(f"a window of {size} (dilation {dil}) does not fit an extent of {extent}\n  at {user_line()}")


def steps_and_padding(what: str, stride: tuple[int, ...], dilation: tuple[int, ...], padding: Any) -> None:
    """RuntimeError for steps that are not positive, widths that are negative, words other than 'same' and 'valid', and 'same'
    with a stride."""
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise RuntimeError(f"{what}: padding is a width, 'same' or 'valid', not {padding!r}\n  at {user_line()}")
    if padding == "same" and any(k != 1 for k in stride):
        raise RuntimeError(f"{what}: padding 'same' goes with stride 1, not {stride}\n  at {user_line()}")
    given = () if isinstance(padding, str) else (padding,) if isinstance(padding, int) else padding
    if any(k < 1 for k in (*stride, *dilation)) or any(p < 0 for p in given):
        raise RuntimeError(
            f"{what}: stride {stride} and dilation {dilation} must be positive, padding {padding} not negative\n"
            f"  at {user_line()}"
        )


class Linalg(Random):
    """Products and convolutions."""

    __slots__ = ()

    def matmul(self, other: Any) -> Tensor:
        """(..., m, k) @ (..., k, n) -> (..., m, n); leading axes broadcast; a vector counts as a row or a column and its axis
        goes away. RuntimeError when the inner extents differ. Mixed dtypes are promoted (PyTorch refuses them)."""
        y = tensor_of(other, "matmul")
        if not self.ndim or not y.ndim:
            raise RuntimeError(
                f"matmul needs at least one axis on each side: got shapes {list(self.shape)} and {list(y.shape)}\n"
                f"  at {user_line()}"
            )
        k, l = self.shape[-1], y.shape[-2 if y.ndim > 1 else 0]
        if k != l:
            raise RuntimeError(
                f"matmul of shapes {list(self.shape)} and {list(y.shape)}: the last axis of the left has extent {k}, the"
                f" {'second to last' if y.ndim > 1 else 'only'} axis of the right has {l}; they must be equal\n  at {user_line()}"
            )
        o = here()
        flow, (m, n), dtype = both(self, y)
        a = m if self.ndim > 1 else record.reshape(m, (1, k), o)
        b = n if y.ndim > 1 else record.reshape(n, (k, 1), o)
        rows, cols = a.shape[-2], b.shape[-1]
        lead = core.broadcast_shape(a.shape[:-2], b.shape[:-2])
        b = record.permute(b, (*range(len(b.shape) - 2), len(b.shape) - 1, len(b.shape) - 2), o)
        whole = (*lead, rows, cols, k)
        a = core.broadcast_node(record.reshape(a, (*a.shape[:-1], 1, k), o), whole, o)
        b = core.broadcast_node(record.reshape(b, (*b.shape[:-2], 1, cols, k), o), whole, o)
        s = record.result(record.reduce("sum", record.binary("mul", a, b, o), (len(lead) + 2,), o), dtype, o)
        shape = lead + ((rows,) if self.ndim > 1 else ()) + ((cols,) if y.ndim > 1 else ())
        return make(record.reshape(s, shape, o), flow)

    __matmul__ = matmul
    dot = matmul

    def __rmatmul__(self, other: Any) -> Tensor:
        return core._cls(other).matmul(self)  # type: ignore[no-any-return]

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x @ weight.T + bias; weight (out, in), as in PyTorch."""
        y = self.matmul(weight.T)
        return y if bias is None else y + bias

    @staticmethod
    def einsum(formula: str, *operands: Any) -> Tensor:
        """Einstein summation as in PyTorch: explicit or implicit output, '...' for axes that broadcast, a letter twice in one
        operand for its diagonal. RuntimeError when formula and shapes do not fit."""
        xs = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
        return einsum(formula, list(xs))

    def _tiles(self, kernel: Sequence[int]) -> Tensor:
        """The last len(kernel) axes in windows beside each other, each as two axes that stay where they are: (..., H, W) ->
        (..., OH, KH, OW, KW). What does not fill a window is left out. RuntimeError when none fits."""
        first = self.ndim - len(kernel)
        _fits(self.shape[first:], kernel, (1,) * len(kernel))
        lead, count = self.shape[:first], [e // s for e, s in zip(self.shape[first:], kernel, strict=True)]
        x = self.shrink([*[None] * first, *((0, c * s) for c, s in zip(count, kernel, strict=True))])
        return x.reshape(*lead, *(e for pair in zip(count, kernel, strict=True) for e in pair))

    def _windows(self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
        """The last len(kernel) axes windowed: (..., H, W) -> (..., OH, OW, KH, KW)."""
        k, rank = len(kernel), self.ndim
        if tuple(stride) == tuple(kernel) and set(dilation) == {1}:  # they do not overlap: a reshape, whose gradient is one too
            x, first = self._tiles(kernel), rank - k
            return x.permute(*range(first), *range(first, x.ndim, 2), *range(first + 1, x.ndim, 2))
        _fits(self.shape[rank - k :], kernel, dilation)
        flow, n = core.operand(self)
        o = here()
        n = record.expand(record.reshape(n, n.shape + (1,) * k, o), (*n.shape, *kernel), o)
        for i in range(k):
            n = record.window(n, rank - k + i, rank + i, stride[i], dilation[i], o)
        return make(n, flow)

    def conv2d(
        self, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Tensor:
        """Cross-correlation as in PyTorch: x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (N, O, OH, OW).
        Also of one or three spatial axes. padding: ints, 'valid' or 'same'. RuntimeError when channels do not fit."""
        axes = weight.ndim - 2
        if self.ndim == axes + 1:
            return self.unsqueeze(0).conv2d(weight, bias, stride, padding, dilation, groups).squeeze(0)
        if axes < 1 or self.ndim != axes + 2:
            raise RuntimeError(
                f"conv2d: x of shape {list(self.shape)} does not fit weights of shape {list(weight.shape)}\n  at {user_line()}"
            )
        batch, channels = self.shape[:2]
        out, per_group, *kernel = weight.shape
        if groups < 1 or channels != per_group * groups or out % groups:
            raise RuntimeError(
                f"conv2d: weights of shape {list(weight.shape)} with {groups} groups take {per_group * groups} channels, x has"
                f" {channels} (shape {list(self.shape)}), and the {out} outputs must divide into the groups\n"
                f"  at {user_line()}"
            )
        s, d = couple(stride, axes, "stride"), couple(dilation, axes, "dilation")
        steps_and_padding("conv2d", s, d, padding)
        if padding == "same":
            total = [di * (k - 1) for di, k in zip(d, kernel, strict=True)]
            pads = [(t // 2, t - t // 2) for t in total]
        else:
            pads = [(p, p) for p in couple(0 if padding == "valid" else padding, axes, "padding")]
        x = self.pad([None, None, *pads]) if any(map(any, pads)) else self
        for size, ext, dil in zip(kernel, x.shape[2:], d, strict=True):
            if dil * (size - 1) + 1 > ext:
                raise RuntimeError(
                    f"conv2d: a kernel of {size} (dilation {dil}) does not fit the padded extent {ext}\n  at {user_line()}"
                )
        o = here()
        flow, (n, w), dtype = both(x, weight)
        per_out, k = out // groups, axes
        # x as (batch, group, 1, channel, *space, 1...), spread over (..., output channel, ..., kernel) at once: one sum in the
        # gradient; no axis changes places, so gradients lie as x and weights do
        n = record.reshape(n, (batch, groups, 1, per_group, *n.shape[2:], *(1,) * k), o)
        n = record.expand(n, (batch, groups, per_out, *n.shape[3 : 4 + k], *kernel), o)
        for i in range(k):
            n = record.window(n, 4 + i, 4 + k + i, s[i], d[i], o)
        w = record.reshape(w, (1, groups, per_out, per_group, *(1,) * k, *kernel), o)
        w = record.expand(w, n.shape, o)
        taps = (3, *range(4 + k, 4 + 2 * k))
        y = record.result(record.reduce("sum", record.binary("mul", n, w, o), taps, o), dtype, o)
        z = make(record.reshape(y, (batch, out, *y.shape[4 : 4 + k]), o), flow)
        return z if bias is None else z + bias.reshape((out,) + (1,) * k)

    conv1d = conv2d


def both(a: Any, b: Any) -> tuple[int, tuple[Node, Node], DType]:
    """(flow, nodes, dtype of the result) of two operands; their shapes stay. The nodes have one dtype, that of the result or
    float32 where it is narrower: a product is not rounded before it is added."""
    flow = a.flow | b.flow
    m, n = a.node, b.node
    if flow > core.state.limit:
        flow, (m, n) = core.settle(a, b)
    dtype = common_dtype(m, n)
    o = here()
    m, n = record.cast(m, dtype, o), record.cast(n, dtype, o)
    if core.wide(dtype) is not dtype:
        m, n = record.operand(m, o), record.operand(n, o)
    return flow, (m, n), dtype


__all__ = ["Linalg", "both", "couple"]
