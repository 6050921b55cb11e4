"""Loops whose operands or results lie across the lanes: rows are read and written as they lie, and turned or woven in registers.

*Phases*: a loop whose variable is divided by a small number (zeros between elements, repeated ones) becomes two, of which the
inner one is short. *Woven*: a short innermost loop (channels of a pixel, a stack along the last axis) goes into the loop around
it; its vectors are woven into each other, or taken apart. *Turned*: a block of rows that lie across is read as it lies, and
turned. *Through memory*: where rows of the result share few sets of the first cache, a larger block is turned into memory of its
own, and long pieces of each row leave it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine.dependence import Access, accesses
from tinyengine.index import terms
from tinyengine.loopnest import Expr, Let, Loop, stmt_exprs, subexprs
from tinyengine.loopnest import name as named
from tinyengine.stages.arithmetic.affine import BLOCK, NEAR, WOVEN
from tinyengine.stages.primitives.nest import fresh_buffer, loops
from tinyengine.stages.schedules.contraction import undo
from tinyengine.stages.schedules.cost import apart, body_cycles, changing, crowded, statement, stride, woven
from tinyengine.stages.schedules.lanes import CODE, streamed
from tinyengine.stages.schedules.product import axis_of, last
from tinyengine.stages.schedules.tile import copy_loops

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

GAIN = 1.5  # times as many cycles along a short loop, from which on a longer one takes its place
LINES = 4  # blocks beside each other along the contiguous axis of the source: whole pages are read, not single lines
PIECE = 2, 8  # vectors of columns of the source, and of its rows, that are turned into memory at a time


def run(c: Chooser, names: list[str]) -> tuple[list[str], bool]:
    """The loops from the outside in, and whether the last but one is a block to be unrolled."""
    start, count = c.kernel, len(c.decisions)
    if phased := _phases(c, names):
        if order := _woven(c, phased, True):
            return order, True
        undo(c, start, count)
    if len(names) < 2:
        return names, False
    order = _woven(c, names, True)
    if not order and (order := _through_memory(c, names)):
        return order, False
    order = order or _turned(c, names) or _woven(c, names, False)
    return order or names, bool(order)


def find(c: Chooser, name: str) -> Loop:
    """The longest loop of this name."""
    return max((s for s in loops(c.kernel.body) if s.name == name), key=lambda s: s.trips)


def _phases(c: Chooser, names: list[str]) -> list[str]:
    """The loops with two for the innermost one, where it is divided by a small number: lanes of one phase are neighbours. Nothing
    where it is not."""
    v = find(c, names[-1])
    divided = [
        (e.op, e.args[1].arg) for s in v.body for root in stmt_exprs(s) for e in subexprs(root)
        if e.op in ("floordiv", "mod") and e.args[1].op == "const" and dict(terms(e.args[0])[0]).get(v.var) == 1
    ]  # fmt: skip
    counts = {n for op, n in divided if op == "mod" or c.lanes % n}  # lanes that share elements evenly are a shuffle already
    if len(counts) != 1 or not 1 < max(counts) <= NEAR or v.trips < max(counts) * c.lanes:
        return []
    n, why = max(counts), "divided by so many, iterations of one rest read neighbours"
    done = c.do(f"phases({v.name}, {n})", "phases", why, {"phases": n, "iterations": v.trips})
    return [*names[:-1], v.name + "o", v.name + "p"] if done else []


def _far(c: Chooser, names: list[str]) -> tuple[list[Access], Loop | None]:
    """The reads whose neighbours lie apart along the innermost loop, and the loop around it along which they are neighbours."""
    v = find(c, names[-1])
    reads = [(a, stride(a.buf, a.at, v.name)) for a in accesses(v.body) if a.op == "read"]
    if None in [step for _, step in reads]:
        return [], None
    for least in (NEAR, 1):  # lanes a small step apart are worth it only where all that lies between is wanted
        far = [a for a, step in reads if abs(step or 0) > least]
        found = [find(c, n) for n in names[:-1] if far and all(abs(stride(a.buf, a.at, n) or 0) == 1 for a in far)]
        m = next((s for s in found if s.trips > 1 and (least > 1 or s.trips <= WOVEN)), None)
        if m is not None:
            return far, m
    return [], None


def _pitch(v: Loop, m: Loop) -> int:
    """Bytes between what neighbouring iterations of `m` write."""
    written = [abs(stride(a.buf, a.at, m.name) or 0) * a.buf.dtype.itemsize for a in accesses(v.body) if a.op == "write"]
    return max(written, default=0)


def _through_memory(c: Chooser, names: list[str]) -> list[str]:
    """A block of what lies across is turned into memory of its own, where rows of the result would crowd a few sets of the first
    cache. The loops from the outside in, or nothing."""
    v, (far, m), lanes = find(c, names[-1]), _far(c, names), min(c.lanes, BLOCK)
    if m is None or len(far) != 1 or streamed(c) or any(isinstance(s, Loop) for s in v.body):
        return []
    a, columns, rows = far[0], PIECE[0] * lanes, PIECE[1] * lanes
    axis, pitch = axis_of(a, v), _pitch(v, m)
    numbers = {"row_bytes": pitch, "rows": lanes}
    if axis is None or m.trips < 2 * LINES * lanes or v.trips < rows or not crowded(pitch, lanes):
        return []
    order = [*(m.name + "o" if n == m.name else n for n in names[:-1]), v.name + "o", m.name + "i", v.name + "i"]
    axes, copy = last(a, axis), fresh_buffer(c.kernel, f"{a.buf.name}_pack")
    steps = [
        (f"tile({m.name}, {columns})", "tile", "columns of a block that is turned into memory of its own"),
        (f"tile({v.name}, {rows})", "tile", "rows of it: long pieces of the result's rows"),
        (f"reorder({', '.join(order)})", "reorder", "a block inside"),
        (f"pack({a.buf.name}, at={v.name}o, axes={axes})", "pack", "rows of the result share few sets of the first cache"),
    ]
    if not c.do_all(steps, numbers):
        c.refuse("pack", v.name, "what lies across cannot be copied block by block", numbers)
        return []
    whole, c.lanes = c.lanes, lanes
    copy_loops(c, a.buf.name if copy == f"{a.buf.name}_pack" else copy, axes, True)
    c.lanes = whole
    return order


def _turned(c: Chooser, names: list[str]) -> list[str]:
    """Blocks for operands that lie across: rows are read as they lie, and turned in registers. The loops from the outside in, or
    nothing where no operand does, or it cannot be helped."""
    v = find(c, names[-1])
    far, m = _far(c, names)
    lanes = min(c.lanes, BLOCK)
    if m is None or sum(not isinstance(s, Let) for s in v.body) * min(m.trips, lanes) * 2 > CODE:
        return []
    steps, rows, inner, blocks = list[tuple[str, str, str]](), v.name, m.name, list[str]()
    many = m.trips >= 2 * LINES * lanes
    if many and (streamed(c) or not crowded(_pitch(v, m), LINES * lanes)):
        steps.append((f"tile({inner}, {LINES * lanes})", "tile", "neighbouring blocks of the source together"))
        blocks, inner = [inner + "o"], inner + "i"
    if m.trips > lanes:
        steps.append((f"tile({inner}, {lanes})", "tile", "a block of rows that lie across"))
        blocks, inner = [*blocks, inner + "o"], inner + "i"
    if v.trips > lanes:
        steps.append((f"tile({rows}, {lanes})", "tile", "a block of rows that lie across"))
        rows += "i"
    strips = [v.name + "o"] if rows != v.name else []
    wide = blocks[:1] if many else []  # of few columns all are turned before the next rows are read
    before = [x for n in names[:-1] for x in ([*blocks, inner] if n == m.name else [n])]
    outside = [x for n in names[:-1] for x in (wide if n == m.name else [n])]
    order = [*outside, *strips, *blocks[len(wide) :], inner, rows]
    if order != [*before, *strips, rows]:
        steps.append((f"reorder({', '.join(order)})", "reorder", "a block in registers inside"))
    numbers = {"bytes_between": max(abs(stride(a.buf, a.at, v.name) or 0) * a.buf.dtype.itemsize for a in far)}
    if not c.do_all(steps, numbers):
        c.refuse("turn", v.name, "the loops around the rows that lie across cannot be exchanged")
        return []
    return order


def _weaving(c: Chooser, v: Loop, m: Loop, stores: list[Access]) -> float:
    """Cycles of a vector of each row, written out: what does not change from row to row is done once, and what is chosen by the
    row's number is known."""
    total, moving, settled, names = 0.0, {v.var}, {v.var}, changing(m)

    def known(e: Expr) -> bool:
        return all(x.op != "load" and (x in settled or x.op not in ("var", "name")) for x in subexprs(e))

    for s in v.body:
        roots = [x for e in stmt_exprs(s) for x in subexprs(e)]
        if moving.isdisjoint(roots):
            total += statement(s, m.name, c.lanes, names)
            continue
        if isinstance(s, Let):
            moving.add(value := named(s.name, s.value.dtype, s.value.lanes))
            settled |= {value} if known(s.value) else set()
        chosen = [x for x in roots if (x.op in ("lt", "eq", "and", "or") and known(x)) or (x.op == "where" and known(x.args[0]))]
        total += v.trips * max(0.0, statement(s, m.name, c.lanes, names) - 0.5 * len(chosen))
    return total + v.trips * sum(woven(v.trips) - apart(v.trips, c.lanes, a) for a in stores)


