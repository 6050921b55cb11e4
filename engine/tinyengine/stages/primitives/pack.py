"""pack: copy the part of a buffer that a loop touches into contiguous local memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tinyengine import index
from tinyengine.dependence import accesses, inner_variables, split
from tinyengine.dtypes import DType, by_name
from tinyengine.index import conjuncts
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
    load,
    load_index,
    load_mask,
    map_expr,
    map_stmt,
    name,
    stmt_exprs,
    subexprs,
    var,
    walk,
)  # fmt: skip
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, fresh_buffer, over, rewrite, substitution

LOCAL_BYTES = 1 << 24  # more than this is no cache-resident copy


def axes_order(text: str, buf: Buf, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The order of the axes in a copy of `buf`; its own where none is given."""
    order = tuple(range(len(buf.shape))) if axes is None else axes
    if sorted(order) != list(range(len(buf.shape))):
        raise ScheduleError(f"{text}: axes={order} is not a permutation of the {len(buf.shape)} axes of {buf.name}")
    return order


def pack(
    kernel: Kernel, buf: str, loop: str, axes: tuple[int, ...] | None = None, of: str | None = None,
    by: tuple[str, ...] | None = None, dtype: str | None = None,
) -> Kernel:  # fmt: skip
    """for jo: S(w[k, jo + j])
       → for jo: local w_pack[K, J]; for w_0 in K: for w_1 in J: w_pack[w_0, w_1] = w[w_0, jo + w_1]; S(w_pack[k, j])

    `axes`: the order of the axes in the copy, (1, 0) transposes. Elements outside the buffer that a padded access would skip are
    copied as zeros, so that the masks vanish. `of`: only of the reads that move with this loop inside. Illegal where the buffer
    is written in the loop, or the part touched is no box.

    `by`: the copy has an axis for each of these loops instead, in this order, and holds what is read in each of their iterations
    (for a convolution: im2col, Chellapilla et al. 2006):
    for i: for k: S(x[2 * i + k])  →  for i: local x_pack[K]; for x_0 in K: x_pack[x_0] = x[2 * i + x_0]; for k: S(x_pack[k])
                                                                                                    (`pack(x, at=i, by=(k,))`)
    Windows may overlap; an element is copied as often as it is read. Illegal where the buffer is read in more than one way.

    `dtype`: the copy holds what is read as this dtype: converted once, not at each read. Illegal where a read is not converted to
    it, and beside `by`."""
    text = f"pack({buf}, at={loop}{f', of={of}' if of else ''})"
    if by is not None and axes is not None:
        raise ScheduleError(f"{text}: the order of the axes is that of the loops in by=; axes= has no meaning beside it")
    if by is not None and dtype is not None:
        raise ScheduleError(f"{text}: a copy by loops keeps the dtype; dtype= has no meaning beside by=")
    known = {p.name: p for p in kernel.params}
    if buf not in known:
        raise ScheduleError(f"{text}: no global buffer is called {buf!r}; the kernel has {', '.join(known)}")
    source = known[buf]
    order = axes_order(text, source, axes)
    local = fresh_buffer(kernel, f"{buf}_pack")

    def change(s: Loop, path: Path) -> list[Stmt] | None:
        if not any(a.buf == source and moves(a.at, of) for a in accesses(s.body)):
            return None
        if by is not None:
            return [_by_loops(s, source, local, by, text, of)]
        return [_packed(s, source, local, order, text, of, dtype)]

    return at(kernel, loop, change, f"{text}: {buf} is not read inside {loop}")


def moves(at_: tuple[Expr, ...], of: str | None) -> bool:
    """Whether an access depends on loop `of`; any access where none is named."""
    return of is None or any(x.op == "var" and x.arg[0] == of for e in at_ for x in subexprs(e))


