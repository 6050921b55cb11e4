"""Indexing, gather, scatter and item assignment: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.alike import EVERY, LAYOUTS, Operand, agree, forms_of, on_backends, outcomes
from tinyengine import Tensor

O = Operand


def positions(shape: tuple[int, ...], high: int) -> Operand:
    return O(shape, dtype="int64", low=0, high=high)


READING = """
    x[0]
    x[-1]
    x[7]
    x[1:]
    x[:2]
    x[::2]
    x[1:3, ::2]
    x[..., 0]
    x[None]
    x[:, None]
    x[..., None]
    x[0, 1]
    x[:, 1]
    x[0:0]
    x[5:2]
    x[-2:]
    x[:-1, 1:]
    x[[0, 1]]
    x[[0, -1, 1]]
    x[[0, 9]]
    x[[]]
    x[:, [0, 2]]
    x[[0, 1], [1, 2]]
    x[[0], :, None]
    x[0, [1, 2]]
    x[[1, 0], 1:]
    x[i]
    x[i, 0]
    x[:, i]
    x[i, i]
    x[i[:, None], i]
    x[i - 3]
    x[i + 50]
    x[i.float()]
    x[x > 0]
    x[m]
    x[m[:, 0]]
    x[m[:, 0], 1]
    x[m[:, 0], i[:1]]
    x[~m]
    x[m & False]
    x[m[0]]
    x[True]
    x[False]
    x[0, 0, 0, 0]
    x['a']
    x[1.5]
    x[None, ..., None]
    x[:, :, None]
    x[slice(None), slice(0, 2)]
    x[i.int()]
    x[i, ..., 0]
    x[..., i]
    x[None, i]
    x[True, 0]
    x[:, False]
    x[..., True]
    x[i, True]
    x[0, True, i]
    x[m.any(), i]
    x[..., ...]
    x[..., 1:, ...]
    x[i.max(), 1:, [0, 1]]
    x[[0, 1], i.max()]
    x[i.max(), None, i]
    x[:0, i[:1]]
    x[:0][i]
    x[:0][..., [0]]
    x.gather(0, j)
    x.gather(1, j)
    x.gather(-1, j[:2])
    x.gather(5, j)
    x.masked_select(m)
    x.masked_select(m[0])
    x.masked_select(m[:, :1])
    x.masked_select(i)
    x.masked_fill(m, 3.0)
    x.masked_fill(m[:1], -1)
    x.masked_fill(m, 'a')
    x.nonzero()
    (x > 0).nonzero()
    T.where(m, x, 0) :: torch.where(m, x, 0)
    x.scatter(1, j, 7.0)
    x.scatter(0, j[:1], x * 2)
    x.scatter(0, i, x)
    x.scatter(5, j, x)
    x.scatter(0, j, x.double())
    x.scatter(1, j, 2.0, reduce='multiply')
    x.scatter(1, j, 2.0, reduce='foo')
    x.scatter_add(0, j, x)
    x.scatter_add(1, j, x * 3)
    x.scatter_reduce(0, j, x * 2, 'sum')
    x.scatter_reduce(1, j, x * 2, 'prod')
    x.scatter_reduce(0, j, x * 2, 'mean')
    x.scatter_reduce(1, j, x * 2, 'amax')
    x.scatter_reduce(0, j, x * 2, 'amin')
    x.scatter_reduce(0, j, x * 2, 'sum', include_self=False)
    x.scatter_reduce(1, j, x * 2, 'prod', include_self=False)
    x.scatter_reduce(0, j, x * 2, 'mean', include_self=False)
    x.scatter_reduce(1, j, x * 2, 'amax', include_self=False)
    x.scatter_reduce(0, j, x * 2, 'amin', include_self=False)
    x.scatter_reduce(0, j, x * 2, 'foo')
    x.scatter_reduce(0, j, x * 2, None)
    x.gather(0, 'a')
    (i - 3).one_hot() :: F.one_hot(i - 3)
    i.one_hot(5) :: F.one_hot(i, 5)
    i.one_hot() :: F.one_hot(i)
    x.tril()
    x.triu(1)
