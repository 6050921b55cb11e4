"""Numbers as people read them; extension/src/units.ts formats the same way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tinyengine import units
from tinyengine.units import some as some

MISSING = "–"  # not computed or not measured; never 0


def seconds(value: float | None) -> str:
    return _shown(value, units.seconds)


def nbytes(value: float | None) -> str:
    return _shown(value, units.nbytes)


def count(value: float | None) -> str:
    return _shown(value, units.count)


def flops(value: float | None) -> str:
    return _shown(value, units.flops)


def percent(value: float | None) -> str:
    """A share of 1, as a percentage."""
    if value is None:
        return MISSING
    return f"{100 * value:.0f} %" if value >= 0.0995 or value == 0 else f"{100 * value:.1f} %"


def amount(value: float | None, unit: str) -> str:
    """A number in the unit of a wire field: s, bytes, flops, or none."""
    return {"s": seconds, "bytes": nbytes}.get(unit, count)(value)


def change(value: float | None, unit: str = "s") -> str:
    """A difference, with its sign."""
    return MISSING if value is None else ("−" if value < 0 else "+") + amount(abs(value), unit)


def _shown(value: float | None, form: Callable[[float], str]) -> str:
    return MISSING if value is None or not math.isfinite(value) else form(value)


def shape(extents: Sequence[int | str]) -> str:
    """The extents of a tensor, as in [n≤1024, 8]."""
    return f"[{', '.join(map(str, extents))}]"


def most(extent: int | str) -> int:
    """The largest value of an extent; -1 for text that names none."""
    if isinstance(extent, int):
        return extent
    digits = extent.rpartition("≤")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else -1
