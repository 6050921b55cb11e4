"""What a kernel must compute, from its loop nest before scheduling: by the interpreter, in double precision; of a large kernel
some iterations only, or all of them compiled as plain loops.

Double precision, because a sum in float32 depends on its order, and a schedule may change the order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyengine import backends
from tinyengine.backends.reference import Interpreter, Touched
from tinyengine.dependence import carried
from tinyengine.dtypes import DType, float64
from tinyengine.loopnest import Accumulate, Alloc, Buf, Expr, Kernel, Loop, Stmt, Store, map_stmt, walk
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer

Array = np.ndarray[Any, Any]
INTERPRETED = 300_000  # statements that the interpreter runs for one answer
SAMPLES = 3  # iterations of a loop that stand for all of them: first, middle, last
TOLERANCE = {8: 1e-9, 4: 1e-4, 2: 2e-2, 1: 0.25}  # relative, by bytes of a float


@dataclass(frozen=True)
class Answer:
    """`values`: what each output must hold, flat; `known`: which of its elements are known; `how`: in words."""

    values: dict[str, Array]
    known: dict[str, Array]
    how: str


def answer(kernel: Kernel, given: Mapping[str, Array], backend: str) -> Answer:
    """The reference for one launch on `given`: flat arrays of values by parameter, which stay as they are."""
    asked, how = kernel, "the reference interpreter"
    if work(kernel.body) > INTERPRETED:
        asked = sample(kernel)
        how = "the reference interpreter, on some of the iterations"
    exact = wide(asked) or asked
    arrays = {p.name: np.array(p.dtype.encode(given[p.name])) for p in exact.params}  # as memory
    if work(asked.body) <= INTERPRETED:
        run = _Writes(exact)
        run.run([arrays[p.name] for p in exact.params])
        known = {name: run.known.get(name, np.zeros(arrays[name].size, bool)) for name in kernel.outputs}
        types = {p.name: p.dtype for p in exact.params}
        return Answer({name: types[name].decode(arrays[name]) for name in kernel.outputs}, known, how)
    exact = wide(kernel) or kernel
    arrays = {p.name: np.array(p.dtype.convert(given[p.name])) for p in exact.params}
    compute(exact, arrays, backend)
    every = {name: np.ones(arrays[name].size, bool) for name in kernel.outputs}
    return Answer({name: arrays[name] for name in kernel.outputs}, every, "plain loops in double precision")


class _Writes(Interpreter):
    """An interpreter that remembers which elements of global memory were written."""

    def run(self, arrays: Any) -> None:
        self.known: dict[str, Array] = {}
        self.written: list[Touched] = []
        self.trace = self.written  # asks `touch` to be called
        super().run(arrays)

    def touch(self, buf: Buf, flat: Array, mask: Array | None, write: bool) -> None:
        if write:
            super().touch(buf, flat, mask, write)
            self.known.setdefault(buf.name, np.zeros(buf.size, bool))[self.written.pop().elements] = True


def compute(kernel: Kernel, arrays: Mapping[str, Array], backend: str) -> None:
    """Compile one kernel and run it once on flat arrays of values, which it updates."""
    roles = ["state" if p.name in kernel.outputs else "input" for p in kernel.params]
    slots = tuple(Slot(p.name, p.dtype, p.shape, role) for p, role in zip(kernel.params, roles, strict=True))
    memory = [Buffer.of(arrays[p.name], p.dtype, p.name) for p in kernel.params]
    backends.get(backend).compile(Program(kernel.name, slots, (Call(kernel, tuple(range(len(slots)))),), 0)).run(memory)
    for p, b in zip(kernel.params, memory, strict=True):
        if p.name in kernel.outputs:
            arrays[p.name][:] = b.values


def work(body: tuple[Stmt, ...]) -> int:
    """How often statements run."""
    return sum(s.trips * max(1, work(s.body)) if isinstance(s, Loop) else 1 for s in body)


def sample(kernel: Kernel) -> Kernel:
    """The same kernel with a few iterations of the loops of its outermost chain, where they are independent."""
    top = [s for s in kernel.body if isinstance(s, Loop)]
    if len(top) != 1 or any(isinstance(s, Alloc) for s in kernel.body):
        return kernel

    def cut(s: Stmt) -> tuple[Stmt, ...]:
        if not isinstance(s, Loop) or s.reduce or carried(s):
            return (s,)
        inner = [b for b in s.body if isinstance(b, Loop)]
        if len(inner) == 1 and not any(isinstance(b, Alloc) for b in s.body):
            s = replace(s, body=tuple(x for b in s.body for x in cut(b)))
        if s.trips <= SAMPLES:
            return (s,)
        starts = [s.start + s.step * (k * (s.trips - 1) // (SAMPLES - 1)) for k in range(SAMPLES)]
        return tuple(replace(s, start=a, stop=a + s.step) for a in starts)

    return replace(kernel, body=tuple(x for s in kernel.body for x in cut(s)))


def wide(kernel: Kernel) -> Kernel | None:
    """The same kernel with double precision in place of every other float; None where it looks at the bits of a float."""

    def dtype(d: DType) -> DType:
        return float64 if d.is_float else d

    def buf(b: Buf) -> Buf:
        return replace(b, dtype=dtype(b.dtype))

    memo: dict[Expr, Expr] = {}

    def expr(e: Expr) -> Expr:
        if e not in memo:
            if e.op == "bitcast" and (e.dtype.is_float or e.args[0].dtype.is_float):
                raise TypeError(e.op)
            arg = buf(e.arg) if e.op == "load" else e.arg
            memo[e] = Expr(e.op, dtype(e.dtype), e.lanes, tuple(map(expr, e.args)), arg)
        return memo[e]

    def stmt(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(stmt, s.body)))
        if isinstance(s, Alloc):
            return replace(s, buf=buf(s.buf))
        s = map_stmt(s, expr)
        return replace(s, buf=buf(s.buf)) if isinstance(s, (Store, Accumulate)) else s

    if not any(s.dtype.is_float for s in _bufs(kernel)):
        return None
    try:
        return replace(kernel, params=tuple(map(buf, kernel.params)), body=tuple(map(stmt, kernel.body)))
    except TypeError:
        return None


def _bufs(kernel: Kernel) -> list[Buf]:
    return [*kernel.params, *(s.buf for s in walk(kernel.body) if isinstance(s, Alloc))]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error`: largest difference from the reference, relative to its largest value; `wrong`: in words, "" when right."""

    error: float
    wrong: str


