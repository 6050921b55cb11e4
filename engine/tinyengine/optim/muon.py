"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024, "Muon: an optimizer for hidden layers")."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinyengine.optim.base import Optimizer, length
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

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315), eps: float = 1e-7,
        ns_steps: int = 5,
    ) -> None:  # fmt: skip
        super().__init__(params, lr)
        other = next((p for p in self.params if p.ndim != 2), None)
        if other is not None:
            raise ValueError(f"Muon updates matrices, not a tensor of shape {list(other.shape)}\n  at {user_line()}")
        self.weight_decay, self.momentum, self.nesterov = weight_decay, momentum, nesterov
        self.ns_coefficients, self.eps, self.ns_steps = ns_coefficients, eps, ns_steps
        self.velocity = [self._like(p, "velocity") for p in self.params]

    def update(self, i: int, p: Tensor, g: Tensor) -> list[Tensor]:
        v = self.velocity[i] * self.momentum + g * (1 - self.momentum)
        u = orthogonal(
            g * (1 - self.momentum) + v * self.momentum if self.nesterov else v, self.ns_coefficients, self.ns_steps, self.eps
        )
        rate = self._lr * math.sqrt(max(1.0, p.shape[0] / p.shape[1]))
        return [self.velocity[i].assign(v), p.assign(p * (1 - self._lr * self.weight_decay) - u * rate)]


__all__ = ["Muon", "orthogonal"]
