"""Kernels that differ in constant positions alone share code: the positions stand in the pointers that they are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinyengine import backends
from tinyengine.backends.llvm_image import Image
from tinyengine.jit import jit
from tinyengine.loopnest import load_index, stmt_exprs, subexprs, walk
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.stages import schedule
from tinyengine.stages.arithmetic.displace import displaced
from tinyengine.stages.primitives.apply import apply
from tinyengine.stages.primitives.nest import settled
from tinyengine.stages.schedules.rows import first_rows
from tinyengine.tensor import Tensor


@pytest.fixture(autouse=True)
def _llvm() -> Iterator[None]:
    with backends.use("llvm"):
        yield


def numbers(*shape: int) -> Any:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def unrolled(steps: int, row: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def f(xs: Tensor, w: Tensor) -> Tensor:
        h = Tensor.zeros(4, 16)
        for i in range(steps):
            h = (row(xs, i) @ w + h @ w).tanh()
        return h

    return f


@pytest.mark.parametrize("row", [lambda xs, i: xs[i], lambda xs, i: xs.transpose(0, 1)[:, i]], ids=["first", "second"])
def test_an_unrolled_loop_has_as_many_codes_as_forms(row: Callable[[Tensor, int], Tensor]) -> None:
    w = numbers(16, 16) / 4
    codes, kernels = [], []
    for steps in (6, 12):
        xs = numbers(steps, 4, 16)
        step: Any = jit(unrolled(steps, row))
        found = step(Tensor(xs), Tensor(w)).numpy()
        h = np.zeros((4, 16), np.float32)
        for i in range(steps):
            h = np.tanh(xs[i] @ w + h @ w)
        np.testing.assert_allclose(found, h, atol=1e-5)
        moved = xs[::-1].copy()
        assert not np.allclose(step(Tensor(moved), Tensor(w)).numpy(), h)  # other memory, moved on anew
        np.testing.assert_array_equal(step(Tensor(xs), Tensor(w)).numpy(), found)
        (lowered,) = step.lowered
        codes.append(len({c.symbol for c in lowered.executable.codes}))
        kernels.append(len(lowered.plan.calls))
    assert kernels[1] >= kernels[0] + 6 and codes[0] == codes[1]


def program(y: Tensor) -> Lowered:
    return lower(Graph([y.node]), backend="llvm")


def constants(lowered: Lowered) -> tuple[set[str], dict[str, int]]:
    """(the indices that a program's kernel loads at once it is displaced, the bytes)."""
    kernel, moved = displaced(lowered.plan.calls[0].kernel)
    loads = {e for s in walk(kernel.body) for r in stmt_exprs(s) for e in subexprs(r) if e.op == "load"}
    return {repr(load_index(e)[0]) for e in loads if e.arg.space == "global"}, moved


def test_a_pointer_is_moved_by_whole_cache_lines() -> None:
    x = Tensor(numbers(9, 8))
    for i in range(9):
        at, moved = constants(program(x[i] * 2.0))
        assert at == {str(i % 2)}  # a row has half a line
        assert list(moved.values()) == ([i // 2 * 64] if i > 1 else [])


def test_what_all_accesses_have_is_moved() -> None:
    x = Tensor(numbers(9, 16))
    (only,) = constants(program(x[4] * x[7] + x[5]))[1].values()
    assert only == 4 * 64
    assert constants(program(x[4] * x[0]))[1] == {}


CASES: dict[str, Callable[[Any], Any]] = {
    "rows": lambda x: x[3:7] * 2.0,
    "a column": lambda x: x[:, 5] + 1.0,
    "a block": lambda x: x[2:5, 16:48].sum(1),
    "flat": lambda x: x.reshape(-1)[100:356] * 3.0,
    "a step": lambda x: x[1::2, 3::4] * 1.0,
    "from behind": lambda x: x.flip(0)[2:6] - 1.0,
    "a window": lambda x: x[4:8].reshape(1, 1, 4, 64)[:, :, 1:, 32:] * 0.5,
    "two places": lambda x: x[2:4] + x[5:7],
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_through_a_moved_pointer(name: str) -> None:
    lowered = program(CASES[name](Tensor(numbers(9, 64))))
    (found,) = lowered.run()
    (reference,) = lowered.with_backend("reference").run()
    np.testing.assert_allclose(found, reference, rtol=1e-6)


def test_an_update_of_a_part_in_place() -> None:
    x, w = numbers(12, 16), numbers(12, 16)
    t = Tensor(x).realize()
    for i in range(12):
        t[i] = t[i] * 0.5 + Tensor(w)[11 - i]
        t.realize()
    np.testing.assert_allclose(t.numpy(), x * 0.5 + w[::-1], rtol=1e-6)


def test_it_is_said_and_kept_on_disk() -> None:
    lowered = program(Tensor(numbers(9, 16))[6] * 2.0)
    executable: Any = lowered.executable
    (said,) = [d for d in lowered.decisions if d.kind == "pointers"]
    assert said.verdict.endswith("moved on by 384 bytes") and said.numbers == {"bytes": 384.0}
    assert said.verdict in executable.source(0)
    image = executable.image
    assert image.moved == ((0, 384),)
    data = json.loads(json.dumps(image.to_json()))
    assert Image.from_json(data) == image
    with pytest.raises(ValueError, match="moved on"):
        Image.from_json({**data, "moved": [[7, 384]]})


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_chosen_for_the_first_rows_is_one_of_the_rows_that_are_meant(name: str) -> None:
    lowered = program(CASES[name](Tensor(numbers(9, 64))))
    for nest, scheduled in zip(lowered.nests, lowered.scheduled, strict=True):
        again = settled(apply(nest.kernel, scheduled.schedule))
        assert (again.body, again.params) == (scheduled.body, scheduled.params)


def test_one_schedule_is_chosen_for_the_steps_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    real = schedule.choose

    def choose(kernel: Any, *rest: Any) -> Any:
        chosen.append(kernel.name)
        return real(kernel, *rest)

    monkeypatch.setattr(schedule, "choose", choose)
    counts = []
    for steps in (5, 11):
        monkeypatch.setattr(schedule, "_known", {})
        chosen.clear()
        xs, w = Tensor(numbers(steps, 4, 16)), Tensor(numbers(16, 16))
        kernels = program(unrolled(steps, lambda xs, i: xs[i])(xs, w)).kernels
        texts = [k.scheduled.text() for k in kernels]
        assert all(any(f"[{i}, " in t for t in texts) for i in range(steps))  # each names its own rows
        counts.append(len(chosen))
    assert counts[0] == counts[1]


def test_rows_of_half_a_line_and_rows_behind_a_mask_stay_where_they_are() -> None:
    for y in (Tensor(numbers(9, 8))[3] * 2.0, Tensor(numbers(9, 16)).pad((0, 0, 0, 3))[2:] * 2.0):
        kernel = program(y).nests[0].kernel
        found = first_rows(kernel)
        assert found.put_back(found.kernel) == kernel
        assert not found.begin or all(row % 2 == 0 for _, row in found.begin.values())
