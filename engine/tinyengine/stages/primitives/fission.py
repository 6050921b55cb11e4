"""fission: one loop becomes several, one after the other, each with a part of its body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tinyengine import index
from tinyengine.dependence import carried, names_in
from tinyengine.loopnest import Alloc, Buf, Kernel, Let, Loop, Stmt, Store, load, name, ramp, var
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import (
    Body,
    Path,
    ScheduleError,
    at,
    closure,
    fresh,
    read_buffers,
    rewrite,
    substitution,
    used_buffers,
    used_names,
    written,
)  # fmt: skip
from tinyengine.stages.primitives.reorder import distinct, moved


def fission(kernel: Kernel, loop: str, *inner: str) -> Kernel:
    """for i: (for c: S; T; for d: U)
       → for i: for c: S
         for i_1: T
         for i_2: for d: U                                                   (`fission(i, c, d)`: c and d stand alone)

    Memory that several parts use gets an axis for the iterations of i, and so do values that a later part needs and cannot
    compute again. With `tile(i, 32)` before it, that is a block of rows that stays in the cache. Illegal where iterations of i
    depend on each other."""
    text = f"fission({', '.join([loop, *inner])})"
    if not inner:
        raise ScheduleError(f"{text}: name at least one loop inside {loop}")
    names = [loop]

    def change(s: Loop, path: Path) -> list[Stmt]:
        direct = {x.name for x in s.body if isinstance(x, Loop)}
        missing = [x for x in inner if x not in direct]
        if missing:
            raise ScheduleError(f"{text}: {', '.join(missing)} does not stand directly in {loop}; there are {', '.join(direct)}")
        if s.kind == "parallel":
            raise ScheduleError(f"{text}: {loop} is parallel; take it apart before parallel")
        why = carried(s)
        if why:
            raise ScheduleError(f"{text} is not legal: {why}")
        parts, home = _cut(s, inner)
        while len(names) < len(parts):
            names.append(fresh(kernel, f"{loop}_{len(names)}"))
        return _rebuilt(s, parts, home, names)

    kernel = at(kernel, loop, change)
    return replace(kernel, body=distinct(kernel.body))


def _cut(s: Loop, inner: Sequence[str]) -> tuple[list[list[Stmt]], dict[str, int]]:
    """The statements of each part, without values and memory; and for values that read what the loop writes the part that can
    compute them (others are computed again where they are needed)."""
    lets = [x for x in s.body if isinstance(x, Let)]
    own = written(s.body)
    parts: list[list[Stmt]] = []
    home: dict[str, int] = {}
    last: str | None = None  # the loop that the last part is about, or "" for a part of other statements
    for x in s.body:
        if isinstance(x, Let):
            if any(b in own for y in closure({x.name}, lets) for b in read_buffers(y.value)):
                home[x.name] = len(parts) - 1
        elif not isinstance(x, Alloc):
            about = x.name if isinstance(x, Loop) and x.name in inner else ""
            if about != last:  # a loop and its tail are one part
                parts.append([])
            parts[-1].append(x)
            last = about
    return parts, home


def _rebuilt(s: Loop, parts: list[list[Stmt]], home: dict[str, int], names: Sequence[str]) -> list[Stmt]:
    """What replaces `s`: memory that its parts share, then a loop for each part."""
    lets = [x for x in s.body if isinstance(x, Let)]
    position = {id(x): i for i, x in enumerate(s.body)}
    late = {n: {i for i, p in enumerate(parts) if i > at_ and n in _needs(p, lets, home, i)} for n, at_ in home.items()}
    value = {x.name: x.value for x in lets if late.get(x.name)}
    kept = {n: Buf(f"{n}_{s.name}", v.dtype, (s.trips, *((v.lanes,) if v.lanes > 1 else ())), "local") for n, v in value.items()}
    lanes = {n: (ramp(constant(0), v.lanes),) if v.lanes > 1 else () for n, v in value.items()}
    bodies: list[Body] = []
    for i, part in enumerate(parts):
        needed = _needs(part, lets, home, i) | {n for n in kept if home[n] == i}
        mine = [x for x in closure(needed, lets) if home.get(x.name, i) == i]
        bodies.append(tuple(sorted((*mine, *part), key=lambda x: position[id(x)])))
    hoisted, shared = _memory(s, bodies)
    out: list[Stmt] = [*hoisted, *(Alloc(b, None, s.nodes) for b in kept.values())]
    low, high = s.start, s.start + max(0, s.trips - 1) * s.step
    for i, body in enumerate(bodies):
        v = var(names[i], low, high)
        place = (index.floordiv(index.sub(v, constant(s.start)), s.step),)
        wanted = used_names(body)
        made: list[Stmt] = [
            Let(n, load(b, (*place, *lanes[n])), s.nodes) for n, b in kept.items() if home[n] < i and n in wanted
        ]
        for x in rewrite(body, substitution({s.var: v})):
            made.append(x)
            if isinstance(x, Let) and x.name in kept:
                to = (*place, *lanes[x.name])
                made.append(Store(kept[x.name], to, name(x.name, x.value.dtype, x.value.lanes), None, "", x.nodes))
        out.append(replace(s, var=v, body=moved(tuple(made), shared, place)))
    return out


def _needs(part: Sequence[Stmt], lets: Sequence[Let], home: dict[str, int], i: int) -> set[str]:
    """The values that part `i` refers to, also through values that it computes itself."""
    needed = used_names(part)
    for x in reversed(lets):
        if x.name in needed and home.get(x.name, i) == i:
            needed |= names_in(x.value)
    return needed


def _memory(s: Loop, bodies: list[Body]) -> tuple[list[Stmt], dict[Buf, Buf]]:
    """Memory of the loop: put into the part that alone uses it, else allocated before the parts, with an axis for iterations."""
    shared: dict[Buf, Buf] = {}
    hoisted: list[Stmt] = []
    for a in s.body:
        if not isinstance(a, Alloc):
            continue
        users = [i for i, b in enumerate(bodies) if a.buf in used_buffers(b)]
        if len(users) == 1:
            body = bodies[users[0]]
            first = next(j for j, x in enumerate(body) if a.buf in used_buffers((x,)))
            bodies[users[0]] = (*body[:first], a, *body[first:])
        elif users:
            shared[a.buf] = replace(a.buf, shape=(s.trips, *a.buf.shape), space="local")
            hoisted.append(replace(a, buf=shared[a.buf]))
    return hoisted, shared
