"""phases: a loop by the rest of its variable, so that divisions by the number of phases, and their rests, become variables."""

from __future__ import annotations

from tinyengine import index
from tinyengine.loopnest import Kernel, Loop, var
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, loops, rewrite, substitution


def phases(kernel: Kernel, loop: str, count: int) -> Kernel:
    """for i in 0..101: S(i // 2, i % 2) → for io in 0..50: for ip in 0..2: S(io, ip)
                                           for io in 50..51: for ip in 0..1: S(50, ip)

    Always legal: the same iterations in the same order. Unlike after `tile(i, 2)`, io counts by one."""
    text = f"phases({loop}, {count})"
    if count < 2:
        raise ScheduleError(f"{text}: there must be at least 2 phases")
    names = {s.name for s in loops(kernel.body)}
    if taken := names & {loop + "o", loop + "p"}:
        raise ScheduleError(f"{text}: a loop {', '.join(sorted(taken))} exists already")

    def change(s: Loop, path: Path) -> list[Loop]:
        if s.step != 1 or s.ends:
            raise ScheduleError(f"{text}: the iterations of {loop} are not all numbers from one to another")
        out: list[Loop] = []
        whole = s.trips // count
        for first, last, each in ((0, whole, count), (whole, whole + 1, s.trips % count)):
            if first >= last or not each:
                continue
            outer, part = var(loop + "o", first, last - 1), var(loop + "p", 0, each - 1)
            known = [e if e.arg[1] < e.arg[2] else constant(e.arg[1]) for e in (outer, part)]
            i = index.add(constant(s.start), index.mul(known[0], count), known[1])
            below = Loop(part, 0, each, 1, rewrite(s.body, substitution({s.var: i})), "serial", s.reduce, s.nodes)
            out.append(Loop(outer, first, last, 1, (below,), s.kind, s.reduce, s.nodes))
        return out

    return at(kernel, loop, change)
