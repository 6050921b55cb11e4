"""What is measured when asked for: ablation, counts, bisection. It stays in the recording, and the views show it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import tinyviz as tv
from tests.tinyviz import training
from tests.tinyviz.test_roofline import FAULTY, HEALTHY, only, planted
from tinyengine import bisection, rules
from tinyengine.stages import simplify
from tinyengine.stages.primitives.apply import apply_one
from tinyviz import codec, tvz, viewdata, wire
from tinyviz.explore import make
from tinyviz.views import timeline

rng = np.random.default_rng(0)


def network() -> tv.Recording:
    _, step = training.network()
    x, y = rng.random((32, 16), dtype=np.float32), rng.integers(0, 4, 32).astype(np.int32)
    with tv.watch() as rec:
        step(*training.tensors(x, y))
        step(*training.tensors(x, y))
    return rec


def test_an_ablation_is_kept_saved_and_shown(tmp_path: Path) -> None:
    rec = tv.lower(tv.Tensor(rng.standard_normal((256, 300)).astype(np.float32)).softmax(1)).recording
    assert "no kernel was ablated; rec.ablate(KERNEL)" in rec.view("roofline").text
    shown = rec.ablate(0)
    a = rec.kernels[0].ablation
    assert a is not None and a.bound in ("launch", "memory", "arithmetic", "both", "neither")
    assert 0 < a.empty.low <= a.whole.low and a.whole.runs >= 3
    assert "ablation: each kernel beside what is left of it" in shown.text and f"  {a.bound}  " in shown.text
    again = tv.load(rec.save(tmp_path / "a.tvz"))
    assert codec.to_json(again.kernels[0].ablation) == codec.to_json(a)
    assert again.data.id == tvz.identified(again.data).id, "the content id is that of what was saved"
    with pytest.raises(ValueError, match="this recording was loaded"):
        again.ablate(0)
    with pytest.raises(ValueError, match="there is no kernel 7: there are 1"):
        rec.ablate(7)


def ablation(whole: float, loads: float, arithmetic: float, empty: float, bound: str) -> wire.Ablation:
    parts = (wire.Spread(s, s, s, 9) for s in (whole, loads, arithmetic, empty))
    return wire.Ablation(*parts, bound=bound, predicted="L2", sentence="measured")


@pytest.mark.parametrize(("parts", "says", "gain"), [
    ((4e-4, 3.9e-4, 1e-4, 1e-6, "memory"), "what holds it up is its memory traffic", 3e-4),
    ((4e-4, 1e-4, 3.9e-4, 1e-6, "arithmetic"), "what holds it up is its arithmetic", 3e-4),
    ((4e-4, 1e-4, 1e-4, 3e-4, "launch"), "what holds it up is its launch", 3e-4),
    ((4e-4, 3.9e-4, 3.9e-4, 1e-6, "both"), "take as long each", 0.0),
    ((4e-4, 2e-4, 1e-4, 1e-6, "neither"), "they wait for each other", 2e-4),
])  # fmt: skip
def test_an_ablation_is_a_finding_with_its_evidence(
    sample: wire.Recording, parts: tuple[float, float, float, float, str], says: str, gain: float
) -> None:
    def plant(p: wire.Program) -> None:
        p.kernels[FAULTY].ablation = ablation(*parts)
        assert p.kernels[HEALTHY].ablation is None

    found = only(planted(sample, plant), "ablation")
    assert says in found.sentence and "9 runs; predicted: L2" in found.evidence
    assert found.gain == pytest.approx(gain)


def test_counts_fill_the_measured_side_of_the_ledger() -> None:
    rec = network()
    (p,) = rec.programs
    before = {x.name: x for x in timeline.ledger(p)}
    for name in ("FLOPs", "bytes read", "bytes written", "peak memory"):
        assert before[name].measured is None and before[name].agrees is None, "not counted is missing, never 0"
    shown = rec.count()
    after = {x.name: x for x in shown.data.ledger}
    for name in ("kernels", "launches", "FLOPs", "bytes read", "bytes written", "peak memory"):
        assert after[name].measured is not None and after[name].agrees is True, name
    assert after["peak memory"].measured == p.certificate.peak_bytes == p.peak_bytes
    for k in p.kernels:
        assert k.counted is not None
        row = after[f"bytes read of {k.name}"]
        assert row.measured == k.counted.bytes_read and row.agrees
        assert k.counted.bytes_read == k.bytes_read if k.exact else k.counted.bytes_read <= (k.bytes_read or 0)
    assert [k.exact for k in p.kernels].count(False) == 1, "the kernel that picks the label's probability is bounded from above"


def test_a_count_that_is_not_what_was_predicted_is_marked(sample: wire.Recording) -> None:
    p = sample.programs[0]
    for k in p.kernels:
        k.counted = wire.Counted(k.flops or 0, k.bytes_read or 0, k.bytes_written or 0, k.bytes_issued or 0)
    healthy = timeline.ledger(p)
    assert all(x.agrees for x in healthy if x.name.startswith(("FLOPs", "bytes")))
    assert p.kernels[1].counted is not None
    p.kernels[1].counted.bytes_written += 64
    wrong = [x.name for x in timeline.ledger(p) if x.agrees is False and x.unit == "bytes"]
    assert wrong == ["bytes written", f"bytes written of {p.kernels[1].name}"]
    made = make(sample, "timeline")
    row = next(line for line in made.text.split("\n") if line.startswith(wrong[1]))
    assert row.rstrip().endswith("✗") and "✗ differs" in made.svg


@pytest.mark.parametrize(("measured", "agrees"), [(4.5e-8, True), (6e-8, False), (9e-9, True), (1e-9, False)])
def test_a_time_within_a_reading_of_the_clock_is_no_difference(sample: wire.Recording, measured: float, agrees: bool) -> None:
    """One launch that is predicted to take 8 to 12 ns; the clock's reading makes times longer, never shorter."""
    p = sample.programs[0]
    k, c = p.kernels[1], next(c for c, call in enumerate(p.calls) if call.kernel == 1)
    k.seconds_predicted, k.seconds_predicted_low, k.seconds_predicted_high = 1e-8, 8e-9, 1.2e-8
    for column in (p.launches.low, p.launches.median, p.launches.high):
        column[c] = measured
    (row,) = [x for x in timeline.ledger(p) if x.name == f"time of {k.name}"]
    assert row.agrees is agrees and row.measured == measured, "the number on show is what was measured"


