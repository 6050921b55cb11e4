"""unpack: gather the results of a loop in contiguous local memory first, and copy them to their places after it."""

from __future__ import annotations

from dataclasses import replace

from tinyengine import index
from tinyengine.dependence import accesses, inner_variables, split
from tinyengine.loopnest import Alloc, Buf, Expr, Kernel, Loop, Stmt, Store, load, var, walk
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, fresh_buffer, over
from tinyengine.stages.primitives.pack import axes_order


def unpack(kernel: Kernel, buf: str, loop: str, axes: tuple[int, ...] | None = None) -> Kernel:
    """for mo: S; out[k, mo + m] = v
       → for mo: local out_tile[M, K]; S; out_tile[m, k] = v
                 for out_0 in K: for out_1 in M: out[out_0, mo + out_1] = out_tile[out_1, out_0]

    The counterpart of `pack`: `axes` is the order of the axes in the tile, so that stores in the inner loops are contiguous.
    Illegal where the loop reads the buffer, or does not write each element of a box exactly once."""
    text = f"unpack({buf}, at={loop})"
    known = {p.name: p for p in kernel.params if p.name in kernel.outputs}
    if buf not in known:
        raise ScheduleError(f"{text}: no output is called {buf!r}; the kernel has {', '.join(known)}")
    target = known[buf]
    order = axes_order(text, target, axes)
    local = fresh_buffer(kernel, f"{buf}_tile")

    def change(s: Loop, path: Path) -> list[Stmt] | None:
        touched = any(a.buf == target for a in accesses(s.body))
        return [_staged(s, target, local, order, text)] if touched else None

    return at(kernel, loop, change, f"{text}: {buf} is not written inside {loop}")


def _staged(s: Loop, target: Buf, local: str, order: tuple[int, ...], text: str) -> Loop:
    touched = [a for a in accesses(s.body) if a.buf == target]
    if len(touched) != 1 or not isinstance(touched[0].stmt, Store) or touched[0].stmt.mask is not None:
        raise ScheduleError(f"{text} is not legal: {target.name} must be written by one unmasked store in {s.name}, and not read")
    inner = inner_variables(s)
    extents = {x.name: x.trips for x in walk(s.body) if isinstance(x, Loop)}
    base: list[Expr] = []
    sizes: list[int] = []
    used: list[str] = []
    for axis, e in enumerate(touched[0].at):
        p = split(e, s.name, inner)
        if p is None or e.lanes > 1:
            raise ScheduleError(f"{text} is not legal: axis {axis} of {target.name} is not a plain box in {s.name}")
        base.append(index.total([*p[1], (s.var, p[0])], p[2]))
        sizes.append(p[3] - p[2] + 1)
        used += [t.arg[0] for t, _ in index.terms(e)[0] if t.op == "var" and t.arg[0] in inner]
    writes = 1
    for name in used:
        writes *= extents[name]
    elements = 1
    for n in sizes:
        elements *= n
    if writes != elements or len(set(used)) != len(used):
        raise ScheduleError(f"{text} is not legal: not each element of the box is written exactly once in {s.name}")
    tile = Buf(local, target.dtype, tuple(sizes[a] for a in order), "local")

    def moved(x: Stmt) -> Stmt:
        if isinstance(x, Loop):
            return replace(x, body=tuple(map(moved, x.body)))
        if isinstance(x, Store) and x.buf == target:
            return replace(x, buf=tile, index=tuple(index.sub(x.index[a], base[a]) for a in order))
        return x

    place = [var(f"{target.name}_{a}", 0, n - 1) if n > 1 else index.total((), 0) for a, n in enumerate(sizes)]
    to = tuple(index.add(b, v) for b, v in zip(base, place, strict=True))
    copy = over(place, Store(target, to, load(tile, tuple(place[a] for a in order)), None, "", s.nodes))
    return replace(s, body=(Alloc(tile, None, s.nodes), *map(moved, s.body), copy))
