"""One scheduled kernel's statements as OpenCL C, each line with the line of the kernel's text that it does.

Unrolled loops are repeated with constant indices; register buffers become variables. The driver's compiler moves invariant
code. Float semantics are those of the IR; the one liberty is that `acc += a * b` is a fused multiply-add where the device has
one (FP_FAST_FMA*, or what its compiler says of the machine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import gcd

from tinyengine import dtypes
from tinyengine.backends import opencl_memory as mem
from tinyengine.backends import opencl_ops as ops
from tinyengine.backends.moves import ONE_BY_ONE
from tinyengine.backends.opencl_ops import Operand, bare, pieces, register
from tinyengine.backends.opencl_values import ROOM, Address, Line, NotRegister, Value, Values
from tinyengine.backends.strided import columns, prefix, strided
from tinyengine.dtypes import DType
from tinyengine.loopnest import Accumulate, Alloc, Buf, Check, Expr, Let, Loop, Prefetch, Stmt, Store, index, map_stmt
from tinyengine.stages.arithmetic import affine as af

_Write = Callable[[str, int, str], str]  # (offset, lane, value) -> statement
UNITS = 4  # variables declared on one line


class Writer(Values):
    """Writes the body of one function."""

    # ---- statements

    def block(self, body: Iterable[Stmt]) -> None:
        for s in body:
            self.number = self.numbers.get(id(s), 0)
            self.values.clear()
            self.addresses.clear()
            if isinstance(s, Loop):
                self.loop(s)
            elif isinstance(s, Alloc):
                self.alloc(s)
            else:
                product = isinstance(s, (Let, Accumulate)) and s.value.op == "mul"  # as written, not by expansion
                s = map_stmt(s, self.machine)
                if isinstance(s, Let):
                    self.let(s, product)
                elif isinstance(s, Store):
                    self.store(s)
                elif isinstance(s, Accumulate):
                    self.accumulate(s, product)
                elif isinstance(s, Check):
                    self.check(s)
                elif isinstance(s, Prefetch):
                    self.prefetch(s)

    def machine(self, e: Expr) -> Expr:
        """With the unrolled loops' variables replaced, in operations that the device has."""
        return self.lower(af.substitute(e, self.env, self.env_memo)) if self.env else self.lower(e)

    def let(self, s: Let, product: bool) -> None:
        v = s.value
        if product and v.op == "mul" and v.dtype.is_float and s.name in self.summands:
            self.evaluate(v.args)
            self.blocks[-1].products[s.name] = (self.named(v.args[0]), self.named(v.args[1]))
            if s.name not in self.needed:
                self.blocks[-1].names[s.name] = []
                return
        self.evaluate([v])
        names: Value = []
        for (_, w), x in zip(pieces(v.lanes), self.values[v], strict=True):
            name = self.fresh(s.name)
            self.put(f"const {register(v.dtype, w)} {name} = {bare(x.full)};")
            names.append(Operand(name, name))
        self.blocks[-1].names[s.name] = names

    def check(self, s: Check) -> None:
        c = s.condition
        self.evaluate([c])
        ok = self.reduced("mul", dtypes.bool_, c.lanes, [x.full for x in self.values[c]])
        code = self.messages.index(s.message)
        self.put(f"if (!({bare(ok)})) atomic_cmpxchg(status, 0, first + {code});  // {_comment(s.message)}")

    def prefetch(self, s: Prefetch) -> None:
        a = self.address(s.buf, s.index)
        base, space = self.places.get(s.buf.name, ("", ""))
        if a.affine is not None and space == "global":
            self.evaluate(a.needs)
            self.put(f"prefetch({mem.moved(base, self.offset(a, 0))}, {max(1, 64 // s.buf.dtype.itemsize)});")

    # ---- memory of its own

    def alloc(self, s: Alloc) -> None:
        buf, d = s.buf, s.buf.dtype
        self.blocks[-1].buffers.append(buf.name)
        if self.in_registers(buf):
            lanes = self.widths.get(buf.name, 1)
            if buf.size % lanes:
                raise NotRegister(buf.name)
            by_width: dict[int, list[str]] = {}
            for at in range(0, buf.size, lanes):
                names = [self.fresh(buf.name if buf.size == lanes else f"{buf.name}_{at + first}") for first, _ in pieces(lanes)]
                self.slots[buf.name, at] = names
                for (_, w), n in zip(pieces(lanes), names, strict=True):
                    start = "" if s.init is None else f" = {bare(ops.splat(ops.literal(s.init, d), d, w, True).full)}"
                    by_width.setdefault(w, []).append(n + start)
            for w, texts in by_width.items():
                for i in range(0, len(texts), UNITS):
                    self.put(f"{register(d, w)} {', '.join(texts[i : i + UNITS])};")
            return
        name = self.fresh(buf.name)
        t = ops.MEMORY[d.name]
        if buf.space == "local" and self.in_scratch:
            self.put(f"global {t}* restrict {name} = (global {t}*)(mine + {self.scratch_at + 64 * ends(buf)});")
            self.scratch_at += own_bytes(buf)
            self.scratch_bytes = max(self.scratch_bytes, self.scratch_at)
            self.places[buf.name] = (name, "global")
        else:
            around = self.fresh(f"{buf.name}_room")
            self.put(f"{t} {around}[{buf.size + 2 * 64 * ends(buf) // buf.dtype.itemsize}] __attribute__((aligned(64)));")
            self.put(f"private {t}* restrict {name} = {around} + {64 * ends(buf) // buf.dtype.itemsize};")
            self.places[buf.name] = (name, "private")
        if s.init is not None:
            counter = self.fresh("i")
            fill = mem.store_one(self.helpers, d, name, counter, ops.literal(s.init, d))
            self.put(f"for (int {counter} = 0; {counter} < {buf.size}; ++{counter}) {fill}")

    # ---- writes

    def store(self, s: Store) -> None:
        a = self.address(s.buf, s.index)
        lanes = max(a.lanes, s.value.lanes, s.mask.lanes if s.mask is not None else 1)
        self.evaluate([s.value, *a.needs, *([s.mask] if s.mask is not None else [])])
        value = self.spread(s.value, lanes)
        if self.in_registers(s.buf):
            if lanes != a.lanes:
                raise NotRegister(s.buf.name)
            names = self.slots[self.slot(a)]
            for k, (_, w) in enumerate(pieces(lanes)):
                self.set_register(names[k], s.buf.dtype, w, value[k].full, s.mask, k)
        else:
            self.write(s.buf, a, lanes, value, s.mask, s.hint)

    def spread(self, e: Expr, lanes: int) -> Value:
        """The value of `e` in `lanes` lanes; as names where one write could change what the next one needs."""
        value = self.named(e) if len(pieces(lanes)) > 1 else self.values[e]
        if e.lanes < lanes:
            return [ops.splat(value[0].full, e.dtype, w, value[0].constant) for _, w in pieces(lanes)]
        return value

    def bit(self, mask: Expr | None, k: int) -> str | None:
        """Piece k of a mask; the only one of a scalar mask."""
        return None if mask is None else self.values[mask][k if mask.lanes > 1 else 0].full

    def set_register(self, name: str, d: DType, w: int, value: str, mask: Expr | None, k: int) -> None:
        m = self.bit(mask, k)
        if m is not None and mask is not None:
            value = ops.select(m, d, w, value, name) if mask.lanes > 1 else f"({m} ? {value} : {name})"
        self.put(f"{name} = {bare(value)};")

    def write(self, buf: Buf, a: Address, lanes: int, value: Value, mask: Expr | None, hint: str = "") -> None:
        base, space = self.places[buf.name]
        d, h = buf.dtype, self.helpers
        if a.affine is None or (lanes > 1 and a.affine.lane != 1):
            self.lane_by_lane(a, lanes, value, mask, lambda at, k, v: mem.store_one(h, d, base, at, v))
            return
        for k, (first, w) in enumerate(pieces(lanes)):
            at, v, m = self.offset(a, first), value[k].full, self.bit(mask, k)
            if m is None:
                past = hint == "stream" and space == "global" and d not in (dtypes.bool_, dtypes.float16)
                if past and w > 1 and self.aligned(a, first, w):
                    self.put(mem.stream(h, d, w, base, at, v))
                else:
                    self.put(mem.store(h, d, w, base, at, v))
            elif w == 1 or (mask is not None and mask.lanes == 1):
                self.put(f"if ({bare(m)}) {mem.store(h, d, w, base, at, v)}")
            elif (n := prefix(mask)) is not None:
                if not v.isidentifier():
                    v = self.declare(register(d, w), v)
                offsets = [self.offset(a, first + i) for i in range(w)]
                for text in mem.store_prefix(h, d, w, base, offsets, v, min(w, max(0, n - first))):
                    self.put(text)
            else:
                self.put(mem.store_masked(h, d, w, space, base, at, v, m))

    def aligned(self, a: Address, first: int, w: int) -> bool:
        """Whether the address of lane `first` is a multiple of the vector's size: buffers begin at multiples of 64 bytes."""
        assert a.affine is not None
        parts = [c * self.grain.get(str(t.arg[0]), 1) if t.op == "var" else c for t, c in a.affine.terms]
        return all(x % w == 0 for x in (*parts, a.affine.constant + first))

    def lane_by_lane(self, a: Address, lanes: int, value: Value, mask: Expr | None, write: _Write) -> None:
        """Writes in the order of the lanes: later lanes win, and equal addresses see each other's result."""
        d, e = a.buf.dtype, a.offsets
        if lanes > 1:
            self.moves.note("store", a.buf.name, ONE_BY_ONE, 0 if a.affine is None else a.affine.lane, lanes)
        names, places = [], []
        for k, (_, w) in enumerate(pieces(lanes)):
            x = value[k].full
            names.append(x if x.isidentifier() else self.declare(register(d, w), x))
            if e is not None:
                x = self.values[e][k if a.lanes > 1 else 0].full
                places.append(x if x.isidentifier() else self.declare(register(e.dtype, w if a.lanes > 1 else 1), x))
        for k, (first, w) in enumerate(pieces(lanes)):
            m = self.bit(mask, k)
            for i in range(w):
                part = f".s{ops.LANES[i]}" if w > 1 else ""
                at = self.offset(a, first + i) if e is None else places[k] + (part if a.lanes > 1 else "")
                text = write(at, first + i, names[k] if w == 1 else mem.lane(d, names[k], i))
                if m is not None and mask is not None:
                    text = f"if ({m}{part}) {text}" if mask.lanes > 1 and w > 1 else f"if ({bare(m)}) {text}"
                self.put(text)

    # ---- accumulations

    def factors(self, e: Expr, product: bool) -> tuple[Value, Value] | None:
        """The two sides of a product of floats, which may be multiplied and added in one operation."""
        if product and e.op == "mul" and e.dtype.is_float:
            self.evaluate(e.args)
            return self.values[e.args[0]], self.values[e.args[1]]
        if e.op == "name":
            for b in reversed(self.blocks):
                if e.arg in b.names:
                    return b.products.get(e.arg)
        return None

    def accumulate(self, s: Accumulate, product: bool) -> None:
        buf, d, h = s.buf, s.buf.dtype, self.helpers
        a = self.address(buf, s.index)
        lanes = max(a.lanes, s.value.lanes, s.mask.lanes if s.mask is not None else 1)
        self.evaluate([*a.needs, *([s.mask] if s.mask is not None else [])])
        both = self.factors(s.value, product) if s.op == "add" else None
        fused = both is not None and s.value.lanes == lanes == a.lanes
        value: Value = []
        if both is not None:
            products = [ops.combine(h, "mul", d, w, x, y) for (_, w), x, y in zip(pieces(s.value.lanes), *both, strict=True)]
            self.values[s.value] = value = [Operand(p, p) for p in products]
        if not fused:
            if both is None:
                self.evaluate([s.value])
            value = self.spread(s.value, lanes)

        def merged(old: str, k: int, w: int) -> str:
            before = Operand(old, old)
            if fused and both is not None:
                return _muladd(h, d, w, both[0][k], both[1][k], before)
            return ops.combine(h, s.op, d, w, before, value[k])

        mask = s.mask
        if lanes > 1 and a.affine is not None and a.affine.lane == 0:
            # all lanes fall on one element: they are combined first; those that are off count as the op's identity
            neutral = {"add": 0, "mul": 1, "maximum": d.min, "minimum": d.max}[s.op]
            parts = []
            for k, (_, w) in enumerate(pieces(lanes)):
                m, x = self.bit(mask, k), value[k].full
                other = ops.splat(ops.literal(neutral, d), d, w, True).full
                wide = m is not None and mask is not None and mask.lanes > 1
                parts.append(x if m is None else ops.select(m, d, w, x, other) if wide else f"({m} ? {x} : {other})")
            one = self.reduced(s.op, d, lanes, parts)
            value, mask, lanes, fused = [Operand(one, one)], None, 1, False
        if self.in_registers(buf):
            if lanes != a.lanes and lanes != 1:
                raise NotRegister(buf.name)
            names = self.slots[self.slot(a)]
            for k, (_, w) in enumerate(pieces(lanes)):
                self.set_register(names[k], d, w, merged(names[k], k, w), mask, k)
            return
        base, space = self.places[buf.name]
        if a.affine is None or (lanes > 1 and a.affine.lane != 1):

            def one_lane(at: str, k: int, v: str) -> str:
                old = mem.load_one(h, d, base, at)
                return mem.store_one(h, d, base, at, ops.combine(h, s.op, d, 1, Operand(old, old), Operand(v, v)))

            self.lane_by_lane(a, lanes, value or self.spread(s.value, lanes), mask, one_lane)
            return
        for k, (first, w) in enumerate(pieces(lanes)):
            at, m = self.offset(a, first), self.bit(mask, k)
            if m is None or w == 1 or (mask is not None and mask.lanes == 1):
                text = mem.store(h, d, w, base, at, merged(mem.load(h, d, w, base, at), k, w))
                self.put(text if m is None else f"if ({bare(m)}) {text}")
            else:
                old = mem.load_masked(h, d, w, space, base, at, m)
                self.put(mem.store_masked(h, d, w, space, base, at, merged(old, k, w), m))

    # ---- loops

    def loop(self, s: Loop) -> None:
        if s.trips == 0:
            return
        if s.kind == "unroll" or s.trips == 1:
            self.unrolled(s)
        else:
            self.counted(s, str(s.start), str(s.step))

    def counted(self, s: Loop, start: str, step: str, body: Iterable[Stmt] | None = None, end: str = "") -> None:
        """A loop in C; around `body` in place of its own, and up to `end`, where these are given."""
        self.open()
        end = end or str(s.stop)
        if s.first is not None:
            first = self.machine(s.first)
            self.evaluate([first])
            start = self.declare("long", f"max((long){s.start}, {bare(self.values[first][0].full)})")
        if s.limit is not None:
            limit = self.machine(s.limit)
            self.evaluate([limit])
            end = self.declare("long", f"min((long){s.stop}, {bare(self.values[limit][0].full)})")
        name = self.fresh(s.name)
        self.blocks[-1].names[s.name] = [Operand(name, name)]
        self.grain[s.name] = gcd(s.start, s.step)
        bump = f"++{name}" if step == "1" else f"{name} += {step}"
        self.put(f"for (long {name} = {start}; {name} < {end}; {bump}) {{")
        self.indent += 1
        number, held = self.number, self.scratch_at
        self.block(s.body if body is None else body)
        self.scratch_at, self.number = held, number
        self.indent -= 1
        self.put("}")
        self.close()

    def unrolled(self, s: Loop) -> None:
        outer, memo, number, held, outside = self.env, self.env_memo, self.number, self.scratch_at, self.columns
        loads = self.apart.get(id(s))
        if loads is None:
            loads = self.apart[id(s)] = strided(s)
        if loads:
            env: dict[Expr, Expr] = {**outer, s.var: index(s.start)}
            first: dict[Expr, Expr] = {}
            self.columns = {**outside, **columns(s, loads, lambda e: af.substitute(e, env, first))}
        for i in af.iterations(s, self.machine):
            self.env, self.env_memo = {**outer, s.var: index(i)}, {}
            self.open()
            begin, counter = len(self.lines), self.temporaries
            self.block(s.body)
            if self.blocks[-1].taken or self.temporaries > counter:  # braces only where something is declared
                self.lines[begin:] = [
                    Line("  " * self.indent + "{", number),
                    *(Line("  " + x.text, x.number) for x in self.lines[begin:]),
                    Line("  " * self.indent + "}", number),
                ]
            self.close()
            self.scratch_at = held
        self.env, self.env_memo, self.number, self.columns = outer, memo, number, outside


