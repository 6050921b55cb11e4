"""How long will a kernel take? A prediction from its loop nest and the machine's peaks, without running it.

Two bounds are computed, and the larger one holds. Core: cycles of the arithmetic, load and store units along the loop tree, where
loop-invariant work counts once, and the latency of accumulators that wait for themselves. Memory: the bytes that each cache level
must fetch, found by asking at which loop the data of one iteration still fits, over the bandwidth of the next level. Before both
comes the launch: a call, and the first lines of code and buffers.

How far off it is, as a factor up or down (MODEL_ERROR), was measured in November 2026 on one thread of a Zen 4 server, medians of
25 runs (the lesser of two recordings) against predictions by that machine's measured peaks, on 37 kernels that were not looked at
while the model was made (elementwise, reductions over each axis, products, gathers, scans, permutations; a small MLP in training,
a recurrent cell): half lie within a factor of 1.3, 35 of 37 within 2 (quartiles of the runs, less 40 ns for reading the clock,
against the band). The first runs of a program, whose code and memory are cold, take longer, and so does sharing the cores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from tinyengine.dtypes import DType
from tinyengine.footprint import LANE, accesses, positional, runs, steps
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Stmt,
    Store,
    load_index,
    name,
    stmt_exprs,
    subexprs,
    walk,
)
from tinyengine.machine import Machine
from tinyengine.ops import OPS
from tinyengine.stages.arithmetic.affine import NEAR, shared
from tinyengine.stages.schedules.cost import conflict
from tinyengine.traffic import LINE, Moved, Traffic

UNITS = 2  # arithmetic units of a core for vectors, and load ports
LATENCY = {"add": 4, "mul": 4, "maximum": 6}  # cycles until a register accumulator may be used again
WHOLE = 720_720  # a multiple of all that lanes may share
MEMORY_LATENCY = 10  # the same through memory
WINDOW = 256.0  # instructions that a core looks ahead: so many iterations of an outer loop overlap their chains
FIRST = {"L2": 4e-9, "L3": 15e-9, "memory": 100e-9}  # seconds until the first line of a buffer, or the next of code, is there
CALLED = 3  # lines that any call needs: the step, the stack, the function's first
INSTRUCTION_BYTES = 7
SCATTERED = {"L2": 1e-9, "L3": 4e-9, "memory": 10e-9}  # seconds per line on one core without a prefetcher; misses overlap
LOOP_CYCLES, LOOP_START = 0.5, 4.0  # the loop's own, per iteration and once
SLOW = {"div": 10, "reciprocal": 10, "sqrt": 12, "floordiv": 12, "mod": 12}  # issue slots of what has one slow instruction
SHARED_CYCLES = 8000.0  # less work than this stays on one thread (runtime/native.py)
ALONE = 0.1  # launching a kernel on one thread, beside one that all threads join
MODEL_ERROR = 1.0  # measured and predicted lie within a factor of 1 + this (see above), beside the spread of the peaks


# ---- instructions


@cache
def instructions(op: str, dtype: DType, scales: bool = False) -> int:
    """Issue slots of one elementwise op on one vector, after the engine's own expansion (exp, tanh... become polynomials).
    `scales`: the machine multiplies vectors by powers of two in one instruction."""
    if op in SLOW and not (dtype.is_float and op in ("floordiv", "mod")):  # those of floats are expanded too
        return SLOW[op]
    row = OPS[op]
    if row.flops == 0:  # bitcast is free; const and var are no ops
        return int(op == "cast")
    from tinyengine.dtypes import bool_
    from tinyengine.stages.arithmetic import expand

    lanes = 16 if scales else 1
    operands = tuple(name(f"{op}{k}", bool_ if op == "where" and k == 0 else dtype, lanes) for k in range(row.arity))
    e = Expr(op, bool_ if op in ("lt", "eq") else dtype, lanes, operands)
    return sum(SLOW.get(x.op, 1) for x in subexprs(expand.expander(scales)(e)) if x.args and x.op not in ("splat", "bitcast"))


# ---- the core


@dataclass(slots=True)
class Level:
    """A serial or parallel loop (None: the kernel). Unrolled loops are no levels: their copies count in the level around them.
    `copies`: how often unrolled loops repeat this one. alu, load, store: issue slots per iteration; `chains`: cycles per
    iteration that accumulations into one element wait for each other, by buffer; `fresh`: those that begin anew, in each
    iteration (True) or whenever the loop does (False), so that what follows need not wait for them."""

    loop: Loop | None
    copies: float = 1.0
    trips: float = 1.0  # on average, where its ends depend on outer loops
    children: list[Level] = field(default_factory=list)
    alu: float = 0.0
    load: float = 0.0
    store: float = 0.0
    chains: dict[str, float] = field(default_factory=dict)
    fresh: dict[str, bool] = field(default_factory=dict)

    def slots(self) -> float:
        """Instructions of one iteration, inner loops included; two are the loop's own."""
        return self.alu + self.load + self.store + 2 + sum(c.copies * c.trips * c.slots() for c in self.children)

    def wait(self, buf: str) -> float:
        """Cycles per iteration of the chain through `buf`, as many chains as the core looks ahead to running side by side."""
        each = self.fresh.get(buf)
        runs = 1.0 if each is None else WINDOW / (self.slots() * (1.0 if each else max(1.0, self.trips)))
        return self.chains[buf] / max(1.0, runs)

    def code(self) -> float:
        """Instructions of the program text."""
        return self.alu + self.load + self.store + 2 + sum(c.copies * c.code() for c in self.children)

    def cycles(self) -> float:
        """Of all iterations, on one core. While a chain waits, the loop's own instructions run."""
        inner = sum(c.cycles() for c in self.children)
        once = max(self.alu / UNITS, self.load / UNITS, self.store) + inner
        waits = max(map(self.wait, self.chains), default=0.0)
        if self.loop is None:
            return max(once, waits)
        return self.copies * max(LOOP_START + self.trips * (once + LOOP_CYCLES), self.trips * waits)


