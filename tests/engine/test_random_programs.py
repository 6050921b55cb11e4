"""Random programs x random fusion choices x backends: whatever is fused where, the values are those of the graph evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyengine import backends
from tinyengine.backends.graph_eval import evaluate
from tinyengine.choices import DEFAULT, VERDICTS
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower
from tinyengine.stages.keys import edge_keys
from tinyengine.tensor import Tensor

ELEMENTWISE = {
    "relu": lambda a: a.relu(), "exp": lambda a: (-a.abs()).exp(), "tanh": lambda a: a.tanh(), "square": lambda a: a * a,
    "half": lambda a: a * 0.5 + 0.25, "norm": lambda a: a / (a.abs().sum(-1, keepdim=True) + 1),
    "center": lambda a: a - a.mean(0, keepdim=True), "softmax": lambda a: a.softmax(-1),
    "top": lambda a: a.amax(-1, keepdim=True) - a,
    "totals": lambda a: a.cumsum(0) * 0.3, "totals from the end": lambda a: a.flip(1).cumsum(1).flip(1) * 0.3,
    "largest so far": lambda a: a.cummax(1).values,
}  # fmt: skip
BINARY = {
    "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "maximum": lambda a, b: a.maximum(b),
    "matmul": lambda a, b: a @ b * 0.2,
}  # fmt: skip
MOVES = {
    "T": lambda a: a.permute(1, 0), "flip": lambda a: a.flip(0), "roll": lambda a: a[1:].pad(((0, 1), (0, 0))),
    "reshape": lambda a: a.reshape(-1).reshape(*a.shape[::-1]).permute(1, 0),
}  # fmt: skip

Step = tuple[str, int, int]
programs = st.lists(
    st.tuples(st.sampled_from([*ELEMENTWISE, *BINARY, *MOVES]), st.integers(0, 7), st.integers(0, 7)), min_size=2, max_size=9
)


def build(steps: list[Step], n: int, backward: bool) -> Graph:
    """A graph over n x n matrices: the last value, a sum over everything, and on request a gradient."""
    rng = np.random.default_rng(len(steps) * 100 + n)
    x = Tensor(rng.standard_normal((n, n)).astype(np.float32), requires_grad=True)
    pool = [x, Tensor(rng.standard_normal((n, n)).astype(np.float32))]
    for name, i, j in steps:
        a, b = pool[-1 - i % len(pool)], pool[-1 - j % len(pool)]
        f: Any = ELEMENTWISE.get(name) or MOVES.get(name) or BINARY[name]
        pool.append(f(a, b) if name in BINARY else f(a))
    loss = (pool[-1] * pool[-2]).sum() + x.sum() * 0.0
    roots = [pool[-1].node, loss.node]
    if backward:
        loss.backward()
        assert x.grad is not None
        roots.append(x.grad.node)
    return Graph(roots)


def check(graph: Graph, choices: Any, backend: str) -> None:
    want = evaluate(graph)
    c = lower(graph, choices, FIXTURE, backend)
    for got, w in zip(c.run(), want, strict=True):
        scale = max(1.0, float(np.abs(w).max(initial=0)))
        np.testing.assert_allclose(got, w, rtol=2e-4, atol=2e-4 * scale, err_msg=str(c.fusion))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(programs, st.sampled_from([3, 8, 17]), st.booleans())
def test_default_choices(steps: list[Step], n: int, backward: bool) -> None:
    check(build(steps, n, backward), DEFAULT, "llvm")


@pytest.mark.usefixtures("opencl_unoptimised")
@pytest.mark.parametrize("backend", ["reference", "llvm", "opencl"])
@settings(max_examples=25, derandomize=True, deadline=None)
@given(programs, st.lists(st.sampled_from([*VERDICTS, None]), min_size=1, max_size=12), st.booleans())
def test_random_choices(backend: str, steps: list[Step], verdicts: list[str | None], backward: bool) -> None:
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    graph = build(steps, 6, backward)
    fusion = lower(graph, DEFAULT, FIXTURE, backend).fusion
    choices = DEFAULT
    for i, v in enumerate(fusion.verdicts):
        verdict = verdicts[i % len(verdicts)]
        if verdict is not None:
            choices = choices.with_fusion(edge_keys(v, fusion.readers[v])[0], verdict)
    check(graph, choices, backend)
