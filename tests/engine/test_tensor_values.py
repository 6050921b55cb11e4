"""When a tensor computes and when it does not; assignment, history, printing, random numbers, errors with the user's line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, dtypes, jit, manual_seed, nn, no_grad, optim, origin, state
from tinyengine import hooks as hooks_module
from tinyengine.node import Graph, toposort
from tinyengine.tensor import core, force, random


def ops(t: Tensor) -> list[str]:
    return [n.op for n in toposort([t.node])]


def causes(f: Any) -> list[str]:
    """What forced computations while f runs."""
    seen: list[Any] = []
    with hooks_module.subscribed(seen.append, hooks_module.Realized):
        f()
    return [e.cause for e in seen]


def test_nothing_computes_before_it_must() -> None:
    def lazy() -> None:
        x = Tensor(np.ones((3, 4), np.float32), requires_grad=True)
        y = ((x @ x.T).softmax() + Tensor.rand(3, 3)).sum()
        y.backward()
        repr(y), str(x.grad), y.shape, y.dtype, len(x), x.detach(), x[1, ::2], y.requires_grad

    assert causes(lazy) == []
    x = Tensor([1.0, 2.0])
    assert causes(lambda: (x + 1).sum().item()) == ["item"]
    assert causes(lambda: bool((x > 0).all())) == ["bool"]
    assert causes(lambda: (x + 1).numpy()) == ["numpy"]
    assert causes(lambda: (x + 1).tolist()) == ["tolist"]
    assert causes(lambda: (x + 1).realize()) == ["realize"]
    assert causes(lambda: x.tolist()) == []  # it is in memory already


def test_print_shows_what_is_known() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "Tensor([1., 2.], dtype=float32, requires_grad=True)"
    assert repr(x + 1) == "Tensor(<not computed: add>, shape=(2,), dtype=float32)"
    assert repr((x + 1).realize()) == "Tensor([2., 3.], dtype=float32)"


def test_recorded_values_read_what_was_computed() -> None:
    x = Tensor([1.0, 2.0])
    h = x.exp()
    y = h + 1
    h.realize()
    assert ops(y) == ["buffer", "const", "add"]
    np.testing.assert_allclose(y.numpy(), np.exp([1, 2]) + 1, rtol=1e-6)


def test_graphs_are_searched_only_where_a_computed_node_is_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    plain = force._substitute
    monkeypatch.setattr(force, "_substitute", lambda changed: (searched.append(len(changed)), plain(changed)))
    x = Tensor([1.0, 2.0], requires_grad=True)

    def alone() -> None:
        (x * 3).sum().item()

    alone()  # the first time, the program that is compiled keeps the graph
    searched.clear()
    alone()
    assert searched == []
    h = x * 3
    y = h + 1
    h.realize()
    assert searched == [1] and ops(y) == ["buffer", "const", "add"]


def test_computed_tensors_are_not_looked_at_again() -> None:
    core.prune()
    before = len(core.live)
    kept = [(Tensor([1.0]) + i).realize() for i in range(5)]
    core.prune()
    assert len(core.live) == before
    kept[0].assign(kept[1])
    assert len(core.live) == before + 1
    kept[0].realize()


def test_backward_goes_on_below_a_computed_value() -> None:
    w = Tensor([2.0, 3.0], requires_grad=True)
    h = (w * w).realize()
    loss = (h * w).sum()
    loss.item()
    loss.backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), [12, 27])


def test_backward_through_overwritten_memory_is_refused() -> None:
    w = Tensor([2.0, 3.0], requires_grad=True)
    loss = (w * w).sum()
    loss.item()
    w.assign([5.0, 6.0]).realize()
    with pytest.raises(RuntimeError, match="updated in place"):
        loss.backward()


def test_a_lazy_leaf_keeps_its_gradient_when_it_is_computed_in_between() -> None:
    w = Tensor.ones(2, requires_grad=True)
    loss = (w * 3).sum()
    w.realize()
    loss.backward()
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), [3, 3])


def test_assign_writes_into_the_same_memory() -> None:
    w = Tensor([1.0, 2.0, 3.0])
    memory = w.node.arg
    w.assign(w * 2)
    assert w.node.op == "assign"
    np.testing.assert_array_equal(w.numpy(), [2, 4, 6])
    assert w.node.arg is memory
    w.assign(7)
    np.testing.assert_array_equal(w.numpy(), [7, 7, 7])
    w += Tensor([1, 2, 3])
    w *= 2
    np.testing.assert_array_equal(w.numpy(), [16, 18, 20])
    assert w.node.arg is memory and w.dtype is dtypes.float32
    with pytest.raises(RuntimeError, match=r"assign: a value of shape \[2\] does not fit shape \[3\]|do not broadcast"):
        w.assign([1.0, 2.0])


def test_values_recorded_before_an_assignment_read_the_old_content() -> None:
    w = Tensor([1.0, 2.0])
    before = w * 10
    w.assign(w + 1)
    after = w * 10
    np.testing.assert_array_equal(after.numpy(), [20, 30])
    np.testing.assert_array_equal(before.numpy(), [10, 20])
    np.testing.assert_array_equal(w.numpy(), [2, 3])


def test_values_recorded_before_a_replayed_step_read_the_old_weights() -> None:
    w = Tensor([1.0, 2.0], requires_grad=True)

    @jit
    def step(x: Tensor) -> Tensor:
        w.assign(w - x)
        return w.sum()

    x = Tensor([1.0, 1.0])
    step(x)
    before = [w + i for i in range(3)]
    loss = (w * w).sum()
    loss.item()
    step(x)
    assert [t.tolist() for t in before] == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    assert w.tolist() == [-1.0, 0.0]
    with pytest.raises(RuntimeError, match="updated in place"):
        loss.backward()


def test_two_assignments_before_anything_is_computed() -> None:
    w = Tensor([1.0, 2.0])
    w.assign(w + 1)
    middle = w * 10
    w.assign(w * 5)
    np.testing.assert_array_equal(w.numpy(), [10, 15])
    np.testing.assert_array_equal(middle.numpy(), [20, 30])


def test_augmented_assignment_of_a_recorded_value_makes_a_new_one() -> None:
    x = Tensor([1.0, 2.0])
    y = x + 0.5
    z = y
    y += 1
    assert y is z and "assign" not in ops(y)
    np.testing.assert_array_equal(y.numpy(), [2.5, 3.5])
    np.testing.assert_array_equal(x.numpy(), [1, 2])


def test_assignment_to_an_element_of_computed_memory() -> None:
    x = Tensor(np.zeros((2, 3), np.float32))
    memory = x.node.arg
    x[1, ::2] = Tensor([5.0, 6.0])
    x[0] += 1
    np.testing.assert_array_equal(x.numpy(), [[1, 1, 1], [5, 0, 6]])
    assert x.node.arg is memory


def test_data_is_copied_and_typed() -> None:
    a = np.arange(3.0, dtype=np.float32)
    x = Tensor(a)
    a[0] = 99
    assert x.tolist() == [0.0, 1.0, 2.0]
    assert (
        Tensor(np.zeros(2)).dtype is dtypes.float64 and Tensor([0.5]).dtype is dtypes.float32 and Tensor(3).dtype is dtypes.int32
    )
    assert Tensor(np.zeros(2, np.int64)).dtype is dtypes.int64 and Tensor([1, 2.5]).tolist() == [1.0, 2.5]
    assert Tensor([x, x]).shape == (2, 3)
    y = np.array(x)
    y[0] = 5
    assert x.tolist()[0] == 0.0
    assert (np.ones(3, np.float32) + x).tolist() == [1.0, 2.0, 3.0]  # the array asks the tensor


def test_an_array_of_a_tensor_is_a_snapshot_without_a_copy() -> None:
    w = Tensor(np.arange(4, dtype=np.float32))
    a = w.numpy()
    assert np.shares_memory(a, w.numpy()) and np.shares_memory(a, np.asarray(w)) and not np.shares_memory(a, np.array(w))
    assert a.ctypes.data == w.node.arg.address and not a.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1
    w.assign(w * 10).realize()
    assert a.tolist() == [0, 1, 2, 3] and w.tolist() == [0, 10, 20, 30]
    b = (w + 1).numpy()  # its tensor is gone
    c = [w * float(i) for i in range(5)]
    Tensor.realize(*c)
    assert b.tolist() == [1, 11, 21, 31]
    assert np.asarray(w, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        w.__array__(np.float64, copy=False)


def test_python_protocols() -> None:
    x = Tensor([[1, 2], [3, 4]])
    assert len(x) == 2 and [t.tolist() for t in x] == [[1, 2], [3, 4]] and 3 in x and 9 not in x
    assert float(x[0, 1]) == 2.0 and int(x[1, 0]) == 3 and [10, 20, 30][Tensor(1)] == 20
    assert {x: 1}[x] == 1  # hashed by identity
    assert np.asarray(x).tolist() == x.tolist()


ERRORS: list[tuple[str, type[Exception], str]] = [
    ("Tensor.ones(2, 3) @ Tensor.ones(4, 5)", RuntimeError, r"shapes \[2, 3\] and \[4, 5\].*extent 3.*has 4"),
    ("Tensor.ones(2, 3) + Tensor.ones(2, 4)", RuntimeError, r"\[2, 3\] and \[2, 4\] do not broadcast: axis -1 has 3 and 4"),
    ("Tensor([1.0], dtype='float33')", TypeError, "unknown dtype 'float33'; known: bool, int8"),
    ("Tensor.ones(2).cast('complex')", TypeError, "unknown dtype 'complex'"),
    ("Tensor.ones(2, 3).reshape(4, 2)", RuntimeError, r"\[4, 2\] is invalid for a tensor of 6 elements"),
    ("Tensor.ones(2, 3).sum(2)", IndexError, "dim 2 is out of range: the tensor has 2 axes"),
    ("Tensor.ones(2, 3).permute(0, 0)", RuntimeError, "each of them once"),
    ("Tensor.ones(2, 3).expand(4, 3)", RuntimeError, "only axes of extent 1"),
    ("Tensor([[1, 2], [3]])", ValueError, "not rectangular"),
    ("Tensor('text')", TypeError, "cannot be made of str"),
    ("Tensor.ones(2) + 'a'", TypeError, "takes a tensor, an array or a number, not str"),
    ("Tensor.ones(2, 3).item()", RuntimeError, "6 elements"),
    ("bool(Tensor.ones(2))", RuntimeError, "use any"),
    ("Tensor.ones(2) & 1", RuntimeError, "works on bool and integer tensors"),
    ("Tensor.ones(1, 3, 5, 5).conv2d(Tensor.ones(4, 2, 3, 3))", RuntimeError, "take 2 channels, x has 3"),
    ("Tensor.ones(1, 3, 2, 2).conv2d(Tensor.ones(4, 3, 3, 3))", RuntimeError, "kernel of 3 .* does not fit"),
    ("Tensor.ones(2, 3).cat(Tensor.ones(2, 4), dim=0)", RuntimeError, r"\[2, 3\] and \[2, 4\] differ elsewhere"),
    (
        "Tensor.ones(2, 3).cross_entropy(Tensor([0.0, float('nan')]))",
        RuntimeError,
        r"class numbers of an int dtype, got float32\[2\] \(element 1 is NaN\)",
    ),
    ("Tensor.ones(2, 3).cross_entropy(Tensor([0.0, 1.0]))", RuntimeError, "int dtype, got float32"),
    ("Tensor.ones(2, 3).cross_entropy(Tensor([0, 1, 2]))", ValueError, r"expected labels of shape \[2\] .* got \[3\]"),
    ("Tensor.ones(2, 3).cross_entropy(Tensor([0, 3]))", IndexError, "label 3 at position 1 is out of range, there are 3 classes"),
    (
        "Tensor.ones(2, 3).cross_entropy(Tensor(np.array([[0, 1, 0], [0, np.nan, 1]], 'f')))",
        ValueError,
        r"probability at \(1, 1\) is NaN",
    ),
    ("Tensor.ones(2).dropout(1.5)", ValueError, "probability, not 1.5"),
    ("Tensor.ones(2, 3).sum(1.0)", TypeError, "dim must be an int, not 1.0"),
    ("Tensor.ones(2, 3).sum('rows')", TypeError, "dim must be an int, not 'rows'"),
    ("Tensor(np.array(['a']))", TypeError, "expected numbers or booleans"),
    ("Tensor.full((2,), 'x')", TypeError, "filled with a number, not 'x'"),
    ("nn.Linear(3, 2)(np.ones((4, 3), 'f'))", TypeError, "Linear takes tensors, not ndarray"),
    ("nn.Linear(-1, 2)", ValueError, "ints from 0 on, not -1, 2"),
    ("jit(lambda x: x)()", TypeError, r"<lambda>\(x\): missing a required argument: 'x'"),
    ("Tensor(2**70)", OverflowError, "1180591620717411303424 is no int of 64 bits"),
    ("state.safe_save({'a': 5}, 'a')", TypeError, "'a' is no Tensor but int"),
    ("nn.Linear(3, 2)([1.0])", TypeError, "Linear takes tensors, not list"),
    ("optim.SGD(nn.Linear(3, 2), lr=0.1)", TypeError, r"not Linear; give model.parameters\(\)"),
    ("optim.SGD(nn.Linear(3, 2).parameters(), lr='a')", TypeError, "learning rate is a number, not 'a'"),
    ("manual_seed('x')", TypeError, "a seed is an int, not 'x'"),
    ("Tensor.ones(1 << 25, 1 << 25).numpy()", MemoryError, r"no memory for 4,503,599,627,370,496 bytes, float32\["),
]


@pytest.mark.parametrize("text, error, message", ERRORS, ids=[e[0] for e in ERRORS])
def test_errors_name_what_was_given_and_the_line(text: str, error: type[Exception], message: str) -> None:
    code = compile(f"\n\n{text}", "user_file.py", "exec")
    with pytest.raises(error, match=rf"(?s){message}.*at user_file.py, line 3"):
        exec(code, {"Tensor": Tensor, "jit": jit, "manual_seed": manual_seed, "nn": nn, "np": np, "optim": optim, "state": state})


def test_draws_depend_on_the_seed_and_on_what_was_drawn_before() -> None:
    manual_seed(7)
    a, b = Tensor.rand(5), Tensor.rand(5)
    second = b.numpy()  # in any order of computing
    first = a.numpy()
    manual_seed(7)
    whole = Tensor.rand(10).numpy()
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    manual_seed(8)
    assert (Tensor.rand(10).numpy() != whole).any()
    assert (Tensor.rand(10).numpy() != Tensor.rand(10).numpy()).any()


def test_draws_of_one_form_share_one_program() -> None:
    assert Graph([Tensor.rand(4).node]).key()[0] == Graph([Tensor.rand(4).node]).key()[0]


def test_distributions() -> None:
    manual_seed(3)
    u, n, k = Tensor.rand(20000).numpy(), Tensor.randn(20000).numpy(), Tensor.randint(20000, low=-3, high=4).numpy()
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.005
    assert abs(n.mean()) < 0.03 and abs(n.std() - 1) < 0.02 and np.isfinite(n).all()
    assert k.dtype == np.int32 and set(k) == set(range(-3, 4))
    d = Tensor.ones(20000).dropout(0.3).numpy()
    assert set(np.unique(d)) == {0.0, np.float32(1 / 0.7)} and abs((d == 0).mean() - 0.3) < 0.02
    assert sorted(Tensor.randperm(50).tolist()) == list(range(50))
    assert abs(Tensor.kaiming_uniform(64, 100).numpy()).max() <= np.sqrt(6 / (1 + 1e-4) / 100) + 1e-6


def test_the_counter_changes_the_key_when_it_is_used_up() -> None:
    manual_seed(1)
    random.take((1 << 32) - 2)
    assert random.take(2)[0] == (1 << 32) - 2
    first = random.take(4)
    assert first[0] == 0 and first[1] != 1


def test_origin_is_the_users_line_and_the_same_object_for_the_same_place() -> None:
    x = Tensor([1.0])
    made = [x + 1 for _ in range(2)]
    o = made[0].node.origin
    assert o is made[1].node.origin
    assert o[0].file == __file__ and "made = [x + 1" in o[0].frames[0].text and o[0].phase == "forward"
    assert "Tensor([1.0])" in origin.Frame(*x.node.origin[0].frames[0]).text


def test_dead_tensors_are_forgotten() -> None:
    core.prune()
    before = len(core.live)
    x = Tensor([1.0])
    for _ in range(5000):
        x + 1
    core.prune()
    assert len(core.live) <= before + 1


def test_no_grad_leaves_grad_mode_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert core.state.limit == core.FLOWS


def test_importing_the_engine_imports_no_compiler() -> None:
    code = (
        "import sys, tinyengine; early = set(sys.modules); from tinyengine import Tensor, nn, optim, state;"
        "print(any(m in early for m in ('numpy',)), any(m in sys.modules for m in ('llvmlite', 'pyopencl', 'sklearn', 'torch')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_the_work_of_a_lazy_op_does_not_grow_with_the_graph() -> None:
    """Counted in Python calls, not in seconds."""

    def calls(depth: int) -> int:
        x = Tensor([1.0])
        y = x
        for _ in range(depth):
            y = y + x
        count = 0

        def profile(frame: Any, event: str, arg: Any) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(profile)
        try:
            for _ in range(2):  # the first time, the place in the code is met and remembered
                count = 0
                y + x
        finally:
            sys.setprofile(None)
        return count

    assert calls(5) == calls(500) <= 4