@dataclass(slots=True)
class Core:
    """`root`: the loop tree with its slots; `by_stmt`: cycles per statement (by id), all iterations, as if nothing overlapped."""

    root: Level
    by_stmt: dict[int, float]


class _Counter:
    def __init__(self, kernel: Kernel, machine: Machine) -> None:
        self.unit_bytes = machine.unit_bytes
        self.scales = machine.target == "x86_64" and machine.vector_bytes == 64
        self.allocated: dict[str, int] = {}  # register buffer -> level where it is set
        self.levels: list[Level] = [Level(None)]
        self.names: dict[str, int] = {}  # loop variable -> level (for an unrolled loop: the level it stands in)
        self.unrolled: dict[str, Loop] = {}  # the open unrolled loops by name
        self.deps: dict[str, frozenset[str]] = {}  # let -> loop variables it changes with
        self.written: dict[str, frozenset[str]] = {}  # buffer -> loops around every write to it
        self.seen: list[set[Expr]] = [set()]
        self.by_stmt: dict[int, float] = {}
        lets = {s.name: s.value for s in walk(kernel.body) if isinstance(s, Let)}
        # a product that is only accumulated is one instruction with the sum
        sums = {s.value for s in walk(kernel.body) if isinstance(s, Accumulate) and s.op == "add"}
        self.fused = {s for s in sums if s.op == "mul"}
        self.fused |= {lets[s.arg] for s in sums if s.op == "name" and s.arg in lets and lets[s.arg].op == "mul"}
        self._writes(kernel.body, frozenset())

    def _writes(self, body: Iterable[Stmt], around: frozenset[str]) -> None:
        for s in body:
            if isinstance(s, Loop):
                self._writes(s.body, around | {s.name})
            elif isinstance(s, (Store, Accumulate)):
                self.written[s.buf.name] = self.written.get(s.buf.name, around) | around

    def block(self, body: Iterable[Stmt]) -> None:
        for s in body:
            if isinstance(s, Loop):
                self.loop(s)
            else:
                self.statement(s)

    def loop(self, s: Loop) -> None:
        if s.kind == "unroll" or s.trips == 1:  # neither is left of the compiled loop
            self.names[s.name], self.unrolled[s.name] = len(self.levels) - 1, s
            self.block(s.body)
            del self.unrolled[s.name], self.names[s.name]
            return
        trips = self.trips(s, [l.loop for l in self.levels if l.loop is not None])
        level = Level(s, self.copies(frozenset(self.unrolled), len(self.levels) - 1), trips)
        self.levels[-1].children.append(level)
        self.levels.append(level)
        self.seen.append(set())
        self.names[s.name] = len(self.levels) - 1
        self.block(s.body)
        del self.names[s.name]
        self.levels.pop()
        self.seen.pop()

    def trips(self, s: Loop, around: Iterable[Loop]) -> float:
        """On average over the iterations of the loops around on which its ends depend."""
        around = tuple(around)
        return runs((*around, s)) / max(1, runs(around)) if s.ends else s.trips

    def copies(self, deps: frozenset[str], level: int) -> float:
        n, around = 1.0, list[Loop]()
        for v, s in self.unrolled.items():
            if v in deps and self.names[v] >= level:
                n *= self.trips(s, around)
            around.append(s)
        return n

    def vectors(self, lanes: int, dtype: DType) -> int:
        """Issue slots of one operation on so many lanes."""
        return max(1, -(-lanes * dtype.itemsize // self.unit_bytes))

    def dependence(self, e: Expr) -> frozenset[str]:
        """The open loops whose variable `e` changes with."""
        out: set[str] = set()
        for x in subexprs(e):
            if x.op == "var":
                out.add(x.arg[0])
            elif x.op == "name":
                out |= self.deps.get(x.arg, frozenset())
            elif x.op == "load":
                out |= self.written.get(x.arg.name, frozenset())
        return frozenset(out & self.names.keys())

    def home(self, deps: frozenset[str]) -> int:
        return max((self.names[v] for v in deps if v not in self.unrolled), default=0)

    def charge(self, s: Stmt, unit: str, slots: float, deps: frozenset[str]) -> None:
        """`slots` of a unit for what changes with `deps`, in the level where it must be computed."""
        at = self.home(deps)
        level, n = self.levels[at], self.copies(deps, at)
        setattr(level, unit, getattr(level, unit) + slots * n)
        times = n
        for l in self.levels[1 : at + 1]:
            times *= l.copies * l.trips
        per_cycle = 1 if unit == "store" else UNITS
        self.by_stmt[id(s)] = self.by_stmt.get(id(s), 0.0) + slots * times / per_cycle

    def statement(self, s: Stmt) -> None:
        if isinstance(s, Alloc):
            self.allocated[s.buf.name] = len(self.levels) - 1
        if isinstance(s, (Alloc, Prefetch)):
            return
        if isinstance(s, Let):
            self.deps[s.name] = self.dependence(s.value)
        known: set[int] = set()
        for e in stmt_exprs(s):
            for x in subexprs(e, known):
                self.expression(s, x)
        if isinstance(s, (Store, Accumulate)):
            everywhere = frozenset(self.names)
            n = self.vectors(s.value.lanes, s.buf.dtype)
            if isinstance(s, Accumulate):
                self.charge(s, "alu", n, everywhere)
                self.chain(s)
            if s.buf.space != "register":
                moves = self.moves(s.buf, s.index, s.value.lanes)
                self.charge(s, "store", moves, everywhere)
                if isinstance(s, Accumulate):
                    self.charge(s, "load", moves, everywhere)

    def expression(self, s: Stmt, e: Expr) -> None:
        if not e.args or e.op in ("ramp", "splat") or e in self.fused:
            return
        if e.op == "load":
            if e.arg.space == "register":
                return
        elif positional(e):
            return
        deps = self.dependence(e)
        at = self.home(deps)
        if e in self.seen[at]:
            return
        self.seen[at].add(e)
        if e.op == "load":
            moves = self.moves(e.arg, load_index(e), e.lanes)
            self.charge(s, "load", moves, deps)
            if moves > self.vectors(e.lanes, e.dtype):  # what came one by one, or in wider pieces, is put together
                self.charge(s, "alu", min(moves, e.lanes), deps)
        elif e.op == "lanes_scan":
            self.charge(s, "alu", 2.0 * (e.lanes.bit_length() - 1) * self.vectors(e.lanes, e.dtype), deps)
        elif e.op == "lane":
            self.charge(s, "alu", 1.0, deps)
        elif e.op == "lanes_reduce":
            self.charge(s, "alu", 2.0 * e.args[0].lanes.bit_length(), deps)
        else:
            widest = max([e.dtype, *(a.dtype for a in e.args)], key=lambda d: d.itemsize)
            self.charge(s, "alu", instructions(e.op, widest, self.scales and e.lanes > 1) * self.vectors(e.lanes, widest), deps)

    def moves(self, buf: Buf, at: tuple[Expr, ...], lanes: int) -> float:
        """Issue slots of a load or a store: whole vectors where lanes are neighbours or lie near each other, else one by one.
        Lanes that lie whole pages apart are in each other's way (`stages.schedules.cost.conflict`)."""
        n, stride = self.vectors(lanes, buf.dtype), lane_stride(buf, at) if lanes > 1 else 0
        if stride is None:  # loops of vectors step by what their lanes share
            return n if shared(at, buf.strides, lambda _: WHOLE) is not None else lanes
        if abs(stride) <= NEAR:
            return min(lanes, n * max(1, abs(stride)))
        return lanes * conflict(stride * buf.dtype.itemsize, lanes)

    def chain(self, s: Accumulate) -> None:
        """An accumulation waits for the one before it into the same element, when the loop does not change the element."""
        deps = frozenset().union(*(self.dependence(i) for i in s.index)) if s.index else frozenset()
        level = self.levels[-1]
        if level.loop is None or level.loop.name in deps:
            return
        latency = LATENCY.get(s.op, 4) if s.buf.space == "register" else MEMORY_LATENCY
        repeats = self.copies(frozenset(self.unrolled) - deps, len(self.levels) - 1)
        since = len(self.levels) - 1 - self.allocated.get(s.buf.name, 0)  # levels
        if s.buf.space == "register" and since < 2:
            level.fresh[s.buf.name] = since == 0
        level.chains[s.buf.name] = level.chains.get(s.buf.name, 0.0) + latency * repeats


def lane_stride(buf: Buf, at: tuple[Expr, ...]) -> int | None:
    """Elements between neighbouring lanes; None where that varies."""
    total = 0
    for e, stride in zip(at, buf.strides, strict=True):
        found = steps(e)
        if found is None:
            return None
        total += found.get(LANE, 0) * stride
    return total


def core(kernel: Kernel, machine: Machine) -> Core:
    c = _Counter(kernel, machine)
    c.block(kernel.body)
    return Core(c.levels[0], c.by_stmt)


# ---- the whole


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds, one bound per limit, and what the largest one is: 'compute', 'L2', 'L3', 'memory' or 'launch'. `error`: the time
    that will be measured lies between seconds / (1 + error) and seconds * (1 + error), in about 9 of 10 cases."""

    seconds: float
    limits: dict[str, float]
    bound: str
    cores: float
    error: float


def predict(
    kernel: Kernel, machine: Machine, program_bytes: int = 0, counted: Core | None = None, since: Mapping[str, int] | None = None
) -> Time:
    """The predicted time of one launch. `program_bytes`: memory of the program around it, which tells what stays in cache between
    kernels (default: the kernel's own buffers); `since`: for each parameter the bytes that kernels have touched since they last
    touched it (default: the whole program's)."""
    counted = counted or core(kernel, machine)
    found = accesses(kernel)
    p = kernel.parallel
    busy, cycles = 1.0, counted.root.cycles()
    if p is not None and p.trips > 0 and cycles >= SHARED_CYCLES:
        busy = p.trips / -(-p.trips // machine.cores)  # the last round may leave cores idle
    share = (busy - 1) / max(1, machine.cores - 1)

    def rate(level: str) -> float:
        return machine.read[level] + (machine.read_all[level] - machine.read[level]) * share

    own = sum(b.nbytes for b in kernel.params)
    resident = max(program_bytes, own)
    writes = {a.buf for a in found if a.write and a.buf.space == "global"}
    written = sum(b.nbytes for b in writes)
    write_share = written / max(1, own)
    streamed = any(isinstance(s, Store) and s.hint == "stream" for s in walk(kernel.body))
    limits = {"compute": cycles / machine.clock / busy}
    traffic = Traffic(kernel, found)

    def beyond(capacity: int) -> Moved:
        """What a cache fetches: of a kernel that fits, the buffers that others have pushed out."""
        if since is None or own > capacity:
            return traffic.at(capacity)
        return Traffic(kernel, [a for a in found if since.get(a.buf.name, 0) > capacity]).at(capacity)

    def seconds_of(moved: Moved, level: str, rate: float) -> float:
        return max(moved.nbytes / rate, moved.scattered * SCATTERED[level] / busy)

    limits["L2"] = seconds_of(traffic.at(machine.l1_bytes), "L2", rate("l2"))
    if resident > machine.l2_bytes:
        limits["L3"] = seconds_of(beyond(machine.l2_bytes), "L3", rate("l3"))
    if resident > machine.l3_bytes:
        read, write = rate("dram"), machine.stream_all if streamed else machine.write_all
        mixed = 1 / ((1 - write_share) / read + write_share / (write * read / machine.read_all["dram"]))
        limits["memory"] = seconds_of(beyond(machine.l3_bytes), "memory", mixed)
    work = max(limits.values())
    far = "memory" if resident > machine.l3_bytes else "L3" if resident > machine.l2_bytes else "L2"
    limits["launch"] = machine.launch_seconds * (1.0 if busy > 1 else ALONE)
    if program_bytes > machine.l1_bytes:  # other kernels have used the first cache since
        code = counted.root.code() * INSTRUCTION_BYTES / LINE
        limits["launch"] += (CALLED + len(kernel.params) + code) * FIRST[far]
    bound = max(limits, key=lambda k: limits[k])
    seconds = limits["launch"] + work
    dynamic = any(a.dynamic for a in found)
    return Time(seconds, limits, bound, busy, error(machine, dynamic))


def error(machine: Machine, dynamic: bool = False) -> float:
    """The band of a predicted time, see `Time`; `dynamic`: it depends on addresses that come from data."""
    return float((machine.spread**2 + MODEL_ERROR**2 + (0.5**2 if dynamic else 0.0)) ** 0.5)


def band(seconds: float, error: float) -> tuple[float, float]:
    """The least and the most seconds that a predicted time with this error stands for, see `Time`."""
    return seconds / (1 + error), seconds * (1 + error)
