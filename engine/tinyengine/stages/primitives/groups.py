"""Parallel loops inside a parallel loop: a kernel's work-groups, their work-items, and where barriers stand between them.

An outermost parallel loop in which other loops are parallel too is a grid: its iterations are groups, those of the loops inside
are shared by the work-items of one group. What stands between is done by every work-item alike (values, registers, loops) or by
the first one (writes to memory). Memory allocated there belongs to the group. Parallel loops that stand alone in each other are
one space of iterations, counted row after row; iteration n belongs to work-item n modulo their number, whatever that is.

A backend without groups runs the inner loops one iteration after the other, which is the same by their legality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from tinyengine.dependence import Access, accesses, apart, grains, inner_variables, loads
from tinyengine.index import bounds
from tinyengine.loopnest import Accumulate, Alloc, Buf, Let, Loop, Stmt, Store, var, walk
from tinyengine.stages.primitives.nest import Rewrite, substitution

ITEMS = 256  # work-items of a group where nothing else says how many


@dataclass(frozen=True, slots=True)
class Grid:
    """`groups`: the loops whose iterations are groups, from the outside in; `body`: what one group does."""

    groups: tuple[Loop, ...]
    body: tuple[Stmt, ...]

    @property
    def trips(self) -> int:
        return prod(s.trips for s in self.groups)

    @property
    def items(self) -> int:
        """The most work-items that a loop of the group has iterations for."""
        return max([prod(x.trips for x in chain(s)) for s in outermost(self.body)], default=1)


def chain(s: Loop) -> tuple[Loop, ...]:
    """The parallel loops from `s` inward, each alone (values beside it) in the one around it."""
    out = [s]
    while True:
        rest = [b for b in out[-1].body if not isinstance(b, Let)]
        if len(rest) != 1 or not isinstance(rest[0], Loop) or rest[0].kind != "parallel":
            return tuple(out)
        out.append(rest[0])


def outermost(body: Sequence[Stmt]) -> list[Loop]:
    """The parallel loops of `body` that stand in no other parallel loop, in order."""
    out: list[Loop] = []
    for s in body:
        if isinstance(s, Loop):
            out += [s] if s.kind == "parallel" else outermost(s.body)
    return out


def grid(s: Loop) -> Grid | None:
    """The outermost parallel loop `s` as groups; None where nothing inside is parallel."""
    loops = chain(s)
    if outermost(loops[-1].body):
        return Grid(loops, _lets(loops[:-1]) + loops[-1].body)
    if len(loops) < 2:
        return None
    first = len(loops) - 1  # of a nest of parallel loops alone the last ones are the items, as many as a group has
    while first > 1 and prod(x.trips for x in loops[first:]) < ITEMS:
        first -= 1
    return Grid(loops[:first], (*_lets(loops[: first - 1]), *loops[first - 1].body))


def grid_of(s: Loop) -> Grid:
    """The outermost parallel loop `s` as groups; without parallel loops inside, what a group does is each work-item's, alike."""
    return grid(s) or Grid((s,), s.body)


def _lets(loops: Sequence[Loop]) -> tuple[Stmt, ...]:
    return tuple(b for s in loops for b in s.body if isinstance(b, Let))


def parted(s: Loop) -> str:
    """Why the loops inside the outermost parallel loop `s` cannot be shared by work-items, in words; empty when they can."""
    for p in outermost(chain(s)[-1].body):
        around = chain(p)[-1]
        for q in outermost(around.body):
            return f"{q.name} stands inside {around.name}, where each work-item goes its own way: they cannot wait for each other"
    return ""


# ---- barriers


@dataclass(frozen=True, slots=True)
class _Touch:
    """Memory that a statement of a group touches. `loops`: those whose iterations are shared, () for the first work-item, None
    for all of them or for a fill."""

    memory: str
    buf: Buf
    write: bool
    loops: tuple[Loop, ...] | None
    access: Access | None = None


