"""nn.functional, nn.init and containers: what PyTorch gives. See `alike` for how forms are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.alike import LAYOUTS, Operand, agree, forms_of, on_backends, torch
from tinyengine import Tensor, manual_seed, nn, optim, state

O = Operand

NORMS = """
    F.layer_norm(x, (4,))
    F.layer_norm(x, (4,), w)
    F.layer_norm(x, (4,), w, b, 1e-3)
    F.layer_norm(x, (3, 4))
    F.layer_norm(x, (5,))
    F.layer_norm(x, ())
    F.group_norm(x, 1)
    F.group_norm(x, 3)
    F.group_norm(x, 2)
    F.batch_norm(x, None, None, training=True)
    F.batch_norm(x, c.detach(), c.detach() ** 2 + 1)
    F.batch_norm(x, c.detach(), c.detach() ** 2 + 1, c, c * 2, eps=1e-3)
    F.rms_norm(x, (4,))
    F.rms_norm(x, (4,), w, 1e-3)
    F.rms_norm(x, (3, 4))
    F.rms_norm(x, (5,))
"""
IMAGES = [{"x": O((2, 3, 4), k), "w": O((4,)), "b": O((4,)), "c": O((3,))} for k in LAYOUTS[:4]]


@pytest.mark.parametrize("form", forms_of(NORMS))
def test_norms(form: str) -> None:
    agree(form, IMAGES, rtol=2e-5)
    agree(form, [{k: o._replace(dtype="float64") for k, o in IMAGES[0].items()}])


LOSSES = """
    F.cross_entropy(x, t)
    F.cross_entropy(x, t - 100)
    F.cross_entropy(x, t * 0 - 100, reduction='sum')
    F.nll_loss(x, t)
    F.binary_cross_entropy(x.sigmoid(), y.sigmoid().detach())
    F.binary_cross_entropy(x.sigmoid(), y.sigmoid().detach(), y.detach())
    F.binary_cross_entropy_with_logits(x, y.detach(), y.detach(), reduction='sum')
    F.smooth_l1_loss(x, y.detach())
    F.smooth_l1_loss(x, y.detach(), beta=0.3, reduction='sum')
    F.smooth_l1_loss(x, y.detach(), beta=0.0)
    F.huber_loss(x, y.detach(), delta=0.4, reduction='none')
    F.kl_div(x, y.sigmoid().detach())
    F.kl_div(x, y.relu().detach(), reduction='batchmean')
    F.kl_div(x, y.detach(), log_target=True, reduction='sum')
    F.cosine_similarity(x, y)
    F.cosine_similarity(x, y, dim=0)
    F.embedding(t, x)
    F.embedding(t, x, 1)
    F.embedding(t + 9, x)
    F.dropout(x, 0.0)
    F.dropout(x, 0.5, False)
    F.softmax(x, -1)
    F.linear(x, y)
    F.one_hot(t, 5)
    F.conv2d(x, y)
    F.avg_pool2d(x[None], 'a')
