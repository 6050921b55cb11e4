"""What is derived again is what happened: the decisions of fuse with the kernels after each, a schedule by its primitives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conformance.programs import PROGRAMS
from tests.conformance.snapshot import lowered
from tinyengine.pipeline import Lowered
from tinyengine.stages import loops
from tinyengine.stages.fusion import steps as fuse_steps
from tinyengine.stages.primitives.apply import TABLE
from tinyengine.stages.schedules import steps as schedule_steps


@pytest.fixture(params=sorted(PROGRAMS))
def program(request: pytest.FixtureRequest) -> Lowered:
    return lowered(request.param)


def test_fuse_again_makes_the_same_decisions_and_kernels(program: Lowered) -> None:
    fusion = program.fusion
    steps, becomes = fuse_steps.explain(program.simplified, program.choices, program.machine)
    assert tuple(s.decision for s in steps) == fusion.decisions
    assert {fuse_steps.rule(s.decision) for s in steps} <= set(fuse_steps.RULES)
    last = {becomes[g]: {x.node for x in lines if x.node is not None} for g, lines in steps[-1].kernels.items()}
    assert last == {i: set(g.values) | set(g.also_stored) for i, g in enumerate(fusion.groups)}
    assert set(becomes.values()) == set(last)


def test_a_decision_changes_only_what_it_is_about(program: Lowered) -> None:
    """Between two decisions values come to kernels; none leaves all kernels, and a kernel goes only by joining another."""
    steps, becomes = fuse_steps.explain(program.simplified, program.choices, program.machine)
    before: set[object] = set()
    kernels: set[int] = set()
    for s in steps:
        now = {x.node for lines in s.kernels.values() for x in lines if x.node is not None}
        assert before <= now
        for gone in kernels - set(s.kernels):
            assert becomes[gone] in {becomes[g] for g in s.kernels}
            assert s.decision.verdict == "joined"
        before, kernels = now, set(s.kernels)


def test_the_recorded_primitives_lead_to_the_scheduled_kernel(program: Lowered) -> None:
    for nest, scheduled in zip(program.nests, program.scheduled, strict=True):
        about = [d for d in program.decisions if d.stage == "schedule" and d.subject[0] == scheduled.name]
        steps = list(schedule_steps.explain(nest.kernel, scheduled, about))
        assert [s.primitive for s in steps if s.primitive] == list(scheduled.schedule)
        assert [s.decision for s in steps if s.decision is not None] == about, "each decision once, refusals in their places"
        assert (steps[-1].kernel if steps else nest.kernel) == scheduled
        for before, s in zip([nest.kernel, *(s.kernel for s in steps)], steps, strict=False):
            assert s.primitive or s.rule == "tidy" or s.kernel == before, "a refusal changes nothing"
            assert s.rule in schedule_steps.RULES


def test_a_schedule_by_hand_is_stepped_through_too() -> None:
    program = lowered("matmul_relu_sum")
    name = program.nests[0].kernel.name
    by_hand = program.with_choices(program.choices.with_schedule(name, ["tile(i, 2)", "unroll(ii)"]))
    _ = by_hand.scheduled
    about = [d for d in by_hand.decisions if d.stage == "schedule" and d.subject[0] == name]
    steps = list(schedule_steps.explain(by_hand.nests[0].kernel, by_hand.scheduled[0], about))
    assert [(s.rule, s.primitive) for s in steps[:2]] == [("tile", "tile(i, 2)"), ("unroll", "unroll(ii)")]
    assert steps[0].decision is steps[1].decision is about[0]
    assert [s.rule for s in steps[2:]] == ["pin"], "what says that the kernel was found"


def test_every_primitive_and_every_choice_has_a_reason_and_a_source() -> None:
    assert set(TABLE) <= set(schedule_steps.RULES)
    written = "".join(path.read_text() for path in Path(schedule_steps.__file__).parent.glob("*.py"))
    refused = set(re.findall(r'\.refuse\(\s*"([^"]+)"', written))
    assert "vectorize" in refused and refused <= set(schedule_steps.RULES), "what is refused is a step too"
    for name, (reason, function) in {**schedule_steps.RULES, **fuse_steps.RULES}.items():
        assert 0 < len(reason) <= 90 and reason.endswith("."), name
        assert function.__code__.co_filename.startswith(loops.__file__.rpartition("/")[0]), name
