"""scan: a loop whose every iteration stores a running total, in vectors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tinyengine.dependence import conflicts
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    apply,
    lane,
    lanes_scan,
    load,
    name,
    ramp,
    splat,
    stmt_exprs,
    subexprs,
    var,
    walk,
)  # fmt: skip
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import Body, Path, ScheduleError, at, lanes_of
from tinyengine.stages.primitives.vectorize import Widener


def scan(kernel: Kernel, loop: str, lanes: int) -> Kernel:
    """register acc = 0; for j in 0..64: (acc += x[j]; out[j] = acc)
       → register acc = 0
         for j in 0..64 step 16: (part = scan_add(x[j : j + 16]); out[j : j + 16] = acc + part; acc += part.lane(15))

    The lanes of a vector are scanned among themselves, in as many steps as `lanes` has bits, and the total of what came before is
    added to all. Illegal where iterations depend on each other in another way."""
    text = f"scan({loop}, {lanes})"
    if lanes < 2 or lanes & (lanes - 1):
        raise ScheduleError(f"{text}: the number of lanes must be 2, 4, 8, ...")

    def change(s: Loop, path: Path) -> list[Loop]:
        if any(e.op == "ramp" or e.lanes > 1 for b in walk(s.body) for root in stmt_exprs(b) for e in subexprs(root)):
            raise ScheduleError(f"{text}: {loop} already contains vectors")
        if s.step != 1 or any(isinstance(b, (Loop, Alloc)) for b in s.body):
            raise ScheduleError(f"{text}: {loop} must have step 1 and no loops or memory inside")
        carried = _carried(s, text)
        main, out = s.start + s.trips // lanes * lanes, list[Loop]()
        if main > s.start:
            out.append(_wide(s, path, s.start, main, lanes, carried))
        if main < s.stop:
            width = lanes
            while width >= 2 * (s.stop - main) and width > 2:
                width //= 2
            out.append(_wide(s, path, main, s.stop, width, carried))
        return out

    return at(kernel, loop, change)


def _carried(s: Loop, text: str) -> frozenset[Buf]:
    """The accumulators that `s` carries from one iteration to the next."""
    sums = [b for b in s.body if isinstance(b, Accumulate)]
    carried = frozenset(b.buf for b in sums if b.buf.space == "register" and not b.buf.shape and b.mask is None)
    if not carried:
        raise ScheduleError(f"{text}: {s.name} carries no total")
    for a, _ in conflicts(s):
        if a.buf not in carried:
            raise ScheduleError(f"{text} is not legal: iterations of {s.name} depend on each other through {a.buf.name}")
    done = set[Buf]()
    for b in s.body:
        wrong = [x.arg for e in stmt_exprs(b) for x in subexprs(e) if x.op == "load" and x.arg in carried - done]
        if isinstance(b, Accumulate) and b.buf in carried:
            wrong += [b.buf] if b.buf in done else []
            done.add(b.buf)
        if wrong:
            raise ScheduleError(f"{text} is not legal: {wrong[0].name} is read before its one term is added, or has another")
    return carried


def _wide(s: Loop, path: Path, start: int, stop: int, lanes: int, carried: frozenset[Buf]) -> Loop:
    """`s` from start to stop in vectors; a single masked one where stop - start < lanes."""
    trips = max(1, (stop - start) // lanes)
    v = var(s.name, start, start + (trips - 1) * lanes)
    base = v if trips > 1 else constant(start)
    mask = apply("lt", (ramp(base, lanes), splat(constant(stop), lanes))) if stop - start < lanes else None
    w = _Scanner(s.var, base, lanes, mask, {}, {}, "", min(lanes, stop - start), carried=carried)
    w.grid = {p.name: (p.start, p.step) for p in path} | {s.name: (start, lanes)}
    return replace(s, var=v, start=start, stop=stop, step=lanes, body=w.body(s.body))


@dataclass
class _Scanner(Widener):
    carried: frozenset[Buf] = frozenset()
    totals: dict[Buf, Expr] = field(default_factory=dict)  # of this vector, one for each lane

    def body(self, body: Body) -> Body:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Accumulate) and s.buf in self.carried:
                out += self.total(s)
            elif (x := self.stmt(s)) is not None:
                out.append(x)
        return tuple(out)

    def total(self, s: Accumulate) -> Body:
        part = Let(f"{s.buf.name}_part", lanes_scan(s.op, lanes_of(self.expr(s.value), self.lanes)), s.nodes)
        parts = name(part.name, s.buf.dtype, self.lanes)
        whole = Let(f"{s.buf.name}_all", apply(s.op, (splat(load(s.buf, ()), self.lanes), parts)), s.nodes)
        self.totals[s.buf] = name(whole.name, s.buf.dtype, self.lanes)
        return (part, whole, replace(s, value=lane(parts, self.lanes - 1)))

    def load(self, e: Expr) -> Expr:
        return self.totals[e.arg] if e.arg in self.carried else super().load(e)


__all__ = ["scan"]
