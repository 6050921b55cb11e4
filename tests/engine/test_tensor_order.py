"""Order statistics and search, `tensor/order.py`: what PyTorch gives, with NaN, duplicates and every interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.alike import EVERY, Operand, agree, forms_of, on_backends, torch
from tinyengine import Tensor
from tinyengine.loopnest import Check, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower

O = Operand

FORMS = """
    x.kthvalue(2)
    x.kthvalue(1, 0, True)
    x.kthvalue(9)
    x.median()
    x.median(0)
    x.median(1, True)
    x.median(5)
    i.median()
    x[:0].nanmedian(1)
    x[0, 0].median()
    x.nanmedian()
    (x / x.relu()).nanmedian(1).values
    (x / x.relu()).median(1).values
    (x / x.relu()).median()
    x.quantile(0.3)
    x.quantile(0.25, 0)
    x.quantile(0.5, 1, True)
    x.quantile(0.7, keepdim=True)
    x.quantile(0.4, -1, interpolation='lower')
    x.quantile(0.4, -1, interpolation='higher')
    x.quantile(0.4, -1, interpolation='nearest')
    x.quantile(0.4, -1, interpolation='midpoint')
    x.quantile(y[0].sigmoid(), 1)
    (x / x.relu()).quantile(0.5)
    x.sort(1)[0].searchsorted(x).long() :: torch.searchsorted(x.sort(1)[0], x)
    y.flatten().sort()[0].searchsorted(x, right=True).long() :: torch.searchsorted(y.flatten().sort()[0], x, right=True)
    y[0].searchsorted(x, sorter=y[0].argsort()).long() :: torch.searchsorted(y[0], x, sorter=y[0].argsort())
    i.sort()[0].searchsorted(j, side='right').long() :: torch.searchsorted(i.sort()[0], j, side='right')
    x.bucketize(y[0].sort()[0]).long() :: torch.bucketize(x, y[0].sort()[0])
    x.bucketize(x[0].sort()[0], right=True).long() :: torch.bucketize(x, x[0].sort()[0], right=True)
"""
OPERANDS: list[Any] = [
    {"x": O((4, 4), k), "y": O((3, 4)), "i": O((3,), dtype="int64", low=0, high=3), "j": O((4, 4), dtype="int64", low=0, high=3)}
    for k in ("plain", "transposed", "strided")
]  # fmt: skip


@pytest.mark.parametrize("form", forms_of(FORMS))
def test_order(form: str) -> None:
    agree(form, OPERANDS)


def test_on_all_backends() -> None:
    some = (
        "x.kthvalue(2)", "x.median()", "x.nanmedian(1)", "x.quantile(0.3, 0)",
        "x.bucketize(y[0].sort()[0]).long() :: torch.bucketize(x, y[0].sort()[0])",
    )  # fmt: skip
    on_backends("\n".join(some), OPERANDS[1], EVERY[2:])


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64", "uint8"])
def test_the_middle_of_long_rows(dtype: str) -> None:
    a = (np.random.default_rng(1).standard_normal((6, 101)) * 20 + 60).astype(dtype)
    if a.dtype.kind == "f":
        a[1, 7] = a[2, :] = np.nan
        a[3, ::2], a[4, 1::2] = -0.0, np.inf
        a[5, 9] = -np.inf
    t = torch.tensor(a)
    for name in ("median", "nanmedian"):
        for d in (0, 1):
            (values, at), want = getattr(Tensor(a), name)(d), getattr(t, name)(d).values.numpy()
            np.testing.assert_array_equal(values.numpy(), want)
            np.testing.assert_array_equal(np.take_along_axis(a, np.expand_dims(at.numpy(), d), d).squeeze(d), want)
        np.testing.assert_array_equal(getattr(Tensor(a), name)().numpy(), getattr(t, name)().numpy())


@pytest.mark.parametrize("backend", ["reference", "llvm"])
def test_the_kth_smallest_of_many_is_counted_and_not_sorted(backend: str) -> None:
    a = np.round(np.random.default_rng(1).standard_normal((3, 500)), 1).astype(np.float32)  # many are equal
    for k in (1, 250, 500):
        low = lower(Graph([Tensor(a).kthvalue(k, 1)[0].node]), machine=FIXTURE, backend=backend)
        assert low.certificate.bytes_written < a.nbytes, "no row is stored in another order"
        np.testing.assert_array_equal(low.run()[0], np.sort(a, 1)[:, k - 1])


@pytest.mark.parametrize("n", [1, 2, 7, 8, 1000])
def test_places_in_a_sorted_vector_are_found_in_one_kernel_without_a_check(n: int) -> None:
    rng = np.random.default_rng(n)
    x, v = (np.round(rng.standard_normal(m), 1).astype(np.float32) for m in (n, 300))
    x.sort()
    x[n - n // 4 :], v[::50] = np.nan, np.nan
    v[1], v[2] = np.inf, -np.inf
    for side in ("left", "right"):
        low = lower(Graph([Tensor(x).searchsorted(Tensor(v), side=side).node]), machine=FIXTURE)
        (kernel,) = low.scheduled
        assert not any(isinstance(s, Check) for s in walk(kernel.body))
        np.testing.assert_array_equal(low.run()[0], np.searchsorted(x, v, side))  # type: ignore[call-overload]


def test_what_does_not_fit_is_said() -> None:
    x = Tensor([1.0, 2.0])
    for call in (
        lambda: x.searchsorted(Tensor([1])), lambda: x.searchsorted(1.0, side="up"), lambda: x.bucketize([[1.0]]),
        lambda: Tensor([1]).quantile(0.5), lambda: x.searchsorted(1.0, right=True, side="left"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(IndexError):
        Tensor([]).median()
    for wrong in (lambda: x.quantile(2.0), lambda: x.quantile(0.5, interpolation="cubic")):
        with pytest.raises(ValueError):
            wrong()
    assert x.searchsorted(1.5).item() == 1 and Tensor([]).searchsorted(x).tolist() == [0, 0]
