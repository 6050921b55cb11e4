"""Values over training: what is sampled says what NumPy says, nothing of the training changes, and the first NaN is found."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import tinyviz as tv
from tinyengine import Tensor, hooks, jit, manual_seed, nn, optim
from tinyengine.probe import Probe
from tinyengine.state import get_parameters
from tinyviz import sampling, wire
from tinyviz.explore import make
from tinyviz.recording import Recording
from tinyviz.views import values


class Network(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().flatten(1))


def training(seed: int = 0) -> tuple[Network, Any, Tensor, Tensor]:
    manual_seed(seed)
    model = Network()
    optimizer = optim.SGD(get_parameters(model), lr=0.1)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(seed)
    x = Tensor(rng.standard_normal((5, 1, 8, 8)).astype(np.float32))
    return model, step, x, Tensor(rng.integers(0, 3, 5).astype(np.int32))


@pytest.fixture(autouse=True)
def no_errors_from_before() -> None:
    hooks.errors.clear()


def trained(runs: int, **how: Any) -> tuple[Recording, list[float], Network]:
    model, step, x, y = training()
    with tv.watch(**how) as rec:
        losses = [step(x, y).item() for _ in range(runs)]
    assert not hooks.errors
    return rec, losses, model


def test_looking_at_values_changes_nothing() -> None:
    _, plain, a = trained(6)
    rec, looked, b = trained(6, values=2, finite=True)
    assert plain == looked
    for p, q in zip(get_parameters(a), get_parameters(b), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert not any(p.faults for p in rec.programs)


def test_what_is_sampled() -> None:
    rec, _, model = trained(7, values=2)
    p = next(p for p in rec.programs if p.launches.count > 2)
    kinds = {(s.kind, s.name) for s in p.values}
    for name in ("conv.weight", "conv.bias", "fc.weight", "fc.bias"):
        assert {("weight", name), ("gradient", name), ("update", name)} <= kinds
    assert {s.name for s in p.values if s.kind == "activation"} >= {"model.conv", "model.fc"}
    assert ("input", "x") in kinds
    weight = next(s for s in p.values if (s.kind, s.name) == ("weight", "fc.weight"))
    update = next(s for s in p.values if (s.kind, s.name) == ("update", "fc.weight"))
    gradient = next(s for s in p.values if (s.kind, s.name) == ("gradient", "fc.weight"))
    assert weight.samples.run == list(range(0, p.launches.count, 2))
    assert p.nodes.op[weight.node] == "buffer" and p.nodes.phase[gradient.node] == "backward"
    ratio = [u / g for u, g in zip(update.samples.norm, gradient.samples.norm, strict=True) if u and g]
    assert ratio == pytest.approx([0.1] * len(ratio), rel=1e-3), "SGD: an update is the gradient times the learning rate"
    assert model.fc.weight.numpy().shape == tuple(weight.shape)


def test_attention_maps_are_sampled_though_the_division_comes_later() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(rng.standard_normal((2, 2, 6, 4)).astype(np.float32)) for _ in range(3))
    step = jit(lambda q: q.scaled_dot_product_attention(k, v, is_causal=True).sum())
    step(q), step(q)
    with tv.watch(values=1) as rec:
        step(q), step(q)
    assert not hooks.errors
    (maps,) = [s for p in rec.programs for s in p.values if s.kind == "softmax"]
    assert maps.shape == [2, 2, 6, 6] and maps.samples.high[-1] == pytest.approx(1.0), "the first query sees the first key alone"
    assert maps.samples.mean[-1] == pytest.approx(1 / 6, rel=1e-5), "each row sums to 1"
    assert maps.samples.zeros[-1] == pytest.approx(15 / 36), "no query looks ahead"
    assert maps.picture is not None and (maps.picture.rows, maps.picture.columns) == (6, 6)


def test_figures_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).standard_normal((6, 9)).astype(np.float32)
    x[:, 2] = 0
    f = sampling.figures(3, x, "activation")
    assert (f.run, f.dead, f.nonfinite) == (3, 1, 0) and f.zeros == pytest.approx(6 / 54)
    wide = x.astype(np.float64)
    expected = [wide.min(), wide.max(), wide.mean(), wide.std(), np.linalg.norm(wide)]
    assert [f.low, f.high, f.mean, f.std, f.norm] == pytest.approx(expected)
    assert sum(f.histogram) == x.size and len(f.histogram) == sampling.BINS
    x[0, 0], x[0, 1] = np.nan, np.inf
    f = sampling.figures(0, x, "weight")
    assert f.nonfinite == 2 and f.dead is None and sum(f.histogram) == x.size - 2
    empty = sampling.figures(0, np.full(3, np.nan, np.float32), "weight")
    assert empty.norm is None and empty.histogram == [] and empty.nonfinite == 3


def test_pictures_are_small_and_go_from_0_to_255() -> None:
    shown = sampling.picture(np.arange(3 * 100 * 70, dtype=np.float32).reshape(3, 100, 70))
    assert shown is not None and len(shown.tiles) == 3
    assert max(shown.rows, shown.columns) <= sampling.EDGE and all(len(t) == shown.rows * shown.columns for t in shown.tiles)
    assert min(map(min, shown.tiles)) == 0 and max(map(max, shown.tiles)) == 255
    assert sampling.picture(np.zeros(4, np.float32)) is None


def test_what_is_not_finite_is_missing_in_a_picture() -> None:
    x = np.array([[0, np.nan, 2], [np.inf, 1, 4]], np.float32)
    shown = sampling.picture(x)
    assert shown is not None and shown.tiles == [[0, -1, 127, -1, 63, 255]] and (shown.low, shown.high) == (0, 4)
    nothing = sampling.picture(np.full((2, 2), np.nan, np.float32))
    assert nothing is not None and nothing.tiles == [[-1] * 4]


def test_units_that_were_dead_before_a_nan_are_remarked() -> None:
    samples = [sampling.figures(0, np.array([[0, 1], [0, 2]], np.float32), "activation")]
    samples.append(sampling.figures(1, np.full((2, 2), np.nan, np.float32), "activation"))
    columns = wire.Samples(*([getattr(x, f.name) for x in samples] for f in dataclasses.fields(wire.Samples)))
    said = values.remarks(wire.Series("h", "activation", "", -1, [2, 2], columns), [])
    assert said == ["4 elements are NaN or infinite in run 1", "1 of 2 units are 0 for the whole batch"]


def test_of_too_many_values_each_kind_keeps_some_from_first_to_last() -> None:
    node: Any = None

    def made(name: str, kind: str) -> sampling.Watched:
        return sampling.Watched(name, kind, "", Tensor(np.zeros(1, np.float32)).node if node is None else node)

    out = [made(f"w{i}", kind) for i in range(40) for kind in ("weight", "gradient", "update")]
    out += [made(f"a{i}", "activation") for i in range(60)] + [made(f"s{i}", "softmax") for i in range(12)] + [made("x", "input")]
    kept = sampling.fair(out, 60)
    count = {kind: [w.name for w in kept if w.kind == kind] for kind in sampling.KINDS}
    assert 50 <= len(kept) <= 60 and [w for w in out if w in kept] == kept, "in the order of the network"
    assert count["weight"] == count["gradient"] == count["update"] and len(count["weight"]) >= 5
    assert {"w0", "w39"} <= set(count["weight"]) and {"a0", "a59"} <= set(count["activation"])
    assert count["input"] == ["x"] and len(count["softmax"]) == 12
    assert sampling.fair(out[:9], 60) == out[:9]


def test_many_runs_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_SAMPLES", 8)
    rec, _, _ = trained(60, values=1)
    p = next(p for p in rec.programs if p.launches.count > 2)
    runs = p.values[0].samples.run
    assert len(runs) <= 8 and runs[0] == 0 and runs[-1] >= 40
    assert len({b - a for a, b in pairwise(runs)}) == 1, "evenly spread"


def test_probe_gives_values_inside_a_program() -> None:
    x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    inner = x * 2
    low = tv.lower(inner.exp().sum(1)).engine
    node = next(n for n in low.graph.nodes if n.op == "mul")
    (value,) = Probe(low, [node]).run(low.buffers)
    np.testing.assert_array_equal(value, x.numpy() * 2)


def diverging(f: Any, *values: np.ndarray, runs: int = 3, at: int = 1) -> tuple[list[wire.Fault], Recording]:
    """Runs of a jitted f on ones, but run `at` on `values`."""
    step = jit(f)
    plain = [Tensor(np.ones_like(v)) for v in values]
    bad = [Tensor(v) for v in values]
    step(*plain), step(*plain)
    with tv.watch(finite=True) as rec:
        for i in range(runs):
            step(*(bad if i == at else plain))
    assert not hooks.errors
    return [f for p in rec.programs for f in p.faults], rec


def test_the_first_nan_is_found_at_once_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Tensor) -> Tensor:
        y = x * 2
        z = y.log()  # of a negative number
        return (z + 1).sum()

    (fault,), rec = diverging(f, np.array([1, 2, -3, 4], np.float32))
    assert (fault.what, fault.run) == ("NaN", 1)
    p = rec.programs[0]
    assert p.nodes.op[fault.node] == "log" and rec.data.lines.text[fault.line].startswith("z = y.log()")
    assert fault.kernels and "log made the first NaN (1 of 4, at [2], from -6)" in fault.sentence
    assert "log made the first NaN" in capsys.readouterr().err, "said while it runs"
    assert "NOT FINITE: run 1" in make(rec.data, "values").text
    made, *reached = fault.kernels
    assert rec.table("kernels")[made]["not_finite"] == "NaN"
    assert all(rec.table("kernels")[k]["not_finite"] == "NaN from before" for k in reached)
    assert f"{p.kernels[made].name} ▲ NaN" in make(rec.data, "overview").text
    assert "▲ NaN: see the view values" in make(rec.data, "kernel", selection=wire.Selection("kernel", f"0.{made}")).text


def test_an_overflow_is_found_where_it_happens() -> None:
    def f(x: Tensor) -> Tensor:
        return (x.exp() * 0 + 1).mean()

    (fault,), rec = diverging(f, np.array([1, 1000], np.float32))
    assert fault.what == "Inf" and rec.programs[0].nodes.op[fault.node] == "exp"


def test_infinities_that_are_meant_are_no_fault() -> None:
    def f(x: Tensor) -> Tensor:
        return (x > 0).where(x, float("-inf")).softmax(-1)

    faults, _ = diverging(f, np.array([[1, -1, 2]], np.float32))
    assert not faults


def test_what_was_given_is_not_blamed_on_an_operation() -> None:
    def f(x: Tensor) -> Tensor:
        return x * 2

    (fault,), _ = diverging(f, np.array([np.nan, 1], np.float32))
    assert fault.what == "" and fault.node == -1 and "memory that the program was given" in fault.sentence


def test_without_sampling_the_view_says_so(sample: wire.Recording) -> None:
    assert "no values were sampled" in make(sample, "values").text
    with pytest.raises(ValueError, match="values=-1"), tv.watch(values=-1):
        pass


def test_nobody_who_did_not_ask_is_told_of_launchings() -> None:
    with tv.watch():
        assert hooks.Launching not in hooks.heard
    with tv.watch(finite=True):
        assert hooks.Launching in hooks.heard
    assert hooks.Launching not in hooks.heard
