"""Functions of one tensor as layers, with the arguments of the method: `nn.LeakyReLU(0.1)` calls `x.leaky_relu(0.1)`."""

from __future__ import annotations

import inspect
from typing import Any

from tinyengine.nn.arguments import layer
from tinyengine.nn.module import Module
from tinyengine.tensor import Tensor


def _layer(name: str, method: str, *fixed: str) -> type[Module]:
    """The method of tensors as a layer, which takes the method's arguments without `fixed`; `inplace` is taken and changes
    nothing."""
    found = inspect.signature(getattr(Tensor, method)).parameters.values()
    kept = [p for p in found if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ("self", *fixed)]
    inplace = inspect.Parameter("inplace", inspect.Parameter.KEYWORD_ONLY, default=False)

    def forward(self: Any, x: Tensor) -> Any:
        return getattr(x, method)(**self.options)

    def extra_repr(self: Any) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.options.items())

    about = f"`x.{method}` as a layer."
    return layer(name, [*kept, inplace], forward, about, __name__, ignored=("inplace",), extra_repr=extra_repr)


CELU = _layer("CELU", "celu")
ELU = _layer("ELU", "elu")
GELU = _layer("GELU", "gelu")
Hardsigmoid = _layer("Hardsigmoid", "hardsigmoid", "alpha", "beta")
Hardswish = _layer("Hardswish", "hardswish")
Hardtanh = _layer("Hardtanh", "hardtanh")
LeakyReLU = _layer("LeakyReLU", "leaky_relu")
LogSigmoid = _layer("LogSigmoid", "logsigmoid")
LogSoftmax = _layer("LogSoftmax", "log_softmax")
Mish = _layer("Mish", "mish")
ReLU = _layer("ReLU", "relu")
ReLU6 = _layer("ReLU6", "relu6")
SELU = _layer("SELU", "selu", "alpha", "gamma")
Sigmoid = _layer("Sigmoid", "sigmoid")
SiLU = _layer("SiLU", "silu")
Softmax = _layer("Softmax", "softmax")
Softmin = _layer("Softmin", "softmin")
Softplus = _layer("Softplus", "softplus")
Softsign = _layer("Softsign", "softsign")
Tanh = _layer("Tanh", "tanh")


class Identity(Module):
    """Gives what it is given. Arguments are taken and do nothing, so that it may stand for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return x


__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softsign",
    "Tanh",
]  # fmt: skip
