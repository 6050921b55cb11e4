"""Where did a value go wrong? The first step of a compilation after which the reference computes something else.

Rewrites are searched by halves: the stage is deterministic, so it can be done again up to any firing, and the graph evaluated
there. Behind the graph stages each kernel is checked alone, on inputs that are right: first its loops in the interpreter, then
after each primitive of its schedule, then as the backend compiled it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyengine import backends
from tinyengine.backends.graph_eval import Evaluator
from tinyengine.backends.reference import Interpreter
from tinyengine.dtypes import DType
from tinyengine.extent import valued as cut
from tinyengine.loopnest import Kernel
from tinyengine.node import Graph, Node
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer
from tinyengine.size import Symbol
from tinyengine.stages import simplify
from tinyengine.stages.loops import Nest
from tinyengine.stages.primitives.apply import apply_one, parse
from tinyengine.trial import memory

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bisection:
    """The first step after which a result differs by more than `tolerance` (relative to the largest value); `stage` is "" when
    none does. `step`: the rule, the kernel, or the primitive; `firing`: of a rule, counted from 0, else -1. `before`, `after`:
    what that firing replaced. `error`: the largest difference after the step; `checked`: evaluations that were needed. `kernel`:
    its name, where the step is one of a kernel; `primitive`: its position in the kernel's schedule, -1 for another step."""

    stage: str
    step: str
    firing: int
    before: Node | None
    after: Node | None
    error: float
    tolerance: float
    checked: int
    kernel: str = ""
    primitive: int = -1

    def __str__(self) -> str:
        if not self.stage:
            return f"no step changes a value beyond {self.tolerance:g} (checked {self.checked})"
        where = f"firing {self.firing}, rule {self.step}" if self.firing >= 0 else self.step
        line = ""
        if self.before is not None and self.before.origin and self.before.origin[0].frames:
            frame = self.before.origin[0].frames[0]
            line = f", for {frame.file}:{frame.line}"
        change = "" if self.before is None else f"\n  before: {self.before!r}\n  after:  {self.after!r}"
        return f"{self.stage}: {where}{line} changes a value by {self.error:.3g} (tolerance {self.tolerance:g}){change}"


def tolerance_of(dtype: DType) -> float:
    """How far a reordered computation may be off, relative to the largest value."""
    return {2: 2e-2, 4: 1e-4, 8: 1e-9}.get(dtype.itemsize, 0.0) if dtype.is_float else 0.0


def error(expected: Array, got: Array) -> float:
    """The largest difference relative to the largest finite value; inf where one is NaN or infinite and the other is not so."""
    if expected.dtype.kind not in "fc":
        return float(not np.array_equal(expected, got))
    a, b = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    scale = float(np.max(np.abs(a[finite]), initial=0.0)) or 1.0
    return float(np.max(np.abs(a[finite] - b[finite]), initial=0.0)) / scale


def bisect(lowered: Lowered, tolerance: float | None = None) -> Bisection:
    """Search the whole compilation of `lowered`. `tolerance`: by dtype where None. Changes nothing of the user's. An input
    without a value, as a traced function has, gets one (see `trial.stand_in`): a wrong step is wrong on these too."""
    search = _Search(valued(lowered), tolerance)
    found = search.firings() or search.kernels()
    return found or Bisection("", "", -1, None, None, 0.0, search.reported, search.checked)


def valued(lowered: Lowered) -> Lowered:
    """The same program on values: itself, or where an input has none a copy in which every input is memory of its own."""
    own = lowered.graph.key()[1]
    if all(b.array is not None for b in own):
        return lowered
    given = memory(lowered)[: len(lowered.buffers)]
    of = {id(old): new for old, new in zip(own, given, strict=True)}
    new: dict[Node, Node] = {}
    for n in lowered.graph.nodes:
        arg = of[id(n.arg)] if n.op == "buffer" else n.arg
        new[n] = n._replace(src=tuple(new[s] for s in n.src), arg=arg)
    graph = Graph(new[r] for r in lowered.graph.roots)
    return type(lowered)(graph, given, lowered.choices, lowered.machine, lowered.backend)


class _Form(NamedTuple):
    """A kernel as a step leaves it, and what runs it."""

    stage: str
    step: str
    kernel: Kernel
    run: Callable[[Kernel, list[Array]], None]
    primitive: int = -1


