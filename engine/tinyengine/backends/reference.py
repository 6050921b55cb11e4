"""The reference backend: interprets loop nests with NumPy, checks every access, and can trace every address.

The meaning is sequential. Where the iterations of a loop may run statement by statement (they touch different elements, or only
accumulate, which `ufunc.at` does in order), they run as one more axis of the arrays; otherwise one after the other in Python.
A value at depth d has the shape of the d loop axes around it (extent 1 where it does not depend on one), then its lanes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tinyengine.backends import Times
from tinyengine.dependence import conflicts
from tinyengine.dtypes import uint8
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Check,
    Expr,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Stmt,
    Store,
    kernel_lines,
    load_index,
    load_mask,
    subexprs,
    walk,
)  # fmt: skip
from tinyengine.ops import OPS
from tinyengine.program import Program
from tinyengine.runtime.buffer import Buffer

Array = np.ndarray[Any, Any]
LIMIT = 1 << 20  # elements that one batch of iterations may hold per value
_COMBINE: dict[str, Any] = {"add": np.add, "maximum": np.maximum, "mul": np.multiply}


class AccessError(RuntimeError):
    """A kernel touched memory outside a buffer, or read what it had not written. The message names the kernel's line."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What one access of one statement touched: flat element positions in the order of execution."""

    stmt: Stmt
    buffer: str
    elements: Array
    write: bool


class Tracer(Protocol):
    """What collects accesses: a list, or anything that takes them one by one."""

    def append(self, touched: Touched, /) -> None: ...


@dataclass(slots=True)
class _Memory:
    array: Array  # as memory holds it, see DType
    depth: int = 0
    written: Array | None = None  # for memory that starts undefined


