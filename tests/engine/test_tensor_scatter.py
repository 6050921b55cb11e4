"""scatter, scatter_reduce, max_unpool2d, and assignment through index arrays, tensors and masks, against PyTorch and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.peer import Case, F, compare, draw, torch, value
from tinyengine import Tensor, dtypes, jit, narrow
from tinyengine.loopnest import Accumulate, Loop, Store, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower

FEW = settings(max_examples=15, derandomize=True, deadline=None)


def distinct(shape: tuple[int, int], d: int, below: int, seed: int) -> np.ndarray[Any, Any]:
    """Indices without a duplicate along axis d."""
    rng = np.random.default_rng(seed)
    return np.apply_along_axis(lambda _: rng.permutation(below)[: shape[d]], d, np.zeros(shape)).astype(np.int64)


@pytest.mark.parametrize("d", [0, 1, -1])
def test_scatter(d: int) -> None:
    x, v = draw((4, 5), -1, 1, 1), draw((3, 4), -1, 1, 2)
    i = distinct((3, 4), d, (4, 5)[d], 3)
    compare(Case("scatter", lambda x, i, v: x.scatter(d, i, v), lambda x, i, v: x.scatter(d, i, v)), x, i, v)
    compare(Case("number", lambda x, i: x.scatter(d, i, 2.5), lambda x, i: x.scatter(d, i, 2.5)), x, i)
    few = np.ascontiguousarray(i[:2, :3])
    cut = np.ascontiguousarray(v[:2, :3])  # PyTorch has no gradient for values that are not all used
    np.testing.assert_array_equal(
        value(Tensor(x).scatter(d, Tensor(few), Tensor(v))), value(Tensor(x).scatter(d, Tensor(few), Tensor(cut)))
    )
    twice = np.zeros_like(i)
    for op in ("add", "multiply"):
        ours = Tensor(x).scatter(d, Tensor(twice), Tensor(v), reduce=op)
        theirs = torch.tensor(x).scatter(d, torch.tensor(twice), torch.tensor(v), reduce=op)
        np.testing.assert_allclose(value(ours), theirs.numpy(), rtol=1e-5)


def test_of_several_values_for_one_place_the_last_wins_and_takes_the_gradient() -> None:
    x, v = Tensor(np.zeros(3, np.float32), requires_grad=True), Tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    y = x.scatter(0, Tensor([1, 0, 1, 1]), v)
    np.testing.assert_array_equal(value(y), [2, 4, 0])
    (y * Tensor([1.0, 10.0, 100.0])).sum().backward()
    np.testing.assert_array_equal(value(v.grad), [0, 1, 0, 10])
    np.testing.assert_array_equal(value(x.grad), [0, 0, 100])
    special = Tensor([np.inf, np.nan]).scatter(0, Tensor([0, 0]), Tensor([np.nan, 5.0]))
    np.testing.assert_array_equal(value(special), [5, np.nan])


@pytest.mark.parametrize("mode", ["sum", "prod", "mean", "amax", "amin"])
@FEW
@given(d=st.sampled_from([0, 1]), own=st.booleans(), seed=st.integers(0, 9), dtype=st.sampled_from(["float32", "int32"]))
def test_scatter_reduce(mode: str, d: int, own: bool, seed: int, dtype: str) -> None:
    x, v = draw((4, 5), -5, 5, seed, dtype), draw((3, 4), -5, 5, seed + 1, dtype)
    i = draw((3, 4), 0, 3, seed + 2, "int64")

    def f(x: Any, i: Any, v: Any) -> Any:
        return x.scatter_reduce(d, i, v, mode, include_self=own)

    compare(Case(mode, f, f, atol=1e-5, rtol=1e-4), x, i, v)


def test_scatter_of_scalars_and_of_nothing() -> None:
    np.testing.assert_array_equal(value(Tensor(1.0).scatter(0, Tensor(0), Tensor(5.0))), 5)
    np.testing.assert_array_equal(value(Tensor(1.0).scatter_reduce(0, Tensor(0), Tensor(5.0), "sum")), 6)
    a = draw((2, 3), -1, 1, 1)
    nothing = Tensor(np.zeros((0, 3), np.int64))
    np.testing.assert_array_equal(value(Tensor(a).scatter(0, nothing, Tensor(np.zeros((0, 3), np.float32)))), a)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda x, i, v: x.scatter(0, i, v.long() if hasattr(v, "long") else v), RuntimeError),
        (lambda x, i, v: x.scatter(0, v, v), RuntimeError),
        (lambda x, i, v: x.scatter(2, i, v), IndexError),
        (lambda x, i, v: x.scatter(1, i, v[:1]), RuntimeError),
        (lambda x, i, v: x.scatter_reduce(0, i, v, "median"), RuntimeError),
        (lambda x, i, v: x[:1].scatter(1, i, v), RuntimeError),
    ],
)
def test_errors_are_of_pytorchs_type(call: Any, error: type[Exception]) -> None:
    x, i, v = draw((3, 3), -1, 1, 1), np.zeros((2, 2), np.int64), draw((2, 2), -1, 1, 1)
    for make in (Tensor, torch.tensor):
        with pytest.raises(error):
            call(make(x), make(i), make(v))


@pytest.mark.parametrize(
    "k, s, p, dil, up", [(2, None, 0, 1, False), (3, 2, 1, 1, True), (3, 1, 0, 2, False), ((2, 3), 2, (0, 1), 1, True)]
)
def test_pooling_with_positions_and_rounding_up(k: Any, s: Any, p: Any, dil: Any, up: bool) -> None:
    a = draw((2, 3, 8, 7), -1, 1, 4)
    ours = Tensor(a).max_pool2d(k, s, p, dil, up, return_indices=True)
    theirs = F.max_pool2d(torch.tensor(a), k, s, p, dil, up, return_indices=True)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value(u), v.numpy())
    assert ours[1].dtype is dtypes.int32
    if dil == 1:
        for own in (True, False):
            settings_ = (k, s, p, up, own)
            compare(Case("avg", lambda x, z=settings_: x.avg_pool2d(*z), lambda x, z=settings_: F.avg_pool2d(x, *z)), a)


def test_max_unpool2d() -> None:
    a = draw((2, 3, 6, 4), -1, 1, 4)
    for z in ((2, None, 0, None), (2, 2, 0, (7, 4)), ((3, 2), (3, 2), 0, None)):
        theirs, at = F.max_pool2d(torch.tensor(a), *z[:2], return_indices=True)
        i = at.numpy()
        case = Case("unpool", lambda x, i, z=z: x.max_unpool2d(i, *z), lambda x, i, z=z: F.max_unpool2d(x, i, *z))
        compare(case, theirs.numpy(), i)
    for x, f in ((Tensor(a), Tensor.max_unpool2d), (torch.tensor(a), F.max_unpool2d)):
        with pytest.raises((ValueError, RuntimeError)):
            f(x, x[:1].long(), 2)


I, J = np.array([2, 0, -1]), np.array([[0], [1]])
M = np.array([True, False, True, True])
INDICES: list[Any] = [
    (I,), (slice(None), I), (I, I), (J, I), (I, slice(None), I), (slice(None), I, I), (None, I), (1, I), (..., I),
    (slice(None, None, -1), I), ([0, 1, 1],), (M,), (slice(None), slice(0, 2), I), (slice(1, 3), 1, I), (np.array([1, 1, 1]),),
    (I, 1), (M, slice(None, None, 2)), (M, 0, slice(1, 3)), (np.zeros(0, np.int64),), (slice(0, 0), I),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(INDICES)))
@pytest.mark.parametrize("lazy", [False, True], ids=["arrays", "tensors"])
def test_assignment_through_index_arrays_follows_numpy(number: int, lazy: bool) -> None:
    index = INDICES[number]
    a = draw((4, 3, 5), -1, 1, 3)
    ours = tuple(Tensor(i) + 0 if lazy and isinstance(i, np.ndarray) and i.dtype != bool else i for i in index)
    shape = a[index].shape
    for v in (np.float32(7), draw(shape, 5, 9, 1), draw(shape[-1:], 5, 9, 1)):
        x, expected = Tensor(a), a.copy()
        x[ours] = v if isinstance(v, np.ndarray) else float(v)
        expected[index] = v
        np.testing.assert_array_equal(value(x), expected)


def test_assignment_through_masks() -> None:
    a = draw((4, 3), -1, 1, 3)
    m = a > 0
    for mask, v in (
        (m, 5.0), (m, np.arange(m.sum(), dtype=np.float32)), (m[:, 0], 2.0), (m[:, 0], np.array([7, 8, 9], np.float32)),
        (np.zeros((4, 3), bool), 1.0),
    ):  # fmt: skip
        x, expected = Tensor(a), a.copy()
        x[Tensor(mask)] = v
        expected[mask] = v
        np.testing.assert_array_equal(value(x), expected)
        x = Tensor(a)
        x[mask] = v
        np.testing.assert_array_equal(value(x), expected)
    with pytest.raises(IndexError):
        Tensor(a)[Tensor([True, False])] = 1.0
    x = Tensor(a)
    x[Tensor(a).sum() < 1000] = 4.0
    assert (value(x) == 4).all()
    x[np.array(False)] = 5.0
    assert (value(x) == 4).all()
    for on in (True, False):
        assert x[np.array(on)].shape == x[Tensor(on)].shape == torch.ones(4, 3)[torch.tensor(on)].shape
        theirs = torch.tensor(value(x))[torch.tensor(on), 0]  # beside another index
        np.testing.assert_array_equal(value(x[np.array(on), 0]), theirs.numpy())


def test_one_value_through_a_mask_computes_nothing() -> None:
    x = Tensor(draw((4, 3), -1, 1, 3)) + 0
    mask = x > 0
    x[mask] = 0.0
    assert mask.node.op != "buffer" and x.node.op == "where"


def test_gradients_of_assignments_are_those_of_pytorch() -> None:
    a, v = draw((4, 3), -1, 1, 3), draw((2, 3), -1, 1, 4)

    def f(x: Any, v: Any) -> Any:
        y = x * 2
        y[[0, 2]] = v
        y[y > 1] = 0.5
        return y * y

    compare(Case("assign", f, f), a, v)


def test_assignment_errors() -> None:
    for make in (Tensor, torch.tensor):
        x = make(draw((4, 3), -1, 1, 3))
        with pytest.raises(IndexError):
            x[[0, 4]] = 1.0
        with pytest.raises(RuntimeError):
            x[[0, 1]] = make(np.zeros(2, np.float32))


def test_on_llvm_and_into_memory() -> None:
    a = draw((40, 6), -1, 1, 3)
    x, w = Tensor(a), Tensor(a)
    memory = w.node.arg
    i = Tensor(np.arange(30) * 7 % 40)
    w[i] = w[i] * 2
    w[w > 1] = 1.0
    v, j = Tensor(draw((30, 6), -1, 1, 5)), Tensor(draw((30, 6), 0, 39, 6, "int64"))
    ours = [x.scatter_reduce(0, j, v, mode) for mode in ("sum", "prod", "mean", "amax", "amin")]
    ours[0].realize(*ours[1:], w)
    expected = a.copy()
    expected[np.arange(30) * 7 % 40] *= 2
    np.testing.assert_allclose(w.numpy(), expected.clip(None, 1), rtol=1e-6)
    assert w.node.arg is memory
    t, jt, vt = torch.tensor(a), torch.tensor(j.numpy()), torch.tensor(v.numpy())
    for u, mode in zip(ours, ("sum", "prod", "mean", "amax", "amin"), strict=True):
        np.testing.assert_allclose(u.numpy(), t.scatter_reduce(0, jt, vt, mode).numpy(), rtol=1e-4, atol=1e-6)
    with pytest.raises(IndexError, match=r"index 9 .*is out of range"):
        Tensor([1.0, 2.0]).scatter(0, Tensor([9]), 1.0).realize()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float16", "float64"])
@pytest.mark.parametrize("shape", [(), (4,), (0,), (2, 0, 3)], ids=str)
def test_other_dtypes_scalars_and_empty_axes(dtype: str, shape: Any) -> None:
    a = draw(shape, 0, 3, 1, dtype)
    i = draw(shape, 0, 0, 1, "int64")
    x, t, j, k = Tensor(a), torch.tensor(a), Tensor(i), torch.tensor(i)
    for mode in () if dtype == "bool" else ("sum", "prod", "mean", "amax", "amin"):
        got, want = x.scatter_reduce(0, j, x, mode), t.scatter_reduce(0, k, t, mode).numpy()
        assert got.dtype.name == dtype
        np.testing.assert_allclose(value(got), want, rtol=2e-3)
    np.testing.assert_array_equal(value(x.scatter(0, j, 1)), t.scatter(0, k, 1).numpy())
    assert x.scatter(0, j, x).dtype.name == dtype


@pytest.mark.parametrize("mode", ["prod", "amax", "amin"])
@FEW
@given(d=st.sampled_from([0, 1]), own=st.booleans(), seed=st.integers(0, 99))
def test_gradients_of_scatter_reduce_at_ties_and_zeros(mode: str, d: int, own: bool, seed: int) -> None:
    """Few different numbers: equal largest ones share the gradient; beside one zero factor only that one has any."""
    x, v = np.round(draw((4, 5), -2, 2, seed)), np.round(draw((3, 4), -2, 2, seed + 1))
    i = draw((3, 4), 0, 2, seed + 2, "int64")
    if not own and mode != "prod":  # PyTorch counts what is left out among the ties
        x += 10 if mode == "amin" else -10

    def f(x: Any, i: Any, v: Any) -> Any:
        return x.scatter_reduce(d, i, v, mode, include_self=own)

    if own or mode != "prod":
        compare(Case(mode, f, f), x, i, v)
    else:  # PyTorch gives 0 / 0 for a place that held 0 and is left out
        compare(Case(mode, f, f), np.where(x == 0, np.float32(1), x), i, v)


def test_an_assigned_zero_keeps_its_sign_and_nothing_else_changes() -> None:
    x = np.array([-0.0, np.inf, np.nan, 1.0, -0.0], np.float32)
    y = Tensor(x).scatter(0, Tensor([3, 3, 1]), Tensor([5.0, -0.0, np.nan]))
    assert value(y).tobytes() == np.array([-0.0, np.nan, np.nan, -0.0, -0.0], np.float32).tobytes()
    b = Tensor(np.array([True, False, True])).scatter(0, Tensor([0, 0, 1]), Tensor(np.array([False, True, True])))
    np.testing.assert_array_equal(value(b), [True, True, True])


@pytest.mark.parametrize("what", ["setitem", "amax", "prod"])
def test_writing_m_pairs_is_linear_in_m(what: str) -> None:
    def f(x: Any, i: Any, v: Any) -> Any:
        if what != "setitem":
            return x.scatter_reduce(0, i, v, what)
        x = x + 0
        x[i] = v
        return x

    def flops(m: int) -> int:
        x, i, v = Tensor(np.zeros(50, np.float32)), Tensor(np.arange(m, dtype=np.int32) % 50), Tensor(np.ones(m, np.float32))
        return int(jit(f).lower(x, i, v).certificate.flops)

    counts = [flops(m) for m in (100, 200, 300)]
    assert counts[2] - counts[1] == counts[1] - counts[0] <= 16 * 100


def test_rows_are_filled_and_scattered_to_by_one_thread_each() -> None:
    x, v = draw((40, 3200), -1, 1, 1), draw((40, 3200), -1, 1, 2)
    i = np.random.default_rng(3).integers(0, 3200, x.shape).astype(np.int32)
    low = lower(Graph([Tensor(x).scatter_add(1, Tensor(i), Tensor(v)).node]), machine=FIXTURE)
    (kernel,) = low.scheduled
    (rows,) = kernel.body
    assert isinstance(rows, Loop) and rows.kind == "parallel" and rows.trips == 40
    filled, scattered = rows.body
    assert isinstance(filled, Loop) and filled.step == 16
    assert isinstance(scattered, Loop) and any(isinstance(s, Accumulate) for s in scattered.body)
    said = [d.verdict for d in low.decisions if d.kind == "merge" and d.subject[0] == kernel.name]
    assert said == ["merged", "kept apart"], "rows; not their elements"
    want = x.astype(np.float64)
    np.add.at(want, (np.arange(40)[:, None], i), v)
    np.testing.assert_allclose(low.run()[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("opencl_unoptimised")
@pytest.mark.parametrize("backend", ["reference", "llvm", "opencl"])
def test_each_core_scatters_to_a_table_of_its_own(backend: str) -> None:
    base, v = draw((100,), -1, 1, 1), draw((20_001,), -1, 1, 2)
    base[99] = -0.0
    i = np.random.default_rng(3).integers(0, 99, v.shape).astype(np.int32)

    def lowered(n: int) -> Any:
        return lower(
            Graph([Tensor(base).scatter_add(0, Tensor(i[:n]), Tensor(v[:n])).node]), machine=FIXTURE, backend=backend
        )

    low, few = lowered(20_001), lowered(200)
    assert (len(low.kernels), len(few.kernels)) == (2, 1)
    (said,) = [d for d in low.decisions if d.kind == "split-scatter"]
    assert said.verdict == "split in 2" and said.numbers["seconds_added"] < said.numbers["seconds_saved"]
    tables, whole = low.certificate.kernels
    assert tables.bytes_written == 2 * base.nbytes and whole.bytes_written == base.nbytes
    (said,) = [d for d in few.decisions if d.kind == "split-scatter"]
    assert said.verdict == "one scatter"
    want = base.astype(np.float64)
    np.add.at(want, i, v)
    got = low.run()[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.signbit(got[99])


@pytest.mark.usefixtures("opencl_unoptimised")
@pytest.mark.parametrize("backend", ["reference", "llvm", "opencl"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool"])
def test_what_is_written_where_data_says_is_one_kernel_that_stores_in_order(backend: str, dtype: str) -> None:
    x = Tensor(draw((50, 3), -2, 2, 1)).cast(dtype).realize()
    v = Tensor(np.concatenate([[[np.nan, -0.0, np.inf]], draw((399, 3), -2, 2, 2)]).astype(np.float32)).cast(dtype).realize()
    i = np.random.default_rng(3).integers(0, 49, (400, 1)).astype(np.int32)
    low = lower(Graph([x.scatter(0, Tensor(i).expand(400, 3), v).node]), machine=FIXTURE, backend=backend)
    (kernel,) = low.scheduled
    assert not any(isinstance(s, Accumulate) for s in walk(kernel.body))
    into = [s for s in walk(kernel.body) if isinstance(s, Store)]
    assert len({s.buf for s in into}) == 1, "a copy, and the values over it: no table of who came last"
    want = x.cast("float64").numpy().copy()
    for k, at in enumerate(i[:, 0]):
        want[at] = v.cast("float64").numpy()[k]
    got = low.run()[0]
    got = narrow.decode(got, narrow.BF16) if got.dtype == np.uint16 else got  # the bits
    np.testing.assert_array_equal(got.astype(np.float64), want)


def test_the_gradient_of_rows_that_are_written_whole_has_one_number_for_each_row() -> None:
    x, v = Tensor(draw((50, 64), -1, 1, 1), requires_grad=True), Tensor(draw((40, 64), -1, 1, 2), requires_grad=True)
    i = np.random.default_rng(3).integers(0, 30, 40).astype(np.int32)
    g = Tensor(draw((50, 64), -1, 1, 3))
    (x.index_copy(0, Tensor(i), v) * g).sum().backward()
    nodes = Graph([x.grad.node, v.grad.node]).nodes
    assert {n.shape for n in nodes if n.op == "scatter"} == {(50, 1)}
    last = {at: k for k, at in enumerate(i)}
    want_x, want_v = g.numpy().copy(), np.zeros((40, 64))
    for at, k in last.items():
        want_x[at], want_v[k] = 0, g.numpy()[at]
    np.testing.assert_array_equal(value(x.grad), want_x)
    np.testing.assert_array_equal(value(v.grad), want_v)
