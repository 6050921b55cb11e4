"""Recording real runs: what is recorded, what it costs, and that watching changes nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.conformance import unwatched
from tests.tinyviz import training
from tinyengine import Tensor, backends, hooks, jit, machine
from tinyengine.stages import simplify
from tinyviz import analysis, frames, record, wire
from tinyviz.recording import Recording, watch
from tinyviz.validate import validate


@pytest.fixture(autouse=True)
def fixed() -> Iterator[None]:
    with mock.patch.object(machine, "current", lambda: machine.FIXTURE), backends.use("reference"):
        yield


def batch() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return training.tensors(rng.random((32, 16), dtype=np.float32), rng.integers(0, 4, 32).astype(np.int32))


def steps(count: int) -> tuple[Recording, list[float]]:
    _, step = training.network()
    with watch("test") as rec:
        losses = [step(*batch()).item() for _ in range(count)]
    return rec, losses


def test_a_training_step_is_recorded_whole() -> None:
    rec, _ = steps(3)
    r = rec.data
    validate(r)
    assert r.missing == [] and len(r.programs) == 1
    (p,) = r.programs
    assert p.name == "training step" and p.backend == "reference"
    assert p.missing == ["predicted times: they are of compiled code, and the backend reference does not compile"]
    assert p.certificate.seconds is None and p.certificate.flops and all(k.seconds_predicted is None for k in p.kernels)
    assert p.launches.count == 3 and len(p.launches.runs) == 3
    assert len(p.kernels) == len(p.calls) == p.certificate.kernels == len(p.launches.median)
    assert {p.nodes.phase[n] for n in p.recorded} == {"forward", "backward", "optimizer"}
    assert [s.name for s in p.stages] == ["record", "differentiate", "simplify", "fuse", "loops", "schedule", "plan", "emit"]
    backward = [n for n in p.recorded if p.nodes.phase[n] == "backward"]
    tied = [n for n in backward if p.nodes.forward[n] >= 0 and p.nodes.derivative[n]]
    assert len(tied) > len(backward) / 2
    assert {p.nodes.phase[p.nodes.forward[n]] for n in tied} == {"forward"}


def test_lines_are_those_of_the_user() -> None:
    rec, _ = steps(1)
    r = rec.data
    assert [f.name for f in r.files if "tinyviz" in f.path and "tests" not in f.path] == []
    texts = set(r.lines.text)
    assert {"h = self.fc1(x).relu()", "return self.fc2(h)", "loss = model(x).cross_entropy(y)", "optimizer.step()"} <= texts
    source = next(f for f in r.files if f.name == "training.py").text.split("\n")
    for file, line, text in zip(r.lines.file, r.lines.line, r.lines.text, strict=True):
        if r.files[file].name == "training.py":
            assert source[line - 1].strip() == text


def test_shares_of_every_kernel_sum_to_one() -> None:
    rec, _ = steps(1)
    for k in rec.kernels:
        assert sum(k.shares.share) == pytest.approx(1.0)
        assert all(0 <= s <= 1 for s in k.shares.share)
    phases = {phase for k in rec.kernels for phase in k.shares.phase}
    assert phases == {"forward", "backward", "optimizer"}


def test_firings_are_derived_again_for_a_program_that_was_compiled_before() -> None:
    _, step = training.network()
    step(*batch())
    with watch() as rec:
        step(*batch())
    (p,) = rec.programs
    at = next(i for i, s in enumerate(p.stages) if s.name == "simplify")
    stage = p.stages[at]
    assert stage.replayed and len(stage.frames) > 5
    assert frames.graph_at(p, at, -1).alive == set(stage.after) == set(p.simplified)
    for k in range(len(stage.frames) + 1):
        snapshot = frames.graph_at(p, at, k)
        assert snapshot.alive == snapshot.reached()


def test_a_program_from_the_cache_explains_itself() -> None:
    a, b = Tensor(np.ones((4, 4), np.float32)), Tensor(np.ones((4, 4), np.float32))
    (a * 2 + 1).sum().item()
    with watch() as rec:
        (b * 2 + 1).sum().item()
    (p,) = rec.programs
    assert [c.hit for c in rec.data.caches if c.cache == "program"] == [True]
    assert p.decisions and p.kernels[0].loops.text and p.kernels[0].scheduled.text
    assert p.stages[2].seconds is None, "it was not compiled here, so no time is shown"
    assert rec.data.realized[0].cause == "item"
    line = rec.data.realized[0].line
    assert "(b * 2 + 1).sum().item()" in rec.data.lines.text[line]


def test_a_cache_miss_names_its_guard() -> None:
    with watch() as rec:
        for n in (3, 5):
            (Tensor(np.ones(n, np.float32)) * 3.5).numpy()
    guards = [(c.guard, c.old, c.new) for c in rec.data.caches if not c.hit and c.cache == "program"]
    assert ("(3,)", "(5,)") in [(old, new) for _, old, new in guards]
    assert any("shape" in guard for guard, _, _ in guards)


def test_many_runs_are_folded_in_bounded_memory() -> None:
    lowered = mock.Mock(seconds={})
    runs = record.Runs(lowered)
    for i in range(10_000):
        runs.add(hooks.Launch(lowered, (0.0, 1.0), (1e-6 * (i % 5), 2e-6), 1e-5, float(i)))
    assert len(runs.first) == len(runs.last) == record.KEPT_RUNS
    assert len(runs.samples) < record.SAMPLES
    out = runs.wire(0.0)
    assert out.count == 10_000 and len(out.runs) == 2 * record.KEPT_RUNS
    assert out.median[1] == out.low[1] == out.high[1] == 2e-6
    assert out.median[0] == pytest.approx(2e-6)
    assert out.total[1] == pytest.approx(0.02) and out.host_total == pytest.approx(0.1)
    assert [r.began for r in out.runs] == [*range(8), *range(9992, 10_000)]


def test_what_disturbs_runs_at_different_places_each_is_time_of_kernels() -> None:
    """Each run is held up in another kernel: every kernel's median stays short while every run is long."""
    rec, _ = steps(1)
    p = rec.data.programs[0]
    n = len(p.calls)
    runs = record.Runs(mock.Mock(seconds={}))
    for i in range(n * 8 + 1):
        seconds = tuple(1e-5 + 1e-3 * (c == i % n) for c in range(n))
        runs.add(hooks.Launch(runs.lowered, (0.0,) * n, seconds, sum(seconds) + 1e-6))
    p.launches = runs.wire(0.0)
    assert p.launches.host_median - sum(p.launches.median) > 0.9e-3, "medians do not add up"
    assert analysis.host_seconds(p) == pytest.approx(1e-6)
    rows, _ = analysis.line_rows(p)
    assert sum(r.seconds or 0.0 for r in rows) == pytest.approx(n * 1e-5 + 1e-3 + 1e-6)
    assert sum(r.seconds or 0.0 for r in rows if r.line < 0) == pytest.approx(1e-6)


