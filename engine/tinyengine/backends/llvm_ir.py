"""One scheduled kernel as LLVM IR text.

The writer keeps a stack of scopes, one per loop. An expression is emitted once, in the outermost scope in which everything that
it needs is known, so invariant work leaves the loops without an optimiser. Register buffers become SSA values with phi nodes at
loop heads; unrolled loops are repeated here with constant indices. Float semantics are those of the IR: no fast-math flags; the
one liberty is that `acc += a * b` is a fused multiply-add.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd

from tinyengine import dtypes
from tinyengine.backends import llvm_ops as ops
from tinyengine.backends.llvm_memory import MAX_HOISTED
from tinyengine.backends.llvm_store import Memory
from tinyengine.backends.moves import Moves
from tinyengine.backends.strided import Access, Key, Run, columns, prefix, strided, woven
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Check,
    Expr,
    Let,
    Loop,
    Prefetch,
    Stmt,
    Store,
    index,
    map_stmt,
    walk,
)
from tinyengine.stages.arithmetic import affine as af

Operand = tuple[str, int]  # an SSA name or literal, and the depth of the scope that defines it


@dataclass(slots=True)
class Scope:
    lines: list[str]
    label: str
    written: frozenset[str]
    scratch: int
    keys: list[object] = field(default_factory=list)
    allocs: list[str] = field(default_factory=list)
    hoisted: int = 0
    loop: bool = True
    innermost: bool = True
    variable: str = ""  # of the loop, as the kernel names it


def identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", text)


class Writer:
    """Writes the body of one function. `number` gives the debug location of a statement (0: none); `aliases` names buffers
    that share memory: name -> the name that stands for all of them; `lower` expands what the machine has no instruction for;
    `inlined`: names of values that are computed where they are used (`expand.powers_added`)."""

    def __init__(
        self,
        number: Callable[[Stmt], int],
        aliases: Mapping[str, str],
        lower: Callable[[Expr], Expr],
        in_memory: frozenset[str] = frozenset(),
        inlined: frozenset[str] = frozenset(),
    ) -> None:
        self.number, self.aliases, self.lower, self.in_memory = number, aliases, lower, in_memory
        self.inlined = inlined
        self.names: dict[str, int] = {}
        self.counter = 0
        self.debug = 0
        self.declared: dict[str, None] = {}
        self.messages: list[str] = []
        self.scratch_bytes = 0
        self.allocas: list[str] = []
        self.values: dict[object, Operand] = {}
        self.volatile: dict[object, frozenset[str]] = {}
        self.readers: dict[str, list[object]] = {}
        self.registers: dict[tuple[str, int], Operand] = {}
        self.widths: dict[str, int] = {}
        self.places: dict[str, str] = {}
        self.alloc_depths: dict[str, int] = {}
        self.grain: dict[Expr, int] = {}
        self.products: dict[str, tuple[str, str]] = {}  # float product -> factors: an addition may fuse it
        self.dots: dict[str, tuple[str, str]] = {}  # dot product -> operands: an addition may be part of it
        self.env: dict[Expr, Expr] = {}
        self.env_memo: dict[Expr, Expr] = {}
        self.apart: dict[int, tuple[tuple[Access, ...], tuple[Store, ...]]] = {}  # by id of an unrolled loop: loads, stores
        self.columns: dict[Key, Run] = {}  # the loads, in the unrolled loops that are open
        self.woven: dict[Key, Run] = {}  # the stores that wait for each other
        self.waiting: dict[Key, list[str]] = {}  # their values so far
        self.scopes: list[Scope] = [Scope([], "entry", frozenset(), 0)]
        self.moves = Moves()
        self.memory = Memory(self)

    # ---- text

    @property
    def scope(self) -> Scope:
        return self.scopes[-1]

    @property
    def depth(self) -> int:
        return len(self.scopes) - 1

    def fresh(self, base: str) -> str:
        base = identifier(base)
        if base[0] == "t" and base[1:].isdigit():
            base = f"v.{base}"  # t1, t2... are the writer's own temporaries
        n = self.names.get(base, -1) + 1
        self.names[base] = n
        return base if n == 0 else f"{base}.{n}"

    def put(self, text: str, depth: int = -1) -> None:
        self.scopes[depth].lines.append(f"  {text}, !dbg !{self.debug}" if self.debug else f"  {text}")

    def at(self, depth: int) -> ops.Line:
        """A function that appends an instruction to the scope at `depth` and returns the name of its result."""
        out = self.scopes[depth].lines

        def line(text: str) -> str:
            self.counter += 1
            result = f"%t{self.counter}"
            out.append(f"  {result} = {text}, !dbg !{self.debug}" if self.debug else f"  {result} = {text}")
            return result

        return line

    def declare(self, text: str) -> None:
        self.declared[text] = None

    def begin_block(self, label: str) -> None:
        self.scope.lines.append(f"{label}:")
        self.scope.label = label

    # ---- values

    def group(self, name: str) -> str:
        return self.aliases.get(name, name)

    def depth_written(self, name: str) -> int:
        """The innermost scope whose loop writes the buffer: a load of it may not leave that loop."""
        g = self.group(name)
        for d in range(self.depth, 0, -1):
            if g in self.scopes[d].written:
                return d
        return 0

    def hoist(self, depth: int) -> int:
        """Where to put a load that could stand at `depth`: in front of an innermost loop, unless many are held there already;
        never further out, where it would hold a register through other loops and a load is as cheap as refilling it."""
        loops = [d for d in range(self.depth + 1) if self.scopes[d].loop]
        here = loops[-1]
        if depth >= here:
            return depth
        outer = max(depth, loops[-2])
        if not self.scopes[here].innermost:
            return here
        front = self.scopes[outer].hoisted < MAX_HOISTED
        self.moves.held[self.scopes[here].variable, front] += 1
        if not front:
            return here
        self.scopes[outer].hoisted += 1
        return outer

    def remember(self, key: object, operand: str, depth: int, reads: frozenset[str] = frozenset()) -> None:
        self.values[key] = (operand, depth)
        self.scopes[depth].keys.append(key)
        if reads:
            self.volatile[key] = reads
            for r in reads:
                self.readers.setdefault(r, []).append(key)

    def forget(self, name: str) -> None:
        """The buffer changes: values that were computed from it are stale."""
        for key in self.readers.pop(self.group(name), ()):
            self.values.pop(key, None)
            self.volatile.pop(key, None)

    def value(self, e: Expr) -> str:
        """The operand that holds `e`, emitted if it does not exist yet."""
        if e.op == "const":
            return ops.literal(e.arg, e.dtype, e.lanes)
        found = self.values.get(e)
        if found is None:
            for n in self._missing(e):
                self._emit(n)
            found = self.values[e]
        return found[0]

    def depth_of(self, e: Expr) -> int:
        return 0 if e.op == "const" else self.values[e][1]

    def _missing(self, e: Expr) -> list[Expr]:
        """What must be emitted for `e`, operands first. Index expressions are left to the address arithmetic."""
        out: list[Expr] = []
        seen: set[Expr] = set()
        stack: list[tuple[Expr, bool]] = [(e, False)]
        while stack:
            n, ready = stack.pop()
            if ready:
                out.append(n)
            elif n not in seen and n not in self.values and n.op != "const":
                seen.add(n)
                stack.append((n, True))
                if n.op != "load":
                    stack.extend((a, False) for a in reversed(n.args))
        return out

    def _emit(self, e: Expr) -> None:
        if e in self.values:
            return
        if e.op == "load":
            self.memory.load(e)
            return
        if e.op in ("var", "name"):
            raise ValueError(f"{e.arg} is used outside the block that defines it")
        args, depth, reads = [], 0, frozenset[str]()
        for a in e.args:
            if a.op == "const":
                args.append(ops.literal(a.arg, a.dtype, a.lanes))
            else:
                operand, d = self.values[a]
                args.append(operand)
                depth = max(depth, d)
                if a in self.volatile:
                    reads |= self.volatile[a]
        result = self._instruction(e, args, self.at(depth))
        if e.op == "mul" and e.dtype.is_float:
            self.products[result] = (args[0], args[1])
        elif e.op == "dot2":
            self.dots[result] = (args[0], args[1])
        self.remember(e, result, depth, reads)

    def _instruction(self, e: Expr, args: Sequence[str], line: ops.Line) -> str:
        if e.op == "splat":
            return ops.splat(line, args[0], ops.scalar_type(e.dtype), e.lanes)
        if e.op == "ramp":
            steps = ops.lane_numbers(e.dtype, e.lanes, e.arg)
            base = e.args[0]
            if base.op == "const" and base.arg == 0:
                return steps
            if base.op == "const":
                return ops.lane_numbers(e.dtype, e.lanes, e.arg) if base.arg == 0 else _shifted(e)
            t = ops.scalar_type(e.dtype)
            return line(f"add <{e.lanes} x {t}> {ops.splat(line, args[0], t, e.lanes)}, {steps}")
        if e.op == "lanes_reduce":
            return ops.lanes_reduce(line, e.arg, e.dtype, e.args[0].lanes, args[0])
        if e.op == "and" and (inside := _inside(e)) is not None:
            position, extent = inside
            return line(f"icmp ult {ops.type_of(position)} {self.values[position][0]}, {extent}")
        if e.op == "lanes_scan":
            return ops.lanes_scan(line, e.arg, e.dtype, e.lanes, args[0])
        if e.op == "lane":
            return line(f"extractelement {ops.type_of(e.args[0])} {args[0]}, i64 {e.arg}")
        if e.op == "cast" and (whole := _upper(e)) is not None and whole.op != "const":
            return ops.upper_halves(line, e.dtype, e.lanes, self.values[whole][0])
        if e.op in ("floordiv", "mod") and e.args[1].op == "const" and e.args[1].arg > 0 and e.dtype.is_int:
            bounds = af.interval(e.args[0])
            nonnegative = bounds is not None and bounds[0] >= 0
            return ops.divide_by_constant(line, e.op, e.dtype, e.lanes, args[0], e.args[1].arg, nonnegative)
        return ops.elementwise(line, e, args)

    def offset(self, a: af.Affine) -> tuple[str, int]:
        """The sum of the terms of an affine form (without its constant), and its depth. Outer loops' terms are added first,
        outside."""
        parts = []
        for t, c in a.terms:
            self.value(t)
            parts.append((self.depth_of(t), t, c))
        parts.sort(key=lambda p: p[0])
        total: Expr | None = None
        for _, t, c in parts:
            term = t if c == 1 else Expr("mul", dtypes.int64, 1, (t, index(c)))
            total = term if total is None else Expr("add", dtypes.int64, 1, (total, term))
        if total is None:
            return "", 0
        return self.value(total), self.depth_of(total)

    def alignment(self, a: af.Affine, itemsize: int) -> int:
        """How the address is aligned, in bytes, up to 64: buffers begin at multiples of 64."""
        g = 64
        for t, c in a.terms:
            g = gcd(g, c * self.grain.get(t, 1) * itemsize)
        return gcd(g, a.constant * itemsize)

    def divisor(self, t: Expr) -> int:
        """A number that divides a term of an index."""
        return self.grain.get(t, 1)

    # ---- statements

    def block(self, body: Iterable[Stmt]) -> None:
        for s in body:
            self.debug = self.number(s)
            if isinstance(s, Loop):
                self._loop(s)
            elif isinstance(s, Alloc):
                self.memory.alloc(s)
            elif isinstance(s, Let) and s.name in self.inlined:
                key = Expr("name", s.value.dtype, s.value.lanes, (), s.name)
                self.env, self.env_memo = {**self.env, key: af.substitute(s.value, self.env, self.env_memo)}, {}
            else:
                s = self._here(s)
                if isinstance(s, Let):
                    self._let(s)
                elif isinstance(s, Store):
                    self.memory.store(s)
                elif isinstance(s, Accumulate):
                    self.memory.accumulate(s)
                elif isinstance(s, Check):
                    self._check(s)
                elif isinstance(s, Prefetch):
                    self.memory.prefetch(s)

    def _here(self, s: Stmt) -> Stmt:
        """The statement with the unrolled loops' variables replaced and with machine-level expressions."""
        return map_stmt(s, self._machine)

    def _machine(self, e: Expr) -> Expr:
        return self.lower(af.substitute(e, self.env, self.env_memo)) if self.env else self.lower(e)

    def _let(self, s: Let) -> None:
        operand = self.value(s.value)
        key = Expr("name", s.value.dtype, s.value.lanes, (), s.name)
        # known only in this block: the same name means another value in the next one
        self.values[key] = (operand, self.depth)
        self.scope.keys.append(key)

    def _check(self, s: Check) -> None:
        ok = self.value(s.condition)
        if s.condition.lanes > 1:
            ok = ops.lanes_reduce(self.at(self.depth), "mul", dtypes.bool_, s.condition.lanes, ok)
        if s.message not in self.messages:
            self.messages.append(s.message)
        bad, good = self.fresh("check.failed"), self.fresh("check.passed")
        self.put(f"br i1 {ok}, label %{good}, label %{bad}")
        self.begin_block(bad)
        number = self.messages.index(s.message) + 1
        self.put(f"%{self.fresh('first')} = cmpxchg ptr %status, i64 0, i64 {number} monotonic monotonic")
        self.put(f"br label %{good}")
        self.begin_block(good)

    # ---- loops

    def enter(self, written: frozenset[str], label: str, loop: bool = True) -> None:
        for name in written:
            self.forget(name)
        self.scopes.append(Scope([], label, written, self.scope.scratch, loop=loop))

    def leave(self) -> Scope:
        s = self.scopes.pop()
        for key in s.keys:
            found = self.values.get(key)
            if found is not None and found[1] > self.depth:
                del self.values[key]
                self.volatile.pop(key, None)
        for name in s.allocs:
            for slot in [k for k in self.registers if k[0] == name]:
                del self.registers[slot]
            self.forget(name)
        for slot, (operand, depth) in self.registers.items():
            if depth > self.depth:
                self.registers[slot] = (operand, self.depth)
        for name in s.written:
            self.forget(name)
        return s

    def written(self, body: Sequence[Stmt]) -> frozenset[str]:
        return frozenset(self.group(s.buf.name) for s in walk(tuple(body)) if isinstance(s, (Store, Accumulate)))

    def _loop(self, s: Loop) -> None:
        if s.trips == 0:
            return
        if s.kind == "unroll" or s.trips == 1:
            self._unrolled(s)
        else:
            start, stop = self.nearer(s.start, s.first, "smax"), self.nearer(s.stop, s.limit, "smin")
            self.counted(s, start, stop, self.some(s, start, stop))

    def nearer(self, own: int | str, end: Expr | None, op: str) -> str:
        """The operand at which a loop begins, or ends, if it runs at all."""
        if end is None:
            return str(own)
        value = self.value(self._machine(end))
        self.declare(f"declare i64 @llvm.{op}.i64(i64, i64)")
        return self.at(self.depth)(f"call i64 @llvm.{op}.i64(i64 {own}, i64 {value})")

    def some(self, s: Loop, start: str, stop: str) -> str:
        """Whether a loop runs at all; empty where it always does."""
        first, limit = (
            af.interval(self._machine(e)) if e is not None else (n, n) for e, n in ((s.first, s.start), (s.limit, s.stop))
        )
        always = first is not None and limit is not None and max(s.start, first[1]) < min(s.stop, limit[0])
        return "" if always else self.at(self.depth)(f"icmp slt i64 {start}, {stop}")

    def _unrolled(self, s: Loop) -> None:
        outer_env, outer_memo, written = self.env, self.env_memo, self.written(s.body)
        outer_columns, outer_woven = self.columns, self.woven
        found = self.apart.get(id(s))
        if found is None:
            found = self.apart[id(s)] = strided(s), woven(s, self.group)
        loads, stores = found
        if loads or stores:
            env: dict[Expr, Expr] = {**outer_env, s.var: index(s.start)}
            memo: dict[Expr, Expr] = {}
            self.columns = {**outer_columns, **columns(s, loads, lambda e: af.substitute(e, env, memo))}
            whole = [x for x in stores if x.mask is None or prefix(self.lower(af.substitute(x.mask, env, memo))) is not None]
            at = tuple((x.buf, x.index, None) for x in whole)
            self.woven = {**outer_woven, **columns(s, at, lambda e: af.substitute(e, env, memo))}
        for i in af.iterations(s, self._machine):
            self.env, self.env_memo = {**outer_env, s.var: index(i)}, {}
            self.enter(written, self.scope.label, loop=False)
            self.block(s.body)
            inner = self.leave()
            self.scope.lines += inner.lines
            self.scope.label = inner.label
        self.env, self.env_memo, self.columns, self.woven = outer_env, outer_memo, outer_columns, outer_woven

    def counted(self, s: Loop, start: str, stop: str, some: str = "") -> None:
        """A loop that is tested at its end: it runs at least once, or not at all where `some` is false. `start`, `stop`:
        operands."""
        name, line_number = self.fresh(s.name), self.debug
        label = f"{name}.loop"
        before = self.scope.label
        written = self.written(s.body)
        carried = {slot: operand for slot, (operand, _) in self.registers.items() if self.group(slot[0]) in written}
        self.enter(written, label)
        self.scope.variable = s.name
        self.scope.innermost = not any(isinstance(b, Loop) and b.kind != "unroll" and b.trips > 1 for b in walk(s.body))
        depth = self.depth
        self.values[s.var] = (f"%{name}", depth)
        self.scope.keys.append(s.var)
        self.grain[s.var] = gcd(s.start, s.step)
        phis = {}
        for slot in carried:
            phis[slot] = f"%{self.fresh(f'{slot[0]}.{slot[1]}')}"
            self.registers[slot] = (phis[slot], depth)
        self.block(s.body)
        self.debug = line_number
        latch = self.scope.label
        self.put(f"%{name}.next = add nsw i64 %{name}, {s.step}")
        self.put(f"%{name}.more = icmp slt i64 %{name}.next, {stop}")
        self.put(f"br i1 %{name}.more, label %{label}, label %{name}.end{turns(s.trips)}")
        ends = {slot: self.registers[slot][0] for slot in carried}
        inner = self.leave()
        # invariant code was appended to this scope while the body was written, so the jump into the loop comes last
        self.put(f"br i1 {some}, label %{label}, label %{name}.end" if some else f"br label %{label}")
        self.begin_block(label)
        self.put(f"%{name} = phi i64 [ {start}, %{before} ], [ %{name}.next, %{latch} ]")
        for slot, phi in phis.items():
            t = self.memory.register_type(slot[0])
            self.put(f"{phi} = phi {t} [ {carried[slot]}, %{before} ], [ {ends[slot]}, %{latch} ]")
        self.scope.lines += inner.lines
        self.begin_block(f"{name}.end")
        for slot in carried if some else ():
            left = f"%{self.fresh(f'{slot[0]}.{slot[1]}')}"
            t = self.memory.register_type(slot[0])
            self.put(f"{left} = phi {t} [ {carried[slot]}, %{before} ], [ {ends[slot]}, %{latch} ]")
            self.registers[slot] = (left, self.depth)


