"""Programs and kernels on memory of their own: nothing here touches the user's buffers or random state.

What tuning, what-ifs and edited schedules run on."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import backends
from tinyengine.loopnest import Accumulate, Kernel, stmt_exprs, subexprs, walk
from tinyengine.program import Call, Program
from tinyengine.runtime.buffer import Buffer, SizeBuffer, SizePlaceholder, size_memory

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: the median of `samples`, and their quartiles."""

    seconds: float
    low: float
    high: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Timing:
        low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
        return cls(float(middle), float(low), float(high), tuple(samples))


def stand_in(size: int, dtype: Any, name: str = "") -> Buffer:
    """Memory for an input without a value: zeros where it may be an index, else numbers from 0.5 to 1.5."""
    values = np.random.Generator(np.random.PCG64(0)).uniform(0.5, 1.5, size) if dtype.is_float else np.zeros(size)
    return Buffer.of(values, dtype, name)


def memory(lowered: Lowered) -> list[Buffer]:
    """What a run of the program takes: copies of its buffers, and new memory for its outputs."""
    out = []
    for slot, b in itertools.zip_longest(lowered.plan.slots[: lowered.plan.given], lowered.buffers):
        array = getattr(b, "array", None)
        if b is None:
            out.append(Buffer(slot.size, slot.dtype, slot.name))
        elif isinstance(b, (SizeBuffer, SizePlaceholder)):  # a variable without a value has its largest
            out.append(b if isinstance(b, SizeBuffer) else size_memory(b.symbol, b.symbol.max))
        else:
            out.append(stand_in(b.size, b.dtype, b.name) if array is None else Buffer.of(array, b.dtype, b.name))
    return out


class Isolated:
    """A program whose kernels can be run one by one, each on what it would be given: the program runs once, on copies, with
    memory for every temporary."""

    def __init__(self, lowered: Lowered) -> None:
        plan = lowered.plan
        self.lowered = lowered
        self.slots = tuple(replace(s, role="output", offset=0) if s.role == "temporary" else s for s in plan.slots)
        self.memory = [*memory(lowered), *(Buffer(s.size, s.dtype, s.name) for s in plan.slots[plan.given :])]
        if plan.calls:
            backends.get(lowered.backend).compile(replace(plan, slots=self.slots, arena_bytes=0)).run(self.memory)

    def case(self, call: int) -> Case:
        """The kernel of that call with what it is given."""
        c = self.lowered.plan.calls[call]
        which = list(dict.fromkeys(c.slots))
        return Case(c, tuple(self.slots[s] for s in which), [self.memory[s] for s in which], self.lowered.backend)