def _muladd(h: ops.Helpers, d: DType, w: int, a: Operand, b: Operand, c: Operand) -> str:
    """a * b + c, in one operation where the device is quick at it."""
    t = register(d, w)
    fast = "FP_FAST_FMA" if d is dtypes.float64 else "FP_FAST_FMAF"
    # a driver may leave the macro out where its compiler says by its own that the instruction exists (PoCL does)
    there = f"defined({fast}) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)"
    body = f"#if {there}\n  return fma(a, b, c);\n#else\n  return a * b + c;\n#endif"
    name = h.add(f"muladd_{t}", f"{t} muladd_{t}({t} a, {t} b, {t} c) {{\n{body}\n}}")
    return ops.rounded(h, f"{name}({bare(a.full)}, {bare(b.full)}, {bare(c.full)})", d, w)


def ends(buf: Buf) -> int:
    """How many times 64 bytes lie before and after an array of its own: ROOM elements at least."""
    return (ROOM * buf.dtype.itemsize + 63) // 64


def own_bytes(buf: Buf) -> int:
    """Memory for a local buffer with what lies around it."""
    return (buf.nbytes + 63) // 64 * 64 + 2 * 64 * ends(buf)


def _comment(text: str) -> str:
    """For the end of a line: no line break, and no backslash, which would join the next line to it."""
    return " ".join(text.replace("\\", "/").split())
