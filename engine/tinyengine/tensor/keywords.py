"""Keywords of the field that stand beside PyTorch's, as data: other names of arguments, `dtype` of products and softmax, and
`device`, which changes nothing. `bind` puts them on the methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinyengine.origin import user_line
from tinyengine.tensor import core

# method -> {another name: the argument that it is}
ALSO: dict[str, dict[str, str]] = {
    "batchnorm": {"axis": "dim"},
    "binary_crossentropy": {"Y": "target"},
    "binary_crossentropy_logits": {"Y": "target"},
    "clamp": {"min_": "min", "max_": "max"},
    "clip": {"min_": "min", "max_": "max"},
    "const_like": {"b": "fill_value"},
    "cross_entropy": {"Y": "target"},
    "layernorm": {"axis": "dim"},
    "leaky_relu": {"neg_slope": "negative_slope"},
    "linspace": {"stop": "end"},
    "nll_loss": {"Y": "target"},
    "normalize": {"axis": "dim"},
    "sequential": {"ll": "layers"},
    "shrink": {"arg": "bounds"},
    "sparse_categorical_crossentropy": {"Y": "labels"},
    "split": {"sizes": "split_size"},
    "topk": {"sorted_": "sorted"},
    "where": {"x": "a", "y": "b"},
}
# methods whose `dtype` says in which dtype all tensors given are computed, and the result is
COMPUTED_IN = ["matmul", "dot", "linear", "conv2d", "conv_transpose2d", "einsum", "softmax", "log_softmax", "softmin"]
# methods that take the name of a `device`: memory is the host's, so the name is only checked
_CREATION = """
    empty empty_like full full_like ones ones_like zeros zeros_like arange linspace eye rand rand_like randint randn randn_like
    randperm normal uniform scaled_uniform glorot_uniform kaiming_normal kaiming_uniform clone
"""
PLACED = _CREATION.split()


def _also(f: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
    @functools.wraps(f)
    def method(*args: Any, **kwargs: Any) -> Any:
        for other, own in names.items():
            if other in kwargs:
                if own in kwargs:
                    raise TypeError(f"{f.__name__}: {other} and {own} are the same argument\n  at {user_line()}")
                kwargs[own] = kwargs.pop(other)
        return f(*args, **kwargs)

    return method


def _computed_in(f: Callable[..., Any]) -> Callable[..., Any]:
    def cast(x: Any, d: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(cast(v, d) for v in x)
        return x.cast(d) if isinstance(x, core.Base) else x  # type: ignore[attr-defined]

    @functools.wraps(f)
    def method(*args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        if dtype is None:
            return f(*args, **kwargs)
        d = core.dtype_of(dtype)
        return f(*cast(args, d), **{k: cast(v, d) for k, v in kwargs.items()})

    return method


def _placed(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def method(*args: Any, device: str | None = None, **kwargs: Any) -> Any:
        if device is not None:
            from tinyengine.device import Device

            Device.backend(device)
        return f(*args, **kwargs)

    return method


def keywords(name: str) -> list[str]:
    """What a method takes besides its own arguments, for the reference."""
    return [
        *[f"{other} (= {own})" for other, own in ALSO.get(name, {}).items()],
        *(["dtype"] if name in COMPUTED_IN else []),
        *(["device"] if name in PLACED else []),
    ]


def bind(cls: type) -> None:
    """Put the keywords on the methods of `cls`; static ones stay static."""
    wrappers: list[tuple[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = [
        *[(n, functools.partial(_also, names=names)) for n, names in ALSO.items()],
        *[(n, _computed_in) for n in COMPUTED_IN],
        *[(n, _placed) for n in PLACED],
    ]
    for name, wrap in wrappers:
        static = any(isinstance(c.__dict__.get(name), staticmethod) for c in cls.__mro__)
        wrapped = wrap(getattr(cls, name))
        setattr(cls, name, staticmethod(wrapped) if static else wrapped)


__all__ = ["ALSO", "COMPUTED_IN", "PLACED", "bind", "keywords"]
