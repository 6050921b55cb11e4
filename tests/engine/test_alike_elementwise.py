"""Elementwise functions and operators: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

import itertools

import pytest

from tests.engine.alike import EVERY, LAYOUTS, Operand, agree, forms_of, on_backends

O = Operand

ONE = """
    x.abs()
    x.ceil()
    x.cos()
    x.cosh()
    x.erf()
    x.exp()
    x.exp2()
    x.expm1()
    x.floor()
    x.isfinite()
    x.isinf()
    x.isnan()
    x.logical_not()
    x.neg()
    x.reciprocal()
    x.relu()
    x.round()
    x.sigmoid()
    x.sign()
    x.sin()
    x.sinh()
    x.square()
    x.tan()
    x.tanh()
    x.trunc()
    x.round(decimals=1)
    x.round(decimals=-1)
    x.atan()
    x.asinh()
    x.acos()
    x.asin()
    x.log()
    x.log10()
    x.log2()
    x.log1p()
    x.rsqrt()
    x.sqrt()
    x.bool()
    x.float()
    x.double()
    x.half()
    -x
    ~x
    x.bitwise_not()
    x.contiguous()
    x.detach()
    x.clamp(-1, 1)
    x.clamp(0.5)
    x.clip(max=0.5)
    x.clamp()
    x + 1
    x - 1
    1 - x
    x * 2
    x / 2
    1 / x
    2.5 * x
    x // 2
    x % 2
    x // -2
    x % -3
    x % 2.5
    x // 2.5
    x // 0.0
    x > 0
    x < 0.5
    x >= 1
    x <= 0
    x == 0
    x != 1
    x ** 0
    x ** 2
    x ** 3
    x ** 0.5
    x ** -1
    x ** 1.5
    2 ** x
    0.5 ** x
    x.fmod(2)
    x.fmod(-1.5)
    x.div(2, rounding_mode='trunc')
    x.div(3, rounding_mode='floor')
    x.div(2, rounding_mode='foo')
    x.masked_fill(x > 0, 1)
    x.masked_fill(x > 0, 0.5)
    x << 1
    x >> 1
    x & 3
    x ^ 1
    x | 2
    x & True
    x.isclose(x)
    x.copysign(-1.0)
    x.logical_and(x)
    x.logical_xor(x)
    x.celu() :: F.celu(x)
    x.celu(2.0) :: F.celu(x, 2.0)
    x.elu() :: F.elu(x)
    x.elu(2.0) :: F.elu(x, 2.0)
    x.hardswish() :: F.hardswish(x)
    x.hardtanh() :: F.hardtanh(x)
    x.hardtanh(-2, 0.5) :: F.hardtanh(x, -2, 0.5)
    x.leaky_relu() :: F.leaky_relu(x)
    x.leaky_relu(0.2) :: F.leaky_relu(x, 0.2)
    x.logsigmoid() :: F.logsigmoid(x)
    x.mish() :: F.mish(x)
    x.relu6() :: F.relu6(x)
    x.selu() :: F.selu(x)
    x.softplus() :: F.softplus(x)
    x.softplus(2.0) :: F.softplus(x, 2.0)
    x.softplus(-2.0, 3.0) :: F.softplus(x, -2.0, 3.0)
    x.softsign() :: F.softsign(x)
    x.gelu(approximate='foo') :: F.gelu(x, approximate='foo')
"""
# no sense at -inf: PyTorch gives NaN there (-inf * 0), and this engine -inf, which its bounded sigmoid leads to
FINITE = """
    x.silu() :: F.silu(x)
    x.swish() :: F.silu(x)
    x.quick_gelu() :: x * torch.sigmoid(x * 1.702)
    x.gelu() :: F.gelu(x)
    x.gelu('tanh') :: F.gelu(x, approximate='tanh')
