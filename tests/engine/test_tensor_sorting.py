"""sort, argsort, topk, multinomial and scans against PyTorch: shapes with scalars and empty axes, ties, NaN, other strides."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.peer import Case, compare, draw, same, torch, value
from tinyengine import Tensor, dtypes, jit, manual_seed
from tinyengine.loopnest import Accumulate, Check, load_index, stmt_exprs, subexprs, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower

FEW = settings(max_examples=12, derandomize=True, deadline=None)
SHAPES = st.sampled_from([((), 0), ((1,), 0), ((7,), -1), ((0,), 0), ((2, 0), 1), ((2, 0), 0), ((3, 4), 0), ((2, 3, 5), 1)])


def alike(ours: Any, theirs: Any) -> None:
    """(values, positions), both."""
    same(ours[0], theirs[0], 0, 0, "values")
    same(ours[1], theirs[1], 0, 0, "positions")


@FEW
@given(where=SHAPES, down=st.booleans(), seed=st.integers(0, 9))
def test_sort_is_stable_as_in_pytorch(where: Any, down: bool, seed: int) -> None:
    shape, d = where
    for dtype in ("int32", "float32", "bool", "uint8"):
        a = draw(shape, 0, 3, seed, dtype)
        a = np.round(a) if dtype == "float32" else a
        alike(Tensor(a).sort(d, down), torch.sort(torch.tensor(a), dim=d, descending=down, stable=True))
        same(Tensor(a).argsort(d, down), torch.argsort(torch.tensor(a), dim=d, descending=down, stable=True), 0, 0, "argsort")


@pytest.mark.parametrize("down", [False, True])
def test_nan_is_largest_and_infinities_have_their_place(down: bool) -> None:
    a = np.array([2, math.nan, -math.inf, 0.0, -0.0, math.inf, math.nan, -1], np.float32)
    alike(Tensor(a).sort(0, down), torch.sort(torch.tensor(a), descending=down, stable=True))


SORTS = [
    Case("sort", lambda x: x.sort(1)[0], lambda x: x.sort(1).values),
    Case("sort down, transposed", lambda x: x.T.sort(-1, True)[0], lambda x: x.T.sort(-1, descending=True).values),
    Case("topk", lambda x: x.topk(2, 0)[0], lambda x: x.topk(2, 0).values),
    Case("smallest", lambda x: x.flip(1).topk(3, largest=False)[0], lambda x: x.flip(1).topk(3, largest=False).values),
    Case("topk of none", lambda x: x.topk(0)[0], lambda x: x.topk(0).values),
    Case("strided", lambda x: x[:, ::2].sort(0)[0], lambda x: x[:, ::2].sort(0).values),
]


@pytest.mark.parametrize("case", SORTS, ids=lambda c: c.name)
def test_sorted_values_and_their_gradients(case: Case) -> None:
    compare(case, draw((4, 5), -1, 1, 3))


def test_a_sort_moves_no_element_by_an_address_that_depends_on_data() -> None:
    low = lower(Graph([Tensor(draw((3, 150), -1, 1, 1)).argsort(1).node]), machine=FIXTURE)
    for k in low.scheduled:
        loads = [e for s in walk(k.body) for x in stmt_exprs(s) for e in subexprs(x) if e.op == "load"]
        assert not any(inner.op == "load" for e in loads for at in load_index(e) for inner in subexprs(at)), k.name
        assert not any(isinstance(s, (Check, Accumulate)) for s in walk(k.body))
    *exchanges, _ = low.certificate.kernels  # the last one takes the positions out
    assert {c.bytes_written for c in exchanges} == {3 * 256 * 8} and max(c.bytes_read for c in exchanges) == 3 * 256 * 8


def test_a_position_that_cannot_be_outside_is_not_checked() -> None:
    table, at = Tensor(draw((9,), -1, 1, 1)), Tensor(np.arange(9, dtype=np.int32) - 4)
    for index, checked in (
        (at.maximum(0).minimum(8), False), (at.maximum(-4).minimum(0) + 6, False), (at.clip(0, 9), True), (at, True),
        (at.maximum(0).minimum(8) * (1 << 30), True),  # it may wrap around
    ):  # fmt: skip
        (kernel,) = lower(Graph([table.gather(0, index).node]), machine=FIXTURE).scheduled
        assert any(isinstance(s, Check) for s in walk(kernel.body)) == checked


def test_topk_positions_and_errors() -> None:
    a = draw((3, 6), -1, 1, 1)
    same(Tensor(a).topk(4, 1)[1], torch.tensor(a).topk(4, 1).indices, 0, 0, "positions")
    for x in (Tensor(a), torch.tensor(a)):
        with pytest.raises(RuntimeError):
            x.topk(7, 1)
        with pytest.raises(IndexError):
            x.sort(2)


@FEW
@given(
    n=st.integers(33, 120), k=st.integers(1, 34), largest=st.booleans(), dim=st.sampled_from([0, 1]), seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "float64", "float16", "int32", "uint8", "uint32", "int64", "bool"]),
)  # fmt: skip
def test_the_few_largest_are_the_first_of_the_sorted(n: int, k: int, largest: bool, dim: int, seed: int, dtype: str) -> None:
    """Many equal elements and NaN: of equal ones the first, as a stable sort has them."""
    k = min(k, n)
    a = np.random.default_rng(seed).integers(0, 20, (n, 3) if dim == 0 else (3, n)).astype(dtype)
    if a.dtype.kind == "f":
        a[a == 7] = np.nan
    got = Tensor(a).topk(k, dim, largest)
    want = Tensor(a).argsort(dim, largest)
    np.testing.assert_array_equal(value(got.indices), value(want).take(range(k), dim))
    np.testing.assert_array_equal(value(got.values), np.take_along_axis(a, value(got.indices), dim))


def test_each_of_the_few_largest_takes_one_pass_in_one_kernel() -> None:
    def cost(k: int) -> tuple[int, int]:
        lowered = jit(lambda x: x.topk(k)[0]).lower(Tensor(draw((4, 500), -1, 1, 1)))
        return len(lowered.kernels), int(lowered.certificate.flops)

    costs = [cost(k) for k in (2, 3, 4)]
    assert [kernels for kernels, _ in costs] == [1, 1, 1]
    for (_, a), (_, b) in pairwise(costs):
        assert b - a <= 4 * 4 * 500


@pytest.mark.parametrize("n", [31, 32, 33, 64, 65, 200, 1000])
def test_sort_over_several_runs(n: int) -> None:
    """Runs of 32, 64, 128... are merged; the last one is filled up."""
    rng = np.random.default_rng(n)
    for dtype in ("float32", "float64", "int64", "uint32", "uint64", "float16", "int8"):
        a = rng.integers(0, 90, (2, n)).astype(dtype)
        a = a * 1e9 if dtype == "float64" else a
        got = Tensor(a).sort(1)
        at = np.argsort(a, 1, kind="stable")
        np.testing.assert_array_equal(value(got.indices), at)
        np.testing.assert_array_equal(value(got.values), np.take_along_axis(a, at, 1))
    wide = rng.integers(-(2**63), 2**63 - 1, (n,))
    np.testing.assert_array_equal(value(Tensor(wide).argsort()), np.argsort(wide, kind="stable"))
    np.testing.assert_array_equal(value(Tensor(wide.view(np.uint64)).argsort()), np.argsort(wide.view(np.uint64), kind="stable"))


def test_a_sort_is_one_kernel_for_each_exchange_and_one_for_the_positions() -> None:
    from tinyengine import hooks

    def kernels(n: int) -> int:
        seen: list[Any] = []
        with hooks.subscribed(seen.append, hooks.Launch):
            Tensor(draw((n,), -1, 1, 1)).argsort().realize()
        return len(seen[0].program.plan.calls)

    # of a block the places are stored: so few are not worth a row
    assert [kernels(n) for n in (32, 64, 128, 1000)] == [2, 6 * 7 / 2 + 1, 7 * 8 / 2 + 1, 10 * 11 / 2 + 1]


@pytest.mark.parametrize(("n", "k"), [(3000, 4), (3000, 70), (50_000, 40), (700, 340)])
def test_the_largest_are_looked_for_in_the_parts_with_the_largest_peaks(n: int, k: int) -> None:
    a = np.random.default_rng(n).integers(0, 400, (2, n)).astype(np.float32)  # many are equal
    low = jit(lambda x: x.topk(k)[1]).lower(Tensor(a))
    best = low.run()[0]
    np.testing.assert_array_equal(best, np.argsort(-a, 1, kind="stable")[:, :k])
    longest = max(len(s.shape) and max(s.shape) for s in low.graph.nodes if s.op == "contiguous")
    if n > 200 * k:
        assert longest * 8 <= n, "nothing as long as the row is sorted"


def test_a_long_sort_is_compiled_in_a_thread_too() -> None:
    """There Python allows no deep recursion: no stage may walk the whole chain of exchanges by it."""
    from concurrent.futures import ThreadPoolExecutor

    low = lower(Graph([Tensor(np.zeros(1 << 17, np.float32)).argsort().node]), machine=FIXTURE)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(lambda: low.fusion).result().groups) == 17 * 18 / 2 + 1


def test_the_work_of_a_sort_does_not_grow_with_the_square() -> None:
    from tinyengine.node import toposort

    def most(n: int) -> int:
        return max(m.size for m in toposort([Tensor(np.zeros(n, np.float32)).argsort().node]))

    assert most(4096) == 2 * most(2048) == 4096


SCANS = [
    Case(n, lambda x, d, n=n: getattr(x, n)(d), lambda x, d, n=n: getattr(torch, n)(x, d), 0.3, 1.6, rtol=5e-5)
    for n in ("cumsum", "cumprod", "logcumsumexp")
] + [
    Case(n, lambda x, d, n=n: getattr(x, n)(d).values, lambda x, d, n=n: getattr(torch, n)(x, d).values, -2, 2)
    for n in ("cummax", "cummin")
]


@pytest.mark.parametrize("case", SCANS, ids=lambda c: c.name)
@FEW
@given(where=SHAPES, seed=st.integers(0, 5))
def test_scans(case: Case, where: Any, seed: int) -> None:
    shape, d = where
    one = Case(case.name, lambda x: case.ours(x, d), lambda x: case.theirs(x, d), case.low, case.high, rtol=case.rtol)
    compare(one, draw(shape, case.low, case.high, seed))


@pytest.mark.parametrize("case", SCANS, ids=lambda c: c.name)
@pytest.mark.parametrize("n", [63, 64, 65, 97])
def test_scans_over_several_blocks(case: Case, n: int) -> None:
    near_one = (0.97, 1.03) if case.name == "cumprod" else (case.low, case.high)
    one = Case(case.name, lambda x: case.ours(x, 1), lambda x: case.theirs(x, 1), atol=2e-5, rtol=1e-4)
    compare(one, draw((2, n), *near_one, n))


def test_scans_of_ints_and_of_infinities() -> None:
    for dtype in ("int8", "bool", "int64", "uint8"):
        a = draw((2, 70), 0, 2, 1, dtype)
        expected = np.cumsum(a, 1)
        got = Tensor(a).cumsum(1)
        assert got.dtype is (dtypes.int64 if dtype == "int64" else dtypes.int32)
        np.testing.assert_array_equal(value(got), expected)
    a = draw((70,), -100, 100, 1, "int8")
    for ours, theirs in ((Tensor(a).cummax(0), np.maximum), (Tensor(a).cummin(0), np.minimum)):
        assert ours.values.dtype is dtypes.int8
        np.testing.assert_array_equal(value(ours.values), theirs.accumulate(a))
    odd = np.array([-math.inf, -math.inf, 1.0, math.inf, 2.0], np.float32)
    for n in ("logcumsumexp", "cumsum"):
        same(getattr(Tensor(odd), n)(0), getattr(torch, n)(torch.tensor(odd), 0), 1e-6, 1e-6, n)
    alike(Tensor(odd[2:]).cummin(0), torch.cummin(torch.tensor(odd[2:]), 0))


def test_the_work_of_a_scan_grows_with_the_extent_and_not_with_its_square() -> None:
    from tinyengine.node import toposort

    def most(n: int) -> int:
        return max(m.size for m in toposort([Tensor(np.zeros(n, np.float32)).cumsum(0).node]))

    assert most(4096) == 2 * most(2048) < 64 * 4096


def test_multinomial() -> None:
    manual_seed(1)
    p = np.array([[0.1, 0.0, 0.6, 0.3], [5.0, 5.0, 0.0, 0.0]], np.float32)
    drawn = value(Tensor(p).multinomial(4000, replacement=True))
    assert drawn.shape == (2, 4000) and drawn.dtype == np.int32
    for row, weights in zip(drawn, p, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=4) / 4000, weights / weights.sum(), atol=0.03)
    firsts = np.array([value(Tensor(p[0]).multinomial(3)) for _ in range(60)])
    assert all(sorted(f) == [0, 2, 3] for f in firsts.tolist()) and len(set(firsts[:, 0].tolist())) == 3
    for x in (Tensor(p), torch.tensor(p)):
        with pytest.raises(RuntimeError):
            x.multinomial(5)
    with pytest.raises(RuntimeError, match=r"needs a float vector or matrix, not int32\[2\]"):
        Tensor([1, 2]).multinomial(1)


def test_on_llvm() -> None:
    """All in one program."""
    a = draw((3, 70), 0.9, 1.1, 4)
    x, t = Tensor(a), torch.tensor(a)
    ours = [*x.sort(1), *x.sort(0, True), *x.topk(5), x.cumsum(1), x.cumprod(1), *x.cummax(1), *x.cummin(1), x.logcumsumexp(1)]
    theirs = [
        *t.sort(1), *t.sort(0, descending=True), *t.topk(5), t.cumsum(1), t.cumprod(1), *t.cummax(1), *t.cummin(1),
        t.logcumsumexp(1),
    ]  # fmt: skip
    ours[0].realize(*ours[1:])
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u.numpy(), v.numpy(), rtol=1e-5)
