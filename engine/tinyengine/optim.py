"""Optimizers. Each step is recorded (phase "optimizer") and computed in one program together with the gradients; parameters and
state are updated in place. Learning rate and counters live in memory, not in the graph: changing them compiles nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyengine import origin
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, force
from tinyengine.tensor.core import no_grad


def _named(t: Tensor, name: str) -> Tensor:
    """`t`, its memory called `name` for those who read kernels."""
    t.node.arg.name = name
    return t


class Optimizer:
    """`params`: tensors; those that do not require a gradient are left alone. Subclasses give `update`."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        given = list(params)
        wrong = next((p for p in given if not isinstance(p, Tensor)), None)
        if wrong is not None:
            raise TypeError(
                f"an optimizer takes tensors, not {type(wrong).__name__}; see state.get_parameters(model)\n  at {user_line()}"
            )
        self.params = list({id(p): p for p in given if p.requires_grad}.values())
        if not self.params:
            raise ValueError(f"no tensor that requires a gradient was given to the optimizer\n  at {user_line()}")
        if not lr >= 0:
            raise ValueError(f"the learning rate must be at least 0, not {lr}\n  at {user_line()}")
        force.realize(self.params, "optimizer")
        self._lr = _named(Tensor(np.float32(lr)), "lr")

    @property
    def lr(self) -> float:
        """The learning rate; may be set at any time, between replays of a jitted step too."""
        return float(self._lr.item())

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr.node.arg.array[...] = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient. RuntimeError when none has."""
        if all(p.grad is None for p in self.params):
            raise RuntimeError(f"step: no parameter has a gradient; call backward() on a loss first\n  at {user_line()}")
        with no_grad(), origin.phase("optimizer"):
            changed = self.schedule()
            force.realize(changed, "step")

    def schedule(self) -> list[Tensor]:
        """Record the updates; returns the tensors that they write."""
        changed = self.begin()
        for i, p in enumerate(self.params):
            if p.grad is not None:
                changed += self.update(i, p, p.grad)
        return changed

    def begin(self) -> list[Tensor]:
        """What is done once a step; returns what it writes."""
        return []

    def update(self, i: int, p: Tensor, g: Tensor) -> list[Tensor]:
        """Record the update of parameter i; returns the tensors that it writes."""
        raise NotImplementedError

    def _like(self, p: Tensor, what: str) -> Tensor:
        owner = p.node.arg.name if p.node.op == "buffer" else ""
        return _named(Tensor(np.zeros(p.shape, p.dtype.numpy)), f"{owner}.{what}" if owner else "")


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
        self.c1, self.c2 = (_named(Tensor(np.float32(0.0)), f"1-beta{i}^t") for i in (1, 2))
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


__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
