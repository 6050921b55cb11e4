"""Adaptive moments: Adam, AdamW, and LAMB with a rate for each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyengine.optim.base import Group, Optimizer, length, named, trust
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


class Adam(Optimizer):
    """Kingma and Ba 2014, as in PyTorch: m, v are running means of g and g^2; p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps),
    where c = 1 - beta^t. weight_decay is added to g (AdamW: taken from p instead). amsgrad: in place of v the largest v so far
    (Reddi et al. 2018). maximize: g's sign is changed first."""

    decoupled = False
    per_parameter = ("m", "v", "v_max")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize}
        super().__init__(params, lr, **options)
        self.m = [self._like(p, "m") for p in self.params]
        self.v = [self._like(p, "v") for p in self.params]
        used = any(g["amsgrad"] for g in self.param_groups)
        self.v_max = [self._like(p, "v_max") for p in self.params] if used else []
        for group in self.param_groups:  # 1 - beta^t, kept as it is: c' = (1 - beta) + beta c loses nothing to cancellation
            group.memory = {f"c{i}": named(Tensor(np.float32(0.0)), f"1-beta{i}^t") for i in (1, 2)}

    def check(self, g: Group) -> None:
        if not all(0 <= b < 1 for b in g["betas"]):
            raise ValueError(f"betas must be at least 0 and below 1, not {g['betas']}\n  at {user_line()}")

    def begin(self, o: Group) -> list[Tensor]:
        (b1, b2), memory = o["betas"], o.memory
        c1, c2 = memory["c1"] * b1 + (1 - b1), memory["c2"] * b2 + (1 - b2)
        o.scale = (o.rate / c1, c2.rsqrt())
        return [memory["c1"].assign(c1), memory["c2"].assign(c2)]

    def moments(self, i: int, g: Tensor, o: Group) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """What is kept of parameter i with its new values, m, and sqrt(v) / sqrt(c2) + eps, where v is the one to divide by."""
        (b1, b2), (_, correction) = o["betas"], o.scale
        m = self.m[i] * b1 + g * (1 - b1)
        v = self.v[i] * b2 + g * g * (1 - b2)
        kept, largest = [(self.m[i], m), (self.v[i], v)], v
        if o["amsgrad"]:
            largest = self.v_max[i].maximum(v)
            kept.append((self.v_max[i], largest))
        return kept, m, largest.sqrt() * correction + o["eps"]

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        decay = o["weight_decay"]
        x = p
        if decay and self.decoupled:
            x = p * (1 - o.rate * decay)
        elif decay:
            g = g + p * decay
        kept, m, scale = self.moments(i, g, o)
        new = x - m * o.scale[0] / scale
        return [t.assign(value) for t, value in (*kept, (p, new))]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017): p shrinks by lr * weight_decay first."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class LAMB(Adam):
    """You et al. 2019: with u = m / c1 / (sqrt(v / c2) + eps) + weight_decay * p, p -= lr * |p| / |u| * u; the ratio is 1 where
    |p| or |u| is 0."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        kept, m, scale = self.moments(i, g, o)
        u = m * (o.scale[0] / o.rate) / scale + p * o["weight_decay"]  # scale[0]: lr / c1
        new = p - u * (trust(length(p), length(u)) * o.rate)
        return [t.assign(value) for t, value in (*kept, (p, new))]


__all__ = ["LAMB", "Adam", "AdamW"]
