"""Is a difference between two sets of measured times more than noise?"""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST = 6  # runs on each side; with fewer no difference is sure enough
CHANCE = 0.01  # below it a difference counts


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of the rank-sum test, normal approximation with ties and continuity: the chance of so large a difference if
    both came from one distribution. No assumption about its form, so a few slow runs do not decide. None: fewer than `LEAST`
    values on a side. (Mann & Whitney, "On a test of whether one of two random variables is stochastically larger", 1947.)"""
    n, m = len(a), len(b)
    if min(n, m) < LEAST:
        return None
    values = sorted([*((x, 0) for x in a), *((x, 1) for x in b)])
    ranks_of_a, ties, i = 0.0, 0.0, 0
    while i < n + m:
        j = i
        while j < n + m and values[j][0] == values[i][0]:
            j += 1
        rank = (i + j + 1) / 2  # of all that are equal
        ranks_of_a += rank * sum(1 for _, side in values[i:j] if side == 0)
        ties += (j - i) ** 3 - (j - i)
        i = j
    u = ranks_of_a - n * (n + 1) / 2
    variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    if variance == 0:
        return 1.0
    z = max(abs(u - n * m / 2) - 0.5, 0.0) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))
