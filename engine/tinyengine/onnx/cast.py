"""Casts, and the rounding to dtypes that the engine does not have (they are `values.Held`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.onnx import values
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import ELEMENTS, HELD, STRING, Held, Scale, Small, Whole

FP8 = {17: Small("fp8e4m3", 3, -6, 448.0), 19: Small("fp8e5m2", 2, -14, 57344.0)}


def power_of_two(e: Any) -> Any:
    """2^e of int32 tensors, -126 <= e <= 127."""
    return ((e + 127) << 23).bitcast(dtypes.float32)


def exponent(x: Any) -> Any:
    """The int32 e with 2^e <= |x| < 2^(e + 1), at least -127."""
    return ((x.abs().bitcast(dtypes.int32)) >> 23) - 127


def rounded(x: Any, f: Small) -> Any:
    """float32 x with the digits of `f`, ties to even; the range has no end."""
    step = power_of_two(exponent(x).maximum(f.least) - f.mantissa)
    return (x / step).round() * step


def to_small(x: Any, f: Small, saturate: bool) -> Any:
    """float32 x as an element of `f`, in float32. NaN stays NaN, or becomes -0 where `f` has none; beyond the largest it is
    that, or, not to saturate, NaN."""
    r = rounded(x, f)
    over = r.abs() > f.largest
    bounded = r.clamp(-f.largest, f.largest)
    r = bounded if saturate or not f.nan else over.where(math.nan, r)
    if not f.nan:
        return (x != x).where(-0.0, r)
    r = (r == 0).where(0.0, r)  # these have no negative zero
    return (x != x).where(math.nan, r)


def to_whole(x: Any, w: Whole) -> Any:
    """x as an integer of so few bits; it wraps around."""
    x = x.cast(dtypes.int32)
    x = x & w.high if w.low == 0 else ((x - w.low) & ((1 << w.bits) - 1)) + w.low
    return x.cast(w.holder)


def to_scale(x: Any, mode: str, saturate: bool) -> Any:
    """float32 x as a power of two: 'up', 'down' or to the 'nearest' (a tie goes up). Outside the range the nearest power, or, not
    to saturate, NaN."""
    bits = x.abs().bitcast(dtypes.int32)
    e, rest = (bits >> 23) - 127, bits & 0x7FFFFF
    if mode == "up":
        e = e + (rest > 0).cast(dtypes.int32)
    elif mode == "nearest":
        e = e + (rest >= 0x400000).cast(dtypes.int32)
    none = (x != x) if saturate else (x != x) | (e > 127) | (x.abs() < 2.0**-127)
    e = e.minimum(127).maximum(-127)
    p = (e < -126).where(2.0**-127, power_of_two(e.maximum(-126)))
    return none.where(math.nan, p)


def to_fp8(x: Any, element: int) -> Any:
    """Not to saturate: what is too large becomes NaN, or infinite where there are infinities."""
    d = ELEMENTS[element]
    f = FP8[element]
    x = x.float()
    over = (rounded(x, f).abs() > f.largest) | (x.abs() == math.inf)
    bits = x.cast(d).bitcast(dtypes.uint8)
    far = (bits & 0x80) | (0x7F if element == 17 else 0x7C)
    return over.where(far, bits).bitcast(d)


def cast(x: Any, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """Any value as ONNX's element type `to`."""
    if to == STRING:
        return _to_string(x)
    if isinstance(x, np.ndarray) and x.dtype.kind == "O":
        return cast(_from_string(x, to), to, saturate, round_mode)
    x = x.values if isinstance(x, Held) else values.as_recorded(x)
    if to in HELD:
        f = HELD[to]
        if isinstance(f, Whole):
            return Held(to_whole(x, f), to)
        x = x.float()
        return Held(to_scale(x, round_mode, bool(saturate)) if isinstance(f, Scale) else to_small(x, f, bool(saturate)), to)
    if to not in ELEMENTS:
        raise NotImplementedError(f"the engine has no {values.element_name(to)}")
    if to in FP8 and not saturate:
        return to_fp8(x, to)
    return x.cast(ELEMENTS[to])


def _to_string(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype.kind == "O":
        return x
    a = values.on_host(x)
    return np.array([np.format_float_positional(v, trim="-") if a.dtype.kind == "f" else str(v) for v in a.reshape(-1)],
                    object).reshape(a.shape)  # fmt: skip


def _from_string(x: Any, to: int) -> Any:
    d = ELEMENTS.get(to, dtypes.float32)
    read: Any = float if d.is_float else int
    return np.array([read(s) for s in x.reshape(-1)], d.numpy if d.layout is None else np.float32).reshape(x.shape)


def _folded(x: Any, y: Any) -> Any:
    return values.folded(y) if values.known(x) else y


@op("Cast", 6, raw=True)
def cast_op(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return _folded(x, cast(x, to, saturate, round_mode))


@op("CastLike", raw=True)
def cast_like(x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return _folded(x, cast(x, values.element_of(like), saturate, round_mode))


@op("BitCast", raw=True)
def bit_cast(x: Any, *, to: int) -> Any:
    if to not in ELEMENTS or isinstance(x, Held):
        raise NotImplementedError(f"bits of {values.element_name(values.element_of(x))} as {values.element_name(to)}")
    y = values.as_recorded(x)
    if y.dtype is dtypes.bool_ or ELEMENTS[to] is dtypes.bool_:
        y = y.cast(dtypes.uint8) if y.dtype is dtypes.bool_ else y
        return _folded(x, y.cast(dtypes.bool_) if ELEMENTS[to] is dtypes.bool_ else y.bitcast(ELEMENTS[to]))
    return _folded(x, y.bitcast(ELEMENTS[to]))


__all__ = ["cast"]
