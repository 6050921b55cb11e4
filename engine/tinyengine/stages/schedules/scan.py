"""The default schedule of scans along contiguous rows: the lanes of a vector are scanned among themselves. Scans along other axes
have rows in lanes and are scheduled as all nests with loops inside are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine.dependence import accesses, carried
from tinyengine.loopnest import Alloc, Loop
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules.cost import body_cycles, stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES, few, stream

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

STEP_CYCLES = 8.0  # of the steps inside a vector and of what is carried


def find(s: Loop) -> Loop | None:
    """The innermost loop of the nest that stores a running total, if it is the only loop at its place and its rows are
    contiguous."""
    inner = loops((s,))[-1]
    if loops(inner.body) or len({x.name for x in loops((s,))}) != len(loops((s,))):
        return None
    totals = {a.buf for a in accesses(inner.body) if a.op not in ("read", "write") and a.buf.space == "register"}
    if not totals & {a.buf for a in accesses(inner.body) if a.op == "read"} or not carried(inner):
        return None
    touched = [stride(a.buf, a.at, inner.name) for a in accesses(inner.body) if a.buf.space != "register"]
    return inner if all(t in (-1, 0, 1) for t in touched) else None


def run(c: Chooser, s: Loop) -> bool:
    """Schedule the nest `s` if it scans along contiguous rows; False when it does not."""
    inner = find(s)
    if inner is None:
        return False
    lanes = c.lanes
    while lanes >= 2 * inner.trips:
        lanes //= 2
    text = f"scan({inner.name}, {lanes})"
    if lanes < 2 or c.try_all(text) is None:
        return False
    work = (s.trips if s is not inner else 1) * body_cycles(s.body, None, 1) / lanes
    if s is inner or any(isinstance(x, Alloc) for x in c.kernel.body):
        c.refuse("parallel", s.name, "each iteration needs the total of the one before: one thread", {"cycles": work})
    elif work < PARALLEL_CYCLES or c.machine.threads < 2:
        few(c, s.name, work)
    else:
        c.do(f"parallel({s.name})", "parallel", "rows are independent", {"cycles": work, "threads": c.machine.threads})
    reason = "each lane needs those before it: they are scanned in the vector, and the total so far is added to all"
    c.do(text, "scan", reason, {"lanes": lanes, "iterations": inner.trips})
    stream(c)
    return True
