"""Conversion of bfloat16 and 8-bit floats from and to float32 by bit operations: exact on every machine, also below the
normal range.

Native instructions are passed over on purpose: AVX512_BF16's vcvtneps2bf16 takes denormal numbers for 0. The NumPy twin of each
function, and what the formats are, stand in `tinyengine.narrow`.
"""

from __future__ import annotations

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.loopnest import Expr, apply, const
from tinyengine.narrow import BF16, NAN8, Layout
from tinyengine.stages.arithmetic import math as m

U32, F32 = dtypes.uint32, dtypes.float32


def _u(value: int, like: Expr) -> Expr:
    return const(value, U32, like.lanes)


def _and(x: Expr, mask: int) -> Expr:
    return apply("and", (x, _u(mask, x)))


def _or(x: Expr, y: Expr) -> Expr:
    return apply("or", (x, y))


def _shift(op: str, x: Expr, by: int) -> Expr:
    return apply(op, (x, _u(by, x))) if by else x


def _floats(bits: Expr) -> Expr:
    return apply("bitcast", (bits,), F32)


def _rounded(bits: Expr, cut: int) -> Expr:
    """`bits` so that the nearest ones, ties to even, stand above the lowest `cut`: a carry into the exponent is what it should
    be."""
    last = _and(_shift("shr", bits, cut), 1)
    return m.add(m.add(bits, _u((1 << cut - 1) - 1, bits)), last)


def encode(x: Expr, d: DType) -> Expr:
    """float32 -> `d`."""
    f = d.layout
    assert f is not None and x.dtype is F32
    raw = apply("bitcast", (x,), U32)
    number = apply("eq", (x, x))
    if f is BF16:
        out = _shift("shr", m.where(number, _rounded(raw, 16), _or(raw, _u(0x400000, raw))), 16)
    else:
        out = m.where(number, _encode8(raw, f), _u(NAN8, raw))
        out = _or(out, _and(_shift("shr", raw, 24), 0x80))
    small = dtypes.by_name(f"uint{8 * d.itemsize}")
    return apply("bitcast", (apply("cast", (out,), small),), d)


def _encode8(raw: Expr, f: Layout) -> Expr:
    assert f.largest is not None
    size = m.at_most(_floats(_and(raw, 0x7FFFFFFF)), f.largest)
    bits = apply("bitcast", (size,), U32)
    cut = 23 - f.mantissa
    normal = m.sub(_shift("shr", _rounded(bits, cut), cut), _u((127 - f.bias) << f.mantissa, bits))
    magic = m.c(f.magic, size)
    below = m.sub(apply("bitcast", (m.add(size, magic),), U32), apply("bitcast", (magic,), U32))
    return m.where(m.lt(size, m.c(f.smallest_normal, size)), below, normal)


def decode(x: Expr) -> Expr:
    """bfloat16 or an 8-bit float -> float32."""
    f = x.dtype.layout
    assert f is not None
    raw = apply("cast", (apply("bitcast", (x,), dtypes.by_name(f"uint{8 * x.dtype.itemsize}")),), U32)
    if f is BF16:
        return _floats(_shift("shl", raw, 16))
    size = _shift("shl", _and(raw, 0x7F), 23 - f.mantissa)
    lowest = (128 - f.bias) << 23  # the bits of the smallest normal number
    normal = m.add(size, _u((127 - f.bias) << 23, raw))
    below = m.sub(_floats(_or(size, _u(lowest, raw))), m.c(f.smallest_normal, _floats(raw)))
    out = m.where(m.lt(size, _u(1 << 23, raw)), apply("bitcast", (below,), U32), normal)
    special = (0x7F >> f.mantissa << 23) if f.infinite else NAN8 << 23 - f.mantissa
    out = m.where(m.lt(size, _u(special, raw)), out, _or(size, _u(0x7F800000, raw)))
    return _floats(_or(out, _shift("shl", _and(raw, 0x80), 24)))


def low_half(pair: Expr) -> Expr:
    """The first of two bfloat16 in a uint32, as float32."""
    return _floats(_shift("shl", pair, 16))


def high_half(pair: Expr) -> Expr:
    return _floats(_and(pair, 0xFFFF0000))