"""
MASK = O((3, 4), dtype="bool")
OPERANDS = [
    *[{"x": O((3, 4), k), "i": positions((3,), 2), "j": positions((3, 4), 2), "m": MASK} for k in LAYOUTS],
    {"x": O((4, 3, 5)), "i": positions((2,), 2), "j": positions((4, 3, 5), 2), "m": O((4, 3), dtype="bool")},
    {"x": O((4,)), "i": positions((3,), 3), "j": positions((4,), 3), "m": O((4,), dtype="bool")},
    {"x": O((0, 3)), "i": positions((0,), 0), "j": positions((0, 3), 0), "m": O((0, 3), dtype="bool")},
    {"x": O(()), "i": positions((), 0), "j": positions((), 0), "m": O((), dtype="bool")},
    {"x": O((3, 4), dtype="int64", low=-3, high=3), "i": positions((2, 3), 2), "j": positions((3, 4), 2), "m": MASK},
    {"x": O((3, 4), dtype="float64"), "i": positions((), 2), "j": positions((2, 3), 2), "m": MASK},
]


@pytest.mark.parametrize("form", forms_of(READING))
def test_reading(form: str) -> None:
    agree(form, OPERANDS)


def test_reading_on_all_backends() -> None:
    operands = OPERANDS[1]
    some = "\n".join(f for f in forms_of(READING) if outcomes(f, operands)[1].error is None and " + 50" not in f)
    on_backends(some, operands)
    on_backends("x[i]\nx[:, i]\nx.gather(0, j)\nx.scatter_add(0, j, x)\nx[1:, ::2]", operands, EVERY[2:])


PLACES = (
    "0", "-1", "1:", "::2", "(slice(None), 1)", "(slice(None), slice(1, 3))", "...", "(Ellipsis, 0)", "[0, 1]",
    "(slice(None), [0, 2])", "([0, 1], [1, 2])", "i", "(i, 0)", "(slice(None), i)", "(i, i)", "m", "(m[:, 0], 1)",
    "(slice(None), m[0])", "x > 0", "None", "(0, None)", "9", "i + 50", "(0, 0, 0, 0)", "True", "i.float()", "m[0]",
    "slice(0, 0)", "(slice(None), i - 2)",
    "(0, True)", "(Ellipsis, False)", "(i, True)", "(True, slice(1, None))", "(i.max(), [0, 1])",
)  # fmt: skip
VALUES = ("5.0", "y", "y[0]", "y[:1]", "y.double()", "y * 2 > 0", "1", "y[:, 0]", "y[0, 0]", "None", "'a'")
ONE = O((1,), dtype="int64", low=1, high=1)  # of several values for one place PyTorch takes any


@pytest.mark.parametrize("place", PLACES)
def test_writing(place: str) -> None:
    forms = "\n".join(f"(lambda z: (z.__setitem__({place}, {v}), z)[1])(x * 1)" for v in VALUES)
    agree(forms, [{"x": O((3, 4), k), "y": O((3, 4)), "i": ONE, "m": MASK} for k in LAYOUTS[:2]])


def test_of_several_values_for_one_place_the_last_stays() -> None:
    x = Tensor(np.zeros(3, np.float32))
    x[Tensor([1, 1, 2])] = Tensor([5.0, 6.0, 7.0])
    assert x.tolist() == [0.0, 6.0, 7.0]


def test_floats_do_not_go_through_indices_into_ints() -> None:
    with pytest.raises(RuntimeError, match="y of float32 for x of int32"):
        Tensor([1, 2, 3])[[0, 1]] = Tensor([1.5, 2.5])
    with pytest.raises(RuntimeError, match="classes 0 to 5 of 3"):
        Tensor([0, 5]).one_hot(3)
