"""docs/jit.md, trap by trap: what a compiled function does where eager Python would do something else, or that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, backends, hooks, jit, nn, no_grad, optim
from tinyengine.jit import JitError
from tinyengine.tensor import core


@pytest.fixture(autouse=True)
def on_reference() -> Any:
    with backends.use("reference"):
        yield


def ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32))


def misses(f: Any, *args: Any, **kwargs: Any) -> list[str]:
    seen: list[Any] = []
    with hooks.subscribed(seen.append, hooks.CacheMiss):
        f(*args, **kwargs)
    return [f"{e.guard}: {e.old} -> {e.new}" for e in seen if e.cache == "jit"]


def test_guards_name_what_changed() -> None:
    f = jit(lambda x, k=1, deep=None: x * k)
    f(ones(2, 3))
    assert misses(f, ones(2, 3)) == []
    assert misses(f, ones(4, 3)) == ["shape of arguments[0][1]: (2, 3) -> (4, 3)"]
    assert misses(f, ones(4, 3).cast("int32")) == ["dtype of arguments[0][1]: float32 -> int32"]
    assert misses(f, ones(4, 3).cast("int32"), 2)[0].startswith("arguments")
    assert len(f.entries) == 4


def test_keyword_and_positional_arguments_are_two_signatures_with_one_meaning() -> None:
    runs = []

    @jit
    def f(a: Tensor, b: Tensor) -> Tensor:
        runs.append(1)
        return a - b

    x, y = ones(2), ones(2) * 3
    for got in (f(x, y), f(a=x, b=y), f(b=y, a=x), f(x, b=y)):
        np.testing.assert_array_equal(got.numpy(), [-2, -2])
    assert len(runs) == 4


def test_python_effects_happen_at_capture_only() -> None:
    log: list[int] = []
    f = jit(lambda x: (log.append(len(log)), x + 1)[1])
    for _ in range(3):
        f(ones(2))
    assert log == [0]


def test_a_captured_tensor_that_is_assigned_is_seen_and_a_rebound_name_is_not() -> None:
    held = {"w": ones(2)}
    f = jit(lambda x: x * held["w"])
    f(ones(2))
    held["w"].assign([5.0, 5.0])
    np.testing.assert_array_equal(f(ones(2)).numpy(), [5, 5])
    held["w"] = ones(2) * 9
    np.testing.assert_array_equal(f(ones(2)).numpy(), [5, 5])


def test_a_recorded_value_that_is_captured_keeps_its_value() -> None:
    w = ones(2)
    double = w * 2
    f = jit(lambda x: x * double)
    np.testing.assert_array_equal(f(ones(2)).numpy(), [2, 2])
    w.assign([7.0, 7.0])
    w.realize()
    np.testing.assert_array_equal(f(ones(2)).numpy(), [2, 2])
    np.testing.assert_array_equal(double.numpy(), [2, 2])


def test_a_pending_update_that_is_captured_runs_once() -> None:
    w = ones(2)
    w.assign(w + 1)
    f = jit(lambda x: x * w)
    for _ in range(3):
        np.testing.assert_array_equal(f(ones(2)).numpy(), [2, 2])
    np.testing.assert_array_equal(w.numpy(), [2, 2])


def test_an_update_that_waits_is_seen_whatever_was_called_before() -> None:
    w, other = ones(2), ones(2)
    f, g = jit(lambda x: x * w), jit(lambda x: x * other)
    f(ones(2)), g(ones(2))
    w.assign([5.0, 5.0])
    g(ones(2))  # leaves it waiting
    with pytest.raises(ZeroDivisionError):
        jit(lambda x: (w.assign(x), 1 // 0))(ones(2))
    g(ones(2))
    assert w.node.op == "assign"
    np.testing.assert_array_equal(f(ones(2)).numpy(), [5, 5])


def test_a_replay_does_not_look_at_recorded_values_while_no_update_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    w, x = ones(2), ones(2)
    f = jit(lambda x: x * w)
    f(x), f(x)
    lazy = [x + i for i in range(3)]
    looked: list[int] = []
    alive = core.alive
    monkeypatch.setattr(core, "alive", lambda: looked.append(1) or alive())
    f(x)
    assert not looked
    w.assign(lazy[2])
    np.testing.assert_array_equal(f(x).numpy(), [3, 3])
    assert looked


def test_lazy_state_gets_memory_and_is_updated_every_time() -> None:
    count = Tensor.zeros(2) + 1
    f = jit(lambda x: count.assign(count + x) * 1)
    assert [f(ones(2)).tolist() for _ in range(3)] == [[2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]
    assert count.tolist() == [4.0, 4.0]


def test_an_argument_is_updated_in_place_as_in_eager_code() -> None:
    @jit
    def f(x: Tensor, y: Tensor) -> Tensor:
        x += y
        x[0] = 9.0
        return x.sum()

    x = ones(3)
    part = x[1:]
    assert f(x, ones(3)).item() == 13
    assert f(x, ones(3)).item() == 15
    assert x.tolist() == [9.0, 3.0, 3.0] and part.tolist() == [3.0, 3.0]


def test_the_same_tensor_twice_is_refused_where_one_is_updated() -> None:
    @jit
    def f(x: Tensor, y: Tensor) -> Tensor:
        x += y
        return x + y

    assert f(ones(2), ones(2)).tolist() == [3.0, 3.0]
    x = ones(2)
    for wrong in ((x, x), (x, x[:]), (x[:], x.detach())):
        with pytest.raises(JitError, match="argument x shares memory with another tensor"):
            f(*wrong)
    assert x.tolist() == [1.0, 1.0]
    read = jit(lambda a, b: a * b)
    assert read(x, x).tolist() == [1.0, 1.0] and read(x, x[:]).tolist() == [1.0, 1.0]


def test_an_argument_that_is_also_captured_state_is_refused() -> None:
    w = ones(2)

    @jit
    def f(x: Tensor) -> Tensor:
        w.assign(w + 1)
        return x * 1

    f(ones(2))
    with pytest.raises(JitError, match=r"argument x shares memory(.|\n)*test_jit_contract.py"):
        f(w)
    assert f(w.clone()).tolist() == [2.0, 2.0]


def test_results_never_alias_state_or_arguments() -> None:
    w = ones(2)

    @jit
    def f(x: Tensor) -> Any:
        before = w * 1
        w.assign(w + x)
        return before, w, w[:1], x, x.reshape(2, 1), w

    x = ones(2)
    out = f(x)
    f(x)
    assert [t.tolist() for t in out] == [[1.0, 1.0], [2.0, 2.0], [2.0], [1.0, 1.0], [[1.0], [1.0]], [2.0, 2.0]]
    out[3].assign([8.0, 8.0]).realize()
    out[1].assign([8.0, 8.0]).realize()
    assert x.tolist() == [1.0, 1.0] and w.tolist() == [3.0, 3.0]


def test_a_result_may_be_realized_inside_beside_an_update_of_what_it_reads() -> None:
    w = Tensor(np.zeros((4, 2), np.float32)).realize()

    @jit
    def f(x: Tensor) -> Tensor:
        part = w[1:3]
        part[:] = part + x
        return (w.sum(0) + x).realize()

    assert [f(ones(2)).tolist() for _ in range(3)] == [[3.0, 3.0], [5.0, 5.0], [7.0, 7.0]]


def test_reading_inside_is_refused_and_leaves_everything_as_it_was() -> None:
    w, g = ones(2), Tensor([1.0, 1.0], requires_grad=True)

    @jit
    def f(x: Tensor) -> Tensor:
        w.assign(w + x)
        view = w[:1]
        view += 1
        (g * x).sum().backward()
        x.sum().item()
        return x

    for _ in range(2):
        with pytest.raises(JitError, match=r"item\(\) was called inside a jitted function"):
            f(ones(2))
        assert w.tolist() == [1.0, 1.0] and g.grad is None and not f.entries
    assert (w * 2).tolist() == [2.0, 2.0]


def test_an_exception_inside_leaves_everything_as_it_was() -> None:
    w, opt_w = ones(2), Tensor([1.0, 1.0], requires_grad=True)
    opt = optim.Adam([opt_w], lr=0.1)

    @jit
    def f(x: Tensor) -> Tensor:
        w.assign(w * 5)
        (opt_w * x).sum().backward()
        opt.step()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        f(ones(2))
    assert w.tolist() == [1.0, 1.0] and opt_w.tolist() == [1.0, 1.0] and opt_w.grad is None
    assert opt.m[0].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(Tensor.rand(2).numpy() < 1, [True, True])


def test_state_whose_value_python_reads_is_refused_when_it_is_updated() -> None:
    w, fixed = ones(2), ones(2) * 1
    fixed.realize()
    fine = jit(lambda x: x * float(fixed.sum().item() if False else fixed.tolist()[0]))
    assert fine(ones(2)).tolist() == [1.0, 1.0]

    @jit
    def f(x: Tensor) -> Tensor:
        k = w.tolist()[0]
        w.assign(w + x)
        return x * k

    with pytest.raises(JitError, match=r"read inside a jitted function that also updates it, on test_jit_contract.py"):
        f(ones(2))
    assert w.tolist() == [1.0, 1.0]


def test_memory_made_inside_is_a_constant_of_the_program() -> None:
    @jit
    def f(x: Tensor) -> Tensor:
        total = Tensor([0.0, 0.0])
        total += x
        total[0] = 5.0
        return total * 1

    for _ in range(3):
        assert f(ones(2)).tolist() == [5.0, 1.0]


def test_a_gradient_does_not_leave_through_an_update_of_outer_memory() -> None:
    kept, w = ones(2), Tensor([2.0, 2.0], requires_grad=True)

    @jit
    def f(x: Tensor) -> Tensor:
        kept[0] = (w * x).sum()
        return x

    with pytest.raises(RuntimeError, match=r"inside a jitted function, a tensor from outside(.|\n)*kept\[0\] ="):
        f(ones(2))
    assert kept.tolist() == [1.0, 1.0]


def test_jits_in_jits_with_state_and_random() -> None:
    w = ones(2)

    @jit
    def inner(x: Tensor) -> Tensor:
        w.assign(w + 1)
        return x * w

    @jit
    def outer(x: Tensor) -> Tensor:
        return inner(inner(x)) + Tensor.zeros(2).dropout(0.5) * 0

    assert outer(ones(2)).tolist() == [6.0, 6.0]
    assert outer(ones(2)).tolist() == [20.0, 20.0]
    assert w.tolist() == [5.0, 5.0] and not inner.entries


def test_parameters_and_optimizer_state_advance_as_in_eager_code() -> None:
    def train(use_jit: bool) -> list[float]:
        rng = np.random.default_rng(0)
        model = nn.Linear(3, 2)
        model.weight.assign(rng.standard_normal((2, 3)).astype(np.float32)).realize()
        model.bias.assign(np.zeros(2, np.float32)).realize()  # type: ignore[union-attr]
        opt = optim.Adam([model.weight, model.bias], lr=0.05)

        def step(x: Tensor) -> Tensor:
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        f = jit(step) if use_jit else step
        batches = [rng.standard_normal((4, 3)).astype(np.float32) for _ in range(4)]
        return [f(Tensor(b)).item() for b in batches]

    np.testing.assert_allclose(train(True), train(False), rtol=1e-5)


def test_a_parameter_given_as_an_argument_is_a_leaf_inside() -> None:
    @jit
    def f(w: Tensor, x: Tensor) -> Any:
        loss = (w * x).sum()
        loss.backward()
        g = w.grad
        with no_grad():
            w -= g * 0.5
        return g * 1

    w = Tensor([1.0, 2.0], requires_grad=True)
    assert f(w, ones(2) * 3).tolist() == [3.0, 3.0]
    assert w.tolist() == [-0.5, 0.5] and w.is_leaf
