"""Every stage from fuse on can be stepped through: what the recorded edits give is what the engine had at these moments."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from tests.networks import MLP
from tinyengine import Tensor, jit, optim, pipeline
from tinyengine.loopnest import kernel_lines
from tinyengine.machine import FIXTURE
from tinyengine.stages.primitives.apply import apply_one, parse
from tinyviz import cli, codec, steps, wire
from tinyviz.convert import Parts, program
from tinyviz.explore import make
from tinyviz.lowering import lower
from tinyviz.recording import Recording, watch
from tinyviz.step_text import marked, paired, words
from tinyviz.tables import Tables
from tinyviz.validate import validate

LATE = ("fuse", "loops", "schedule", "plan", "emit")


def network() -> pipeline.Lowered:
    """One training step of a small network, for the tests' machine."""
    model = MLP()
    optimizer = optim.SGD(list(model.parameters()), lr=0.1, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    low = jit(step).lower(Tensor(np.zeros((128, 64), np.float32)), Tensor(np.zeros(128, np.int32)))
    return pipeline.Lowered(low.graph, low.buffers, low.choices, FIXTURE, "null")


@pytest.fixture(scope="module")
def low() -> pipeline.Lowered:
    return network()


@pytest.fixture(scope="module")
def p(low: pipeline.Lowered) -> wire.Program:
    return program(Parts.of(low, emit=False), Tables())


def stage(p: wire.Program, name: str) -> tuple[int, wire.Stage]:
    return next((i, s) for i, s in enumerate(p.stages) if s.name == name)


def test_nothing_is_missing_and_every_decision_is_a_step(p: wire.Program, low: pipeline.Lowered) -> None:
    assert not [m for m in p.missing if "predicted times" not in m]
    for name in ("fuse", "schedule", "plan"):
        _, s = stage(p, name)
        made = [i for i, d in enumerate(p.decisions) if d.stage == name]
        assert s.replayed and made and [d for d in s.steps.decision if d >= 0] == made
    assert steps.count(stage(p, "loops")[1]) == len(low.nests) + sum(len(n.decisions) for n in low.nests)


def test_the_steps_of_fuse_end_with_the_kernels(p: wire.Program, low: pipeline.Lowered) -> None:
    at, s = stage(p, "fuse")
    number = low.simplified.number
    text = steps.change(p, at, len(s.steps) - 1)[1]
    found: list[set[int]] = []
    for r in text:
        found.append(set()) if not r.nodes else found[-1].update(r.nodes)
    assert found == [{p.simplified[number[v]] for v in [*g.values, *g.also_stored]} for g in low.fusion.groups]
    heads = [r.text for r in text if not r.nodes]
    assert [h.partition(" over ")[0] for h in heads] == [f"k{i} {p.kernels[i].name}" for i in _order(p, low)]
    for k in range(len(s.steps)):
        before, after = steps.change(p, at, k)
        changed = {n for a, b in ((before, after), (after, before)) for n in _homes(a).items() - _homes(b).items()}
        assert {n for n, _ in changed} == set(s.steps.nodes[k]), "what is marked is what went to another kernel"


def _homes(text: list[steps.Row]) -> dict[int, tuple[str, ...]]:
    """Node -> the kernels that have it, and how."""
    out: dict[int, tuple[str, ...]] = {}
    head = ""
    for r in text:
        head = head if r.nodes else r.text
        for n in r.nodes:
            out[n] = (*out.get(n, ()), head + r.text)
    return out


def _order(p: wire.Program, low: pipeline.Lowered) -> list[int]:
    names = [k.name for k in p.kernels]
    return [names.index(n.kernel.name) for n in low.nests]


def test_each_primitive_gives_the_text_that_the_engine_has_then(p: wire.Program, low: pipeline.Lowered) -> None:
    at, s = stage(p, "schedule")
    applied = 0
    for i, k in enumerate(p.kernels):
        kernel = next(n.kernel for n in low.nests if n.kernel.name == k.name)
        for step in [j for j, of in enumerate(s.steps.kernel) if of == i]:
            before, after = steps.change(p, at, step)
            assert [r.text for r in before] == [line for line, _ in kernel_lines(kernel)]
            if s.steps.text[step] in k.schedule:
                kernel = apply_one(kernel, parse(s.steps.text[step])[0])
                applied += 1
                assert [r.text for r in after] == [line for line, _ in kernel_lines(kernel)]
            else:  # a refusal, or tidying at the end
                assert after == before or [r.text for r in after] == k.scheduled.text
        assert [r.text for r in after] == k.scheduled.text
    assert applied == sum(len(k.schedule) for k in p.kernels) > 20


def test_the_steps_of_plan_place_every_temporary(p: wire.Program) -> None:
    at, s = stage(p, "plan")
    text = [r.text for r in steps.change(p, at, len(s.steps) - 1)[1]]
    order = [k.name for k in p.kernels]
    assert text[: len(order)] == [f"call {i}: {name}" for i, name in enumerate(order)] and len(text) == len(order) + len(p.slots)
    for slot in p.slots:
        start = f"{slot.offset} to " if slot.role == "temporary" else "given: "
        assert any(line.startswith(start) and f" {slot.name}," in line for line in text)
    places = [d for d in p.decisions if d.kind == "place"]
    assert len(places) == sum(x.role == "temporary" for x in p.slots)
    shared = [d for d in places if "in turn with" in d.verdict]
    for d in places:
        of = [x for x in p.slots if x.role == "temporary" and x.node in d.nodes and x.offset == d.numbers["offset"]]
        assert len(of) == 1 and (of[0].first, of[0].last) == (d.numbers["first"], d.numbers["last"])
    assert shared and all("at other times" in d.reason for d in shared)


def test_a_copy_that_the_plan_adds_has_its_steps_too() -> None:
    w = Tensor(np.arange(5000, dtype=np.float32))
    w.assign(w.flip(0) * 2)
    low = lower(w)
    p = low.recording.programs[0]
    copy = [k.name for k in p.kernels].index("copy_5000")
    k = p.kernels[copy]
    assert k.loops.text[1] == "  for i in 0..5000:" and k.schedule and k.space is not None
    assert [p.nodes.op[n] for n in k.nodes] == ["assign"] and sum(k.shares.share) == pytest.approx(1)
    for name in ("loops", "schedule", "emit"):
        assert copy in stage(p, name)[1].steps.kernel
    about = [d for d in p.decisions if d.stage == "schedule" and d.kernel == copy]
    assert about and all(d.reason for d in about)


def test_any_step_can_be_looked_at_without_the_others(p: wire.Program) -> None:
    """In order or not, the text after a step is the text before the next one about the same thing."""
    for at, s in enumerate(p.stages):
        if s.name in ("fuse", "plan", "schedule"):
            last: dict[int, list[steps.Row]] = {}
            for k in range(len(s.steps)):
                of = s.steps.kernel[k] if s.name == "schedule" else -1
                before, after = steps.change(p, at, k)
                assert before == last.get(of, before)
                assert (before != after) == (k in steps.effects(s))
                last[of] = after
    with pytest.raises(IndexError):
        steps.change(p, stage(p, "fuse")[0], 10_000)


def test_emit_ends_with_the_source_and_begins_with_what_no_instruction_does() -> None:
    x = Tensor(np.zeros((64, 4), np.float32))
    low = lower((x[:, 1].exp() + 2.0).log())
    p, r = low.recording.programs[0], low.recording.data
    at, s = stage(p, "emit")
    names = [r.rules.name[k] for k in s.steps.rule]
    assert names[-2:] == ["load", "emit"] and names[0] in ("exp-by-powers-of-two", "add-to-power-by-one-fma")
    before = steps.rows(p.kernels[0].scheduled)
    for k in range(len(s.steps) - 1):
        old, new = steps.change(p, at, k)
        assert old == before and (old != new) == (names[k] != "load")
        before = new
    assert "exp(" not in "".join(row.text for row in before)
    assert steps.change(p, at, len(s.steps) - 1) == (before, steps.rows(p.kernels[0].source))
    text = make(r, "kernel").text
    assert "on the way to the source\nwhat" in text and "lines and shuffles" in text and "log-by-exponent" in text
    one = wire.Selection("firing", f"0.{at}.{len(names) - 2}")
    assert "why: loading what lies between" in make(r, "stages", selection=one).text


def test_a_node_knows_the_kernel_and_the_primitives_that_touched_it(p: wire.Program) -> None:
    names = [s.name for s in p.stages]
    at, fuse = stage(p, "fuse")
    values = _homes(steps.change(p, at, len(fuse.steps) - 1)[1])  # views are none: they are arithmetic on the index
    for i, k in enumerate(p.kernels):
        for n in k.nodes:
            if p.nodes.op[n] in ("buffer", "const"):
                continue
            found = steps.touched(p, n)
            assert ("loops", i) in {(names[s], p.stages[s].steps.kernel[j]) for s, j in found}
            assert any(names[s] == "fuse" for s, _ in found) == (n in values)
    n = next(k.nodes[-1] for k in p.kernels if k.schedule)
    text = make(_recording(), "stages", selection=wire.Selection("node", f"0.{n}")).text
    assert "  fuse step " in text and "  loops step " in text and "  schedule step " in text


def _recording() -> wire.Recording:
    tables = Tables()
    p = program(Parts.of(network(), emit=False), tables)
    files = (tables.files, tables.lines, tables.rules)
    return wire.Recording(wire.VERSION, "", "", "", "", "", wire.Machine(), *files, [p], [], [], [])


def test_steps_are_small(p: wire.Program) -> None:
    """4,000 of them stay under 1 MB, at the size that these have on average."""
    late = [s for s in p.stages if s.name in LATE]
    size = len(json.dumps(codec.to_json([[s.steps, s.edits] for s in late]), separators=(",", ":")))
    assert size / sum(steps.count(s) for s in late) < 250


# ---- as text


def test_one_step_as_text(recording: Recording) -> None:
    p = recording.programs[0]
    at, s = stage(p, "schedule")
    k = next(k for k in steps.effects(s) if s.steps.text[k].startswith("tile("))
    text = recording.view("stages", selection=("firing", f"0.{at}.{k}")).text
    rule = s.steps.rule[k]
    for part in (s.steps.text[k], recording.data.rules.reason[rule], recording.data.rules.file[rule], "[-", "{+", "  kernel "):
        assert part in text
    svg = recording.view("stages", selection=("firing", f"0.{at}.{k}")).svg
    assert s.steps.text[k] in svg and "why: " in svg
    for name in LATE:
        at, s = stage(p, name)
        for k in range(len(s.steps)):
            made = make(recording.data, "stages", selection=wire.Selection("firing", f"0.{at}.{k}"))
            assert not made.error and f"{name} step {k} of {len(s.steps)}: " in made.text
    assert "no step 999" in make(recording.data, "stages", selection=wire.Selection("firing", f"0.{at}.999")).error


def test_a_step_of_plan_draws_the_arena_before_and_after(recording: Recording) -> None:
    p = recording.programs[0]
    at, s = stage(p, "plan")
    places = [k for k, d in enumerate(s.steps.decision) if p.decisions[d].kind == "place"]
    assert len(places) > 1
    for n, k in enumerate(places, 1):
        svg = recording.view("stages", selection=("firing", f"0.{at}.{k}")).svg
        assert f"arena after: {n} placed, " in svg and svg.count(" at ", svg.index("arena before:")) == 2 * n - 1
        assert svg.count('class="box c-new"') == 1, "what this step has placed is marked, and only after it"


def test_a_rule_lists_all_its_firings(recording: Recording) -> None:
    r = recording.data
    _, s = stage(r.programs[0], "fuse")
    whole = r.rules.name.index("whole")
    text = recording.view("stages", selection=("rule", str(whole))).text
    part = text.partition("steps of fuse")[2].partition("\n\n")[0]
    assert part.count("whole ") >= s.steps.rule.count(whole) == len([line for line in part.split("\n") if "  whole  " in line])


def test_the_command_line_shows_one_step(recording: Recording, tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording.save(f"{tmp_path}/a.tvz")
    at, s = stage(recording.programs[0], "fuse")
    assert cli.main(["show", str(path), "--view", "stages", "--select", f"firing:0.{at}.0"]) == 0
    assert f"fuse step 0 of {len(s.steps)}: " in capsys.readouterr().out
    assert cli.main(["show", str(path), "--view", "stages", "--select", "step:0"]) == 1
    assert "expected KIND:ID" in capsys.readouterr().err
    assert cli.main(["show", str(path), "--table", "steps"]) == 0
    assert "vectorize" in capsys.readouterr().out


def test_lines_that_are_alike_stand_side_by_side() -> None:
    assert words("for i in 0..8:", "    for io in 0..8:") == "    for [-i-]{+io+} in 0..8:"
    before, after = ["for i in 0..8:", "  x = y[i]"], ["for io in 0..8 step 4:", "  for ii in 0..4:", "    x = y[io + ii]"]
    pairs = paired(before, after)
    assert [b for b, _ in pairs if b is not None] == before and [a for _, a in pairs if a is not None] == after
    assert ("  x = y[i]", "    x = y[io + ii]") in pairs
    assert paired([], ["a"]) == [(None, "a")] and paired(["a"], []) == [("a", None)]
    assert list(marked(["a b", "c"], ["a b", "c"])) == ["  a b", "  c"]
    many = [f"line {i}" for i in range(400)]
    assert len(paired(many, many)) == 800, "too many to compare each with each"


# ---- damage


def _past(s: wire.Stage) -> None:
    s.edits.at[-1] = 10**6


def _negative(s: wire.Stage) -> None:
    s.edits.gone[0] = -1


def _overlap(s: wire.Stage) -> None:
    i = next(i for i, gone in enumerate(s.edits.gone) if gone)
    for column in vars(s.edits).values():
        column.insert(i, column[i])


def _no_step(s: wire.Stage) -> None:
    s.edits.step[0] = len(s.steps)


def _no_kernel(s: wire.Stage) -> None:
    s.steps.kernel[0] = 99


def _far(s: wire.Stage) -> None:
    s.steps.moved[0] = [[0, 10**9, 1]]


def _both(s: wire.Stage) -> None:
    s.frames = wire.Frames([0], [0], [0], [[]], [[]], [None])


@pytest.mark.parametrize("damage", [_past, _negative, _overlap, _no_step, _no_kernel, _far, _both])
def test_a_damaged_step_is_refused(sample: wire.Recording, damage: Callable[[wire.Stage], None]) -> None:
    validate(sample)
    damage(stage(sample.programs[0], "schedule")[1])
    with pytest.raises(ValueError, match=r"recording\.programs\[0\]\.stages"):
        validate(sample)


# ---- the time of recording


def test_recording_has_a_time_where_a_function_was_traced() -> None:
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
        (Tensor(np.ones(3, np.float32)) * 2).sum().item()
        for _ in range(2):
            step(Tensor(np.zeros((8, 64), np.float32)), Tensor(np.zeros(8, np.int32)))
    times = {p.name: {s.name: s.seconds for s in p.stages} for p in rec.programs}
    traced = [t for t in times.values() if t["differentiate"] is not None]
    assert len(traced) == 1 and traced[0]["record"] is not None
    assert traced[0]["record"] > 0
    assert sum(t["record"] is not None for t in times.values()) == 1, "what is not jitted is recorded between other lines"
