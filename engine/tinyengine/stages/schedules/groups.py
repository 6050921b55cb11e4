"""The default schedules for a machine with work-groups (Machine.work_items): the outermost loop goes to groups, one inside to the
work-items of a group.

Loops without sums are one contiguous loop where there can be one, in pieces for groups. A row goes to a group where it is long
enough for its work-items: each sums up a part, and a tree in local memory joins the parts. What falls in neither form has an
iteration of its outermost loop per work-item, with memory of its own.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tinyengine.dependence import accesses, carried
from tinyengine.loopnest import Alloc, Loop
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules.cost import stride
from tinyengine.stages.schedules.elementwise import find, merged
from tinyengine.stages.schedules.product import chain

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

LEAST = 64  # iterations of a row that are worth a group
WHOLE = "a group per iteration, whatever their number: each takes every n-th"
SHARED = "work-items share the iterations: neighbours read neighbours"


def run(c: Chooser, s: Loop) -> bool:
    """Schedule one loop of the outermost level; False where one work-item has to do it all."""
    around = chain(s)
    inside = any(isinstance(b, Loop) for b in around[-1].body)
    return (inside and _rows(c, around)) or _items(c, around, not inside)


def _items(c: Chooser, around: list[Loop], vectors: bool) -> bool:
    """A work-item per iteration of the loops `around`, with memory of its own."""
    outer = around[0]
    alone = "the outermost level keeps an accumulator" if any(isinstance(x, Alloc) for x in c.kernel.body) else ""
    dependent = alone or next((why for s in around if (why := carried(s))), "")
    if dependent:
        c.refuse("parallel", outer.name, f"{dependent}: one work-item")
        return False
    names = merged(c, [s.name for s in around]) if vectors else [s.name for s in around]
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


def _vectors(c: Chooser, s: Loop) -> None:
    """Lanes where they are neighbours in memory: what lies apart is read by other work-items at the same time as well."""
    apart = [a.buf.name for a in accesses(s.body) if a.buf.space != "register" and stride(a.buf, a.at, s.name) not in (0, 1)]
    if apart or s.trips < c.lanes or c.lanes < 2:
        c.refuse("vectorize", s.name, f"lanes of {apart[0]} lie apart" if apart else "one iteration fills no vector")
        return
    c.do(f"vectorize({s.name}, {c.lanes})", "vectorize", "one load or store for several elements", {"lanes": c.lanes})


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
    """Whether what lies beside each other belongs to different rows, everywhere."""
    reads = [a for a in accesses(row.body) if a.op == "read" and a.buf.space == "global"]
    inner = [x.name for x in loops(row.body)]
    moving = [a for a in reads if any(stride(a.buf, a.at, n) != 0 for n in inner)]
    return bool(moving) and all(
        stride(a.buf, a.at, row.name) == 1 and all(stride(a.buf, a.at, n) not in (1, None) for n in inner) for a in moving
    )


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
