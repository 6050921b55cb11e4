"""Scans: one pass over memory along any axis, forward and for the gradient, fused with what stands around them; values,
reasons and counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor
from tinyengine.loopnest import Accumulate, Loop, Store, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower

RNG = np.random.default_rng(0)
WIDE, TALL = RNG.standard_normal((37, 131)).astype(np.float32), RNG.standard_normal((70, 33)).astype(np.float32)


def lowered(*tensors: Any, backend: str = "llvm") -> Lowered:
    return lower(Graph([t.node for t in tensors]), machine=FIXTURE, backend=backend)


def grad_of(f: Any, a: Any, w: Any) -> Any:
    x = Tensor(a, requires_grad=True)
    (f(x) * Tensor(w)).sum().backward()
    return x.grad


NUMPY: dict[str, Any] = {
    "cumsum": np.cumsum, "cumprod": np.cumprod, "cummax": lambda a, d: np.maximum.accumulate(a, d),
    "cummin": lambda a, d: np.minimum.accumulate(a, d),
}  # fmt: skip


@pytest.mark.usefixtures("opencl_unoptimised")
@pytest.mark.parametrize("backend", ["reference", "llvm", "opencl"])
@pytest.mark.parametrize("name", NUMPY)
def test_special_values_come_to_where_they_belong(name: str, backend: str) -> None:
    a = RNG.uniform(0.9, 1.1, (3, 41)).astype(np.float32)
    a[0, 17], a[1, 5], a[1, 30], a[2, 20], a[2, 3] = np.nan, np.inf, -np.inf, 0.0, -0.0
    ys = [y if isinstance(y := getattr(Tensor(x), name)(d), Tensor) else y.values for x, d in ((a, 1), (a.T.copy(), 0))]
    with np.errstate(invalid="ignore"):
        want = NUMPY[name](a, 1)
    for got, w in zip(lowered(*ys, backend=backend).run(), (want, want.T), strict=True):
        np.testing.assert_allclose(got, w, rtol=1e-5)


@pytest.mark.parametrize("d", [0, 1])
@pytest.mark.parametrize("a", [WIDE, TALL], ids=["wide", "tall"])
def test_a_scan_reads_and_writes_memory_once(a: Any, d: int) -> None:
    x = Tensor(a)
    for y in (x.cumsum(d), x.cumprod(d), grad_of(lambda x: x.cumsum(d), a, a)):
        low = lowered(y)
        (cost,) = low.certificate.kernels
        assert (cost.bytes_read, cost.bytes_written, cost.exact) == (a.nbytes, a.nbytes, True)
        assert cost.flops == a.size
    both = lowered(*x.cummax(d))
    (cost,) = both.certificate.kernels  # the positions are found as the values come
    assert (cost.bytes_read, cost.bytes_written) == (a.nbytes, 2 * a.nbytes)


def test_rows_along_memory_are_scanned_in_vectors_and_others_side_by_side() -> None:
    along, across = (lowered(Tensor(WIDE).cumsum(d)).scheduled[0] for d in (1, 0))
    assert along.schedule[-1] == "scan(j, 16)" and across.schedule[-1] == "vectorize(j, 32)"
    for kernel in (along, across):
        inner = next(s for s in walk(kernel.body) if isinstance(s, Loop) and not any(isinstance(b, Loop) for b in s.body))
        assert sum(isinstance(s, Accumulate) for s in inner.body) == sum(isinstance(s, Store) for s in inner.body) == 1


def test_what_stands_around_a_scan_is_computed_in_its_loop() -> None:
    x = Tensor(WIDE)
    low = lowered((x * x).cumsum(1) * 2 + x)
    assert [c.bytes_written for c in low.certificate.kernels] == [WIDE.nbytes]
    (d,) = [d for d in low.fusion.decisions if d.kind == "edge" and low.simplified.nodes[d.subject[0]].is_scan]
    assert d.verdict == "inline" and d.numbers["bytes_saved"] == 2 * WIDE.nbytes
    np.testing.assert_allclose(low.run()[0], np.cumsum(WIDE * WIDE, 1) * 2 + WIDE, rtol=1e-4)


@pytest.mark.parametrize(
    ("f", "kernels", "says"),
    [
        (lambda x: x.cumsum(1).cumsum(0), 2, "a kernel scans along one axis, in one direction"),
        (lambda x: x.cumsum(1).softmax(1), 2, "its elements are used in another order"),
        (lambda x: x.cumsum(0) @ Tensor(np.ones((131, 40), np.float32)), 2, "its elements are used in another order"),
        (lambda x: (x @ Tensor(np.ones((131, 131), np.float32))).cumsum(1), 2, "would get no register tile"),
        (lambda x: x.cumsum(1) + x.flip(1).cumsum(1).flip(1), 2, "one direction"),
    ],
)
def test_what_a_scan_is_kept_apart_from_and_why(f: Any, kernels: int, says: str) -> None:
    low = lowered(f(Tensor(WIDE)))
    assert len(low.scheduled) == kernels
    said = [r for d in low.fusion.decisions for r in (d.reason, *d.alternatives.values())]
    assert any(says in r for r in said), said


def test_few_long_rows_are_scanned_in_parts_that_the_cores_share() -> None:
    a = RNG.integers(-9, 9, 1 << 18).astype(np.float32)  # whole numbers: nothing is rounded
    low = lowered(Tensor(a).cumsum(0))
    assert [k.parallel is not None for k in low.scheduled] == [True, False, True]
    (d,) = [d for d in low.decisions if d.kind == "split-scan"]
    assert d.numbers["parts"] == 8 and "1 row would keep 50% of 2 cores busy" in d.reason
    moved = low.certificate
    assert (moved.bytes_read, moved.bytes_written) == (2 * a.nbytes + 2 * 32 - 4, a.nbytes + 2 * 32)
    np.testing.assert_array_equal(low.run()[0], np.cumsum(a))
    short = lowered(Tensor(a[:1000]).cumsum(0))
    assert len(short.scheduled) == 1
    (d,) = [d for d in short.decisions if d.kind == "split-scan"]
    assert d.verdict == "one scan" and "done before a second core has begun" in d.reason


def test_gradients_of_products_with_zeros_count_every_other_factor() -> None:
    a = np.array([[2, 3, 4, 5], [2, 0, 4, 5], [0, 3, 0, 5], [1, 2, 3, 0]], np.float32)
    w = RNG.standard_normal(a.shape).astype(np.float32)
    want = np.zeros_like(a)
    for i in range(4):
        for k in range(4):
            others = np.where(np.arange(4) == k, 1, a[i])
            want[i, k] = sum(w[i, j] * others[: j + 1].prod() for j in range(k, 4))
    np.testing.assert_allclose(grad_of(lambda x: x.cumprod(1), a, w).numpy(), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad_of(lambda x: x.cumprod(0), a.T.copy(), w.T.copy()).numpy(), want.T, rtol=1e-5, atol=1e-6)


def test_rows_that_are_walked_from_the_end_are_read_in_long_pieces_too() -> None:
    a = np.ones((256, 1024), np.float32)
    (kernel,) = lowered(grad_of(lambda x: x.cumsum(0), a, a)).scheduled
    assert kernel.schedule[-1] == "vectorize(j, 128)"
