"""The arithmetic rules of `simplify`: constants, identities, casts, selections. All keep every value to the bit.

What is missing is missing on purpose: x + 0.0 (it turns -0.0 into 0.0; x + -0.0 is the float identity), x * 0.0 and x - x (NaN,
inf), a / b -> a * (1 / b) and (x * a) * b -> x * (a * b) (they round differently)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.node import Node, const
from tinyengine.ops import OPS
from tinyengine.rules import Rule

_FOLDED = tuple(o for o, op in OPS.items() if op.numpy and op.family in ("unary", "binary", "ternary") and o != "fma")


def _is(n: Node, value: Any) -> bool:
    """Is it the constant `value`, the sign of a zero included?"""
    if n.op != "const" or n.arg != value:
        return False
    return value != 0 or not n.dtype.is_float or math.copysign(1.0, n.arg) == math.copysign(1.0, value)


def _node(n: Node, op: str, *src: Node) -> Node:
    return Node(op, n.dtype, n.shape, src, None, ())


def fold_scalar(op: str, dtype: DType, operands: tuple[Node, ...]) -> Any:
    """The number that `op` gives for constant operands, in their dtypes."""
    f = OPS[op].numpy
    assert f is not None
    with np.errstate(all="ignore"):
        return dtype.convert(np.asarray(f(*map(_number, operands)))).item()


def _number(n: Node) -> Any:
    """The value of a constant in its dtype, as an array without axes."""
    return n.dtype.convert(np.asarray(n.arg, n.dtype.values))


def _fold(n: Node) -> Node | None:
    for s in n.src:
        if s.op != "const":
            return None
    return const(fold_scalar(n.op, n.dtype, n.src), n.dtype, n.shape)


def _fold_cast(n: Node) -> Node | None:
    (x,) = n.src
    if x.op != "const":
        return None
    if n.op == "bitcast":
        bits = np.asarray(x.dtype.encode(_number(x))).view(n.dtype.numpy)
        return const(n.dtype.decode(bits).item(), n.dtype, n.shape)
    return const(n.dtype.convert(_number(x)).item(), n.dtype, n.shape)


def _constant_right(n: Node) -> Node | None:
    a, b = n.src
    return _node(n, n.op, b, a) if a.op == "const" and b.op != "const" else None


def _add_zero(n: Node) -> Node | None:
    zero: Any = -0.0 if n.dtype.is_float else 0
    return n.src[0] if _is(n.src[1], zero) else None


def _sub_zero(n: Node) -> Node | None:
    return n.src[0] if _is(n.src[1], 0.0 if n.dtype.is_float else 0) else None


def _one(n: Node) -> Node | None:
    return n.src[0] if _is(n.src[1], 1) else None


def _floor_one(n: Node) -> Node | None:
    return None if n.dtype.is_float else _one(n)


def _mul_zero(n: Node) -> Node | None:
    return n.src[1] if not n.dtype.is_float and _is(n.src[1], 0) else None


def _mul_minus_one(n: Node) -> Node | None:
    return _node(n, "neg", n.src[0]) if n.dtype.kind in ("float", "int") and _is(n.src[1], -1) else None


def _div_power_of_two(n: Node) -> Node | None:
    a, b = n.src
    if b.op != "const" or not n.dtype.is_float or b.arg == 0 or not math.isfinite(b.arg) or abs(math.frexp(b.arg)[0]) != 0.5:
        return None
    inverse = 1.0 / b.arg
    info = np.finfo(n.dtype.numpy)
    return _node(n, "mul", a, const(inverse, n.dtype, n.shape)) if info.tiny <= abs(inverse) <= info.max else None


def _neg_neg(n: Node) -> Node | None:
    return n.src[0].src[0] if n.src[0].op == "neg" else None


def _add_neg(n: Node) -> Node | None:
    a, b = n.src
    if b.op == "neg":
        return _node(n, "sub", a, b.src[0])
    return _node(n, "sub", b, a.src[0]) if a.op == "neg" else None


def _sub_neg(n: Node) -> Node | None:
    a, b = n.src
    return _node(n, "add", a, b.src[0]) if b.op == "neg" else None


def _mul_neg(n: Node) -> Node | None:
    a, b = n.src
    if a.op == "neg" and b.op == "neg":
        return _node(n, n.op, a.src[0], b.src[0])
    if a.op == "neg" and b.op == "const" and n.dtype.is_float:
        return _node(n, n.op, a.src[0], const(-b.arg, n.dtype, n.shape))
    return None


def _regroup(n: Node) -> Node | None:
    """(x op c) op d -> x op (c op d)."""
    a, d = n.src
    if n.dtype.is_float and n.op in ("add", "mul"):
        return None
    if d.op != "const" or a.op != n.op or a.src[1].op != "const":
        return None
    c = const(fold_scalar(n.op, n.dtype, (a.src[1], d)), n.dtype, n.shape)
    return _node(n, n.op, a.src[0], c)


def _same(n: Node) -> Node | None:
    return n.src[0] if n.src[0] is n.src[1] else None


def _logic_constant(n: Node) -> Node | None:
    x, c = n.src
    if c.op != "const":
        return None
    ones: Any = True if n.dtype is dtypes.bool_ else -1 if n.dtype.kind == "int" else n.dtype.max
    keep, fixed = (ones, 0) if n.op == "and" else (0, ones)
    if c.arg == keep:
        return x
    return c if c.arg == fixed and n.op != "xor" else None


def _shift_zero(n: Node) -> Node | None:
    return n.src[0] if _is(n.src[1], 0) else None


def _where_constant(n: Node) -> Node | None:
    c = n.src[0]
    return n.src[1 if c.arg else 2] if c.op == "const" else None


def _where_same(n: Node) -> Node | None:
    return n.src[1] if n.src[1] is n.src[2] else None


def _where_nested(n: Node) -> Node | None:
    c, a, b = n.src
    inner_a = a.src[1] if a.op == "where" and a.src[0] is c else a
    inner_b = b.src[2] if b.op == "where" and b.src[0] is c else b
    return _node(n, "where", c, inner_a, inner_b) if inner_a is not a or inner_b is not b else None


def _into_where(n: Node) -> Node | None:
    """f(where(c, 1, 2)) -> where(c, f(1), f(2)), for f of one operand or with a constant on the right."""
    w, rest = n.src[0], n.src[1:]
    if w.op != "where" or w.src[1].op != "const" or w.src[2].op != "const" or any([s.op != "const" for s in rest]):
        return None
    branches = [Node(n.op, n.dtype, n.shape, (b, *rest), None, ()) for b in w.src[1:]]
    folded = [_fold_cast(b) if n.op == "cast" else _fold(b) for b in branches]
    if folded[0] is None or folded[1] is None:
        return None
    return _node(n, "where", w.src[0], folded[0], folded[1])


def _cast_same(n: Node) -> Node | None:
    return n.src[0] if n.src[0].dtype is n.dtype else None


def lossless(a: DType, b: DType) -> bool:
    """Does `b` hold every value of `a`?"""
    if a is b or a is dtypes.bool_:
        return True
    if b is dtypes.bool_ or (a.is_float and not b.is_float):
        return False
    if a.is_float:
        return a.digits <= b.digits and a.exponent <= b.exponent
    if b.is_float:
        return 8 * a.itemsize - (a.kind == "int") <= min(b.digits, b.exponent)
    return b.itemsize > a.itemsize if a.kind == "uint" and b.kind == "int" else a.kind == b.kind and b.itemsize >= a.itemsize


def _cast_cast(n: Node) -> Node | None:
    (inner,) = n.src
    if inner.op != "cast":
        return None
    x = inner.src[0]
    if not lossless(x.dtype, inner.dtype) or (x.dtype.is_float and n.dtype.is_int):
        return None  # out-of-range float to int depends on the width it comes from
    return x if x.dtype is n.dtype else _node(n, "cast", x)


def _bitcast_bitcast(n: Node) -> Node | None:
    (inner,) = n.src
    return _node(n, "bitcast", inner.src[0]) if inner.op == "bitcast" else None


RULES: tuple[Rule, ...] = (
    Rule("fold-constants", "The operation on constants gives one constant.", _FOLDED, _fold),
    Rule("fold-cast", "A converted constant is a constant.", ("cast", "bitcast"), _fold_cast),
    Rule("constant-right", "The operation commutes, so its constant may stand on the right.",
         tuple(o.name for o in OPS.values() if o.commutes), _constant_right),
    Rule("add-zero", "x + 0 is x; for floats only -0.0 is neutral, since -0.0 + 0.0 is 0.0.", ("add",), _add_zero),
    Rule("subtract-zero", "x - 0 is x, for -0.0 too.", ("sub",), _sub_zero),
    Rule("multiply-by-one", "x * 1 is x.", ("mul",), _one),
    Rule("divide-by-one", "x / 1 is x; for integers rounding down changes nothing.", ("div",), _one),
    Rule("floor-divide-by-one", "An integer divided by 1 is itself.", ("floordiv",), _floor_one),
    Rule("multiply-by-zero", "An integer times 0 is 0; not for floats: NaN and inf.", ("mul",), _mul_zero),
    Rule("multiply-by-minus-one", "x * -1 is -x, exactly.", ("mul",), _mul_minus_one),
    Rule("divide-by-power-of-two", "The reciprocal of a power of two is exact: both round alike.", ("div",), _div_power_of_two),
    Rule("negate-twice", "-(-x) is x.", ("neg",), _neg_neg),
    Rule("add-negated", "a + (-b) is a - b, rounded alike.", ("add",), _add_neg),
    Rule("subtract-negated", "a - (-b) is a + b, rounded alike.", ("sub",), _sub_neg),
    Rule("multiply-negated", "Signs multiply on their own: (-a) * (-b) is a * b, (-a) * c is a * (-c).", ("mul",), _mul_neg),
    Rule("regroup-constants", "Associative without rounding: integers wrap, extrema and bits are exact.",
         ("add", "mul", "maximum", "minimum", "and", "or", "xor"), _regroup),
    Rule("same-operands", "The operation on a value and itself gives that value.", ("maximum", "minimum", "and", "or"), _same),
    Rule("logic-constant", "All ones and zero are neutral or absorbing.", ("and", "or", "xor"), _logic_constant),
    Rule("shift-by-zero", "A shift by 0 moves nothing.", ("shl", "shr"), _shift_zero),
    Rule("where-constant", "The condition is known, so is the branch.", ("where",), _where_constant),
    Rule("where-same", "Both branches are the same value.", ("where",), _where_same),
    Rule("where-nested", "Inside a branch its condition is already decided.", ("where",), _where_nested),
    Rule("constants-of-where", "Each branch is a constant, so what is done to it may be done beforehand.",
         (*(o for o in _FOLDED if o != "where"), "cast"), _into_where, sole=True),
    Rule("function-computed", "Its derivative is recorded; what is left of a user's function is its value.", ("function",),
         lambda n: n.src[n.arg.index]),
    Rule("cast-to-same", "The value has this dtype already.", ("cast", "bitcast"), _cast_same),
    Rule("cast-of-cast", "The dtype between holds every value, so it changes none.", ("cast",), _cast_cast),
    Rule("bitcast-of-bitcast", "The bits stay the same throughout.", ("bitcast",), _bitcast_bitcast),
)  # fmt: skip
