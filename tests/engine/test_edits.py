"""What-ifs and edited schedules: on copies, only the touched kernels, with numbers that can be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyengine
from tinyengine import backends, hooks, jit, nn, optim, pipeline, realize
from tinyengine.choices import DEFAULT
from tinyengine.edits import ulps
from tinyengine.loopnest import Kernel
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.stages.keys import kernel_key
from tinyengine.tensor import Tensor
from tinyengine.tensor import random as engine_random

rng = np.random.default_rng(0)


def tensor(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape).astype(np.float32))


def lowered(*tensors: Tensor) -> pipeline.Lowered:
    return pipeline.lower(Graph([t.node for t in tensors]), DEFAULT, FIXTURE, "llvm")


def edge(low: pipeline.Lowered, producer: str, consumer: str) -> tuple[int, int]:
    nodes, number = low.fusion.graph.nodes, low.fusion.graph.number
    return next((number[n], number[r]) for n in nodes for r, _ in low.fusion.readers[n] if (n.op, r.op) == (producer, consumer))


def network(rows: int = 33) -> pipeline.Lowered:
    """Three kernels: two products and a softmax of many columns."""
    x, w, v = tensor(rows, 24), tensor(24, 40), tensor(40, 600)
    return lowered(((x @ w).relu().contiguous() @ v).contiguous().softmax(1))


def test_only_the_touched_kernels_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))
    low = network(37)
    assert len(low.plan.calls) == 3
    _ = low.executable
    events: list[hooks.Event] = []
    with hooks.subscribed(events.append, hooks.KernelEmitted, hooks.StageStarted):
        w = low.what_if(edge(low, "exp", "sum"), "whole", 0.0)
    emitted = [e.kernel.name for e in events if isinstance(e, hooks.KernelEmitted)]
    assert sorted(emitted) == sorted(w.recompiled) and len(emitted) == 2, "the product kernels are as they were"
    assert "simplify" not in [e.stage for e in events if isinstance(e, hooks.StageStarted)]
    assert (w.kernels_before, w.kernels, w.verdict_before, w.verdict) == (3, 4, "at loop i0", "whole")
    events.clear()
    with hooks.subscribed(events.append, hooks.KernelEmitted):
        low.what_if(edge(low, "exp", "sum"), "whole", 0.0)
    assert not events, "asked again, nothing is compiled"


def test_numbers_of_a_what_if() -> None:
    low = network()
    w = low.what_if(edge(low, "exp", "sum"), "whole", 0.0)
    assert w.followed and w.reason == "chosen by hand"
    assert w.bytes - w.bytes_before == 2 * 4 * 33 * 600, "stored once, and read by the kernel of the sum and the division"
    assert w.seconds_predicted_before == low.certificate.seconds and w.seconds_predicted > w.seconds_predicted_before
    assert len(w.before.samples) == len(w.after.samples) == len(w.difference.samples) >= 9
    assert w.difference.low <= w.difference.seconds <= w.difference.high
    assert 0 <= w.ulp < 64
    np.testing.assert_allclose(w.lowered.run()[0], low.run()[0], rtol=1e-5)
    text = w.text()
    assert "kernels 3 -> 4" in text and text.endswith(f'to keep it: tv.pin("{w.name}", "whole")')
    again = low.what_if(w.name, "whole", 0.0)
    assert again.name == w.name, "an edge is found by the name that a pin has, too"


def test_the_line_it_prints_works() -> None:
    low = network()
    w = low.what_if(edge(low, "exp", "sum"), "whole", 0.0)
    try:
        exec(w.pin, {"tv": tinyengine})
        assert len(pipeline.lower(low.graph, realize.chosen(), FIXTURE, "llvm").plan.calls) == 4
    finally:
        tinyengine.unpin()


def test_what_cannot_be_followed_says_why() -> None:
    low = network()
    w = low.what_if(edge(low, "max", "sub"), "inline", 0.0)
    assert not w.followed and w.recompiled == () and w.ulp == 0
    assert "chosen by hand, but not legal: the reduction would run 600 times per result" in w.reason
    assert "not followed, at loop i0 stays" in w.text() and "to keep it" not in w.text()


def test_nothing_of_the_users_changes() -> None:
    tinyengine.manual_seed(5)
    model = nn.Linear(16, 4)
    opt = optim.SGD(model.parameters(), lr=0.5)

    @jit
    def step(x: Tensor) -> Tensor:
        opt.zero_grad()
        loss = (model(x).dropout(0.5).softmax(1) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    x = tensor(8, 16)
    low = step.lower(x)
    before = {p: p.numpy().copy() for p in model.parameters()}
    counter, memory = engine_random._state.counter, {p: p.node.arg for p in model.parameters()}
    assert low.what_if(edge(low, "where", "max"), "whole", 0.0).followed
    assert low.what_if(edge(low, "add", "threefry"), "whole", 0.0).followed
    low.try_schedule(0, "")
    assert engine_random._state.counter == counter
    for p, value in before.items():
        assert p.node.arg is memory[p]
        np.testing.assert_array_equal(p.numpy(), value)


def test_edges_and_verdicts_that_there_are_not() -> None:
    low = network()
    with pytest.raises(ValueError, match="'hole' is none of inline, at loop, whole"):
        low.what_if((0, 1), "hole")
    for edge_ in ((0, 99), (0,), "exp->sum.0 0123456789", 3, (True, "x")):
        with pytest.raises(ValueError, match=r"there is no edge .*; expected the numbers of a value and its reader"):
            low.what_if(edge_, "whole")


def test_ulps() -> None:
    one = np.float32(1)
    assert ulps(np.array([one]), np.array([np.nextafter(one, np.float32(2))]), True) == 1
    assert ulps(np.float64([1.0, 0.0]), np.float64([1.0, -0.0]), True) == 0
    tiny = np.float32(1e-45)
    assert ulps(np.array([-tiny]), np.array([tiny]), True) == 2
    assert ulps(np.float32([np.nan, 3]), np.float32([np.nan, 3]), True) == 0
    assert ulps(np.float32([np.nan]), np.float32([3]), True) == float("inf")
    assert ulps(np.float16([-65504]), np.float16([65504]), True) == 2 * 0x7BFF
    assert ulps(np.int32([3, -4]), np.int32([3, 5]), False) == 9
    assert ulps(np.float32([]), np.float32([]), True) == 0
    assert ulps(np.float64([-1e308]), np.float64([1e308]), True) > 9e18


# ---- schedules


def test_an_edited_schedule_is_checked_and_measured() -> None:
    low = network()
    call = next(i for i, k in enumerate(low.kernels) if k.schedule)
    k = low.kernels[call]
    t = low.try_schedule(call, "unroll(j, 2)" if any(s.name == "j" for s in forms_loops(k.loops)) else "parallel(i)")
    assert t.error == "" and t.wrong == "" and t.checked and t.error_relative is not None and t.error_relative < 1e-4
    assert t.before is not None and t.after is not None and len(t.after.samples) == len(t.before.samples) >= 9
    assert "define" in t.source and t.assembly and t.seconds_predicted
    assert t.pin.startswith(f'tv.pin("{k.name} {kernel_key(k.loops)}", "')
    assert "to keep it: tv.pin(" in t.text()


def forms_loops(k: Kernel) -> list[Any]:
    from tinyengine.stages.primitives.nest import loops

    return list(loops(k.body))


def test_the_first_line_that_is_not_legal_is_named() -> None:
    low = lowered(tensor(40, 50).softmax(1))
    t = low.try_schedule(0, "vectorize(j, 8)\nparallel(j)\nunroll(zz)")
    assert (t.error_line, t.error) == (1, "parallel(j): j stands inside another loop")
    assert t.schedule == ("vectorize(j, 8)", "parallel(j)", "unroll(zz)")
    assert t.kernel.schedule == ("vectorize(j, 8)",), "what stands before it was done"
    assert t.after is None and "line 2: parallel(j)" in t.text()
    t = low.try_schedule(0, "vectorise(j, 8)")
    assert t.error_line == 0 and "unknown primitive 'vectorise'; known: tile" in t.error


def test_the_pin_of_a_schedule_works() -> None:
    low = lowered(tensor(41, 50).softmax(1))
    t = low.try_schedule(0, "vectorize(c, 8); vectorize(j, 8)")
    try:
        exec(t.pin, {"tv": tinyengine})
        other = pipeline.lower(low.graph, realize.chosen(), FIXTURE, "llvm")
        assert other.kernels[0].schedule == ("vectorize(c, 8)", "vectorize(j, 8)")
    finally:
        tinyengine.unpin()


def test_on_the_reference_backend_too() -> None:
    with backends.use("reference"):
        low = pipeline.lower(Graph([tensor(5, 6).softmax(1).node]), DEFAULT, FIXTURE, "reference")
        assert low.what_if(edge(low, "exp", "sum"), "whole", 0.0).followed
        assert low.try_schedule(0, "parallel(i)").wrong == ""
