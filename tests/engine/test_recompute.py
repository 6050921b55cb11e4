"""Activations that are computed again for their gradient: bit-equal results, less memory, and a reason for everything."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, backends, jit, machine, manual_seed, nn, optim, pinned, pipeline, recompute_search
from tinyengine.backends.graph_eval import Evaluator
from tinyengine.choices import Choices
from tinyengine.node import Graph
from tinyengine.stages import simplify
from tinyengine.stages.fusion import recompute

rng = np.random.default_rng(0)


class Deep(nn.Module):
    def __init__(self, depth: int = 3, width: int = 256) -> None:
        self.layers = [nn.Linear(16 if i == 0 else width, width) for i in range(depth)]
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return self.out(x)


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(machine, "current", lambda: machine.FIXTURE)
    with backends.use("llvm"):
        yield
    pinned.unpin()


def training(depth: int = 3, dropout: float = 0.0, width: int = 256) -> tuple[Any, Any]:
    manual_seed(0)
    model = Deep(depth, width)
    optimizer = optim.SGD(list(model.parameters()), lr=0.1)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (model(x.dropout(dropout)) if dropout else model(x)).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def batch() -> tuple[Tensor, Tensor]:
    r = np.random.default_rng(1)
    return Tensor(r.standard_normal((64, 16)).astype(np.float32)), Tensor(r.integers(0, 4, 64).astype(np.int32))


def lowered(depth: int = 3, width: int = 256) -> pipeline.Lowered:
    low = training(depth, width=width)[1].lower(*batch())
    assert isinstance(low, pipeline.Lowered)
    return low


def eager() -> pipeline.Lowered:
    """Gradients of a small network on values, not on placeholders."""
    manual_seed(0)
    model = Deep(2)
    x, y = batch()
    loss = model(x).cross_entropy(y)
    loss.backward()
    grads = [p.grad for p in model.parameters()]
    return pipeline.lower(Graph([loss.node, *(g.node for g in grads if g is not None)]), machine=machine.FIXTURE, backend="llvm")


def names(low: pipeline.Lowered) -> list[str]:
    possible = recompute.candidates(low.fusion)
    return [name for n, name in recompute.names(possible).items() if not possible[n]]


def test_the_activations_of_a_network_can_be_computed_again() -> None:
    found = names(lowered(3))
    assert len(found) == 3 and [n.partition(" ")[0] for n in found] == ["maximum"] * 3
    assert len({n.rpartition(" ")[2] for n in found}) == 3, "each can be named alone"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_results_are_bit_equal_and_one_kernel_runs_twice(which: int) -> None:
    low = lowered(3)
    other = low.with_recompute(names(low)[which])
    assert len(other.plan.calls) == len(low.plan.calls) + 1
    for a, b in zip(low.run(), other.run(), strict=True):
        np.testing.assert_array_equal(a, b)
    (d,) = [d for d in other.decisions if d.kind == "recompute"]
    n = other.simplified.nodes[d.subject[0]]
    assert d.verdict == "recompute" and n.op == "maximum" and n.phase == "forward"


def test_an_early_activation_leaves_the_peak() -> None:
    low = lowered(4)
    first = names(low)[0]
    other = low.with_recompute(first)
    (value,) = [n for n, name in recompute.names(recompute.candidates(low.fusion)).items() if name == first]
    assert low.certificate.peak_bytes - other.certificate.peak_bytes == value.nbytes
    assert other.certificate.flops > low.certificate.flops
    assert other.count().peak_bytes == other.certificate.peak_bytes < low.count().peak_bytes


def test_the_copy_runs_as_late_as_it_may() -> None:
    """Right before what reads it: nothing that does not need it stands between."""
    low = lowered(3)
    other = low.with_recompute(names(low)[0])
    calls = other.plan.calls
    made = [i for i, k in enumerate(other.kernels) if any(recompute.again(other.simplified.nodes[n]) for n in _outputs(other, i))]
    assert len(made) == 1 and made[0] > len(calls) // 2
    call = calls[made[0]]
    (slot,) = [s for p, s in zip(call.kernel.params, call.slots, strict=True) if p.name in call.kernel.outputs]
    assert slot in calls[made[0] + 1].slots


def _outputs(low: pipeline.Lowered, call: int) -> list[int]:
    nest = low.nests[[n.kernel.name for n in low.nests].index(low.kernels[call].name)]
    number = low.simplified.number
    pairs = zip(nest.kernel.params, nest.values, strict=True)
    return [number[v] for p, v in pairs if p.name in nest.kernel.outputs and v in number]


def test_a_pin_holds_for_new_programs_and_one_that_matches_nothing_warns() -> None:
    low = lowered(3)
    name = names(low)[1]
    pinned.pin(name, "recompute")
    assert pinned.pins() == {name: "recompute"}
    model, step = training(3)
    losses = [step(*batch()).item() for _ in range(3)]
    assert len(step.lower(*batch()).plan.calls) == len(low.plan.calls) + 1
    pinned.unpin(name)
    assert pinned.pins() == {}
    other_model, other_step = training(3)
    assert losses == [other_step(*batch()).item() for _ in range(3)]
    for a, b in zip(model.parameters(), other_model.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pinned.pin("maximum 0000000000", "recompute")
        training(2)[1](*batch())
    assert any("matches nothing" in str(w.message) for w in told)


def test_a_name_without_its_number_means_all_of_the_form() -> None:
    low = lowered(4)
    form = names(low)[1].partition(".")[0]
    other = low.with_recompute(form)
    assert len(other.plan.calls) == len(low.plan.calls) + 3
    assert sum(d.kind == "recompute" for d in other.decisions) == 3
    for a, b in zip(low.run(), other.run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_firing_can_be_replayed() -> None:
    low = eager()
    choices = Choices().with_recompute(names(low)[0])
    events = simplify.explain(low.graph, choices, machine.FIXTURE)
    mine = [e for e in events if e.rule == "compute-again"]
    assert len(mine) >= 2 and [e.number for e in events] == list(range(len(events)))
    expected = Evaluator(low.graph).run()
    for k in range(mine[0].number, len(events) + 1):
        got = Evaluator(simplify.partly(low.graph, k, machine.FIXTURE, choices)).run()
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_a_result_stays() -> None:
    x, w = (Tensor(rng.standard_normal(s).astype(np.float32), requires_grad=True) for s in ((8, 6), (6, 5)))
    h = (x @ w).relu()
    (h * h).sum().backward()
    assert w.grad is not None
    low = pipeline.lower(Graph([h.node, w.grad.node]), machine=machine.FIXTURE, backend="llvm")
    possible = recompute.candidates(low.fusion)
    assert "it is a result of the program" in possible.values()


def test_dropout_computed_again_drops_the_same() -> None:
    _, step = training(2, dropout=0.5)
    low = step.lower(*batch())
    other = low.with_recompute(*names(low))
    for a, b in zip(low.run(), other.run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_effect_is_predicted_counted_and_measured() -> None:
    low = lowered(4, width=64)
    r = low.recompute(names(low)[0])
    assert r.peak < r.peak_before and r.counted == r.peak and r.counted_before == r.peak_before
    assert r.kernels == r.kernels_before + 1 and r.flops > r.flops_before and r.ulp == 0
    assert len(r.before.samples) == len(r.after.samples) == len(r.difference.samples) >= 9
    assert r.pins == (f'tv.pin("{r.names[0]}", "recompute")',) and r.pins[0] in r.text()
    with pytest.raises(ValueError, match=r"recompute: 0 is no stored value that the gradient reads, such as %\d+ or 'maximum"):
        low.recompute(0)
    with pytest.raises(ValueError, match="'nonsense' is no stored value"):
        low.recompute("nonsense")


def test_what_frees_memory_goes_first() -> None:
    """Weights are updated as soon as their gradient can be had, so that activations need not wait for the end of the pass."""
    low = lowered(4)
    calls = [c.kernel.name for c in low.plan.calls]
    updates = [i for i, name in enumerate(calls) if "assign" in name]
    others = [i for i, name in enumerate(calls) if "assign" not in name]
    assert updates[0] < others[-1], "the first update stands before the last gradient of an activation"
    h = 64 * 256 * 4
    assert low.plan.arena_bytes < 6 * h, "four activations and one gradient, not four of each"


def test_a_search_finds_what_keeps_the_peak_under_a_limit() -> None:
    low = lowered(6)
    was, sizes = low.certificate.peak_bytes, 64 * 256 * 4
    limit = was - sizes
    found = low.recompute_under(limit)
    assert found.reached and found.peak <= limit < found.peak_before == was
    assert found.lowered.certificate.peak_bytes == found.peak and found.flops > found.flops_before
    assert found.peak == found.lowered.count().peak_bytes, "predicted and counted"
    for a, b in zip(low.run(), found.lowered.run(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [t.name for t in found.tried if t.taken] and set(found.names) <= {t.name for t in found.tried if t.taken}
    # none of them is needless
    for name in found.names:
        rest = [n for n in found.names if n != name]
        assert low.with_recompute(*rest).certificate.peak_bytes > limit
    assert all(line in found.text() for line in found.pins)


def test_the_cheapest_bytes_come_first() -> None:
    """Of two activations of one size, the one that needs no product again is tried first."""
    low = lowered(4)
    possible = [n for n, why in recompute.candidates(low.fusion).items() if not why]
    stays = {n for n, v in low.fusion.verdicts.items() if v == "whole"}
    flops = {n: recompute_search.flops_again(n, stays) for n in possible}
    # the first layer multiplies by 16 columns, the others by 256: an FMA is 2, then the bias and the larger of two
    assert sorted(flops.values()) == [64 * 256 * (2 * 16 + 2), *[64 * 256 * (2 * 256 + 2)] * 3]
    (first, *_) = low.recompute_under(1).tried
    assert flops[next(n for n, name in recompute.names(possible).items() if name == first.name)] == min(flops.values())


def test_a_limit_out_of_reach_says_how_far_it_comes() -> None:
    low = lowered(3)
    found = low.recompute_under(1)
    assert not found.reached and found.peak <= found.peak_before
    assert "not found: the least that was found is" in found.text()
    assert all(t.reason for t in found.tried) and [t for t in found.tried if not t.taken]
    assert low.recompute_under(low.certificate.peak_bytes).tried == ()
    with pytest.raises(ValueError, match="recompute_under: 0 bytes; expected a positive number"):
        low.recompute_under(0)
