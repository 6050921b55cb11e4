"""Learning-rate schedules, with PyTorch's names and formulas. `scheduler.step()` after the optimizer's sets the rate of the
next step: a number in memory, so nothing compiles again, and a jitted step sees it. Call it outside
of jit: a replay runs no Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyengine.optim.base import Optimizer, OptimizerGroup
from tinyengine.origin import user_line

_Steps = Optimizer | OptimizerGroup


class LRScheduler:
    """`factor(t)` times the rate that each group of parameters had at construction, for t = 0, 1, 2...: the number of calls of
    `step` so far. Takes an optimizer or an OptimizerGroup."""

    def __init__(self, optimizer: _Steps) -> None:
        if not isinstance(optimizer, (Optimizer, OptimizerGroup)):
            raise TypeError(f"a schedule takes an optimizer, not {type(optimizer).__name__}\n  at {user_line()}")
        self.optimizer, self.last_epoch = optimizer, 0
        self.base_lrs = [float(g["lr"]) for g in optimizer.param_groups]
        self._set()

    def factor(self, t: int) -> float:
        raise NotImplementedError

    def rate(self, t: int, group: int) -> float:
        """The rate of that group after t steps."""
        return self.base_lrs[group] * self.factor(t)

    def _set(self) -> None:
        self._last = [self.rate(self.last_epoch, k) for k in range(len(self.base_lrs))]
        for g, rate in zip(self.optimizer.param_groups, self._last, strict=True):
            g["lr"] = rate

    def step(self) -> None:
        """Go on to the next rate."""
        self.last_epoch += 1
        self._set()

    def get_last_lr(self) -> list[float]:
        """The present rate of each group."""
        return list(self._last)

    def state_dict(self) -> dict[str, Any]:
        """All numbers of the schedule: what `load_state_dict` takes."""
        return {k: v for k, v in vars(self).items() if k != "optimizer" and not callable(v)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another schedule of this kind stood: the rates are set."""
        vars(self).update(state_dict)
        for g, rate in zip(self.optimizer.param_groups, self._last, strict=True):
            g["lr"] = rate


class LambdaLR(LRScheduler):
    """A function of t, or one for each group."""

    def __init__(self, optimizer: _Steps, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]) -> None:
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rate(self, t: int, group: int) -> float:
        f = self.lr_lambda if callable(self.lr_lambda) else self.lr_lambda[group]
        return self.base_lrs[group] * f(t)


class StepLR(LRScheduler):
    """Times gamma every `step_size` steps."""

    def __init__(self, optimizer: _Steps, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return self.gamma ** (t // self.step_size)


class MultiStepLR(LRScheduler):
    """Times gamma at each of `milestones`."""

    def __init__(self, optimizer: _Steps, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return self.gamma ** sum(m <= t for m in self.milestones)


class ExponentialLR(LRScheduler):
    """Times gamma every step."""

    def __init__(self, optimizer: _Steps, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return self.gamma**t


class ConstantLR(LRScheduler):
    """Times `factor` for the first `total_iters` steps."""

    def __init__(self, optimizer: _Steps, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.early, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return self.early if t < self.total_iters else 1.0


class LinearLR(LRScheduler):
    """From start_factor to end_factor in `total_iters` equal steps: a warm-up."""

    def __init__(self, optimizer: _Steps, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return self.start_factor + (self.end_factor - self.start_factor) * min(t, self.total_iters) / self.total_iters


class PolynomialLR(LRScheduler):
    """(1 - t / total_iters) ** power, 0 from there on."""

    def __init__(self, optimizer: _Steps, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return float((1 - min(t, self.total_iters) / self.total_iters) ** self.power)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the rate down to eta_min in T_max steps, and up again behind it (Loshchilov and Hutter 2016)."""

    def __init__(self, optimizer: _Steps, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, t: int, group: int) -> float:
        return self.eta_min + (self.base_lrs[group] - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2


class OneCycleLR(LRScheduler):
    """A cosine from max_lr / div_factor up to max_lr in the first pct_start of total_steps, then one down to 1 / final_div_factor
    of the start (Smith and Topin 2017). The momentum stays. ValueError beyond total_steps."""

    def __init__(
        self, optimizer: _Steps, max_lr: float | Sequence[float], total_steps: int, pct_start: float = 0.3,
        div_factor: float = 25.0, final_div_factor: float = 1e4,
    ) -> None:  # fmt: skip
        groups = len(optimizer.param_groups)
        self.max_lrs = [max_lr] * groups if isinstance(max_lr, (int, float)) else list(max_lr)
        if len(self.max_lrs) != groups:
            raise ValueError(f"{len(self.max_lrs)} rates max_lr for {groups} groups of parameters\n  at {user_line()}")
        self.total_steps, self.up = total_steps, pct_start * total_steps - 1
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        super().__init__(optimizer)

    def rate(self, t: int, group: int) -> float:
        if t > self.total_steps:
            raise ValueError(f"step {t} of a schedule of {self.total_steps} steps\n  at {user_line()}")
        top = self.max_lrs[group]
        start = top / self.div_factor
        if t <= self.up:
            a, b, part = start, top, t / self.up
        else:
            a, b, part = top, start / self.final_div_factor, (t - self.up) / (self.total_steps - 1 - self.up)
        return b + (a - b) / 2 * (1 + math.cos(math.pi * part))


class ReduceLROnPlateau(LRScheduler):
    """`step(loss)`: times `factor` when the loss was not below (1 - threshold) times its best for more than `patience` steps;
    mode 'max': not above (1 + threshold) times."""

    def __init__(
        self, optimizer: _Steps, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        cooldown: int = 0, min_lr: float = 0.0,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', not {mode!r}\n  at {user_line()}")
        if factor >= 1:
            raise ValueError(f"the factor must be below 1, not {factor}\n  at {user_line()}")
        self.mode, self.shrink, self.patience, self.threshold = mode, factor, patience, threshold
        self.cooldown, self.min_lr = cooldown, min_lr
        self.best, self.bad, self.wait = math.inf if mode == "min" else -math.inf, 0, 0
        super().__init__(optimizer)

    def rate(self, t: int, group: int) -> float:
        return self.base_lrs[group]

    def step(self, metrics: float | None = None) -> None:
        if metrics is None:
            raise TypeError(f"ReduceLROnPlateau.step takes the loss\n  at {user_line()}")
        now = float(metrics)
        self.last_epoch += 1
        better = now < self.best * (1 - self.threshold) if self.mode == "min" else now > self.best * (1 + self.threshold)
        self.best, self.bad = (now, 0) if better else (self.best, self.bad + 1)
        if self.wait > 0:
            self.wait, self.bad = self.wait - 1, 0
        if self.bad > self.patience:
            self.base_lrs = [max(rate * self.shrink, self.min_lr) for rate in self.base_lrs]
            self.wait, self.bad = self.cooldown, 0
            self._set()


__all__ = [
    "ConstantLR", "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
    "PolynomialLR", "ReduceLROnPlateau", "StepLR",
]  # fmt: skip