def _packed(
    s: Loop, source: Buf, local: str, order: tuple[int, ...], text: str, of: str | None, dtype: str | None = None
) -> Loop:
    inner = inner_variables(s)
    touched = [a for a in accesses(s.body) if a.buf == source]
    if any(a.op != "read" for a in touched):
        raise ScheduleError(f"{text} is not legal: {source.name} is written in {s.name}")
    touched = [a for a in touched if moves(a.at, of)]
    base: list[Expr] = []
    extent: list[int] = []
    for axis in range(len(source.shape)):
        outer, lows, highs = None, [], []
        for a in touched:
            if a.at[axis].lanes > 1:
                raise ScheduleError(f"{text}: {source.name} is already accessed by vectors; pack before vectorize")
            p = split(a.at[axis], s.name, inner)
            if p is None or (outer is not None and outer != p[:2]):
                raise ScheduleError(f"{text} is not legal: the accesses to axis {axis} of {source.name} do not form a box")
            outer = p[:2]
            lows.append(p[2])
            highs.append(p[3])
        assert outer is not None
        parts = [*outer[1], (s.var, outer[0])]
        base.append(index.total(parts, min(lows)))
        extent.append(max(highs) - min(lows) + 1)
    shape = tuple(extent[a] for a in order)
    copy = Buf(local, source.dtype if dtype is None else by_name(dtype), shape, "local")
    if copy.nbytes > LOCAL_BYTES:
        raise ScheduleError(f"{text}: the copy would take {copy.nbytes} bytes; at most {LOCAL_BYTES} are sensible")
    names = frozenset[str]() if dtype is None else _converted(s, source, copy.dtype, text, of)
    # masks that only say "inside the buffer" move into the copy
    prefix = source.name if local == f"{source.name}_pack" else local
    variables = [var(f"{prefix}_{a}", 0, n - 1) if n > 1 else constant(0) for a, n in enumerate(extent)]
    place = tuple(index.add(b, v) for b, v in zip(base, variables, strict=True))
    mask: Expr | None = None
    for p_, n in zip(place, source.shape, strict=True):
        for c in index.within(p_, n):
            mask = index.both(mask, c)
    moved = _Mover(source, copy, tuple(base), order, of, names)
    body = tuple(moved.stmt(b) for b in s.body)
    value = load(source, place, mask)
    if copy.dtype is not source.dtype:
        value = Expr("cast", copy.dtype, 1, (value,))
    fill = over(variables, Store(copy, tuple(variables[a] for a in order), value, None, "", s.nodes))
    return replace(s, body=(Alloc(copy, None, s.nodes), fill, *body))


def _by_loops(s: Loop, source: Buf, local: str, by: tuple[str, ...], text: str, of: str | None) -> Loop:
    touched = [a for a in accesses(s.body) if a.buf == source and moves(a.at, of)]
    if any(a.op != "read" for a in accesses(s.body) if a.buf == source):
        raise ScheduleError(f"{text} is not legal: {source.name} is written in {s.name}")
    reads = {e for a in touched for root in stmt_exprs(a.stmt) for e in subexprs(root) if e.op == "load" and e.arg == source}
    reads = {e for e in reads if moves(load_index(e), of)}
    if any(e.lanes > 1 for e in reads):
        raise ScheduleError(f"{text}: {source.name} is already accessed by vectors; pack before vectorize")
    if len(reads) != 1:
        raise ScheduleError(f"{text} is not legal: {source.name} is read in {len(reads)} ways in {s.name}")
    read = reads.pop()
    paths = list(_paths(s.body, read, ()))
    inside = {x.name: x for x in paths[0] if all(any(_same_range(x, y) for y in p) for p in paths)}
    known = inner_variables(s)
    used = {x.arg[0] if x.op == "var" else x.arg for x in subexprs(read) if x.op in ("var", "name")} & known
    if len(set(by)) < len(by) or not used <= set(by) <= set(inside):
        needed = ", ".join(sorted(used))
        raise ScheduleError(f"{text}: by= must name, once, loops around the reads in {s.name}, and those they need: {needed}")
    chain = [inside[name] for name in by]
    if any(x.start or x.step != 1 or x.ends for x in chain) or any(x.op == "load" for e in read.args for x in subexprs(e)):
        raise ScheduleError(f"{text}: the loops in by= must start at 0, have step 1 and no ends, and no index may come from data")
    copy = Buf(local, source.dtype, tuple(x.trips for x in chain), "local")
    if copy.nbytes > LOCAL_BYTES:
        raise ScheduleError(f"{text}: the copy would take {copy.nbytes} bytes; at most {LOCAL_BYTES} are sensible")
    prefix = source.name if local == f"{source.name}_pack" else local
    place = tuple(var(f"{prefix}_{i}", 0, x.trips - 1) if x.trips > 1 else constant(0) for i, x in enumerate(chain))
    value = substitution({x.var: v for x, v in zip(chain, place, strict=True)})(read)
    fill = over(place, Store(copy, place, value, None, "", s.nodes))
    moved = rewrite(s.body, substitution({read: load(copy, tuple(x.var for x in chain))}))
    moved = _counting(moved, set(conjuncts(load_mask(read))))
    return replace(s, body=(Alloc(copy, None, s.nodes), fill, *moved))


