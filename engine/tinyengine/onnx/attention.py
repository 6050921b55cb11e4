"""Attention with caches, masks and shared heads; rotary positions; writes into a cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import ELEMENTS
from tinyengine.tensor import Tensor


def _split(x: Any, heads: int) -> Any:
    """(B, S, heads * E) -> (B, heads, S, E)."""
    b, s, width = x.shape
    return x.reshape(b, s, heads, width // heads).transpose(1, 2)


def _allowed(rows: int, columns: int, past: int, nonpad: Any, causal: int, left: int, right: int) -> Any:
    """A bool tensor that broadcasts to (B, heads, rows, columns): which keys a query may see by its place; None: all."""
    at = Tensor.arange(rows).reshape(rows, 1)
    key = Tensor.arange(columns).reshape(1, columns)
    ok: Any = None
    if nonpad is not None:
        n = nonpad.cast(dtypes.int32).reshape(-1, 1, 1, 1)
        ok = key < n
        at = at + (n - rows) if not past else at + past
    else:
        at = at + past
    limits = [key <= at + b for b in (0 if causal else -1, right) if b >= 0] + ([key >= at - left] if left >= 0 else [])
    for rule in limits:
        ok = rule if ok is None else ok & rule
    return ok


def _softmax(scores: Any, masked: bool) -> Any:
    """Along the last axis; a row that may see nothing gives zeros."""
    if not masked:
        return scores.softmax(-1)
    peak = scores.amax(-1, keepdim=True)
    e = (scores - (peak > -math.inf).where(peak, 0.0)).exp()
    total = e.sum(-1, keepdim=True)
    return e / (total > 0).where(total, 1.0)


def _masked(scores: Any, mask: Any) -> Any:
    """With a mask applied; its last axis may be too short: what is beyond is not seen."""
    short = scores.shape[-1] - mask.shape[-1]
    seen = mask.dtype is dtypes.bool_
    if short > 0:
        mask = mask.pad((0, short), value=False if seen else -math.inf)
    return mask.where(scores, -math.inf) if seen else scores + mask.cast(scores.dtype)


@op("Attention", 23)
def attention(
    q: Any, k: Any, v: Any, mask: Any = None, past_key: Any = None, past_value: Any = None, nonpad: Any = None, *,
    is_causal: int = 0, kv_num_heads: int = 0, left_window_size: int = -1, q_num_heads: int = 0, qk_matmul_output_mode: int = 0,
    right_window_size: int = -1, scale: float | None = None, softcap: float = 0.0, softmax_precision: int | None = None,
    call: Any,
) -> Any:  # fmt: skip
    flat = q.ndim == 3
    if flat:
        q, k, v = _split(q, q_num_heads), _split(k, kv_num_heads), _split(v, kv_num_heads)
    past = 0 if past_key is None else past_key.shape[2]
    if past_key is not None:
        k, v = Tensor.cat([past_key, k], dim=2), Tensor.cat([past_value, v], dim=2)
    keys, seen, d = k, v, q.dtype
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        keys, seen = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if d.itemsize < 4:  # a product could overflow
        raw = (q * math.sqrt(factor)).matmul(keys.mT * math.sqrt(factor))
    else:
        raw = q.matmul(keys.mT) * factor
    capped = (raw / softcap).tanh() * softcap if softcap else raw
    bias = capped if mask is None else _masked(capped, mask)
    ok = _allowed(q.shape[2], keys.shape[2], past, nonpad, is_causal, left_window_size, right_window_size)
    bias = bias if ok is None else ok.where(bias, -math.inf)
    wide = bias if softmax_precision is None else bias.cast(ELEMENTS[softmax_precision])
    weights = _softmax(wide, mask is not None or ok is not None).cast(d)
    y = weights.matmul(seen)
    y = y.transpose(1, 2).reshape((y.shape[0], y.shape[2], -1)) if flat else y
    return y, k, v, (raw, capped, bias, weights)[qk_matmul_output_mode]


@op("RotaryEmbedding", 23)
def rotary_embedding(
    x: Any, cos: Any, sin: Any, positions: Any = None, *, interleaved: int = 0, num_heads: int = 0, rotary_embedding_dim: int = 0
) -> Any:
    y = _split(x, num_heads) if x.ndim == 3 else x
    n = rotary_embedding_dim or y.shape[-1]
    turned, rest = y[..., :n], y[..., n:]
    if positions is not None:
        cos, sin = (t.take(positions.flatten(), 0).reshape((*positions.shape, t.shape[-1])) for t in (cos, sin))
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., : n // 2], turned[..., n // 2 :])
    real, imaginary = cos * a - sin * b, sin * a + cos * b
    new = Tensor.stack([real, imaginary], dim=-1).flatten(-2) if interleaved else Tensor.cat([real, imaginary], dim=-1)
    new = Tensor.cat([new, rest], dim=-1) if n < y.shape[-1] else new
    return new.transpose(1, 2).reshape(x.shape) if x.ndim == 3 else new


@op("TensorScatter", 24)
def tensor_scatter(past: Any, update: Any, at: Any = None, *, axis: int = -2, mode: str = "linear") -> Any:
    """Every place of the cache reads what is written there, or what it held."""
    d = axis % past.ndim
    size, count = past.shape[d], update.shape[d]
    shape = [1] * past.ndim
    shape[d] = size
    start = Tensor.zeros(past.shape[0], dtype=dtypes.int32) if at is None else at.cast(dtypes.int32)
    from_start = Tensor(np.arange(size, dtype=np.int32)).reshape(shape) - start.reshape((-1,) + (1,) * (past.ndim - 1))
    from_start = from_start.mod(size) if mode == "circular" else from_start
    new = (from_start >= 0) & (from_start < count)
    index = from_start.clamp(0, count - 1).expand(past.shape)
    return new.where(update.gather(d, index), past)
