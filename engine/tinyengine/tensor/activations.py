"""Activations: relu, sigmoid, gelu and their kind. Formulas, defaults and what happens at the seams are PyTorch's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinyengine import dtypes
from tinyengine.origin import user_line
from tinyengine.tensor.elementwise import binary, choose
from tinyengine.tensor.math import Math

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_LOG2E = math.log2(math.e)
_FORGOTTEN = {"float32": 20.0, "float64": 40.0}  # log(1 + exp(x)) is x beyond


class Activations(Math):
    """Activation methods; ints become the default float."""

    __slots__ = ()

    def relu(self) -> Tensor:
        """max(x, 0); gradient 0 at 0. RuntimeError for bools."""
        if self.dtype is dtypes.bool_:
            raise RuntimeError(f"relu of bools; cast them first\n  at {user_line()}")
        return binary("maximum", self, 0)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return (self.float_().neg().exp() + 1).reciprocal()

    def silu(self) -> Tensor:
        """x * sigmoid(x)."""
        return self * self.sigmoid()

    swish = silu

    def gelu(self, approximate: str = "none") -> Tensor:
        """x * Phi(x) with the normal distribution's Phi: by erf, or approximate='tanh' (Hendrycks and Gimpel 2016), where
        (1 + tanh u) / 2 is computed as sigmoid(2 u)."""
        if approximate == "tanh":
            scale = -math.sqrt(8 / math.pi) * _LOG2E  # e**(-2 u) = 2**(scale (x + 0.044715 x**3))
            return self * ((self * (self * self * (0.044715 * scale) + scale)).exp2() + 1).reciprocal()
        if approximate != "none":
            raise RuntimeError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}\n  at {user_line()}")
        return self * 0.5 * ((self * math.sqrt(0.5)).erf() + 1)

    def quick_gelu(self) -> Tensor:
        """x * sigmoid(1.702 x)."""
        return self * ((self * (-1.702 * _LOG2E)).exp2() + 1).reciprocal()

    def softplus(self, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
        """log(1 + exp(beta x)) / beta; x itself where beta x is above `threshold`."""
        x = self.float_()
        z = x * beta if beta != 1 else x
        return choose(z > threshold, x, z.minimum(threshold).exp().log1p() * (1 / beta))

    def logsigmoid(self) -> Tensor:
        """log(sigmoid(x)), without overflow."""
        x = self.float_()
        return x.neg().softplus(1.0, _FORGOTTEN[x.dtype.name]).neg()

    def mish(self) -> Tensor:
        """x * tanh(softplus(x))."""
        return self * self.softplus().tanh()

    def elu(self, alpha: float = 1.0) -> Tensor:
        """x above 0, alpha (exp(x) - 1) below."""
        return choose(self > 0, self, self._below().expm1() * alpha)

    def _below(self) -> Tensor:
        """x where it is not above 0, else 0: exp of it cannot overflow, and at 0 the gradient flows."""
        return choose(self > 0, 0.0, self)

    def celu(self, alpha: float = 1.0) -> Tensor:
        """x above 0, alpha (exp(x / alpha) - 1) below."""
        return choose(self > 0, self, (self._below() * (1 / alpha)).expm1() * alpha)

    def selu(self, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
        """gamma * elu(x, alpha) (Klambauer et al. 2017)."""
        return self.elu(alpha) * gamma

    def leaky_relu(self, negative_slope: float = 0.01) -> Tensor:
        """x above 0, negative_slope * x below."""
        return choose(self > 0, self, self * negative_slope)

    def relu6(self) -> Tensor:
        """x between 0 and 6."""
        return self.hardtanh(0, 6)

    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
        """x between the two; at a bound the gradient is 0. Ints stay ints. RuntimeError for bools, and for a negative bound of an
        unsigned dtype."""
        if self.dtype is dtypes.bool_ or (self.dtype.kind == "uint" and min(min_val, max_val) < 0):
            raise RuntimeError(f"hardtanh of {self.dtype} between {min_val} and {max_val}\n  at {user_line()}")
        low, high = (int(min_val), int(max_val)) if self.dtype.is_int else (min_val, max_val)
        return choose(self > low, choose(self < high, self, high), low) if not self.dtype.is_float else self._between(low, high)

    def _between(self, low: Any, high: Any) -> Tensor:
        return self.maximum(low).minimum(high)

    def hardsigmoid(self, alpha: float = 1 / 6, beta: float = 0.5) -> Tensor:
        """alpha * x + beta, between 0 and 1."""
        if (alpha, beta) == (1 / 6, 0.5):
            return (self + 3).hardtanh(0, 6) * (1 / 6)
        return (self * alpha + beta).hardtanh(0, 1)

    def hardswish(self) -> Tensor:
        """x * hardsigmoid(x)."""
        return self * self.hardsigmoid()

    def softsign(self) -> Tensor:
        """x / (1 + |x|)."""
        return self / (self.abs() + 1)


__all__ = ["Activations"]
