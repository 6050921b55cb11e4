"""Numbers that vary become inputs: how many programs a loop compiles, and that what it computes is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinyengine import backends, dtypes, hooks, nn, optim, varying
from tinyengine import realize as engine
from tinyengine.jit import jit
from tinyengine.node import Graph
from tinyengine.tensor import Tensor

A = np.linspace(-2, 2, 96, dtype=np.float32).reshape(16, 6)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has compiled nothing."""
    monkeypatch.setattr(engine, "programs", {})


@pytest.fixture(params=["llvm", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with backends.use(request.param):
        yield request.param


def _set(x: Tensor, i: int) -> Tensor:
    y = x.clone()
    y[i] = float(i)
    return y


def _gradient(x: Tensor, i: int) -> Tensor:
    leaf = Tensor(A, requires_grad=True)
    (leaf[i : i + 3] * x[i : i + 3]).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def _gradient_expected(i: int) -> Any:
    out = np.zeros_like(A)
    out[i : i + 3] = A[i : i + 3]
    return out


def _set_expected(i: int) -> Any:
    out = A.copy()
    out[i] = i
    return out


LOOPS: dict[str, tuple[Callable[[Tensor, int], Tensor], Callable[[int], Any]]] = {
    "a factor": (lambda x, i: x * (1.5 + i), lambda i: A * np.float32(1.5 + i)),
    "an int": (lambda x, i: x.cast(dtypes.int32) + i, lambda i: A.astype(np.int32) + i),
    "an element": (lambda x, i: x[i], lambda i: A[i]),
    "an element of each": (lambda x, i: x[i, i % 6], lambda i: A[i, i % 6]),
    "a batch": (lambda x, i: x[i : i + 4].sum(0), lambda i: A[i : i + 4].sum(0)),
    "every second": (lambda x, i: x[i : i + 7 : 2], lambda i: A[i : i + 7 : 2]),
    "from behind": (lambda x, i: x.flip(0)[i : i + 2], lambda i: A[::-1][i : i + 2]),
    "a place": (_set, _set_expected),
    "a gradient": (_gradient, _gradient_expected),
    "nothing but a number": (lambda x, i: Tensor.full((3,), i + 0.5), lambda i: np.full(3, i + 0.5)),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_compiles_two_programs(backend: str, name: str) -> None:
    f, expected = LOOPS[name]
    x, counts = Tensor(A), []
    for i in range(10):
        np.testing.assert_allclose(f(x, i).numpy(), expected(i), rtol=1e-5, atol=1e-6)
        counts.append(len(engine.programs))
    assert counts[1:] == counts[1:2] * 9, counts  # the second turn shows what varies


def test_batches_of_a_jitted_step_compile_one_step(backend: str) -> None:
    layer = nn.Linear(6, 3)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    @jit
    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    x, counts = Tensor(A), []
    for _ in range(2):
        for i in range(4):
            step(x[4 * i : 4 * i + 4]).item()
            counts.append(len(engine.programs))
    assert counts[1:] == counts[1:2] * 7 and len(step.entries) == 1


def test_what_is_equal_in_all_graphs_is_one_input_until_it_comes_apart(backend: str) -> None:
    x, y = Tensor(A), Tensor(A + 1)

    def inputs(a: float, b: float) -> tuple[float, int]:
        out = x * a + y * b
        found = varying.generalise(Graph([out.node])).graph
        value = out.numpy()
        np.testing.assert_allclose(value, A * np.float32(a) + (A + 1) * np.float32(b), rtol=1e-5)
        return len(found.key()[1]) - 2, sum(n.op == "const" for n in found.nodes)

    assert inputs(2.0, 2.0) == (0, 2)
    assert inputs(3.0, 3.0) == (1, 0)
    assert inputs(4.0, 5.0) == (2, 0)
    assert inputs(6.0, 6.0) == (2, 0)  # they have been different


def test_what_never_varied_stays_a_constant() -> None:
    x = Tensor(A)
    graphs = [varying.generalise(Graph([(x * (2.0 + i) + 1.0).node]))[0] for i in range(4)]
    assert [[n.arg for n in g.nodes if n.op == "const"] for g in graphs] == [[2.0, 1.0], [1.0], [1.0], [1.0]]


def test_a_position_is_proven_in_bounds() -> None:
    x = Tensor(A)
    for i in range(3):
        graph = varying.generalise(Graph([x[i : i + 4].node])).graph
    (symbol,) = graph.sizes()
    assert (symbol.min, symbol.max) == (0, 12)
    with backends.use("llvm"):
        lowered, _ = engine.compiled(graph)
    assert "check" not in "\n".join(k.text() for k in lowered.scheduled).lower()


@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.float32, dtypes.float16, dtypes.bfloat16, dtypes.int8, dtypes.uint64])
def test_an_input_is_rounded_as_the_constant_was(dtype: Any) -> None:
    values = [0.1, -0.0, float("inf"), float("nan"), 1 + 2**-8, 3.0000001] if dtype.is_float else [1, 0, 7, 100]

    def stored(v: float) -> list[int]:
        return [int(b) for b in Tensor.full((4,), v, dtype=dtype).contiguous().realize().node.arg.array.view(np.uint8)]

    as_inputs = [stored(v) for v in values]
    assert len(engine.programs) == 2
    for bits, v in zip(as_inputs, values, strict=True):
        engine.programs.clear()
        varying.forget()  # each is the first of its form
        assert stored(v) == bits


def test_other_shapes_and_bools_are_other_programs() -> None:
    x = Tensor(A)
    for n in (2, 3, 4):
        graph, said, _ = varying.generalise(Graph([x[:n].node]))
        assert not said and not graph.sizes()
    for flag in (True, False):
        graph, said, _ = varying.generalise(Graph([Tensor.full((2,), flag).node]))
        assert not said


def test_a_name_of_the_users_is_not_taken() -> None:
    from tinyengine import Variable

    n = Variable("at_0", 1, 8).bind(3)
    x, y = Tensor(A), Tensor(A)
    for i in range(3):
        np.testing.assert_array_equal((x[:n] + y[i : i + 1]).numpy(), A[:3] + A[i])


def test_a_second_trace_of_a_function_makes_its_numbers_inputs(backend: str) -> None:
    @jit
    def scaled(x: Tensor, rate: float) -> Tensor:
        return x * rate

    x, counts = Tensor(A), []
    for i in range(5):
        np.testing.assert_allclose(scaled(x, 0.5 + i).numpy(), A * np.float32(0.5 + i), rtol=1e-6)
        counts.append(len(engine.programs))
    assert counts == [1, 2, 2, 2, 2]
    np.testing.assert_allclose(scaled(x, 1.5).numpy(), A * np.float32(1.5), rtol=1e-6)  # each entry keeps its own number


def test_two_functions_of_one_form_keep_their_constants() -> None:
    x = Tensor(A)
    for rate in (2.0, 3.0):
        f = jit(lambda t, rate=rate: t * rate)
        f(x)
        assert [n.arg for n in f.lowered[0].graph.nodes if n.op == "const"] == [rate]


def test_the_decision_says_what_varies(backend: str) -> None:
    x, seen = Tensor(A), list[Any]()
    x[1].numpy()
    with hooks.subscribed(seen.append, hooks.Decision, hooks.Launch):
        x[2].numpy(), x[5].numpy()
    here = f"test_varying.py:{test_the_decision_says_what_varies.__code__.co_firstlineno + 4}"
    said = [(d.subject, d.verdict, d.reason) for d in seen if isinstance(d, hooks.Decision) and d.stage == "record"]
    assert said == [
        (("at_0",), "input", f"it is 2 and was 1 at {here}: one program serves every position"),
        (("at_0",), "input", f"it is 5 and was 2 at {here}: one program serves every position"),
    ]
    launched = [e.program for e in seen if isinstance(e, hooks.Launch)]
    assert [d.subject for p in launched for d in p.decisions if d.stage == "record"] == [("at_0",)] * 2
