"""What PyTorch keeps in torch.autograd: functions with a backward of their own, and gradients as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyengine.origin import user_line
from tinyengine.tensor import Function, Tensor, enable_grad, no_grad
from tinyengine.tensor.core import Base


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` (each times its `grad_outputs`) with respect to each of `inputs`.

    As torch.autograd.grad; the graph is always kept, so `retain_graph` changes nothing. Unless `create_graph`, the results are
    detached. RuntimeError when an input is not part of any output, or, with `allow_unused`, None in its place."""
    ys = [outputs] if isinstance(outputs, Base) else list(outputs)
    xs = [inputs] if isinstance(inputs, Base) else list(inputs)
    seeds = [grad_outputs] if grad_outputs is None or isinstance(grad_outputs, Base) else list(grad_outputs)
    total: list[Any] = [None] * len(xs)
    for y, seed in zip(ys, seeds if len(seeds) == len(ys) else [None] * len(ys), strict=True):
        for i, g in enumerate(y.partial(xs, seed)):
            total[i] = g if total[i] is None or g is None else total[i] + g
    unused = next((i for i, g in enumerate(total) if g is None), None)
    if unused is not None and not allow_unused:
        raise RuntimeError(f"grad: input {unused} is not part of the outputs; allow_unused=True gives None\n  at {user_line()}")
    return tuple([g if g is None or create_graph else g.detach() for g in total])


__all__ = ["Function", "enable_grad", "grad", "no_grad"]
