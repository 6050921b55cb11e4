"""Layers, losses, optimizers and state against PyTorch; training on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.peer import Case, F, compare, draw, torch, value
from tinyengine import Tensor, data, jit, manual_seed, nn, optim, state
from tinyengine.node import toposort


def twin(ours: Any, theirs: Any) -> None:
    """Give PyTorch's module our values; names and shapes must agree."""
    mine = state.get_state_dict(ours)
    assert {k: v.shape for k, v in mine.items()} == {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in mine.items()})


LAYERS = [
    (lambda n: n.Linear(5, 3), (4, 5)),
    (lambda n: n.Linear(5, 3, bias=False), (2, 4, 5)),
    (lambda n: n.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 6)),
    (lambda n: n.Conv2d(4, 4, (3, 2), stride=2, groups=2, bias=False), (2, 4, 7, 6)),
    (lambda n: n.Conv1d(3, 4, 3), (2, 3, 8)),
    (lambda n: n.LayerNorm(5), (3, 5)),
    (lambda n: n.LayerNorm((4, 5)), (3, 4, 5)),
    (lambda n: n.BatchNorm1d(5), (6, 5)),
    (lambda n: n.BatchNorm2d(3), (4, 3, 2, 2)),
    (lambda n: n.GroupNorm(2, 4), (3, 4, 5)),
    (lambda n: n.ReLU(), (3,)),
    (lambda n: n.GELU(), (3,)),
    (lambda n: n.Sequential(n.Linear(5, 4), n.Tanh(), n.Linear(4, 2)), (3, 5)),
    (lambda n: n.Flatten(), (2, 3, 4)),
]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_layers_have_pytorchs_parameters_values_and_gradients(number: int) -> None:
    make, shape = LAYERS[number]
    ours, theirs = make(nn), make(torch.nn)
    twin(ours, theirs)
    compare(Case(repr(ours), ours, theirs, atol=1e-5), draw(shape, -1, 1, number))
    weights = list(zip(state.get_parameters(ours), theirs.parameters(), strict=True))
    for p, q in weights:
        np.testing.assert_allclose(value(p.grad), q.grad.numpy(), atol=1e-4, rtol=1e-4)


def test_initial_values_are_distributed_as_in_pytorch() -> None:
    manual_seed(0)
    torch.manual_seed(0)
    for make, fan_in in ((lambda n: n.Linear(50, 4000), 50), (lambda n: n.Conv2d(8, 2000, 3), 72)):
        for layer in (make(nn), make(torch.nn)):
            for p in (layer.weight, layer.bias):
                drawn = p.detach().numpy()
                assert abs(np.abs(drawn).max() * fan_in**0.5 - 1) < 0.01 and abs(drawn.std() * (3 * fan_in) ** 0.5 - 1) < 0.05
    manual_seed(0)
    a = nn.Linear(3, 3).weight.numpy()
    manual_seed(0)
    np.testing.assert_array_equal(a, nn.Linear(3, 3).weight.numpy())


def test_batch_norm_keeps_running_statistics_in_place_and_uses_them_in_evaluation() -> None:
    ours, theirs = nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    memory = ours.running_mean.node.arg
    for seed in range(3):
        x = draw((4, 3, 5, 5), -1, 2, seed)
        ours(Tensor(x)).realize()
        theirs(torch.tensor(x))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_allclose(getattr(ours, name).numpy(), getattr(theirs, name).numpy(), rtol=1e-5)
    assert ours.running_mean.node.arg is memory
    x = draw((2, 3, 4, 4), -1, 2, 9)
    np.testing.assert_allclose(ours.eval()(Tensor(x)).numpy(), theirs.eval()(torch.tensor(x)).detach().numpy(), atol=1e-5)
    assert not ours.training and ours.train().training


def test_embedding() -> None:
    ours, theirs = nn.Embedding(7, 4), torch.nn.Embedding(7, 4)
    twin(ours, theirs)
    index = np.array([[0, 6, 3], [3, 3, 1]])
    (ours(Tensor(index)) ** 2).sum().backward()
    (theirs(torch.tensor(index)) ** 2).sum().backward()
    assert ours(Tensor(index)).shape == (2, 3, 4)
    np.testing.assert_allclose(value(ours.weight.grad), theirs.weight.grad.numpy(), rtol=1e-5)