def test_another_program_in_the_process_takes_no_time_of_a_line() -> None:
    """Two programs, recorded one after the other: each line has what its own program's typical run has."""
    training_of = {}
    for name in ("first", "second"):
        rec, _ = steps(9)
        (p,) = [p for p in rec.data.programs if p.launches.count == 9]
        rows, measured = analysis.line_rows(p)
        training_of[name] = {r.line for r in rows}
        runs = [r for r in p.launches.runs[1:] if r.seconds]
        middle = sorted(runs, key=lambda r: r.host_seconds)[2:6]
        outside = sum(r.host_seconds - sum(r.seconds) for r in middle) / 4
        assert measured and analysis.host_seconds(p) == pytest.approx(outside)
    assert training_of["first"] == training_of["second"]


class Step:
    """A program of 30 kernels, as the recorder sees it."""

    seconds: dict[str, float] = {}

    def __init__(self) -> None:
        self.executable = object()


def events(steps: int, programs: int = 1) -> record.Recorder:
    """A recorder after that many steps, each with all events that a step can have, some of them new each time."""
    made = [Step() for _ in range(programs)]
    r = record.Recorder()
    origin = mock.Mock(frames=())
    for i in range(steps):
        p: Any = made[i % programs]
        r._take(hooks.CacheMiss("jit", "step", "shape of x", (i,), (i + 1,)))
        r._take(hooks.CacheHit("kernel", f"symbol{i}"))
        r._take(hooks.HostWait("data.batches", 1e-4))
        r._take(hooks.Realized("item" if i % 2 else "print", origin, ()))
        r._take(hooks.Launch(p, tuple(1e-6 * k for k in range(30)), (1e-6,) * 30, 4e-5, i * 1e-3))
    return r


