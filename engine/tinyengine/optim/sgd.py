"""Gradient descent with momentum: SGD, and LARS with a rate for each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyengine.optim.base import Group, Optimizer, length
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


class SGD(Optimizer):
    """g += weight_decay * p; v = momentum * v + (1 - dampening) * g (at first v = g); p -= lr * (g + momentum * v if nesterov
    else v). maximize: g's sign is changed first."""

    per_parameter = ("velocity",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=maximize
        )
        used = any(g["momentum"] for g in self.param_groups)
        self.velocity = [self._like(p, "velocity") for p in self.params] if used else []
        for group in self.param_groups:
            if group["momentum"] and group["dampening"]:
                # 1 in the first step, then 1 - dampening: in memory, so that the first step is the same program as the others
                group.memory["factor"] = Tensor(np.float32(1.0))

    def check(self, g: Group) -> None:
        if g["nesterov"] and (g["momentum"] <= 0 or g["dampening"] != 0):
            raise ValueError(f"nesterov needs a momentum and no dampening\n  at {user_line()}")

    def schedule(self) -> list[Tensor]:
        changed = super().schedule()
        for o in self.param_groups:
            if "factor" in o.memory:
                changed.append(o.memory["factor"].assign(1 - o["dampening"]))
        return changed

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        momentum = o["momentum"]
        if o["weight_decay"]:
            g = g + p * o["weight_decay"]
        changed = [p]
        if momentum:
            v = self.velocity[i] * momentum + (g * o.memory["factor"] if "factor" in o.memory else g)
            changed.append(self.velocity[i].assign(v))
            g = g + v * momentum if o["nesterov"] else v
        p.assign(p - g * o.rate)
        return changed


class LARS(Optimizer):
    """You et al. 2017: SGD with momentum whose rate is scaled for each tensor by r = trust_coefficient * |p| / (|g| +
    weight_decay * |p|), 1 where |p| or |g| is 0. g = r * lr * (g + weight_decay * p); v = momentum * v + g; p -= v (or g +
    momentum * v if nesterov)."""

    per_parameter = ("velocity",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 1e-4,
        nesterov: bool = False, trust_coefficient: float = 1e-3,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, trust_coefficient=trust_coefficient
        )
        used = any(g["momentum"] for g in self.param_groups)
        self.velocity = [self._like(p, "velocity") for p in self.params] if used else []

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        momentum, decay = o["momentum"], o["weight_decay"]
        size, slope = length(p), length(g)
        scale = ((size > 0) & (slope > 0)).where(size * o["trust_coefficient"] / (slope + size * decay), 1.0)
        g = (g + p * decay) * (scale * o.rate)
        changed = [p]
        if momentum:
            v = self.velocity[i] * momentum + g
            changed.append(self.velocity[i].assign(v))
            g = g + v * momentum if o["nesterov"] else v
        p.assign(p - g)
        return changed


__all__ = ["LARS", "SGD"]
