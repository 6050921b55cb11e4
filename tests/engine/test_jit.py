"""The jit's contract, each sentence with the trap that it is about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tinyengine import backends, hooks, origin
from tinyengine.jit import JitError, jit
from tinyengine.tensor import Tensor
from tinyengine.tensor.random import manual_seed

rng = np.random.default_rng(0)


@pytest.fixture(params=["reference", "llvm"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with backends.use(request.param):
        yield request.param


def rand(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_traced_once_per_signature_and_replayed() -> None:
    runs = []

    @jit
    def f(x: Tensor, scale: float = 2.0) -> Tensor:
        runs.append(x.shape)
        return (x * scale).sum()

    for _ in range(3):
        a = rand(3, 4)
        assert f(Tensor(a)).item() == pytest.approx(2 * a.sum(), rel=1e-4, abs=1e-5)
    assert runs == [(3, 4)]
    b = rand(5, 4)
    assert f(Tensor(b)).item() == pytest.approx(2 * b.sum(), rel=1e-4, abs=1e-5)
    assert f(Tensor(b), scale=3.0).item() == pytest.approx(3 * b.sum(), rel=1e-4, abs=1e-5)
    assert runs == [(3, 4), (5, 4), (5, 4)]


def test_state_is_updated_in_place_and_read_anew() -> None:
    w = Tensor(np.ones(4, np.float32))
    memory = w.node.arg

    @jit
    def step(x: Tensor) -> Tensor:
        y = (w * x).sum()
        w.assign(w + x)
        return y

    x = np.arange(4, dtype=np.float32)
    want = np.ones(4, np.float32)
    for _ in range(4):
        assert step(Tensor(x)).item() == pytest.approx((want * x).sum())
        want = want + x
        np.testing.assert_allclose(w.numpy(), want)
        assert w.node.arg is memory
    w.assign(Tensor(np.zeros(4, np.float32)))
    w.realize()
    assert step(Tensor(x)).item() == pytest.approx(0.0)


def test_training_step_equals_numpy() -> None:
    a, t = rand(8, 5), rand(8, 3)
    w0 = rand(5, 3)
    w = Tensor(w0, requires_grad=True)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        w.grad = None
        loss = ((x @ w - y) ** 2).mean()
        loss.backward()
        with origin.phase("optimizer"):
            w.assign(w.detach() - 0.1 * w.grad)
        return loss

    want = w0.astype(np.float64)
    for _ in range(5):
        d = a @ want - t
        assert step(Tensor(a), Tensor(t)).item() == pytest.approx((d**2).mean(), rel=1e-4)
        want = want - 0.1 * 2 / d.size * a.T @ d
    np.testing.assert_allclose(w.numpy(), want, rtol=1e-4, atol=1e-5)


def test_results_keep_their_memory() -> None:
    f = jit(lambda x: x * 2)
    first = f(Tensor(np.ones(3, np.float32)))
    f(Tensor(np.full(3, 5, np.float32)))
    np.testing.assert_array_equal(first.numpy(), [2, 2, 2])


def test_a_small_result_gets_the_memory_of_one_that_nobody_holds() -> None:
    f = jit(lambda x: x + 1)
    xs = [Tensor(np.full(8, float(i), np.float32)) for i in range(6)]
    for x in xs:
        x.numpy()
    addresses = {f(x).node.arg.address for x in xs}
    assert len(addresses) == 1
    y, seen = f(xs[0]), set()
    for x in xs:
        y = f(x)
        seen.add(y.node.arg.address)
    assert len(seen) == 2  # one is held while the next is made
    held = [f(x) for x in xs]  # tensors, what was recorded of one, arrays of one: all of them hold it
    later = [f(x) * 2 for x in xs]
    arrays = [f(x).numpy() for x in xs]
    views = [f(x).reshape(2, 4)[1] for x in xs]
    changed = f(xs[0])
    changed += 10
    for x in xs:
        f(x)
    for i in range(6):
        assert held[i].tolist() == [i + 1] * 8 and later[i].tolist() == [2 * i + 2] * 8
        assert arrays[i].tolist() == [i + 1] * 8 and views[i].tolist() == [i + 1] * 4
    assert changed.tolist() == [11] * 8 and y.tolist() == [6] * 8


def test_structures_of_results() -> None:
    @jit
    def f(x: Tensor) -> dict[str, object]:
        return {"a": x + 1, "b": (x * 2, [x.sum()]), "n": 3}

    out = f(Tensor(np.arange(3, dtype=np.float32)))
    np.testing.assert_array_equal(out["a"].numpy(), [1, 2, 3])
    np.testing.assert_array_equal(out["b"][0].numpy(), [0, 2, 4])
    assert out["b"][1][0].item() == 3 and out["n"] == 3


def test_items_that_have_names_keep_them() -> None:
    a = rand(3, 4)
    best = jit(lambda x: x.max(1))(Tensor(a))
    np.testing.assert_array_equal(best.values.numpy(), a.max(1))
    np.testing.assert_array_equal(best.indices.numpy(), a.argmax(1))
    np.testing.assert_array_equal(jit(lambda pair: pair.values * 2)(Tensor(a).max(1)).numpy(), 2 * a.max(1))


def test_reading_a_value_inside_names_the_line() -> None:
    @jit
    def f(x: Tensor) -> Tensor:
        if x.sum().item() > 0:
            return x
        return -x

    with pytest.raises(JitError, match=r"item.*test_jit.py, line \d+: if x.sum"):
        f(Tensor(np.ones(3, np.float32)))
    assert Tensor(np.ones(3, np.float32)).sum().item() == 3, "the engine is usable after a failed trace"


def test_a_tensor_that_escapes_says_so() -> None:
    kept = []

    @jit
    def f(x: Tensor) -> Tensor:
        kept.append(x * 2)
        return x.sum()

    f(Tensor(np.ones(3, np.float32)))
    with pytest.raises(JitError, match="made inside a jitted function"):
        kept[0].numpy()


def test_a_captured_number_is_a_constant() -> None:
    k = [2.0]
    f = jit(lambda x: x * k[0])
    x = Tensor(np.ones(2, np.float32))
    f(x)
    k[0] = 5.0
    np.testing.assert_array_equal(f(x).numpy(), [2, 2])


def test_the_same_tensor_twice() -> None:
    f = jit(lambda a, b: a + 10 * b)
    x, y = Tensor(np.ones(2, np.float32)), Tensor(np.full(2, 2, np.float32))
    np.testing.assert_array_equal(f(x, x).numpy(), [11, 11])
    np.testing.assert_array_equal(f(x, y).numpy(), [21, 21])
    np.testing.assert_array_equal(f(y, x).numpy(), [12, 12])


def test_lazy_and_view_arguments() -> None:
    f = jit(lambda a: a.sum(0))
    x = Tensor(np.arange(6, dtype=np.float32))
    np.testing.assert_array_equal(f(x.reshape(2, 3)).numpy(), [3, 5, 7])
    np.testing.assert_array_equal(f(x.reshape(2, 3) + 1).numpy(), [5, 7, 9])
    np.testing.assert_array_equal(x.numpy(), np.arange(6))


def test_a_returned_input_is_a_copy() -> None:
    f = jit(lambda a: a)
    x = Tensor(np.arange(3, dtype=np.float32))
    y = f(x)
    assert y.node.arg is not x.node.arg
    np.testing.assert_array_equal(y.numpy(), x.numpy())


def test_random_draws_differ_between_replays_and_follow_the_seed() -> None:
    f = jit(lambda x: x + Tensor.rand(100))
    x = Tensor(np.zeros(100, np.float32))
    manual_seed(3)
    a, b = f(x).numpy().copy(), f(x).numpy().copy()
    assert not np.array_equal(a, b)
    manual_seed(3)
    np.testing.assert_array_equal(f(x).numpy(), a)
    manual_seed(3)
    np.testing.assert_array_equal(Tensor.rand(100).numpy(), a)


def test_a_jitted_function_inside_another_becomes_part_of_it() -> None:
    inner = jit(lambda x: x * 2)
    outer = jit(lambda x: inner(x) + 1)
    np.testing.assert_array_equal(outer(Tensor(np.ones(2, np.float32))).numpy(), [3, 3])
    assert not inner.entries


def test_a_new_signature_says_which_guard_failed() -> None:
    f = jit(lambda x: x.sum())
    f(Tensor(np.ones((2, 3), np.float32)))
    events: list[hooks.Event] = []
    with hooks.subscribed(events.append, hooks.CacheMiss, hooks.CacheHit):
        f(Tensor(np.ones((4, 3), np.float32)))
        f(Tensor(np.ones((4, 3), np.float32)))
    miss = next(e for e in events if isinstance(e, hooks.CacheMiss) and e.cache == "jit")
    assert miss.guard.startswith("shape of arguments") and miss.old == (2, 3) and miss.new == (4, 3)
    assert any(isinstance(e, hooks.CacheHit) and e.cache == "jit" for e in events)


def test_an_unhashable_argument_is_refused() -> None:
    f = jit(lambda x, y: x)
    with pytest.raises(JitError, match="neither a tensor nor hashable: ndarray"):
        f(Tensor(np.ones(2, np.float32)), np.ones(3))


def test_a_result_kept_by_the_function_itself_does_no_harm() -> None:
    kept = []
    w = Tensor(np.ones(3, np.float32))

    @jit
    def f(x: Tensor) -> Tensor:
        loss = (w * x).sum()
        w.assign(w + 1)
        kept.append(loss)
        return loss

    assert [f(Tensor(np.ones(3, np.float32))).item() for _ in range(3)] == [3, 6, 9]
    with pytest.raises(JitError, match="made inside a jitted function"):
        kept[0].item()


def test_lower_traces_and_runs_nothing() -> None:
    w = Tensor(np.ones(3, np.float32))

    @jit
    def f(x: Tensor) -> Tensor:
        w.assign(w + x)
        return (w * x).sum()

    x = Tensor(np.full(3, 2, np.float32))
    c = f.lower(x)
    assert [k.name for k in c.kernels]
    assert c.run()[0] == pytest.approx(18)
    np.testing.assert_array_equal(w.numpy(), [1, 1, 1])
    assert f(x).item() == pytest.approx(18)
    np.testing.assert_array_equal(w.numpy(), [3, 3, 3])


def test_a_list_of_as_many_tensors_as_there_are_arguments() -> None:
    f = jit(lambda pair, factor: (pair[0] + pair[1]) * factor)
    a, b = Tensor([1.0]), Tensor([2.0])
    assert [f([a, b], 5.0).item() for _ in range(3)] == [15.0] * 3
    assert f([a, b], 6.0).item() == 18.0 and f((a, b), 5.0).item() == 15.0


def test_arguments_of_the_last_call_are_looked_at_again() -> None:
    f = jit(lambda x: x * 2)
    for x in (Tensor([1.0]), Tensor([[1.0]]), Tensor([1]), Tensor([1.0]) + 0, Tensor([3.0])):
        out = f(x)
        assert out.tolist() == (x * 2).tolist() and out.dtype is x.dtype
    assert f(3) == 6 and f(Tensor([1.0])).item() == 2 and f(x=Tensor([4.0])).item() == 8
    assert len(f.entries) == 5


def test_one_hot_of_an_argument() -> None:
    """Inside, an argument has no value that could be checked."""
    step = jit(lambda labels: labels.one_hot(4))
    for _ in range(3):
        assert step(Tensor([1, 3])).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
