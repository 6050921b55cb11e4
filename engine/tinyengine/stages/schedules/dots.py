"""Products whose operands both lie along the sum, with few rows: lanes along the sum, and a tile of sums in registers.

Each vector of one operand serves several rows of the other, so that the larger operand is read once."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES
from tinyengine.stages.schedules.product import Contraction, depends
from tinyengine.stages.schedules.tile import parallel

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

SIDE = 4  # rows of the larger operand in a tile
MOST_ROWS = 6  # of the smaller one


def run(c: Chooser, k: Contraction, along: str) -> bool:
    """Apply it; False where the product has not this form or a step was not legal."""
    if len(k.reduce) != 1 or k.reduce[0].name != along or len(k.accumulators) != 1 or k.masked or len(k.reads) != 2:
        return False
    own = [[s for s in k.space if depends(a, s) and not depends(b, s)] for a, b in (k.reads, k.reads[::-1])]
    if any(len(x) != 1 for x in own):
        return False
    v, m = sorted((x[0] for x in own), key=lambda s: -s.trips)  # both sums are as long: more rows, more memory
    rest = [s for s in k.space if s not in (v, m)]
    if m.trips < 2:
        return False
    rows = -(-m.trips // -(-m.trips // MOST_ROWS))  # tiles of about as many rows: the last one waits no longer than the others
    side = min(v.trips, SIDE)
    order, inner = [*(s.name for s in rest), v.name, m.name], m.name
    steps = []
    if order != [s.name for s in k.space]:
        steps.append((f"reorder({', '.join(order)})", "reorder", "the larger operand outside"))
    steps.append((f"tile({v.name}, {side})", "tile", "rows of one operand that share what is read of the other"))
    steps.append((f"reorder({m.name}, {v.name}i)", "reorder", "the tile inside"))
    if m.trips > rows:
        steps.append((f"tile({m.name}, {rows})", "tile", "rows of the other operand"))
        inner += "i"
    steps.append((f"reorder({along}, {inner}, {v.name}i)", "register tile", "results stay in registers during the sum"))
    steps.append((f"vectorize({along}, {c.lanes})", "vectorize", "both operands are contiguous along the sum"))
    numbers = {"rows": rows, "side": side, "registers": rows * side + side + 1}
    for text, kind, reason in steps:
        if not c.do(text, kind, reason, numbers):
            return False
    outer = rest[0].name if rest and rest[0].trips >= c.machine.threads else order[0] if rest else v.name + "o"
    work = prod(s.trips for s in (*k.space, *k.reduce)) / c.lanes
    parallel(c, outer if work >= PARALLEL_CYCLES and c.machine.threads > 1 else "", outer, work)
    return True
