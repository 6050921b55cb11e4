"""Rates by the size of past gradients: RMSprop and Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinyengine.optim.base import Group, Optimizer
from tinyengine.tensor import Tensor


class RMSprop(Optimizer):
    """Tieleman and Hinton 2012, as in PyTorch: v = alpha * v + (1 - alpha) * g^2; u = g / (sqrt(v) + eps), with a momentum b =
    momentum * b + u in its place; p -= lr * u. weight_decay is added to g. maximize: g's sign is changed first."""

    per_parameter = ("v", "velocity")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
        momentum: float = 0.0, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, maximize=maximize)
        self.v = [self._like(p, "v") for p in self.params]
        used = any(g["momentum"] for g in self.param_groups)
        self.velocity = [self._like(p, "velocity") for p in self.params] if used else []

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        if o["weight_decay"]:
            g = g + p * o["weight_decay"]
        v = self.v[i] * o["alpha"] + g * g * (1 - o["alpha"])
        u: Tensor = g / (v.sqrt() + o["eps"])
        changed = [self.v[i].assign(v)]
        if o["momentum"]:
            u = self.velocity[i] * o["momentum"] + u
            changed.append(self.velocity[i].assign(u))
        return [*changed, p.assign(p - u * o.rate)]


class Adagrad(Optimizer):
    """Duchi et al. 2011, as in PyTorch: v += g^2; p -= lr * g / (sqrt(v) + eps). weight_decay is added to g. maximize: g's
    sign is changed first."""

    per_parameter = ("v",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, weight_decay: float = 0.0, eps: float = 1e-10, *, maximize: bool = False
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, eps=eps, maximize=maximize)
        self.v = [self._like(p, "v") for p in self.params]

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        if o["weight_decay"]:
            g = g + p * o["weight_decay"]
        v = self.v[i] + g * g
        return [self.v[i].assign(v), p.assign(p - g / (v.sqrt() + o["eps"]) * o.rate)]


__all__ = ["Adagrad", "RMSprop"]
