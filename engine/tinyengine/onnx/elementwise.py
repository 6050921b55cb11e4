"""Arithmetic, comparisons, bits and activations: one element (of each operand) at a time."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx.registry import op

_METHODS = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "BitwiseNot": "bitwise_not", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "HardSwish": "hardswish", "IsNaN": "isnan", "Log": "log", "Mish": "mish", "Neg": "neg", "Not": "logical_not",
    "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin",
    "Sinh": "sinh", "Softsign": "softsign", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "And": operator.and_, "Or": operator.or_,
    "Xor": operator.xor, "BitwiseAnd": operator.and_, "BitwiseOr": operator.or_, "BitwiseXor": operator.xor,
    "Less": operator.lt, "LessOrEqual": operator.le, "Greater": operator.gt, "GreaterOrEqual": operator.ge,
}  # fmt: skip


def _method(name: str) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        return getattr(x, name)()

    f.__name__ = name
    return f


def _pair(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def of(a: Any, b: Any) -> Any:
        return f(a, b)

    return of


for _name, _m in _METHODS.items():
    op(_name)(_method(_m))
for _name, _f in _PAIRS.items():
    op(_name, 7)(_pair(_f))


@op("Equal", 7, raw=True)
def equal(a: Any, b: Any) -> Any:
    from tinyengine.onnx.values import as_recorded, folded, known

    if known(a) and known(b):
        return folded(as_recorded(a) == as_recorded(b)) if a.dtype.kind != "O" else np.asarray(a == b, bool)
    return as_recorded(a) == as_recorded(b)


@op("Div", 7)
def div(a: Any, b: Any) -> Any:
    return a / b if a.dtype.is_float else a.div(b, rounding_mode="trunc")


@op("Mod")
def mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    return a.fmod(b) if fmod else a.mod(b)


@op("Pow", 7)
def power(a: Any, b: Any) -> Any:
    return (a**b).cast(a.dtype)


@op("BitShift")
def bit_shift(a: Any, b: Any, *, direction: str) -> Any:
    return a << b if direction == "LEFT" else a >> b


def _fold(f: Callable[[Any, Any], Any], xs: tuple[Any, ...]) -> Any:
    return functools.reduce(f, xs)


@op("Max")
def maximum(*xs: Any) -> Any:
    return _fold(lambda a, b: a.maximum(b), xs)


@op("Min")
def minimum(*xs: Any) -> Any:
    return _fold(lambda a, b: a.minimum(b), xs)


@op("Sum")
def total(*xs: Any) -> Any:
    return _fold(operator.add, xs)


@op("Mean")
def mean(*xs: Any) -> Any:
    return _fold(operator.add, xs) / len(xs)


@op("Clip")
def clip_6(x: Any, *, min: float = -math.inf, max: float = math.inf) -> Any:
    return clip(x, min if min > -math.inf else None, max if max < math.inf else None)


@op("Clip", 11)
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else x.maximum(low)
    return x if high is None else x.minimum(high)


@op("Where")
def where(c: Any, a: Any, b: Any) -> Any:
    return c.where(a, b)


@op("IsInf")
def isinf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    signs = [s for s, asked in ((math.inf, detect_positive), (-math.inf, detect_negative)) if asked]
    if x.dtype.itemsize == 1 or not signs:  # 8-bit floats in which nothing infinite is computed
        return x.float().isinf() if signs else (x != x) & False
    return functools.reduce(operator.or_, [x == s for s in signs])


@op("Elu")
def elu(x: Any, *, alpha: float = 1.0) -> Any:
    return x.elu(alpha)


@op("Celu")
def celu(x: Any, *, alpha: float = 1.0) -> Any:
    return x.celu(alpha)


@op("Selu")
def selu(x: Any, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    return x.selu(alpha, gamma)


@op("LeakyRelu")
def leaky_relu(x: Any, *, alpha: float = 0.01) -> Any:
    return x.leaky_relu(alpha)


@op("PRelu", 7)
def prelu(x: Any, slope: Any) -> Any:
    return (x < 0).where(x * slope, x)


@op("ThresholdedRelu")
def thresholded_relu(x: Any, *, alpha: float = 1.0) -> Any:
    return (x > alpha).where(x, 0)


@op("HardSigmoid")
def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return (x * alpha + beta).maximum(0).minimum(1)


@op("Softplus")
def softplus(x: Any) -> Any:
    return x.softplus(threshold=40.0 if x.dtype is dtypes.float64 else 20.0)


@op("Shrink")
def shrink(x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    low = (x < -lambd).where(x + bias, 0)
    return (x > lambd).where(x - bias, low).cast(x.dtype)


@op("Gelu")
def gelu(x: Any, *, approximate: str = "none") -> Any:
    return x.gelu(approximate)


@op("Swish")
def swish(x: Any, *, alpha: float = 1.0) -> Any:
    return x * (x * alpha).sigmoid()
