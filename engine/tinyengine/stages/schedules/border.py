"""Borders of images: the first and the last register tile of a row stand apart, where they do not need all taps of a window.

The taps of a window and the pixels of a register tile are written out, so a term can be left out only where the place of the tile
is a number. In the border it becomes one: the tile is split off, and `clip` leaves out the products with the padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine.footprint import conjuncts, evaluate, positional
from tinyengine.loopnest import Accumulate, Expr, Loop, subexprs, walk
from tinyengine.positions import along
from tinyengine.stages.primitives.nest import loops

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

SHARE = 0.03  # of the terms: fewer are not worth the code of another tile


def run(c: Chooser) -> None:
    """Split off the tiles of a border that are left out in part."""
    if not any(isinstance(s, Accumulate) and s.only is not None for s in walk(c.kernel.body)):
        return
    for s in [s for s in loops(c.kernel.body) if s.kind == "serial" and s.trips > 1 and not s.reduce]:
        counts = _counts(s)
        if counts is None:
            continue
        for where, saved in ((s.start + s.step, 1 - counts[0]), (s.start + (s.trips - 1) * s.step, 1 - counts[-1])):
            share = float(saved) / s.trips
            numbers = {"share": share, "least_share": SHARE}
            if share >= SHARE:
                c.do(f"split({s.name}, {where})", "split", "the border of an image needs fewer products than its inside", numbers)
            elif share > 0:
                c.refuse("split", s.name, "too few products are left out at the border for the code of another tile", numbers)


def _counts(s: Loop) -> Any:
    """For each iteration of `s`, the share of the terms that count by the conditions that it decides with unrolled loops; None
    where there are none such."""
    unrolled = {x.name: x for x in loops(s.body) if x.kind == "unroll"}
    found = []
    for x in walk(s.body):
        if isinstance(x, Accumulate) and x.only is not None:
            decided = [e for e in conjuncts(x.only) if _names(e) <= {s.name, *unrolled} and s.name in _names(e)]
            grid = [s, *(unrolled[v] for v in sorted(set().union(*map(_names, decided)) - {s.name}))]
            if len(grid) < 2 or any(e.lanes > 1 or not positional(e) for e in decided):
                continue
            values = {
                y.name: np.arange(y.start, y.stop, y.step, dtype=np.int64).reshape(along(k, len(grid)))
                for k, y in enumerate(grid)
            }
            counts = np.ones([y.trips for y in grid], bool)
            for e in decided:
                counts &= evaluate(e, values, {})
            found.append(counts.reshape(s.trips, -1).mean(1))
    return np.mean(found, 0) if found else None


def _names(e: Expr) -> set[str]:
    return {x.arg[0] for x in subexprs(e) if x.op == "var"}
