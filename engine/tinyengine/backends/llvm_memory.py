"""Loads, stores and accumulations of the LLVM writer: registers, per-thread local buffers and global buffers.

An index whose lanes are evenly spaced by 1 is one vector access; spaced by 0, a scalar access and a splat; anything else a gather or,
for writes, lane after lane. A masked-off scalar load reads a constant zero instead of the buffer (its address is chosen by a select), so
it neither touches memory nor branches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tinyengine import dtypes
from tinyengine.backends import affine as af
from tinyengine.backends import llvm_ops as ops
from tinyengine.loopnest import Accumulate, Alloc, Buf, Expr, Prefetch, Store, load_index, load_mask

if TYPE_CHECKING:
    from tinyengine.backends.llvm_ir import Writer

Merge = Callable[[str, str, int], str]  # (old, new, lanes) -> combined
MAX_HOISTED = 12  # loads moved in front of one loop: more values than this held across it would be spilled
SMALL = 64  # elements: an initial value up to this size is stored without a loop
ZERO = "@zero"  # 64 zero bytes: what a masked-off load reads


class Memory:
    """The memory of one function being written by `w`."""

    def __init__(self, w: Writer) -> None:
        self.w = w
        self.kinds: dict[str, str] = {}

    # ---- allocation

    def alloc(self, s: Alloc) -> None:
        from tinyengine.backends.llvm_ir import NotRegister

        w, buf = self.w, s.buf
        w.scope.allocs.append(buf.name)
        w.forget(buf.name)
        w.alloc_depths[buf.name] = w.depth
        if buf.space == "register" and buf.name not in w.in_memory:
            lanes = w.widths.get(buf.name, 1)
            if buf.size % lanes:
                raise NotRegister(buf.name)
            self.kinds[buf.name] = ops.vector(ops.scalar_type(buf.dtype), lanes)
            initial = "poison" if s.init is None else ops.literal(s.init, buf.dtype, lanes)
            for at in range(0, buf.size, lanes):
                w.registers[buf.name, at] = (initial, 0)
            return
        pointer = f"%{w.fresh(buf.name)}"
        if buf.space == "register":
            w.allocas.append(f"  {pointer} = alloca [{buf.size} x {ops.memory_type(buf.dtype)}], align 64")
        else:
            at = w.scope.scratch
            w.scope.scratch = at + (buf.nbytes + 63) // 64 * 64
            w.scratch_bytes = max(w.scratch_bytes, w.scope.scratch)
            w.allocas.append(f"  {pointer} = getelementptr i8, ptr %scratch, i64 {at}")
        w.places[buf.name] = pointer
        if s.init is not None:
            self._fill(buf, pointer, s.init)

    def _fill(self, buf: Buf, pointer: str, value: float | int | bool) -> None:
        w, t, size = self.w, ops.memory_type(buf.dtype), buf.dtype.itemsize
        text = str(int(value)) if buf.dtype is dtypes.bool_ else ops.literal(value, buf.dtype)
        zero = value == 0 and not str(value).startswith("-")
        if zero and buf.size > SMALL:
            w.put(f"call void @llvm.memset.p0.i64(ptr align 64 {pointer}, i8 0, i64 {buf.nbytes}, i1 false)")
            return
        lanes = max(1, 64 // size)
        whole = buf.size // lanes * lanes
        splat = text if lanes == 1 else f"splat ({t} {text})"
        if whole > SMALL:
            name, before = w.fresh("fill"), w.scope.label
            w.put(f"br label %{name}.loop")
            w.begin_block(f"{name}.loop")
            w.put(f"%{name} = phi i64 [ 0, %{before} ], [ %{name}.next, %{name}.loop ]")
            w.put(f"%{name}.at = getelementptr {t}, ptr {pointer}, i64 %{name}")
            w.put(f"store {ops.vector(t, lanes)} {splat}, ptr %{name}.at, align 64")
            w.put(f"%{name}.next = add i64 %{name}, {lanes}")
            w.put(f"%{name}.more = icmp ult i64 %{name}.next, {whole}")
            w.put(f"br i1 %{name}.more, label %{name}.loop, label %{name}.end")
            w.begin_block(f"{name}.end")
        else:
            for at in range(0, whole, lanes):
                self._put_store(f"{ops.vector(t, lanes)} {splat}", self._shift(pointer, t, at, w.depth), 64)
        for at in range(whole, buf.size):
            self._put_store(f"{t} {text}", self._shift(pointer, t, at, w.depth), size)

    # ---- addresses

    def _shift(self, pointer: str, t: str, by: int, depth: int) -> str:
        return pointer if by == 0 else self.w.at(depth)(f"getelementptr {t}, ptr {pointer}, i64 {by}")

    def _pointer(self, buf: Buf, a: af.Affine, depth: int) -> str:
        """The address of an affine offset. The part without the constant is shared by neighbours; the constant is left to the
        addressing mode."""
        w, t = self.w, ops.memory_type(buf.dtype)
        offset, d = w.offset(a)
        base = w.places[buf.name]
        if offset:
            key = ("address", buf.name, tuple(a.terms))
            found = w.values.get(key)
            if found is None:
                w.remember(key, w.at(d)(f"getelementptr {t}, ptr {base}, i64 {offset}"), d)
                found = w.values[key]
            base = found[0]
        return self._shift(base, t, a.constant, depth)

    def register_type(self, name: str) -> str:
        return self.kinds[name]

    def _slot(self, buf: Buf, a: af.Affine | None, lanes: int) -> tuple[str, int]:
        """The key of the register that holds these lanes; NotRegister when it is not exactly one."""
        from tinyengine.backends.llvm_ir import NotRegister

        if a is None or a.terms or (a.lane != 1 and lanes > 1) or (buf.name, a.constant) not in self.w.registers:
            raise NotRegister(buf.name)
        if lanes != self.w.widths.get(buf.name, 1):
            raise NotRegister(buf.name)
        return buf.name, a.constant

    def _in_registers(self, buf: Buf) -> bool:
        return buf.space == "register" and buf.name not in self.w.in_memory

    # ---- loads

    def load(self, e: Expr) -> None:
        w = self.w
        buf: Buf = e.arg
        mask, at = load_mask(e), load_index(e)
        a = af.flat(at, buf.strides)
        reads = frozenset((w.group(buf.name),))
        if self._in_registers(buf):
            index_lanes = max([i.lanes for i in at] + [1])
            operand, depth = w.registers[self._slot(buf, a, index_lanes)]
            t = ops.scalar_type(buf.dtype)
            if index_lanes < e.lanes:
                operand = ops.splat(w.at(depth), operand, t, e.lanes)
            if mask is not None:
                m = w.value(mask)
                depth = max(depth, w.depth_of(mask))
                zero = ops.literal(0, buf.dtype, e.lanes)
                operand = w.at(depth)(f"select {ops.type_of(mask)} {m}, {ops.type_of(e)} {operand}, {ops.type_of(e)} {zero}")
            w.remember(e, operand, depth, reads)
            return
        # depth: where everything that the access needs is known, and behind the last write
        depth = max(w.depth_written(buf.name), w.alloc_depths.get(buf.name, 0))
        needs: list[Expr] = [] if mask is None else [mask]
        direct = a is not None and (e.lanes == 1 or a.lane in (0, 1) or (a.lane == -1 and mask is None))
        if a is not None and direct:
            w.offset(a)
            needs += [t for t, _ in a.terms]
        else:
            offsets = self._offsets(buf, at)
            needs.append(offsets)
        for n in needs:
            w.value(n)
            depth = max(depth, w.depth_of(n))
            reads |= w.volatile.get(n, frozenset())
        depth = w.hoist(depth)
        m = None if mask is None else w.value(mask)
        if a is None or not direct:
            value = self._gather(w.at(depth), e, offsets, m)
        elif a.lane == 0 or e.lanes == 1:
            value = self._scalar(w.at(depth), e, a, mask, m, depth)
        elif a.lane == 1:
            value = self._contiguous(w.at(depth), e, a, m, depth)
        else:
            value = self._reversed(w.at(depth), e, a, depth)
        w.remember(e, value, depth, reads)

    def _from_memory(self, line: ops.Line, buf: Buf, value: str, lanes: int) -> str:
        """A bool leaves its byte."""
        if buf.dtype is not dtypes.bool_:
            return value
        ty = ops.vector("i8", lanes)
        return line(f"icmp ne {ty} {value}, {'zeroinitializer' if lanes > 1 else '0'}")

    def _to_memory(self, line: ops.Line, buf: Buf, value: str, lanes: int) -> str:
        if buf.dtype is not dtypes.bool_:
            return value
        return line(f"zext {ops.vector('i1', lanes)} {value} to {ops.vector('i8', lanes)}")

    def _scalar(self, line: ops.Line, e: Expr, a: af.Affine, mask: Expr | None, m: str | None, depth: int) -> str:
        buf: Buf = e.arg
        t = ops.memory_type(buf.dtype)
        pointer = self._pointer(buf, a, depth)
        if m is not None and mask is not None:
            some = m
            if mask.lanes > 1:
                some = ops.lanes_reduce(line, "add", dtypes.bool_, mask.lanes, m)
            pointer = line(f"select i1 {some}, ptr {pointer}, ptr {ZERO}")
        value = line(f"load {t}, ptr {pointer}, align {buf.dtype.itemsize}")
        value = self._from_memory(line, buf, value, 1)
        if e.lanes == 1:
            return value
        st = ops.scalar_type(buf.dtype)
        wide = ops.splat(line, value, st, e.lanes)
        if m is None or mask is None or mask.lanes == 1:
            return wide
        ty = ops.type_of(e)
        return line(f"select {ops.type_of(mask)} {m}, {ty} {wide}, {ty} {ops.literal(0, buf.dtype, e.lanes)}")

    def _contiguous(self, line: ops.Line, e: Expr, a: af.Affine, m: str | None, depth: int) -> str:
        buf: Buf = e.arg
        ty = ops.vector(ops.memory_type(buf.dtype), e.lanes)
        pointer = self._pointer(buf, a, depth)
        align = self.w.alignment(a, buf.dtype.itemsize)
        if m is None:
            value = line(f"load {ty}, ptr {pointer}, align {align}")
        else:
            value = self._masked_load(line, ty, ops.suffix(ops.memory_type(buf.dtype), e.lanes), pointer, align, self._wide(line, e, m), e.lanes)
        return self._from_memory(line, buf, value, e.lanes)

    def _masked_load(self, line: ops.Line, ty: str, suffix: str, pointer: str, align: int, m: str, lanes: int) -> str:
        name = f"@llvm.masked.load.{suffix}.p0"
        self.w.declare(f"declare {ty} {name}(ptr, i32, <{lanes} x i1>, {ty})")
        return line(f"call {ty} {name}(ptr {pointer}, i32 {align}, <{lanes} x i1> {m}, {ty} zeroinitializer)")

    def _wide(self, line: ops.Line, e: Expr, m: str) -> str:
        """The mask of a load with as many lanes as the load."""
        mask = load_mask(e)
        return m if mask is None or mask.lanes == e.lanes else ops.splat(line, m, "i1", e.lanes)

    def _reversed(self, line: ops.Line, e: Expr, a: af.Affine, depth: int) -> str:
        buf: Buf = e.arg
        ty = ops.vector(ops.memory_type(buf.dtype), e.lanes)
        first = a._replace(constant=a.constant - (e.lanes - 1))
        pointer = self._pointer(buf, first, depth)
        value = line(f"load {ty}, ptr {pointer}, align {buf.dtype.itemsize}")
        picks = ", ".join(f"i32 {e.lanes - 1 - k}" for k in range(e.lanes))
        value = line(f"shufflevector {ty} {value}, {ty} poison, <{e.lanes} x i32> <{picks}>")
        return self._from_memory(line, buf, value, e.lanes)

    def _offsets(self, buf: Buf, at: tuple[Expr, ...]) -> Expr:
        """The element offsets as a vector, in 32 bits where they fit."""
        flat = af.flat_expr(at, buf.strides)
        short = af.narrow(flat) if buf.nbytes <= af.INT32_MAX else None
        return self.w.lower(short if short is not None else flat)

    def _pointers(self, line: ops.Line, buf: Buf, offsets: Expr, lanes: int) -> str:
        operand, t = self.w.value(offsets), ops.scalar_type(offsets.dtype)
        if offsets.lanes == 1:
            operand = ops.splat(line, operand, t, lanes)
        it = ops.vector(t, lanes)
        return line(f"getelementptr {ops.memory_type(buf.dtype)}, ptr {self.w.places[buf.name]}, {it} {operand}")

    def _gather(self, line: ops.Line, e: Expr, offsets: Expr, m: str | None) -> str:
        buf: Buf = e.arg
        t = ops.memory_type(buf.dtype)
        ty, name = ops.vector(t, e.lanes), f"@llvm.masked.gather.{ops.suffix(t, e.lanes)}.v{e.lanes}p0"
        pointers = self._pointers(line, buf, offsets, e.lanes)
        bits = "splat (i1 true)" if m is None else self._wide(line, e, m)
        self.w.declare(f"declare {ty} {name}(<{e.lanes} x ptr>, i32, <{e.lanes} x i1>, {ty})")
        at = f"<{e.lanes} x ptr> {pointers}, i32 {buf.dtype.itemsize}"
        value = line(f"call {ty} {name}({at}, <{e.lanes} x i1> {bits}, {ty} zeroinitializer)")
        return self._from_memory(line, buf, value, e.lanes)

    # ---- stores

    def _put_store(self, value: str, pointer: str, align: int, hint: str = "") -> None:
        self.w.put(f"store {value}, ptr {pointer}, align {align}" + (", !nontemporal !0" if hint else ""))

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
        elif a is None or (lanes > 1 and a.lane != 1):
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
            # a streaming store must be aligned; one that is not keeps to the caches
            stream = hint == "stream" and align >= min(64, lanes * buf.dtype.itemsize)
            self._put_store(f"{ty} {value}", pointer, align, hint if stream else "")
        elif mask.lanes == 1:
            end = self._guard(m)
            self._put_store(f"{ty} {value}", pointer, align)
            self._join(end)
        else:
            name = f"@llvm.masked.store.{ops.suffix(t, lanes)}.p0"
            w.declare(f"declare void {name}({ty}, ptr, i32, <{lanes} x i1>)")
            w.put(f"call void {name}({ty} {value}, ptr {pointer}, i32 {align}, <{lanes} x i1> {m})")

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

    def _lanes(self, buf: Buf, at: tuple[Expr, ...], lanes: int, mask: Expr | None, m: str | None) -> list[tuple[str, str | None, int]]:
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
        fused = s.op == "add" and s.value.op == "mul" and d.is_float and lanes == target and s.value.lanes == lanes
        if fused:
            x, y = w.value(s.value.args[0]), w.value(s.value.args[1])
            value = ""
        else:
            x = y = ""
            value = w.value(s.value)
            if s.value.lanes < lanes:
                value = ops.splat(w.at(w.depth), value, ops.scalar_type(d), lanes)

        def merged(old: str, new: str, n: int) -> str:
            here = w.at(w.depth)
            return ops.fma(here, d, n, x, y, old) if fused else ops.combine(here, s.op, d, n, new, old)

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
            self._scatter_accumulate(s, value, x, y, fused, lanes, m)
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

    def _scatter_accumulate(self, s: Accumulate, value: str, x: str, y: str, fused: bool, lanes: int, m: str | None) -> None:
        w, buf, d = self.w, s.buf, s.buf.dtype
        here = w.at(w.depth)
        if fused:
            value = ops.combine(here, "mul", d, lanes, x, y)
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
