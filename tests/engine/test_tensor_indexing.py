"""Indexing, gather, scatter and one_hot against PyTorch and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.peer import Case, F, compare, draw, torch, value
from tinyengine import Tensor, dtypes, jit

BASIC = [
    0,
    -1,
    (slice(None), 1),
    (..., 2),
    (slice(1, 3), slice(None, None, 2)),
    (None, 1, None),
    (slice(None), None, ...),
    (slice(0, 0),),
    (slice(-2, None), -1, slice(0, 99)),
    (1, 2, 3),
    (slice(3, 1),),
]


@pytest.mark.parametrize("index", BASIC, ids=str)
def test_basic_indexing(index: Any) -> None:
    compare(Case(str(index), lambda x: x[index], lambda x: x[index]), draw((4, 3, 5), -1, 1, 1))


slices = st.builds(
    slice, st.none() | st.integers(-6, 6), st.none() | st.integers(-6, 6), st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3])
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(index=st.tuples(slices, slices))
def test_slices_of_any_step_are_those_of_numpy(index: Any) -> None:
    a = draw((5, 4), -1, 1, 2)
    x = Tensor(a, requires_grad=True)
    np.testing.assert_array_equal(value(x[index]), a[index])
    (g,) = x[index].square().sum().gradient(x)
    expected = np.zeros_like(a)
    expected[index] = 2 * a[index]
    np.testing.assert_allclose(value(g), expected, rtol=1e-6)


I = np.array([2, 0, -1])
J = np.array([[0], [1]])
ADVANCED = [
    (I,),
    (slice(None), I),
    (I, I),
    (J, I),
    (I, slice(None), I),
    (slice(None), I, I),
    (None, I),
    (1, I),
    (..., I),
    (slice(None, None, -1), I),
    ([0, 1, 1],),
    (np.array([True, False, True, True]),),
]


@pytest.mark.parametrize("number", range(len(ADVANCED)))
def test_index_arrays_follow_numpy(number: int) -> None:
    a = draw((4, 3, 5), -1, 1, 3)
    index = ADVANCED[number]
    if any(isinstance(i, slice) and (i.step or 1) < 0 for i in index):
        np.testing.assert_array_equal(value(Tensor(a)[index]), a[index])
        return
    theirs = tuple(torch.tensor(i) if isinstance(i, (np.ndarray, list)) else i for i in index)
    compare(Case("advanced", lambda x: x[index], lambda x: x[theirs]), a)
    if index[0] is not None and not any(isinstance(i, int) for i in index):  # the same with tensors of positions
        tensors = tuple(Tensor(i) if isinstance(i, np.ndarray) else i for i in index)
        compare(Case("by tensors", lambda x: x[tensors], lambda x: x[theirs]), a)


def test_bool_masks() -> None:
    a = draw((4, 3), -1, 1, 3)
    np.testing.assert_array_equal(value(Tensor(a)[Tensor(a > 0)]), a[a > 0])
    np.testing.assert_array_equal(value(Tensor(a)[a[:, 0] > 0]), a[a[:, 0] > 0])
    np.testing.assert_array_equal(value(Tensor(a).masked_select(Tensor(a > 0))), a[a > 0])
    with pytest.raises(IndexError, match="mask of shape"):
        Tensor(a)[np.array([True, False])]


@pytest.mark.parametrize("dim", [0, 1])
def test_gather_and_scatter_add(dim: int) -> None:
    table, index = draw((4, 5), -1, 1, 1), draw((3, 2), 0, 3, 2, "int64")
    compare(Case("gather", lambda t, i: t.gather(dim, i), lambda t, i: torch.gather(t, dim, i)), table, index)
    values = draw((3, 2), -1, 1, 4)
    compare(
        Case("scatter", lambda t, i, v: t.scatter_add(dim, i, v), lambda t, i, v: t.scatter_add(dim, i, v)), table, index, values
    )


def test_gather_of_one_element_per_row_has_an_elementwise_gradient() -> None:
    table, index = draw((4, 5), -1, 1, 1), draw((4, 1), 0, 4, 2, "int64")
    compare(Case("gather", lambda t, i: t.gather(1, i), lambda t, i: torch.gather(t, 1, i)), table, index)
    x = Tensor(table, requires_grad=True)
    (g,) = x.gather(1, Tensor(index)).sum().gradient(x)
    from tinyengine.node import toposort

    assert "scatter_add" not in {n.op for n in toposort([g.node])}


def test_one_hot() -> None:
    labels = np.array([0, 2, 1, 2])
    np.testing.assert_array_equal(value(Tensor(labels).one_hot(4)), F.one_hot(torch.tensor(labels), 4).numpy())
    assert Tensor(labels).one_hot(4).dtype is dtypes.int32


SET = [
    (1, 5.0),
    ((slice(None), 0), 2.0),
    ((slice(None, None, -2),), 3.0),
    ((..., slice(1, 3)), np.array([7.0, 8.0], np.float32)),
    ((slice(2, 2),), 1.0),
]


@pytest.mark.parametrize("number", range(len(SET)))
def test_assignment_to_slices(number: int) -> None:
    index, new = SET[number]
    a = draw((4, 3), -1, 1, 1)
    x = Tensor(a)
    x[index] = new
    expected = a.copy()
    expected[index] = new
    np.testing.assert_array_equal(value(x), expected)


@pytest.mark.parametrize(
    "index, error",
    [
        (4, IndexError),
        (-5, IndexError),
        ((0, 3), IndexError),
        ((0, 0, 0), IndexError),
        (1.5, IndexError),
        (slice(None, None, 0), ValueError),
        ([0, 4], IndexError),
        (np.array([0.5]), IndexError),
        ("x", TypeError),
    ],
    ids=str,
)
def test_wrong_indices_are_refused_with_the_line(index: Any, error: type[Exception]) -> None:
    x = Tensor(draw((4, 3), -1, 1, 1))
    with pytest.raises(error, match=r"test_tensor_indexing.py, line \d+: x\[index\]"):
        x[index]


def test_an_index_in_a_tensor_is_checked_when_it_runs() -> None:
    x = Tensor(draw((4, 3), -1, 1, 1)).take(Tensor([0, 7]), 0)
    with pytest.raises(IndexError, match="index 7 is out of range for axis 0 of extent 4"):
        value(x)


def test_columns_are_picked_without_turning_the_table() -> None:
    a, at = np.arange(60, dtype=np.float32).reshape(3, 5, 4), np.array([4, 0, 3, -1])
    low = jit(lambda x, i: x[:, i]).lower(Tensor(a), Tensor(at))
    (cost,) = low.certificate.kernels
    assert cost.bytes_written == a[:, at].nbytes
    np.testing.assert_array_equal(low.run()[0], a[:, at])
