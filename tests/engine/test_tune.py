"""Tuning on the fixture machine: counts, checks and the store. No test asserts a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyengine
from tests.engine import forms
from tinyengine import hooks, jit, nn, optim, pipeline, realize, tune_store
from tinyengine.choices import DEFAULT, Tuned
from tinyengine.loopnest import Buf, Kernel, Loop
from tinyengine.machine import FIXTURE
from tinyengine.neighbours import neighbours
from tinyengine.node import Graph
from tinyengine.stages import schedule
from tinyengine.stages.keys import generalise, kernel_key, localise
from tinyengine.stages.primitives import apply as primitives
from tinyengine.tensor import Tensor
from tinyengine.tensor import random as engine_random
from tinyengine.trial import Case, Timing
from tinyengine.tune import Tuning
from tinyengine.tune import tune as tune_function

rng = np.random.default_rng(0)


def tensor(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape).astype(np.float32))


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    tune_store.forget()
    yield tmp_path
    tune_store.forget()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round with few launches: what is asked here does not depend on the times."""
    module = sys.modules[tune_function.__module__]  # the function hides the module of its name
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr(module, "LAUNCHES", 0.0)


def lowered(*tensors: Tensor) -> pipeline.Lowered:
    return pipeline.lower(Graph([t.node for t in tensors]), DEFAULT, FIXTURE, "llvm")


def two_products() -> pipeline.Lowered:
    x, w, v = tensor(65, 33), tensor(33, 40), tensor(40, 7)
    return lowered(((x @ w).relu() @ v).softmax(1))


def test_counts_of_a_tuned_program(short: None, own_store: Path) -> None:
    low = two_products()
    want = low.run()[0]
    done = low.tune(budget=60, tries=3)
    assert isinstance(done, Tuning) and not done.interrupted and done.left == ()
    assert {k.name for k in done.kernels} == {k.name for k in low.scheduled}
    waste = [k.seconds_wasted for k in done.kernels]
    assert waste == sorted(waste, reverse=True), "most promising first"
    for k in done.kernels:
        assert [a.verdict for a in k.attempts].count("default") == 1 and k.attempts[0].verdict == "default"
        assert 1 < len(k.attempts) <= 1 + 3
        assert len({a.schedule for a in k.attempts}) == len(k.attempts), "no schedule twice"
        assert all(a.verdict in ("faster", "slower") and a.error is not None and a.error < 1e-4 for a in k.attempts[1:])
        assert k.schedule is None or any(a.schedule == k.schedule and a.verdict == "faster" for a in k.attempts)
    assert len(list(own_store.glob("tuned-*-llvm.json"))) == 1
    np.testing.assert_allclose(done.lowered.run()[0], want, rtol=1e-5)
    assert all(f"{k.name}:" in done.text() for k in done.kernels)
    tuned = [d for d in (done.lowered.plan, done.lowered)[1].decisions if d.kind == "tuned"]
    assert len(tuned) == len(done.kernels)
    assert all({"seconds_before", "seconds_after", "schedules"} <= set(d.numbers) for d in tuned)


