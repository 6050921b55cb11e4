"""Products with a deep sum: a piece of the depth at a time, so that the cache holds a panel of the vector operand for all rows.

Each piece is summed in registers and added to results that the cache holds (the outermost loop of Goto & van de Geijn 2008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.product import Contraction, depends
from tinyengine.stages.schedules.tile import (
    EVEN,
    PACK_ROWS,
    Tile,
    copy_loops,
    even,
    panel_ahead,
    parallel,
    rows_ahead,
    vector_lanes,
)

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser


def fits(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Whether the product is of this form: rows and vectors and one sum, deeper than the cache has room for a panel."""
    if t.m is None or t.l is not None or t.batch or len(k.reduce) != 1 or len(k.accumulators) != 1 or k.masked:
        return False
    vector = [a for a in k.reads if depends(a, t.v)]
    if len(vector) != 1 or stride(vector[0].buf, vector[0].at, t.v.name) != 1 or vector[0].buf.space != "global":
        return False
    if any(a.buf.dtype.itemsize < 4 for a in k.reads) or any(stride(a.buf, a.at, t.v.name) != 1 for a in k.stores):
        return False
    panel, half = k.reduce[0].trips * t.nv * c.lanes * 4, c.machine.l2_bytes // 2
    return panel > half or (panel == half and t.mr < t.m.trips < PACK_ROWS)  # few rows are not worth a copy of it


def run(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Apply it; False where it does not fit or a step was not legal."""
    if not fits(c, k, t) or t.m is None:
        return False
    v, m, r, acc = t.v.name, t.m.name, k.reduce[0].name, k.accumulators[0]
    width, threads, half = t.nv * c.lanes, c.machine.threads, c.machine.l2_bytes // 2
    panels = -(-t.v.trips // width)
    depth = max(64, c.machine.l2_bytes // 8 // (width * 4) // 64 * 64)
    by_panels = even(t.v.trips, t.nv, c.lanes, threads) >= EVEN and t.m.trips * width * 4 <= half
    rows = t.m.trips if by_panels else -(-t.m.trips // threads // t.mr) * t.mr
    if not by_panels and rows * t.v.trips * 4 > half:
        return False
    numbers = {"depth": k.reduce[0].trips, "piece": depth, "mr": t.mr, "nv": t.nv}
    inner, order, outer = m, [v + "o", m, v + "i"], v + "o"
    steps = [(f"tile({v}, {width})", "tile", "a panel: vectors of the register tile")]
    if not by_panels:
        inner, order, outer = m + "i", [m + "o", v + "o", m + "i", v + "i"], m + "o"
        steps.append((f"tile({m}, {rows})", "tile", "a piece of the rows per thread"))
    below = ", ".join([r + "o", *order[1:]])
    steps += [
        (f"reorder({', '.join(order)})", "reorder", "the results of one thread inside"),
        (f"tile({r}, {depth})", "tile", "a piece of the depth, for which a panel stays in the cache"),
        (f"partial({acc}, at={r}o)", "partial", "sums of one piece in registers, added to the result once"),
        (f"reorder({below}, memory=local)", "reorder", "piece by piece; the results stay in the cache"),
        (f"tile({inner}, {t.mr})", "tile", "mr * nv + nv + 1 registers"),
    ]
    name = next(a.buf.name for a in k.reads if depends(a, t.v))
    packed = panels > 1 and rows >= PACK_ROWS
    if packed:
        at = r + "o" if by_panels else v + "o"
        steps.append((f"pack({name}, at={at})", "pack", "rows of the panel become neighbours: one stream, few pages"))
    steps.append((f"reorder({r}i, {inner}i, {v}i)", "register tile", "results stay in registers during the sum"))
    steps.append((f"vectorize({v}i, {vector_lanes(min(t.v.trips, width), c.lanes)})", "vectorize", "contiguous along it"))
    for text, kind, reason in steps:
        if not c.do(text, kind, reason, numbers):
            return False
    rows_ahead(c, k, t, inner + "o", r + "i")
    if packed:
        a = next(a for a in k.reads if depends(a, t.v))
        copy_loops(c, name, tuple(range(len(a.buf.shape))), False)
        panel_ahead(c, k, a, name)
    parallel(c, outer, outer, t.m.trips * t.v.trips * k.reduce[0].trips / c.lanes)
    return True
