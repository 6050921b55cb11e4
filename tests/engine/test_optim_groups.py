"""Groups of parameters with settings of their own: steps, schedules and state against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.peer import draw, torch
from tinyengine import Tensor, jit, optim

OPTIMIZERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}, {"lr": 0.02, "momentum": 0.9, "dampening": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}, {"weight_decay": 0.1, "nesterov": False}),
    ("Adam", {"lr": 0.01}, {"lr": 0.002, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.0}, {"weight_decay": 0.3, "eps": 1e-3}),
]


def parameters(make: Any) -> list[Any]:
    return [make(draw(shape, -1, 1, k), requires_grad=True) for k, shape in enumerate([(3, 2), (4,), (2,)])]


def loss_of(ps: list[Any]) -> Any:
    a, b, c = ps
    return ((a @ c) ** 2).sum() + (b * b * b).sum() + (b[:2] * c).sum()


@pytest.mark.parametrize("name, first, second", OPTIMIZERS, ids=lambda x: str(x)[:40])
def test_steps_of_two_groups(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    def run(make: Any, library: Any) -> tuple[list[Any], Any]:
        ps = parameters(make)
        opt = getattr(library, name)([{"params": ps[:1]}, {"params": ps[1:], **second}], **first)
        schedule = library.lr_scheduler.StepLR(opt, 2, 0.5)
        for _ in range(5):
            opt.zero_grad()
            loss_of(ps).backward()
            opt.step()
            schedule.step()
        return ps, schedule

    (ours, schedule), (theirs, other) = run(Tensor, optim), run(torch.tensor, torch.optim)
    np.testing.assert_allclose(schedule.get_last_lr(), other.get_last_lr(), rtol=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_groups_read_and_write_like_dicts() -> None:
    ps = parameters(Tensor)
    opt = optim.Adam([{"params": ps[0], "lr": 0.5}, {"params": ps[1:]}], lr=0.25)
    assert [g["lr"] for g in opt.param_groups] == [0.5, 0.25] and opt.lr == 0.5
    assert [len(g["params"]) for g in opt.param_groups] == [1, 2] and opt.param_groups[1]["betas"] == (0.9, 0.999)
    opt.param_groups[1]["lr"] = 0.125
    opt.param_groups[0]["weight_decay"] = 0.5
    assert [g["lr"] for g in opt.param_groups] == [0.5, 0.125] and opt.param_groups[1]["weight_decay"] == 0.0
    opt.lr = 1.0
    assert [g["lr"] for g in opt.param_groups] == [1.0, 1.0]


def test_wrong_groups_are_refused() -> None:
    ps = parameters(Tensor)
    with pytest.raises(ValueError, match="in more than one group"):
        optim.SGD([{"params": ps}, {"params": ps[:1]}])
    with pytest.raises(
        ValueError, match=r"a group of parameters has params, lr, mom.*; got params, momentumm\n  at test_opt"
    ):
        optim.SGD([{"params": ps, "momentumm": 0.1}])
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        optim.SGD([{"params": ps[:1], "nesterov": True}, {"params": ps[1:]}])
    with pytest.raises(ValueError, match="learning rate must be at least 0"):
        optim.Adam([{"params": ps, "lr": -1}])
    with pytest.raises(TypeError, match="an optimizer takes tensors, not dict"):
        optim.Adam([ps[0], {"params": ps[1:]}])


@pytest.mark.parametrize("name", ["SGD", "Adam", "LAMB", "LARS"])
def test_state_goes_on_in_another_optimizer(name: str) -> None:
    """Three steps, then two by a new optimizer that takes the state over: as five steps of one."""
    options = {"momentum": 0.9, "dampening": 0.3} if name == "SGD" else {}

    def made() -> tuple[list[Tensor], Any, Any]:
        ps = parameters(Tensor)
        opt = getattr(optim, name)([{"params": ps[:1], "lr": 0.05}, {"params": ps[1:]}], lr=0.01, **options)
        return ps, opt, optim.lr_scheduler.CosineAnnealingLR(opt, 10)

    def steps(ps: list[Tensor], opt: Any, schedule: Any, n: int) -> None:
        for _ in range(n):
            opt.zero_grad()
            loss_of(ps).backward()
            opt.step()
            schedule.step()

    one, opt, schedule = made()
    steps(one, opt, schedule, 5)
    two, opt, schedule = made()
    steps(two, opt, schedule, 3)
    saved, rates = opt.state_dict(), schedule.state_dict()
    three, later, going_on = made()
    later.load_state_dict(saved)
    going_on.load_state_dict(rates)
    for p, q in zip(three, two, strict=True):
        p.assign(q).realize()
    steps(three, later, going_on, 2)
    for p, q in zip(one, three, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    with pytest.raises(ValueError, match="not of the same sizes"):
        getattr(optim, name)(parameters(Tensor)).load_state_dict(saved)


def test_rates_of_groups_are_seen_by_a_compiled_step() -> None:
    w = [Tensor(np.ones(2, np.float32), requires_grad=True) for _ in range(2)]
    opt = optim.SGD([{"params": w[:1], "lr": 1.0}, {"params": w[1:], "lr": 0.5}])

    @jit
    def step() -> Tensor:
        opt.zero_grad()
        loss = (w[0] + w[1]).sum()
        loss.backward()
        opt.step()
        return loss

    for k in range(4):
        opt.param_groups[1]["lr"] = 0.5 * 2**k
        step()
    assert w[0].tolist() == [-3.0, -3.0] and w[1].tolist() == [-6.5, -6.5]


def test_a_schedule_takes_several_optimizers() -> None:
    w = [Tensor(np.ones((2, 2), np.float32), requires_grad=True) for _ in range(2)]
    both = optim.OptimizerGroup(optim.SGD(w[:1], 1.0), optim.Muon(w[1:], 0.5))
    schedule = optim.lr_scheduler.LambdaLR(both, [lambda t: 1.0, lambda t: 0.5**t])
    schedule.step()
    assert schedule.get_last_lr() == [1.0, 0.25] == [g["lr"] for g in both.param_groups]
