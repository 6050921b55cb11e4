"""Adaptive moments: Adam, AdamW, and LAMB with a rate for each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyengine.optim.base import Optimizer, length, named, trust
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


class Adam(Optimizer):
    """Kingma and Ba 2014, as in PyTorch: m, v are running means of g and g^2; p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps),
    where c = 1 - beta^t. weight_decay is added to g (AdamW: taken from p instead)."""

    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"betas must be at least 0 and below 1, not {betas}\n  at {user_line()}")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.m = [self._like(p, "m") for p in self.params]
        self.v = [self._like(p, "v") for p in self.params]
        # 1 - beta^t, kept as it is: c' = (1 - beta) + beta c loses nothing to cancellation in float32
        self.c1, self.c2 = (named(Tensor(np.float32(0.0)), f"1-beta{i}^t") for i in (1, 2))
        self._scale: Any = None

    def begin(self) -> list[Tensor]:
        b1, b2 = self.betas
        c1, c2 = self.c1 * b1 + (1 - b1), self.c2 * b2 + (1 - b2)
        self._scale = (self._lr / c1, c2.rsqrt())
        return [self.c1.assign(c1), self.c2.assign(c2)]

    def update(self, i: int, p: Tensor, g: Tensor) -> list[Tensor]:
        b1, b2 = self.betas
        step, correction = self._scale
        x = p
        if self.weight_decay and self.decoupled:
            x = p * (1 - self._lr * self.weight_decay)
        elif self.weight_decay:
            g = g + p * self.weight_decay
        m = self.m[i] * b1 + g * (1 - b1)
        v = self.v[i] * b2 + g * g * (1 - b2)
        new = x - m * step / (v.sqrt() * correction + self.eps)
        return [self.m[i].assign(m), self.v[i].assign(v), p.assign(new)]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017): p shrinks by lr * weight_decay first."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class LAMB(Adam):
    """You et al. 2019: with u = m / c1 / (sqrt(v / c2) + eps) + weight_decay * p, p -= lr * |p| / |u| * u; the ratio is 1 where
    |p| or |u| is 0."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, i: int, p: Tensor, g: Tensor) -> list[Tensor]:
        b1, b2 = self.betas
        step, correction = self._scale  # lr / c1 and 1 / sqrt(c2)
        m = self.m[i] * b1 + g * (1 - b1)
        v = self.v[i] * b2 + g * g * (1 - b2)
        u = m * (step / self._lr) / (v.sqrt() * correction + self.eps) + p * self.weight_decay
        new = p - u * (trust(length(p), length(u)) * self._lr)
        return [self.m[i].assign(m), self.v[i].assign(v), p.assign(new)]


__all__ = ["LAMB", "Adam", "AdamW"]
