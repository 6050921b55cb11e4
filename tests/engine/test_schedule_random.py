"""Random nests under random legal schedules compute the same: on the interpreter, and on LLVM."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.engine import forms
from tests.engine.forms import F, arrays, assert_same, outputs
from tinyengine import dtypes, spec
from tinyengine.choices import DEFAULT, Choices
from tinyengine.loopnest import Kernel, Loop, Stmt, walk
from tinyengine.machine import FIXTURE
from tinyengine.stages import schedule
from tinyengine.stages.primitives.apply import ScheduleError, apply_one, parse, tidy
from tinyengine.stages.primitives.clip import clipped
from tinyengine.stages.specs.nests import SCHEDULED

size = st.integers(1, 21)


@st.composite
def nests(draw: st.DrawFn) -> Kernel:
    """A nest of some form, of random extents; integers now and then, where equality must be exact."""
    a, b, c = draw(size), draw(size), draw(size)
    dtype = draw(st.sampled_from([F, dtypes.int32]))
    made = [
        lambda: forms.matmul(a, b, c, dtype=dtype),
        lambda: forms.matmul(a, b, c, True, dtype),
        lambda: forms.softmax(a, b),
        lambda: forms.attention(a, b, 1 + c % 7, 1 + a % 5),
        lambda: forms.elementwise(a, b, dtype=dtype),
        lambda: forms.elementwise(a, b, True, dtype),
        lambda: forms.outer_sum(a, b, dtype),
        lambda: forms.full_sum(a, b, dtype),
        lambda: forms.conv(1 + a % 2, 1 + b % 3, 1 + c % 5, 3 + a % 7, 1 + b % 3, c % 2),
        lambda: forms.weight_gradient(1 + a % 3, 1 + b % 3, c, 2 + a % 5, 1 + b % 2),
        lambda: forms.update(a * b),
        lambda: forms.gather(a, b, 5),
        lambda: forms.scatter(a * b, c, dtype),
        lambda: forms.recurrence(a),
        lambda: forms.cat(a, b, c, dtype),
        lambda: forms.turned(a, b, dtype),
        lambda: forms.pool(a, b, 1 + c % 5, dtype),
        lambda: forms.banded(a, b, c, a % 4, b % 3),
    ]
    return draw(st.sampled_from(made))()


def _primitive(draw: st.DrawFn, k: Kernel) -> str:
    names = list(dict.fromkeys(s.name for s in walk(k.body) if isinstance(s, Loop)))
    if not names:
        return "parallel(i)"
    loop, factor, lanes = draw(st.sampled_from(names)), draw(st.integers(1, 9)), draw(st.sampled_from([2, 4, 8]))
    some = draw(st.permutations(names))[: draw(st.integers(2, 4))]
    buf = draw(st.sampled_from([p.name for p in k.params]))
    return draw(
        st.sampled_from(
            [
                f"tile({loop}, {factor})",
                f"tile({loop}, {factor})",
                f"vectorize({loop}, {lanes})",
                f"vectorize({loop}, {lanes})",
                f"split({loop}, {factor})",
                f"phases({loop}, {factor})",
                f"unroll({loop})",
                f"unroll({loop}, {factor})",
                f"parallel({names[0]})",
                f"accumulate({loop}, {1 + factor})",
                f"reorder({', '.join(some)})",
                f"reorder({', '.join(some)})",
                f"merge({', '.join(names[:2])})",
                f"pack({buf}, at={loop})",
                f"unpack({buf}, at={loop})",
                f"fission({', '.join(some)})",
                f"pack({buf}, at={names[0]}, of={loop})",
                f"pack({buf}, at={names[0]}, by=({', '.join(names[1:])},))",
                f"partial(acc, at={loop})",
                f"spill(acc, at={loop})",
                f"clip({loop})",
                f"reorder({', '.join(some)}, memory=local)",
                f"streaming({buf})",
                f"prefetch({buf}, {names[0]}, at={loop})",
            ]
        )
    )


@st.composite
def scheduled(draw: st.DrawFn) -> tuple[Kernel, Kernel]:
    """A nest, and the same after those of some random primitives that are legal."""
    before = draw(nests())
    k = before
    for _ in range(draw(st.integers(1, 7))):
        try:
            k = apply_one(k, parse(_primitive(draw, k))[0])
        except ScheduleError as e:
            assert len(str(e)) > 20
    return before, tidy(k)


def code(body: tuple[Stmt, ...]) -> int:
    """Statements in the machine code."""
    return sum((s.trips if s.kind == "unroll" else 1) * code(s.body) if isinstance(s, Loop) else 1 for s in body)


def calm(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@calm(300)
@given(scheduled())
def test_random_legal_schedules_keep_the_meaning(pair: tuple[Kernel, Kernel]) -> None:
    before, after = pair
    note(f"{before.text()}\n{after.text()}")
    spec.check("schedule", [s for s in SCHEDULED if "register" not in s[0]], after)
    assert_same(before, after)
    clip = clipped(after)
    spec.check("schedule", [s for s in SCHEDULED if "register" not in s[0]], clip)
    assert_same(before, clip)


@calm(150)
@given(nests(), st.sampled_from([None, 1, 4]))
def test_the_engines_own_schedule_of_a_random_nest(k: Kernel, width: int | None) -> None:
    out, _ = schedule.run(k, Choices(vector_width=width), FIXTURE)
    spec.check("schedule", SCHEDULED, out)
    assert_same(k, out)


@calm(12)
@given(st.lists(scheduled().filter(lambda pair: code(pair[1].body) < 150), min_size=6, max_size=6))
def test_llvm_computes_random_schedules(pairs: list[tuple[Kernel, Kernel]]) -> None:
    for (before, _), got in zip(pairs, forms.native([after for _, after in pairs]), strict=True):
        want = outputs(before, arrays(before))
        for o in before.outputs:
            np.testing.assert_allclose(got[o], want[o], rtol=1e-4, atol=1e-4)


def test_llvm_computes_the_engines_own_schedules() -> None:
    before = [
        *forms.FORMS.values(),
        forms.matmul(70, 150, 33),
        forms.matmul(40, 100, 30, True),
        forms.conv(4, 4, 8, 20),
        forms.conv(2, 3, 32, 13, 5),
        forms.conv(2, 3, 18, 13, strided=2),
        forms.matmul(20, 150, 2500),
        forms.matmul(70, 40, 9000),
        forms.turned(300, 150),
        forms.turned(33, 47, dtypes.int32),
        forms.cat(9, 130, 70),
        *(forms.pool(40, 70, step) for step in (2, 3, 4, 8, 11)),
    ]
    for k, got in zip(before, forms.native([schedule.run(k, DEFAULT, FIXTURE)[0] for k in before]), strict=True):
        want = outputs(k, arrays(k))
        for o in k.outputs:
            np.testing.assert_allclose(got[o], want[o], rtol=1e-4, atol=1e-4, err_msg=k.name)