"""
DTYPES = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8", "int16", "bool")
ORDINARY = [
    *[{"x": O((4, 5), "plain", d, -3, 3)} for d in DTYPES],
    *[{"x": O((4, 5), layout, "float32", -0.9, 0.9)} for layout in LAYOUTS],
    *[{"x": O(shape, "plain", "float32", 1, 3)} for shape in [(), (3,), (0,), (2, 0, 3)]],
    {"x": O((8,), "plain", "float32", -1e-4, 1e-4)},  # where 1 + x rounds
]
ODD = [{"x": O((12,), "plain", d, -100, 100, odd=True)} for d in ("float32", "float64")]


@pytest.mark.parametrize("form", forms_of(ONE))
def test_one_operand(form: str) -> None:
    agree(form, ORDINARY + ODD)


@pytest.mark.parametrize("form", forms_of(FINITE))
def test_one_finite_operand(form: str) -> None:
    agree(form, ORDINARY)


def test_inverse_functions_within_their_domains() -> None:
    agree("x.acosh()", [{"x": O((20,), "plain", d, 1, high)} for d in ("float32", "float64") for high in (1.01, 9, 1e4)])
    agree("x.atanh()\nx.asin()\nx.acos()", [{"x": O((20,), "plain", d, -0.999, 0.999)} for d in ("float32", "float64")])
    agree(
        "x.atan()\nx.asinh()\nx.sinh()", [{"x": O((20,), "plain", d, -h, h)} for d in ("float32", "float64") for h in (1e-5, 80)]
    )
    agree("x.hardsigmoid() :: F.hardsigmoid(x)", [{"x": O((20,), "plain", d, -5, 5)} for d in ("float32", "float16")])


TWO = """
    x + y
    x - y
    x * y
    x / y
    x // y
    x % y
    x ** y
    x.maximum(y)
    x.minimum(y)
    x < y
    x <= y
    x > y
    x >= y
    x == y
    x != y
    x.add(y)
    x.sub(y)
    x.mul(y)
    x.div(y)
    x.pow(y)
    x.fmod(y)
    x.logaddexp(y)
    x.copysign(y)
    x.isclose(y)
    x.lerp(y, 0.3)
    T.where(x > y, x, y)
    (x > y).where(x, 0) :: torch.where(x > y, x, 0)
    (x > y).where(1.5, y) :: torch.where(x > y, 1.5, y)
    x.where(x > 1.5, y)
    x.div(y, rounding_mode='trunc')
    x.div(y, rounding_mode='floor')
    x & y
    x ^ y
    x.bitwise_or(y)
    x << y
    x >> y
    x.logical_and(y)
    x.logical_or(y)
    x.masked_fill(y > 0, 2)
    x.masked_fill(y, 2)
    x.masked_fill(y > 0, x)
    x.clamp(y, y + 1)
    x.clamp(max=y)
    x.allclose(x)
    x + 'a'
    x * None
    x < None
"""
BROADCAST = [
    ((), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((1,), (0,)), ((2, 1, 3), (4, 1)), ((0, 3), (1, 3)), ((2, 3), (3, 2)),
]  # fmt: skip
PAIRS = [
    *[{"x": O(a, low=0.1), "y": O(b, low=0.1)} for a, b in BROADCAST],
    *[{"x": O((3, 4), a, low=0.1), "y": O((3, 4), b, low=0.1)} for a, b in itertools.pairwise(LAYOUTS)],
    *[{"x": O((40,), dtype=d, low=-20, high=20), "y": O((40,), dtype=d, low=1, high=7)} for d in ("int32", "int8")],
    *[{"x": O((40,), dtype=d, low=-20, high=20), "y": O((40,), dtype=d, low=-7, high=-1)} for d in ("int32", "float32")],
]
MIXED = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8", "bool")


@pytest.mark.parametrize("form", forms_of(TWO))
def test_two_operands(form: str) -> None:
    agree(form, PAIRS)


@pytest.mark.parametrize("first", MIXED)
def test_dtypes_of_two_operands(first: str) -> None:
    """Of a tensor with axes, or without, beside one with axes."""
    forms = "\n".join(
        f for f in forms_of(TWO) if not any(s in f for s in ("floor", "trunc", "x.where", "//", "%", "fmod", "lerp"))
    )
    for shape in ((3, 4), ()):
        agree(forms, [{"x": O(shape, dtype=first, low=1, high=3), "y": O((3, 4), dtype=d, low=1, high=3)} for d in MIXED])


NO_VALUE = (
    "foo", "~", "<<", ">>", "&", "|", "^", "None", "bitwise",
    "clamp()", "'a'", "masked_fill(y, 2)", "fill(y > 0, x)", "close",
)  # fmt: skip
ON_BACKENDS = "\n".join(f for f in forms_of(ONE) + forms_of(TWO) if not any(s in f for s in NO_VALUE))


def test_on_all_backends() -> None:
    on_backends(
        ON_BACKENDS, {"x": O((3, 5), "transposed", low=0.1, high=0.9), "y": O((3, 5), "strided", low=0.1, high=0.9)}, EVERY
    )