LOGITS, LABELS, SOFT = draw((6, 4), -3, 3, 1), np.array([0, 3, 1, 1, 2, 0]), np.abs(draw((6, 4), 0.1, 1, 2))
WEIGHT = np.array([0.5, 1.0, 2.0, 0.1], np.float32)
LOSSES: list[tuple[str, Any, Any]] = [
    *[
        (
            f"index {r}",
            lambda x, r=r: x.cross_entropy(Tensor(LABELS), reduction=r),
            lambda x, r=r: F.cross_entropy(x, torch.tensor(LABELS), reduction=r),
        )
        for r in ("mean", "sum", "none")
    ],
    (
        "weight",
        lambda x: x.cross_entropy(Tensor(LABELS), weight=Tensor(WEIGHT)),
        lambda x: F.cross_entropy(x, torch.tensor(LABELS), weight=torch.tensor(WEIGHT)),
    ),
    (
        "ignore",
        lambda x: x.cross_entropy(Tensor(LABELS), ignore_index=1),
        lambda x: F.cross_entropy(x, torch.tensor(LABELS), ignore_index=1),
    ),
    (
        "smooth",
        lambda x: x.cross_entropy(Tensor(LABELS), label_smoothing=0.2),
        lambda x: F.cross_entropy(x, torch.tensor(LABELS), label_smoothing=0.2),
    ),
    ("soft", lambda x: x.cross_entropy(Tensor(SOFT)), lambda x: F.cross_entropy(x, torch.tensor(SOFT))),
    (
        "pixels",
        lambda x: x.reshape(2, 4, 3).cross_entropy(Tensor(LABELS.reshape(2, 3))),
        lambda x: F.cross_entropy(x.reshape(2, 4, 3), torch.tensor(LABELS.reshape(2, 3))),
    ),
    ("one row", lambda x: x[0].cross_entropy(Tensor(2)), lambda x: F.cross_entropy(x[0], torch.tensor(2))),
    ("nll", lambda x: x.log_softmax(1).nll_loss(Tensor(LABELS)), lambda x: F.nll_loss(x.log_softmax(1), torch.tensor(LABELS))),
    (
        "bce",
        lambda x: x.sigmoid().binary_crossentropy(Tensor(SOFT)),
        lambda x: F.binary_cross_entropy(x.sigmoid(), torch.tensor(SOFT)),
    ),
    (
        "bce logits",
        lambda x: x.binary_crossentropy_logits(Tensor(SOFT)),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.tensor(SOFT)),
    ),
    ("mse", lambda x: x.mse_loss(Tensor(SOFT)), lambda x: F.mse_loss(x, torch.tensor(SOFT))),
    ("l1", lambda x: x.l1_loss(Tensor(SOFT)), lambda x: F.l1_loss(x, torch.tensor(SOFT))),
]


@pytest.mark.parametrize("name, ours, theirs", LOSSES, ids=[n for n, _, _ in LOSSES])
def test_losses(name: str, ours: Any, theirs: Any) -> None:
    compare(Case(name, ours, theirs, atol=5e-6), LOGITS)


OPTIMIZERS = [
    (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    (optim.Adam, torch.optim.Adam, {"lr": 0.05}),
    (optim.Adam, torch.optim.Adam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    (optim.AdamW, torch.optim.AdamW, {"lr": 0.05}),
    (optim.AdamW, torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.3}),
    (optim.Adam, torch.optim.Adam, {"lr": 0.05, "betas": (0.5, 0.5), "amsgrad": True}),
    (optim.AdamW, torch.optim.AdamW, {"lr": 0.05, "betas": (0.5, 0.5), "amsgrad": True, "maximize": True}),
    (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    (optim.RMSprop, torch.optim.RMSprop, {"lr": 0.05, "weight_decay": 0.1, "maximize": True}),
    (optim.Adagrad, torch.optim.Adagrad, {"lr": 0.05, "maximize": True}),
]


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)))
def test_optimizers_take_pytorchs_steps(number: int) -> None:
    mine, peer, options = OPTIMIZERS[number]
    a, b = draw((3, 4), -1, 1, 1), draw((4,), -1, 1, 2)
    xs, ts = [Tensor(v, requires_grad=True) for v in (a, b)], [torch.tensor(v, requires_grad=True) for v in (a, b)]
    memory = [x.node.arg for x in xs]
    ours, theirs = mine(xs, **options), peer(ts, **options)
    for step in range(6):
        if step == 4:
            ours.lr = 0.02
            theirs.param_groups[0]["lr"] = 0.02
        ours.zero_grad()
        theirs.zero_grad()
        ((xs[0] * xs[1]).sin() * 3).sum().backward()
        ((ts[0] * ts[1]).sin() * 3).sum().backward()
        ours.step()
        theirs.step()
        for x, t in zip(xs, ts, strict=True):
            np.testing.assert_allclose(x.numpy(), t.detach().numpy(), rtol=2e-5, atol=2e-6)
    assert [x.node.arg for x in xs] == memory  # updated in place
    assert ours.lr == np.float32(0.02)


