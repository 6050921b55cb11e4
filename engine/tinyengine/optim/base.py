"""What all optimizers share. Each step is recorded (phase "optimizer") and computed in one program together with the gradients;
parameters and state are updated in place. Learning rate and counters live in memory, not in the graph: changing them compiles
nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinyengine import origin
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, force
from tinyengine.tensor.core import no_grad


def named(t: Tensor, name: str) -> Tensor:
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
        self._lr = named(Tensor(np.float32(lr)), "lr")

    @property
    def lr(self) -> float:
        """The learning rate; may be set at any time, between replays of a jitted step too."""
        return float(self._lr.item())

    @lr.setter
    def lr(self, value: float) -> None:
        memory = self._lr.node.arg
        memory.unshare()
        memory.array[...] = value

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
        return named(Tensor(np.zeros(p.shape, np.float32), dtype=p.dtype), f"{owner}.{what}" if owner else "")


class OptimizerGroup:
    """Several optimizers, for parts of a model with different settings; `step` computes all of them in one program."""

    def __init__(self, *optimizers: Optimizer) -> None:
        if not optimizers:
            raise ValueError(f"a group needs at least one optimizer\n  at {user_line()}")
        self.optimizers = list(optimizers)

    @property
    def params(self) -> list[Tensor]:
        return [p for o in self.optimizers for p in o.params]

    def __getitem__(self, i: int) -> Optimizer:
        return self.optimizers[i]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for o in self.optimizers:
            o.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient. RuntimeError when none has."""
        ready = [o for o in self.optimizers if any(p.grad is not None for p in o.params)]
        if not ready:
            raise RuntimeError(f"step: no parameter has a gradient; call backward() on a loss first\n  at {user_line()}")
        with no_grad(), origin.phase("optimizer"):
            force.realize([t for o in ready for t in o.schedule()], "step")


def length(x: Tensor) -> Tensor:
    """The square root of the sum of squares, without axes."""
    return (x * x).sum().sqrt()


def trust(a: Tensor, b: Tensor) -> Tensor:
    """a / b for lengths, 1 where either is 0."""
    return ((a > 0) & (b > 0)).where(a / b, 1.0)


__all__ = ["Optimizer", "OptimizerGroup", "length", "named", "trust"]