@dataclass
class Interpreter:
    """One kernel on flat NumPy arrays, one per parameter. `trace` collects every access where it is given; `ran` how often each
    statement ran, by its id."""

    kernel: Kernel
    trace: Tracer | None = None
    limit: int = LIMIT
    ran: dict[int, int] | None = None
    _batched: dict[int, bool] = field(default_factory=dict)
    _work: dict[int, int] = field(default_factory=dict)

    def run(self, arrays: Sequence[Array]) -> None:
        self.memory: dict[Buf, _Memory] = {}
        self.memo: dict[Expr, Array] = {}
        # with symbolic sizes what lies beyond them is read, and does not count: no check, but NaN, which would be seen
        self.sized = any(p.within is not None for p in self.kernel.params)
        for p, a in zip(self.kernel.params, arrays, strict=True):
            if a.dtype != p.dtype.numpy or a.size != p.size:
                raise ValueError(f"kernel {self.kernel.name}: {p.name} needs {p.dtype}[{p.size}], got {a.dtype}[{a.size}]")
            self.memory[p] = _Memory(a.reshape(-1))
        self.values: dict[str, tuple[Array, int]] = {}
        with np.errstate(all="ignore"):
            self.block(self.kernel.body, ())

    # -- statements

    def block(self, body: tuple[Stmt, ...], axes: tuple[int, ...]) -> None:
        for s in body:
            if isinstance(s, Loop):
                self.loop(s, axes)
                continue
            self.stmt, self.axes = s, axes
            self.memo = {}
            if self.ran is not None:
                self.ran[id(s)] = self.ran.get(id(s), 0) + int(np.prod(axes, dtype=np.int64))
            if isinstance(s, Let):
                self.values[s.name] = (self.eval(s.value), len(axes))
            elif isinstance(s, Store):
                self.store(s)
            elif isinstance(s, Accumulate):
                self.accumulate(s)
            elif isinstance(s, Alloc):
                n = s.buf.size * int(np.prod(axes, dtype=np.int64))
                first = s.init if s.init is not None else np.nan if self.sized and s.buf.dtype.is_float else 0
                start = np.array(s.buf.dtype.encode(np.full(n, first, s.buf.dtype.values)))
                checked = s.init is None and not self.sized
                self.memory[s.buf] = _Memory(start, len(axes), np.zeros(n, bool) if checked else None)
            elif isinstance(s, Check):
                if not np.all(self.eval(s.condition)):
                    raise IndexError(s.message)
            else:
                assert isinstance(s, Prefetch), s

    def loop(self, s: Loop, axes: tuple[int, ...]) -> None:
        values = np.arange(s.start, s.stop, s.step, dtype=np.int64)
        depth = len(axes)
        if s.ends and s.trips > 1:
            self.axes, self.memo = axes, {}
            if s.limit is not None:
                (last,) = set(self.eval(s.limit).reshape(-1).tolist())
                values = values[values < last]
            if s.first is not None:
                (first,) = set(self.eval(s.first).reshape(-1).tolist())
                values = values[values >= first]
        if not self.batches(s):
            for v in values:
                self.values[s.name] = (np.full((1,) * (depth + 1), v), depth)
                self.block(s.body, axes)
            return
        work = int(np.prod(axes, dtype=np.int64)) * self.work(s)
        chunk = max(1, self.limit // max(1, work))
        for i in range(0, len(values), chunk):
            part = values[i : i + chunk]
            self.values[s.name] = (part.reshape((1,) * depth + (len(part), 1)), depth + 1)
            self.block(s.body, (*axes, len(part)))

    def batches(self, s: Loop) -> bool:
        """Whether each statement may run for all iterations before the next statement does."""
        found = self._batched.get(id(s))
        if found is None:
            # one accumulation meeting itself keeps its order; a store meeting itself keeps the last value
            own = list(conflicts(s))
            found = all(a is b and a.op != "read" for a, b in own)
            ends = [e for b in walk(s.body) if isinstance(b, Loop) for e in b.ends]
            found = found and not any(s.var in subexprs(e) for e in ends)
            if own and found:  # and only if no loop inside would run as the outer one
                found = all(self.batches(b) for b in walk(s.body) if isinstance(b, Loop))
            self._batched[id(s)] = found
        return found

    def work(self, s: Loop) -> int:
        """The most elements that one iteration holds at once for one value."""
        found = self._work.get(id(s))
        if found is None:
            found = 1
            for b in s.body:
                if isinstance(b, Loop):
                    found = max(found, b.trips * self.work(b))
                elif isinstance(b, Alloc):
                    found = max(found, b.buf.size)
                elif isinstance(b, (Let, Store, Accumulate)):
                    found = max(found, b.value.lanes)
            self._work[id(s)] = found
        return found

    def flat(self, buf: Buf, at: tuple[Expr, ...], mask: Array | None) -> Array:
        """Element positions in the memory of `buf`, checked; those under a false mask are 0."""
        depth = len(self.axes)
        out: Array = np.zeros((1,) * (depth + 1), np.int64)
        for axis, (e, extent, stride) in enumerate(zip(at, buf.shape, buf.strides, strict=True)):
            idx = self.eval(e)
            low, high = int(idx.min()), int(idx.max())
            if low < 0 or high >= extent:
                bad = (idx < 0) | (idx >= extent)
                if mask is None or np.any(bad & mask):
                    self.fail(f"index {low}..{high} on axis {axis} of {buf.name}, which has extent {extent}")
            out = out + idx * stride
        return out if mask is None else np.where(mask, out, 0)

    def private(self, m: _Memory, buf: Buf, flat: Array) -> Array:
        """Positions in the copy that belongs to the iteration."""
        if m.depth == 0:
            return flat
        own = self.axes[: m.depth]
        number = np.arange(int(np.prod(own, dtype=np.int64))).reshape(own + (1,) * (len(self.axes) - m.depth + 1))
        return flat + number * buf.size

    def fail(self, what: str) -> None:
        lines = kernel_lines(self.kernel)
        where = next((f"line {i}: {text.strip()}" for i, (text, s) in enumerate(lines) if s is self.stmt), "")
        raise AccessError(f"kernel {self.kernel.name}, {where}: {what}")

    def touch(self, buf: Buf, flat: Array, mask: Array | None, write: bool) -> None:
        if self.trace is None:
            return
        lanes = max(flat.shape[-1], 1 if mask is None else mask.shape[-1])
        full = (*self.axes, lanes)
        elements = np.broadcast_to(flat, full).reshape(-1)
        if mask is not None:
            elements = elements[np.broadcast_to(mask, full).reshape(-1)]
        self.trace.append(Touched(self.stmt, buf.name, elements.copy(), write))

    def target(self, s: Store | Accumulate) -> tuple[_Memory, Array, Array]:
        """Memory, positions and values of a write, both in the order of execution."""
        value = self.eval(s.value)
        mask = self.eval(s.mask) if s.mask is not None else None
        flat = self.flat(s.buf, s.index, mask)
        m = self.memory[s.buf]
        if s.buf.space == "global":
            self.touch(s.buf, flat, mask, True)
        full = (*self.axes, max(flat.shape[-1], value.shape[-1]))
        flat = np.broadcast_to(self.private(m, s.buf, flat), full).reshape(-1)
        value = np.broadcast_to(value, full).reshape(-1)
        if mask is not None:
            keep = np.broadcast_to(mask, full).reshape(-1)
            flat, value = flat[keep], value[keep]
        return m, flat, value

    def store(self, s: Store) -> None:
        m, flat, value = self.target(s)
        m.array[flat] = s.buf.dtype.encode(value)
        if m.written is not None:
            m.written[flat] = True

    def accumulate(self, s: Accumulate) -> None:
        m, flat, value = self.target(s)
        if m.written is not None and not m.written[flat].all():
            self.fail(f"{s.buf.name} is accumulated into before it is written")
        if s.buf.dtype.layout is not None:
            self.fail(f"{s.buf.name} is {s.buf.dtype}: totals are held in float32")
        _COMBINE[s.op].at(m.array, flat, value)

    # -- expressions

    def eval(self, e: Expr) -> Array:
        found = self.memo.get(e)
        if found is None:
            found = self.memo[e] = self._eval(e)
        return found

    def _eval(self, e: Expr) -> Array:
        depth, op = len(self.axes), e.op
        if op == "const":
            return e.dtype.convert(np.full((1,) * (depth + 1), e.arg, e.dtype.values))
        if op in ("var", "name"):
            value, d = self.values[e.arg[0] if op == "var" else e.arg]
            return value.reshape(value.shape[:d] + (1,) * (depth - d) + value.shape[d:]) if d < depth else value
        if op == "load":
            return self.load(e)
        a = [self.eval(x) for x in e.args]
        if op == "ramp":
            ramp: Array = a[0] + np.arange(e.lanes, dtype=np.int64) * e.arg
            return ramp
        if op == "splat":
            return a[0]
        if op == "lanes_reduce":
            whole = np.broadcast_to(a[0], (*a[0].shape[:-1], e.args[0].lanes))
            out: Array = _COMBINE[e.arg].reduce(whole, axis=-1, keepdims=True, dtype=e.dtype.numpy)
            return out
        if op == "lanes_scan":
            whole = np.broadcast_to(a[0], (*a[0].shape[:-1], e.lanes))
            totals: Array = _COMBINE[e.arg].accumulate(whole, axis=-1, dtype=e.dtype.numpy)
            return totals
        if op == "lane":
            one: Array = a[0][..., e.arg : e.arg + 1] if a[0].shape[-1] > 1 else a[0]
            return one
        if op == "cast":
            return e.dtype.convert(a[0])
        if op == "bitcast":
            return e.dtype.decode(np.ascontiguousarray(e.args[0].dtype.encode(a[0])).view(e.dtype.numpy))
        f = OPS[op].numpy
        assert f is not None, op
        result: Array = np.asarray(f(*a))
        return e.dtype.convert(result)

    def load(self, e: Expr) -> Array:
        buf: Buf = e.arg
        m = self.memory.get(buf)
        if m is None:
            self.fail(f"{buf.name} is not memory of this kernel")
            raise AssertionError
        guard = load_mask(e)
        mask = self.eval(guard) if guard is not None else None
        flat = self.flat(buf, load_index(e), mask)
        if buf.space == "global" and buf.within is None:
            self.touch(buf, flat, mask, False)
        flat = self.private(m, buf, flat)
        if m.written is not None:
            ok = m.written[flat]
            if not (ok.all() if mask is None else (ok | ~mask).all()):
                self.fail(f"{buf.name} is read before it is written")
        value = e.dtype.decode(m.array[flat])
        return value if mask is None else np.where(mask, value, np.zeros((), value.dtype))


def interpret(kernel: Kernel, buffers: Mapping[str, Array]) -> None:
    """Run one kernel; `buffers`: a contiguous array per parameter, written in place."""
    Interpreter(kernel).run([buffers[p.name].reshape(-1) for p in kernel.params])


def trace(kernel: Kernel, buffers: Mapping[str, Array]) -> list[Touched]:
    """Run one kernel and return every access to global memory: per statement and buffer the flat positions in the order of
    execution (a loop that ran one iteration at a time in Python gives one entry per iteration)."""
    out: list[Touched] = []
    Interpreter(kernel, out).run([buffers[p.name].reshape(-1) for p in kernel.params])
    return out


@dataclass
class ReferenceExecutable:
    program: Program

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        p = self.program
        if len(buffers) != p.given:
            raise ValueError(f"program {p.name} takes {p.given} buffers, got {len(buffers)}")
        arena = Buffer(p.arena_bytes, uint8)
        slots = [b.array for b in buffers]
        slots += [arena.array[s.offset : s.offset + s.nbytes].view(s.dtype.numpy) for s in p.slots[p.given :]]
        began, starts, seconds = time.perf_counter(), [], []
        for call in p.calls:
            t = time.perf_counter()
            Interpreter(call.kernel).run([slots[i] for i in call.slots])
            starts.append(t - began)
            seconds.append(time.perf_counter() - t)
        return Times(tuple(starts), tuple(seconds)) if clocks else None

    def source(self, call: int) -> str:
        """The loop nest itself: it is what this backend runs."""
        return self.program.calls[call].kernel.text()

    def assembly(self, call: int) -> str:
        return ""


class ReferenceBackend:
    """Slow, and right: the oracle for addresses and schedules."""

    name = "reference"

    def available(self) -> str:
        return ""

    def compile(self, program: Program) -> ReferenceExecutable:
        return ReferenceExecutable(program)
