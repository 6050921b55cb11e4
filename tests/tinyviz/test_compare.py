"""Two recordings beside each other: what is paired, what a planted change shows as, and which times count as different."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tinyviz as tv
from tests.tinyviz import training
from tinyengine import Tensor, backends, machine
from tinyviz import cli, codec, matching, record, significance, wire
from tinyviz.explore import make
from tinyviz.recording import Recording
from tinyviz.views import compare


def lowered(f: Any, n: int = 8) -> wire.Recording:
    x, y = (Tensor(np.full((n, n), value, np.float32)) for value in (1, 2))
    return record.build_lowered(tv.lower(f(x, y)))


def changes(a: wire.Recording, b: wire.Recording) -> list[tuple[str, str, str, bool]]:
    old, new = matching.Side(a, 0), matching.Side(b, 0)
    m = matching.match(old, new)
    assert {m.partner[u] for u in m.partner} == set(m.back) and all(m.back[m.partner[u]] == u for u in m.partner)
    found = matching.changes(old, new, m)
    ops = [(old.p.nodes.op[c.before] if c.before >= 0 else "", new.p.nodes.op[c.after] if c.after >= 0 else "") for c in found]
    return [(c.kind, x, y, c.first) for c, (x, y) in zip(found, ops, strict=True)]


def test_a_recording_equals_itself(sample: wire.Recording) -> None:
    d = compare.data(sample, before=sample)
    assert not d.nodes and not d.behind and d.equal == len(sample.programs[d.program].simplified)
    assert all(k.before == k.after and k.common == 1 for k in d.kernels)
    assert {x.verdict for x in d.figures} <= {"equal", "noise", "untested", "unknown"}
    assert "both ask for the same computation" in compare.text(sample, d)


def test_a_node_put_in_between_is_the_only_change() -> None:
    found = changes(lowered(lambda x, y: (x + y).sqrt().sum()), lowered(lambda x, y: (x + y).exp().sqrt().sum()))
    assert found == [("added", "", "exp", True)]


def test_a_node_taken_away_is_the_only_change() -> None:
    found = changes(lowered(lambda x, y: (x + y).exp().sqrt().sum()), lowered(lambda x, y: (x + y).sqrt().sum()))
    assert found == [("removed", "exp", "", True)]


def test_another_operand_is_seen() -> None:
    found = changes(lowered(lambda x, y: (x.exp() + y.sqrt()) * x), lowered(lambda x, y: (x.exp() + y.sqrt()) * y))
    assert ("rewired", "mul", "mul", True) in found


def test_a_changed_shape_begins_at_the_inputs() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y).relu().sum()

    found = changes(lowered(f, 8), lowered(f, 16))
    assert {kind for kind, *_ in found} == {"changed"}
    assert {op for _, op, _, first in found if first} <= {"buffer", "const", "expand"}


def test_ten_thousand_nodes_take_about_ten_times_a_thousand() -> None:
    """Near-linear: ten times the nodes with changes everywhere, at most thirty times the work (a square would be a hundred)."""

    def side(n: int, every: int) -> matching.Side:
        nodes = wire.Nodes()
        for i in range(n):
            arg = str(i) if i % every == 0 else ""
            row = ("add", "float32", [4], [max(i - 1, 0), i // 2] if i else [], arg, "forward", "m", [], [], -1, "")
            for column, value in zip(vars(nodes).values(), row, strict=True):
                column.append(value)
        p = codec.from_json(wire.Program, codec.to_json(PROGRAM))
        p.nodes, p.simplified, p.recorded = nodes, list(range(n)), list(range(n))
        r = wire.Recording(1, "", "", "", "", "", wire.Machine(), [], wire.Lines(), wire.Rules(), [p], [], [], [])
        return matching.Side(r, 0)

    def calls(n: int) -> int:
        """Likenesses weighed: a count, not a time."""
        a, b = side(n, 97), side(n, 89)
        seen, weigh = [0], matching._likeness

        def counted(*args: Any) -> float:
            seen[0] += 1
            return weigh(*args)

        matching._likeness = counted
        try:
            matching.match(a, b)
        finally:
            matching._likeness = weigh
        return seen[0]

    assert calls(10_000) <= 30 * calls(1_000)


PROGRAM = wire.Program(
    "", "", wire.Nodes(), wire.Origins(), [], [], [], {}, [], [], [], [], [], None, None, wire.Certificate(), wire.Launches()
)


def test_noise_is_told_from_a_difference() -> None:
    rng = random.Random(0)
    quiet = [1 + rng.random() * 0.1 for _ in range(15)]
    slower = [1.2 + rng.random() * 0.1 for _ in range(15)]
    p = significance.mann_whitney(quiet, slower)
    assert p is not None and p < 1e-4
    assert significance.mann_whitney(slower, quiet) == pytest.approx(p)
    same = significance.mann_whitney(quiet, [1 + rng.random() * 0.1 for _ in range(15)])
    assert same is not None and same > significance.CHANCE
    assert significance.mann_whitney([1.0] * 8, [1.0] * 8) == 1.0
    assert significance.mann_whitney(quiet[:3], slower) is None


def test_rank_test_agrees_with_counting_all_arrangements() -> None:
    """The exact distribution for small samples, by brute force."""
    from itertools import combinations

    a, b = [1.0, 2.0, 4.0, 7.0, 8.0, 9.0], [3.0, 5.0, 6.0, 10.0, 11.0, 12.0]
    values = sorted(a + b)

    def distance(chosen: tuple[float, ...]) -> float:
        return abs(sum(values.index(x) + 1 for x in chosen) - len(a) * (len(values) + 1) / 2)

    every = [distance(c) for c in combinations(values, len(a))]
    exact = sum(d >= distance(tuple(a)) for d in every) / len(every)
    assert significance.mann_whitney(a, b) == pytest.approx(exact, abs=0.02)


def test_verdicts_of_times(sample: wire.Recording) -> None:
    rng = random.Random(0)
    runs = sample.programs[0].launches.runs
    steady = [1e-6 * (i + 1) for i in range(len(runs[0].seconds))]
    runs[:] = [replace(runs[0], seconds=[s * (1 + rng.random() * 0.1) for s in steady]) for _ in range(16)]
    after = codec.from_json(wire.Recording, json.loads(json.dumps(codec.to_json(sample))))
    p = after.programs[0]
    for run in p.launches.runs:
        run.seconds = [s * (3 if i == 0 else 1 + rng.random() * 1e-3) for i, s in enumerate(run.seconds)]
    d = compare.data(after, 0, before=sample, before_program=0)
    first = next(k for k in d.kernels if k.after == p.calls[0].kernel)
    assert first.time.chance is not None and first.time.chance < significance.CHANCE and first.time.verdict != "noise"
    assert all(k.time.verdict == "noise" for k in d.kernels if k is not first)


def recorded(on: machine.Machine) -> tv.Recording:
    """Steps of one training program, compiled for that machine."""
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 16), dtype=np.float32), rng.integers(0, 4, 32).astype(np.int32)
    with mock.patch.object(machine, "current", lambda: on), backends.use("llvm"):
        _, step = training.network()
        with tv.watch(on.name) as rec:
            for _ in range(4):
                step(*training.tensors(x, y))
        assert rec.data.machine.name == on.name
    return rec


def test_two_machines_are_said_first_and_their_kernels_matched_though_schedules_differ() -> None:
    small = replace(
        machine.FIXTURE, name="two small cores", vector_bytes=32, vector_registers=16, l2_bytes=512 << 10, l3_bytes=4 << 20,
        fma_flops=64e9, fma_flops_all=128e9,
    )  # fmt: skip
    large, little = recorded(machine.FIXTURE), recorded(small)
    shown = tv.compare(large, little)
    d = shown.data
    assert d.settings == [
        "machine: fixture: two Zen 5 cores → two small cores", "L2 of all cores: 2 MiB → 1 MiB (0.50 ×)",
        "L3: 32 MiB → 4 MiB (0.12 ×)", "arithmetic: 506 GFLOP/s → 128 GFLOP/s (0.25 ×)",
    ]  # fmt: skip
    assert d.caveat.startswith("two machines: ")
    assert not d.nodes and d.behind == 0 and d.equal == len(large.programs[0].simplified), "the program is one"
    assert all(k.before >= 0 and k.after >= 0 and k.common == 1 for k in d.kernels)
    assert sum(k.schedule is True for k in d.kernels) >= 2, "other vectors, other schedules"
    assert {k.bytes.verdict for k in d.kernels} == {"equal"}
    assert shown.text.index("arithmetic: 506 GFLOP/s") < shown.text.index(d.caveat) < shown.text.index("time of one run")
    assert "differs: L3: 32 MiB" in shown.svg and "two machines: " in shown.svg
    again = tv.compare(large, large).data
    assert again.settings == [] and again.caveat == ""
    other = replace(large.data, backend="opencl", programs=[replace(large.programs[0], backend="opencl")])
    assert "of these settings" in tv.compare(large, Recording(other)).data.caveat


def test_nothing_to_compare_with_says_so(sample: wire.Recording) -> None:
    assert "tv.compare(before, after)" in make(sample, "compare").error
    with pytest.raises(TypeError, match="before is a str, not a Recording"):
        tv.compare("a.tvz", Recording(sample))  # type: ignore[arg-type]


def test_command_line(recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recording.save(tmp_path / "a.tvz"))
    assert cli.main(["compare", path, path]) == 0
    assert "both ask for the same computation" in capsys.readouterr().out
    assert cli.main(["compare", path, path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"] == []
    assert cli.main(["compare", path, str(tmp_path / "none.tvz")]) == 1


def test_explorer_shows_compare_first(recording: Recording) -> None:
    shown = tv.compare(recording, recording)
    assert shown.names[0] == "compare" and shown.page["view"] == "compare"
    assert shown.page["views"]["compare"]["before"]["runs"] == recording.programs[0].launches.count
    assert shown.svg.startswith("<svg")
