"""Sums of the columns of wide rows: a few rows at a time are added to results that the first cache holds.

Results in registers are a kilobyte of each row, and a page for every row: translations of addresses then cost more than the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.product import Contraction
from tinyengine.stages.schedules.tile import PARALLEL_CYCLES, Tile

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

ROWS = 8  # are added before a result is stored again
PIECE = 4096  # bytes of a row, at least, for one thread: whole pages
MOST = 16 << 10  # of the results of one thread: half of the first cache


def fits(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Whether it is a sum over the rows of one matrix, wider than a page for each thread and larger than the second cache."""
    if t.m is not None or t.l is not None or len(k.space) != 1 or len(k.reduce) != 1 or len(k.accumulators) != 1 or k.masked:
        return False
    if len(k.reads) != 1 or any(stride(a.buf, a.at, t.v.name) != 1 for a in (*k.reads, *k.stores)):
        return False
    row, (a,) = t.v.trips * k.reads[0].buf.dtype.itemsize // c.machine.threads, k.reads
    return PIECE <= row <= MOST and k.reduce[0].trips >= 8 * ROWS and a.buf.nbytes > c.machine.l2_bytes


def run(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Apply it; False where it does not fit or a step was not legal."""
    if not fits(c, k, t):
        return False
    v, r, threads = t.v.name, k.reduce[0].name, c.machine.threads
    width = -(-t.v.trips // threads // c.lanes) * c.lanes
    numbers = {"rows": ROWS, "results": width, "threads": threads}
    steps = [
        (f"tile({v}, {width})", "tile", "results of one thread, which the first cache holds"),
        (f"tile({r}, {ROWS})", "tile", "rows that are added before a result is stored again"),
        (f"reorder({r}o, {v}i, {r}i, memory=local)", "reorder", "whole pages of each row are read, from one end to the other"),
        (f"vectorize({v}i, {c.lanes})", "vectorize", "contiguous along it"),
        (f"unroll({r}i)", "unroll", "a result stays in its register for these rows"),
    ]
    if threads > 1 and t.v.trips * k.reduce[0].trips / c.lanes >= PARALLEL_CYCLES:
        steps.append((f"parallel({v}o)", "parallel", "columns are independent"))
    return all(c.do(text, kind, reason, numbers) for text, kind, reason in steps)
