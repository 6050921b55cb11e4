"""Transposed convolutions, instance norm, LSTM cell; LARS, LAMB, Muon, groups and learning-rate schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.peer import Case, compare, draw, torch, value
from tests.engine.test_nn import twin
from tinyengine import Tensor, hooks, jit, nn, optim, state

LAYERS = [
    (lambda n: n.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5, 4)),
    (lambda n: n.ConvTranspose2d(3, 2, (2, 3), bias=False, dilation=2), (1, 3, 4, 4)),
    (lambda n: n.ConvTranspose1d(3, 4, 4, stride=2), (2, 3, 5)),
    (lambda n: n.Conv3d(2, 3, 2, padding=1), (1, 2, 3, 4, 3)),
    (lambda n: n.InstanceNorm2d(3), (2, 3, 4, 5)),
    (lambda n: n.InstanceNorm1d(3, affine=True), (2, 3, 6)),
    (lambda n: n.Sequential(n.Flatten(2), n.LeakyReLU(0.2, inplace=False), n.Identity(3)), (2, 3, 4, 5)),
    (lambda n: n.Sequential(n.ELU(0.5), n.GELU("tanh"), n.Hardtanh(-0.2, 0.4), n.Softplus(2.0)), (2, 7)),
    (lambda n: n.Sequential(n.CELU(), n.Mish(), n.SELU(), n.Hardswish(), n.Hardsigmoid(), n.ReLU6()), (2, 7)),
    (lambda n: n.Sequential(n.Softsign(), n.LogSigmoid(), n.LogSoftmax(dim=1), n.Softmin(0), n.Softmax(1)), (2, 7)),
]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_have_pytorchs_parameters_values_and_gradients(number: int) -> None:
    make, shape = LAYERS[number]
    ours, theirs = make(nn), make(torch.nn)
    twin(ours, theirs)
    compare(Case(repr(ours), ours, theirs, atol=1e-5), draw(shape, -1, 1, number))
    for p, q in zip(state.get_parameters(ours), theirs.parameters(), strict=True):
        np.testing.assert_allclose(value(p.grad), q.grad.numpy(), atol=1e-4, rtol=1e-4)


def test_initial_values_of_transposed_convolutions() -> None:
    for layer in (nn.ConvTranspose2d(300, 80, 3, groups=4), torch.nn.ConvTranspose2d(300, 80, 3, groups=4)):
        for p in (layer.weight, layer.bias):
            assert abs(np.abs(p.detach().numpy()).max() * (20 * 9) ** 0.5 - 1) < 0.05


def test_layer_norm_over_channels() -> None:
    ours, theirs = nn.LayerNorm2d(5), torch.nn.LayerNorm(5)
    twin(ours, theirs)
    a = draw((2, 5, 3, 4), -1, 1, 1)
    compare(Case("norm", ours, lambda t: theirs(t.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), atol=1e-5), a)


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_cell(bias: bool) -> None:
    ours, theirs = nn.LSTMCell(4, 3, bias), torch.nn.LSTMCell(4, 3, bias)
    twin(ours, theirs)
    arrays = [draw(s, -1, 1, i) for i, s in enumerate([(2, 4), (2, 3), (2, 3)])]
    for k in (0, 1):
        compare(Case("cell", lambda x, h, c: ours(x, (h, c))[k], lambda x, h, c: theirs(x, (h, c))[k], atol=1e-5), *arrays)  # noqa: B023
    compare(Case("no state", lambda x: ours(x)[0], lambda x: theirs(x)[0], atol=1e-5), arrays[0])
    compare(Case("no batch", lambda x: ours(x[0])[0], lambda x: theirs(x[0])[0], atol=1e-5), arrays[0])
    with pytest.raises(RuntimeError, match=r"takes \(N, 4\), got shape \[2, 3\]"):
        ours(Tensor(arrays[1]))


def test_what_layers_refuse() -> None:
    with pytest.raises(TypeError, match=r"LeakyReLU\(.*negative_slope.*\n  at .*test_nn_more"):
        nn.LeakyReLU(slope=0.1)
    with pytest.raises(NotImplementedError, match="keeps no running statistics"):
        nn.InstanceNorm2d(3, track_running_stats=True)
    for n in (nn, torch.nn):
        with pytest.raises(ValueError):
            n.ConvTranspose2d(3, 4, 2, groups=2)
        with pytest.raises(ValueError):
            n.InstanceNorm1d(3)((Tensor if n is nn else torch).ones(2, 3, 1))


def norm(x: Any) -> float:
    return float(np.sqrt((x * x).sum()))


def lars(p: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    rate = 1e-3 * norm(p) / (norm(g) + 0.1 * norm(p)) if norm(p) > 0 and norm(g) > 0 else 1.0
    s["v"] = 0.9 * s.get("v", 0) + (g + 0.1 * p) * rate * 0.5
    return p - s["v"]


def lamb(p: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    u = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-6) + 0.1 * p
    return p - 0.05 * (norm(p) / norm(u) if norm(p) > 0 and norm(u) > 0 else 1.0) * u


@pytest.mark.parametrize(
    "rule, make",
    [(lars, lambda p: optim.LARS(p, lr=0.5, weight_decay=0.1)), (lamb, lambda p: optim.LAMB(p, lr=0.05, weight_decay=0.1))],
)
def test_rates_for_each_layer_follow_their_papers(rule: Any, make: Any) -> None:
    start = [draw((3, 4), -1, 1, 1), draw((4,), -1, 1, 2), np.zeros(4, np.float32)]
    xs = [Tensor(a, requires_grad=True) for a in start]
    expected, states = [a.astype(np.float64) for a in start], [{}, {}, {}]  # type: list[Any], list[dict[str, Any]]
    opt = make(xs)
    for t in range(1, 5):
        opt.zero_grad()
        ((xs[0] * xs[1] + xs[2]).sin() * 3).sum().backward()
        ts = [torch.tensor(e, requires_grad=True) for e in expected]
        ((ts[0] * ts[1] + ts[2]).sin() * 3).sum().backward()
        opt.step()
        expected = [rule(e, q.grad.numpy(), s, t) for e, q, s in zip(expected, ts, states, strict=True)]
        for x, e in zip(xs, expected, strict=True):
            np.testing.assert_allclose(x.numpy(), e, rtol=1e-4, atol=1e-5)


def muon(p: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g
    u = 0.05 * g + 0.95 * s["v"]
    x = u if p.shape[0] <= p.shape[1] else u.T
    x = x / norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    u = x if p.shape[0] <= p.shape[1] else x.T
    return p * (1 - 0.02 * 0.1) - 0.02 * max(1.0, p.shape[0] / p.shape[1]) ** 0.5 * u


@pytest.mark.parametrize("shape", [(3, 6), (6, 3)])
def test_muon_takes_pytorchs_steps_up_to_its_bfloat16(shape: Any) -> None:
    a = draw(shape, -1, 1, 1)
    x, t = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
    ours, theirs = optim.Muon([x], lr=0.02), torch.optim.Muon([t], lr=0.02)
    exact, kept = a.astype(np.float64), {}  # type: Any, dict[str, Any]
    for step in range(1, 4):
        for o, p in ((ours, x), (theirs, t)):
            o.zero_grad()
            (p.sin() * 3).sum().backward()
            o.step()
        exact = muon(exact, 3 * np.cos(exact), kept, step)
        np.testing.assert_allclose(x.numpy(), exact, atol=1e-5)
        np.testing.assert_allclose(x.numpy(), t.detach().numpy(), atol=2e-3)
    assert np.abs(x.numpy() - a).max() > 0.02
    for f in (
        lambda: optim.Muon([Tensor([1.0], requires_grad=True)]),
        lambda: torch.optim.Muon([torch.ones(1, requires_grad=True)]),
    ):
        with pytest.raises(ValueError):
            f()


def test_a_group_steps_in_one_computation() -> None:
    w, b = (Tensor(draw(s, -1, 1, 1), requires_grad=True) for s in ((3, 3), (3,)))
    opt = optim.OptimizerGroup(optim.Muon([w]), optim.SGD([b], lr=0.5))
    before = [p.numpy() for p in (w, b)]
    seen: list[hooks.Event] = []
    with pytest.raises(RuntimeError, match="no parameter has a gradient"):
        opt.step()
    (w @ b).square().sum().backward()
    with hooks.subscribed(seen.append, hooks.Launch):
        opt.step()
    assert len(seen) == 1 and all((p.numpy() != old).all() for p, old in zip(opt.params, before, strict=True))
    opt.zero_grad()
    assert w.grad is None and b.grad is None


S, P = optim.lr_scheduler, torch.optim.lr_scheduler
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("LambdaLR", {"lr_lambda": lambda t: 1 / (t + 1)}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 3}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 4}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.8, "total_steps": 12}),
]


@pytest.mark.parametrize("name, options", SCHEDULES, ids=[n for n, _ in SCHEDULES])
def test_schedules_give_pytorchs_rates(name: str, options: dict[str, Any]) -> None:
    ours = optim.SGD([Tensor([1.0], requires_grad=True)], lr=0.3)
    theirs = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.3)
    a = getattr(S, name)(ours, **options)
    more = {"cycle_momentum": False} if name == "OneCycleLR" else {}
    b = getattr(P, name)(theirs, **options, **more)
    for _ in range(11):
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-5, atol=1e-9)
        assert ours.lr == np.float32(a.get_last_lr()[0])
        theirs.step()
        a.step()
        b.step()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_rates_fall_on_a_plateau(mode: str) -> None:
    ours = optim.SGD([Tensor([1.0], requires_grad=True)], lr=0.3)
    theirs = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.3)
    options = {"mode": mode, "factor": 0.5, "patience": 1, "cooldown": 1, "min_lr": 0.05}
    a, b = S.ReduceLROnPlateau(ours, **options), P.ReduceLROnPlateau(theirs, **options)
    for loss in (5, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3, 9, 9, 9):
        a.step(loss)
        b.step(loss)
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-6)
    with pytest.raises(ValueError, match="mode is 'min' or 'max'"):
        S.ReduceLROnPlateau(ours, "low")
    with pytest.raises(TypeError, match="a schedule takes an optimizer, not int"):
        S.StepLR(3, 1)  # type: ignore[arg-type]


def test_a_jitted_step_follows_the_schedule() -> None:
    w = Tensor([1.0], requires_grad=True)
    opt = optim.SGD([w], lr=1.0)
    schedule = S.StepLR(opt, 1, gamma=0.5)

    @jit
    def step(x: Tensor) -> Tensor:
        opt.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        opt.step()
        return loss

    for _ in range(4):
        step(Tensor([1.0]))
        schedule.step()
    np.testing.assert_allclose(w.numpy(), [1 - 1 - 0.5 - 0.25 - 0.125])


@pytest.mark.parametrize("norm_type", [2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_gradients_are_clipped_by_the_norm_of_all(max_norm: float, norm_type: float) -> None:
    arrays = [draw(s, -1, 1, k) for k, s in enumerate([(3, 4), (4,), (2,)])]
    ours, theirs = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    for p in (ours, theirs):
        ((p[0] * p[1]).sin() * 3).sum().backward()  # the third has no gradient
    a = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    for x, t in zip(ours[:2], theirs, strict=False):
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert ours[2].grad is None


def test_gradients_are_clipped_one_by_one() -> None:
    w = Tensor(draw((5,), -2, 2, 1), requires_grad=True)
    (w * w).sum().backward()
    nn.utils.clip_grad_value_(w, 0.5)
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), np.clip(2 * draw((5,), -2, 2, 1), -0.5, 0.5))
    with pytest.raises(TypeError, match=r"gradients belong to tensors, not str; see model.parameters\(\)\n  at .*test_nn_more"):
        nn.utils.clip_grad_norm_(["w"], 1.0)  # type: ignore[list-item]
