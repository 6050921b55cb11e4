"""Sums of the columns of wide rows, alone or weighted (`v @ w`, `x.T @ v`, a few rows times a large matrix): a few rows at a time
are added to results that the first cache holds.

Results in registers are a kilobyte of each row, and a page for every row: translations of addresses then cost more than the sums,
and nothing is fetched ahead.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tinyengine.loopnest import Loop
from tinyengine.stages.schedules.cost import held, stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES
from tinyengine.stages.schedules.product import Contraction, depends
from tinyengine.stages.schedules.tile import Tile

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

ROWS = 8  # are added before a result is stored again
MANY_ROWS = 32  # the same for several rows of results: they are stored less often, and what is fetched ahead has time
LEAST = 10  # products of a turn that hide a hint
SEVERAL = 64  # rows of results from which on a copy of the wide rows pays
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


def wide(c: Chooser, k: Contraction) -> Loop | None:
    """The loop along the rows of a matrix that is larger than the second cache, of a product with fewer rows than pay for a copy
    of it; None where the product is another one."""
    if len(k.space) != 2 or len(k.reduce) != 1 or len(k.accumulators) != 1 or len(k.reads) != 2 or k.masked:
        return None
    for v, m in (k.space, k.space[::-1]):
        along = [a for a in k.reads if depends(a, v)]
        alone = len(along) == 1 and not depends(along[0], m) and along[0].buf.space == "global"
        if not alone or any(stride(a.buf, a.at, v.name) != 1 for a in (*along, *k.stores)):
            continue
        size = along[0].buf.dtype.itemsize
        whole = k.footprint(along[0], {v.name: v.trips, k.reduce[0].name: k.reduce[0].trips})
        long = v.trips * size // c.machine.threads >= PIECE and k.reduce[0].trips >= 8 * ROWS
        if long and 1 < m.trips < SEVERAL and whole > c.machine.l2_bytes:
            return v
    return None


def long(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Whether a long sum has few results (`x.T @ x`, the weights' gradient of many rows): both operands lie along their own loop,
    the first cache holds the results, and there is a panel for every thread."""
    if t.m is None or t.l is not None or t.batch or len(k.reduce) != 1 or len(k.accumulators) != 1 or k.masked:
        return False
    m, own = t.m, {(depends(a, t.v), depends(a, t.m)) for a in k.reads}
    if len(k.reads) != 2 or own != {(True, False), (False, True)} or any(a.buf.space != "global" for a in k.reads):
        return False
    if any(stride(a.buf, a.at, (t.v if depends(a, t.v) else m).name) != 1 for a in k.reads):
        return False
    if any(stride(a.buf, a.at, t.v.name) != 1 for a in k.stores):
        return False
    size = max(a.buf.dtype.itemsize for a in (*k.reads, *k.stores))
    results = t.v.trips * m.trips * size
    far = k.reduce[0].trips * min(t.v.trips, m.trips) * size > c.machine.l2_bytes
    return results <= c.machine.l1_bytes // 2 and far and t.v.trips >= c.machine.threads * c.lanes


def run_long(c: Chooser, k: Contraction, t: Tile) -> bool:
    """The form for them: a block of terms that the first cache holds, for all results of a thread. False where a step was not
    legal."""
    assert t.m is not None
    nv = max(1, min(t.nv, t.v.trips // c.machine.threads // c.lanes))
    mr = min(t.m.trips, (c.machine.vector_registers - 1) // nv - 1, t.mr * t.nv // nv)
    width = -(-t.v.trips // c.machine.threads // (nv * c.lanes)) * nv * c.lanes
    size = max(a.buf.dtype.itemsize for a in k.reads)
    block = max(ROWS, c.machine.l1_bytes // 2 // ((t.v.trips + t.m.trips) * size) // ROWS * ROWS)
    return _by_rows(c, k, replace(t, nv=nv, mr=mr), width, block, False)


def run_rows(c: Chooser, k: Contraction, t: Tile) -> bool:
    """The form for several rows of results: each piece of the wide rows serves all of them. False where a step was not legal."""
    assert t.m is not None
    each, size = t.nv * c.lanes, max(a.buf.dtype.itemsize for a in k.stores)
    pieces = -(-t.v.trips * size // c.machine.threads // max(PIECE, MOST // t.m.trips)) * c.machine.threads
    width = -(-t.v.trips // pieces // each) * each  # as many pieces for every thread
    wide = next(a for a in k.reads if depends(a, t.v))
    near = held(c.machine, abs(stride(wide.buf, wide.at, k.reduce[0].name) or 0) * wide.buf.dtype.itemsize)
    return _by_rows(c, k, t, width, max(ROWS, min(MANY_ROWS, near) // ROWS * ROWS), True)


def _by_rows(c: Chooser, k: Contraction, t: Tile, width: int, rows: int, ahead: bool) -> bool:
    """`rows` terms of the sum at a time, added to results of `width` columns. `ahead`: hints for the next ones."""
    assert t.m is not None
    v, m, r, acc, lanes, each = t.v.name, t.m.name, k.reduce[0].name, k.accumulators[0], c.lanes, t.nv * c.lanes
    numbers = {"rows": rows, "results": t.m.trips * width, "mr": t.mr, "nv": t.nv, "threads": c.machine.threads}
    steps = [
        (f"tile({v}, {width})", "tile", "results that the first cache holds"),
        (f"reorder({v}o, {m}, {v}i)", "reorder", "rows of results inside"),
        (f"tile({r}, {rows})", "tile", "rows that are added before a result is stored again"),
        (f"partial({acc}, at={r}o)", "partial", "sums of these rows in registers, added to the result once"),
        (f"reorder({r}o, {m}, {v}i, memory=local)", "reorder", "each row is read from one end to the other"),
        (f"tile({v}i, {each})", "tile", "vectors of the register tile"),
        (f"reorder({v}io, {m}, {v}ii)", "reorder", "what is read serves all rows of results"),
        (f"tile({m}, {t.mr})", "tile", "mr * nv + nv + 1 registers"),
        (f"reorder({r}i, {m}i, {v}ii)", "register tile", "results stay in registers for these rows"),
    ]
    if ahead and t.mr * t.nv >= LEAST:
        name = next(a.buf.name for a in k.reads if depends(a, t.v))
        steps.append((f"prefetch({name}, {r}o, at={r}i)", "prefetch", "pieces of the next rows come while these are added"))
    steps.append((f"vectorize({v}ii, {lanes})", "vectorize", "contiguous along it"))
    if c.machine.threads > 1 and prod(s.trips for s in (*k.space, *k.reduce)) / lanes >= PARALLEL_CYCLES:
        steps.append((f"parallel({v}o)", "parallel", "columns are independent"))
    return all(c.do(text, kind, reason, numbers) for text, kind, reason in steps)
