"""The default schedule of contractions: matrix products of every layout, batched ones, convolutions, sums over an outer axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine.loopnest import Loop

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser


def run(c: Chooser, around: list[Loop]) -> bool:
    """Schedule the nest if it is a contraction; False when it is not."""
    return False