def test_a_sound_compilation_has_nothing_to_find() -> None:
    rec = tv.lower(tv.Tensor(rng.standard_normal((8, 12)).astype(np.float32)).softmax(1)).recording
    shown = rec.bisect()
    b = rec.programs[0].bisection
    assert b is not None and b.stage == "" and b.checked > 3
    assert "bisection: no step changes a value beyond" in shown.text


def test_a_recorded_step_is_bisected_on_the_values_that_it_ran_on() -> None:
    rec = network()
    rec.bisect()
    b = rec.programs[0].bisection
    assert b is not None and b.stage == "" and b.checked > 20


def test_a_wrong_primitive_leads_to_its_step() -> None:
    """A primitive that leaves nothing of the loops, planted where the search applies it."""

    def spoil(kernel, p):  # type: ignore[no-untyped-def]
        made = apply_one(kernel, p)
        return replace(made, body=()) if p.name == "vectorize" else made

    rec = tv.lower(tv.Tensor(rng.standard_normal((64, 100)).astype(np.float32)).softmax(1)).recording
    with mock.patch.object(bisection, "apply_one", spoil):
        shown = rec.bisect()
    p = rec.programs[0]
    b = p.bisection
    assert b is not None and b.stage == "schedule" and b.step.startswith("kernel ") and "vectorize(" in b.step
    steps = next(s.steps for s in p.stages if s.name == "schedule")
    assert b.step == f"kernel {p.kernels[steps.kernel[b.firing]].name}, primitive {steps.text[b.firing]}"
    assert f"schedule step {b.firing} of " in shown.text, "the view opens at the step"