def _woven(c: Chooser, names: list[str], whole: bool) -> list[str]:
    """The loop around a short innermost one in its place, where its lanes cost less: rows that are woven into each other, as
    channels of pixels, are read as they lie, and stored together (`whole`: the short loop fills the gaps) or with gaps. The loops
    from the outside in, or nothing."""
    v, m = find(c, names[-1]), find(c, names[-2])
    if not 1 < v.trips <= (WOVEN if whole else NEAR) or m.trips < c.lanes or any(isinstance(s, Loop) for s in v.body):
        return []
    stores = [a for a in accesses(v.body) if a.op == "write"]
    if whole and any(stride(a.buf, a.at, m.name) != v.trips or stride(a.buf, a.at, v.name) != 1 for a in stores):
        return []

    def cycles(lanes: Loop, other: Loop) -> float:
        return other.trips * -(-lanes.trips // c.lanes) * body_cycles(v.body, lanes, min(c.lanes, lanes.trips))

    woven_cycles = -(-m.trips // c.lanes) * _weaving(c, v, m, stores) if whole else cycles(m, v)
    numbers = {"cycles": woven_cycles, "cycles_along_short": cycles(v, m)}
    if numbers["cycles"] * GAIN > numbers["cycles_along_short"]:
        return []
    steps = [
        (f"tile({m.name}, {c.lanes})", "tile", "rows that are woven into each other, a vector of each at a time"),
        (f"reorder({v.name}, {m.name}i)", "reorder", "longer rows in lanes"),
    ]
    if not c.do_all(steps, numbers):
        c.refuse("weave", v.name, "the loops cannot be exchanged", numbers)
        return []
    return [*names[:-2], m.name + "o", v.name, m.name + "i"]
