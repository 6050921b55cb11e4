"""Is a difference between two sets of measured times more than noise?

Two things must speak for it: the runs of the two recordings lie apart (`mann_whitney`), and they lie further apart than what is
the same in both recordings does (`Floor`): another process, at another time, has other neighbours, other places in memory and
another clock rate, which no number of runs of one recording can tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

LEAST = 6  # runs on each side; with fewer no difference is sure enough
CHANCE = 0.01  # below it a difference counts

LAUNCH = 1e-6  # seconds: what the time of a launch varies by, however short its kernel is
SPREAD = 0.1  # standard deviation of the logarithm of a kernel's time between two recordings, as it was measured on two cores
PRIOR = 4  # kernels that `SPREAD` counts as, beside those that were measured


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


def student(t: float, freedom: float) -> float:
    """Two-sided p of Student's t, within a few percent of itself for four and more degrees of freedom. (Wallace, "Bounds on
    normal approximations to Student's and the chi-square distributions", 1959: t as a normal deviate.)"""
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.erfc(z / math.sqrt(2))


@dataclass(frozen=True)
class Floor:
    """What is the same in two recordings, and how far its times lie apart.

    `times`: kernel after -> its seconds (before, after)."""

    times: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def judge(self, before: float, after: float, same: bool = False, own: int = -1) -> tuple[float, bool]:
        """(the chance that noise alone makes such a difference, whether it is more than would be expected): a prediction interval
        for the logarithm of the ratio, from the kernels that are the same, `own` left out. `SPREAD` is known beforehand as if
        from `PRIOR` kernels, so that few or none of them are an answer too.

        `same`: it is one of those that are the same, so nothing is known that speaks for a difference: then its noise may have
        heavier tails than they show, because a neighbour on the machine hits one here and one there."""
        logs = [_grown(a, b) for kernel, (a, b) in self.times.items() if kernel != own]
        expected = fmean(logs) if logs else 0.0
        freedom = PRIOR + max(len(logs) - 1, 0)
        variance = (PRIOR * SPREAD**2 + sum((x - expected) ** 2 for x in logs)) / freedom
        away = _grown(before, after) - expected
        t = away / math.sqrt(variance * (1 + (1 / len(logs) if logs else 0)))
        return student(t, PRIOR if same else freedom), away > 0


def _grown(before: float, after: float) -> float:
    return math.log((after + LAUNCH) / (before + LAUNCH))