def _paths(body: Iterable[Stmt], read: Expr, around: tuple[Loop, ...]) -> Iterator[tuple[Loop, ...]]:
    """The loops around each statement that holds `read`."""
    for s in body:
        if isinstance(s, Loop):
            yield from _paths(s.body, read, (*around, s))
        elif any(read in subexprs(root) for root in stmt_exprs(s)):
            yield around


def _same_range(a: Loop, b: Loop) -> bool:
    return a.name == b.name and (a.start, a.stop, a.step) == (b.start, b.stop, b.step)


def _counting(body: Iterable[Stmt], zeros: set[Expr]) -> tuple[Stmt, ...]:
    """Terms outside of these conditions are products with zeros of the copy now: they count."""

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=_counting(s.body, zeros))
        if isinstance(s, Accumulate) and s.only is not None:
            kept: Expr | None = None
            for c in conjuncts(s.only):
                kept = kept if c in zeros else index.both(kept, c)
            return replace(s, only=kept)
        return s

    return tuple(map(visit, body))


def _converted(s: Loop, source: Buf, dtype: DType, text: str, of: str | None) -> frozenset[str]:
    """The names of the values that are reads of `source`; ScheduleError where one is used otherwise than converted to `dtype`."""
    lets = [b for b in walk(s.body) if isinstance(b, Let)]

    def read(e: Expr) -> bool:
        return e.op == "load" and e.arg == source and moves(load_index(e), of)

    names = frozenset(b.name for b in lets if read(b.value))
    shared = any(b.name in names and not read(b.value) for b in lets)
    for b in walk(s.body):
        for root in () if isinstance(b, Loop) else stmt_exprs(b):
            plain = [e for e in subexprs(root) if not (e.op == "cast" and e.dtype is dtype)]
            used = [a for e in plain for a in e.args] + ([] if isinstance(b, Let) and read(root) else [root])
            if shared or any(read(a) or (a.op == "name" and a.arg in names) for a in used):
                raise ScheduleError(f"{text}: {source.name} is not always read as {dtype}")
    return names


class _Mover:
    """Turns loads of the source into loads of the copy. `names`: of values that are such loads, and are converted already."""

    def __init__(
        self, source: Buf, copy: Buf, base: tuple[Expr, ...], order: tuple[int, ...], of: str | None, names: frozenset[str]
    ) -> None:
        self.source, self.copy, self.base, self.order, self.of, self.names = source, copy, base, order, of, names
        self.memo: dict[Expr, Expr] = {}

    def stmt(self, s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(self.stmt, s.body)))
        return map_stmt(s, lambda e: map_expr(e, self.load, self.memo))

    def load(self, e: Expr) -> Expr | None:
        if e.op == "name" and e.arg in self.names:
            return name(e.arg, self.copy.dtype, e.lanes)
        if e.op == "cast" and self.copy.dtype is not self.source.dtype and e.dtype is e.args[0].dtype:
            return e.args[0]
        if e.op != "load" or e.arg != self.source or not moves(load_index(e), self.of):
            return None
        i = load_index(e)
        rest: Expr | None = None
        for c in conjuncts(load_mask(e)):
            if not self.says_inside(c, i):
                rest = index.both(rest, c)
        return load(self.copy, tuple(index.sub(i[a], self.base[a]) for a in self.order), rest)

    def says_inside(self, c: Expr, at_: tuple[Expr, ...]) -> bool:
        """Whether condition `c` is exactly one end of 'this index is inside the buffer': outside, the copy holds zeros anyway."""
        if c.op != "lt":
            return False
        a, b = c.args
        for e, n in zip(at_, self.source.shape, strict=True):
            if (a.op == "const" and index.sub(b, e).op == "const" and a.arg + 1 == index.sub(b, e).arg) or (
                b.op == "const" and index.sub(a, e).op == "const" and b.arg - index.sub(a, e).arg == n
            ):
                return True
        return False
