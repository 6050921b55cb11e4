"""Vectors whose lanes lie apart in memory, and which of them an unrolled loop reads or writes side by side.

Lanes a small step apart (x[2 * i], channels of a pixel) are contiguous loads and shuffles. Lanes a long step apart (a column),
where an unrolled loop wants neighbouring columns, are a block of rows that is loaded and turned in registers. Lanes that share an
element with their neighbours (x[i // 2]) are one load of fewer elements and a shuffle."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tinyengine.loopnest import (
    Accumulate,
    Buf,
    Expr,
    Let,
    Loop,
    Stmt,
    Store,
    load_index,
    load_mask,
    name,
    stmt_exprs,
    subexprs,
    walk,
)
from tinyengine.stages.arithmetic import affine as af

WIDEST = 64  # bytes at most of a row of a block that is turned in registers, where it has other columns than a power of two
Access = tuple[Buf, tuple[Expr, ...], int | None]  # memory, the index into it, and how many lanes are on; None: all
Key = tuple[str, tuple[tuple[Expr, int], ...], int, int | None]  # buffer, terms of the offset, step between lanes, lanes on
Run = tuple[int, int]  # constants first, first + 1, ... first + count - 1 that an unrolled loop adds to it


def strided(s: Loop) -> tuple[Access, ...]:
    """The loads inside an unrolled loop whose lanes lie apart and which it moves on, or back, by one element."""
    if s.step != 1 or s.trips < 2:
        return ()
    found = []
    for x in walk(s.body):
        for root in () if isinstance(x, Loop) else stmt_exprs(x):
            for e in subexprs(root):
                on = prefix(load_mask(e)) if e.op == "load" else None
                if e.op == "load" and e.lanes > 1 and (on is not None or load_mask(e) is None):
                    a = af.flat(load_index(e), e.arg.strides)
                    if a is not None and abs(a.lane) > 1 and dict(a.terms).get(s.var) in (1, -1):
                        found.append((e.arg, load_index(e), on))
    return tuple(found)


def columns(s: Loop, accesses: tuple[Access, ...], first: Callable[[Expr], Expr]) -> dict[Key, Run]:
    """What the iterations of the unrolled loop `s` read or write side by side. `first`: an expression in its first iteration."""
    found: dict[Key, Run] = {}
    for buf, at, on in accesses:
        a, moving = af.flat(tuple(map(first, at)), buf.strides), af.flat(at, buf.strides)
        if a is not None and moving is not None:
            back = s.trips - 1 if dict(moving.terms).get(s.var) == -1 else 0
            found[buf.name, a.terms, a.lane, on] = (a.constant - back, s.trips)
    return found


def woven(s: Loop, group: Callable[[str], str]) -> tuple[Store, ...]:
    """The stores of an unrolled loop whose iterations together write every element from the first lane to the last (of those
    that a mask leaves on, the same in every iteration), to memory that the loop does not touch otherwise: they can wait for each
    other. `group`: the name that stands for all buffers in one memory."""
    if s.step != 1 or not 1 < s.trips <= af.WOVEN or s.first is not None or s.limit is not None:
        return ()
    inside = list(walk(s.body))
    moved = {s.var, *(name(x.name, x.value.dtype, x.value.lanes) for x in inside if isinstance(x, Let))}
    found: list[Store] = []
    for x in _once(s):
        if isinstance(x, Store) and (x.mask is None or (x.mask.lanes > 1 and not any(e in moved for e in subexprs(x.mask)))):
            lanes = max([i.lanes for i in x.index])
            a = af.flat(x.index, x.buf.strides) if lanes > 1 and lanes & (lanes - 1) == 0 else None
            if a is not None and a.lane == s.trips and (s.var, 1) in a.terms:
                rest = [e for t, _ in a.terms if t != s.var for e in subexprs(t)]
                if not any(e in moved or e.op == "load" for e in rest):
                    found.append(x)
    if not found:
        return ()
    roots = [e for x in inside if not isinstance(x, Loop) for e in stmt_exprs(x)]
    used = [group(e.arg.name) for r in roots for e in subexprs(r) if e.op == "load"]
    used += [group(x.buf.name) for x in inside if isinstance(x, (Store, Accumulate))]
    return tuple(x for x in found if used.count(group(x.buf.name)) == 1)


def _once(s: Loop) -> Iterator[Stmt]:
    """The statements that run once in each iteration of `s`."""
    for x in s.body:
        if isinstance(x, Loop) and x.trips == 1:
            yield from _once(x)
        else:
            yield x


def block(found: dict[Key, Run], buf: Buf, a: af.Affine, n: int, on: int | None = None) -> Run:
    """The constant of the first of n neighbouring columns, of which `a` is one, and how many of them an unrolled loop reads."""
    first, count = found.get((buf.name, a.terms, a.lane, on), (a.constant, 1))
    start = first + (a.constant - first) // n * n
    return (start, min(n, first + count - start)) if first <= a.constant < first + count else (a.constant, 1)


def interleaved(n: int, i: int, lanes: int = 0) -> list[int]:
    """Where the elements of row i come from in one round of turning an n x n block: by turns from row i // 2 (0 to n - 1) and row
    i // 2 + n // 2 (n to 2 n - 1) of the round before. After log2(n) rounds the rows are the columns of the block. `lanes`: of
    vectors in which blocks stand side by side; all of them are turned."""
    start, lanes = i % 2 * (n // 2), lanes or n
    return [p for at in range(start, lanes, n) for k in range(n // 2) for p in (at + k, lanes + at + k)]


def prefix(mask: Expr | None) -> int | None:
    """How many lanes are on, where the mask is known to be on in the first ones only."""
    if mask is None or mask.op == "const":
        return None if mask is None or mask.arg else 0
    if mask.op == "and":
        sides = [prefix(a) for a in mask.args]
        return None if None in sides else min(s for s in sides if s is not None)
    if mask.op == "lt" and mask.args[0].op == "ramp" and mask.args[0].arg > 0:
        base, limit = mask.args[0].args[0], mask.args[1]
        limit = limit.args[0] if limit.op == "splat" else limit
        if base.op == limit.op == "const":
            on: int = -(-(limit.arg - base.arg) // mask.args[0].arg)
            return min(mask.lanes, max(0, on))
    return None