def test_a_step_is_one_computation_and_its_loss_is_that_of_the_old_weights() -> None:
    from tinyengine import hooks

    w = Tensor([1.0, 2.0], requires_grad=True)
    opt = optim.SGD([w], lr=0.5)
    loss = (w * w).sum()
    loss.backward()
    seen: list[Any] = []
    with hooks.subscribed(seen.append, hooks.Launch):
        opt.step()
        assert loss.item() == 5.0
        assert w.grad is not None and w.grad.tolist() == [2.0, 4.0]
        assert w.tolist() == [0.0, 0.0]
    assert len(seen) == 1


def test_steps_share_one_program_also_with_another_learning_rate() -> None:
    from tinyengine import hooks

    model = nn.Linear(4, 2)
    opt = optim.Adam(model.parameters())
    misses: list[Any] = []

    def step(seed: int) -> None:
        opt.zero_grad()
        model(Tensor(draw((3, 4), -1, 1, seed))).cross_entropy(Tensor(np.array([0, 1, 1]))).backward()
        opt.step()

    step(0)
    with hooks.subscribed(misses.append, hooks.CacheMiss):
        step(1)
        opt.lr = 0.5
        step(2)
    assert misses == []


def test_optimizer_nodes_know_their_phase() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)
    opt = optim.SGD([w], lr=0.5, momentum=0.9)
    w.exp().sum().backward()
    from tinyengine import origin
    from tinyengine.tensor.core import no_grad

    with no_grad(), origin.phase("optimizer"):
        changed = opt.schedule()
    phases = {n.phase for t in changed for n in toposort([t.node]) if n.op != "buffer"}
    assert phases == {"forward", "backward", "optimizer"}
    assert all(t.node.op == "assign" for t in changed)
    for t in changed:
        t.realize()


