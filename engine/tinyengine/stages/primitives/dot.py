"""dot: two terms of a sum of bfloat16 products as one dot product, which some machines have an instruction for."""

from __future__ import annotations

from dataclasses import replace

from tinyengine import dtypes, index
from tinyengine.dependence import accesses
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    Store,
    apply,
    const,
    load,
    load_index,
    load_mask,
    subexprs,
    var,
    walk,
)  # fmt: skip
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import Body, Path, ScheduleError, at, substitution

BF16, U32 = dtypes.bfloat16, dtypes.uint32


def dot(kernel: Kernel, loop: str) -> Kernel:
    """for k in 0..64: acc += float32(x[i, k]) * float32(w_pack[k, j])
       → for k in 0..32: acc += dot2(pair(x[i, 2k], x[i, 2k + 1]), w_pack[k, j])

    A pair is two bfloat16 in the bits of a uint32, the first below. A local copy that has the sum on another axis than its last
    is laid out in pairs, w_pack[k, j] = pair(w[2k, j], w[2k + 1, j]), so that vectors along j are contiguous. Illegal where the
    loop does anything but add such products, for an odd number of them, and under masks. The two terms are added to each other
    first; below 2**-126 the instruction counts numbers as 0."""
    text = f"dot({loop})"
    paired: dict[Buf, tuple[Buf, int]] = {}

    def change(s: Loop, path: Path) -> list[Stmt]:
        if not s.reduce or s.start or s.step != 1:
            raise ScheduleError(f"{text}: {loop} is no whole reduction")
        if s.trips % 2:
            raise ScheduleError(f"{text}: {s.trips} terms do not come in pairs")
        half = var(s.name, 0, s.trips // 2 - 1)
        lets: dict[str, Expr] = {}
        out: list[Stmt] = []
        for b in s.body:
            if isinstance(b, Let):
                lets[b.name] = b.value
            elif isinstance(b, Accumulate) and b.op == "add" and b.mask is None and b.buf.dtype is dtypes.float32:
                pair = [_pair(x, s, half, paired, text) for x in _factors(b.value, lets, text)]
                out.append(replace(b, value=apply("dot2", tuple(pair), dtypes.float32), only=None))
            else:
                raise ScheduleError(f"{text}: {loop} does more than to add products")
        return [replace(s, var=half, stop=s.trips // 2, body=tuple(out), limit=None, first=None)]

    kernel = at(kernel, loop, change)
    if paired:
        kernel = replace(kernel, body=_relaid(kernel.body, paired, text))
        left = {a.buf.name for a in accesses(kernel.body) if a.buf in paired}
        if left:
            raise ScheduleError(f"{text}: {', '.join(sorted(left))} is read elsewhere too")
    return kernel


def _factors(value: Expr, lets: dict[str, Expr], text: str) -> tuple[Expr, Expr]:
    """The two loads of bfloat16 whose product in float32 this is."""

    def known(e: Expr) -> Expr:
        while e.op == "name" and e.arg in lets:
            e = lets[e.arg]
        return e

    value = known(value)
    if value.op == "mul" and value.dtype is dtypes.float32:
        a, b = map(known, value.args)
        if a.op == b.op == "cast":
            x, y = known(a.args[0]), known(b.args[0])
            if all(z.op == "load" and z.dtype is BF16 and z.lanes == 1 and load_mask(z) is None for z in (x, y)):
                return x, y
    raise ScheduleError(f"{text}: the terms are no products of two bfloat16 values without masks")


def _pair(x: Expr, s: Loop, half: Expr, paired: dict[Buf, tuple[Buf, int]], text: str) -> Expr:
    """Two terms' worth of one factor."""
    buf: Buf = x.arg
    axes = [d for d, e in enumerate(load_index(x)) if s.var in subexprs(e)]
    if len(axes) != 1:
        raise ScheduleError(f"{text}: {buf.name} does not change along one axis with {s.name}")
    (axis,) = axes
    if buf.space == "local" and axis != len(buf.shape) - 1:
        if load_index(x)[axis] is not s.var or buf.shape[axis] != s.trips:
            raise ScheduleError(f"{text}: the copy {buf.name} holds more than the terms of {s.name}")
        shape = tuple(n // 2 if d == axis else n for d, n in enumerate(buf.shape))
        new, _ = paired.setdefault(buf, (Buf(buf.name, U32, shape, "local"), axis))
        return load(new, tuple(half if d == axis else e for d, e in enumerate(load_index(x))))
    return together(*(substitution({s.var: index.add(index.mul(half, 2), constant(k))})(x) for k in (0, 1)))


def together(first: Expr, second: Expr) -> Expr:
    """Two bfloat16 in the bits of a uint32."""
    low, high = (apply("cast", (apply("bitcast", (x,), dtypes.uint16),), U32) for x in (first, second))
    return apply("or", (low, apply("shl", (high, const(16, U32, high.lanes)))))


def _relaid(body: Body, paired: dict[Buf, tuple[Buf, int]], text: str) -> Body:
    """Copies that hold pairs: half the iterations along the axis, two elements at each."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, Alloc) and s.buf in paired:
            s = replace(s, buf=paired[s.buf][0])
        elif isinstance(s, Loop):
            copied = {x.buf for x in walk((s,)) if isinstance(x, Store) and x.buf in paired}
            along = {b for b in copied if _axis_variable(s, b, paired[b][1]) is not None}
            if along:
                s = _halved(s, along, paired, text)
            s = replace(s, body=_relaid(s.body, paired, text))
        elif isinstance(s, Store) and s.buf in paired:
            raise ScheduleError(f"{text}: {s.buf.name} is not copied element by element")
        out.append(s)
    return tuple(out)


def _axis_variable(s: Loop, buf: Buf, axis: int) -> Expr | None:
    """The variable of `s` where it runs along this axis of all that is stored to the buffer."""
    stores = [x for x in walk(s.body) if isinstance(x, Store) and x.buf == buf]
    return s.var if stores and all(x.index[axis] is s.var for x in stores) else None


def _halved(s: Loop, bufs: set[Buf], paired: dict[Buf, tuple[Buf, int]], text: str) -> Loop:
    if s.start or s.step != 1 or s.trips % 2 or any(isinstance(x, (Let, Accumulate)) for x in walk(s.body)):
        raise ScheduleError(f"{text}: {s.name} is no plain copy")
    half = var(s.name, 0, s.trips // 2 - 1)
    parts = [substitution({s.var: index.add(index.mul(half, 2), constant(k))}) for k in (0, 1)]

    def visit(b: Stmt) -> Stmt:
        if isinstance(b, Loop):
            return replace(b, body=tuple(map(visit, b.body)))
        if not isinstance(b, Store) or b.buf not in bufs or b.mask is not None:
            raise ScheduleError(f"{text}: {s.name} is no plain copy")
        new, axis = paired[b.buf]
        at_ = tuple(half if d == axis else e for d, e in enumerate(b.index))
        return replace(b, buf=new, index=at_, value=together(*(f(b.value) for f in parts)))

    return replace(s, var=half, stop=s.trips // 2, body=tuple(map(visit, s.body)))


__all__ = ["dot", "together"]
