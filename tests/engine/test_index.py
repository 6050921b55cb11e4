"""Index arithmetic: canonical forms equal plain integer arithmetic, intervals contain every value, movement ops address what
NumPy does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyengine import dtypes, index
from tinyengine.loopnest import Expr, var
from tinyengine.loopnest import index as number
from tinyengine.node import Node

I, J, K = var("i", 0, 3), var("j", 0, 63), var("k", 0, 4)


def value(e: Expr, env: dict[str, int]) -> int:
    """Plain integer arithmetic on an index expression."""
    if e.op == "const":
        return int(e.arg)
    if e.op == "var":
        return env[e.arg[0]]
    a = [value(x, env) for x in e.args]
    return {"add": lambda: a[0] + a[1], "mul": lambda: a[0] * a[1], "floordiv": lambda: a[0] // a[1], "mod": lambda: a[0] % a[1],
            "lt": lambda: int(a[0] < a[1]), "eq": lambda: int(a[0] == a[1])}[e.op]()  # fmt: skip


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "mul", "floordiv", "mod"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.sampled_from([2, 3, 4, 6, 8, 16]),
    ),
    max_size=7,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(steps, st.integers(0, 3), st.integers(0, 63), st.integers(0, 4))
def test_canonical_forms_keep_the_value(program: Any, i: int, j: int, k: int) -> None:
    env = {"i": i, "j": j, "k": k}
    pool: list[tuple[Expr, int]] = [(I, i), (J, j), (K, k), (number(-5), -5)]
    for op, a, b, c in program:
        (x, vx), (y, vy) = pool[a % len(pool)], pool[b % len(pool)]
        pool.append({
            "add": lambda: (index.add(x, y), vx + vy), "mul": lambda: (index.mul(x, c), vx * c),  # noqa: B023
            "floordiv": lambda: (index.floordiv(x, c), vx // c), "mod": lambda: (index.mod(x, c), vx % c),  # noqa: B023
        }[op]())  # fmt: skip
    for e, v in pool:
        assert value(e, env) == v, e
        low, high = index.bounds(e)
        assert low <= v <= high
        assert index.simplify(e) is e, "canonical forms are fixed points"


def test_quotient_and_remainder_join() -> None:
    flat = index.add(index.mul(I, 64), J)
    for shape in [(4, 8, 8), (16, 16), (2, 2, 64), (256,)]:
        assert index.flatten(index.unflatten(flat, shape), shape) is flat


def test_division_disappears_where_intervals_allow() -> None:
    e = index.add(index.mul(I, 8), var("q", 0, 7))
    assert index.floordiv(e, 8) is I
    assert index.mod(e, 8).op == "var"
    assert index.divisions(index.floordiv(J, 8)) == 1


@pytest.mark.parametrize("units", [(4, 1, 6), (1, 4, 6, 1), (4, 6, 1, 1)])
def test_axes_of_extent_1_leave_the_others_alone(units: tuple[int, ...]) -> None:
    """Also where an index is beyond its axis, as behind a mask: its remainder would be another expression."""
    beyond = (index.add(I, number(-2)), index.add(K, number(3)))
    at, _ = index.pull(node("reshape", (4, 6), (node("buffer", units),)), beyond)
    assert tuple(e for e, d in zip(at, units, strict=True) if d > 1) == beyond
    free = iter(beyond)
    back, _ = index.pull(node("reshape", units, (X,)), [number(0) if d == 1 else next(free) for d in units])
    assert back == beyond


def test_proven_needs_interval_or_mask() -> None:
    shifted = index.add(J, number(-1))
    assert not index.proven((shifted,), (64,), None)
    mask = None
    for c in index.within(shifted, 64):
        mask = index.both(mask, c)
    assert index.proven((shifted,), (64,), mask)
    assert not index.proven((shifted,), (10,), mask)


def node(op: str, shape: tuple[int, ...], src: tuple[Node, ...] = (), arg: Any = None) -> Node:
    return Node(op, dtypes.float32, shape, src, arg, ())


X = node("buffer", (4, 6))
MOVES = {
    "reshape": (node("reshape", (2, 12), (X,)), lambda x: x.reshape(2, 12)),
    "permute": (node("permute", (6, 4), (X,), (1, 0)), lambda x: x.T),
    "slice": (node("slice", (2, 3), (X,), ((1, 2), (0, 2))), lambda x: x[1::2, 0::2]),
    "flip": (node("flip", (4, 6), (X,), (0,)), lambda x: x[::-1]),
    "pad": (node("pad", (7, 12), (X,), ((1, 2, 0), (0, 1, 1))), None),
    "window": (node("window", (4, 3, 3), (node("expand", (4, 6, 3), (node("reshape", (4, 6, 1), (X,)),)),), (1, 2, 1, 1)), None),
}


def numpy_pad(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = np.zeros((4, 11))
    wide[:, ::2] = x
    return np.pad(wide, ((1, 2), (0, 1)))


@pytest.mark.parametrize("name", MOVES)
def test_movement_is_index_arithmetic(name: str) -> None:
    n, expected = MOVES[name]
    x = np.arange(1.0, 25.0).reshape(4, 6)
    want = (
        expected(x)
        if expected
        else numpy_pad(x)
        if name == "pad"
        else np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)[:, :3]
    )
    vs = tuple(var(f"v{d}", 0, e - 1) for d, e in enumerate(n.shape))
    got = np.zeros(n.shape)
    at, conditions = index.pull(n, vs)
    while n.src[0].op != "buffer":
        n = n.src[0]
        at, more = index.pull(n, at)
        conditions += more
    for point in np.ndindex(*got.shape):
        env = {f"v{d}": p for d, p in enumerate(point)}
        if all(value(c, env) for c in conditions):
            got[point] = x[tuple(value(e, env) for e in at)]
    np.testing.assert_array_equal(got, want)


def test_a_sum_over_axes_is_made_canonical_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each term of a position is taken as it is; only what holds a remainder is looked at by itself first."""
    made: list[Expr] = []
    real = index.total

    def total(pairs: Any, constant: int) -> Expr:
        made.append(real(pairs, constant))
        return made[-1]

    monkeypatch.setattr(index, "total", total)
    i, j, k = var("i", 0, 3), var("j", 0, 4), var("k", 0, 5)
    assert str(index.flatten((i, j, k), (4, 5, 6))) == "(i * 30) + (j * 6) + k"
    assert len(made) == 1
    ij = var("ij", 0, 19)
    at = index.unflatten(ij, (4, 5))
    assert str(index.flatten((*at, k), (4, 5, 6))) == "(ij * 6) + k"
