"""Elementwise functions and operators against PyTorch: values, dtypes and gradients, over shapes with scalars, empty axes,
broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.peer import Case, F, compare, draw, torch, value
from tinyengine import Tensor, dtypes
from tinyengine.tensor import where

SHAPES = st.sampled_from([(), (1,), (3,), (0,), (2, 3), (1, 4), (2, 0, 3), (2, 1, 3), (2, 2, 2, 2)])
BROADCAST = st.sampled_from(
    [
        ((), ()),
        ((), (3,)),
        ((2, 3), (3,)),
        ((2, 1), (1, 3)),
        ((2, 3), ()),
        ((1,), (0,)),
        ((2, 1, 3), (4, 1)),
        ((5,), (5,)),
        ((0, 3), (1, 3)),
    ]
)
FEW = settings(max_examples=9, derandomize=True, deadline=None)

UNARY = [
    *[
        Case(n, lambda x, n=n: getattr(x, n)(), lambda x, n=n: getattr(torch, n)(x))
        for n in (
            "neg",
            "exp",
            "sin",
            "cos",
            "tanh",
            "erf",
            "abs",
            "square",
            "sigmoid",
            "sinh",
            "cosh",
            "exp2",
            "atan",
            "asinh",
            "expm1",
            "relu",
        )
    ],
    *[
        Case(n, lambda x, n=n: getattr(x, n)(), lambda x, n=n: getattr(torch, n)(x), 0.1, 4)
        for n in ("log", "sqrt", "rsqrt", "reciprocal", "log2", "log10", "log1p")
    ],
    *[
        Case(n, lambda x, n=n: getattr(x, n)(), lambda x, n=n: getattr(torch, n)(x), -0.9, 0.9, atol=1e-5)
        for n in ("asin", "acos", "atanh")
    ],
    *[
        Case(n, lambda x, n=n: getattr(x, n)(), lambda x, n=n: getattr(torch, n)(x), -5, 5)
        for n in ("floor", "ceil", "trunc", "round", "sign")
    ],
    Case("tan", lambda x: x.tan(), torch.tan, -1, 1),
    Case("acosh", lambda x: x.acosh(), torch.acosh, 1.2, 4),
    *[
        Case(n, lambda x, n=n: getattr(x, n)(), lambda x, n=n: getattr(F, n)(x), -8, 8, atol=5e-6)
        for n in (
            "silu",
            "gelu",
            "softplus",
            "logsigmoid",
            "mish",
            "elu",
            "celu",
            "selu",
            "leaky_relu",
            "relu6",
            "hardtanh",
            "hardsigmoid",
            "hardswish",
            "softsign",
        )
    ],
    Case("gelu tanh", lambda x: x.gelu("tanh"), lambda x: F.gelu(x, approximate="tanh"), -8, 8, atol=5e-6),
    Case("clamp", lambda x: x.clamp(-1, 1.5), lambda x: torch.clamp(x, -1, 1.5)),
    Case("square by **", lambda x: x**2, lambda x: x**2),
    Case("cube", lambda x: x**3, lambda x: x**3),
    Case("x ** -2", lambda x: x**-2, lambda x: x**-2, 0.5, 2),
    Case("x ** 0.5", lambda x: x**0.5, lambda x: x**0.5, 0.1, 2),
    Case("x ** 1.7", lambda x: x**1.7, lambda x: x**1.7, 0.1, 3),
    Case("2 ** x", lambda x: 2.0**x, lambda x: 2.0**x),
    Case("1 - x", lambda x: 1 - x, lambda x: 1 - x),
    Case("3 / x", lambda x: 3 / x, lambda x: 3 / x, 0.5, 2),
    Case("x % 0.7", lambda x: x % 0.7, lambda x: x % 0.7),
    Case("x // 0.7", lambda x: x // 0.7, lambda x: x // 0.7, gradient=False),
]

BINARY = [
    Case("+", lambda a, b: a + b, lambda a, b: a + b),
    Case("-", lambda a, b: a - b, lambda a, b: a - b),
    Case("*", lambda a, b: a * b, lambda a, b: a * b),
    Case("/", lambda a, b: a / b, lambda a, b: a / b, 0.3, 2),
    Case("maximum", lambda a, b: a.maximum(b), torch.maximum),
    Case("minimum", lambda a, b: a.minimum(b), torch.minimum),
    Case("pow", lambda a, b: a**b, lambda a, b: a**b, 0.2, 2),
    Case("remainder", lambda a, b: a % b, torch.remainder, 0.3, 5, atol=1e-5),
    Case("fmod", lambda a, b: a.fmod(b), torch.fmod, 0.3, 5, gradient=False, atol=1e-5),
    Case("logaddexp", lambda a, b: a.logaddexp(b), torch.logaddexp),
    Case("copysign", lambda a, b: a.copysign(b), torch.copysign),
    Case("lerp", lambda a, b: a.lerp(b, 0.3), lambda a, b: torch.lerp(a, b, 0.3)),
    Case("where", lambda a, b: (a > 0).where(a, b), lambda a, b: torch.where(a > 0, a, b)),
    Case("floor division", lambda a, b: a // b, lambda a, b: a // b, 0.3, 5, gradient=False),
    Case("isclose", lambda a, b: a.isclose(b, atol=0.5), lambda a, b: torch.isclose(a, b, atol=0.5)),
]


@pytest.mark.parametrize("case", UNARY, ids=lambda c: c.name)
@FEW
@given(shape=SHAPES, seed=st.integers(0, 5))
def test_functions_of_one_tensor(case: Case, shape: tuple[int, ...], seed: int) -> None:
    compare(case, draw(shape, case.low, case.high, seed))


@pytest.mark.parametrize("case", BINARY, ids=lambda c: c.name)
@FEW
@given(shapes=BROADCAST, seed=st.integers(0, 5))
def test_functions_of_two_tensors(case: Case, shapes: Any, seed: int) -> None:
    compare(case, draw(shapes[0], case.low, case.high, seed), draw(shapes[1], case.low, case.high, seed + 9))


COMPARISONS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_follow_ieee_for_nan_and_infinities(name: str) -> None:
    special = np.array([-math.inf, -1.0, -0.0, 0.0, 1.0, math.inf, math.nan], np.float32)
    a, b = np.meshgrid(special, special)
    f = COMPARISONS[name]
    np.testing.assert_array_equal(value(f(Tensor(a), Tensor(b))), f(torch.tensor(a), torch.tensor(b)).numpy())
    for number in (0, 0.0, 1):
        np.testing.assert_array_equal(value(f(Tensor(a), number)), f(torch.tensor(a), number).numpy())


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("right", DTYPES)
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())], ids=str)
def test_result_dtypes_are_those_of_pytorch(left: str, right: str, shapes: Any) -> None:
    """With one exception, which cannot be seen here: the default integer is int32."""
    a, b = draw(shapes[0], 1, 3, 1, left), draw(shapes[1], 1, 3, 2, right)
    x, y, s, t = Tensor(a), Tensor(b), torch.tensor(a), torch.tensor(b)
    for f in (lambda p, q: p + q, lambda p, q: p * q, lambda p, q: p / q, lambda p, q: p.maximum(q)):
        ours, theirs = f(x, y), f(s, t)
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(value(ours), theirs.numpy(), rtol=2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [True, 2, 2.5])
def test_a_number_counts_by_its_kind(dtype: str, number: Any) -> None:
    a = draw((3,), 1, 3, 1, dtype)
    theirs = torch.tensor(a) + number
    expected = {"torch.int64": "int64" if dtype == "int64" else "int32"}.get(
        str(theirs.dtype), str(theirs.dtype).removeprefix("torch.")
    )
    for ours in (Tensor(a) + number, number + Tensor(a)):
        assert ours.dtype.name == expected
        np.testing.assert_allclose(value(ours), theirs.numpy(), rtol=2e-3)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "int64"])
def test_integer_arithmetic(dtype: str) -> None:
    low = 0 if dtype == "uint8" else -9
    a, b = draw((40,), low, 9, 1, dtype), draw((40,), 1, 5, 2, dtype)
    x, y, s, t = Tensor(a), Tensor(b), torch.tensor(a), torch.tensor(b)
    for name, f in {
        "//": lambda p, q: p // q,
        "%": lambda p, q: p % q,
        "-": lambda p, q: p - q,
        "&": lambda p, q: p & q,
        "|": lambda p, q: p | q,
        "^": lambda p, q: p ^ q,
        "<<": lambda p, q: p << (q % 3),
        ">>": lambda p, q: p >> (q % 3),
        "~": lambda p, q: ~p,
        "trunc": lambda p, q: p.div(q, rounding_mode="trunc"),
        "** 3": lambda p, q: p**3,
        "abs": lambda p, q: p.abs(),
        "min": lambda p, q: p.min(),
        "max": lambda p, q: p.max(),
    }.items():
        ours, theirs = f(x, y), f(s, t)
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch."), name
        np.testing.assert_array_equal(value(ours), theirs.numpy(), err_msg=name)
    negative = Tensor(np.array([-7, 7, -1, 0], np.int32)) // Tensor(np.array([2, -2, 0, 0], np.int32))
    np.testing.assert_array_equal(value(negative), [-4, -4, 0, 0])  # PyTorch raises for a zero divisor; here it gives 0


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_casts(source: str, target: str) -> None:
    a = draw((11,), 0, 3, 3, source)
    np.testing.assert_array_equal(value(Tensor(a).cast(target)), torch.tensor(a).to(getattr(torch, target)).numpy())
    assert Tensor(a).to(target).dtype is dtypes.by_name(target)


def test_bitcast_keeps_bits() -> None:
    a = np.array([1.0, -0.0, math.inf], np.float32)
    np.testing.assert_array_equal(value(Tensor(a).bitcast("uint32")), a.view(np.uint32))


def test_where_with_numbers_and_masked_fill() -> None:
    a = draw((3, 4), -1, 1, 5)
    x, t = Tensor(a), torch.tensor(a)
    np.testing.assert_array_equal(value(where(x > 0, 1, 0)), torch.where(t > 0, 1, 0).numpy())
    assert where(x > 0, 1, 0).dtype is dtypes.int32 and where(x > 0, 1.0, 0).dtype is dtypes.float32
    np.testing.assert_array_equal(value(x.masked_fill(x > 0, -3.5)), t.masked_fill(t > 0, -3.5).numpy())


def test_ties_share_the_gradient_and_relu_is_flat_at_zero() -> None:
    a = np.array([1.0, 2.0, 0.0], np.float32)
    for x, y in [(a, a), (a, a[::-1].copy())]:
        compare(Case("maximum", lambda p, q: p.maximum(q), torch.maximum), x, y)
        compare(Case("minimum", lambda p, q: p.minimum(q), torch.minimum), x, y)
    compare(Case("relu", lambda p: p.relu(), torch.relu), a - 1)
    compare(Case("abs", lambda p: p.abs(), torch.abs), a - 1)


def test_functions_stay_finite_far_out() -> None:
    a = np.array([-200.0, -90.0, -30.0, 0.0, 30.0, 90.0, 200.0], np.float32)
    for name in ("sigmoid", "silu", "softplus", "logsigmoid", "tanh", "gelu", "elu"):
        theirs = getattr(torch, name, None) or getattr(F, name)
        compare(Case(name, lambda p, n=name: getattr(p, n)(), theirs), a)


def test_bools_have_no_remainder() -> None:
    """As in PyTorch; beside an int they are one."""
    b = Tensor(np.array([True, False]))
    for refused in (lambda: b % b, lambda: b % True, lambda: b.mod(b), lambda: b // b):
        with pytest.raises(NotImplementedError, match="is not defined for bool tensors"):
            refused()
    np.testing.assert_array_equal((b % 2).numpy(), [1, 0])