@dataclass
class Barriers:
    """`before`: id of a statement -> the memory that the barrier in front of it waits for: what was touched since the last one
    and is written somewhere in the group."""

    grid: Grid
    aliases: Mapping[str, str]
    before: dict[int, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inner = inner_variables(replace(self.grid.groups[-1], body=self.grid.body))
        self.grain = grains(self.grid.body)
        touched = [(self.aliases.get(a.buf.name, a.buf.name), a.op) for a in accesses(self.grid.body)]
        self.written = {memory for memory, op in touched if op != "read"}
        around = self._round(self.grid.body, frozenset(), own=True)
        self._block(self.grid.body, around)

    def _round(self, body: Sequence[Stmt], start: frozenset[_Touch], own: bool = False) -> frozenset[_Touch]:
        """What may not have been waited for when an iteration begins: also what the one before left. Of the groups' own loop
        only the group's memory counts (`own`): other memory is not shared between its iterations."""
        while True:
            left = self._block(body, start)
            new = start | {t for t in left if not own or t.buf.space == "local"}
            if new == start:
                return start
            start = new

    def _block(self, body: Sequence[Stmt], pending: frozenset[_Touch]) -> frozenset[_Touch]:
        for s in body:
            if isinstance(s, Loop) and s.kind != "parallel":
                if s.trips:
                    pending = self._block(s.body, self._round(s.body, pending))
                continue
            mine = self._touches(s)
            self.before.pop(id(s), None)
            if any(self._clash(a, b) for a in pending for b in mine):
                self.before[id(s)] = frozenset(t.buf.name for t in pending if t.write or t.memory in self.written)
                pending = frozenset()
            pending |= mine
        return pending

    def _touches(self, s: Stmt) -> frozenset[_Touch]:
        def touch(buf: Buf, write: bool, loops: tuple[Loop, ...] | None, access: Access | None = None) -> _Touch:
            return _Touch(self.aliases.get(buf.name, buf.name), buf, write, loops, access)

        if isinstance(s, Alloc):
            return frozenset((touch(s.buf, True, None),)) if s.buf.space == "local" and s.init is not None else frozenset()
        if isinstance(s, Loop):
            own = {x.buf for x in walk(s.body) if isinstance(x, Alloc)}
            shared = [a for a in accesses((s,)) if a.buf not in own and a.buf.space != "register"]
            return frozenset(touch(a.buf, a.op != "read", chain(s), a) for a in shared)
        first = isinstance(s, (Store, Accumulate)) and s.buf.space != "register"
        out = {touch(e.arg, False, () if first else None) for e in loads(s) if e.arg.space != "register"}
        return frozenset(out | ({touch(s.buf, True, ())} if first else set()))  # type: ignore[union-attr]

    def _clash(self, a: _Touch, b: _Touch) -> bool:
        """Whether two work-items may touch the same element, one of them writing."""
        return a.memory == b.memory and (a.write or b.write) and not _disjoint(a.access, b.access) and not self._one_item(a, b)

    def _one_item(self, a: _Touch, b: _Touch) -> bool:
        """Whether each element is the same work-item's in both."""
        if a.loops is None or b.loops is None or len(a.loops) != len(b.loops):
            return False
        pairs = list(zip(a.loops, b.loops, strict=True))
        if any((x.start, x.step) != (y.start, y.step) for x, y in pairs) or any(x.trips != y.trips for x, y in pairs[1:]):
            return False
        if a.access is None or b.access is None:
            return True
        if a.buf != b.buf:  # one memory under two names
            return False
        both = [var(x.name, x.start, max(x.stop, y.stop) - 1) for x, y in pairs]
        here = _moved(a.access, substitution({x.var: v for (x, _), v in zip(pairs, both, strict=True)}))
        there = _moved(b.access, substitution({y.var: v for (_, y), v in zip(pairs, both, strict=True)}))
        for k, (x, y) in enumerate(pairs):
            level = x if x.trips >= y.trips else y
            inner = (self.inner | {v.arg[0] for v in both}) - {v.arg[0] for v in both[: k + 1]}
            if level.trips > 1 and not apart(replace(level, var=both[k]), here, there, inner, self.grain):
                return False
        return True


def _disjoint(a: Access | None, b: Access | None) -> bool:
    """Whether the two never touch the same element, by their bounds."""
    if a is None or b is None or a.buf != b.buf:
        return False
    ends = [(bounds(x), bounds(y)) for x, y in zip(a.at, b.at, strict=True)]
    return any(x1 < y0 or y1 < x0 for (x0, x1), (y0, y1) in ends)


def _moved(a: Access, f: Rewrite) -> Access:
    return replace(a, at=tuple(map(f, a.at)))
