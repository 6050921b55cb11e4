"""tv.lower: every stage as a value; nothing runs, nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tinyviz as tv
from tests.tinyviz import training
from tinyengine import backends, machine
from tinyengine.choices import Choices
from tinyviz import lowering


@pytest.fixture(autouse=True)
def fixed() -> Iterator[None]:
    with mock.patch.object(machine, "current", lambda: machine.FIXTURE), backends.use("reference"):
        yield


def expression() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x, w = tv.Tensor(rng.random((4, 3), dtype=np.float32)), tv.Tensor(rng.random((3, 2), dtype=np.float32))
    w.requires_grad = True
    return (x @ w + 1).relu().sum(), w


def test_gradients_are_part_of_it_and_left_nowhere() -> None:
    loss, w = expression()
    c = tv.lower(loss)
    assert {n.phase for n in c.graph} == {"forward", "backward"}
    assert w.grad is None and loss.node.op != "buffer"
    assert len(c.graph.roots) == 2
    values = c.run()
    assert values[0] == pytest.approx(loss.item(), rel=1e-6)
    assert {n.phase for n in tv.lower(expression()[0], gradients=False).graph} == {"forward"}


def test_gradients_that_backward_left_are_taken() -> None:
    loss, w = expression()
    loss.backward()
    c = tv.lower(loss)
    assert [r is n for r, n in zip(c.graph.roots, (loss.node, w.grad.node), strict=True)] == [True, True]


def test_every_stage_is_there_and_draws_itself() -> None:
    c = tv.lower(expression()[0])
    assert len(c.kernels) >= 1 and c.simplified and c.fusion and c.plan
    for k in c.kernels:
        assert k.loops and k.scheduled and k.source
    assert "kernel" in repr(c)
    r = c.recording.data
    assert r.missing == ["it was lowered, not run"]
    (p,) = r.programs
    assert p.launches.count == 0 and p.certificate.flops and all(k.flops is not None for k in p.kernels)
    assert "return (x @ w + 1).relu().sum(), w" in r.lines.text
    forms, _ = c._repr_mimebundle_()
    assert "text/plain" in forms


def test_a_training_step_is_lowered_without_running() -> None:
    model, step = training.network()
    x, y = training.tensors(np.ones((32, 16), np.float32), np.zeros(32, np.int32))
    before = [p.numpy() for p in model.parameters()]
    for _ in range(2):
        c = tv.lower(step, x, y)
        assert {n.phase for n in c.graph} == {"forward", "backward", "optimizer"}
    assert all(p.grad is None for p in model.parameters())
    for a, p in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(a, p.numpy())
    loss = c.run()[0]
    for a, p in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(a, p.numpy())
    assert step(x, y).item() == pytest.approx(float(loss), rel=1e-6)


def test_an_edit_continues_from_there() -> None:
    c = tv.lower(expression()[0])
    from tinyengine.stages.keys import edge_keys

    value = next(n for n, verdict in c.fusion.verdicts.items() if verdict == "inline" and n.op == "add")
    (edge,) = edge_keys(value, c.fusion.readers[value])
    edited = c.with_fusion(edge, "whole")
    assert isinstance(edited, lowering.Lowered)
    again = next(n for n in edited.fusion.readers if edge in edge_keys(n, edited.fusion.readers[n]))
    assert edited.fusion.verdicts[again] == "whole"
    assert len(edited.plan.slots) == len(c.plan.slots) + 1
    np.testing.assert_allclose(edited.run()[0], c.run()[0], rtol=1e-6)


def test_pin_holds_until_it_is_taken_back() -> None:
    from tinyengine import realize

    try:
        tv.pin(Choices(vector_width=1))
        assert realize.current_choices().vector_width == 1
        assert tv.lower(expression()[0]).choices.vector_width == 1
    finally:
        tv.pin(Choices())
    assert realize.current_choices() == Choices()
    with pytest.raises(TypeError, match=r"pin takes the name of an edge or kernel and a verdict or schedule"):
        tv.pin("whole")


def test_lower_warns_of_a_pin_that_matches_nothing() -> None:
    try:
        tv.pin("exp->sum.0 0123456789", "whole")
        with pytest.warns(UserWarning, match="'exp->sum.0 0123456789' matches nothing in a program of"):
            tv.lower(expression()[0])
    finally:
        tv.unpin()


def test_a_lowered_program_can_be_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyengine import tune_store

    monkeypatch.setenv("TINYENGINE_CACHE", str(tmp_path))  # what it finds is for this test alone
    c = tv.lower(expression()[0])
    done = c.tune(budget=1e-3)
    assert done.left or done.kernels
    np.testing.assert_allclose(done.lowered.run()[0], c.run()[0], rtol=1e-6)
    tune_store.forget()


def test_what_cannot_be_lowered_is_named() -> None:
    with pytest.raises(TypeError, match="lower takes tensors, or a function and its arguments; got int"):
        tv.lower(3)
    with pytest.raises(TypeError, match="got nothing"):
        tv.lower()
    done = tv.Tensor(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="in memory already"):
        tv.lower(done)


def test_stages_draw_themselves_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    c = tv.lower(expression()[0])
    for forms, word in (
        (lowering._graph(c.graph), "Graph:"),
        (lowering._fusion(c.fusion), "Fusion:"),
        (lowering._kernel(c.kernels[0], {}), "Kernel 0:"),
    ):
        assert forms[0]["text/plain"].startswith(word)


def test_importing_tinyviz_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tinyviz; print([m for m in ('numpy', 'IPython', 'ipywidgets', 'anywidget', 'llvmlite') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_unwatched_training_step_imports_no_part_of_tinyviz() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tinyviz as tv\n"
        "layer = tv.nn.Linear(4, 2)\n"
        "optimizer = tv.optim.SGD(layer.parameters(), lr=0.1)\n"
        "@tv.jit\n"
        "def step(x):\n"
        "    optimizer.zero_grad()\n"
        "    layer(x).sum().backward()\n"
        "    optimizer.step()\n"
        "step(tv.Tensor([[1.0, 2.0, 3.0, 4.0]]))\n"
        "late = ('IPython', 'ipywidgets', 'anywidget', 'graphviz', 'pyopencl', 'matplotlib', 'torch')\n"
        "print([m for m in sys.modules if m.startswith('tinyviz.') or m in late])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names_are_handed_on() -> None:
    import tinyengine

    assert tv.Tensor is tinyengine.Tensor and tv.jit is tinyengine.jit and tv.nn is tinyengine.nn
    assert set(tv.__all__) <= set(dir(tv))
    for name in tv.__all__:
        assert getattr(tv, name) is not None
    with pytest.raises(AttributeError, match="module 'tinyviz' has no attribute 'tensor_flow'"):
        _ = tv.tensor_flow
