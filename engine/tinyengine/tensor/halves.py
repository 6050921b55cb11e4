"""Functions composed of several ops that compute in float32 where the tensor is narrower, as PyTorch's do: their operands become
float32, the result is rounded once. Single ops round each result; sums are float32 inside (`stages.rules.narrow`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinyengine import dtypes
from tinyengine.tensor import core

_NAMES = """
    mean var std logsumexp softmax log_softmax sigmoid silu swish gelu quick_gelu softplus logsigmoid mish elu celu selu
    hardsigmoid hardswish softsign expm1 log1p log2 log10 rsqrt cos tan sinh cosh asin acos atan asinh acosh atanh
    cumsum cumprod logcumsumexp layernorm batchnorm normalize scaled_dot_product_attention nll_loss cross_entropy
    binary_crossentropy binary_crossentropy_logits mse_loss l1_loss
"""
COMPOSED = tuple(_NAMES.split())


def in_float32(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of tensors whose floats have two bytes or one, by way of float32."""

    @functools.wraps(f)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = self.node.dtype
        if dtype.itemsize > 2 or dtype.kind != "float":
            return f(self, *args, **kwargs)
        args, kwargs = tuple(map(_wide, args)), {k: _wide(v) for k, v in kwargs.items()}
        out = f(core.widened(self), *args, **kwargs)
        return core.narrowed(out, dtype) if out.dtype is dtypes.float32 else out

    return wrapper


def _wide(x: Any) -> Any:
    return core.widened(x) if isinstance(x, core.Base) and core.wide(x.dtype) is not x.dtype else x


def bind(cls: type) -> None:
    for name in COMPOSED:
        setattr(cls, name, in_float32(getattr(cls, name)))


__all__ = ["COMPOSED", "bind", "in_float32"]
