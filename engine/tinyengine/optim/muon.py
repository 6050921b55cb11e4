"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024, "Muon: an optimizer for hidden layers")."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinyengine.optim.base import Group, Optimizer, length
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


def orthogonal(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """About U V^T for x = U S V^T, (rows, columns): `steps` times X <- a X + (b A + c A A) X with
    A = X X^T (Newton and Schulz). In the dtype of x (PyTorch: in bfloat16)."""
    a, b, c = coefficients
    wide = x.shape[0] <= x.shape[1]
    y = x if wide else x.T
    y = y / length(y).maximum(eps)
    for _ in range(steps):
        gram = y @ y.T
        y = y * a + (gram * b + (gram @ gram) * c) @ y
    return y if wide else y.T


class Muon(Optimizer):
    """For matrices, as torch.optim.Muon: v = momentum * v + (1 - momentum) * g; u = orthogonal(g + momentum * (v - g) if nesterov
    else v); p *= 1 - lr * weight_decay; p -= lr * sqrt(max(1, rows / columns)) * u. ValueError for tensors that are no
    matrices: give those to another optimizer, in an OptimizerGroup."""

    per_parameter = ("velocity",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315), eps: float = 1e-7,
        ns_steps: int = 5,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_coefficients=ns_coefficients, eps=eps,
            ns_steps=ns_steps,
        )  # fmt: skip
        other = next((p for p in self.params if p.ndim != 2), None)
        if other is not None:
            raise ValueError(f"Muon updates matrices, not a tensor of shape {list(other.shape)}\n  at {user_line()}")
        self.velocity = [self._like(p, "velocity") for p in self.params]

    def update(self, i: int, p: Tensor, g: Tensor, o: Group) -> list[Tensor]:
        k = o["momentum"]
        v = self.velocity[i] * k + g * (1 - k)
        u = orthogonal(g * (1 - k) + v * k if o["nesterov"] else v, o["ns_coefficients"], o["ns_steps"], o["eps"])
        rate = o.rate * math.sqrt(max(1.0, p.shape[0] / p.shape[1]))
        return [self.velocity[i].assign(v), p.assign(p * (1 - o.rate * o["weight_decay"]) - u * rate)]


__all__ = ["Muon", "orthogonal"]