class Case:
    """One kernel, to be run under any schedule on equal memory."""

    def __init__(self, call: Call, slots: tuple[Any, ...], memory: Sequence[Buffer], backend: str) -> None:
        where = {s: i for i, s in enumerate(dict.fromkeys(call.slots))}
        self.kernel, self.backend = call.kernel, backend
        self.which = tuple(where[s] for s in call.slots)
        written = {self.which[i] for i, p in enumerate(call.kernel.params) if p.name in call.kernel.outputs}
        read = _read(call.kernel)
        self.kept = {self.which[i] for i, p in enumerate(call.kernel.params) if p.name in read and self.which[i] in written}
        # inputs are shared with the other cases; what is written is this case's own
        self.memory = [Buffer.of(b.array, b.dtype, b.name) if i in written else b for i, b in enumerate(memory)]
        self.start = {i: self.memory[i].array.copy() for i in self.kept}
        self.written = written
        self._spoil()
        roles = ["state" if i in self.kept else "output" if i in written else "input" for i in range(len(slots))]
        self.slots = tuple(replace(s, role=role) for s, role in zip(slots, roles, strict=True))

    def given(self) -> dict[str, Array]:
        """The values of each parameter before a launch."""
        arrays = [b.dtype.decode(self.start.get(i, b.array)) for i, b in enumerate(self.memory)]
        return {p.name: arrays[w] for p, w in zip(self.kernel.params, self.which, strict=True)}

    def compile(self, kernel: Kernel, launches: int = 1, like: Kernel | None = None) -> backends.Executable:
        """A program that is nothing but `launches` launches of the kernel. `like`: the kernel whose work decides on how many
        threads it runs, if it is not its own."""
        calls = (Call(kernel, self.which, like),) * launches
        return backends.get(self.backend).compile(Program(kernel.name, self.slots, calls, 0))

    def results(self, made: backends.Executable) -> dict[str, Array]:
        """The outputs of one launch; elements that it does not write hold rubbish."""
        self._spoil()
        self._restore()
        made.run(self.memory)
        names = zip(self.kernel.params, self.which, strict=True)
        return {p.name: self.memory[w].values.copy() for p, w in names if w in self.written}

    def seconds(self, made: backends.Executable) -> float:
        """One launch, by the clocks of the program: the median of its launches but the first, which wakes the threads."""
        self._restore()
        times = made.run(self.memory, clocks=True)
        assert times is not None
        return statistics.median(times.seconds[1:] or times.seconds)

    def time(self, made: backends.Executable, limit: float, least: int = 5, most: int = 41) -> Timing:
        """Runs until `limit` seconds are over: `least` to `most` of them."""
        end = time.perf_counter() + limit
        samples = [self.seconds(made) for _ in range(least)]
        while len(samples) < most and time.perf_counter() < end:
            samples.append(self.seconds(made))
        return Timing.of(samples)

    def duel(self, a: backends.Executable, b: backends.Executable, limit: float, least: int = 9) -> tuple[Timing, Timing]:
        """Both, launch by launch in turn, so that a noisy moment hits both."""
        return duel(lambda: self.seconds(a), lambda: self.seconds(b), limit, least)

    def _spoil(self) -> None:
        for i in self.written - self.kept:
            b = self.memory[i]
            b.array.view(np.uint8)[...] = 1 if b.dtype.kind == "bool" else 0xA5

    def _restore(self) -> None:
        for i, a in self.start.items():
            self.memory[i].array[...] = a


class Whole:
    """A program on memory of its own, to be run again and again from the same state."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered, self.memory, self.executable = lowered, memory(lowered), lowered.executable
        state = [i for i, s in enumerate(lowered.plan.slots[: lowered.plan.given]) if s.role == "state"]
        self.start = {i: self.memory[i].array.copy() for i in state}

    def _run(self) -> backends.Times | None:
        for i, a in self.start.items():
            self.memory[i].array[...] = a
        return self.executable.run(self.memory, clocks=True) if self.lowered.plan.calls else None

    def seconds(self) -> float:
        """One run, from the start of its first kernel to the end of its last, by the clocks of the program."""
        times = self._run()
        return times.starts[-1] + times.seconds[-1] if times is not None else 0.0

    def results(self) -> list[tuple[str, bool, Array]]:
        """(name, whether it is of floats, value) of each root after one run."""
        self._run()
        slots = self.lowered.plan.slots
        return [(slots[s].name, slots[s].dtype.is_float, self.memory[s].values.copy()) for s in self.lowered.root_slots]


def duel(a: Callable[[], float], b: Callable[[], float], limit: float, least: int = 9, most: int = 101) -> tuple[Timing, Timing]:
    """The timings of two things that return the seconds they took, done in turn."""
    a(), b()
    mine, yours = in_turn([a, b], limit, least, most)
    return mine, yours


def in_turn(runs: Sequence[Callable[[], float]], limit: float, least: int = 9, most: int = 101) -> tuple[Timing, ...]:
    """The timings of things that return the seconds they took, done in turn, every other round in the other order, so that a
    noisy moment hits all of them: `least` to `most` rounds, until `limit` seconds are over."""
    end = time.perf_counter() + limit
    taken: list[list[float]] = [[] for _ in runs]
    pairs = list(zip(runs, taken, strict=True))
    while len(taken[0]) < least or (len(taken[0]) < most and time.perf_counter() < end):
        for f, into in pairs if len(taken[0]) % 2 else pairs[::-1]:
            into.append(f())
    return tuple(map(Timing.of, taken))


def _read(kernel: Kernel) -> set[str]:
    """Names of the parameters whose content before the launch matters: those that are loaded or accumulated into."""
    out = {x.arg.name for s in walk(kernel.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"}
    return out | {s.buf.name for s in walk(kernel.body) if isinstance(s, Accumulate)}


__all__ = ["Case", "Isolated", "Timing", "Whole", "duel", "in_turn", "memory", "stand_in"]
