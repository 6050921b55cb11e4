"""Times and counts as people read them, in reasons and texts; tinyviz formats the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence

SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """A time in the unit that fits it, with three significant digits: 4.88 ns, 1.50 ms."""
    return scaled(value, SECONDS)


def some(n: int, word: str) -> str:
    """How many there are, with the word for one of them in its plural where it needs it: 1 launch, 2 launches."""
    return f"{n} {word}" if n == 1 else f"{n} {word}{'es' if word.endswith('ch') else 's'}"


def scaled(value: float, units: Sequence[tuple[float, str]], space: str = " ") -> str:
    """`value` in the largest of `units`, (size, name) from large to small, that it reaches."""
    size, unit = next((u for u in units if abs(value) >= u[0] * 0.9995), units[-1])
    return f"{_three(value / size)}{space if unit else ''}{unit}"


def _three(value: float) -> str:
    """Three significant digits, no exponent; whole numbers stay whole."""
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{min(digits, 3)}f}"
