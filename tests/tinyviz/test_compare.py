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
from tinyviz import analysis, cli, codec, kernel_form, matching, record, significance, wire
from tinyviz.explore import make
from tinyviz.recording import Recording
from tinyviz.views import compare


def lowered(f: Any, n: int = 8) -> wire.Recording:
    """For the tests' machine: what is fused, and so which kernels there are, is not the same on all."""
    x, y = (Tensor(np.full((n, n), value, np.float32)) for value in (1, 2))
    with mock.patch.object(machine, "current", lambda: machine.FIXTURE):
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


def test_five_thousand_nodes_take_about_ten_times_five_hundred() -> None:
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

    assert calls(5_000) <= 30 * calls(500)


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


def test_students_t_agrees_with_its_table() -> None:
    for t, freedom, p in ((4.604, 4, 0.01), (2.776, 4, 0.05), (2.845, 20, 0.01), (3.850, 20, 0.001)):
        assert significance.student(t, freedom) == pytest.approx(p, rel=0.06)
        assert significance.student(-t, freedom) == significance.student(t, freedom)


def test_a_floor_judges_by_what_is_the_same() -> None:
    rng = random.Random(0)
    drift = {k: (1e-4, 1e-4 * 1.3 * (1 + 0.02 * rng.random())) for k in range(20)}  # the second recording ran 30 % slower
    floor = significance.Floor(drift)
    assert floor.judge(1e-4, 1.32e-4)[0] > 0.1, "as slow as all the others"
    chance, more = floor.judge(1e-4, 1e-4)
    assert chance < 1e-4 and not more, "what kept its time beside them became faster"
    assert floor.judge(1e-4, 1.7e-4)[0] < floor.judge(1e-4, 1.7e-4, same=True)[0] < 0.01
    steady = significance.Floor({k: (1e-4, 1e-4) for k in range(20)})
    assert steady.judge(1e-7, 2e-7)[0] > 0.01 > steady.judge(1e-5, 2e-5)[0], "a tenth of a microsecond is no difference"
    nothing = significance.Floor()
    assert nothing.judge(1e-4, 1.1e-4)[0] > 0.1 and nothing.judge(1e-4, 4e-4)[0] < 0.01
    alone = significance.Floor({0: (1e-4, 9e-4)})
    assert alone.judge(1e-4, 9e-4, same=True, own=0)[0] < 0.01, "a kernel is no witness for itself"


def planted(sample: wire.Recording, drift: float, changed: float) -> tuple[compare.CompareData, wire.Program]:
    """The sample beside a second recording of it that ran `drift` times as long, with another schedule for the first kernel, and
    that one `changed` times as long. 16 runs each, of some 10 % noise."""
    rng = random.Random(0)
    before, after = (codec.from_json(wire.Recording, json.loads(json.dumps(codec.to_json(sample)))) for _ in range(2))
    after.programs[0].kernels[0].schedule.append("unroll(i)")
    for r, factor, first in ((before, 1.0, 1.0), (after, drift, changed)):
        p = r.programs[0]
        runs = []
        for _ in range(16):
            scale = [1e-5 * (k + 1) * (first if c.kernel == 0 else factor) for k, c in enumerate(p.calls)]
            times = [x * (1 + rng.random() * 0.1) for x in scale]
            runs.append(replace(p.launches.runs[0], seconds=times, starts=times, host_seconds=sum(times) + factor * 2e-5))
        p.launches.runs[:] = runs
        p.launches.median = [sorted(x)[8] for x in zip(*(x.seconds for x in runs), strict=True)]
        p.launches.low = p.launches.high = p.launches.median
        p.launches.host_median = sum(p.launches.median) + factor * 2e-5
    return compare.data(after, 0, before=before, before_program=0), after.programs[0]


def verdicts(d: compare.CompareData) -> tuple[dict[int, str], dict[int, str]]:
    return {x.after: x.time.verdict for x in d.kernels}, {x.line: x.time.verdict for x in d.lines}


