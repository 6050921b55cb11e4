"""Gradient descent with momentum: SGD, and LARS with a rate for each layer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinyengine.optim.base import Optimizer, length
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


class SGD(Optimizer):
    """g += weight_decay * p; v = momentum * v + (1 - dampening) * g (at first v = g); p -= lr * (g + momentum * v if nesterov
    else v)."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(f"nesterov needs a momentum and no dampening\n  at {user_line()}")
        self.momentum, self.dampening, self.weight_decay, self.nesterov = momentum, dampening, weight_decay, nesterov
        self.velocity = [self._like(p, "velocity") for p in self.params] if momentum else []
        # 1 in the first step, then 1 - dampening: in memory, so that the first step is the same program as the others
        self.factor = Tensor(np.float32(1.0)) if momentum and dampening else None

    def schedule(self) -> list[Tensor]:
        changed = super().schedule()
        if self.factor is not None:
            changed.append(self.factor.assign(1 - self.dampening))
        return changed

    def update(self, i: int, p: Tensor, g: Tensor) -> list[Tensor]:
        if self.weight_decay:
            g = g + p * self.weight_decay
        changed = [p]
        if self.momentum:
            v = self.velocity[i] * self.momentum + (g if self.factor is None else g * self.factor)
            changed.append(self.velocity[i].assign(v))
            g = g + v * self.momentum if self.nesterov else v
        p.assign(p - g * self._lr)
        return changed


class LARS(Optimizer):
    """You et al. 2017: SGD with momentum whose rate is scaled for each tensor by r = trust_coefficient * |p| / (|g| +
    weight_decay * |p|), 1 where |p| or |g| is 0. g = r * lr * (g + weight_decay * p); v = momentum * v + g; p -= v (or g +
    momentum * v if nesterov)."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 1e-4,
        nesterov: bool = False, trust_coefficient: float = 1e-3,
    ) -> None:  # fmt: skip
        super().__init__(params, lr)
        self.momentum, self.weight_decay, self.nesterov, self.trust_coefficient = (
            momentum,
            weight_decay,
            nesterov,
            trust_coefficient,
        )
        self.velocity = [self._like(p, "velocity") for p in self.params] if momentum else []

    def update(self, i: int, p: Tensor, g: Tensor) -> list[Tensor]:
        size, slope = length(p), length(g)
        scale = ((size > 0) & (slope > 0)).where(size * self.trust_coefficient / (slope + size * self.weight_decay), 1.0)
        g = (g + p * self.weight_decay) * (scale * self._lr)
        changed = [p]
        if self.momentum:
            v = self.velocity[i] * self.momentum + g
            changed.append(self.velocity[i].assign(v))
            g = g + v * self.momentum if self.nesterov else v
        p.assign(p - g)
        return changed


__all__ = ["LARS", "SGD"]
