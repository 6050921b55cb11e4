"""Stores and accumulations of the LLVM writer.

Where the lanes of an index are neighbours it is one vector store. Where they lie a small step apart it is vector stores with
gaps, or, where an unrolled loop fills the gaps, whole ones of what its iterations store, interleaved. Anything else is written
lane after lane, so that later lanes win and lanes with equal addresses see each other's sums.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyengine.backends import llvm_ops as ops
from tinyengine.backends.llvm_memory import Loads
from tinyengine.backends.llvm_strided import spread
from tinyengine.backends.moves import ONE_BY_ONE
from tinyengine.backends.strided import prefix
from tinyengine.loopnest import Accumulate, Buf, Expr, Prefetch, Store
from tinyengine.stages.arithmetic import affine as af

STREAMED = 32  # bytes, at least, of a store past the caches: fewer leave the line open for too long
Merge = Callable[[str, str, int], str]  # (old, new, lanes) -> combined


def _interleave(line: ops.Line, ty: str, rows: list[str], lanes: int) -> list[str]:
    """The first lanes of all rows, the second ones, and so on, in as many vectors: groups of rows first, then the groups."""
    n = len(rows)
    p = next((k for k in range(2, n) if n % k == 0), n)  # the smallest prime in it
    if n == 1:
        return rows
    groups = zip(*(_interleave(line, ty, rows[i::p], lanes) for i in range(p)), strict=True)
    return [_merged(line, ty, parts, k * lanes, lanes) for parts in groups for k in range(p)]


def _merged(line: ops.Line, ty: str, rows: tuple[str, ...], start: int, lanes: int) -> str:
    """`lanes` elements of the line that holds the first lanes of all rows, the second ones and so on, from `start` on."""
    places = [divmod(start + k, len(rows)) for k in range(lanes)]  # (lane, row)
    needed = sorted({row for _, row in places})
    out, have = rows[needed[0]], {needed[0]}
    for row in needed[1:]:
        first = len(have) == 1
        picks = []
        for k, (at, r) in enumerate(places):
            picks.append(lanes + at if r == row else at if first and r in have else k if r in have else -1)
        text = ", ".join(f"i32 {p}" if p >= 0 else "i32 poison" for p in picks)
        out = line(f"shufflevector {ty} {out}, {ty} {rows[row]}, <{lanes} x i32> <{text}>")
        have.add(row)
    return out


class Memory(Loads):
    """Loads, stores and accumulations of one function being written by `w`."""

    # ---- stores

    def store(self, s: Store) -> None:
        w, buf = self.w, s.buf
        lanes = max([i.lanes for i in s.index] + [s.value.lanes] + ([s.mask.lanes] if s.mask is not None else []))
        value = w.value(s.value)
        m = w.value(s.mask) if s.mask is not None else None
        a = af.flat(s.index, buf.strides)
        here = w.at(w.depth)
        if s.value.lanes < lanes:
            value = ops.splat(here, value, ops.scalar_type(buf.dtype), lanes)
        if self._in_registers(buf):
            slot = self._slot(buf, a, lanes)
            self._set_register(buf, slot, value, lanes, s.mask, m)
        elif a is not None and (buf.name, a.terms, a.lane, None) in w.woven:
            w.moves.note("store", buf.name, "woven", a.lane, lanes)
            self._weave(s, a, value, lanes)
        elif a is not None and lanes > 1 and 1 < a.lane <= af.NEAR and (s.mask is None or s.mask.lanes > 1):
            w.moves.note("store", buf.name, "lines with gaps", a.lane, lanes)
            self._spread(buf, a, value, lanes, m)
        elif a is None or (lanes > 1 and a.lane != 1):
            w.moves.note("store", buf.name, ONE_BY_ONE, 0 if a is None else a.lane, lanes)
            self._scatter(buf, s.index, value, lanes, s.mask, m)
        else:
            self._store_at(buf, a, value, lanes, s.mask, m, s.hint)
        w.forget(buf.name)

    def _set_register(self, buf: Buf, slot: tuple[str, int], value: str, lanes: int, mask: Expr | None, m: str | None) -> None:
        w = self.w
        if m is not None and mask is not None:
            old, _ = w.registers[slot]
            t = ops.vector(ops.scalar_type(buf.dtype), lanes)
            value = w.at(w.depth)(f"select {ops.type_of(mask)} {m}, {t} {value}, {t} {old}")
        w.registers[slot] = (value, w.depth)

    def _store_at(self, buf: Buf, a: af.Affine, value: str, lanes: int, mask: Expr | None, m: str | None, hint: str = "") -> None:
        w, t = self.w, ops.memory_type(buf.dtype)
        here = w.at(w.depth)
        ty = ops.vector(t, lanes)
        pointer = self._pointer(buf, a, w.depth)
        align = w.alignment(a, buf.dtype.itemsize)
        value = self._to_memory(here, buf, value, lanes)
        if m is None or mask is None:
            # a streaming store must be aligned; one that is not, or of a small part of a line, keeps to the caches
            size = lanes * buf.dtype.itemsize
            stream = hint == "stream" and size >= STREAMED and align >= min(64, size)
            self._put_store(f"{ty} {value}", pointer, align, hint if stream else "")
        elif mask.lanes == 1:
            end = self._guard(m)
            self._put_store(f"{ty} {value}", pointer, align)
            self._join(end)
        else:
            name = f"@llvm.masked.store.{ops.suffix(t, lanes)}.p0"
            w.declare(f"declare void {name}({ty}, ptr, i32, <{lanes} x i1>)")
            w.put(f"call void {name}({ty} {value}, ptr {pointer}, i32 {align}, <{lanes} x i1> {m})")

    def _spread(self, buf: Buf, a: af.Affine, value: str, lanes: int, m: str | None) -> None:
        """Lanes `a.lane` elements apart: vector stores of which only those elements are written that a lane stands for."""
        w, t = self.w, ops.memory_type(buf.dtype)
        here, ty = w.at(w.depth), ops.vector(t, lanes)
        value = self._to_memory(here, buf, value, lanes)
        name = f"@llvm.masked.store.{ops.suffix(t, lanes)}.p0"
        w.declare(f"declare void {name}({ty}, ptr, i32, <{lanes} x i1>)")
        every = m if m is not None else "splat (i1 true)"
        for start in range(0, a.lane * (lanes - 1) + 1, lanes):
            own = spread(here, f"<{lanes} x i1>", every, start, a.lane, lanes, "zeroinitializer")
            piece = spread(here, ty, value, start, a.lane, lanes, "poison")
            pointer = self._pointer(buf, a._replace(constant=a.constant + start, lane=1), w.depth)
            w.put(f"call void {name}({ty} {piece}, ptr {pointer}, i32 {buf.dtype.itemsize}, <{lanes} x i1> {own})")

    def _weave(self, s: Store, a: af.Affine, value: str, lanes: int) -> None:
        """One of `a.lane` stores that together write every element up to where a mask ends: the last one writes what all of them
        have."""
        w, buf = self.w, s.buf
        key = (buf.name, a.terms, a.lane, None)
        values = w.waiting.setdefault(key, [])
        values.append(value)
        if len(values) < a.lane:
            return
        here, ty = w.at(w.depth), ops.vector(ops.scalar_type(buf.dtype), lanes)
        first, _ = w.woven[key]
        on = a.lane * (prefix(s.mask) or 0) if s.mask is not None else a.lane * lanes
        for k, x in enumerate(_interleave(here, ty, w.waiting.pop(key), lanes)):
            n, start = min(lanes, on - k * lanes), 0
            while start < n:  # of a vector that is not full, pieces of powers of two
                size = 1 << ((n - start).bit_length() - 1)
                picks = ", ".join(f"i32 {start + p}" for p in range(size))
                piece = x if size == lanes else here(f"shufflevector {ty} {x}, {ty} poison, <{size} x i32> <{picks}>")
                if size == 1:
                    piece = here(f"extractelement {ty} {x}, i64 {start}")
                self._store_at(buf, a._replace(constant=first + k * lanes + start, lane=1), piece, size, None, None, s.hint)
                start += size

    def _guard(self, m: str) -> str:
        """Opens a block that runs only where the scalar mask holds; returns the label that `_join` closes it with."""
        w = self.w
        then, end = w.fresh("masked"), w.fresh("after")
        w.put(f"br i1 {m}, label %{then}, label %{end}")
        w.begin_block(then)
        return end

    def _join(self, end: str) -> None:
        self.w.put(f"br label %{end}")
        self.w.begin_block(end)

    def _lanes(
        self, buf: Buf, at: tuple[Expr, ...], lanes: int, mask: Expr | None, m: str | None
    ) -> list[tuple[str, str | None, int]]:
        """(address, mask bit, lane) of each lane in order: later lanes win, and equal addresses see each other's result."""
        w = self.w
        here = w.at(w.depth)
        pointers = self._pointers(here, buf, self._offsets(buf, at), lanes)
        out = []
        for k in range(lanes):
            pointer = here(f"extractelement <{lanes} x ptr> {pointers}, i64 {k}")
            bit = m
            if m is not None and mask is not None and mask.lanes > 1:
                bit = here(f"extractelement <{lanes} x i1> {m}, i64 {k}")
            out.append((pointer, bit, k))
        return out

    def _scatter(self, buf: Buf, at: tuple[Expr, ...], value: str, lanes: int, mask: Expr | None, m: str | None) -> None:
        w, t = self.w, ops.memory_type(buf.dtype)
        here = w.at(w.depth)
        value = self._to_memory(here, buf, value, lanes)
        for pointer, bit, k in self._lanes(buf, at, lanes, mask, m):
            end = self._guard(bit) if bit is not None else None
            one = w.at(w.depth)(f"extractelement {ops.vector(t, lanes)} {value}, i64 {k}")
            self._put_store(f"{t} {one}", pointer, buf.dtype.itemsize)
            if end is not None:
                self._join(end)

    # ---- accumulations

    def accumulate(self, s: Accumulate) -> None:
        w, buf, d = self.w, s.buf, s.buf.dtype
        target = max([i.lanes for i in s.index] + [1])
        lanes = max(target, s.value.lanes, s.mask.lanes if s.mask is not None else 1)
        a = af.flat(s.index, buf.strides)
        m = w.value(s.mask) if s.mask is not None else None
        value = w.value(s.value)
        plain = s.op == "add" and lanes == target == s.value.lanes
        x, y = w.products.get(value, ("", "")) if plain else ("", "")
        pairs = w.dots.get(value) if plain else None
        if s.value.lanes < lanes:
            value = ops.splat(w.at(w.depth), value, ops.scalar_type(d), lanes)

        def merged(old: str, new: str, n: int) -> str:
            here = w.at(w.depth)
            if pairs is not None:
                return ops.dot2(here, n, *pairs, old)
            return ops.fma(here, d, n, x, y, old) if x else ops.combine(here, s.op, d, n, new, old)

        if lanes > 1 and a is not None and a.lane == 0:
            # all lanes fall on one element: reduce them first (masked-off lanes count as the op's identity)
            here = w.at(w.depth)
            if m is not None and s.mask is not None:
                ty = ops.vector(ops.scalar_type(d), lanes)
                wide = m if s.mask.lanes > 1 else ops.splat(here, m, "i1", lanes)
                identity = ops.literal({"add": 0, "mul": 1, "maximum": d.min, "minimum": d.max}[s.op], d, lanes)
                value = here(f"select <{lanes} x i1> {wide}, {ty} {value}, {ty} {identity}")
                m = None
            value = ops.lanes_reduce(here, s.op, d, lanes, value)
            lanes = 1
        if self._in_registers(buf):
            slot = self._slot(buf, a, lanes)
            self._set_register(buf, slot, merged(w.registers[slot][0], value, lanes), lanes, s.mask if m is not None else None, m)
        elif a is None or (lanes > 1 and a.lane != 1):
            w.moves.note("store", buf.name, ONE_BY_ONE, 0 if a is None else a.lane, lanes)
            self._scatter_accumulate(s, value, lanes, m)
        else:
            self._accumulate_at(s, a, value, merged, lanes, m)
        w.forget(buf.name)

    def _accumulate_at(self, s: Accumulate, a: af.Affine, value: str, merged: Merge, lanes: int, m: str | None) -> None:
        w, buf = self.w, s.buf
        ty = ops.vector(ops.memory_type(buf.dtype), lanes)
        pointer = self._pointer(buf, a, w.depth)
        align = w.alignment(a, buf.dtype.itemsize)
        if m is not None and s.mask is not None and s.mask.lanes > 1:
            here = w.at(w.depth)
            old = self._masked_load(here, ty, ops.suffix(ops.memory_type(buf.dtype), lanes), pointer, align, m, lanes)
            new = merged(self._from_memory(here, buf, old, lanes), value, lanes)
            self._store_at(buf, a, new, lanes, s.mask, m)
            return
        end = self._guard(m) if m is not None else None
        here = w.at(w.depth)
        old = self._from_memory(here, buf, here(f"load {ty}, ptr {pointer}, align {align}"), lanes)
        new = self._to_memory(here, buf, merged(old, value, lanes), lanes)
        self._put_store(f"{ty} {new}", pointer, align)
        if end is not None:
            self._join(end)

    def _scatter_accumulate(self, s: Accumulate, value: str, lanes: int, m: str | None) -> None:
        w, buf, d = self.w, s.buf, s.buf.dtype
        t, st = ops.memory_type(d), ops.scalar_type(d)
        for pointer, bit, k in self._lanes(buf, s.index, lanes, s.mask, m):
            end = self._guard(bit) if bit is not None else None
            here = w.at(w.depth)
            one = here(f"extractelement {ops.vector(st, lanes)} {value}, i64 {k}")
            old = self._from_memory(here, buf, here(f"load {t}, ptr {pointer}, align {d.itemsize}"), 1)
            new = self._to_memory(here, buf, ops.combine(here, s.op, d, 1, one, old), 1)
            self._put_store(f"{t} {new}", pointer, d.itemsize)
            if end is not None:
                self._join(end)

    def prefetch(self, s: Prefetch) -> None:
        """A hint for one cache line; an index with lanes hints at its first lane's."""
        a = af.flat(s.index, s.buf.strides)
        if a is not None and not self._in_registers(s.buf):
            self.w.put(f"call void @llvm.prefetch.p0(ptr {self._pointer(s.buf, a, self.w.depth)}, i32 0, i32 3, i32 1)")
