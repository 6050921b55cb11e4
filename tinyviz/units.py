"""Numbers as people read them; extension/src/units.ts formats the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence

MISSING = "–"  # not computed or not measured; never 0

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_COUNTS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))


def seconds(value: float | None) -> str:
    return _scaled(value, _SECONDS, " ")


def nbytes(value: float | None) -> str:
    return _scaled(value, _BYTES, " ")


def count(value: float | None) -> str:
    return _scaled(value, _COUNTS, "")


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


def _scaled(value: float | None, units: tuple[tuple[float, str], ...], space: str) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    size, unit = next((u for u in units if abs(value) >= u[0] * 0.9995), units[-1])
    return f"{_three(value / size)}{space if unit else ''}{unit}"


def _three(value: float) -> str:
    """Three significant digits, no exponent; whole numbers stay whole."""
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{min(digits, 3)}f}"


def shape(extents: Sequence[int | str]) -> str:
    """The extents of a tensor, as in [n≤1024, 8]."""
    return f"[{', '.join(map(str, extents))}]"


def most(extent: int | str) -> int:
    """The largest value of an extent; -1 for text that names none."""
    if isinstance(extent, int):
        return extent
    digits = extent.rpartition("≤")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else -1
