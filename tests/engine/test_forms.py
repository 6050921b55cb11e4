"""Kernels of equal form are scheduled once, and each keeps its own names, nodes and decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.programs import PROGRAMS
from tests.conformance.snapshot import lowered
from tests.networks import Transformer
from tinyengine import Tensor, nn
from tinyengine import realize as engine
from tinyengine.choices import DEFAULT, Choices
from tinyengine.loopnest import Alloc, Kernel, Loop, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered
from tinyengine.stages import schedule
from tinyengine.stages.schedules.forms import form


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """An empty memory of forms, and the kernels that a schedule is chosen for."""
    out: list[Kernel] = []
    real = schedule.choose

    def counted(kernel: Kernel, *more: Any) -> Any:
        out.append(kernel)
        return real(kernel, *more)

    monkeypatch.setattr(schedule, "_known", {})
    monkeypatch.setattr(schedule, "choose", counted)
    return out


def of(t: Tensor) -> Lowered:
    graph = Graph(engine.last_updates([t.node]))
    return Lowered(graph, graph.key()[1], DEFAULT, FIXTURE, "null")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_schedule_through_the_form_is_the_kernels_own(name: str) -> None:
    for n in lowered(name).nests:
        through, direct = schedule.run(n.kernel, DEFAULT, FIXTURE), schedule.choose(n.kernel, DEFAULT, FIXTURE)
        assert form(through[0]).kernel == form(direct[0]).kernel and form(through[0]).names == form(direct[0]).names
        assert [s.nodes for s in walk(through[0].body)] == [s.nodes for s in walk(direct[0].body)]
        assert through[0].schedule == direct[0].schedule
        assert through[1] == direct[1]


def test_layers_of_equal_form_are_scheduled_once(chosen: list[Kernel]) -> None:
    class Deep(Transformer):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.more = [nn.Linear(32, 32) for _ in range(depth)]

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for layer in self.more:
                x = layer(x).relu().contiguous()  # else pairs of layers share a kernel
            return x

    few = of(Deep(2)(Tensor.zeros(4, 8, 8).contiguous()))
    assert few.scheduled
    known = len(chosen)
    many = of(Deep(9)(Tensor.zeros(4, 8, 8).contiguous()))
    assert len(many.scheduled) == len(few.scheduled) + 7 and len(chosen) == known
    assert len({k.name for k in many.scheduled}) == len(many.scheduled)
    for k in many.scheduled:
        assert [d for d in many.decisions if d.subject[0] == k.name and d.stage == "schedule"]
        assert {p.name for p in k.params} == {p.name for n in many.nests if n.kernel.name == k.name for p in n.kernel.params}
        packs = [d.verdict for d in many.decisions if d.subject[0] == k.name and d.verdict.startswith("pack(")]
        assert all(any(p.name in v for p in k.params) for v in packs)


def test_what_a_schedule_depends_on_is_told_apart(chosen: list[Kernel]) -> None:
    kernel = of(Tensor.zeros(300, 300).contiguous().sum(1)).nests[-1].kernel
    schedule.run(kernel, DEFAULT, FIXTURE)
    schedule.run(replace(kernel, name="another"), DEFAULT, FIXTURE)
    assert len(chosen) == 1
    schedule.run(kernel, Choices(vector_width=1), FIXTURE)
    schedule.run(kernel, DEFAULT, replace(FIXTURE, threads=1))
    assert len(chosen) == 3

    def minus_zero(s: Any) -> Any:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(minus_zero, s.body)))
        return replace(s, init=-0.0) if isinstance(s, Alloc) else s

    other = replace(kernel, body=tuple(map(minus_zero, kernel.body)))
    assert other == kernel
    out, _ = schedule.run(other, DEFAULT, FIXTURE)
    assert len(chosen) == 4 and any(repr(s.init) == "-0.0" for s in walk(out.body) if isinstance(s, Alloc))


def test_what_a_schedule_makes_of_a_name_is_no_name_that_there_is() -> None:
    """Two cells in one kernel: the accumulators are acc and acc_1, and privately accumulating into acc makes one more."""
    x, w = Tensor.empty(1, 64), [Tensor.empty(64, 64) for _ in range(4)]
    h = x
    for _ in range(2):
        h = sum((h.linear(m) for m in w), Tensor.zeros(1, 64)).tanh()
    for k in of(h).scheduled:
        names = [s.buf.name for s in walk(k.body) if isinstance(s, Alloc)] + [p.name for p in k.params]
        assert len(set(names)) == len(names)
    found = form(of(h).nests[0].kernel)
    again = replace(found, names=("k", "acc", "acc_1", "acc_1_1", "other")).named(
        replace(found.kernel, body=(), params=(), outputs=("t1z", "t1z_1", "t1z_1_1", "t2z", "t2z_1", "t3z", "t4z_1"))
    )
    assert again.outputs == ("acc", "accz_1", "accz_1_1", "acc_1", "acc_1z_1", "acc_1_1", "other_1")
