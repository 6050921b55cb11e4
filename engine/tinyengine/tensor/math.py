"""Functions of one or two elements that are composed of the primitives: abs, pow, floor, cos, asin, logaddexp and their kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make
from tinyengine.tensor.elementwise import choose, pair, unary
from tinyengine.tensor.reduce import Reduce

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

# Minimax polynomials, highest power first, in z = s^2: asin(s) = s + s z P(z) up to s = 1/2, atan(s) = s + s z P(z) up to
# tan(pi/8). The short ones (error 4e-9) are for float32, the long ones (1e-18) for float64.
_ASIN = (0.03369084720283012, 0.017149238357677253, 0.03110066273549457, 0.04459940152851218, 0.07500094543497424,
         0.16666666337430908)  # fmt: skip
_ASIN_LONG = (0.02961201126495512, -0.01924167174674304, 0.019554513336123378, 0.0030448799094556773, 0.009319560794767446,
              0.009621842970100282, 0.011566459612121669, 0.01396378001220357, 0.017352816540325496, 0.02237215744350722,
              0.03038194447553234, 0.044642857142551895, 0.07500000000000118, 0.16666666666666666)  # fmt: skip
_ATAN = (0.05048055010223574, -0.08624643784438364, 0.11071360682318138, -0.14284150959481018, 0.19999977254347343,
         -0.33333333279242233)  # fmt: skip
_ATAN_LONG = (-0.013917695219310572, 0.030635176368556078, -0.041044134902075015, 0.0471938939438005, -0.052580406718134826,
              0.058819251621305094, -0.06666642013802823, 0.07692306735718386, -0.09090909067001965, 0.11111111110754596,
              -0.14285714285711518, 0.19999999999999993, -0.3333333333333333)  # fmt: skip


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """By Horner's rule, highest power first."""
    p: Any = coefficients[0]
    for c in coefficients[1:]:
        p = x * p + c
    return p


def connected(x: Any, *others: Any) -> Any:
    """x, with the gradient zero (and not missing) for the others, which it does not depend on."""
    always = make(record.const(True, dtypes.bool_, x.shape, here(3)), core.NO_FLOW)
    for y in others:
        if isinstance(y, core.Base) and y.flow:
            x = choose(always, x, cast(Any, y).cast(x.dtype))
    return x


