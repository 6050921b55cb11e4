"""The default schedule of contractions: which loop runs in lanes, which results stay in registers, what is copied.

One recipe for matrix products of every layout, batched ones, convolutions and sums over an outer axis (Goto & van de Geijn 2008,
without packing of the left operand): run one space loop `v` in the lanes of vectors, keep a tile of results in registers, `mr`
steps of a loop `m` along which the vector operand does not change, times `nv` vectors, and copy the vector operand where it is
not contiguous, is padded, or is too large for the cache. The tile fits when mr * nv + nv + 2 <= registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, TypeVar

from tinyengine.dependence import Access
from tinyengine.loopnest import Loop
from tinyengine.stages.arithmetic.affine import NEAR
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules import columns, depth, dots, outer_sum, patches, tile, window_sums
from tinyengine.stages.schedules.cost import LINE, held, stride
from tinyengine.stages.schedules.product import Contraction, axis_of, chain, depends, find
from tinyengine.stages.schedules.tile import (
    EVEN,
    KEPT,
    LONG_AFTER,
    TAPS,
    Tile,
    even,
    factor,
    room_for_taps,
    shared_taps,
    within_panels,
)

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

How = TypeVar("How")  # a tile, or the loop in the lanes

VECTORS = 4  # of a panel
SUM_VECTORS = 16  # of a panel that only sums: nothing is reused, long pieces of each row count
FMAS, LOADS = 2, 2  # per cycle
FMA_LATENCY = 4.0  # cycles until a sum may be added to again
LINE_CYCLES = 2.6  # per line of the panel, which comes from the second cache
SPARE = 2  # registers for elements of the rows: the next one is loaded while products with the last one wait
TILE_CYCLES, TAP_CYCLES = 0.25, 0.25  # of the loop around a tile, per term; more where its few taps are not written out
PANEL_COST = 0.03  # more of the rows' operand is read for narrow panels
PIECE_COST = 0.03  # panels that do not come out even are copied by every thread
ACROSS_LINES, MASKED = 0.1, 0.05  # cycles per line of a window: its vectors cross lines; and per vector of a padded one: a copy
FAR_ROWS = 0.1  # the rows' operand does not stay in the cache: its elements are waited for
PADDED_CYCLES = 2.0  # per element of padded rows, which are copied again for each tile where they do not stay in the cache
MOST_ROWS = 14  # of a register tile: more only lengthen the code
TRANSPOSE_ROWS = 8  # fewer rows than this do not pay for a transposed copy
MOST_CODE = 600  # statements, unrolled, of a tile with its tails (about 20 ms of code generation): compile time counts too


@dataclass(frozen=True)
class Option:
    """One choice of `v`: its register tile, and the cycles per vector of products, in those of full tiles."""

    v: Loop
    tile: Tile
    cost: float


def joined(c: Chooser, s: Loop) -> Loop:
    """The contraction `s`, if it is one, with neighbouring loops of the result as one, and those of the sum, where every access
    is contiguous over them."""
    k = find(chain(s))
    if k is None:
        return s
    first = s.name
    for group in (k.space, k.reduce):
        names = [x.name for x in group]
        i = 0
        while i + 1 < len(names):
            text = f"merge({names[i]}, {names[i + 1]})"
            if c.try_all(text) is None:
                i += 1
                continue
            c.do(text, "merge", "every access is contiguous over these loops: the tile has no short rows")
            names[i : i + 2] = [names[i] + names[i + 1]]
        first = names[0] if group is k.space else first
    return next(x for x in loops(c.kernel.body) if x.name == first)


def run(c: Chooser, around: list[Loop]) -> bool:
    """Schedule the nest if it is a contraction; False when it is not, or when lanes along the sum are better."""
    k = find(around)
    if k is None:
        return False
    if outer_sum.run(c, k):
        return True
    o = best(c, k)
    p = patches.find(c, k)
    if p is not None and (o is None or p.cost < o.cost):
        start, count = c.kernel, len(c.decisions)
        if patches.run(c, k, p):
            return True
        undo(c, start, count)
    elif p is not None and o is not None:
        numbers = {"cost": o.cost, "cost_of_copies": p.cost}
        why = f"copying the windows beside each other costs more than lanes along {o.v.name}"
        c.refuse("patches", p.panel[0].name, why, numbers)
    if o is None:
        return False
    v = columns.wide(c, k)
    found = option(c, k, v) if v is not None else None
    if found is not None and found.tile.m is not None and attempt(c, k, found.tile, columns.run_rows):
        return True
    if columns.long(c, k, o.tile) and attempt(c, k, o.tile, columns.run_long):
        return True
    along = along_sum(c, k, o)
    if along is not None:
        return bool(along) and any(attempt(c, k, along, form) for form in (dots.run, window_sums.run))
    return any(attempt(c, k, o.tile, form) for form in (columns.run, depth.run, tile.run))


def attempt(c: Chooser, k: Contraction, how: How, form: Callable[[Chooser, Contraction, How], bool]) -> bool:
    """Whether the tile, or lanes along a loop, could be applied in this form; where a step was refused, nothing is."""
    start, count = c.kernel, len(c.decisions)
    if form(c, k, how):
        return True
    undo(c, start, count)
    return False


def best(c: Chooser, k: Contraction) -> Option | None:
    """The cheapest loop to run in lanes."""
    return min((o for o in (option(c, k, v) for v in k.space) if o is not None), key=lambda o: o.cost, default=None)


def undo(c: Chooser, start: object, count: int) -> None:
    """One of the steps was refused: keep its Decision, go back, and leave the nest to the general plan."""
    c.kernel = start  # type: ignore[assignment]
    for i, d in enumerate(c.decisions[count:], count):
        if d.verdict != "refused":
            c.decisions[i] = replace(d, verdict="undone", reason="a later step was not legal")


def option(c: Chooser, k: Contraction, v: Loop) -> Option | None:
    """What it costs to run `v` in lanes."""
    vector = [a for a in k.reads if depends(a, v)]
    if not vector or v.trips < 2:
        return None
    rows = [m for m in k.space if m is not v and m.trips > 1 and not any(depends(a, m) for a in vector)]
    m = nearest(rows, [a for a in k.reads if a not in vector])
    panel = {r.name: r.trips for r in k.reduce} | {v.name: min(v.trips, c.lanes)}
    t, cost = register_tile(c, k, v, m)
    cost += ACROSS_LINES * lines(c, 1) * any(k.window(a, v) for a in vector) + MASKED * any(
        a.buf.name in k.masked for a in vector
    )
    whole = {s.name: s.trips for s in (*k.space, *k.reduce) if s not in t.batch}
    cost += FAR_ROWS * any(k.footprint(a, whole) > c.machine.l2_bytes // 2 for a in k.reads if a not in vector)
    for a in vector:
        step = stride(a.buf, a.at, v.name)
        if step == 1:
            continue
        if step is not None and 1 < step <= NEAR:
            cost += step / (min(m.trips, VECTORS) if m is not None else 1)  # loaded once for several rows
            continue
        uses = prod(x.trips for x in k.space if not depends(a, x)) if m is not None else 1
        copied = uses >= TRANSPOSE_ROWS and axis_of(a, v) is not None and a.buf.space == "global"
        if copied and k.footprint(a, panel) <= c.machine.l2_bytes // 2:
            cost += 0.05 + 16.0 / uses  # the transposing copy
        else:
            cost += c.lanes
    far = [a for a in k.reads if a not in vector and a.buf.name in k.masked and k.footprint(a, whole) > c.machine.l2_bytes // 2]
    for a in far:
        cost += PADDED_CYCLES * FMAS * c.lanes / (v.trips * t.lr * prod(s.trips for s in t.batch if k.window(a, s)))
    depth = prod(s.trips for s in k.reduce)
    cost += sum(2.0 * c.lanes / depth + 0.05 for a in k.stores if stride(a.buf, a.at, v.name) != 1)
    return Option(v, t, cost)


def nearest(candidates: list[Loop], others: list[Access]) -> Loop | None:
    """The loop for the rows of the tile: long enough, and near in memory where the other operand is read."""
    enough = [s for s in candidates if s.trips >= 4] or candidates

    def distance(s: Loop) -> tuple[int, int]:
        return max((abs(stride(a.buf, a.at, s.name) or 0) for a in others), default=0), -s.trips

    return min(enough, key=distance, default=None)


def along_sum(c: Chooser, k: Contraction, o: Option) -> str | None:
    """The loop of the sum along which lanes, joined at its end, are better than `o`; empty where no lanes at all are better; None
    where `o` is best."""
    steps = {r.name: [stride(a.buf, a.at, r.name) for a in k.reads] for r in k.reduce}
    dots = [r for r in k.reduce if all(x in (0, 1) for x in steps[r.name])]
    if not dots and window_sums.taps(c, k) and all(x is not None and 0 <= x <= NEAR for x in steps[k.reduce[-1].name]):
        dots = [k.reduce[-1]]  # what is read with a step serves several taps
    if dots:
        r = max(dots, key=lambda s: s.trips)
        cost = -(-r.trips // c.lanes) * c.lanes / r.trips + 1.0 + 16.0 / r.trips
        if cost < o.cost:
            numbers = {"cost": o.cost, "cost_along_sum": cost}
            c.refuse("register tile", o.v.name, f"lanes along the sum over {r.name} are cheaper", numbers)
            return r.name
    if o.cost > c.lanes:
        c.refuse("register tile", o.v.name, "no loop of the result runs along contiguous memory", {"cost": o.cost})
        return ""
    return None


def register_tile(c: Chooser, k: Contraction, v: Loop, m: Loop | None) -> tuple[Tile, float]:
    """The register tile for `v` in lanes and rows along `m`, and its cycles, in those of as many products in full tiles."""
    vector = [a for a in k.reads if depends(a, v)]
    others = [a for a in k.reads if not depends(a, v)]
    panels = -(-v.trips // (c.lanes * VECTORS))
    nv = -(-v.trips // (c.lanes * panels))
    if m is None:
        nv = max(1, min(SUM_VECTORS, v.trips // (c.lanes * c.machine.threads)))
    l, lr = None, 1
    if others and (nv <= VECTORS // 2 or any(a.buf.name in k.masked for a in vector)):
        # rows of an image that share the weights widen a narrow panel
        ls = [
            s for s in k.space
            if s not in (v, m) and s.trips > 1 and any(k.window(a, s) for a in vector) and not any(depends(a, s) for a in others)
        ]  # fmt: skip
        if ls:
            l = ls[-1]
            if m is None:
                nv = min(2, -(-v.trips // c.lanes))
            lr = factor(l.trips, max(1, VECTORS // (nv if m is not None else 1)))
    rest = tuple(s for s in k.space if s not in (v, m, l))
    if m is None:
        return Tile(v, m, l, rest, nv, 1, lr), -(-v.trips // c.lanes) * c.lanes / v.trips
    widths = range(1, min(VECTORS, -(-v.trips // c.lanes)) + 1)
    if l is None:
        return sizes(c, k, Tile(v, m, l, rest, nv, 1, lr), [(n, 1) for n in widths])
    if (c.machine.vector_registers - 1) // VECTORS > VECTORS:  # a wide panel leaves room for rows enough
        return sizes(c, k, Tile(v, m, l, rest, nv, 1, lr), [(nv, lr)])
    shapes = {(n, factor(l.trips, height)) for n in widths for height in range(1, VECTORS // n + 1)}
    return sizes(c, k, Tile(v, m, l, rest, nv, 1, lr), sorted(shapes))


def lines(c: Chooser, vectors: int) -> float:
    """Lines of the cache that so many vectors are."""
    return vectors * c.lanes * 4 / LINE


def sizes(c: Chooser, k: Contraction, t: Tile, panels: Iterable[tuple[int, int]]) -> tuple[Tile, float]:
    """The tile with the rows, and the panel (vectors, rows of an image) of `panels`, for which all tiles, the last ones too, take
    the fewest cycles per term of the sum; and these, in the cycles of full tiles. A tile of few rows waits for its vectors, which
    come from the second cache or lie across two lines."""
    assert t.m is not None
    v, m, lanes = t.v.trips, t.m.trips, c.lanes
    window = taps(k) > 1 and shared_taps(k, t)
    registers = c.machine.vector_registers - (KEPT if window and room_for_taps(c) else 0)
    registers -= v < lanes  # for the mask of vectors that are never full
    around = TILE_CYCLES + (TAP_CYCLES if window and not room_for_taps(c) else 0.0)

    outside = bool(within_panels(c, k, t.v, t.m, t.batch))
    apart = outside or (not t.batch and t.l is None)  # panels are what the threads share

    def cycles(rows: int, vectors: int) -> float:
        waits = max(lines(c, vectors) * LINE_CYCLES, (rows + vectors) / LOADS, FMA_LATENCY)
        return max(rows * vectors / FMAS, waits) + around if rows and vectors else 0.0

    def panel(mr: int, vectors: int) -> float:
        return m // mr * cycles(mr, vectors) + cycles(m % mr, vectors)

    def cost(o: Tile) -> float:
        full, rest = divmod(v, o.nv * lanes)
        total = full * panel(o.mr, o.nv * o.lr) + panel(o.mr, -(-rest // lanes) * o.lr)
        share = even(v, o.nv, lanes, c.machine.threads) if apart else 1.0
        total *= 1 / share if outside else 1.0 if share >= EVEN else 1 + PIECE_COST
        return total * (1 + PANEL_COST * (VECTORS - o.nv)) / (v * m * o.lr / lanes / FMAS)

    def short(o: Tile) -> bool:
        # pieces of the rows, where the panels do not come out even, have a last one of its own
        twice = 1 if not apart or even(v, o.nv, lanes, c.machine.threads) >= EVEN else 2
        return o.mr <= 2 or twice * code(k, lanes, o) <= MOST_CODE

    most = min(MOST_ROWS, m, together(c, k, t.v, t.m))
    options = [
        replace(t, nv=nv, mr=mr, lr=lr)
        for nv, lr in panels
        for mr in range(1, min(most, (registers - SPARE) // (nv * lr) - 1) + 1)
    ]
    best = min(filter(short, options), key=lambda o: (cost(o), m % o.mr > 0, -o.nv, -o.mr), default=t)
    return best, cost(best)


def together(c: Chooser, k: Contraction, v: Loop, m: Loop) -> int:
    """How many rows of the operand that is read element by element the first cache holds at once."""
    most = m.trips
    for a in k.reads:
        step = abs(stride(a.buf, a.at, m.name) or 0) * a.buf.dtype.itemsize
        if step and not depends(a, v):
            most = min(most, held(c.machine, step))
    return most


def taps(k: Contraction) -> int:
    """How often the last loop of the sum is unrolled: a few taps of a window share what they read."""
    window = any(k.window(a, s) for a in k.reads for s in k.space)
    return k.reduce[-1].trips if window and k.reduce[-1].trips <= TAPS else 1


def code(k: Contraction, lanes: int, t: Tile) -> int:
    """About how many statements the tile and its tails are, unrolled."""

    def copies(s: Loop | None, size: int) -> int:
        return 1 if s is None else size + s.trips % size if s.trips > size else s.trips

    width = t.nv * lanes
    vectors = t.nv + (-(-(t.v.trips % width) // lanes) if t.v.trips > width else 0)
    terms, rows = len(k.reduce[-1].body) * taps(k), copies(t.m, t.mr) * copies(t.l, t.lr)
    after = k.after - 2
    return vectors * (rows * (terms + 1) + after if after > LONG_AFTER else rows * (terms + after))
