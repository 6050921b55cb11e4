"""What a training loop does to all gradients at once, by PyTorch's names."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinyengine.origin import user_line
from tinyengine.tensor import Tensor
from tinyengine.tensor.core import no_grad


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale the gradients so that the norm of all their elements together is at most `max_norm`; returns the norm before, lazy,
    without axes. Those that have no gradient are left out. norm_type: 2, another power, or inf for the largest element. Gradients
    are multiplied by min(1, max_norm / (norm + 1e-6)), as in PyTorch (Pascanu et al. 2013)."""
    owners = _with_gradient(parameters)
    with no_grad():
        if norm_type == math.inf:
            parts = [p.grad.abs().max() for p in owners if p.grad is not None]
            norm = parts[0] if parts else Tensor(0.0)
            for part in parts[1:]:
                norm = norm.maximum(part)
        else:
            if norm_type <= 0:
                raise ValueError(f"clip_grad_norm_: a norm has a power above 0, not {norm_type}\n  at {user_line()}")
            norm = Tensor(0.0)
            for p in owners:
                g = p.grad
                assert g is not None
                norm = norm + (g * g if norm_type == 2 else g.abs() ** norm_type).sum()
            norm = norm.sqrt() if norm_type == 2 else norm ** (1 / norm_type)
        factor = (max_norm / (norm + 1e-6)).minimum(1.0)
        for p in owners:
            assert p.grad is not None
            p.grad = p.grad * factor.cast(p.grad.dtype)
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of the gradients into ±clip_value."""
    with no_grad():
        for p in _with_gradient(parameters):
            assert p.grad is not None
            p.grad = p.grad.clamp(-clip_value, clip_value)


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    wrong = next((p for p in tensors if not isinstance(p, Tensor)), None)
    if wrong is not None:
        raise TypeError(f"gradients belong to tensors, not {type(wrong).__name__}; see model.parameters()\n  at {user_line()}")
    return [p for p in tensors if p.grad is not None]


__all__ = ["clip_grad_norm_", "clip_grad_value_"]
