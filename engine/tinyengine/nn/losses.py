"""Losses as layers: `nn.CrossEntropyLoss()(logits, labels)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tinyengine.nn import functional as F
from tinyengine.nn.arguments import layer
from tinyengine.nn.module import Module
from tinyengine.tensor import Tensor


def _loss(name: str, f: Callable[..., Tensor]) -> type[Module]:
    takes = list(inspect.signature(f).parameters.values())[2:]  # behind input and target

    def forward(self: Any, input: Tensor, target: Any) -> Tensor:
        return f(input, target, **self.options)

    doc = f"`F.{f.__name__}` with these arguments, as a layer: (input, target) -> loss."
    return layer(name, takes, forward, doc, __name__)


CrossEntropyLoss, NLLLoss = _loss("CrossEntropyLoss", F.cross_entropy), _loss("NLLLoss", F.nll_loss)
BCELoss = _loss("BCELoss", F.binary_cross_entropy)
BCEWithLogitsLoss = _loss("BCEWithLogitsLoss", F.binary_cross_entropy_with_logits)
MSELoss, L1Loss = _loss("MSELoss", F.mse_loss), _loss("L1Loss", F.l1_loss)
SmoothL1Loss, HuberLoss = _loss("SmoothL1Loss", F.smooth_l1_loss), _loss("HuberLoss", F.huber_loss)
KLDivLoss = _loss("KLDivLoss", F.kl_div)

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss", "SmoothL1Loss",
]  # fmt: skip