def turns(trips: int) -> str:
    """How often a loop turns, as branch weights. Without them the register allocator takes the loop that stands in the most
    others for the hottest, and holds constants of a copy in registers that the products beside it need."""
    return f', !prof !{{!"branch_weights", i32 {max(1, trips - 1)}, i32 1}}'


def _inside(e: Expr) -> tuple[Expr, str] | None:
    """(position, extent as text) of -1 < position & position < extent: one comparison of what has no sign."""
    a, b = e.args
    if not (a.op == b.op == "lt" and a.args[1] is b.args[0] and a.args[0].op == b.args[1].op == "const"):
        return None
    x, low, high = b.args[0], a.args[0].arg, b.args[1]
    if x.dtype.kind != "int" or low != -1 or high.arg < 0:
        return None
    if x.op == "cast" and x.args[0].dtype.kind == "int" and high.arg <= x.args[0].dtype.max:
        x = x.args[0]  # a narrow position is compared as it is
    return x, ops.literal(high.arg, x.dtype, high.lanes)


def _upper(e: Expr) -> Expr | None:
    """Whose upper halves a cast takes: those of x in a cast of x >> 16 to 16 bits."""
    (a,) = e.args
    halves = e.lanes > 1 and a.op == "shr" and a.dtype.kind == e.dtype.kind == "uint" and a.dtype.itemsize == 2 * e.dtype.itemsize
    return a.args[0] if halves and a.args[1].op == "const" and a.args[1].arg == 8 * e.dtype.itemsize else None


def _shifted(e: Expr) -> str:
    """A ramp from a constant: the constant vector itself."""
    t, base = ops.scalar_type(e.dtype), e.args[0].arg
    return "<" + ", ".join(f"{t} {base + e.arg * k}" for k in range(e.lanes)) + ">"
