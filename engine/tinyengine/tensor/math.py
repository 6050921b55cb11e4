"""Functions of one or two elements that are composed of the primitives: abs, pow, floor, cos, asin, sigmoid, gelu and their
kind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import user_line
from tinyengine.tensor import core
from tinyengine.tensor.core import make
from tinyengine.tensor.elementwise import binary, choose
from tinyengine.tensor.reduce import Reduce

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

# Abramowitz and Stegun 4.4.46: asin(x) = pi/2 - sqrt(1 - x) * poly(x) on [0, 1], |error| <= 2e-8
_ASIN = (-0.0012624911, 0.0066700901, -0.0170881256, 0.0308918810, -0.0501743046, 0.0889789874, -0.2145988016, 1.5707963050)
_EXP_LIMIT = {"float16": 11.0, "bfloat16": 88.0, "float32": 88.0, "float64": 709.0}  # the largest x or so with a finite exp(x)


class Math(Reduce):
    """Composed elementwise methods. Names, domains and results are PyTorch's."""

    __slots__ = ()

    def abs(self) -> Tensor:
        """|x|; gradient 0 at 0."""
        return self.maximum(self.neg()) if self.dtype.kind in ("int", "float") else make(self.node, self.flow)

    def __abs__(self) -> Tensor:
        return self.abs()

    def sign(self) -> Tensor:
        """-1, 0 or 1 in the same dtype."""
        s = choose(self > 0, 1, choose(self < 0, -1, 0)).cast(self.dtype)
        return make(s.node, self.flow if self.dtype.is_float else core.NO_FLOW)

    def square(self) -> Tensor:
        return self * self

    def rsqrt(self) -> Tensor:
        """1 / sqrt(x)."""
        return self.sqrt().reciprocal()

    def floor(self) -> Tensor:
        """The largest whole number not above x. Gradient zero."""
        if not self.dtype.is_float:
            return make(self.node, self.flow)
        t = self.trunc()
        return (self < t).where(t - 1, t)

    def ceil(self) -> Tensor:
        """The smallest whole number not below x."""
        return self.neg().floor().neg() if self.dtype.is_float else make(self.node, self.flow)

    def round(self) -> Tensor:
        """The nearest whole number; halves go to the even one."""
        if not self.dtype.is_float:
            return make(self.node, self.flow)
        low = self.floor()
        up = self - low
        odd = (low * 0.5).floor() * 2 != low
        return ((up > 0.5) | ((up == 0.5) & odd)).where(low + 1, low)

    def frac(self) -> Tensor:
        return self - self.trunc()

    def pow(self, exponent: Any) -> Tensor:
        """x to the power of a number or tensor. Whole exponents up to 64 are multiplied out; others are exp(e log|x|), with the
        sign where the exponent is odd and NaN where x < 0 and it is not whole; their gradient at x = 0 is NaN."""
        return power(self, exponent)

    def __pow__(self, exponent: Any) -> Tensor:
        return power(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        if isinstance(base, (int, float)) and base > 0 and self.dtype.is_float:
            return (self * math.log(base)).exp()
        return power(core._cls(base, dtype=self.dtype if isinstance(base, int) else None), self)

    def exp2(self) -> Tensor:
        """2 to the x."""
        return (self * math.log(2)).exp()

    def expm1(self) -> Tensor:
        """exp(x) - 1 (no more precise near 0 than that says)."""
        return self.exp() - 1

    def log2(self) -> Tensor:
        return self.log() * (1 / math.log(2))

    def log10(self) -> Tensor:
        return self.log() * (1 / math.log(10))

    def log1p(self) -> Tensor:
        """log(1 + x) (no more precise near 0 than that says)."""
        return (self + 1).log()

    def cos(self) -> Tensor:
        """sin(x + pi/2)."""
        return (self + math.pi / 2).sin()

    def tan(self) -> Tensor:
        return self.sin() / self.cos()

    def sinh(self) -> Tensor:
        return (self.exp() - self.neg().exp()) * 0.5

    def cosh(self) -> Tensor:
        return (self.exp() + self.neg().exp()) * 0.5

    def _side(self) -> Tensor:
        """1 where x >= 0, else -1, as a constant for the gradient: an odd function is side * f(side * x)."""
        return choose(self < 0, -1.0, 1.0).cast(core.float_of(self.dtype))

    def asin(self) -> Tensor:
        """Inverse sine by a polynomial of degree 7: absolute error below 1e-6 in float32 (Abramowitz and Stegun 4.4.46)."""
        side = self._side()
        x = self * side
        p: Any = _ASIN[0]
        for c in _ASIN[1:]:
            p = x * p + c
        return side * (math.pi / 2 - (1 - x).sqrt() * p)  # type: ignore[no-any-return]

    def acos(self) -> Tensor:
        return math.pi / 2 - self.asin()

    def atan(self) -> Tensor:
        """asin(x / sqrt(1 + x^2))."""
        return (self / (self * self + 1).sqrt()).asin()

    def asinh(self) -> Tensor:
        side = self._side()
        x = self * side
        return side * (x + (x * x + 1).sqrt()).log()

    def acosh(self) -> Tensor:
        return (self + (self * self - 1).sqrt()).log()

    def atanh(self) -> Tensor:
        return ((self + 1) / (1 - self)).log() * 0.5

    def isnan(self) -> Tensor:
        return self != self

    def isinf(self) -> Tensor:
        return self.abs() == math.inf

    def isfinite(self) -> Tensor:
        return self.abs() < math.inf if self.dtype.is_float else self == self

    def isclose(self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        """|self - other| <= atol + rtol * |other|."""
        y: Any = other if isinstance(other, core.Base) else core._cls(other)
        near = (self - y).abs() <= y.abs() * rtol + atol
        out: Tensor = near | (self == y)
        return out | (self.isnan() & y.isnan()) if equal_nan else out

    def logical_and(self, other: Any) -> Tensor:
        return self.bool() & (other.bool() if isinstance(other, Math) else bool(other))

    def logical_or(self, other: Any) -> Tensor:
        return self.bool() | (other.bool() if isinstance(other, Math) else bool(other))

    def logical_xor(self, other: Any) -> Tensor:
        return self.bool() ^ (other.bool() if isinstance(other, Math) else bool(other))

    def fmod(self, other: Any) -> Tensor:
        """The remainder with the sign of self: x - trunc(x / y) * y, without rounding."""
        if self.dtype.is_float or isinstance(other, float) or (isinstance(other, Math) and other.dtype.is_float):
            size = self.abs() % (other.abs() if isinstance(other, Math) else abs(other))
            return choose(self < 0, size.neg(), size)
        return self - self.detach().div(_plain(other), rounding_mode="trunc") * other  # type: ignore[no-any-return]

    def lerp(self, end: Any, weight: Any) -> Tensor:
        """self + weight * (end - self)."""
        return self + (end - self) * weight  # type: ignore[no-any-return]

    def logaddexp(self, other: Any) -> Tensor:
        """log(exp(self) + exp(other))."""
        m = self.detach().maximum(_plain(other))
        return ((self - m).exp() + (other - m).exp()).log() + m  # type: ignore[no-any-return]

    def copysign(self, other: Any) -> Tensor:
        """|self| with the sign of other (a zero counts as positive)."""
        negative = other < 0
        return self * choose(negative ^ (self < 0), -1.0, 1.0).cast(core.float_of(self.dtype))

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Values below `min` become min, above `max` max. At a bound itself the gradient is 0 (PyTorch: 1)."""
        if min is None and max is None:
            raise ValueError(f"clamp needs min or max\n  at {user_line()}")
        x = self.maximum(min) if min is not None else make(self.node, self.flow)
        return x.minimum(max) if max is not None else x

    clip = clamp

    # Activations.
    def relu(self) -> Tensor:
        """max(x, 0); gradient 0 at 0."""
        return binary("maximum", self, 0)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x)), with -x bounded so that the gradient stays finite."""
        x = self.float_()
        return (x.neg().minimum(_EXP_LIMIT[x.dtype.name]).exp() + 1).reciprocal()

    def silu(self) -> Tensor:
        """x * sigmoid(x)."""
        return self * self.sigmoid()

    swish = silu

    def gelu(self, approximate: str = "none") -> Tensor:
        """x * Phi(x) with the normal distribution's Phi: by erf, or approximate='tanh' (Hendrycks and Gimpel 2016), where
        (1 + tanh u) / 2 is computed as sigmoid(2 u)."""
        if approximate == "tanh":
            return self * (self * (math.sqrt(8 / math.pi) * (self * self * 0.044715 + 1))).sigmoid()
        if approximate != "none":
            raise RuntimeError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}\n  at {user_line()}")
        return self * 0.5 * ((self * math.sqrt(0.5)).erf() + 1)

    def quick_gelu(self) -> Tensor:
        return self * (self * 1.702).sigmoid()

    def softplus(self, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
        """log(1 + exp(beta x)) / beta, without overflow; beyond `threshold` it is x in float32 anyway."""
        x = self * beta if beta != 1 else self
        m = x.relu().detach()
        return (m + (m.neg().exp() + (x - m).exp()).log()) * (1 / beta)

    def logsigmoid(self) -> Tensor:
        return self.neg().softplus().neg()

    def mish(self) -> Tensor:
        return self * self.softplus().tanh()

    def _below(self) -> Tensor:
        """x where it is not above 0, else 0: exp of it cannot overflow, and at 0 the gradient flows."""
        return choose(self > 0, 0.0, self)

    def elu(self, alpha: float = 1.0) -> Tensor:
        """x above 0, alpha (exp(x) - 1) below."""
        return choose(self > 0, self, (self._below().exp() - 1) * alpha)

    def celu(self, alpha: float = 1.0) -> Tensor:
        return choose(self > 0, self, ((self._below() * (1 / alpha)).exp() - 1) * alpha)

    def selu(self) -> Tensor:
        """Klambauer et al. 2017."""
        return self.elu(1.6732632423543772) * 1.0507009873554805

    def leaky_relu(self, negative_slope: float = 0.01) -> Tensor:
        return choose(self > 0, self, self * negative_slope)

    def relu6(self) -> Tensor:
        return self.clamp(0, 6)

    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
        return self.clamp(min_val, max_val)

    def hardsigmoid(self) -> Tensor:
        """relu6(x + 3) / 6."""
        return (self + 3).relu6() * (1 / 6)

    def hardswish(self) -> Tensor:
        return self * self.hardsigmoid()

    def softsign(self) -> Tensor:
        return self / (self.abs() + 1)


def _plain(x: Any) -> Any:
    return x.detach() if isinstance(x, Reduce) else x


def power(x: Any, e: Any) -> Tensor:
    """x ** e, see Math.pow."""
    if isinstance(e, (int, float)) and not isinstance(e, bool):
        if not x.dtype.is_float:
            if isinstance(e, float):
                x = x.float_()
            elif e < 0:
                raise RuntimeError(
                    f"integers to negative integer powers are not allowed; cast to float first\n  at {user_line()}"
                )
        if e == int(e) and abs(e) <= 64:
            return _whole_power(x, int(e))
        if e in (0.5, -0.5):
            return x.sqrt() if e > 0 else x.rsqrt()  # type: ignore[no-any-return]
    if not isinstance(e, core.Base):
        e = core._cls.full(x.shape, e, dtype=x.dtype if x.dtype.is_float else None)
    if not x.dtype.is_float and not e.dtype.is_float:
        return power(x.cast(dtypes.float64), e.cast(dtypes.float64)).round().cast(dtypes.promote(x.dtype, e.dtype))
    size = (x.abs().log() * e).exp()
    whole, odd = e.floor() == e, (e * 0.5).floor() * 2 != e
    signed = choose(x < 0, choose(whole, choose(odd, size.neg(), size), math.nan), size)
    return choose(e == 0, 1.0, choose((x == 0) & (e > 0), 0.0, signed))


def _whole_power(x: Any, e: int) -> Tensor:
    if e == 0:
        return core._cls.ones(x.shape, dtype=x.dtype)  # type: ignore[no-any-return]
    out: Any = None
    square, k = x, abs(e)
    while k:
        if k & 1:
            out = square if out is None else out * square
        k >>= 1
        if k:
            square = square * square
    if out is x:
        out = make(x.node, x.flow)
    return out.reciprocal() if e < 0 else out  # type: ignore[no-any-return]


__all__ = ["Math", "power"]
