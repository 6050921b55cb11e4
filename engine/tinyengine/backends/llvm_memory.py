"""Allocations, addresses and loads of the LLVM writer: registers, per-thread local buffers and global buffers.

An index whose lanes are evenly spaced by 1 is one vector access; by 0, a scalar access and a splat; further apart, or several on
one element, perhaps contiguous loads and shuffles (`llvm_strided`); anything else a gather or, for writes, lane after lane. A
load that one bit masks off reads constant zeros instead of the buffer (its address is chosen by a select): it neither branches
nor touches memory that may not be there, which costs a masked vector load hundreds of cycles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine import dtypes
from tinyengine.backends import llvm_ops as ops
from tinyengine.backends.llvm_strided import Strided
from tinyengine.backends.moves import ONE_BY_ONE
from tinyengine.backends.strided import prefix
from tinyengine.loopnest import Alloc, Buf, Expr, load_index, load_mask
from tinyengine.stages.arithmetic import affine as af

if TYPE_CHECKING:
    from tinyengine.backends.llvm_ir import Writer

MAX_HOISTED = 12  # loads moved in front of one loop: more values than this held across it would be spilled
SMALL = 64  # elements: an initial value up to this size is stored without a loop
ZERO, ZERO_BYTES = "@zero", 512  # what a masked-off load reads


class NotRegister(Exception):
    """A register buffer that is indexed by more than constants, or in pieces of different width: it has to live in memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Loads:
    """The memory of one function being written by `w`."""

    def __init__(self, w: Writer) -> None:
        self.w = w
        self.kinds: dict[str, str] = {}
        self.strided = Strided(w, self._pointer)

    # ---- allocation

    def alloc(self, s: Alloc) -> None:
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

    def _put_store(self, value: str, pointer: str, align: int, hint: str = "") -> None:
        self.w.put(f"store {value}, ptr {pointer}, align {align}" + (", !nontemporal !0" if hint else ""))

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
        on = e.lanes if mask is None else prefix(mask)
        same = af.shared(at, buf.strides, w.divisor) if a is None and on is not None else None
        plain = same.first if same is not None else a if direct else None
        if plain is not None:
            w.offset(plain)
            needs += [term for term, _ in plain.terms]
        else:
            offsets = self._offsets(buf, at)
            needs.append(offsets)
        for n in needs:
            w.value(n)
            depth = max(depth, w.depth_of(n))
            reads |= w.volatile.get(n, frozenset())
        depth = w.hoist(depth)
        held = None if mask is None else w.value(mask)
        apart = None
        if a is not None and not direct and abs(a.lane) > 1:
            wide = None if held is None else self._wide(w.at(depth), e, held)
            apart = self.strided.load(e, a, depth, reads, wide)
        if same is not None:
            w.moves.note("load", buf.name, "elements repeated", 0, e.lanes)
            apart = self.strided.repeated(buf, same, e.lanes, on or 0, depth)
        if apart is not None:
            value = self._from_memory(w.at(depth), buf, apart, e.lanes)
        elif a is None or not direct:
            w.moves.note("load", buf.name, ONE_BY_ONE, 0 if a is None else a.lane, e.lanes)
            value = self._gather(w.at(depth), e, offsets, held)
        elif a.lane == 0 or e.lanes == 1:
            value = self._scalar(w.at(depth), e, a, mask, held, depth)
        elif a.lane == 1:
            value = self._contiguous(w.at(depth), e, a, held, depth)
        else:
            w.moves.note("load", buf.name, "reversed", a.lane, e.lanes)
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
        mask = load_mask(e)
        if mask is not None and mask.lanes == 1 and e.lanes * buf.dtype.itemsize <= ZERO_BYTES:
            pointer, m = line(f"select i1 {m}, ptr {pointer}, ptr {ZERO}"), None
        if m is None:
            value = line(f"load {ty}, ptr {pointer}, align {align}")
        else:
            value = self._masked_load(
                line, ty, ops.suffix(ops.memory_type(buf.dtype), e.lanes), pointer, align, self._wide(line, e, m), e.lanes
            )
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
