"""Sets of positions in a buffer, and their unions: products of independent parts, each a progression or a list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tinyengine.loopnest import Buf

LIMIT = 1 << 20  # positions that are listed at most
MARKS = 1 << 24  # elements of a buffer on which a union is marked at most

Array = np.ndarray[Any, Any]
Set = range | Array  # distinct positions, ascending


def along(axis: int, rank: int) -> tuple[int, ...]:
    """The shape that lays an array along one axis of `rank`."""
    return (1,) * axis + (-1,) + (1,) * (rank - axis - 1)


@dataclass(frozen=True, slots=True)
class Count:
    """`exact`: the number itself; otherwise an upper bound."""

    n: int
    exact: bool


def compact(ids: Array) -> Set:
    """An array of ascending numbers as a range where it is a progression."""
    if len(ids) == 0:
        return range(0)
    step = int(ids[1] - ids[0]) if len(ids) > 1 else 1
    if int(ids[-1] - ids[0]) == step * (len(ids) - 1) and (len(ids) < 3 or bool(np.all(np.diff(ids) == step))):
        return range(int(ids[0]), int(ids[-1]) + 1, step)
    return ids


def _same(a: Set, b: Set) -> bool:
    if isinstance(a, range) or isinstance(b, range):
        return isinstance(a, range) and isinstance(b, range) and a == b
    return a is b or np.array_equal(a, b)


def union(a: Set, b: Set) -> Set | None:
    """All positions of both; None where that would list more than LIMIT."""
    if len(a) == 0 or _same(a, b):
        return b
    if len(b) == 0:
        return a
    if isinstance(a, range) and isinstance(b, range):
        if a.start > b.start:
            a, b = b, a
        if a.step == b.step or len(b) == 1 or len(a) == 1:
            step = a.step if len(a) > 1 else b.step if len(b) > 1 else b.start - a.start
            if (b.start - a.start) % step == 0 and b.start <= a[-1] + step:
                return range(a.start, max(a[-1], b[-1]) + 1, step)
    if len(a) + len(b) > LIMIT:
        return None
    return compact(np.union1d(np.asarray(a), np.asarray(b)))


@dataclass(slots=True)
class Box:
    """A product of sets, one per part of the axes: what one access, or several joined, touch."""

    axes: tuple[tuple[int, ...], ...]
    sets: list[Set]

    @property
    def n(self) -> int:
        return prod(len(s) for s in self.sets)


def distinct(buf: Buf, boxes: Iterable[Box | Count]) -> Count:
    """How many elements of `buf` several accesses touch together."""
    joined: list[Box] = []
    bound, exact = 0, True
    for b in boxes:
        if isinstance(b, Count):
            bound, exact = bound + b.n, exact and b.exact
        else:
            joined.append(b)
    joined = _join(joined)
    if len(joined) <= 1 and not bound:
        return Count(joined[0].n if joined else 0, exact)
    if len(joined) > 1:
        if buf.size <= MARKS:
            joined_n = _mark(buf, joined)
        else:
            joined_n, exact = sum(b.n for b in joined), False
    else:
        joined_n = joined[0].n if joined else 0
    total = joined_n + bound
    return Count(min(total, buf.size), exact or joined_n == buf.size)


def _join(boxes: list[Box]) -> list[Box]:
    """Boxes that differ in one part become one, until no two do."""
    out: list[Box] = []
    for b in boxes:
        merged = True
        while merged:
            merged = False
            for o in out:
                u = _pair(o, b)
                if u is not None:
                    out = [x for x in out if x is not o]
                    b, merged = u, True
                    break
        out.append(b)
    return out


def _pair(a: Box, b: Box) -> Box | None:
    if a.axes != b.axes:
        return None
    differ = [k for k, (s, t) in enumerate(zip(a.sets, b.sets, strict=True)) if not _same(s, t)]
    if len(differ) > 1:
        return None
    if not differ:
        return a
    u = union(a.sets[differ[0]], b.sets[differ[0]])
    return None if u is None else Box(a.axes, [*a.sets[: differ[0]], u, *a.sets[differ[0] + 1 :]])


def _mark(buf: Buf, boxes: list[Box]) -> int:
    marks = np.zeros(buf.shape, bool)
    for b in boxes:
        view = marks.transpose([x for part in b.axes for x in part])
        if all(len(part) == 1 for part in b.axes):
            view[np.ix_(*[np.asarray(s) for s in b.sets])] = True
            continue
        at: list[Array] = []  # one index array per axis of the view: the parts' positions, taken apart into their axes
        for k, (part, s) in enumerate(zip(b.axes, b.sets, strict=True)):
            ids = np.asarray(s).reshape(along(k, len(b.sets)))
            at += np.unravel_index(ids, tuple(buf.shape[x] for x in part))
        view[tuple(at)] = True
    return int(np.count_nonzero(marks))
