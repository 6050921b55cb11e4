"""How wide, and whether on several threads: what the default schedules of all kinds of nests share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tinyengine.dependence import Access, accesses
from tinyengine.loopnest import Alloc, Buf, Let, Loop, stmt_exprs, subexprs, walk
from tinyengine.loopnest import name as named
from tinyengine.stages.arithmetic.affine import flat
from tinyengine.stages.primitives.nest import loops
from tinyengine.stages.schedules.cost import LINE, changing, operations, picked, stride

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

PARALLEL_CYCLES = 12_000.0  # below this a second thread costs more than it brings
SIDE_BY_SIDE = 4  # vectors whose long arithmetic goes on at once: each result waits some cycles for the one before
LONG = 6.0  # cycles of arithmetic per vector that are worth it
FAR, ROWS = 128, 16  # rows that are walked down: at least so many elements apart, so many of them
SHORT = 16  # iterations of a reduction that is unrolled
NARROWING = 64  # bytes of vectors that an instruction stores as narrower elements
CODE = 400  # statements, unrolled: compile time counts too


def few(c: Chooser, loop: str, work: float) -> None:
    c.refuse("parallel", loop, "too little work to wake a second thread", {"cycles": work, "least_cycles": PARALLEL_CYCLES})


def together(c: Chooser, s: Loop) -> tuple[int, str]:
    """Lanes for `s`, and why they are more than one vector, where they are."""
    own = tuple(x for x in s.body if not isinstance(x, (Loop, Alloc)))
    if len(own) == len(s.body):
        several = sum(map(operations, own)) >= LONG and s.trips >= 4 * SIDE_BY_SIDE * c.lanes
        count, why = SIDE_BY_SIDE if several else 1, "; each vector waits for its own results, so several go on at once"
        if not several and (halves := _halves(c, s)) and s.trips >= 2 * c.lanes * halves:
            count, why = halves, "; what is stored is narrower than what is computed: so many vectors are packed into one"
    else:
        count, why = _columns(c, s), "; the loops inside walk down columns, so longer pieces of each row are read"
    return c.lanes * count, why if count > 1 else ""


def _halves(c: Chooser, s: Loop) -> int:
    """Vectors of computed floats that make one of what `s` stores side by side; 0 where it stores no narrower ones, or where the
    machine's widest vectors are stored narrower by one instruction (AVX-512)."""
    stored = [a.buf.dtype for a in accesses((s,)) if a.op != "read" and stride(a.buf, a.at, s.name) == 1]
    narrow = [d.itemsize for d in stored if d.is_float and d.itemsize < 4]
    return 4 // min(narrow) if narrow and c.machine.vector_bytes < NARROWING else 0


