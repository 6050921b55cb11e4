"""Floats that NumPy has not: how bfloat16 and the 8-bit floats lie in memory, and their conversion from and to float32.

Memory holds their bits as unsigned integers; whoever computes holds the values as float32, which has every one of them. To the
nearest, ties to even. bfloat16 overflows to infinity (IEEE 754); the 8-bit floats saturate, infinities included, and keep NaN
(OCP 8-bit floating point specification, rev. 1.0, saturation mode). `stages.arithmetic.narrow` does the same in kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Sign, exponent, `mantissa` bits. `bias` of the exponent; `largest` finite value, to which it saturates, or None where what
    is larger becomes infinite; `infinite`: the largest exponent stands for infinity and NaN; else only all ones is NaN."""

    mantissa: int
    bias: int
    largest: float | None
    infinite: bool

    @property
    def smallest_normal(self) -> float:
        return float(2.0 ** (1 - self.bias))

    @property
    def magic(self) -> float:
        """The float32 whose last place is this format's smallest step: adding it rounds what is below the normal range."""
        return float(2.0 ** (1 - self.bias - self.mantissa + 23))


BF16 = Layout(7, 127, None, True)
E4M3 = Layout(3, 7, 448.0, False)
E5M2 = Layout(2, 15, 57344.0, True)
NAN8 = 0x7F  # of both 8-bit floats


def encode(values: Array, f: Layout) -> Array:
    """The bits (uint16 or uint8) of `values`, which become float32 first."""
    with np.errstate(all="ignore"):
        x = np.ascontiguousarray(values, np.float32)
        raw = x.view(np.uint32)
        if f is BF16:
            out = np.where(x == x, (raw + np.uint32(0x7FFF) + ((raw >> 16) & np.uint32(1))) >> 16, (raw >> 16) | np.uint32(0x40))
            return out.astype(np.uint16).reshape(np.shape(values))
        size = np.minimum(np.abs(x), np.float32(f.largest))
        bits, cut = size.view(np.uint32), 23 - f.mantissa
        normal = (bits + np.uint32((1 << cut - 1) - 1) + ((bits >> cut) & np.uint32(1))) >> cut
        normal = normal - np.uint32((127 - f.bias) << f.mantissa)
        magic = np.float32(f.magic)
        below = (size + magic).view(np.uint32) - magic.view(np.uint32)
        out = np.where(size < np.float32(f.smallest_normal), below, normal)
        out = np.where(x == x, out, np.uint32(NAN8)) | ((raw >> 24) & np.uint32(0x80))
        bits8: Array = out.astype(np.uint8).reshape(np.shape(values))
        return bits8


def decode(bits: Array, f: Layout) -> Array:
    """The float32 values of these bits."""
    out: Array
    if f is BF16:
        out = (np.ascontiguousarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(np.shape(bits))
    else:
        out = _TABLES[f][bits]
    return out


def _table(f: Layout) -> Array:
    n = np.arange(256)
    exponent, rest = (n & 0x7F) >> f.mantissa, n & ((1 << f.mantissa) - 1)
    power = np.ldexp(1.0, np.maximum(exponent, 1) - f.bias - f.mantissa)
    size = (rest + np.where(exponent > 0, 1 << f.mantissa, 0)) * power
    if f.infinite:
        size = np.where(exponent == 0x7F >> f.mantissa, np.where(rest == 0, np.inf, np.nan), size)
    else:
        size = np.where((n & 0x7F) == NAN8, np.nan, size)
    return np.copysign(size, np.where(n & 0x80, -1.0, 1.0)).astype(np.float32)


_TABLES = {f: _table(f) for f in (E4M3, E5M2)}