def test_the_first_wrong_firing_is_found_and_shown() -> None:
    """A rule that is a lie: x + x becomes x * 3."""

    def lie(n):  # type: ignore[no-untyped-def]
        if n.src[0] is not n.src[1]:
            return None
        three = n._replace(op="const", src=(), arg=3.0)
        return n._replace(op="mul", src=(n.src[0], three))

    bad = rules.Rule("three-for-two", "A lie, planted for this test.", ("add",), lie)
    x = tv.Tensor(rng.standard_normal((4, 5)).astype(np.float32)).exp()
    with mock.patch.object(simplify, "RULES", (bad, *simplify.RULES)):
        rec = tv.lower((x + x) * 1).recording
        shown = rec.bisect()
    b = rec.programs[0].bisection
    assert b is not None and (b.stage, b.step) == ("simplify", "three-for-two") and b.error
    frames = rec.programs[0].stages[2].frames
    assert rec.data.rules.name[frames.rule[b.firing]] == "three-for-two", "the firing of the recording is the engine's"
    assert "bisection: simplify: firing" in shown.text and "three-for-two" in shown.svg


# ---- computed again instead of kept


def deep() -> tv.Recording:
    """Four layers, whose activations are most of the memory."""
    from tinyengine import jit, manual_seed, nn, optim

    manual_seed(0)
    layers = [nn.Linear(16 if i == 0 else 48, 48) for i in range(4)]
    optimizer = optim.SGD([p for layer in layers for p in layer.parameters()], lr=0.1)

    @jit
    def step(x):  # type: ignore[no-untyped-def]
        optimizer.zero_grad()
        for layer in layers:
            x = layer(x).relu()
        loss = (x * x).mean()
        loss.backward()
        optimizer.step()
        return loss

    x = tv.Tensor(rng.standard_normal((256, 16)).astype(np.float32))
    with tv.watch() as rec:
        step(x)
        step(x)
    return rec


def test_what_can_be_computed_again_is_offered_and_its_effect_shown(tmp_path: Path) -> None:
    rec = deep()
    offered = [s for s in rec.programs[0].slots if s.again]
    assert len(offered) >= 3 and all(s.role == "temporary" and not s.kept for s in offered)
    assert f"rec.recompute('{offered[0].name}') says" in rec.view("memory").text
    shown = rec.recompute(offered[0].name)
    (x,) = rec.programs[0].recomputed
    assert x.peak_before - x.peak == offered[0].nbytes == 256 * 48 * 4
    assert (x.counted_before, x.counted, x.ulp) == (x.peak_before, x.peak, 0) and x.kernels == x.kernels_before + 1
    assert x.pins == [f'tv.pin("{offered[0].again}", "recompute")']
    for said in ("peak memory, counted", "−48 KiB", "half of", "bit by bit", x.pins[0]):
        assert said in shown.text
    assert f"{offered[0].name} computed again instead of kept" in shown.svg
    rec.recompute(offered[0].name)
    rec.recompute(offered[0].name, offered[1].name)
    assert [len(r.slots) for r in rec.programs[0].recomputed] == [1, 2], "asked again, the answer is replaced"
    again = tv.load(rec.save(tmp_path / "a.tvz"))
    assert codec.to_json(again.programs[0].recomputed) == codec.to_json(rec.programs[0].recomputed)
    with pytest.raises(ValueError, match="there is no buffer 'nonsense'; those that can be computed again: t"):
        rec.recompute("nonsense")
    with pytest.raises(ValueError, match="holds no activation that the gradient reads"):
        rec.recompute(0)
    with pytest.raises(TypeError, match="with one at least"):
        rec.recompute()


