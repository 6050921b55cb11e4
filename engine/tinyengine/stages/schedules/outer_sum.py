"""Contractions whose sum runs over images, such as the gradient of a convolution's weights: the results stay in the cache.

For each step of the outermost reduce loop the operand along `v` is copied, transposed, and small sums over the image are kept in
registers; they are added to the results once per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tinyengine.loopnest import Loop
from tinyengine.stages.schedules import ahead
from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES
from tinyengine.stages.schedules.product import Contraction, axis_of, depends, last
from tinyengine.stages.schedules.tile import copy_loops, parallel, vector_lanes

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser


VECTORS, VECTOR_CYCLES = 4, 2.6  # vectors side by side; cycles for each, which comes from the second cache
LEAST_PIXELS = 32  # terms that are summed up in registers before they are added to the results


@dataclass(frozen=True)
class Sums:
    """`v` in lanes, `nv` vectors; `tile`: loops of the other operand whose results stay in registers, `part` iterations of the
    first one; `rest`: its other loops; `rows`: of an image that are summed up at a time, all of them where it fits the cache;
    `by_lanes`: the threads share `v`, not the other loops; `batch`: loops outside everything, each iteration of which has
    operands and results of its own, as the groups of a convolution."""

    v: Loop
    tile: tuple[Loop, ...]
    rest: tuple[Loop, ...]
    nv: int
    part: int
    rows: int
    by_lanes: bool
    batch: tuple[Loop, ...]


def choose(c: Chooser, k: Contraction) -> Sums | None:
    """The loops, or None when the form does not fit."""
    if len(k.reduce) < 2 or len(k.accumulators) != 1:
        return None
    pixels = prod(r.trips for r in k.reduce[1:])
    batch = tuple(s for s in k.space if all(depends(a, s) and not k.window(a, s) for a in k.reads))
    space = [s for s in k.space if s not in batch]
    windows = prod(s.trips for s in space if any(k.window(a, s) for a in k.reads))
    results, half = prod(s.trips for s in space) * 4, c.machine.l2_bytes // 2
    if windows > pixels or results > half * c.machine.threads or pixels < LEAST_PIXELS:
        return None
    if windows == 1 and any(stride(a.buf, a.at, s.name) == 1 for a in k.reads for s in space):
        return None  # a plain product
    first = k.reduce[1]
    each = {s.name: s.trips for s in (*space, *k.reduce[1:])}

    def fits(rows: int) -> bool:
        return sum(k.footprint(a, each | {first.name: rows}) for a in k.reads) <= half

    rows = next((n for n in range(first.trips, 0, -1) if first.trips % n == 0 and fits(n)), 0)
    if rows * pixels // first.trips < LEAST_PIXELS:
        return None
    fitting = []
    for v in space:
        vector = [a for a in k.reads if depends(a, v)]
        others = [s for s in space if s is not v]
        apart = all(not depends(a, s) for a in vector for s in others)
        if vector and others and apart and all(axis_of(a, v) is not None and a.buf.space == "global" for a in vector):
            fitting.append(v)
    if not fitting:
        return None
    v = min(fitting, key=lambda s: (-(-s.trips // c.lanes) * c.lanes / s.trips, -s.trips))
    # windows stand last: their taps share what they read
    order = sorted((s for s in space if s is not v), key=lambda s: any(k.window(a, s) for a in k.reads))
    vectors, threads = -(-v.trips // c.lanes), c.machine.threads
    even = any(s.trips % threads == 0 or s.trips >= 8 * threads for s in order if not any(k.window(a, s) for a in k.reads))
    by_lanes = not batch and not even and v.trips % (threads * c.lanes) == 0
    each_thread = vectors // threads if by_lanes else vectors
    _, nv, part, count = min((_tile(c, order, nv) for nv in range(1, min(VECTORS, each_thread) + 1)), key=lambda x: x[0])
    tile, rest = order[len(order) - count :], order[: len(order) - count]
    return Sums(v, tuple(tile), tuple(rest), nv, part, rows, by_lanes, batch)


def _tile(c: Chooser, order: list[Loop], nv: int) -> tuple[float, int, int, int]:
    """(cycles per vector of products, vectors, iterations of the first loop in the tile, loops in the tile)."""
    room, count, inside = (c.machine.vector_registers - 1 - nv) // nv, 0, 1
    while count < len(order) and inside * order[-1 - count].trips <= room:
        inside *= order[-1 - count].trips
        count += 1
    part = order[-count].trips if count else 1
    if count < len(order) and room // inside > 1:
        s, most = order[-1 - count], room // inside
        size = next((n for n in range(most, 1, -1) if s.trips % n == 0), 0)
        if size:
            part, count, inside = size, count + 1, inside * size
    cycles = max(inside * nv / 2, nv * VECTOR_CYCLES, (inside + nv) / 2, 4.0) + 0.25
    return cycles / (inside * nv), nv, part, count


def run(c: Chooser, k: Contraction) -> bool:
    """Schedule the nest if it has this form; False when it has not or a step was not legal."""
    from tinyengine.stages.schedules.contraction import undo

    s = choose(c, k)
    if s is None:
        return False
    start, count = c.kernel, len(c.decisions)
    if _apply(c, k, s):
        return True
    undo(c, start, count)
    return False


def _apply(c: Chooser, k: Contraction, s: Sums) -> bool:
    v, tile, threads = s.v.name, [x.name for x in s.tile], c.machine.threads
    inside = prod(x.trips for x in s.tile) // s.tile[0].trips * s.part if s.tile else 1
    numbers = {"registers": inside * s.nv + s.nv + 1, "images": k.reduce[0].trips, "threads": threads, "rows": s.rows}
    work = prod(x.trips for x in (*k.space, *k.reduce)) / c.lanes
    images, pixels = k.reduce[0].name, [r.name for r in k.reduce[1:]]
    outer = [images]

    def do(text: str, kind: str, reason: str) -> bool:
        return c.do(text, kind, reason, numbers)

    trips = {x.name: x.trips for x in s.rest}
    if s.tile and s.part < s.tile[0].trips:
        if not do(f"tile({tile[0]}, {s.part})", "tile", "results that stay in registers"):
            return False
        trips[tile[0] + "o"], tile[0] = s.tile[0].trips // s.part, tile[0] + "i"
    rest = sorted(trips, key=lambda name: trips[name] < threads)  # the first one goes to the threads
    shared, threaded, length = work >= PARALLEL_CYCLES and threads > 1, "", s.v.trips
    before = [x.name for x in k.space]
    if shared and s.by_lanes:
        length //= threads
        if not do(f"tile({v}, {length})", "tile", "results of one thread"):
            return False
        before = [y for x in before for y in ((x + "o", x + "i") if x == v else (x,))]
        threaded, v = v + "o", v + "i"
    if shared and s.batch:
        threaded = s.batch[0].name
    order = [*(x.name for x in s.batch), *([threaded] if s.by_lanes and threaded else []), *rest, *tile, v]
    if order != before and not do(f"reorder({', '.join(order)})", "reorder", "lanes inside"):
        return False
    if shared and rest and not threaded:
        if not do(f"tile({rest[0]}, {max(1, trips[rest[0]] // threads)})", "tile", "results of one thread"):
            return False
        threaded, rest[0] = rest[0] + "o", rest[0] + "i"
    if s.rows < k.reduce[1].trips:
        if not do(f"tile({pixels[0]}, {s.rows})", "tile", "rows of an image that stay in the cache"):
            return False
        outer, pixels = [images, pixels[0] + "o"], [pixels[0] + "i", *pixels[1:]]
    acc, step = k.accumulators[0], outer[-1]
    ok = do(f"partial({acc}, at={step})", "partial", "sums of one image in registers, added to the result once")
    order = [*outer, *rest, *tile, v]
    if not ok or not do(
        f"reorder({', '.join(order)}, memory=local)", "outer sum", "image by image; the results stay in the cache"
    ):
        return False
    width = s.nv * c.lanes
    inner = v
    if length > width:
        ok = do(f"tile({v}, {width})", "tile", "vectors of the register tile")
        if not ok or not do(f"reorder({', '.join([v + 'o', *tile, v + 'i'])})", "reorder", "the register tile inside"):
            return False
        inner = v + "i"
    packed = []
    for a in k.reads:
        axis = axis_of(a, s.v)
        if depends(a, s.v) and axis is not None and stride(a.buf, a.at, v) != 1:
            if not do(f"pack({a.buf.name}, at={step}, axes={last(a, axis)})", "pack", "one image, contiguous along the vectors"):
                return False
            packed.append((a.buf.name, last(a, axis), True))
        elif (
            a.buf.name in k.masked
            and a.buf.space == "global"
            and do(f"pack({a.buf.name}, at={step})", "pack", "padding becomes zeros in the copy: no masks in the loop")
        ):
            packed.append((a.buf.name, tuple(range(len(a.buf.shape))), False))
    if not do(f"reorder({', '.join([*pixels, *tile, inner])})", "register tile", "results stay in registers during the sum"):
        return False
    lanes = vector_lanes(min(length, width), c.lanes)
    if not do(f"vectorize({inner}, {lanes})", "vectorize", "the copy is contiguous along it"):
        return False
    for name, axes, transposed in packed:
        copy_loops(c, name, axes, transposed)
    ahead.run(c, k, pixels[0], (step,))
    parallel(c, threaded, order[0], work)
    return True