class _Search:
    def __init__(self, lowered: Lowered, tolerance: float | None) -> None:
        self.lowered, self.tolerance, self.checked = lowered, tolerance, 0
        roots = lowered.graph.roots
        self.reported = tolerance if tolerance is not None else max([tolerance_of(r.dtype) for r in roots], default=0.0)

    def off(self, dtype: DType, expected: Array, got: Array) -> float:
        """The error where it is beyond the tolerance, else 0."""
        e = error(expected.reshape(-1), got.reshape(-1))
        return e if e > (tolerance_of(dtype) if self.tolerance is None else self.tolerance) else 0.0

    def found(self, stage: str, step: str, e: float, firing: int = -1, before: Any = None, after: Any = None) -> Bisection:
        return Bisection(stage, step, firing, before, after, e, self.reported, self.checked)

    # -- rewrites

    def firings(self) -> Bisection | None:
        graph, machine = self.lowered.graph, self.lowered.machine
        expected = self.values(graph)
        events = simplify.explain(graph, self.lowered.choices, machine)

        def off(firings: int) -> float:
            got = self.values(simplify.partly(graph, firings, machine, self.lowered.choices))
            return max([self.off(r.dtype, a, b) for r, a, b in zip(graph.roots, expected, got, strict=True)], default=0.0)

        good, bad = 0, len(events)
        worst = off(bad) if events else 0.0
        if not worst:
            return None
        while bad - good > 1:
            middle = (good + bad) // 2
            e = off(middle)
            if e:
                bad, worst = middle, e
            else:
                good = middle
        event = events[bad - 1]
        return self.found("simplify", event.rule, worst, bad - 1, event.before, event.after)

    def values(self, graph: Graph) -> list[Array]:
        self.checked += 1
        return Evaluator(graph, sizes=self.lowered.values).run()

    # -- kernels

    def kernels(self) -> Bisection | None:
        graph = self.lowered.simplified
        oracle = Evaluator(graph, sizes=self.lowered.values)
        oracle.run()
        self.checked += 1
        for nest, scheduled in zip(self.lowered.nests, self.lowered.scheduled, strict=True):
            for form in self.forms(nest, scheduled):
                self.checked += 1
                e = self.wrong(nest, form.kernel, oracle.values, form.run)
                if e:
                    found = self.found(form.stage, form.step, e)
                    return replace(found, kernel=nest.kernel.name, primitive=form.primitive)
        return None

    def forms(self, nest: Nest, scheduled: Kernel) -> Iterator[_Form]:
        """One kernel as each step leaves it."""
        k = nest.kernel
        yield _Form("loops", f"kernel {k.name}", k, interpret)
        for i, p in enumerate(parse(list(scheduled.schedule))):
            k = apply_one(k, p)
            yield _Form("schedule", f"kernel {k.name}, primitive {p}", k, interpret, i)
        yield _Form("schedule", f"kernel {k.name}, tidied", scheduled, interpret)
        if self.lowered.backend != "null":
            yield _Form("emit", f"kernel {k.name} on {self.lowered.backend}", scheduled, self.compiled)

    def wrong(self, nest: Nest, kernel: Kernel, values: dict[Node, Array], run: Callable[[Kernel, list[Array]], None]) -> float:
        """The error of a kernel's results, on right inputs, where it is beyond the tolerance."""
        targets = {name: n for n, name in nest.in_place.items()}
        arrays = [self.memory(v, targets.get(p.name), values) for p, v in zip(nest.kernel.params, nest.values, strict=True)]
        for p, a in zip(nest.kernel.params, arrays, strict=True):
            if p.name in nest.kernel.outputs and p.name not in targets:
                a.view(np.uint8)[...] = 0xFF  # NaN, or -1: what is not written must not look right
        run(kernel, arrays)
        worst = 0.0
        for p, v, a in zip(nest.kernel.params, nest.values, arrays, strict=True):
            if p.name in nest.kernel.outputs:
                of = targets.get(p.name, v)
                assert isinstance(of, Node)
                got = cut(a[: of.size].reshape(of.shape), of.shape, self.lowered.values)
                worst = max(worst, self.off(of.dtype, values[of], got))
        return worst

    def memory(self, value: Node | Symbol, assigned: Node | None, values: dict[Node, Array]) -> Array:
        """What a parameter points to before the kernel runs: an update's target holds its old content."""
        if isinstance(value, Symbol):
            return np.array([self.lowered.values[value.name]], np.int64)
        if assigned is not None:
            value = assigned.src[0]
        out = np.zeros(value.shape, value.dtype.numpy if value not in values else values[value].dtype)
        if value in values:
            cut(out, value.shape, self.lowered.values)[...] = values[value]
        return out.reshape(-1)

    def compiled(self, kernel: Kernel, arrays: list[Array]) -> None:
        slots = tuple(Slot(p.name, p.dtype, (p.size,), "state" if p.name in kernel.outputs else "input") for p in kernel.params)
        program = Program(kernel.name, slots, (Call(kernel, tuple(range(len(slots)))),), 0)
        buffers = [Buffer.of(a, p.dtype, p.name) for p, a in zip(kernel.params, arrays, strict=True)]
        backends.get(self.lowered.backend).compile(program).run(buffers)
        for a, b in zip(arrays, buffers, strict=True):
            a[:] = b.array[: a.size]


def interpret(kernel: Kernel, arrays: list[Array]) -> None:
    Interpreter(kernel).run(arrays)
