"""realize: what is cached, what forces a computation, and that no tensor ever reads memory of the wrong time."""

from __future__ import annotations

import gc
import os
import signal
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinyengine import backends, hooks, node
from tinyengine import realize as engine
from tinyengine.jit import jit
from tinyengine.outline import Known
from tinyengine.tensor import Tensor


@pytest.fixture(params=["reference", "llvm"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with backends.use(request.param):
        yield request.param


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_equal_graphs_share_one_program() -> None:
    events: list[hooks.Event] = []
    with hooks.subscribed(events.append, hooks.CacheHit, hooks.CacheMiss):
        for _ in range(3):
            a = array(5, 7)
            np.testing.assert_allclose((Tensor(a) * 1.25 + 0.75).numpy(), a * np.float32(1.25) + np.float32(0.75), rtol=1e-6)
    program = [e for e in events if e.cache == "program"]
    assert [type(e).__name__ for e in program][1:] == ["CacheHit", "CacheHit"]


def test_a_miss_names_the_guard() -> None:
    (Tensor(array(3, 5)) - 0.125).numpy()
    events: list[hooks.CacheMiss] = []
    with hooks.subscribed(events.append, hooks.CacheMiss):
        (Tensor(array(3, 6)) - 0.125).numpy()
    miss = next(e for e in events if e.cache == "program")
    assert miss.guard.startswith("shape of %") and miss.old == (3, 5) and miss.new == (3, 6)


def test_realized_says_what_forced_it_and_where() -> None:
    events: list[hooks.Realized] = []
    with hooks.subscribed(events.append, hooks.Realized):
        Tensor(array(3)).sum().item()
    assert events[0].cause == "item"
    assert events[0].origin.frames[0].text == "Tensor(array(3)).sum().item()"


def test_a_lazy_value_reads_the_content_of_its_time() -> None:
    a = array(4)
    w = Tensor(a)
    before = (w * 2).sum()
    view = w.reshape(2, 2)
    w.assign(w + 1)
    w.realize()
    np.testing.assert_allclose(w.numpy(), a + 1, rtol=1e-6)
    assert before.item() == pytest.approx(2 * a.sum(), rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(view.numpy(), (a + 1).reshape(2, 2), rtol=1e-6)  # a view follows, as in PyTorch


def test_two_updates_before_one_computation() -> None:
    a = array(4)
    w = Tensor(a)
    w.assign(w + 1)
    w.assign(w * 3)
    np.testing.assert_allclose(w.numpy(), (a + 1) * 3, rtol=1e-5)


def test_swap_through_updates() -> None:
    a, b = array(4), array(4) + 5
    x, y = Tensor(a), Tensor(b)
    old = x + 0
    x.assign(y + 0)
    y.assign(old)
    Tensor.realize(x, y)
    np.testing.assert_allclose(x.numpy(), b)
    np.testing.assert_allclose(y.numpy(), a)


def test_a_view_that_is_computed_has_memory_of_its_own() -> None:
    x = Tensor(array(6))
    y = x.reshape(2, 3)
    y.realize()
    assert y.node.arg is not x.node.arg


def test_an_interrupt_while_compiling_leaves_the_engine_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    x = Tensor(array(3)) * 0.3125
    real = engine.Lowered.executable.func

    def interrupted(self: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.Lowered.executable, "func", interrupted)
    with pytest.raises(KeyboardInterrupt):
        x.numpy()
    monkeypatch.setattr(engine.Lowered.executable, "func", real)
    np.testing.assert_allclose(x.numpy(), array(3) * np.float32(0.3125), rtol=1e-6)


def test_cycles_are_not_looked_for_while_compiling_and_are_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    real = engine.Lowered.executable.func

    def compiling(self: object) -> object:
        seen.append(gc.isenabled())
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(engine.Lowered.executable, "func", compiling)
    (Tensor(array(3)) * 0.4375).numpy()
    assert seen == [False] and gc.isenabled()
    gc.disable()  # the user's choice stays
    try:
        (Tensor(array(3)) + 0.46875).numpy()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(KeyboardInterrupt):
        (Tensor(array(3)) - 0.484375).numpy()
    assert seen == [False] * 3 and gc.isenabled()


def test_a_failing_subscriber_changes_nothing() -> None:
    def broken(event: hooks.Event) -> None:
        raise ValueError("a broken observer")

    hooks.errors.clear()
    with hooks.subscribed(broken):
        assert Tensor(np.ones(3, np.float32)).sum().item() == 3
    assert hooks.errors and isinstance(hooks.errors[0][1], ValueError)
    hooks.errors.clear()  # other tests want none


def test_two_tensors_of_one_value_have_memory_each() -> None:
    x = Tensor(array(4))
    a, b = x * 2, x * 2
    Tensor.realize(a, b)
    a.assign(a + 1)
    a.realize()
    np.testing.assert_allclose(b.numpy(), array(4) * 2, rtol=1e-6)


def test_an_interrupt_while_an_update_runs_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and tensors change together: the update counts once, whatever the moment of Ctrl-C."""
    a = array(4)
    w = Tensor(a)
    real = engine.execute

    def interrupted(*args: Any) -> Any:
        memory = real(*args)
        os.kill(os.getpid(), signal.SIGINT)
        return memory

    monkeypatch.setattr(engine, "execute", interrupted)
    w.assign(w + 1)
    with pytest.raises(KeyboardInterrupt):
        w.realize()
    monkeypatch.setattr(engine, "execute", real)
    np.testing.assert_allclose(w.numpy(), a + 1, rtol=1e-6)


def test_an_index_out_of_range_names_the_index_its_place_and_the_line() -> None:
    table = Tensor(array(5, 3))
    index = Tensor(np.array([[1, 2, 0], [4, 9, 3]], np.int32))
    with pytest.raises(IndexError, match=r"index 9 at position \[1, 1\] .* 0 <= index < 5\n.*table.gather\(0, index\)"):
        table.gather(0, index).numpy()
    f = jit(lambda t, i: t.gather(0, i))
    good = Tensor(np.array([[1, 2, 0], [4, 0, 3]], np.int32))
    assert f(table, good).shape == (2, 3)
    with pytest.raises(IndexError, match="index 9 at position"):
        f(table, index)
    np.testing.assert_array_equal(f(table, good).numpy()[0], [array(5, 3)[1, 0], array(5, 3)[2, 1], array(5, 3)[0, 2]])


def test_a_chain_of_a_thousand_ops_is_compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def chain(n: int) -> Tensor:
        x = Tensor(abs(array(40)))
        for _ in range(n):
            x = (x * 1.5).minimum(3.0)
        return x

    expected = abs(array(40))
    for _ in range(500):
        expected = np.minimum(expected * np.float32(1.5), np.float32(3.0))
    limit = sys.getrecursionlimit()
    with backends.use("llvm"):
        np.testing.assert_array_equal(chain(500).numpy(), expected)
        monkeypatch.setattr("tinyengine.pipeline.FRAMES", limit)
        with pytest.raises(RecursionError, match=r"call realize\(\) on the way\n  at test_realize.py"):
            chain(3000).numpy()
    assert sys.getrecursionlimit() == limit


def test_programs_that_are_kept_keep_no_memory() -> None:
    """Neither that of the inputs, nor of parameters, once the tensors and the jitted function are gone."""
    gone: list[weakref.ref[Any]] = []

    def compute() -> None:
        x, w = Tensor(array(50)), Tensor(array(50) + 1, requires_grad=True)
        f = jit(lambda x: (x * w).sum())
        f(x)
        (x * w).exp().sum().backward()
        assert w.grad is not None
        w.grad.numpy()
        gone.extend(weakref.ref(t.node.arg) for t in (x, w, w.grad))

    for _ in range(2):  # compiled now, and found
        compute()
        gc.collect()
        assert [r() for r in gone] == [None] * len(gone)


def test_a_graph_without_updates_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[int] = []
    real = node.toposort

    def toposort(roots: Any) -> Any:
        out = real(roots)
        walks.append(len(out))
        return out

    x = Tensor(array(3))
    for module in (node, engine):
        monkeypatch.setattr(module, "toposort", toposort)
    monkeypatch.setattr(engine, "_known", Known())
    monkeypatch.setattr(engine, "programs", {})
    (x * 2.0 + 1.0).numpy()
    assert walks[0] == 5 and set(walks[1:]) <= {5}  # compiled now
    walks.clear()
    (x * 2.0 + 1.0).numpy()
    assert walks == []  # its outline is known
    x += 1.0
    y = x * 2.0
    walks.clear()
    np.testing.assert_array_equal(y.numpy(), (array(3) + 1.0) * 2.0)
    assert len(walks) > 1  # what else reads the memory that is written, and which update is the last
