"""Contractions whose sum runs over images, such as the gradient of a convolution's weights: the results stay in the cache.

For each step of the outermost reduce loop the operand along `v` is copied, transposed, and small sums over the image are kept in
registers; they are added to the results once per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tinyengine.loopnest import Loop
from tinyengine.stages.contraction import Contraction, axis_of, depends, last
from tinyengine.stages.schedule_cost import stride
from tinyengine.stages.schedule_tile import PARALLEL_CYCLES, copy_loops, factor, parallel, vector_lanes

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser


@dataclass(frozen=True)
class Sums:
    """`v` in lanes, `nv` vectors; `tile`: loops of the other operand whose results stay in registers; `rest`: its other loops."""

    v: Loop
    tile: tuple[Loop, ...]
    rest: tuple[Loop, ...]
    nv: int


def choose(c: Chooser, k: Contraction) -> Sums | None:
    """The loops, or None when the form does not fit."""
    if len(k.reduce) < 2 or len(k.accumulators) != 1:
        return None
    pixels = prod(r.trips for r in k.reduce[1:])
    windows = prod(s.trips for s in k.space if any(k.window(a, s) for a in k.reads))
    results = prod(s.trips for s in k.space) * 4
    if windows == 1 or windows > pixels or results > c.machine.l2_bytes // 2 * c.machine.threads:
        return None
    image = {s.name: s.trips for s in (*k.space, *k.reduce[1:])}
    if sum(k.footprint(a, image) for a in k.reads) > c.machine.l2_bytes // 2:
        return None
    fitting = []
    for v in k.space:
        vector = [a for a in k.reads if depends(a, v)]
        others = [s for s in k.space if s is not v]
        apart = all(not depends(a, s) for a in vector for s in others)
        if vector and others and apart and all(axis_of(a, v) is not None and a.buf.space == "global" for a in vector):
            fitting.append(v)
    if not fitting:
        return None
    v = min(fitting, key=lambda s: (-(-s.trips // c.lanes) * c.lanes / s.trips, -s.trips))
    nv = factor(-(-v.trips // c.lanes), 2)
    tile: list[Loop] = []
    rest = [s for s in k.space if s is not v]
    while rest and prod(s.trips for s in (*tile, rest[-1])) * nv + nv + 1 <= c.machine.vector_registers:
        tile.insert(0, rest.pop())
    rest.sort(key=lambda s: s.trips < c.machine.threads)  # the first one goes to the threads
    return Sums(v, tuple(tile), tuple(rest), nv) if tile else None


def run(c: Chooser, k: Contraction) -> bool:
    """Schedule the nest if it has this form; False when it has not or a step was not legal."""
    from tinyengine.stages.schedule_contraction import undo

    s = choose(c, k)
    if s is None:
        return False
    start, count = c.kernel, len(c.decisions)
    if _apply(c, k, s):
        return True
    undo(c, start, count)
    return False


def _apply(c: Chooser, k: Contraction, s: Sums) -> bool:
    v, rest, tile, threads = s.v.name, [x.name for x in s.rest], [x.name for x in s.tile], c.machine.threads
    results = prod(x.trips for x in s.tile) * s.nv
    numbers = {"registers": results + s.nv + 1, "images": k.reduce[0].trips, "threads": threads}
    work = prod(x.trips for x in (*k.space, *k.reduce)) / c.lanes
    images, pixels = k.reduce[0].name, [r.name for r in k.reduce[1:]]

    def do(text: str, kind: str, reason: str) -> bool:
        return c.do(text, kind, reason, numbers)

    order = [*rest, *tile, v]
    if order != [x.name for x in k.space] and not do(f"reorder({', '.join(order)})", "reorder", "lanes inside"):
        return False
    threaded = ""
    if work >= PARALLEL_CYCLES and threads > 1 and rest:
        first = s.rest[0]
        size = max(1, first.trips // threads)
        if not do(f"tile({rest[0]}, {size})", "tile", "results of one thread"):
            return False
        threaded, rest[0] = rest[0] + "o", rest[0] + "i"
    acc = k.accumulators[0]
    ok = do(f"partial({acc}, at={images})", "partial", "sums of one image in registers, added to the result once")
    order = [images, *rest, *tile, v]
    if not ok or not do(
        f"reorder({', '.join(order)}, memory=local)", "outer sum", "image by image; the results stay in the cache"
    ):
        return False
    width = s.nv * c.lanes
    inner = v
    if s.v.trips > width:
        ok = do(f"tile({v}, {width})", "tile", "vectors of the register tile")
        if not ok or not do(f"reorder({v}o, {', '.join(tile)}, {v}i)", "reorder", "the register tile inside"):
            return False
        inner = v + "i"
    packed = []
    for a in k.reads:
        axis = axis_of(a, s.v)
        if depends(a, s.v) and axis is not None and stride(a.buf, a.at, v) != 1:
            if not do(
                f"pack({a.buf.name}, at={images}, axes={last(a, axis)})", "pack", "one image, contiguous along the vectors"
            ):
                return False
            packed.append((a.buf.name, last(a, axis), True))
        elif (
            a.buf.name in k.masked
            and a.buf.space == "global"
            and do(f"pack({a.buf.name}, at={images})", "pack", "padding becomes zeros in the copy: no masks in the loop")
        ):
            packed.append((a.buf.name, tuple(range(len(a.buf.shape))), False))
    if not do(f"reorder({', '.join([*pixels, *tile, inner])})", "register tile", "results stay in registers during the sum"):
        return False
    lanes = vector_lanes(min(s.v.trips, width), c.lanes)
    if not do(f"vectorize({inner}, {lanes})", "vectorize", "the copy is contiguous along it"):
        return False
    for name, axes, transposed in packed:
        copy_loops(c, name, axes, transposed)
    parallel(c, threaded, order[0], work)
    return True