def size(value: Any, seen: set[int]) -> int:
    """Bytes of everything below a value."""
    import sys

    if id(value) in seen or isinstance(value, (Step, mock.Mock)):
        return 0
    seen.add(id(value))
    inner: Any = ()
    if isinstance(value, dict):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set)):
        inner = value
    elif hasattr(value, "__dict__"):
        inner = vars(value).values()
    elif hasattr(type(value), "__slots__"):
        inner = [getattr(value, name) for name in type(value).__slots__ if hasattr(value, name)]
    return sys.getsizeof(value) + sum(size(v, seen) for v in inner)


def test_ten_thousand_steps_stay_within_the_stated_bound() -> None:
    """SAMPLES + 2 * KEPT_RUNS runs, about 100 bytes for each of the 30 kernels, and MOST_EVENTS events of a kind."""
    short, long = events(1_000), events(10_000)
    assert size(long, set()) < 1.1 * size(short, set()), "ten times the steps take no more memory"
    runs = (record.SAMPLES + 2 * record.KEPT_RUNS) * 30 * 100
    assert size(long, set()) < runs + 3 * record.MOST_EVENTS * 1_000
    assert next(iter(long.programs.values())).count == 10_000
    misses = [f for f in long.caches.values() if isinstance(f.event, hooks.CacheMiss)]
    assert sum(f.count for f in misses) + long.caches["more"].count >= 10_000
    assert next(f.count for f in long.caches.values() if isinstance(f.event, hooks.CacheHit)) > 0


def test_a_program_for_every_step_is_bounded_too() -> None:
    r = events(1_000, programs=200)
    assert len(r.programs) == record.MOST_PROGRAMS and r._more is not None
    assert r._more.count + sum(p.count for p in r.programs.values()) == 1_000


def test_what_was_left_out_is_said() -> None:
    with mock.patch.object(record, "MOST_PROGRAMS", 2), watch() as rec:
        for n in range(2, 7):
            (Tensor(np.ones(n, np.float32)) * 3.5).numpy()
    assert len(rec.programs) == 2
    assert "3 runs of further programs: only the first 2 programs are kept" in rec.data.missing


def test_the_time_between_runs_is_kept_and_folded() -> None:
    r = events(50)
    out = next(iter(r.programs.values())).wire(0.0)
    assert out.runs[0].gap is None and out.runs[1].gap == pytest.approx(1e-3 - 4e-5)
    assert out.gap_median == pytest.approx(9.6e-4) and out.gap_total == pytest.approx(49 * 9.6e-4)


def test_data_loading_is_a_wait_of_the_host() -> None:
    from tinyengine.data import batches

    x = np.ones((64, 16), np.float32)
    with watch() as rec:
        for (b,) in batches(x, size=16):
            (Tensor(b) * 2).sum().item()
    (w,) = rec.data.waits
    assert (w.reason, w.count) == ("data.batches", 4) and w.seconds > 0
    text = rec.view("timeline").text
    assert "data.batches" in text and "what the host waited for" in text and "host between the runs" in text
    lanes = set(rec.view("timeline").data.recording.lane)
    assert {"host", "cache misses", "waits", "between runs", "runs"} <= lanes