"""


@pytest.mark.parametrize("form", forms_of(LOSSES))
def test_losses_and_lookups(form: str) -> None:
    agree(form, [{"x": O((5, 4), k), "y": O((5, 4)), "t": O((5,), dtype="int64", low=0, high=3)} for k in LAYOUTS[:3]], rtol=2e-5)


@pytest.mark.parametrize("size", ["1", "3", "(2, 3)", "(None, 2)", "(1, None)", "7"])
def test_adaptive_pooling(size: str) -> None:
    agree(f"F.adaptive_avg_pool2d(x, {size})", [{"x": O((2, 3, 6, 7), k)} for k in LAYOUTS[:2]])


def test_on_all_backends() -> None:
    fine = [f for f in forms_of(NORMS) if "5,)" not in f and "())" not in f and ", 2)" not in f]
    on_backends("\n".join(fine), IMAGES[1])


FILLED = ("uniform_", "normal_", "trunc_normal_", "ones_", "zeros_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
          "kaiming_normal_")  # fmt: skip


@pytest.mark.parametrize("name", FILLED)
def test_initial_values_are_distributed_as_pytorchs(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(Tensor.zeros(60, 40, 5)), torch.empty(60, 40, 5)
    assert getattr(nn.init, name)(ours) is ours and ours.requires_grad
    a, b = np.sort(ours.numpy().reshape(-1)), np.sort(getattr(torch.nn.init, name)(theirs).numpy().reshape(-1))
    assert np.abs(a - b)[100:-100].max() <= 0.06 * max(np.abs(b).max(), 1e-9)  # quantiles of 12000 numbers


def test_what_cannot_be_filled_is_refused_as_there() -> None:
    for name, shape in (("xavier_normal_", (3,)), ("eye_", (2, 2, 2))):
        for init, t in ((nn.init, Tensor.zeros(*shape)), (torch.nn.init, torch.zeros(*shape))):
            with pytest.raises(ValueError):
                getattr(init, name)(t)
    assert nn.init.eye_(Tensor.zeros(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    for name in ("relu", "tanh", "linear", "conv2d", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


class Net(nn.Module):
    def __init__(self, n: Any) -> None:
        super().__init__()
        self.parts = n.ModuleList([n.Linear(2, 3), n.Linear(3, 2)])
        self.named = n.ModuleDict({"a": n.Linear(2, 2)})
        self.scale = n.Parameter(n.Linear(1, 1).bias.detach())

    def forward(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return self.named["a"](x) * self.scale


def test_containers_and_parameters_have_pytorchs_names() -> None:
    theirs = type("Net", (torch.nn.Module,), dict(Net.__dict__))
    theirs.__init__ = lambda self, n: (torch.nn.Module.__init__(self), _fill(self, n), None)[-1]
    manual_seed(0)
    ours, other = Net(nn), theirs(torch.nn)
    assert list(state.get_state_dict(ours)) == sorted(other.state_dict(), key=list(state.get_state_dict(ours)).index)
    other.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    x = np.ones((4, 2), np.float32)
    np.testing.assert_allclose(ours(Tensor(x)).numpy(), other(torch.tensor(x)).detach().numpy(), rtol=1e-5)
    assert ours.train(False).parts[1].training is False and len(ours.parts) == 2
    assert isinstance(ours.scale, Tensor) and ours.scale.requires_grad and "(1): Linear" in repr(ours)


def _fill(self: Any, n: Any) -> None:
    self.parts = n.ModuleList([n.Linear(2, 3), n.Linear(3, 2)])
    self.named = n.ModuleDict({"a": n.Linear(2, 2)})
    self.scale = n.Parameter(n.Linear(1, 1).bias.detach())


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    ours, theirs = nn.BatchNorm2d(3, momentum=None), torch.nn.BatchNorm2d(3, momentum=None)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((4, 3, 2, 2)).astype(np.float32)
        ours(Tensor(x)).realize()
        theirs(torch.tensor(x))
    np.testing.assert_allclose(ours.running_var.numpy(), theirs.running_var.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.running_mean.numpy(), theirs.running_mean.numpy(), rtol=1e-5, atol=1e-7)
    for layer, t in ((ours, Tensor.ones(4, 3)), (theirs, torch.ones(4, 3))):
        with pytest.raises(ValueError):
            layer(t)


def test_a_module_lists_its_parts_as_in_pytorch() -> None:
    ours, theirs = Sequence(nn), Sequence(torch.nn)
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert len(list(ours.modules())) == 5 and len(list(ours.children())) == 4 and len(list(ours.buffers())) == 3
    seen: list[Any] = []
    assert ours.apply(seen.append) is ours and seen[-1] is ours and len(seen) == 5
    ours.register_buffer("scale", Tensor([2.0]))
    assert "scale" in ours.state_dict()


def Sequence(n: Any) -> Any:
    return n.Sequential(n.Linear(2, 3), n.BatchNorm1d(3), n.ReLU(), n.Linear(3, 2))


@pytest.mark.parametrize("options", [{"momentum": -1.0}, {"weight_decay": -1.0}, {"lr": -1.0}])
def test_options_that_make_no_sense_are_refused_as_there(options: dict[str, float]) -> None:
    for kind, t in ((optim.SGD, Tensor([1.0], requires_grad=True)), (torch.optim.SGD, torch.ones(1, requires_grad=True))):
        with pytest.raises(ValueError):
            kind([t], **{"lr": 0.1, **options})


POOLS = [
    "AvgPool2d(2)", "AvgPool2d((3, 2), 2, 1)", "AvgPool2d(3, 2, 1, True, False)", "AvgPool2d(3, ceil_mode=True)",
    "MaxPool2d(2)", "MaxPool2d(3, 2, 1)", "MaxPool2d(2, 1, dilation=2)", "MaxPool2d(3, 2, 0, 1, True, True)",
    "AdaptiveAvgPool2d(1)", "AdaptiveAvgPool2d((3, None))", "AdaptiveAvgPool2d(5)",
]  # fmt: skip


@pytest.mark.parametrize("layer", POOLS)
def test_pooling_layers(layer: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 8)).astype(np.float32)
    ours, theirs = eval(f"nn.{layer}")(Tensor(x)), eval(f"torch.nn.{layer}")(torch.tensor(x))
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for a, b in pairs:
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-6)
