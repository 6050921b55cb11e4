"""Names beside the families, `tensor/vocabulary.py`: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.alike import EVERY, Operand, agree, forms_of, on_backends, torch
from tinyengine import Tensor
from tinyengine.tensor.vocabulary import IN_PLACE

O = Operand

FORMS = """
    x.index_add(0, i, y)
    x.index_add(0, i, y, alpha=2)
    x.index_add(1, i, y)
    x.index_add(0, i, y[:1])
    x.index_copy(0, i[:1], y[:1])
    x.index_copy(0, i, y.double())
    x.index_fill(0, i, 7.0)
    x.index_fill(1, i[:1], -1.0)
    x.take_along_dim(j, 0)
    x.take_along_dim(j[:1], 1)
    x.contiguous().take_along_dim(i)
    i.bincount().long()
    i.bincount(minlength=9).long()
    i.bincount(y[:, 0])
    (i - 5).bincount()
    x.histc(5, -1.0, 1.5)
    x.histc(4)
    x.norm()
    x.norm(dim=0)
    x.norm(1, 1, True)
    x.norm(float('inf'), 0) :: x.norm(torch.inf, 0)
    x.norm(-float('inf'), 0)
    x.detach().norm(0, 1)
    x.norm(3, 1)
    (x * 0).norm()
    i.norm()
    x.count_nonzero()
    x.count_nonzero(0)
    (x / x.relu()).nansum(1)
    (x / x.relu()).nanmean()
    i.nanmean()
    x.trace()
    y[0].trace()
    x.detach().sign().unique()
    x.detach().sign().unique(return_inverse=True, return_counts=True)
    (x / x.relu()).nan_to_num(1.0)
    (x / x.relu()).nan_to_num(posinf=3.0, neginf=-2.0)
    i.nan_to_num()
    x.clamp_min(0.5)
    x.clamp_max(0.5)
    x.addcmul(x, x, value=3)
    x.addcdiv(x, x + 5, value=0.5)
    x.movedim(0, 1)
    x.movedim((0, 1), (1, 0))
    x.movedim((0, 0), (1, 0))
    x.narrow(0, 1, 2)
    x.narrow(1, -2, 2)
    x.narrow(0, 1, 9)
    x.select(0, 1)
    x.select(1, -1)
    x.select(0, 9)
    x.tile(2)
    x.tile(2, 3)
    x.tile((2, 1, 2))
    x.diff()
    x.diff(2, 0)
    x.diff(9)
    x.mm(x.T)
    x.mm(x[0])
    x[None].bmm(x.T[None])
    x.bmm(x)
    x.mv(x[0])
    x.mv(x)
    x[0].outer(y[0])
    x.outer(y)
"""
OPERANDS: list[Any] = [
    {"x": O((4, 4), k), "y": O((3, 4)), "i": O((3,), dtype="int64", low=0, high=3), "j": O((4, 4), dtype="int64", low=0, high=3)}
    for k in ("plain", "transposed", "strided")
]  # fmt: skip


@pytest.mark.parametrize("form", forms_of(FORMS))
def test_vocabulary(form: str) -> None:
    agree(form, OPERANDS)


def test_on_all_backends() -> None:
    some = (
        "x.index_add(0, i, y)", "x.index_copy(0, i[:1], y[:1])", "x.norm(dim=0)", "x.diff()", "x.mm(x.T)",
        "x.histc(5, -1.0, 1.5)",
    )  # fmt: skip
    on_backends("\n".join(some), OPERANDS[1], EVERY[2:])


@pytest.mark.parametrize("call", [
    lambda x, i: x.index_add(0, i + 50, x[:2]).realize(), lambda x, i: x.index_copy(0, i - 9, x[:2]).realize(),
])  # fmt: skip
def test_a_position_out_of_range_is_an_index_error(call: Any) -> None:
    with pytest.raises(IndexError, match="out of range"):
        call(Tensor(np.ones((4, 3), np.float32)), Tensor(np.array([1, 0])))


def test_floats_are_not_counted_and_ints_have_no_histogram() -> None:
    for call in (Tensor([1.0]).bincount, Tensor([[1]]).bincount, Tensor([-1]).bincount, Tensor([1]).histc):
        with pytest.raises(RuntimeError):
            call()


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_the_memory_of_views_is_changed_too(name: str) -> None:
    a, at = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([2, 0])

    def after(t: Any, tensor: Any) -> Any:
        x, i, y = tensor(a.copy()), tensor(at), tensor(np.full((2, 4), 5.0, np.float32))
        wide = tensor(np.array([[2, 0, 1, 0]]))
        given: dict[str, tuple[Any, ...]] = {
            "clamp": (2.0, 7.0), "masked_fill": (x > 6, 0.5), "index_add": (0, i, y), "index_copy": (0, i, y),
            "index_fill": (0, i, 9.0), "scatter": (0, wide, y), "scatter_add": (0, wide, y),
        }  # fmt: skip
        row = x[0]
        assert getattr(x, f"{name}_")(*given.get(name, (2.0,))) is x
        return x, row

    for ours, theirs in zip(after(Tensor, Tensor), after(torch, torch.tensor), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