def test_a_cache_miss_stands_in_the_time_line_with_its_guard() -> None:
    with watch() as rec:
        for n in (3, 5):
            (Tensor(np.ones(n, np.float32)) * 4.5).numpy()
    d = rec.view("timeline").data.recording
    said = [d.label[i] for i in range(len(d)) if d.lane[i] == "cache misses"]
    assert any("shape of" in x and "(3,) → (5,)" in x for x in said), said


def test_equal_events_are_folded() -> None:
    x = Tensor(np.ones(4, np.float32))
    with watch() as rec:
        for _ in range(50):
            (x + 1).sum().item()
    data = rec.data
    assert [(r.cause, r.count) for r in data.realized] == [("item", 50)]
    assert sum(c.count for c in data.caches if c.cache == "program") == 50
    assert data.programs[0].launches.count == 50


def test_watching_changes_no_result() -> None:
    _, watched = steps(4)
    _, step = training.network()
    assert [step(*batch()).item() for _ in range(4)] == watched


def test_looking_touches_no_parameter() -> None:
    model, step = training.network()
    with watch() as rec:
        step(*batch())
        before = [p.numpy() for p in model.parameters()]
        rec.view("overview").text, rec.view("kernel").svg
    assert rec.data.programs
    for a, b in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_a_subscriber_that_raises_changes_nothing() -> None:
    def broken(event: hooks.Event) -> None:
        raise RuntimeError("broken on purpose")

    hooks.errors.clear()
    with hooks.subscribed(broken):
        rec, losses = steps(2)
    assert hooks.errors and all("on purpose" in str(e) for _, e in hooks.errors)
    hooks.errors.clear()
    assert rec.data.programs[0].launches.count == 2
    assert losses == steps(2)[1]


def test_nothing_listens_before_and_after() -> None:
    assert not hooks.watching
    with watch() as rec:
        assert hooks.watching
    assert not hooks.watching
    with pytest.raises(ZeroDivisionError), watch():
        _ = 1 / 0
    assert not hooks.watching
    assert rec.data.missing == ["no program was compiled or run while this was recorded"]


def test_the_recorder_says_what_it_cost() -> None:
    rec, _ = steps(3)
    r = rec.data
    assert r.observer_seconds is not None and r.seconds is not None
    assert 0 < r.observer_seconds < r.seconds
    assert "cost of recording: " in rec.view("timeline").text and " watched, " in rec.view("timeline").text


def test_the_collector_is_no_cost_of_the_recorder_even_where_it_runs_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    add, callbacks = record.Runs.add, list(gc.callbacks)
    monkeypatch.setattr(record.Runs, "add", lambda *args: (gc.collect(), add(*args)))
    rec, _ = steps(3)
    r, own = rec.data, rec.data.observer_seconds
    assert gc.callbacks == callbacks
    collected = r.observer_apart["garbage collection"]
    assert own is not None and own > 0 and collected > 0 and own + collected < (r.seconds or 0.0)
    assert "; garbage collection in it, " in rec.view("timeline").text
    gc.collect()
    monkeypatch.undo()
    with watch() as quiet:
        gc.collect()  # the user's own, outside of the recorder
    assert quiet.data.observer_apart == {}


def test_what_was_asked_for_beside_recording_stands_apart() -> None:
    _, step = training.network()
    with watch("test", values=1) as rec:
        step(*batch())
    assert rec.data.observer_apart["looking at values"] > 0
    assert steps(1)[0].data.observer_apart.get("looking at values") is None


