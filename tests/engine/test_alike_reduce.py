"""Reductions, scans and sorting: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.alike import EVERY, LAYOUTS, Operand, agree, forms_of, on_backends, outcomes

O = Operand

FORMS = """
    x.sum()
    x.sum(0)
    x.sum(1)
    x.sum(-1, keepdim=True)
    x.sum((0, 1))
    x.sum((0, -1), keepdim=True)
    x.sum(())
    x.sum(5)
    x.sum((0, 0))
    x.sum(dim=0)
    x.sum(axis=0)
    x.sum(0, dtype='float64') :: x.sum(0, dtype=torch.float64)
    x.prod()
    x.prod(0)
    x.prod(-1, keepdim=True)
    x.prod(7)
    x.mean()
    x.mean(0)
    x.mean(-1, keepdim=True)
    x.mean((0, 1))
    x.max()
    x.max(0)
    x.max(1)
    x.max(-1, keepdim=True)
    x.max(dim=0)
    x.max(7)
    x.max(0)[0]
    x.max(0).values
    x.max(0).indices
    x.min()
    x.min(0)
    x.min(1, True)
    x.amax(0)
    x.amax((0, 1))
    x.amax()
    x.amin(-1, keepdim=True)
    x.amin()
    x.argmax()
    x.argmax(0)
    x.argmax(-1, keepdim=True)
    x.argmax(dim=1)
    x.argmax(7)
    x.argmin()
    x.argmin(0)
    x.argmin(-1, True)
    x.argmax(keepdim=True)
    x.all()
    x.all(0)
    x.any()
    x.any(-1, keepdim=True)
    x.any((0, 1))
    x.all(7)
    x.var()
    x.var(0)
    x.var(1, keepdim=True)
    x.var(0, unbiased=False)
    x.var((0, 1))
    x.var(0, correction=0)
    x.var(correction=2)
    x.std()
    x.std(0)
    x.std(-1, keepdim=True)
    x.std(0, correction=0)
    x.std(unbiased=False)
    x.var_mean() :: torch.var_mean(x)
    x.std_mean((0,1), correction=0) :: torch.std_mean(x, (0,1), correction=0)
    x.logsumexp(0)
    x.logsumexp((0, 1))
    x.logsumexp(-1, keepdim=True)
    x.logsumexp(7)
    x.softmax(0)
    x.softmax(-1)
    x.softmax(dim=1)
    x.softmax(7)
    x.log_softmax(0)
    x.log_softmax(-1)
    x.softmin(0) :: F.softmin(x, 0)
    x.softmin(1) :: F.softmin(x, 1)
    x.cumsum(0)
    x.cumsum(-1)
    x.cumsum(1)
    x.cumsum(7)
    x.cumprod(0)
    x.cumprod(1)
    x.cummax(0)
    x.cummax(-1)
    x.cummin(0)
    x.cummin(1)
    x.logcumsumexp(0)
    x.logcumsumexp(-1)
    x.sort()
    x.sort(dim=0, stable=True)
    x.sort(1, descending=True, stable=True) :: torch.sort(x, dim=1, descending=True, stable=True)
    x.sort(7)
    x.argsort(dim=0, stable=True)
    x.argsort(dim=-1, descending=True, stable=True)
    x.topk(2)
    x.topk(2, 0)
    x.topk(1, -1, largest=False)
    x.topk(1, 7)
    x.topk(-1)
    x.topk(1.5)
    x.nonzero()
    x.masked_select(x > 0)
    x[x > 0]
    x.normalize() :: F.normalize(x)
    x.normalize(1.0, 0) :: F.normalize(x, 1.0, 0)
    x.normalize(3.0, -1) :: F.normalize(x, 3.0, -1)
"""
# (NaN and infinities: the gradient of what they touch means nothing; among equal elements PyTorch's topk takes any)
NO_ODD = ("prod", "amax", "amin", "var", "std", "cumprod", "normalize", "topk")
NO_TIES = ("topk",)
SHAPES: list[Any] = [(), (1,), (4,), (0,), (2, 0), (0, 3), (1, 4), (2, 3, 4), (2, 1, 3), (1, 1)]
OPERANDS = [O((3, 4), layout) for layout in LAYOUTS] + [O(s) for s in SHAPES]
OPERANDS += [O((3, 4), dtype=d, low=-3, high=3) for d in ("float64", "float16", "int8", "bool")]
ODD = [O((9,), odd=True), O((3, 9), odd=True, low=-1, high=1)]
TIES = [
    O((3, 4), dtype="int32", low=-3, high=3),
    O((4, 5), dtype="int64", low=0, high=2),
    O((4, 5), dtype="uint8", low=0, high=2),
]


def operands(form: str) -> list[dict[str, Operand]]:
    found = OPERANDS + ([] if any(s in form for s in NO_ODD) else ODD) + ([] if any(s in form for s in NO_TIES) else TIES)
    if any(s in form for s in ("topk", "sort", "cum")):  # of (0,) PyTorch does not look at the axis; of bools it refuses topk
        found = [o for o in found if o.shape != (0,) and not (o.dtype in ("bool", "int8") and "topk" in form)]
    if any(s in form for s in ("arg", "softm")):  # bools, and a wrong axis: PyTorch complains of the dtype first
        found = [o for o in found if o.dtype != "bool"]
    if "var" in form or "std" in form:  # the mean of equal numbers is rounded here, and summed exactly there
        found = [o for o in found if o.layout != "expanded"]
    return [{"x": o} for o in found]


@pytest.mark.parametrize("form", forms_of(FORMS))
def test_reductions(form: str) -> None:
    agree(form, operands(form))


def test_on_all_backends() -> None:
    operand = {"x": O((3, 4), "transposed")}
    on_backends("\n".join(f for f in forms_of(FORMS) if outcomes(f, operand)[1].error is None), operand)
    few = "x.sum(0)\nx.max(1)\nx.argmin(0)\nx.softmax(1)\nx.std(0)\nx.cumsum(1)\nx.sort(0)\nx.prod()"
    on_backends(few, operand, EVERY[2:])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 3), ()], ids=str)
def test_empty_shapes_and_scalars_are_compiled(shape: tuple[int, ...]) -> None:
    operand = {"x": O(shape)}
    pairs = [(f, *outcomes(f, operand)[:2]) for f in forms_of(FORMS)]
    on_backends("\n".join(f for f, mine, other in pairs if mine.error is None and other.error is None), operand, EVERY[:1])


def test_axis_is_the_other_name_of_dim() -> None:
    agree(
        "x.sum(axis=0)\nx.softmax(axis=1) :: x.softmax(1)\nx.max(axis=1) :: x.amax(1)\nx.min(axis=(0, 1)) :: x.amin((0, 1))",
        [{"x": O((3, 4))}],
    )
