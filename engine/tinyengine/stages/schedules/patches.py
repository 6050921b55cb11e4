"""Convolutions as products of matrices: the windows of results are copied beside each other (im2col, Chellapilla et al. 2006), a
panel at a time so that the copy stays in the cache, and what is left is a product of two matrices.

It has no short rows: the pixels of a small image, or channels with the taps of their windows, fill the vectors together; results
leave as they lie. The copy costs something for each element, so there must be rows that share it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tinyengine.dependence import Access
from tinyengine.loopnest import Loop
from tinyengine.stages.arithmetic.affine import NEAR
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES
from tinyengine.stages.schedules.product import Contraction, axis_of, chain, depends
from tinyengine.stages.schedules.tile import parallel

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

LEAST_ROWS = 16  # that share the copy
WIDTHS = (48, 256)  # elements of a panel: vectors enough for a register tile; wider ones need not be
STEP, MASK = 7.0, 24.0  # cycles of the copy per vector: for each step between its elements, for masks
ALONE, ALONE_MASK = 2.0, 3.5  # per element, where they are copied one by one
FILLS = 0.4  # of a panel that leaves the rows too little of the second cache
OF_PRODUCT = 0.5  # cycles of a vector of products, in which costs are counted


@dataclass(frozen=True)
class Patches:
    """`a`: the operand with windows; `panel`: loops of results that lie together, of which the first goes in pieces of `size`;
    `rows`: loops of the other operand; `batch`: the rest, outside; `cost` as in `contraction.Option`."""

    a: Access
    panel: tuple[Loop, ...]
    size: int
    rows: tuple[Loop, ...]
    batch: tuple[Loop, ...]
    cost: float

    @property
    def width(self) -> int:
        return self.size * prod(s.trips for s in self.panel[1:])


def find(c: Chooser, k: Contraction) -> Patches | None:
    """The cheaper of the operands to copy so, or None where the product has not this form."""
    if c.within or len(k.reads) != 2 or any(a.buf.space != "global" or a.buf.dtype.itemsize < 4 for a in k.reads):
        return None
    if any(s.ends for s in (*k.space, *k.reduce)) or k.reads[0].buf == k.reads[1].buf:
        return None
    found = [p for a, b in (k.reads, k.reads[::-1]) if (p := _panel(c, k, a, b)) is not None]
    return min(found, key=lambda p: p.cost, default=None)


def _panel(c: Chooser, k: Contraction, a: Access, b: Access) -> Patches | None:
    own = [s for s in k.space if depends(a, s) and not depends(b, s)]
    rows = [s for s in k.space if depends(b, s) and not depends(a, s)]
    shared = prod(s.trips for s in rows)
    if not own or shared < LEAST_ROWS or b.buf.name in k.masked:
        return None
    panel, reach = list[Loop](), 1
    for s in reversed(own):  # the loops over which every result is the neighbour of the one before
        if any(stride(x.buf, x.at, s.name) != reach for x in k.stores):
            break
        panel.insert(0, s)
        reach *= s.trips
    regular = all(axis_of(a, s) is not None and not k.window(a, s) for s in panel) and a.buf.name not in k.masked
    if not panel or regular:
        return None
    while len(panel) > 1 and reach // panel[0].trips >= WIDTHS[0]:  # the others are wide enough
        reach //= panel.pop(0).trips
    inside, depth = reach // panel[0].trips, prod(r.trips for r in k.reduce)
    last = panel[-1]
    step = stride(a.buf, a.at, last.name)
    masked = a.buf.name in k.masked
    near = step is not None and 0 < step <= NEAR and last.trips * 2 >= c.lanes
    each = STEP * step + MASK * masked if near and step is not None else (ALONE + ALONE_MASK * masked) * c.lanes
    copying = each / shared / OF_PRODUCT

    def cost(size: int) -> float:
        width = size * inside
        filled = -(-width // c.lanes) * c.lanes / width
        return filled + max(0.0, WIDTHS[0] / width - 1) / 4 + (depth * width * 4 > c.machine.l2_bytes // 2) * FILLS

    sizes = [
        n for n in range(1, panel[0].trips + 1)
        if panel[0].trips % n == 0 and (n == 1 or (n * inside <= WIDTHS[1] and depth * n * inside * 4 <= c.machine.l2_bytes))
    ]  # fmt: skip
    size = min(sizes, key=cost)
    if depth * size * inside * 4 > c.machine.l2_bytes:
        return None
    batch = tuple(s for s in k.space if s not in panel and s not in rows)
    return Patches(a, tuple(panel), size, tuple(rows), batch, cost(size) + copying)


def run(c: Chooser, k: Contraction, p: Patches) -> bool:
    """Apply it; False when a step was not legal."""
    from tinyengine.stages.schedules import contraction

    threads, work = c.machine.threads, prod(s.trips for s in (*k.space, *k.reduce)) / c.lanes
    first, rest, rows = p.panel[0].name, [s.name for s in p.panel[1:]], [s.name for s in p.rows]
    numbers = {"cost": p.cost, "width": p.width, "rows": prod(s.trips for s in p.rows)}
    batch = [s.name for s in p.batch]
    outer, threaded = [*batch, first + "o"], ""
    if work >= PARALLEL_CYCLES and threads > 1:
        pieces = {s.name: s.trips for s in p.batch} | {first + "o": p.panel[0].trips // p.size}
        good = [n for n in outer if pieces[n] >= 4 * threads or pieces[n] % threads == 0]
        threaded = next(iter(good), max(outer, key=lambda n: pieces[n]))
        outer = [threaded, *(n for n in outer if n != threaded)]
    reduce = [r.name for r in k.reduce]
    why = "windows beside each other: a product of matrices without masks and short rows"
    steps = [(f"tile({first}, {p.size})", "tile", "a panel: results whose windows are copied together")]
    order = [*outer, *rows, first + "i", *rest]
    if order != [y for s in k.space for y in ((first + "o", first + "i") if s.name == first else (s.name,))]:
        steps.append((f"reorder({', '.join(order)})", "reorder", "panels outside, the rows that share one inside"))
    steps.append((f"pack({p.a.buf.name}, at={outer[-1]}, by=({', '.join([*reduce, first + 'i', *rest])}))", "pack", why))
    if rest:
        steps.append((f"merge({', '.join([first + 'i', *rest])})", "merge", "the copy and the results are contiguous over them"))
    for text, kind, reason in steps:
        if not c.do(text, kind, reason, numbers):
            return False
    copy_loops(c, p, len(reduce))
    around = next((s for s in loops(c.kernel.body) if s.name == rows[0]), None)
    if around is None:
        return False
    machine, c.machine, c.within = c.machine, replace(c.machine, threads=1), True
    try:
        ready = contraction.run(c, chain(contraction.joined(c, around)))
    finally:
        c.machine, c.within = machine, False
    if ready:
        parallel(c, threaded, outer[0], work)
    return ready


def copy_loops(c: Chooser, p: Patches, before: int) -> None:
    """Vectors in the copy along the last loop of the panel, where they lie near each other."""
    last, name = p.panel[-1], f"{p.a.buf.name}_{before + len(p.panel) - 1}"
    trips = p.size if len(p.panel) == 1 else last.trips
    step = stride(p.a.buf, p.a.at, last.name)
    if step is not None and 0 < step <= NEAR and 2 * trips >= c.lanes:
        c.do(f"vectorize({name}, {c.lanes})", "vectorize", "the copy, and what it reads, lie along it", {"iterations": trips})
    else:
        c.refuse("vectorize", name, "what is copied side by side lies apart", {"iterations": trips})
