"""What networks are made of beyond products: normalisation and attention. Formulas and defaults are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import user_line
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.losses import Losses
from tinyengine.tensor.movement import triangle

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _shared_heads(query: Any, x: Any) -> Any:
    if query.ndim < 3 or x.ndim < 3:
        raise IndexError(f"attention: enable_gqa needs (..., heads, length, width), not {list(x.shape)}\n  at {user_line()}")
    if x.shape[-3] == 0 or query.shape[-3] % x.shape[-3]:
        raise RuntimeError(f"attention: {query.shape[-3]} heads cannot share {x.shape[-3]} of key or value\n  at {user_line()}")
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], -3)


class Functional(Losses):
    """Layers without state."""

    __slots__ = ()

    def sequential(self, layers: Sequence[Callable[[Any], Any]]) -> Tensor:
        """Each layer applied to the result of the one before."""
        x: Any = self
        for f in layers:
            x = f(x)
        return x  # type: ignore[no-any-return]

    def layernorm(self, dim: Any = -1, eps: float = 1e-5) -> Tensor:
        """(x - mean) / sqrt(variance + eps) over `dim`, with the biased variance."""
        d = self - self.mean(dim, keepdim=True)
        return d * ((d * d).mean(dim, keepdim=True) + eps).rsqrt()

    def batchnorm(self, weight: Any, bias: Any, mean: Tensor, invstd: Tensor, dim: int = 1) -> Tensor:
        """(x - mean) * invstd * weight + bias, per channel `dim`."""
        shape = [s if k == dim else 1 for k, s in enumerate(self.shape)]
        x = (self - mean.reshape(shape)) * invstd.reshape(shape)
        x = x if weight is None else x * weight.reshape(shape)
        return x if bias is None else x + bias.reshape(shape)

    def normalize(self, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
        """x / max(norm, eps). RuntimeError for ints."""
        if not self.dtype.is_float:
            raise RuntimeError(f"normalize of {self.dtype}: cast it to a float first\n  at {user_line()}")
        total: Any = (self * self if p == 2 else self.abs() ** p).sum(dim, keepdim=True)
        some = total > 0  # the slope of a root at 0 is infinite, and taken as 0
        norm = choose(some, choose(some, total, 1.0) ** (1 / p), total.detach())
        return self / norm.maximum(eps)

    def scaled_dot_product_attention(
        self,
        key: Tensor,
        value: Tensor,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(q k^T * scale + mask) v for q (..., L, E), k (..., S, E), v (..., S, V). A bool mask keeps where it is true; a
        row that keeps nothing gives zeros. `is_causal`: row i sees columns up to i. `enable_gqa`: each head of key and value
        (axis -3) serves as many heads of q as there are more of them. RuntimeError when shapes do not fit."""
        if enable_gqa:
            key, value = (_shared_heads(self, t) for t in (key, value))
        scores = self.matmul(key.mT) * (scale if scale is not None else 1 / math.sqrt(max(1, self.shape[-1])))
        if is_causal:
            if attn_mask is not None:
                raise RuntimeError(f"attention: give attn_mask or is_causal, not both\n  at {user_line()}")
            scores = choose(triangle(scores.shape[-2], scores.shape[-1], 0, upper=False), scores, -math.inf)
        if attn_mask is None:
            e = (scores - scores._peak((scores.ndim - 1,))).exp()
            return e.dropout(dropout_p).matmul(value) / e.sum(-1, keepdim=True)
        scores = choose(attn_mask, scores, -math.inf) if attn_mask.dtype is dtypes.bool_ else scores + attn_mask
        peak = scores._peak((scores.ndim - 1,))
        e = (scores - choose(peak > -math.inf, peak, 0.0)).exp()
        total = e.sum(-1, keepdim=True)
        return e.dropout(dropout_p).matmul(value) / choose(total > 0, total, 1.0)


__all__ = ["Functional"]
