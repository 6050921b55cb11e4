"""partial: sum up inside a loop in registers, and add what came out to the accumulator once."""

from __future__ import annotations

from dataclasses import replace

from tinyengine import index
from tinyengine.dependence import accesses, inner_variables, split
from tinyengine.loopnest import Accumulate, Alloc, Buf, Expr, Kernel, Loop, Stmt, load, var, walk
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, fresh_buffer, over
from tinyengine.stages.primitives.reorder import REGISTER_ELEMENTS
from tinyengine.stages.primitives.vectorize import identity


def partial(kernel: Kernel, buf: str, loop: str) -> Kernel:
    """for k: S; acc[k, l, i] += f
       → for k: register acc_0[L, I] = 0; S; acc_0[l, i] += f
                for acc_0_1 in L: for acc_0_2 in I: acc[k, acc_0_1, acc_0_2] += acc_0[acc_0_1, acc_0_2]

    For sums that are too large for registers as a whole. Illegal where the loop does anything but accumulate into the buffer,
    with one operation."""
    text = f"partial({buf}, at={loop})"
    targets = [s.buf for s in walk(kernel.body) if isinstance(s, Alloc) and s.buf.name == buf]
    if not targets:
        raise ScheduleError(f"{text}: {kernel.name} allocates no {buf!r}")
    own = fresh_buffer(kernel, f"{buf}_0")

    def change(s: Loop, path: Path) -> list[Stmt] | None:
        target = next((b for b in targets if any(a.buf == b and a.op not in ("read", "write") for a in accesses(s.body))), None)
        if target is None or any(isinstance(x, Alloc) and x.buf == target for x in walk(s.body)):
            return None
        return [_partial(s, target, own, text)]

    return at(kernel, loop, change, f"{text}: nothing inside {loop} accumulates into {buf}")


def _partial(s: Loop, target: Buf, name: str, text: str) -> Loop:
    touched = [a for a in accesses(s.body) if a.buf == target]
    ops = {a.op for a in touched}
    if len(ops) != 1 or ops & {"read", "write"}:
        raise ScheduleError(f"{text} is not legal: {s.name} does more with {target.name} than accumulate by one operation")
    op = ops.pop()
    inner = inner_variables(s)
    base: list[Expr] = []
    sizes: list[int] = []
    for axis in range(len(target.shape)):
        parts = [split(a.at[axis], s.name, inner) for a in touched]
        if any(p is None or p[:2] != parts[0][:2] for p in parts) or any(a.at[axis].lanes > 1 for a in touched):  # type: ignore[index]
            raise ScheduleError(f"{text} is not legal: the accesses to axis {axis} of {target.name} do not form a box")
        known = [p for p in parts if p is not None]
        low, high = min(p[2] for p in known), max(p[3] for p in known)
        base.append(index.total([*known[0][1], (s.var, known[0][0])], low))
        sizes.append(high - low + 1)
    kept = [axis for axis, n in enumerate(sizes) if n > 1]
    buf = Buf(name, target.dtype, tuple(sizes[a] for a in kept), target.space)
    small = buf.size <= REGISTER_ELEMENTS
    buf = replace(buf, space="register" if small else "local")

    def moved(x: Stmt) -> Stmt:
        if isinstance(x, Loop):
            return replace(x, body=tuple(map(moved, x.body)))
        if isinstance(x, Accumulate) and x.buf == target:
            return replace(x, buf=buf, index=tuple(index.sub(x.index[a], base[a]) for a in kept))
        return x

    place = {a: var(f"{name}_{a}", 0, sizes[a] - 1) for a in kept}
    to = tuple(index.add(b, place[a]) if a in place else b for a, b in enumerate(base))
    total = Accumulate(target, to, op, load(buf, tuple(place.values())), None, s.nodes)
    join = over(tuple(place.values()), total, "unroll" if small else "serial")
    return replace(s, body=(Alloc(buf, identity(op, target.dtype), s.nodes), *map(moved, s.body), join))