def test_a_wrong_candidate_never_wins(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted primitive that forgets the last iterations: always faster, and always found out."""

    def lazy(kernel: Kernel, loop: str, size: int | None = None) -> Kernel:
        def less(s: Any) -> Any:
            if not isinstance(s, Loop):
                return s
            if s.name == loop:
                return replace(s, stop=s.start + s.trips // 2 * s.step)
            return replace(s, body=tuple(map(less, s.body)))

        return replace(kernel, body=tuple(map(less, kernel.body)))

    monkeypatch.setitem(primitives.TABLE, "unroll", (lazy, ("name", "int"), 1, {}))
    done = tune_function(lowered(tensor(300, 200).softmax(1)), budget=60, tries=40)
    (k,) = done.kernels
    planted = [a for a in k.attempts if "unroll" in a.origin]
    assert len(planted) >= 2 and {a.verdict for a in planted} == {"wrong"}
    assert "differ from the reference interpreter" in planted[0].reason and all(a.seconds is None for a in planted)
    assert not any("unroll" in line for line in k.schedule or ())


def test_a_candidate_that_fails_is_an_attempt_too(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made, compile_ = [], Case.compile

    def fails(self: Case, kernel: Kernel, launches: int = 1) -> Any:
        made.append(kernel)
        if len(made) == 3:  # the engine's own is compiled twice
            raise RuntimeError("no registers left")
        return compile_(self, kernel, launches)

    monkeypatch.setattr(Case, "compile", fails)
    (k,) = tune_function(lowered(tensor(64, 32).sum(1)), budget=60, tries=2).kernels
    assert (k.attempts[1].verdict, k.attempts[1].reason) == ("failed", "RuntimeError: no registers left")


def test_ctrl_c_keeps_what_was_found(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    duel, calls = Case.duel, []

    def pressed(self: Case, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return duel(self, *args, **kwargs)

    monkeypatch.setattr(Case, "duel", pressed)
    done = two_products().tune(budget=60, tries=3)
    assert done.interrupted and len(done.kernels) == 1 and done.left
    assert len(done.kernels[0].attempts) >= 2 and "interrupted before" in done.text()
    assert len(tune_store.store(FIXTURE, "llvm").entries) == 1


def timed(monkeypatch: pytest.MonkeyPatch, mine: list[float], theirs: list[float]) -> Tuning:
    """A kernel is tuned, and every candidate takes these seconds, launch by launch in turn with the engine's own."""
    monkeypatch.setattr(Case, "duel", lambda self, a, b, limit, least=9: (Timing.of(mine), Timing.of(theirs)))
    return tune_function(lowered(tensor(64, 48).sum(1)), budget=60, tries=2)


def test_a_winner_is_faster_launch_by_launch(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour may double any launch: no median of one moment beside one of another decides."""
    (k,) = timed(monkeypatch, [1.0] * 9, [2.0] * 9).kernels
    assert k.schedule is not None and (k.seconds_before, k.seconds_after) == (2.0, 1.0)
    assert all(a.reason.startswith("0.50 times the engine's own") for a in k.attempts[1:])


@pytest.mark.parametrize("mine,theirs,reason", [
    ([1.0] * 9, [1.0] * 4 + [2.0] * 5, "the slower one in 4 of 9 launches"),  # the neighbour came while the engine's own ran
    ([1.0] * 9, [0.9] + [2.0] * 8, "1.11 times the engine's own when measured in turn"),  # its best is better
    ([1.0] * 9, [1.01] * 9, "0.99 times the engine's own"),
])  # fmt: skip
def test_what_only_seems_faster_does_not_win(
    short: None, monkeypatch: pytest.MonkeyPatch, mine: list[float], theirs: list[float], reason: str
) -> None:
    (k,) = timed(monkeypatch, mine, theirs).kernels
    assert k.schedule is None and k.seconds_after == k.seconds_before
    assert any(reason in a.reason for a in k.attempts[1:])


def test_progress_goes_on_within_a_kernel(
    short: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = sys.modules[tune_function.__module__]
    monkeypatch.setattr(module, "QUIET", 0.0)
    low = lowered(tensor(64, 48).softmax(1))
    said: list[str] = []
    low.tune(budget=60, tries=3, progress=said.append)
    assert len(said) == 1 + 3 and all(line.startswith("tuning kernel 1 of 1, ") and line.endswith(" s left") for line in said)
    assert [int(line.split(": ")[1].split()[0]) for line in said] == [0, 1, 2, 3]
    low.tune(budget=60, tries=3)
    assert capsys.readouterr().err.count("\n") >= 4, "one line each where the error stream is no terminal"
    monkeypatch.setattr(module, "QUIET", 1e9)
    low.tune(budget=60, tries=1)
    assert capsys.readouterr().err == ""


def test_equal_kernels_are_tuned_once(short: None) -> None:
    w, v, x = tensor(32, 32), tensor(32, 32), tensor(16, 32)
    low = lowered(((x @ w).relu().contiguous() @ v).relu())
    done = low.tune(budget=60, tries=1)
    assert [len(k.calls) for k in done.kernels] == [2]


def test_nothing_of_the_users_changes(short: None) -> None:
    tinyengine.manual_seed(3)
    model = nn.Linear(8, 4)
    opt = optim.Adam(model.parameters(), lr=0.1)

    def step(x: Tensor) -> Tensor:
        opt.zero_grad()
        loss = (model(x).dropout(0.5) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    x = tensor(16, 8)
    before = [p.numpy().copy() for p in model.parameters()]
    state, counter = x.numpy().copy(), engine_random._state.counter
    done = tune_function(step, x, budget=60, tries=1)
    assert done.kernels and np.isfinite(done.lowered.run()[0]).all()
    assert engine_random._state.counter == counter
    assert all(p.grad is None for p in model.parameters())
    for p, b in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), b)
    np.testing.assert_array_equal(x.numpy(), state)


def test_a_jitted_function_uses_what_was_found(short: None) -> None:
    w = tensor(40, 30)
    step = jit(lambda x: (x @ w).relu().sum(0))
    x = tensor(50, 40)
    want = step(x).numpy()
    done = step.tune(x, budget=60, tries=2)
    assert step.lowered[0].choices.tuned.keys() == {k.key for k in done.kernels}
    np.testing.assert_allclose(step(x).numpy(), want, rtol=1e-5)


# ---- the store


def plant(name: str, kernel: Kernel, lines: tuple[str, ...] | None) -> str:
    attempts = (tune_store.Attempt(lines or (), "by hand", "faster", "0.50 times the engine's own", 1e-6, 1e-6, 2e-6, 0.0),)
    entry = tune_store.Entry(name, "2026-11-22", lines, 2e-6, 1e-6, attempts)
    tune_store.store(FIXTURE, "llvm").add({kernel_key(kernel): entry})
    return kernel_key(kernel)


def test_the_store_survives_a_new_process(own_store: Path) -> None:
    key = plant("matmul", forms.FORMS["matmul"], ("vectorize(j, 4)",))
    before = tune_store.store(FIXTURE, "llvm").entries
    tune_store.forget()
    again = tune_store.store(FIXTURE, "llvm")
    assert again.entries == before and again.tuned == {key: Tuned(("vectorize(j, 4)",), 2e-6, 1e-6, 1)}
    assert not [p for p in own_store.iterdir() if p.name.startswith("t-")], "no temporary file stays"
    # two processes: what the other one wrote meanwhile stays
    other = tune_store.Store(again.path, again.machine, "llvm")
    plant("softmax", forms.FORMS["softmax"], None)
    other.add({"other": before[key]})
    tune_store.forget()
    assert len(tune_store.store(FIXTURE, "llvm").entries) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99, "kernels": {}}', '{"format": 1, "kernels": []}', "[" * 5000])
def test_a_damaged_store_is_a_miss(own_store: Path, content: str) -> None:
    plant("matmul", forms.FORMS["matmul"], ())
    (path,) = own_store.glob("tuned-*")
    path.write_text(content)
    tune_store.forget()
    assert tune_store.store(FIXTURE, "llvm").tuned == {}


@pytest.mark.parametrize("change", [
    {"schedule": "tile(i, 4)"}, {"schedule": [4]}, {"seconds_before": -1}, {"seconds_after": "1"}, {"seconds_after": None},
    {"attempts": [{}]}, {"attempts": 3}, {"name": 5},
])  # fmt: skip
def test_a_damaged_entry_takes_no_other_with_it(own_store: Path, change: dict[str, Any]) -> None:
    bad, good = (plant(name, forms.FORMS[name], None) for name in ("matmul", "softmax"))
    (path,) = own_store.glob("tuned-*")
    data = json.loads(path.read_text())
    data["kernels"][bad] |= change
    path.write_text(json.dumps(data))
    tune_store.forget()
    assert set(tune_store.store(FIXTURE, "llvm").tuned) == {good}


def test_without_a_disk_it_lives_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYENGINE_CACHE", "0")
    plant("matmul", forms.FORMS["matmul"], ())
    assert len(tune_store.store(FIXTURE, "llvm").tuned) == 1


# ---- used by later lowering


def renamed(k: Kernel, new: dict[str, str]) -> Kernel:
    from tinyengine.stages.primitives.nest import rename_buffers

    bufs: dict[Buf, Buf] = {p: replace(p, name=new[p.name]) for p in k.params}
    body = rename_buffers(k.body, bufs)
    return replace(k, name="another", params=tuple(bufs.values()), body=body, outputs=tuple(new[o] for o in k.outputs))


def test_what_was_found_is_used_for_kernels_of_equal_form() -> None:
    k = forms.matmul(64, 200, 80, True)
    lines = tuple(map(str, schedule.run(k, DEFAULT, FIXTURE)[0].schedule))
    packed = next(line for line in lines if line.startswith("pack(")).removeprefix("pack(").partition(",")[0]
    first = k.params[0].name
    new = {p.name: f"y{i}" for i, p in enumerate(k.params)} | {packed: f"{first}_{packed}"}
    other = renamed(k, new)
    assert kernel_key(other) == kernel_key(k)
    general = generalise(lines, k)
    assert f"pack(b{[p.name for p in k.params].index(packed)}, " in " ".join(general)
    choices = replace(DEFAULT, tuned={kernel_key(k): Tuned(general, 2e-6, 1e-6, 9)})
    out, decisions = schedule.run(other, choices, FIXTURE)
    assert out.schedule == localise(general, other) and f"pack({first}_{packed}, " in " ".join(out.schedule)
    (d,) = decisions
    assert d.kind == "tuned" and d.numbers == {"seconds_before": 2e-6, "seconds_after": 1e-6, "schedules": 9}
    assert "fastest of 9" in d.reason
    forms.assert_same(k, schedule.run(k, choices, FIXTURE)[0])


def test_the_engines_own_may_be_the_fastest_and_a_stale_schedule_is_refused() -> None:
    k = forms.FORMS["softmax"]
    own = schedule.run(k, DEFAULT, FIXTURE)[0]
    kept, decisions = schedule.run(k, replace(DEFAULT, tuned={kernel_key(k): Tuned(None, 1e-6, 1e-6, 5)}), FIXTURE)
    assert kept == own and decisions[0].verdict == "as it is" and "none of 5" in decisions[0].reason
    gone, decisions = schedule.run(k, replace(DEFAULT, tuned={kernel_key(k): Tuned(("tile(zz, 4)",), 1e-6, 1e-6, 5)}), FIXTURE)
    assert gone == own and decisions[0].verdict == "refused" and "no loop is called 'zz'" in decisions[0].reason


def test_realize_takes_it_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyengine.machine.current", lambda: FIXTURE)
    assert realize.current_choices() == DEFAULT
    x = tensor(37, 53)
    nest = lowered(x.exp()).nests[0].kernel
    plant(nest.name, nest, ("unroll(j, 2)",))
    events: list[hooks.Event] = []
    with hooks.subscribed(events.append, hooks.Decision):
        (x.exp()).numpy()
    (d,) = [e for e in events if isinstance(e, hooks.Decision) and e.kind == "tuned"]
    assert d.verdict == "unroll(j, 2)"


# ---- candidates


@pytest.mark.parametrize("form", sorted(forms.FORMS))
def test_neighbours_are_legal_and_keep_the_meaning(form: str) -> None:
    k = forms.FORMS[form]
    own = schedule.run(k, DEFAULT, FIXTURE)[0]
    found = list(neighbours(k, tuple(map(str, own.schedule)), FIXTURE))
    bodies = [n.kernel.body for n in found]
    assert len(set(bodies)) == len(bodies) and own.body not in bodies
    for n in found[:: max(1, len(found) // 6)]:
        assert n.origin
        forms.assert_same(k, n.kernel)


def test_what_cannot_be_tuned_is_named() -> None:
    with pytest.raises(ValueError, match="the budget is 0; expected a number of seconds above 0"):
        two_products().tune(budget=0)
    with pytest.raises(TypeError, match="tune takes a Lowered, or a function and its arguments; got int"):
        tune_function(3)
    with pytest.raises(TypeError, match="a Lowered takes no arguments"):
        tune_function(two_products(), 3)