class Math(Reduce):
    """Composed elementwise methods. Names, domains and results are PyTorch's."""

    __slots__ = ()

    def abs(self) -> Tensor:
        """|x|; gradient 0 at 0."""
        return self.maximum(self.neg()) if self.dtype.kind in ("int", "float") else core.same(self)

    def __abs__(self) -> Tensor:
        return self.abs()

    def sign(self) -> Tensor:
        """-1, 0 or 1 in the same dtype."""
        s = choose(self > 0, 1, choose(self < 0, -1, 0)).cast(self.dtype)
        return make(s.node, self.flow if self.dtype.is_float else core.NO_FLOW)

    def square(self) -> Tensor:
        """x * x; of bools int32."""
        x = self if self.dtype is not dtypes.bool_ else self.cast(dtypes.default_int)
        return x * x

    def rsqrt(self) -> Tensor:
        """1 / sqrt(x)."""
        return self.sqrt().reciprocal()

    def floor(self) -> Tensor:
        """The largest whole number not above x. Gradient zero."""
        if not self.dtype.is_float:
            return core.same(self)
        t = self.trunc()
        return (self < t).where(t - 1, t)

    def ceil(self) -> Tensor:
        """The smallest whole number not below x."""
        return self.neg().floor().neg() if self.dtype.is_float else core.same(self)

    def round(self, decimals: int = 0) -> Tensor:
        """The nearest number of so many `decimals` (of tens, where they are negative); halves go to the even one. Ints stay as
        they are."""
        if not self.dtype.is_float:
            return core.same(self)
        if decimals:
            scale = 10.0 ** abs(decimals)
            return (self * scale).round() / scale if decimals > 0 else (self / scale).round() * scale
        return unary("round", self)

    def frac(self) -> Tensor:
        """x - trunc(x)."""
        return self - self.trunc()

    def pow(self, exponent: Any) -> Tensor:
        """x to the power of a number or tensor. Whole exponents up to 64 are multiplied out; others are exp(e log|x|), with the
        sign where the exponent is odd and NaN where x < 0 and it is not whole. Ints to ints are exact, and wrap around."""
        return power(self, exponent)

    def __pow__(self, exponent: Any) -> Tensor:
        return self.pow(exponent)

    def __rpow__(self, base: Any) -> Tensor:
        if isinstance(base, (int, float)) and 0 < base < math.inf and self.dtype.is_float:
            return self.exp2() if base == 2 else (self * math.log(base)).exp()
        d = dtypes.promote_scalar(self.dtype, base) if isinstance(base, (int, float)) else None
        return power(core._cls(base, dtype=d), self)

    def exp2(self) -> Tensor:
        """2 to the x."""
        return unary("exp2", self)

    def expm1(self) -> Tensor:
        """exp(x) - 1, precise near 0 too: there it is a polynomial (Taylor)."""
        x = self.float_()
        small = x.abs() < 0.35
        terms = 9 if x.dtype.itemsize < 8 else 15
        series = polynomial(choose(small, x, 0.0), [1 / math.factorial(k) for k in range(terms, 0, -1)] + [0.0])
        return choose(small, series, x.exp() - 1)

    def log2(self) -> Tensor:
        """Logarithm to base 2."""
        return self.log() * (1 / math.log(2))

    def log10(self) -> Tensor:
        """Logarithm to base 10."""
        return self.log() * (1 / math.log(10))

    def log1p(self) -> Tensor:
        """log(1 + x), precise near 0 too: what 1 + x rounds away is added again (Higham 2002, "Accuracy and stability")."""
        x = self.float_()
        u = x + 1
        usual = (u > 0) & (u < math.inf)
        lost = choose(usual, x - (u - 1), 0.0) / choose(usual, u, 1.0)
        return u.log() + lost.detach()

    def cos(self) -> Tensor:
        """sin(x + pi/2)."""
        return (self + math.pi / 2).sin()

    def tan(self) -> Tensor:
        """sin(x) / cos(x)."""
        return self.sin() / self.cos()

    def sinh(self) -> Tensor:
        """(e + e / (e + 1)) / 2 of e = exp(|x|) - 1, with the sign of x: precise near 0 too."""
        side = self._side()
        x = self * side
        e = x.expm1()
        low = choose(x < 20, e, 1.0)
        return side * (e + choose(x < 20, low / (low + 1), 1.0)) * 0.5

    def cosh(self) -> Tensor:
        """(exp(x) + exp(-x)) / 2."""
        x = self.float_()
        return (x.exp() + x.neg().exp()) * 0.5

    def _side(self) -> Tensor:
        """1 where x >= 0, else -1, as a constant for the gradient: an odd function is side * f(side * x)."""
        return choose(self < 0, -1.0, 1.0).cast(core.float_of(self.dtype))

    def _arc(self) -> tuple[Any, Any]:
        """(|x| > 1/2, asin of |x| there half of acos): pi/2 - 2 asin(sqrt((1 - x) / 2)) is asin(x)."""
        x = self.float_() * self._side()
        big = x > 0.5
        z = choose(big, (1 - x) * 0.5, x * x)
        root = choose(big, choose(big, z, 1.0).sqrt(), x)
        return big, root + root * z * polynomial(z, _ASIN if x.dtype.itemsize < 8 else _ASIN_LONG)

    def asin(self) -> Tensor:
        """Inverse sine: a polynomial up to 1/2, and from there the identity with the square root of (1 - x) / 2. NaN beyond 1."""
        big, p = self._arc()
        return self._side() * choose(big, math.pi / 2 - p * 2, p)

    def acos(self) -> Tensor:
        """Inverse cosine, precise near 1 too; see `asin`."""
        big, p = self._arc()
        side = self._side()
        return choose(big, choose(self < 0, math.pi - p * 2, p * 2), math.pi / 2 - side * p)

    def atan(self) -> Tensor:
        """pi/2 - atan(1/x) beyond 1; twice the atan of x / (1 + sqrt(1 + x^2)), which is a polynomial."""
        side = self._side()
        a: Any = self * side
        far = a > 1
        t: Any = choose(far, choose(far, a, 1.0).reciprocal(), a)
        u = t / ((t * t + 1).sqrt() + 1)
        z = u * u
        p = (u + u * z * polynomial(z, _ATAN if u.dtype.itemsize < 8 else _ATAN_LONG)) * 2
        return side * choose(far, math.pi / 2 - p, p)

    def asinh(self) -> Tensor:
        """log(x + sqrt(x^2 + 1)) by log1p; log(x) + log(2) beyond 10^6, where the square could overflow."""
        side = self._side()
        x: Any = self * side
        far = x > 1e6
        near = choose(far, 1.0, x)
        near = (near + near * near / ((near * near + 1).sqrt() + 1)).log1p()
        return side * choose(far, choose(far, x, 1.0).log() + math.log(2), near)

    def acosh(self) -> Tensor:
        """log(x + sqrt(x^2 - 1)), by log1p of what is beyond 1. NaN below 1."""
        t: Any = self.float_() - 1
        return (t + t.sqrt() * (t + 2).sqrt()).log1p()  # type: ignore[no-any-return]

    def atanh(self) -> Tensor:
        """log((1 + x) / (1 - x)) / 2, by log1p. Infinite at 1, NaN beyond."""
        side = self._side()
        x: Any = self * side
        return side * (x * 2 / (1 - x)).log1p() * 0.5  # type: ignore[no-any-return]

    def isnan(self) -> Tensor:
        """True where NaN."""
        return self != self

    def isinf(self, detect_positive: bool = True, detect_negative: bool = True) -> Tensor:
        """Whether infinite: of both signs, or of those asked for."""
        if detect_positive and detect_negative:
            return self.abs() == math.inf
        return (self == math.inf) & detect_positive | (self == -math.inf) & detect_negative

    def isfinite(self) -> Tensor:
        """True where neither infinite nor NaN."""
        return self.abs() < math.inf if self.dtype.is_float else self == self

    def isclose(self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        """|self - other| <= atol + rtol * |other|, or equal. RuntimeError for another dtype."""
        y: Any = other if isinstance(other, core.Base) else core._cls(other, dtype=self.dtype)
        if y.dtype is not self.dtype:
            raise RuntimeError(f"isclose: {self.dtype} beside {y.dtype}; cast one of them\n  at {user_line()}")
        a, b = (self, y) if self.dtype.is_float else (self.cast(dtypes.float64), y.cast(dtypes.float64))
        apart = (a - b).abs()
        out: Tensor = (a == b) | (apart <= b.abs() * rtol + atol) & (apart < math.inf)
        return out | (a.isnan() & b.isnan()) if equal_nan else out

    def logical_and(self, other: Any) -> Tensor:
        """True where both are not zero."""
        return self.bool() & (other.bool() if isinstance(other, Math) else bool(other))

    def logical_or(self, other: Any) -> Tensor:
        """True where one is not zero."""
        return self.bool() | (other.bool() if isinstance(other, Math) else bool(other))

    def logical_xor(self, other: Any) -> Tensor:
        """True where exactly one is not zero."""
        return self.bool() ^ (other.bool() if isinstance(other, Math) else bool(other))

    def fmod(self, other: Any) -> Tensor:
        """The remainder with the sign of self (C's fmod), exact: for floats that of |self| by |other|; for ints
        x - trunc(x / y) * y, which is x where y is 0."""
        m, n, flow, _ = pair(self, other, "fmod")
        x, y = cast(Any, make(m, flow)), cast(Any, make(n, flow))
        if not m.dtype.is_float:
            return x - x.div(y, rounding_mode="trunc") * y  # type: ignore[no-any-return]
        size = choose(x < 0, x.neg(), x) % y.abs()
        return choose(x < 0, size.neg(), size)

    def lerp(self, end: Any, weight: Any) -> Tensor:
        """self + weight * (end - self). RuntimeError when `end` has another dtype."""
        if isinstance(end, core.Base) and end.dtype is not self.dtype:
            raise RuntimeError(f"lerp from {self.dtype} to {end.dtype}; cast one of them\n  at {user_line()}")
        work = core.wide(self.dtype)
        if work is not self.dtype and isinstance(end, core.Base):
            return self.cast(work).lerp(cast(Any, end).cast(work), weight).cast(self.dtype)
        return self + (end - self) * weight  # type: ignore[no-any-return]

    def logaddexp(self, other: Any) -> Tensor:
        """log(exp(self) + exp(other)), without overflow."""
        m, n, flow, _ = pair(self, other, "logaddexp", to_float=True)
        a, b = (cast(Any, make(x, flow)).cast(core.wide(m.dtype)) for x in (m, n))
        peak = a.maximum(b)
        peak = choose(peak.isfinite(), peak, 0.0).detach()
        return (((a - peak).exp() + (b - peak).exp()).log() + peak).cast(m.dtype)  # type: ignore[no-any-return]

    def copysign(self, other: Any) -> Tensor:
        """|self| with the sign of other, that of a zero included."""
        m, n, flow, _ = pair(self, other, "copysign", to_float=True)
        x, y = cast(Any, make(m, flow)), cast(Any, make(n, core.NO_FLOW))
        flipped = _negative(y) ^ _negative(x)
        out = choose(flipped, x.neg(), x)
        return connected(choose(x == 0, out.detach(), out), other)  # type: ignore[no-any-return]

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Values below `min` (a number or a tensor) become min, above `max` max; at a bound itself the gradient flows.
        RuntimeError without both."""
        if min is None and max is None:
            raise RuntimeError(f"clamp needs min or max\n  at {user_line()}")
        x: Any = self
        if min is not None:
            x = choose(x < min, min, x)
        return choose(x > max, max, x) if max is not None else x

    clip = clamp


def _negative(x: Any) -> Any:
    """Whether the sign is minus, of zeros too."""
    return (x < 0) | (x == 0) & (x.reciprocal() < 0)


def power(x: Any, e: Any) -> Tensor:
    """x ** e, see Math.pow."""
    if isinstance(e, (int, float)) and not isinstance(e, bool):
        if x.dtype is dtypes.bool_:
            x = x.cast(dtypes.default_int)
        if not x.dtype.is_float:
            if isinstance(e, float):
                x = x.float_()
            elif e < 0:
                raise RuntimeError(
                    f"integers to negative integer powers are not allowed; cast to float first\n  at {user_line()}"
                )
        if math.isfinite(e) and e == int(e) and abs(e) <= 64:
            return _whole_power(x.cast(core.wide(x.dtype)), int(e)).cast(x.dtype)
        if e in (0.5, -0.5):
            return x.sqrt() if e > 0 else x.rsqrt()  # type: ignore[no-any-return]
    m, n, flow, _ = pair(x, e, "pow")
    if m.dtype is dtypes.bool_:
        raise NotImplementedError(f"pow of bool tensors; cast one to an int\n  at {user_line()}")
    base, exponent = (cast(Any, make(v, flow)).cast(core.wide(m.dtype)) for v in (m, n))
    return _float_power(base, exponent).cast(m.dtype) if m.dtype.is_float else _int_power(base, exponent)


def _float_power(x: Any, e: Any) -> Tensor:
    zero = x == 0
    size = (choose(zero, 1.0, x.abs()).log() * e).exp()
    whole, odd = e.floor() == e, (e * 0.5).floor() * 2 != e
    signed = size * choose(x < 0, choose(whole, choose(odd, -1.0, 1.0), choose(x > -math.inf, math.nan, 1.0)), 1.0)
    at_zero = choose(e == 1, x, choose(e > 0, 0.0, math.inf))
    return choose(e == 0, 1.0, choose(zero, at_zero, signed))


def _int_power(x: Any, e: Any) -> Tensor:
    """Exact, and around at overflow, by squaring: six bits of the exponent, for beyond 63 only 0, 1 and -1 stay in range."""
    out, square = choose(e == e, 1, x), x
    for k in range(6):
        out = choose((e >> k) & 1 == 1, out * square, out)
        square = square * square
    beyond = choose(x * x == 1, choose(e & 1 == 1, x, 1), 0)  # to a negative power
    return choose(e < 0, beyond, choose((x == 0) & (e > 0), 0, out)).cast(x.dtype)


def _whole_power(x: Any, e: int) -> Tensor:
    if e == 0:
        return connected(core._cls.ones(x.shape, dtype=x.dtype), x)  # type: ignore[no-any-return]
    out: Any = None
    square, k = x, abs(e)
    while k:
        if k & 1:
            out = square if out is None else out * square
        k >>= 1
        if k:
            square = square * square
    if out is x:
        out = core.same(x)
    return out.reciprocal() if e < 0 else out  # type: ignore[no-any-return]


__all__ = ["Math", "connected", "polynomial", "power"]