def compare(kernel: Kernel, got: Mapping[str, Array], want: Answer, default: Mapping[str, Array]) -> Verdict:
    """Whether `got` is the answer within the tolerance of its dtype. `default` is what the engine's own schedule gives: where it
    comes to the very same element (a NaN, an overflow, a tie that rounding decides) or is as far off, that is no fault."""
    worst, wrong = 0.0, ""
    for p in kernel.params:
        if p.name not in kernel.outputs:
            continue
        known = want.known[p.name]
        a, d = got[p.name][known], default[p.name][known]
        w = want.values[p.name][known]
        with np.errstate(all="ignore"):
            same = (a == d) | ((a != a) & (d != d))
            if p.dtype.is_float:
                finite = np.abs(w[np.isfinite(w)])
                scale = float(finite.max(initial=0.0)) or 1.0
                off, own = np.abs(a.astype(np.float64) - w), np.abs(d.astype(np.float64) - w)
                own = own[np.isfinite(own)]
                slack = max(0.1 * TOLERANCE[p.dtype.itemsize] * scale, 4 * float(own.max(initial=0.0)))
                right = same | (off <= TOLERANCE[p.dtype.itemsize] * np.abs(w) + slack) | ((a != a) & (w != w)) | (a == w)
                seen = off[np.isfinite(off)]
                worst = max(worst, float(seen.max(initial=0.0)) / scale)
            else:
                right = same | (a == w)
        if not right.all() and not wrong:
            at = int(np.flatnonzero(~right)[0])
            wrong = (
                f"{int((~right).sum())} of {right.size} elements of {p.name} differ from {want.how}:"
                f" element {int(np.flatnonzero(known)[at])} is {a[at]!s}, expected {w[at]!s}"
            )
    return Verdict(worst, wrong)


__all__ = ["Answer", "Verdict", "answer", "compare", "compute", "sample", "wide", "work"]