def test_differentiate_has_the_time_of_the_program_that_it_made() -> None:
    w, x = Tensor(np.ones((4, 3), np.float32), requires_grad=True), Tensor(np.ones((2, 4), np.float32))

    @jit
    def step(x: Tensor) -> Tensor:
        loss = (x @ w).relu().sum()
        loss.backward()
        return w.grad

    with watch() as rec:
        (x * 7).sum().item()
        for _ in range(2):
            step(x)
        (x * 8).sum().item()
    times = [next(s for s in p.stages if s.name == "differentiate").seconds for p in rec.data.programs]
    assert len(times) == 3 and times[0] is None and times[2] is None
    assert times[1] is not None and times[1] > 0


def test_one_program_that_cannot_be_shown_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = Tensor(np.ones(4, np.float32))
    with watch() as rec:
        (x + 1).numpy()
        (x * 5).sum().item()
    real, calls = record.program, []

    def first_fails(parts: Any, tables: Any) -> Any:
        calls.append(parts)
        if len(calls) == 1:
            raise RuntimeError("broken on purpose")
        return real(parts, tables)

    monkeypatch.setattr(record, "program", first_fails)
    assert len(rec.programs) == 1
    assert rec.data.missing == ["program 0: RuntimeError: broken on purpose"]
    assert {r.program for r in rec.data.realized} == {0, -1}


def test_a_part_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(simplify, "explain", broken)
    rec, _ = steps(1)
    (p,) = rec.programs
    assert "single rewrites: not recorded, because RuntimeError: broken on purpose" in p.missing
    assert p.kernels and not p.stages[2].replayed
    text = rec.view("stages").text
    assert "broken" not in text and rec.view("stages").data.rows[2].firings is None


def test_a_step_of_the_digits_network_takes_less_than_200_kb(tmp_path: Path) -> None:
    from tests.networks import MLP
    from tinyengine import jit, optim

    model = MLP()
    optimizer = optim.Adam(list(model.parameters()), lr=1e-3)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    with watch() as rec:
        step(Tensor(np.zeros((128, 64), np.float32)), Tensor(np.zeros(128, np.int32)))
    assert rec.save(tmp_path / "a.tvz").stat().st_size < 200_000


def test_the_data_needs_no_engine(recording: Recording, tmp_path: Path) -> None:
    """A saved recording is read, drawn and linked in a process that cannot import the engine."""
    import subprocess
    import sys

    path = recording.save(tmp_path / "a.tvz")
    code = (
        "import sys; sys.modules['tinyengine.node'] = None; sys.modules['numpy'] = None\n"
        "from tinyviz.recording import load\n"
        f"r = load({str(path)!r})\n"
        "from tinyviz import views\n"
        "made = [r.view(n).made for n in views.NAMES]\n"
        "assert not any(m.error for m in made), [m.error for m in made]\n"
        "assert r.related('kernel', '0.0')['line']\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_wire_data_is_plain() -> None:
    rec, _ = steps(1)
    stack: list[Any] = [rec.data]
    while stack:
        x = stack.pop()
        assert x is None or type(x).__module__ in ("builtins", "tinyviz.wire"), type(x)
        stack += (
            x
            if isinstance(x, list)
            else x.values()
            if isinstance(x, dict)
            else vars(x).values()
            if hasattr(x, "__dict__")
            else []
        )
    assert isinstance(rec.data, wire.Recording)


def test_what_recording_adds_to_a_steady_step() -> None:
    """Calls of functions, Python's and C's: they are what a step of some hundred microseconds feels."""
    with backends.use("llvm"):
        _, step = training.network()
        x, y = batch()
        plain = unwatched.measure(lambda: step(x, y)).calls
        with watch():
            watched = unwatched.measure(lambda: step(x, y)).calls
    added = watched - plain
    assert added["hooks.py:publish"] == 2 and added["record.py:Runs.add"] == 1  # one hit, one launch
    assert added.total() <= 40, added
