"""The default schedules for a machine with work-groups (Machine.work_items): the outermost loop goes to groups, one inside to the
work-items of a group.

Loops without sums are one contiguous loop where there can be one, in pieces for groups. A row goes to a group where it is long
enough for its work-items: each sums up a part, and a tree in local memory joins the parts. A product has a tile of results per
group, and copies of what it reads in local memory. What falls in neither form has an
iteration of its outermost loop per work-item, with memory of its own.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tinyengine.dependence import accesses, carried
from tinyengine.loopnest import Alloc, Loop
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules.across import find
from tinyengine.stages.schedules.contraction import undo
from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.elementwise import merged
from tinyengine.stages.schedules.product import axis_of, chain, depends, last
from tinyengine.stages.schedules.product import find as find_product

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

OWN = 4  # results of a work-item along each axis
STEP = 16  # terms of a step of the sum, and the smallest tile
SIDE = 32  # of a square that is turned in local memory
LEAST = 64  # iterations of a row that are worth a group
WHOLE = "a group per iteration, whatever their number: each takes every n-th"
NEAR = "one load or store for several elements"
SHARED = "work-items share the iterations: neighbours read neighbours"


def run(c: Chooser, s: Loop) -> bool:
    """Schedule one loop of the outermost level; False where one work-item has to do it all."""
    around = chain(s)
    inside = any(isinstance(b, Loop) for b in around[-1].body)
    return (inside and (_product(c, around) or _rows(c, around))) or _items(c, around, not inside)


def _items(c: Chooser, around: list[Loop], vectors: bool) -> bool:
    """A work-item per iteration of the loops `around`, with memory of its own."""
    outer = around[0]
    alone = "the outermost level keeps an accumulator" if any(isinstance(x, Alloc) for x in c.kernel.body) else ""
    dependent = alone or next((why for s in around if (why := carried(s))), "")
    if dependent:
        c.refuse("parallel", outer.name, f"{dependent}: one work-item")
        return False
    names = merged(c, [s.name for s in around]) if vectors else [s.name for s in around]
    if vectors and len(names) > 1 and _turned(c, names):
        return True
    v = find(c, names[-1])
    if vectors and (len(names) == 1 or v.trips % c.lanes == 0):
        _vectors(c, v)
    if len(names) == 1:
        numbers = {"iterations": v.trips, "work_items": c.machine.work_items}
        if not c.do(f"tile({v.name}, {c.machine.work_items})", "tile", "a piece for each group", numbers):
            return False
        names = [v.name + "o", v.name + "i"]
    for n in names:
        c.do(f"parallel({n})", "parallel", WHOLE if n == names[0] else SHARED, {"iterations": find(c, n).trips})
    return True


def _turned(c: Chooser, names: list[str]) -> bool:
    """Squares of an operand that lies across, copied into local memory row by row and read from there column by column."""
    v = find(c, names[-1])
    reads = {a.buf.name: a for a in accesses(v.body) if a.op == "read" and a.buf.space == "global"}
    far = [a for a in reads.values() if abs(stride(a.buf, a.at, v.name) or 0) > 1]
    m = next((n for n in names[:-1] if far and all(stride(a.buf, a.at, n) == 1 for a in far)), None)
    if m is None or min(find(c, m).trips, v.trips) < SIDE or any(stride(a.buf, a.at, v.name) is None for a in reads.values()):
        return False
    outer = [*(n for n in names[:-1] if n != m), m + "o", v.name + "o"]
    why = "a square of the operand that lies across, for a group"
    steps = [(f"tile({n}, {SIDE})", "tile", why) for n in (m, v.name)]
    steps.append((f"reorder({', '.join([*outer, m + 'i', v.name + 'i'])})", "reorder", "squares outside, for groups"))
    why = "neighbours are read together, and turned in local memory"
    steps += [(f"pack({a.buf.name}, at={v.name}o)", "pack", why) for a in far]
    copies = [f"{a.buf.name}_{axis}" for a in far for axis in range(len(a.buf.shape))]
    fit = SIDE * SIDE * 8 * len(far) <= c.machine.local_bytes
    if not (fit and c.do_all(steps, {"local_bytes": 4 * SIDE * SIDE * len(far)})):
        c.refuse("groups", v.name, "squares of what lies across cannot be copied")
        return False
    for n in outer:
        c.do(f"parallel({n})", "parallel", WHOLE)
    for n in (m + "i", v.name + "i", *(n for n in copies if any(x.name == n for x in loops(c.kernel.body)))):
        c.do(f"parallel({n})", "parallel", SHARED, {"work_items": c.machine.work_items})
    return True


def _vectors(c: Chooser, s: Loop) -> None:
    """Lanes where they are neighbours in memory: what lies apart is read by other work-items at the same time as well."""
    apart = [a.buf.name for a in accesses(s.body) if a.buf.space != "register" and stride(a.buf, a.at, s.name) not in (0, 1)]
    if apart or s.trips < c.lanes or c.lanes < 2:
        c.refuse("vectorize", s.name, f"lanes of {apart[0]} lie apart" if apart else "one iteration fills no vector")
        return
    c.do(f"vectorize({s.name}, {c.lanes})", "vectorize", NEAR, {"lanes": c.lanes})


def _product(c: Chooser, around: list[Loop]) -> bool:
    """A tile of results for a group, of 4 x 4 for each work-item. A step of the sum copies what the tile needs of both operands
    into local memory, as the work-items will read it; the results are summed up in registers and kept in local memory between."""
    k = find_product(around)
    if k is None or len(k.reduce) != 1 or len(k.space) < 2 or len(k.accumulators) != 1 or len(k.reads) != 2:
        return False
    v, r, (acc,) = k.space[-1], k.reduce[0], k.accumulators
    m = next((s for s in k.space[-2::-1] if sorted(depends(a, s) for a in k.reads) == [False, True]), None)
    columns = [a for a in k.reads if depends(a, v)]
    if m is None or len(columns) != 1 or depends(columns[0], m) or k.reads[0].buf == k.reads[1].buf:
        c.refuse("groups", v.name, "no tiles: they want one operand along the rows of the result and another along its columns")
        return False
    if min(m.trips, v.trips, r.trips) < STEP:
        why = f"too few results or terms for tiles of {STEP}"
        c.refuse("groups", v.name, why, {"results": m.trips * v.trips, "terms": r.trips})
        return False
    size = _tile(c, m.trips * v.trips)
    kernel, count = c.kernel, len(c.decisions)
    numbers = {"results": size * size, "work_items": (size // OWN) ** 2, "local_bytes": _tile_bytes(size)}
    i, j, kk = m.name, v.name, r.name
    others = [s.name for s in k.space if s is not m and s is not v]
    outer = [*others, i + "o", j + "o"]
    steps = [(f"tile({x}, {size})", "tile", "a tile of results for a group") for x in (i, j)]
    steps += [
        (f"tile({kk}, {STEP})", "tile", "what one step of the sum reads fits local memory"),
        (f"reorder({', '.join([*outer, i + 'i', j + 'i'])})", "reorder", "tiles outside, for groups"),
        (f"reorder({kk}o, {i}i, {j}i, {kk}i, memory=local)", "reorder", "all results of the tile take each step together"),
    ]
    for a in k.reads:
        axis = axis_of(a, v if a is columns[0] else m)
        axes = f", axes={last(a, axis)}" if a is columns[0] and axis is not None else ""
        steps.append((f"pack({a.buf.name}, at={kk}o{axes})", "pack", "read from memory once for the tile"))
    steps += [(f"tile({x}i, {OWN})", "tile", "results of one work-item") for x in (i, j)]
    steps += [
        (f"reorder({i}io, {j}io, {i}ii, {j}ii)", "reorder", "the results of one work-item together"),
        (f"reorder({kk}i, {i}ii, {j}ii)", "reorder", "each element that is read serves several results"),
        (f"partial({acc}, at={j}io)", "partial", "summed up in registers, added to local memory once a step"),
        (f"unroll({i}ii)", "unroll", "results in registers have no addresses"),
    ]
    if not all(c.do(*step, numbers) for step in steps):
        undo(c, kernel, count)
        return False
    if v.trips % c.lanes:
        c.do(f"unroll({j}ii)", "unroll", "results in registers have no addresses; a rest of them fills no vector")
    else:
        c.do(f"vectorize({j}ii, {c.lanes})", "vectorize", NEAR)
    _copies(c, [a.buf.name for a in k.reads], acc if v.trips % c.lanes == 0 else "")
    for n in outer:
        if not c.do(f"parallel({n})", "parallel", WHOLE):
            undo(c, kernel, count)
            return False
    inside = {x.name: x for x in loops(c.kernel.body) if x.kind == "serial" and not x.reduce}
    copies = [n for n in inside if any(n.startswith(f"{a.buf.name}_") for a in k.reads)]
    for n in (f"{i}io", f"{j}io", *copies):
        c.do(f"parallel({n})", "parallel", SHARED, {"work_items": c.machine.work_items})
    return True


def _tile(c: Chooser, results: int) -> int:
    """Results of a group along each axis: as many as its work-items and local memory allow, and all compute units get some."""
    size = STEP
    while (
        (2 * size // OWN) ** 2 <= c.machine.work_items
        and _tile_bytes(2 * size) <= c.machine.local_bytes
        and results >= (2 * size) ** 2 * c.machine.cores
    ):
        size *= 2
    return size


def _tile_bytes(size: int) -> int:
    """Local memory for the results of a tile and a step of both operands, of float32, each with room around it."""
    return 4 * (size * size + 2 * size * STEP) + 3 * 128


def _copies(c: Chooser, operands: list[str], acc: str) -> None:
    """Vectors for the sums of a step, where `acc` is summed up in vectors, and for the copies of operands that are read as they
    lie and leave no rest."""
    found: dict[str, list[Loop]] = {}
    for s in loops(c.kernel.body):
        found.setdefault(s.name, []).append(s)
    for name, same in found.items():
        copied = name.rpartition("_")[0] in operands and all(s.trips % c.lanes == 0 for s in same)
        if copied or (acc and name.startswith(f"{acc}_")):
            body = same[0].body
            if not loops(body) and all(stride(a.buf, a.at, name) == 1 for a in accesses(body)):
                c.do(f"vectorize({name}, {c.lanes})", "vectorize", NEAR)


def _rows(c: Chooser, around: list[Loop]) -> bool:
    """A group for each row, its loops on the work-items."""
    row = around[-1]
    phases = [(s.name, prod(x.trips for x in longest(s))) for s in row.body if isinstance(s, Loop)]
    iterations, outer = max(n for _, n in phases), around[0]
    if outer.reduce or any(isinstance(x, Alloc) for x in c.kernel.body):
        return False
    if iterations < LEAST:
        c.refuse("groups", outer.name, "rows are too short for a group of their own", {"iterations": iterations, "least": LEAST})
        return False
    if _columns(row):
        why = f"neighbouring {row.name} read neighbours: work-items with one each read them together"
        c.refuse("groups", outer.name, why)
        return False
    shared: list[str] = []
    for name, _ in phases:
        shared += _phase(c, next(s for s in loops(c.kernel.body) if s.name == name))
    if not c.do(f"parallel({outer.name})", "parallel", WHOLE, {"iterations": prod(s.trips for s in around)}):
        return False
    for s in around[1:]:
        c.do(f"parallel({s.name})", "parallel", WHOLE)
    for n in shared:
        c.do(f"parallel({n})", "parallel", SHARED, {"work_items": c.machine.work_items})
    return True


def _columns(row: Loop) -> bool:
    """Whether neighbouring rows read neighbours, or the same."""
    strides = {stride(a.buf, a.at, row.name) for a in accesses(row.body) if a.op == "read" and a.buf.space == "global"}
    return 1 in strides and strides <= {0, 1}


def longest(s: Loop) -> list[Loop]:
    """The loops from `s` inward, the longest where several stand beside each other."""
    inner = [b for b in s.body if isinstance(b, Loop)]
    return [s, *longest(max(inner, key=lambda x: x.trips))] if inner else [s]


def _phase(c: Chooser, s: Loop) -> list[str]:
    """One loop of a row, prepared for work-items; the names of the loops that they share."""
    best = max(longest(s), key=lambda x: x.trips)
    if not loops(best.body):
        _vectors(c, best)
    vector = next(x for x in loops(c.kernel.body) if x.name == best.name)
    count = min(c.machine.work_items, 1 << (vector.trips - 1).bit_length() if vector.trips > 1 else 1)
    if count < 2:
        return []
    if not carried(vector):
        return [best.name]
    numbers = {"iterations": vector.trips, "work_items": count}
    why = "each work-item sums up a part; a tree joins the parts"
    if not c.do(f"accumulate({best.name}, {count}, memory=local)", "accumulate", why, numbers):
        return []
    return [n for n in (f"{best.name}a", f"{best.name}at") if any(x.name == n for x in loops(c.kernel.body))]
