"""Names that code written for PyTorch reaches for: layers over sequences, pictures and bags, conversion and freezing of modules,
and arguments of optimizers, beside PyTorch's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tests.engine.peer import Case, compare, draw, torch, value
from tests.engine.test_nn import twin
from tinyengine import Tensor, dtypes, jit, nn, no_grad, optim

LAYERS: list[tuple[str, tuple[int, ...]]] = [
    ("MaxPool1d(3, 2, 1)", (2, 3, 9)),
    ("MaxPool1d(2, ceil_mode=True)", (3, 7)),
    ("MaxPool1d((2,), 1, 0, (3,))", (2, 3, 8)),
    ("AvgPool1d(3, 2, 1)", (2, 3, 9)),
    ("AvgPool1d(2, padding=1, ceil_mode=True, count_include_pad=False)", (2, 3, 8)),
    ("Upsample(scale_factor=2)", (2, 3, 4, 5)),
    ("Upsample((6, 7), mode='bilinear', align_corners=True)", (2, 3, 4, 5)),
    ("Upsample(9, mode='linear')", (2, 3, 4)),
    ("PixelShuffle(2)", (2, 8, 3, 4)),
    ("PixelShuffle(3)", (9, 2, 1)),
    ("PixelUnshuffle(2)", (2, 3, 4, 6)),
    ("Unflatten(1, (2, -1))", (3, 6, 2)),
    ("ZeroPad2d(2)", (2, 3, 4, 5)),
    ("ZeroPad2d((1, -1, 0, 2))", (2, 3, 4, 5)),
    ("ZeroPad1d((0, 2))", (2, 3, 4)),
    ("ReflectionPad2d((1, 2, 3, 0))", (2, 3, 4, 5)),
    ("ReflectionPad1d(3)", (2, 3, 4)),
    ("ReplicationPad2d((1, 0, 2, 5))", (2, 3, 4, 5)),
    ("ReplicationPad1d(5)", (2, 3, 4)),
    ("PReLU()", (2, 3, 4)),
    ("PReLU(3, init=-0.5)", (2, 3, 4, 2)),
    ("PReLU(3)", (5, 3)),
    ("Dropout2d(0.0)", (2, 3, 4, 5)),
]


@pytest.mark.parametrize("layer, shape", LAYERS, ids=str)
def test_layers_have_pytorchs_values_and_gradients(layer: str, shape: tuple[int, ...]) -> None:
    ours, theirs = eval(f"nn.{layer}"), eval(f"torch.nn.{layer}")
    twin(ours, theirs)
    compare(Case(layer, ours, theirs), draw(shape, -1, 1, 3))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(value(p.grad), q.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_positions_of_maxima_along_one_axis() -> None:
    x = draw((2, 3, 9), -1, 1, 0)
    ours, theirs = (n.MaxPool1d(3, 2, 1, 1, True) for n in (nn, torch.nn))
    for a, b in zip(ours(Tensor(x)), theirs(torch.tensor(x)), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_compiled_results_are_those_of_the_graphs() -> None:
    x = Tensor(draw((2, 8, 4, 6), -1, 1, 1))
    for f in (nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ReflectionPad2d(1), nn.PReLU(8), nn.Upsample(scale_factor=2)):
        y = f(x)
        expected = value(y)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6)


def test_dropout_of_whole_channels() -> None:
    layer = nn.Dropout2d(0.4)
    y = layer(Tensor.ones(40, 30, 2, 3)).numpy().reshape(1200, 6)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.6)} and (y == y[:, :1]).all()
    assert abs((y[:, 0] == 0).mean() - 0.4) < 0.08
    x = Tensor.ones(2, 3, 4)
    assert layer.eval()(x).tolist() == x.tolist() and not nn.functional.dropout2d(x, 1.0).numpy().any()


BAGS = [(mode, padding, form) for mode in ("sum", "mean", "max") for padding in (None, 2) for form in ("rows", "offsets", "last")]


@pytest.mark.parametrize("mode, padding, form", BAGS)
def test_bags_of_rows(mode: str, padding: int | None, form: str) -> None:
    ids = np.array([1, 3, 2, 2, 0, 4, 2, 1, 1, 3, 2, 2])
    offsets = np.array([0, 3, 3, 6, 10, 12][: 6 if form == "last" else 5])
    weight = draw((5, 4), -1, 1, 5)
    options: dict[str, Any] = {"mode": mode, "padding_idx": padding, "include_last_offset": form == "last"}

    def with_(make: Any, F: Any) -> Any:
        at = make(ids.reshape(4, 3) if form == "rows" else ids)
        return lambda w: F.embedding_bag(at, w, None if form == "rows" else make(offsets), **options)

    compare(Case(f"{options}", with_(Tensor, nn.functional), with_(torch.tensor, torch.nn.functional)), weight)


def test_bags_with_weights_and_as_a_layer() -> None:
    ids, factors = np.array([[0, 1], [3, 3]]), draw((2, 2), -1, 1, 1)
    weight = draw((4, 3), -1, 1, 2)
    f, g = (
        lambda w, p, F=F, make=make: F.embedding_bag(make(ids), w, mode="sum", per_sample_weights=p)
        for F, make in ((nn.functional, Tensor), (torch.nn.functional, torch.tensor))
    )
    compare(Case("weights", f, g), weight, factors)
    ours, theirs = (n.EmbeddingBag(4, 3, mode="max", padding_idx=1) for n in (nn, torch.nn))
    assert not ours.weight.numpy()[1].any()
    twin(ours, theirs)
    flat, offsets = ids.reshape(-1), np.array([0, 2])
    got, expected = ours(Tensor(flat), Tensor(offsets)), theirs(torch.tensor(flat), torch.tensor(offsets))
    np.testing.assert_allclose(got.numpy(), expected.detach().numpy(), rtol=1e-6)


REFUSED = [
    ("F.embedding_bag(i, w, mode='median')", ValueError, "'sum', 'mean' or 'max', not 'median'"),
    ("F.embedding_bag(i[0], w)", ValueError, r"got shape \[2\] and no offsets"),
    ("F.embedding_bag(i, w, i[0])", ValueError, r"got shape \[2, 2\] and offsets \[2\]"),
    ("F.embedding_bag(i, w, mode='mean', per_sample_weights=w[:2, :2])", NotImplementedError, "go with mode 'sum', not 'mean'"),
    ("F.embedding_bag(i, w, mode='sum', per_sample_weights=w)", ValueError, r"shape \[4, 3\], expected \[2, 2\]"),
    ("n.EmbeddingBag(4, 3, mode='median')(i)", ValueError, "not 'median'"),
    ("F.pixel_shuffle(w, 2)", RuntimeError, r"got 2 of shape \[4, 3\]"),
    ("F.pixel_unshuffle(w[None], 2)", RuntimeError, r"got 2 of shape \[1, 4, 3\]"),
    ("F.prelu(w, w[0, :2])", RuntimeError, r"shape \[2\] is neither one slope nor one for each of 3 channels"),
    ("F.dropout2d(w[0], 0.5)", RuntimeError, r"\(N, C, ...\), got shape \[3\]"),
    ("F.max_pool1d(w, (2, 2))", RuntimeError, "kernel_size"),
    ("F.avg_pool1d(w, 3, padding=2)", RuntimeError, "padding"),
    ("n.ReflectionPad1d(3)(w)", RuntimeError, "needs at least 4 elements"),
    ("n.Unflatten(1, 3)", TypeError, "not 1, 3"),
    ("n.Unflatten(1, (2, 2))(w)", RuntimeError, "do not multiply to extent 3"),
    ("n.Linear(2, 2).to(D.int32)", TypeError, "Linear.to takes a float dtype, not int32"),
    ("n.Linear(2, 2).to(dtyp=D.float16)", TypeError, "no argument 'dtyp'"),
    ("w.to(dtyp=D.float16)", TypeError, "no argument 'dtyp'"),
    ("O.Adam([w], learning_rate=0.1)", TypeError, r"Adam\(params.*amsgrad.*learning_rate"),
    ("O.AdamW([w], amsgard=True)", TypeError, r"AdamW\(.*amsgard"),
    ("O.SGD([w], 0.1, 0.9, 0, 0, False, True)", TypeError, r"SGD\(.*too many"),
    ("O.Muon()", TypeError, r"Muon\(.*params"),
]


@pytest.mark.filterwarnings("ignore:dropout2d")
@pytest.mark.parametrize("form, kind, says", REFUSED, ids=[f for f, *_ in REFUSED])
def test_what_is_refused_names_the_users_line(form: str, kind: type[Exception], says: str) -> None:
    ids, weight = np.array([[0, 1], [3, 2]]), draw((4, 3), -1, 1, 0)
    ours = {"F": nn.functional, "n": nn, "D": dtypes, "O": optim, "i": Tensor(ids), "w": Tensor(weight, requires_grad=True)}
    with pytest.raises(kind, match=rf"(?s){says}.*\n  at (<string>|test_nn_names.py), line"):
        eval(form, ours)
    theirs = {"F": torch.nn.functional, "n": torch.nn, "D": torch, "O": torch.optim, "i": torch.tensor(ids)}
    with pytest.raises(kind):
        eval(form, {**theirs, "w": torch.tensor(weight, requires_grad=True)})


def net(n: Any) -> Any:
    return n.Sequential(n.Linear(3, 4), n.BatchNorm1d(4), n.ReLU(), n.Linear(4, 2))


CONVERSIONS = "to(D.bfloat16)", "to('cpu', D.float16)", "half()", "double()", "to(dtype=D.float64)", "to('cpu')"


@pytest.mark.parametrize("form", CONVERSIONS)
def test_conversion_of_modules(form: str) -> None:
    ours, theirs = net(nn), net(torch.nn)
    twin(ours, theirs)
    held, kept = list(ours.parameters()), ours.state_dict()
    assert eval(f"m.{form}", {"m": ours, "D": dtypes}) is ours
    eval(f"m.{form}", {"m": theirs, "D": torch})
    other = theirs.state_dict()
    assert {k: v.dtype.name.replace("int32", "int64") for k, v in ours.state_dict().items()} == {
        k: str(v.dtype).removeprefix("torch.") for k, v in other.items()
    }
    assert [p for p, q in zip(ours.parameters(), held, strict=True) if p is not q] == []  # in place
    assert all(ours.state_dict()[k] is t and t.node.op == "buffer" for k, t in kept.items())
    for k, v in ours.state_dict().items():
        np.testing.assert_array_equal(v.double().numpy(), other[k].double().numpy(), err_msg=k)


def test_a_converted_module_is_trained() -> None:
    ours, theirs = net(nn), net(torch.nn)
    twin(ours, theirs)
    x = draw((5, 3), -1, 1, 1)
    with no_grad():  # where conversion must not end the way of the gradient
        ours.bfloat16().double()
    theirs.bfloat16().double()
    mine, other = optim.Adam(ours.parameters(), 0.1, amsgrad=True), torch.optim.Adam(theirs.parameters(), 0.1, amsgrad=True)

    @jit
    def step(x: Tensor) -> None:
        mine.zero_grad()
        (ours(x) ** 2).sum().backward()
        mine.step()

    for _ in range(4):
        step(Tensor(x).double())
        other.zero_grad()
        (theirs(torch.tensor(x).double()) ** 2).sum().backward()
        other.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-6)
    ours.float()  # while the gradients are those of the jitted step, which nobody can read
    ours.zero_grad()
    (ours(Tensor(x)) ** 2).sum().backward()
    expected = [value(p.grad) for p in ours.parameters()]
    ours.double()
    for p, g in zip(ours.parameters(), expected, strict=True):
        assert p.grad is not None and p.grad.dtype is p.dtype is dtypes.float64
        np.testing.assert_allclose(p.grad.numpy(), g, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_are_trained_again_and_buffers_are_not() -> None:
    ours, theirs = net(nn), net(torch.nn)

    def trained(m: Any) -> list[str]:
        return [k for k, p in m.named_parameters() if p.requires_grad]

    def agree() -> None:
        assert trained(ours) == trained(theirs)

    agree()
    for m in (ours, theirs):
        assert m.requires_grad_(False) is m
    agree()
    for m in (ours, theirs):
        m.half().float()
        m[3].requires_grad_()
    agree()
    for m in (ours, theirs):
        for p in m[3].parameters():
            p.requires_grad = False
        m[1].requires_grad_(True)
    agree()
    for m in (ours, theirs):
        m.requires_grad_()
    agree()
    ours(Tensor(draw((5, 3), -1, 1, 1))).sum().backward()
    assert all(p.grad is not None for p in ours.parameters()) and not ours[1].running_mean.requires_grad


def test_state_of_amsgrad_is_kept() -> None:
    x, y = (Tensor([1.0, -2.0], requires_grad=True) for _ in range(2))

    def run(opt: Any, p: Tensor, times: int) -> None:
        for k in range(times):
            opt.zero_grad()
            (p * p * (3 - k)).sum().backward()
            opt.step()

    first, second = (optim.AdamW([p], 0.1, (0.5, 0.5), amsgrad=True) for p in (x, y))
    run(first, x, 3)
    saved = first.state_dict()
    assert list(saved["state"][0]) == ["m", "v", "v_max"]
    y.assign(x.detach())
    older = copy.copy(saved) | {"param_groups": [{k: v for k, v in g.items() if k != "maximize"} for g in saved["param_groups"]]}
    second.load_state_dict(older)
    run(first, x, 2)
    run(second, y, 2)
    assert x.tolist() == y.tolist() and second.param_groups[0]["maximize"] is False
    assert list(optim.Adam([x]).state_dict()["state"][0]) == ["m", "v"]