def _columns(c: Chooser, s: Loop) -> int:
    """Vectors side by side for a loop along the rows of something that the loops inside it read row after row: many rows, or
    rows that data picks."""
    inner, along, names = loops(s.body), list[Access](), changing(s)
    for a in accesses((s,)):
        if a.op == "read" and a.buf.space == "global":
            step = stride(a.buf, a.at, s.name, names)
            if step not in (0, 1):
                return 1
            if step:
                along.append(a)
    if not any(_down(a, x) for x in inner for a in along):
        return 1
    heavy = any(operations(x) >= LONG for x in walk(s.body) if not isinstance(x, (Loop, Alloc)))
    kept = sum(x.buf.nbytes for x in walk(s.body) if isinstance(x, Alloc) and x.buf.space == "local")
    count = SIDE_BY_SIDE if heavy else 2 * SIDE_BY_SIDE
    pieces = 2 * c.machine.threads if any(x is s or x.name == s.name for x in c.top()) else 1
    while count > 1 and (s.trips < count * c.lanes * pieces or kept * count * c.lanes > c.machine.l3_bytes // 8):
        count //= 2
    return count


def _down(a: Access, x: Loop) -> bool:
    """Whether `x` leads the access to one row after the other."""
    if x.trips >= ROWS and abs(stride(a.buf, a.at, x.name) or 0) >= FAR:
        return True
    return picked(a.at, changing(x))


def short(c: Chooser, names: Iterable[str]) -> None:
    """Unroll short loops: where lanes lie apart and the steps are their neighbours, and reductions whose steps are compared with
    positions."""
    for name in names:
        r = next((x for x in loops(c.kernel.body) if x.name == name), None)
        if r is None or r.kind == "unroll" or not 1 < r.trips <= SHORT or loops(r.body):
            continue
        if any(_apart(a, r) for a in accesses(r.body)):
            c.do(f"unroll({name})", "unroll", "neighbours of one vector: what is loaded for one step serves the next")
        elif r.reduce and _tested(r):
            c.do(f"unroll({name})", "unroll", "what is tested is a constant in each step")


def _tested(r: Loop) -> bool:
    """Whether something in `r` compares a number that follows from its variable, and not from data."""
    counted = {r.var}
    for s in r.body:
        for root in stmt_exprs(s):
            for e in subexprs(root):
                if e.args and e.op != "load" and counted & set(e.args):
                    if e.op in ("lt", "eq"):
                        return True
                    counted.add(e)
        if isinstance(s, Let) and s.value in counted:
            counted.add(named(s.name, s.value.dtype, s.value.lanes))
    return False


def _apart(a: Access, r: Loop) -> bool:
    """Whether lanes stand for elements that lie apart, and steps of `r` for the neighbours of these."""
    offset = flat(a.at, a.buf.strides) if a.buf.space != "register" else None
    return offset is not None and 1 < abs(offset.lane) <= SHORT and dict(offset.terms).get(r.var) == 1


def vectorize(c: Chooser, name: str) -> bool:
    """As wide as the machine allows and the loop is long."""
    found = [s for s in loops(c.kernel.body) if s.name == name]
    if not found:
        return False
    s = max(found, key=lambda x: x.trips)
    lanes, more = together(c, s)
    while lanes >= 2 * s.trips:
        lanes //= 2
    if lanes < 2:
        c.refuse("vectorize", name, "one iteration fills no vector", {"iterations": s.trips})
        return False
    reason = "iterations are independent or a reduction" + more
    return c.do(f"vectorize({name}, {lanes})", "vectorize", reason, {"lanes": lanes, "iterations": s.trips})


def _within_lines(c: Chooser, p: Buf) -> int | None:
    """Bytes between rows of `p`, as it is stored, that are not whole lines; None where there are none."""
    steps = {s.name: s.step for s in loops(c.kernel.body)}
    for a in accesses(c.kernel.body):
        offset = flat(a.at, p.strides) if a.buf == p and a.op == "write" else None
        for t, k in offset.terms if offset is not None else ():
            pitch = abs(k) * steps.get(t.arg[0], 1) * p.dtype.itemsize if t.op == "var" else 0
            if pitch % LINE and abs(k) > 1:
                return pitch
    return None


def streamed(c: Chooser) -> list[Buf]:
    """Results far larger than the cache, which need not pass through it."""
    reads = {x.arg.name for s in walk(c.kernel.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"}
    return [
        p for p in c.kernel.params
        if p.name in c.kernel.outputs and p.name not in reads and p.nbytes >= c.machine.l3_bytes // 2
    ]  # fmt: skip


def stream(c: Chooser) -> None:
    """Stores of such results that go past the cache."""
    for p in streamed(c):
        if (pitch := _within_lines(c, p)) is not None:
            why = "rows begin within a line of the cache: a part of one that goes past it costs more than a whole one through it"
            c.refuse("streaming", p.name, why, {"bytes": p.nbytes, "row_bytes": pitch, "line_bytes": LINE})
            continue
        c.do(
            f"streaming({p.name})", "streaming", "half of the last cache or more: its lines need not be read first",
            {"bytes": p.nbytes, "l3_bytes": c.machine.l3_bytes},
        )  # fmt: skip
