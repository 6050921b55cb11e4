"""Sums of the columns of wide rows, alone or weighted (`v @ w`, `x.T @ v`): a few rows at a time are added to results that the
first cache holds.

Results in registers are a kilobyte of each row, and a page for every row: translations of addresses then cost more than the sums.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.product import Contraction, depends
from tinyengine.stages.schedules.tile import PARALLEL_CYCLES, Tile

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

ROWS = 8  # are added before a result is stored again
PIECE = 2048  # bytes of a row, at least, for one thread: half a page
MOST = 16 << 10  # of the results of one thread: half of the first cache


def fits(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Whether it is a sum over the rows of a matrix, alone or times a number for each, which is wider than half a page for each
    thread and larger than the second cache."""
    if t.m is not None or t.l is not None or len(k.reduce) != 1 or len(k.accumulators) != 1 or k.masked:
        return False
    along = [a for a in k.reads if depends(a, t.v)]
    if any(stride(a.buf, a.at, t.v.name) != 1 or a.buf.space != "global" for a in (*along, *k.stores)):
        return False
    row = t.v.trips * max(a.buf.dtype.itemsize for a in along) // (1 if _outside(c, t) else c.machine.threads)
    each = {s.name: s.trips for s in (t.v, k.reduce[0])}
    large = max(k.footprint(a, each) for a in along) > c.machine.l2_bytes
    return PIECE <= row <= MOST and k.reduce[0].trips >= 8 * ROWS and large


def _outside(c: Chooser, t: Tile) -> bool:
    """Whether the threads share matrices, not columns."""
    return bool(t.batch) and t.batch[0].trips >= c.machine.threads


def run(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Apply it; False where it does not fit or a step was not legal."""
    if not fits(c, k, t):
        return False
    v, r, threads, batch = t.v.name, k.reduce[0].name, c.machine.threads, [s.name for s in t.batch]
    width = t.v.trips if _outside(c, t) else -(-t.v.trips // threads // c.lanes) * c.lanes
    numbers = {"rows": ROWS, "results": width, "threads": threads}
    order = [*batch, v + "o", v + "i"] if _outside(c, t) else [v + "o", *batch, v + "i"]
    steps = [(f"tile({v}, {width})", "tile", "results of one thread, which the first cache holds")]
    if order != [y for s in k.space for y in ((v + "o", v + "i") if s is t.v else (s.name,))]:
        steps.append((f"reorder({', '.join(order)})", "reorder", "columns inside"))
    steps += [
        (f"tile({r}, {ROWS})", "tile", "rows that are added before a result is stored again"),
        (f"reorder({r}o, {v}i, {r}i, memory=local)", "reorder", "each row is read from one end to the other"),
        (f"vectorize({v}i, {c.lanes})", "vectorize", "contiguous along it"),
        (f"unroll({r}i)", "unroll", "a result stays in its register for these rows"),
    ]
    if threads > 1 and prod(s.trips for s in (*k.space, *k.reduce)) / c.lanes >= PARALLEL_CYCLES:
        steps.append((f"parallel({order[0]})", "parallel", "columns are independent"))
    return all(c.do(text, kind, reason, numbers) for text, kind, reason in steps)