def test_optimizers_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="no tensor that requires a gradient"):
        optim.SGD([Tensor([1.0])])
    with pytest.raises(TypeError, match="takes tensors, not Linear"):
        optim.SGD([nn.Linear(2, 2)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least 0, not -1"):
        optim.SGD([Tensor([1.0], requires_grad=True)], lr=-1)
    with pytest.raises(RuntimeError, match="call backward"):
        optim.SGD([Tensor([1.0], requires_grad=True)]).step()


class Plain:
    """A network that does not inherit from Module."""

    def __init__(self) -> None:
        self.fc1 = nn.Linear(4, 8)
        self.blocks = [nn.Linear(8, 8), nn.LayerNorm(8)]
        self.head = {"out": nn.Linear(8, 2)}

    def __call__(self, x: Tensor) -> Tensor:
        x = self.fc1(x).relu()
        for layer in self.blocks:
            x = layer(x)
        return self.head["out"](x)


class Inner(nn.Module):
    def __init__(self) -> None:
        self.a = nn.Linear(4, 4)
        self.seq = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(self.a(x)) + 1


class Outer(nn.Module):
    def __init__(self) -> None:
        self.inner = Inner()

    def __call__(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2


def modules(t: Tensor) -> list[str]:
    out: list[str] = []
    for n in toposort([t.node]):
        for o in n.origin:
            if o.module not in out:
                out.append(o.module)
    return out


def test_nodes_know_their_place_in_the_network() -> None:
    model = Plain()
    y = model(Tensor(draw((2, 4), -1, 1, 1)))
    assert modules(y) == ["", "model.fc1", "model.blocks.0", "model.blocks.1", "model.head.out"]
    net = Outer()
    y = net(Tensor(draw((2, 4), -1, 1, 1)))
    assert modules(y) == ["", "net.inner.a", "net.inner.seq.0", "net.inner.seq.1", "net.inner", "net"]
    y.sum().backward()
    assert net.inner.a.weight.grad.node.origin[0].module == "net.inner.a"
    pair = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert modules(pair(Tensor(draw((2, 4), -1, 1, 1)))) == ["", "pair.0", "pair.1"]
    assert repr(pair) == "Sequential(\n  (0): Linear(in_features=4, out_features=4, bias=True)\n  (1): ReLU()\n)"
    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    assert modules(Tensor(draw((2, 4), -1, 1, 1)).sequential(layers)) == ["", "layers.0", "layers.1"]
    assert modules(nn.Linear(4, 4)(Tensor(draw((2, 4), -1, 1, 1)))) == ["", "linear"]


def test_state_of_models(tmp_path: Path) -> None:
    model = Plain()
    names = [
        "fc1.weight",
        "fc1.bias",
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.weight",
        "blocks.1.bias",
        "head.out.weight",
        "head.out.bias",
    ]
    assert list(state.get_state_dict(model)) == names
    assert [k for k, _ in Outer().named_parameters()] == [
        "inner.a.weight",
        "inner.a.bias",
        "inner.seq.0.weight",
        "inner.seq.0.bias",
    ]
    path = tmp_path / "model.safetensors"
    state.safe_save(state.get_state_dict(model), path, {"made": "here"})
    other = Plain()
    memory = other.fc1.weight.node.arg
    state.load_state_dict(other, state.safe_load(path))
    assert other.fc1.weight.node.arg is memory and other.fc1.weight.requires_grad
    for k, v in state.get_state_dict(other).items():
        np.testing.assert_array_equal(v.numpy(), state.get_state_dict(model)[k].numpy())
    with pytest.raises(RuntimeError, match=r"missing \['fc1.bias'\], unexpected \['x'\]"):
        state.load_state_dict(other, {k if k != "fc1.bias" else "x": v for k, v in state.safe_load(path).items()})
    wrong = state.safe_load(path) | {"fc1.bias": Tensor([1.0])}
    with pytest.raises(RuntimeError, match=r"fc1.bias has shape \[1\], expected \[8\]"):
        state.load_state_dict(other, wrong)


def test_safetensors_of_every_dtype_and_the_layout_of_the_file(tmp_path: Path) -> None:
    from tinyengine import dtypes

    path = tmp_path / "t.safetensors"
    tensors = {d.name: Tensor(draw((2, 3), 0, 2, 1, d.values.name), d) for d in dtypes.ALL} | {
        "scalar": Tensor(2.5),
        "empty": Tensor(np.zeros((0, 3), np.float32)),
    }
    state.safe_save(tensors, path)
    back = state.safe_load(path)
    assert list(back) == list(tensors)
    for k, t in tensors.items():
        assert back[k].dtype is t.dtype and back[k].shape == t.shape
        assert back[k].tolist() == t.tolist()
    raw = path.read_bytes()
    assert int.from_bytes(raw[:8], "little") % 8 == 0 and raw[8:9] == b"{" and b'"float32":{"dtype":"F32","shape":[2,3]' in raw
    for damage, why in [
        (raw[:5], "too few"),
        (raw[:60], "header should have"),
        (raw[:-4], "does not fit bytes"),
        (raw.replace(b'"F32"', b'"F99"'), "not understood"),
        (raw[:8] + b"x" + raw[9:], "not JSON"),
    ]:
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=why):
            state.safe_load(path)


def test_digits_are_split_the_same_way_each_time() -> None:
    pytest.importorskip("sklearn")
    xtr, ytr, xte, yte = data.digits()
    assert xtr.shape == (1438, 64) and xte.shape == (359, 64) and xtr.dtype == np.float32 and ytr.dtype == np.int32
    assert xtr.min() == 0.0 and xtr.max() == 1.0 and set(yte) == set(range(10))
    np.testing.assert_array_equal(data.digits()[0], xtr)
    everything = np.concatenate([np.column_stack([xtr, ytr]), np.column_stack([xte, yte])])
    from sklearn.datasets import load_digits

    known = load_digits()
    reference = np.column_stack([known.data / 16, known.target])
    np.testing.assert_allclose(np.array(sorted(map(tuple, everything))), np.array(sorted(map(tuple, reference))))


def test_batches() -> None:
    x = np.arange(10)
    got = list(data.batches(x, x * 2, size=4, seed=1))
    assert len(got) == 2 and all((b == 2 * a).all() and len(a) == 4 for a, b in got)
    assert len(list(data.batches(x, size=4, drop_last=False))) == 3
    assert [a.tolist() for (a,) in data.batches(x, size=5, shuffle=False)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    manual_seed(3)
    first = [a.tolist() for (a,) in data.batches(x, size=5)]
    manual_seed(3)
    assert first == [a.tolist() for (a,) in data.batches(x, size=5)]
    with pytest.raises(ValueError, match=r"one length .* got \[10, 3\]"):
        list(data.batches(x, x[:3], size=2))


def test_training_the_digits_with_jit() -> None:
    pytest.importorskip("sklearn")
    manual_seed(1)
    xtr, ytr, xte, yte = data.digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    opt = optim.Adam(model.parameters(), lr=0.01)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        opt.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        opt.step()
        return loss

    losses = [step(Tensor(x), Tensor(y)).item() for _ in range(6) for x, y in data.batches(xtr, ytr, size=64)]
    accuracy = (model(Tensor(xte)).argmax(1) == Tensor(yte)).float().mean().item()
    assert losses[0] > 2 and losses[-1] < 0.3 and accuracy > 0.93