def test_verdicts_of_times(sample: wire.Recording) -> None:
    d, p = planted(sample, 1.0, 3.0)
    kernels, lines = verdicts(d)
    assert kernels[0] == "more" and {v for k, v in kernels.items() if k} == {"noise"}
    assert d.kernels[0].after == 0 and d.kernels[0].code == "schedule", "what differs stands first"
    assert "kernels are the same in both" in d.floor and d.floor in compare.text(sample, d)
    assert set(lines.values()) == {"noise"}, "the kernel is a small part of its line"
    d, p = planted(sample, 1.0, 30.0)
    served = {line for line, _, share in analysis.line_shares(p.kernels[0]) if share > 0.9}
    assert served and all(verdicts(d)[1][x] == "more" for x in served)
    assert {x.time.verdict for x in d.lines if x.same} == {"noise"}


def test_a_slower_machine_is_no_slower_kernel(sample: wire.Recording) -> None:
    kernels, lines = verdicts(planted(sample, 3.0, 3.0)[0])
    assert set(kernels.values()) == set(lines.values()) == {"noise"}


def test_two_recordings_of_one_program_differ_in_nothing() -> None:
    """Really recorded, one after the other; the noise between them is the machine's own."""
    before, after = recorded(machine.FIXTURE, 12), recorded(machine.FIXTURE, 12)
    d = tv.compare(before, after).data
    assert {x.code for x in d.kernels} == {"same"} and all(x.same for x in d.lines)
    assert all(x.time.chance is not None for x in [*d.kernels, *d.lines])
    differences = [*(x.time for x in d.kernels), *(x.time for x in d.lines), *d.figures]
    assert {x.verdict for x in differences} <= {"noise", "equal", "untested"}
    assert d.floor.startswith("Both ran the same kernels")


def test_a_kernel_is_the_same_whatever_its_values_are_called() -> None:
    a = lowered(lambda x, y: (x @ y).relu().sum(1))
    b = lowered(lambda x, y: (x.exp().sum(0, keepdim=True) @ x).sum() + (x @ y).relu().sum(1))
    k, other = (next(k for k in r.programs[0].kernels if k.name.startswith("matmul_")) for r in (a, b))
    assert k.loops.text[1:] != other.loops.text[1:], "its values have other numbers"
    assert kernel_form.form(k) == kernel_form.form(other)
    assert kernel_form.form(replace(k, schedule=[])) != kernel_form.form(k)
    half = replace(k, loops=replace(k.loops, text=[x.replace("float32", "float16") for x in k.loops.text]))
    assert kernel_form.form(half).loops != kernel_form.form(k).loops


def test_a_line_written_anew_is_one_line() -> None:
    def first(x: Tensor, y: Tensor) -> Tensor:
        z = (x @ y).relu()
        return z.sum()

    def second(x: Tensor, y: Tensor) -> Tensor:
        z = (x @ y).sigmoid()
        return z.sum()

    a, b = lowered(first), lowered(second)
    m = matching.match(matching.Side(a, 0), matching.Side(b, 0))
    pairs = matching.lines(a, a.programs[0], b, b.programs[0], m)
    assert ("z = (x @ y).relu()", "z = (x @ y).sigmoid()") in {(a.lines.text[x], b.lines.text[y]) for x, y in pairs.items()}


def recorded(on: machine.Machine, steps: int = 4) -> tv.Recording:
    """Steps of one training program, compiled for that machine."""
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 16), dtype=np.float32), rng.integers(0, 4, 32).astype(np.int32)
    with mock.patch.object(machine, "current", lambda: on), backends.use("llvm"):
        _, step = training.network()
        with tv.watch(on.name) as rec:
            for _ in range(steps):
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
        "machine: fixture: two Zen 5 cores → two small cores",
        "a vector: 64 B → 32 B (0.50 ×)", "vector registers: 32 → 16 (0.50 ×)", "L2 of all cores: 2 MiB → 1 MiB (0.50 ×)",
        "L3: 32 MiB → 4 MiB (0.12 ×)", "arithmetic: 506 GFLOP/s → 128 GFLOP/s (0.25 ×)",
    ]  # fmt: skip
    assert d.caveat.startswith("two machines: ")
    assert not d.nodes and d.behind == 0 and d.equal == len(large.programs[0].simplified), "the program is one"
    assert all(k.before >= 0 and k.after >= 0 and k.common == 1 for k in d.kernels)
    assert sum(k.code == "schedule" for k in d.kernels) >= 2, "other vectors, other schedules"
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
