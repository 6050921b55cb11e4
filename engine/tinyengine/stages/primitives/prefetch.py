"""prefetch: hints to bring memory into the caches before it is needed, while something else is computed."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tinyengine import index
from tinyengine.dependence import Access, accesses, inner_variables, loads, split
from tinyengine.loopnest import Buf, Expr, Kernel, Loop, Prefetch, Stmt, apply, load_index, var
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, substitution

LINE = 64  # bytes that one hint brings


def prefetch(kernel: Kernel, buf: str, loop: str, at_loop: str) -> Kernel:
    """What the next iteration of a loop reads, where it reads it now:
    for i: for j: S(x[i, j]) → for i: for j: prefetch x[i + 1, j]; S(x[i, j])          (`prefetch(x, i, at=j)`)

    Or, where the loop inside does not read it directly, what the next iteration touches, in as many parts as there are turns:
    for i: for k: S; y[i, 0..J] = v → for i: for k: prefetch y[i + 1, k * J // K]; S; y[i, 0..J] = v     (`prefetch(y, i, at=k)`)

    A hint: always legal where what is touched is a box of memory."""
    text = f"prefetch({buf}, {loop}, at={at_loop})"

    def change(s: Loop, path: Path) -> list[Stmt] | None:
        around = next((p for p in path if p.name == loop), None)
        if around is None:
            raise ScheduleError(f"{text}: {at_loop} does not stand inside {loop}")
        beside = _beside(s, around, buf)
        if beside is None and any(a.buf.name == buf and a.buf.space == "global" for a in accesses(around.body)):
            beside = (_part(around, [*path[path.index(around) + 1 :], s], buf, text), *s.body)
        return None if beside is None else [replace(s, body=beside)]

    return at(kernel, at_loop, change, f"{text}: {buf} is not touched in {loop}")


def hints(buf: Buf, at_: tuple[Expr, ...], nodes: tuple[int, ...]) -> list[Prefetch]:
    """One for each line that the lanes of an index reach along its last axis; none where they go their own ways."""
    first = tuple([x.args[0] if x.op == "ramp" else x for x in at_])
    if any(x.lanes > 1 for x in first):
        return []
    if not at_ or at_[-1].op != "ramp":
        return [Prefetch(buf, first, nodes)]
    stride, lanes = at_[-1].arg, at_[-1].lanes
    step = max(1, LINE // (buf.dtype.itemsize * abs(stride)))
    return [Prefetch(buf, (*first[:-1], index.add(first[-1], constant(k * stride))), nodes) for k in range(0, lanes, step)]


def _beside(s: Loop, around: Loop, buf: str) -> tuple[Stmt, ...] | None:
    """The body of `s` with a hint before each statement that reads the buffer; None where none does."""
    ahead = substitution({around.var: index.add(around.var, constant(around.step))})
    body: list[Stmt] = []
    for b in s.body:
        for e in loads(b) if not isinstance(b, Loop) else ():
            if e.arg.name == buf:
                body += [h for h in hints(e.arg, tuple(map(ahead, load_index(e))), s.nodes) if h not in body]
        body.append(b)
    return tuple(body) if len(body) > len(s.body) else None


def region(s: Loop, buf: str, text: str) -> tuple[Buf, list[tuple[Expr, int]]]:
    """The buffer, and the first index and the extent along each axis of the box that one iteration touches. ScheduleError where
    there is none."""
    inner = inner_variables(s)
    touched = [a for a in accesses(s.body) if a.buf.name == buf and a.buf.space == "global"]
    if not touched:
        raise ScheduleError(f"{text}: {buf} is not touched in {s.name}")
    source = touched[0].buf
    return source, [_side(s, source, axis, touched, inner, text) for axis in range(len(source.shape))]


def _side(s: Loop, source: Buf, axis: int, touched: list[Access], inner: set[str], text: str) -> tuple[Expr, int]:
    parts = [split(a.at[axis], s.name, inner) for a in touched]
    if any(p is None or p[:2] != (parts[0] or p)[:2] for p in parts):
        raise ScheduleError(f"{text}: what {s.name} touches of {source.name} is no box along axis {axis}")
    found = [p for p in parts if p is not None]
    coefficient, outer = found[0][:2]
    low, high = min(p[2] for p in found), max(p[3] for p in found)
    if not coefficient and not outer:  # what lies outside is masked off
        low, high = max(0, low), min(source.shape[axis] - 1, high)
    return index.total([*outer, (s.var, coefficient)], low), max(1, high - low + 1)


def piece(source: Buf, sides: list[tuple[Expr, int]]) -> tuple[int, int]:
    """The number of axes behind which the box is one piece of memory, and its elements."""
    axes, elements = len(sides) - 1, sides[-1][1]
    while axes and sides[axes][1] == source.shape[axes]:
        axes -= 1
        elements *= sides[axes][1]
    return axes, elements


def _part(around: Loop, inside: list[Loop], buf: str, text: str) -> Stmt:
    """Hints for the part of what the next iteration of `around` touches that falls to one turn of the loops inside."""
    source, sides = region(around, buf, text)
    axes, elements = piece(source, sides)
    each = max(1, LINE // source.dtype.itemsize)
    lines = -(-elements // each)
    hints = lines * prod(n for _, n in sides[:axes])
    turns, number = 1, constant(0)
    for s in inside:
        step = s.var if s.step == 1 else apply("floordiv", (s.var, constant(s.step)))
        number, turns = index.add(index.mul(number, s.trips), step), turns * s.trips
    count = -(-hints // turns)
    part = var(f"{buf}_part", 0, count - 1) if count > 1 else constant(0)
    number = index.add(index.mul(number, count), part)
    if count == 1 and turns > hints:
        number = apply("floordiv", (index.mul(number, hints), constant(turns)))
    place = [base for base, _ in sides]
    inner = lines
    for axis in range(axes - 1, -1, -1):
        n = sides[axis][1]
        if n > 1:
            row = number if inner == 1 else apply("floordiv", (number, constant(inner)))
            outer = all(x == 1 for _, x in sides[:axis])
            place[axis] = index.add(place[axis], row if outer else apply("mod", (row, constant(n))))
            inner *= n
    line = number if inner == lines else apply("mod", (number, constant(lines)))
    place[-1] = index.add(place[-1], index.mul(line, each)) if lines > 1 else place[-1]
    ahead = substitution({around.var: index.add(around.var, constant(around.step))})
    hint: Stmt = Prefetch(source, tuple(map(ahead, place)), inside[-1].nodes)
    return Loop(part, 0, count, 1, (hint,), "serial", False, inside[-1].nodes) if count > 1 else hint
