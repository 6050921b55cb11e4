"""What stage emit says of itself: which rule computes an op that has no instruction, and how lanes that lie apart are moved."""

from typing import Any

import numpy as np
import pytest

from tests.engine import nests
from tinyengine import Tensor, pipeline
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.backends.moves import ONE_BY_ONE, WAYS
from tinyengine.backends.reference import ReferenceBackend
from tinyengine.choices import DEFAULT
from tinyengine.dtypes import float32
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.stages.arithmetic import expand

X = np.linspace(-6, 6, 64, dtype=np.float32)


def lowered(*roots: Tensor) -> pipeline.Lowered:
    return pipeline.lower(Graph([r.node for r in roots]), DEFAULT, FIXTURE, "llvm")


def moves(*roots: Tensor) -> list[Any]:
    low = lowered(*roots)
    return [d for i in range(len(low.plan.calls)) for d in low.executable.moves(i)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("scales", [False, True])
def test_each_expansion_is_a_step_and_the_last_one_leaves_nothing(scales: bool) -> None:
    kernel = lowered((Tensor(X).exp() + 1.0).log() + Tensor(X).tanh()).plan.calls[0].kernel
    inlined = expand.powers_added(kernel.body)
    steps = list(expand.explain(kernel, expand.expander(scales), inlined))
    names = [s.expansion.name for s in steps]
    assert names == [x.name for x in expand.EXPANSIONS if x.name in names] and {"log-by-exponent", "tanh-by-expm1"} <= set(names)
    assert ("add-to-power-by-one-fma" in names) != scales  # one instruction scales there, and the sum stays by itself
    assert all(s.places == 1 for s in steps)
    whole = expand.expand_kernel(expand.inline(kernel, inlined), expand.expander(scales))
    assert [len(t.splitlines()) for t in (steps[-1].kernel.text(), whole.text())] == [len(whole.text().splitlines())] * 2


def test_every_step_computes_the_same() -> None:
    kernel = nests.elementwise("tanh", (float32,), float32, 64)
    results = []
    for k in [kernel, *(s.kernel for s in expand.explain(kernel, expand.expander()))]:
        p = nests.program(k)
        memory = nests.buffers(p, {"x0": X})
        ReferenceBackend().compile(p).run(memory)
        results.append(memory[1].array)
    assert len(results) == 2
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-7)


def test_lanes_that_lie_apart_say_how_they_are_loaded() -> None:
    near, far = (Tensor(np.zeros((64, n), np.float32))[:, 1] * 2 for n in (4, 40))
    (a,), (b,) = moves(near), moves(far)
    assert (a.kind, a.verdict, a.numbers["elements_apart"], dict(a.alternatives)) == ("load", "lines and shuffles", 4, {})
    assert (b.kind, b.verdict) == ("load", ONE_BY_ONE)
    assert b.alternatives == {"lines and shuffles": "40 elements lie from lane to lane: it pays for 2 to 8"}
    assert moves(Tensor(X) + 1) == []  # neighbours need no word


def test_stores_that_fill_each_others_gaps_are_told_from_those_that_do_not() -> None:
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 32, 32)).astype(np.float32), requires_grad=True)
    x.max_pool2d(2).sum().backward()
    found = [d for d in moves(x.grad) if d.kind == "store"]
    assert [(d.verdict, d.numbers["elements_apart"]) for d in found] == [("woven", 2)]


def test_every_way_is_known_and_every_decision_names_its_kernel() -> None:
    a, b = (Tensor(np.zeros((48, 48), np.float32)) for _ in range(2))
    low = lowered(a @ b.T, (a.T + b).sum(0))
    found = [d for i in range(len(low.plan.calls)) for d in low.executable.moves(i)]  # type: ignore[attr-defined]
    names = {c.kernel.name for c in low.plan.calls}
    assert found and all(d.subject[0] in names and d.stage == "emit" and d.reason for d in found)
    assert all((d.kind, d.verdict) in WAYS for d in found if d.kind != "hoist")


def test_asking_changes_no_code() -> None:
    low = lowered((Tensor(X) * 1.5).exp())
    before = low.executable.source(0)
    assert list(low.executable.expansions(0)) and low.executable.source(0) == before  # type: ignore[attr-defined]
    assert LLVMBackend().compile(low.plan).source(0) == before
