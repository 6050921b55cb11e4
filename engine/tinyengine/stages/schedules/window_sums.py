"""Sums over pixels, one for each tap of a window, as in the gradient of a depthwise convolution's weights: lanes along the pixels
of a row, and the sums of all taps in registers. The operand that does not move with the taps is read once for all of them, and no
addition waits for the one before."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tinyengine.loopnest import Loop
from tinyengine.stages.schedules import ahead
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES
from tinyengine.stages.schedules.product import Contraction, depends
from tinyengine.stages.schedules.tile import LONG_AFTER, copy_loops, parallel

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

SPARE = 4  # registers beside the sums


def taps(c: Chooser, k: Contraction) -> list[Loop]:
    """The loops over the taps of a window whose sums fit the registers together, where one operand moves with them and the other
    one serves all of them; else none."""
    held, inside = 1, list[Loop]()
    for s in reversed(_order(k)):
        if not any(k.window(a, s) for a in k.reads) or held * s.trips > c.machine.vector_registers - SPARE:
            break
        held *= s.trips
        inside.insert(0, s)
    if held < 2 or len(k.reduce) < 2 or len(k.accumulators) != 1 or len(k.reads) != 2:
        return []
    if any(s.ends for s in (*k.space, *k.reduce)) or any(a.buf.space != "global" for a in k.reads):
        return []
    return inside if sum(any(depends(a, s) for s in inside) for a in k.reads) == 1 else []


def _order(k: Contraction) -> list[Loop]:
    """The loops of the results, those over taps inside."""
    return sorted(k.space, key=lambda s: any(k.window(a, s) for a in k.reads))


def run(c: Chooser, k: Contraction, along: str) -> bool:
    """Apply it with lanes `along` the innermost loop of the sum; False where the product has not this form or a step was not
    legal."""
    found, order = taps(c, k), _order(k)
    if not found or k.reduce[-1].name != along:
        return False
    inside = [s.name for s in found]
    outside = [s for s in order if s not in found]
    reduce, numbers = [r.name for r in k.reduce], {"registers": prod(s.trips for s in found)}
    steps = []
    if [s.name for s in order] != [s.name for s in k.space]:
        steps.append((f"reorder({', '.join(s.name for s in order)})", "reorder", "taps inside"))
    steps.append((f"reorder({', '.join([*reduce, *inside])})", "register tile", "the sums of all taps stay in registers"))
    each = {s.name: s.trips for s in k.reduce[1:]} | {s.name: s.trips for s in found}
    packed = [a for a in k.reads if a.buf.name in k.masked and k.footprint(a, each) <= c.machine.l2_bytes // 2]
    for a in packed:
        steps.append((f"pack({a.buf.name}, at={reduce[0]})", "pack", "padding becomes zeros in the copy: no masks in the loop"))
    steps.append((f"vectorize({along}, {c.lanes})", "vectorize", "both operands lie along the sum"))
    steps += [(f"unroll({name})", "unroll", "one register for each tap") for name in inside]
    if k.after - 2 > LONG_AFTER:
        why = "what follows the sum is long: its code is written once for each tap"
        steps.append((f"spill({k.accumulators[0]}, at={inside[0]})", "spill", why))
    for text, kind, reason in steps:
        if not c.do(text, kind, reason, numbers):
            return False
    for a in packed:
        copy_loops(c, a.buf.name, tuple(range(len(a.buf.shape))), False, True)
    if len(reduce) > 2:
        ahead.run(c, k, reduce[1], (reduce[0],))
    outer = outside[0].name if outside else ""
    work = prod(s.trips for s in (*k.space, *k.reduce)) / c.lanes
    shared = outer and work >= PARALLEL_CYCLES and c.machine.threads > 1
    parallel(c, outer if shared else "", outer or reduce[0], work)
    return True
