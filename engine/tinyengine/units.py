"""Times and counts as people read them, in reasons and texts; tinyviz formats the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence

SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
FLOPS = tuple((size, f"{prefix}FLOP") for size, prefix in COUNTS)


def seconds(value: float) -> str:
    """A time in the unit that fits it, with three significant digits: 4.88 ns, 1.50 ms."""
    return scaled(value, SECONDS)


def nbytes(value: float) -> str:
    """An amount of memory with three significant digits: 12 B, 4.00 KiB."""
    return scaled(value, BYTES)


def count(value: float) -> str:
    """A number with three significant digits: 12, 1.50 k, 2.00 G."""
    return scaled(value, COUNTS)


def flops(value: float) -> str:
    """A number of floating-point operations with three significant digits: 12 FLOP, 2.00 GFLOP."""
    return scaled(value, FLOPS)


def some(n: int, word: str) -> str:
    """How many there are, with the word for one of them in its plural where it needs it: 1 launch, 2 launches."""
    return f"{n} {word}" if n == 1 else f"{n} {word}{'es' if word.endswith('ch') else 's'}"


def scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """`value` in the largest of `units`, (size, name) from large to small, that it reaches."""
    size, unit = next((u for u in units if abs(value) >= u[0] * 0.9995), units[-1])
    return f"{_three(value / size)}{' ' if unit else ''}{unit}"


def _three(value: float) -> str:
    """Three significant digits, no exponent; whole numbers stay whole."""
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{min(digits, 3)}f}"
