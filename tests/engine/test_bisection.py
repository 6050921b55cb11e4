"""Bisection: a planted fault is found at the step that made it, and a sound compilation has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, pipeline, realize, rules
from tinyengine.backends import reference
from tinyengine.bisection import bisect, error
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node
from tinyengine.stages import simplify


def numbers(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def softmax_loss() -> list[Tensor]:
    x, w = numbers(6, 8), numbers(8, 5)
    w.requires_grad = True
    loss = ((x @ w).softmax(1).log() * -1.0).mean()
    return [loss, *loss.gradient(w)]


def lowered(tensors: list[Tensor], backend: str = "llvm") -> pipeline.Lowered:
    graph = Graph(realize.last_updates([t.node for t in tensors]))
    return pipeline.lower(graph, machine=FIXTURE, backend=backend)


def test_a_sound_compilation_has_no_wrong_step() -> None:
    found = bisect(lowered(softmax_loss()))
    assert not found.stage and "no step changes a value" in str(found) and found.checked > 10


def test_a_wrong_rule_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(n: Node) -> Node | None:
        return n._replace(op="sqrt") if n.op == "exp" else None

    planted = rules.Rule("exp-is-sqrt", "It is not.", ("exp",), wrong)
    monkeypatch.setattr(simplify, "RULES", (*simplify.RULES, planted))
    low = lowered(softmax_loss())
    found = bisect(low)
    assert (found.stage, found.step) == ("simplify", "exp-is-sqrt") and found.error > found.tolerance
    events = simplify.explain(low.graph, machine=FIXTURE)
    assert events[found.firing].rule == "exp-is-sqrt" and found.firing == [e.rule for e in events].index("exp-is-sqrt")
    assert found.checked <= 3 + np.log2(len(events)) + 1, "by halves, not one by one"
    assert "test_bisection.py" in str(found), "back to the user's line"


def test_wrong_code_is_found_in_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend `reference` is made to compute something else than the interpreter that checks the loops."""
    low = lowered([numbers(5, 7).exp().sum(1)], backend="reference")
    run = reference.Interpreter.run
    depth = []

    def off(self: Any, arrays: Any) -> None:
        run(self, arrays)
        if self.kernel is low.scheduled[0] and len(depth) >= 1:
            arrays[-1][:] += 1
        if self.kernel is low.scheduled[0]:
            depth.append(1)

    monkeypatch.setattr(reference.Interpreter, "run", off)
    found = bisect(low)
    assert found.stage == "emit" and low.scheduled[0].name in found.step and "on reference" in found.step


def test_updates_are_checked_on_their_old_content() -> None:
    w = numbers(6, 4)
    w.assign(w * 0.5 + 1)
    assert not bisect(lowered([w])).stage


def test_errors_of_values() -> None:
    a = np.array([1.0, 2.0, np.nan, np.inf], np.float32)
    assert error(a, a.copy()) == 0
    assert error(a, np.array([1.0, 2.2, np.nan, np.inf], np.float32)) == pytest.approx(0.1)
    assert error(a, np.array([1.0, 2.0, 3.0, np.inf], np.float32)) == np.inf
    assert error(np.array([1, 2]), np.array([1, 3])) == 1
