"""Attention of several heads as a layer, and the encoder's layer of a transformer."""

from __future__ import annotations

import math
from typing import Any

from tinyengine.nn.layers import Dropout, LayerNorm, Linear, filled, uniform
from tinyengine.nn.module import Module
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor
from tinyengine.tensor.elementwise import choose


class MultiheadAttention(Module):
    """Vaswani et al. 2017, as in PyTorch. query (L, N, embed_dim), key and value (S, N, embed_dim); with batch_first (N, L, ..);
    or without N. `in_proj_weight` (3 embed_dim, embed_dim) makes queries, keys and values, uniform in ±sqrt(6 / (4 embed_dim));
    biases start as zeros."""

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, batch_first: bool = False
    ) -> None:  # fmt: skip
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"{embed_dim} features do not divide into {num_heads} heads\n  at {user_line()}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.in_proj_weight = uniform((3 * embed_dim, embed_dim), math.sqrt(6 / (4 * embed_dim)))
        self.in_proj_bias = filled((3 * embed_dim,), 0.0) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if bias:
            self.out_proj.bias = filled((embed_dim,), 0.0)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any = None, need_weights: bool = True,
        attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """(result, weights): weights (N, L, S), means over the heads, or (N, heads, L, S) without average_attn_weights; None
        without need_weights. A bool mask is True where nothing may be seen, another is added: attn_mask (L, S) or (N * heads, L,
        S), key_padding_mask (N, S). is_causal says that attn_mask is the causal one; without a mask position i sees up to i."""
        batched = query.ndim == 3
        if query.ndim not in (2, 3) or any(t.ndim != query.ndim or t.shape[-1] != self.embed_dim for t in (query, key, value)):
            given = ", ".join(str(list(t.shape)) for t in (query, key, value))
            raise RuntimeError(f"{self!r} takes (.., {self.embed_dim}) three times, got {given}\n  at {user_line()}")
        q, k, v = (self._heads(t, part, batched) for part, t in enumerate((query, key, value)))
        n, _, length, _ = q.shape
        mask = None if attn_mask is None else _added(attn_mask)
        if mask is not None and mask.ndim == 3:
            mask = mask.reshape(n, self.num_heads, length, -1)
        if key_padding_mask is not None:
            hidden = _added(key_padding_mask).reshape(n, 1, 1, -1)
            mask = hidden if mask is None else mask + hidden
        p = self.dropout if self.training else 0.0
        causal = is_causal and mask is None
        weights: Any = None
        if need_weights:
            scores = q.matmul(k.mT) * (1 / math.sqrt(q.shape[-1]))
            if causal:
                mask = _added(Tensor.ones(length, k.shape[2]).triu(1) > 0)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            y = weights.dropout(p).matmul(v)
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            y = q.scaled_dot_product_attention(k, v, attn_mask=mask, dropout_p=p, is_causal=causal)
        y = y.permute(0, 2, 1, 3).reshape(n, length, self.embed_dim)
        out: Any = self.out_proj(y if self.batch_first or not batched else y.transpose(0, 1))
        return out if batched else out.squeeze(0), weights

    def _heads(self, x: Tensor, part: int, batched: bool) -> Tensor:
        """(N, heads, length, width) of queries, keys or values (`part` 0, 1, 2)."""
        e, rows = self.embed_dim, slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        y: Any = x.linear(self.in_proj_weight[rows], None if self.in_proj_bias is None else self.in_proj_bias[rows])
        y = y if self.batch_first and batched else y.transpose(0, 1) if batched else y.unsqueeze(0)
        return y.reshape(*y.shape[:2], self.num_heads, e // self.num_heads).permute(0, 2, 1, 3)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}"

    def __repr__(self) -> str:
        return f"MultiheadAttention({self.extra_repr()})"


def _added(mask: Any) -> Any:
    """A mask as what is added to scores: -inf where a bool one is True."""
    return choose(mask, -math.inf, 0.0) if mask.dtype.kind == "bool" else mask


class TransformerEncoderLayer(Module):
    """Attention to itself, then two linear layers with `activation` ('relu' or 'gelu') between them, each added to its input;
    norms after the sums, or with norm_first before the parts. (T, N, d_model), with batch_first (N, T, d_model)."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str = "relu",
        layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True,
    ) -> None:  # fmt: skip
        if activation not in ("relu", "gelu"):
            raise ValueError(f"the activation is 'relu' or 'gelu', not {activation!r}\n  at {user_line()}")
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first)
        self.linear1, self.linear2 = Linear(d_model, dim_feedforward, bias), Linear(dim_feedforward, d_model, bias)
        self.norm1, self.norm2 = (LayerNorm(d_model, layer_norm_eps, bias=bias) for _ in range(2))
        self.dropout, self.activation, self.norm_first = Dropout(dropout), activation, norm_first

    def forward(self, src: Tensor, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
        x: Any = src
        if self.norm_first:
            x = x + self._attend(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._feed(x))

    def _attend(self, x: Tensor, mask: Any, padding: Any, causal: bool) -> Any:
        return self.dropout(self.self_attn(x, x, x, padding, False, mask, is_causal=causal)[0])

    def _feed(self, x: Tensor) -> Any:
        return self.dropout(self.linear2(self.dropout(getattr(self.linear1(x), self.activation)())))


__all__ = ["MultiheadAttention", "TransformerEncoderLayer"]