def test_a_set_of_activations_is_searched_for_that_keeps_the_peak_under_a_limit() -> None:
    rec = deep()
    was = rec.programs[0].certificate.peak_bytes
    limit = was - 256 * 48 * 4
    shown = rec.recompute(under=limit)
    (x,) = rec.programs[0].recomputed
    assert x.peak == x.counted <= limit < x.peak_before == x.counted_before == was and x.ulp == 0
    assert all(rec.programs[0].slots[i].again for i in x.slots) and "computed again instead of kept" in shown.text
    assert rec.answers is not None
    said: list[str] = []
    a = codec.from_json(
        viewdata.UnderAnswer, rec.answers({"what": "recompute_under", "program": 0, "limit": limit}, said.append)
    )
    assert (a.slots, a.peak, a.peak_before) == (x.slots, x.peak, was)
    assert len(said) == len(a.tried) + 1 and {i for t in a.tried if t.taken for i in [t.slot]} >= set(a.slots)
    with pytest.raises(ValueError, match=r"cannot be brought under 1 bytes this way: [\d,]+ is the least found"):
        rec.recompute(under=1)
    with pytest.raises(ValueError, match="not both"):
        rec.recompute("t1", under=1)


def test_the_line_of_python_does_what_the_view_said() -> None:
    rec = deep()
    rec.recompute(next(s.name for s in rec.programs[0].slots if s.again))
    x = rec.programs[0].recomputed[0]
    try:
        exec(x.pins[0], {"tv": tv})
        p = deep().programs[0]
        assert (p.certificate.peak_bytes, len(p.kernels)) == (x.peak, x.kernels)
        assert "compute-again" in [r for r in deep().data.rules.name]
    finally:
        tv.unpin()


def test_a_program_without_gradients_offers_nothing() -> None:
    rec = tv.lower(tv.Tensor(rng.standard_normal((8, 12)).astype(np.float32)).softmax(1)).recording
    assert not any(s.again for s in rec.programs[0].slots)
    assert "there is no stored activation that the gradient reads" in rec.view("memory").text


# ---- where a node came from, and what became of it


def test_blame_goes_back_to_the_line_and_fate_forward_to_the_kernel(sample: wire.Recording) -> None:
    from tinyviz.frames import became, blame, fate

    p = sample.programs[0]
    names = [s.name for s in p.stages]
    record, simplify_at = names.index("record"), names.index("simplify")
    for n in p.recorded:
        assert blame(p, n)[-1][0] == record, "in the end it is a line of the user's"
        assert blame(p, n)[0][0] == (names.index("differentiate") if p.nodes.phase[n] == "backward" else record)
    frames = p.stages[simplify_at].frames
    for k, (old, new) in enumerate(zip(frames.replaced, frames.by, strict=True)):
        if old != new:
            assert fate(p, old)[0] == (simplify_at, k)
            assert became(p, old) in p.simplified or (became(p, old) not in p.simplified and fate(p, old)[-1][1] >= k)
    for n in p.simplified:
        assert fate(p, n) == []
    old = next(old for old, new in zip(frames.replaced, frames.by, strict=True) if old != new)
    made = make(sample, "stages", selection=wire.Selection("node", f"0.{old}"))
    assert f"#{old} " in made.text and "  made by record step" in made.text and "  then simplify step 0," in made.text
    assert "  at the end: #" in made.text and "  asked for by training.py:" in made.text
    assert "there is no 9999" in make(sample, "stages", selection=wire.Selection("node", "0.9999")).error


def test_every_rule_has_a_reason_a_source_and_a_time(sample: wire.Recording) -> None:
    made = make(sample, "stages")
    for row in made.data.rows:
        assert len(row.rules) == len(row.counts) == len(row.times)
        for rule in row.rules:
            assert sample.rules.reason[rule]
            if row.name not in ("record", "differentiate"):
                assert sample.rules.file[rule].startswith(("stages/", "rules", "backends/")), sample.rules.name[rule]
    simplified = next(x for x in made.data.rows if x.name == "simplify")
    assert all(t is not None and t > 0 for t in simplified.times)
    assert all(x.firings for x in made.data.rows), "every stage can be stepped through"


def test_what_replaces_a_node_stands_in_its_place_where_that_became_free(sample: wire.Recording) -> None:
    p = sample.programs[0]
    at, frames = p.layouts["stages"], next(s.frames for s in p.stages if s.name == "simplify")
    moved = 0
    for k, (old, new) in enumerate(zip(frames.replaced, frames.by, strict=True)):
        if old != new and new in frames.added[k] and old in frames.removed[k]:
            moved += (at.x[old], at.y[old]) != (at.x[new], at.y[new])
    assert moved == 0
