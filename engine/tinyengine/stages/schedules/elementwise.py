"""The default schedule of loops without sums: one contiguous loop where there can be one, columns turned in blocks, parts of a
concatenation apart, rows on the threads."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tinyengine.dependence import accesses, carried
from tinyengine.index import terms
from tinyengine.loopnest import INDEX, Buf, Loop, stmt_exprs, subexprs, walk
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules import across
from tinyengine.stages.schedules.across import find
from tinyengine.stages.schedules.cost import body_cycles, stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES, few, stream, streamed, together, vectorize

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

CHUNKS = 4  # pieces per thread, so that a thread that starts late finds less to do
SYMBOLIC = 8  # times as many pieces for a loop whose end is not known
PARTS = 32  # more of them take long to compile
AHEAD_BYTES = 2048  # of the operand are fetched while as many are computed with
IN_ORDER, LONG_ORDER = 4, 64  # iterations that must keep their order are written out together, in loops of at least so many


def run(c: Chooser, around: list[Loop]) -> None:
    """Schedule the nest `around`, whose innermost body holds no loops."""
    work = around[0].trips * body_cycles(around[0].body, None, c.lanes) / max(1, c.lanes)
    names = [s.name for s in around]
    if c.lanes > 1:
        _cut(c, names)
    names = merged(c, names)
    dependent = carried(find(c, names[-1]))
    if dependent:
        c.refuse("vectorize", names[-1], dependent)
        trips = find(c, names[0]).trips
        if len(names) == 1 and trips >= LONG_ORDER and c.lanes > 1:
            why = "iterations keep their order; written out, the addresses of the next ones are found meanwhile"
            if c.do(f"unroll({names[0]}, {IN_ORDER})", "unroll", why, {"iterations": trips}):
                names = [names[0] + "o"]
    if work >= PARALLEL_CYCLES and c.machine.threads > 1:
        names = _outermost(c, names)
    v, order, block, alone = names[-1], names, False, len(names) == 1
    if not dependent and c.lanes > 1:
        order, block = across.run(c, names)
        v, alone = order[-1], len(order) == 1
        inner, threads = find(c, v), c.machine.threads
        if alone and work >= PARALLEL_CYCLES and threads > 1:
            # of a symbolic extent more pieces: few of them may be left
            size = chunk(inner.trips, threads * (SYMBOLIC if inner.limit is not None else 1), together(c, inner)[0])
            pieces = inner.trips // size
            if c.do(f"tile({v}, {size})", "tile", "one piece per ticket", {"iterations": inner.trips, "pieces": pieces}):
                order, v = [v + "o"], v + "i"
    if work < PARALLEL_CYCLES or c.machine.threads < 2:
        few(c, names[0], work)
    elif not (dependent and len(names) == 1):
        c.do(f"parallel({order[0]})", "parallel", "iterations are independent", {"cycles": work, "threads": c.machine.threads})
    if not dependent and c.lanes > 1:
        vectorize(c, _ahead(c, v) if alone else v)
        if block:
            c.do(f"unroll({order[-2]})", "unroll", "the rows of a block share what is loaded, or the lines that are stored")
    stream(c)


def _ahead(c: Chooser, v: str) -> str:
    """Fetch the only operand ahead where the result streams: the machine by itself starts too late for arithmetic to hide it.
    With several operands hints cost more than they bring. The innermost loop then."""
    if not streamed(c):
        return v
    operands = dict[Buf, int]()  # of the parts of the loop, each with the iterations of its part
    for part in [s for s in loops(c.kernel.body) if s.name == v]:
        reads = {a.buf: stride(a.buf, a.at, v) for a in accesses(part.body) if a.op == "read" and stride(a.buf, a.at, v) != 0}
        if len(reads) > 1 or set(reads.values()) - {1}:
            c.refuse("prefetch", v, "hints help where one operand is read from end to end", {"operands": len(reads)})
            return v
        operands |= {b: max(part.trips, operands.get(b, 0)) for b in reads}
    size = AHEAD_BYTES // max((b.dtype.itemsize for b in operands), default=1)
    ahead = [b for b, trips in operands.items() if trips >= 2 * size]
    if not ahead:
        return v
    numbers = {"bytes": AHEAD_BYTES}
    c.do(f"tile({v}, {size})", "tile", "a piece of the operand that is fetched ahead", numbers)
    for b in ahead:
        reason = "the next piece comes while this one is computed with"
        c.do(f"prefetch({b.name}, {v}o, at={v}i)", "prefetch", reason, numbers)
    return v + "i"


def merged(c: Chooser, names: list[str]) -> list[str]:
    """One loop for neighbouring loops over which every access is contiguous."""
    reason = "every access is contiguous over these loops: one loop has no short rows"
    first = 0
    while first < len(names) - 1:
        for last in range(len(names), first + 1, -1):
            text = f"merge({', '.join(names[first:last])})"
            if c.try_all(text) is not None and c.do(text, "merge", reason):
                names = [*names[:first], "".join(names[first:last]), *names[last:]]
                break
        first += 1
    if len(names) > 1:
        c.refuse("merge", names[0], f"some access is not contiguous over {', '.join(names[-2:])}")
    return names


def _outermost(c: Chooser, names: list[str]) -> list[str]:
    """A loop outside that has enough iterations for the threads."""
    enough = 2 * c.machine.threads
    trips = {n: find(c, n).trips for n in names}
    if len(names) < 2 or trips[names[0]] >= enough or trips[names[0]] % c.machine.threads == 0:
        return names
    best = next((n for n in names[:-1] if trips[n] >= enough), None)
    if best is None:
        return names
    order = [best, *(n for n in names if n != best)]
    return order if c.do(f"reorder({', '.join(order)})", "reorder", "iterations for every thread outside") else names


def _cut(c: Chooser, names: list[str]) -> None:
    """Parts of a loop in which a condition holds throughout, or not at all: the pieces of a concatenation. In the innermost loop
    vectors in which it changes stand apart, where a part would be short: their masks are constants, and the others have none."""
    count = 1
    for name in names:
        v = find(c, name)
        row = prod(find(c, n).trips for n in names[names.index(name) + 1 :])
        cuts, kept = set[int]().union(*(_settling(s) for s in loops(c.kernel.body) if s.name == name)), list[int]()
        for at in sorted(cuts):
            if min(at - (kept[-1] if kept else v.start), v.stop - at) * row >= 4 * c.lanes:
                kept.append(at)
            elif name == names[-1]:
                vector = v.start + (at - v.start) // c.lanes * c.lanes
                ends = (vector, vector + c.lanes if at > vector else at)
                kept += [x for x in ends if (kept[-1] if kept else v.start) < x < v.stop]
        numbers = {"parts": count * (len(kept) + 1), "most_parts": PARTS}
        if count * (len(kept) + 1) > PARTS:
            c.refuse("split", name, "a part for each piece would be more code than the masks cost", numbers)
        elif cuts and not kept:
            c.refuse("split", name, "a part of few iterations costs more than its masks", numbers)
        for at in kept if numbers["parts"] <= PARTS else ():
            c.do(f"split({name}, {at})", "split", "what is tested there is settled for each part: no masks", {"at": at})
            count += 1


def _settling(v: Loop) -> set[int]:
    """Iterations of `v` at which a condition on its variable alone begins to hold, or ends."""
    cuts = set[int]()
    for s in walk(v.body):
        for root in stmt_exprs(s):
            for e in subexprs(root):
                if e.op != "lt" or e.args[0].dtype is not INDEX:
                    continue
                (left, a), (right, b) = map(terms, e.args)
                if dict(left) == {v.var: 1} and not right:
                    cuts.add(b - a)  # v + a < b
                elif dict(right) == {v.var: 1} and not left:
                    cuts.add(a - b + 1)  # a < v + b
    return {at for at in cuts if v.start < at < v.stop}


def chunk(trips: int, threads: int, lanes: int) -> int:
    """Iterations per piece: whole vectors, few left over."""
    pieces = threads * CHUNKS
    vectors = trips // lanes
    if vectors < pieces:
        return max(1, trips // threads)
    # among a few counts the one that leaves the least behind
    best = min(range(pieces, 2 * pieces + 1), key=lambda n: (vectors - vectors // n * n, n))
    return vectors // best * lanes
