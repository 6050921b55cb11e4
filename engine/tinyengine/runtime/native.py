"""A program as data for the native runner: steps, addresses of slots, clocks. One call of `run` per execution."""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tinyengine import dtypes
from tinyengine.runtime import threads
from tinyengine.runtime.buffer import Buffer
from tinyengine.runtime.threads import Pool

SMALLEST_SHARE = 8000.0  # estimated cycles (about 2 us): less than this is not worth another thread
CHUNKS_PER_THREAD = 16  # enough that a thread which loses its core delays the rest by little
MAX_CHUNKS = 65535
OK, CHECK_FAILED, CANCELLED = 0, 1, 2  # only the first is false
_STEP = 8  # words


@dataclass(frozen=True, slots=True)
class End:
    """Where the loops of a step end: `loops`, one after the other, as (start, step, most trips), end before the sum of
    coefficient * product of the sizes in some slots."""

    loops: tuple[tuple[int, int, int], ...]
    terms: tuple[tuple[tuple[int, ...], int], ...]

    def trips(self, values: Mapping[int, int]) -> int:
        """Up to the last one that does something: loops are counted one after the other, each with all its trips."""
        limit = sum(c * prod(values[s] for s in slots) for slots, c in self.terms)
        last = before = 0
        for start, step, most in self.loops:
            own = min(most, max(0, -((start - limit) // step)))
            last = before + own if own else last
            before += most
        return last


@dataclass(frozen=True, slots=True)
class Step:
    """One native call: `function`'s address, the byte offsets of its parameters' slots, the trips of its parallel loop (or
    None: one thread), the estimated cycles of all of it, the call of the program that it belongs to, and how its trips depend on
    symbolic sizes."""

    function: int
    which: tuple[int, ...]
    trips: int | None
    work: float
    call: int
    end: End | None = None

    def now(self, values: Mapping[int, int]) -> Step:
        """This step for these values of the sizes (slot -> value): fewer trips, less work."""
        if self.end is None or not self.trips:
            return self
        trips = max(1, self.end.trips(values))  # a trip that is too many does nothing
        return replace(self, trips=trips, work=self.work * trips / self.trips)


def chunks(step: Step, threads_: int) -> tuple[int, int]:
    """(trips per chunk, chunks) for `threads_`; (0, 1) where one thread does it all."""
    if step.trips is None or threads_ == 1 or step.trips < 2 or step.work < SMALLEST_SHARE:
        return 0, 1
    wanted = int(min(step.trips, threads_ * CHUNKS_PER_THREAD, max(threads_, step.work // SMALLEST_SHARE), MAX_CHUNKS))
    size = -(-step.trips // wanted)
    return size, -(-step.trips // size)


class NativeProgram:
    """Steps in order over `given` slots of the caller, those at `offsets` in an arena of the pool, and those that are others,
    `moved` on: (slot, bytes). `first_write`: the first step that writes memory in place (len(steps) if none does). Not for two
    threads at once: `run` holds `threads.lock`."""

    def __init__(self, steps: Sequence[Step], given: int, offsets: Sequence[int], moved: Sequence[tuple[int, int]],
                 arena_bytes: int, first_write: int, scratch_bytes: int, runner: Callable[[int], int],
                 pool: Callable[[], Pool]) -> None:  # fmt: skip
        n = len(steps)
        self.steps, self.given, self.scratch_bytes = tuple(steps), given, scratch_bytes
        self.offsets, self.arena_bytes = np.array(offsets, np.uint64), arena_bytes
        self._base = 0  # of the arena that `_slots` points into
        self._run, self._make_pool = runner, pool
        self._pool: Pool | None = None
        self._which = Buffer(sum(len(s.which) for s in steps), dtypes.int64)
        self._table = Buffer(max(1, n) * _STEP, dtypes.int64)
        self._clocks = Buffer(n + 1, dtypes.int64)
        self._slots = Buffer(max(1, given + len(offsets) + len(moved)), dtypes.uint64)
        self._moved = [s for s, _ in moved], np.array([by for _, by in moved], np.uint64)
        self._block = Buffer(16, dtypes.int64)
        self._addresses = self._slots.array.data
        self._pack = struct.Struct(f"{given}Q").pack_into
        block, at = self._block.array, 0
        for i, s in enumerate(steps):
            self._which.array[at : at + len(s.which)] = s.which
            self._table.array[i * _STEP : i * _STEP + 3] = (s.function, self._which.address + 8 * at, s.trips or 1)
            at += len(s.which)
        block[:] = 0
        block[0], block[1], block[2], block[4] = self._table.address, n, self._slots.address, first_write
        self._words = block.data
        self._start = self._block.address
        self._last: list[int] = []
        self._timed = False
        self._sized = [(i, s) for i, s in enumerate(steps) if s.end is not None]
        self._sizes = sorted({k for _, s in self._sized if s.end is not None for slots, _ in s.end.terms for k in slots})
        self._now: list[int] = []  # the sizes that the table is made for

    def _bind(self) -> Pool:
        """Take the process's pool: at the first run, after a fork, and after its thread count was changed."""
        p = self._pool = self._make_pool()
        p.need_scratch(self.scratch_bytes)
        shared, self._now = False, []
        for i, s in enumerate(self.steps):
            size, count = chunks(s, p.threads)
            self._table.array[i * _STEP + 3 : i * _STEP + 5] = (size, count)
            shared |= size > 0
        if shared:
            p.start()
        self._words[7] = p.address
        return p

    def _resize(self, buffers: Sequence[Buffer], threads_: int) -> None:
        """Pieces of the parallel loops for the symbolic sizes of this run."""
        now = [int(buffers[k].array[0]) for k in self._sizes]
        if now == self._now:
            return
        self._now, values = now, dict(zip(self._sizes, now, strict=True))
        for i, s in self._sized:
            t = s.now(values)
            self._table.array[i * _STEP + 2 : i * _STEP + 5] = (t.trips, *chunks(t, threads_))

    def _place(self, base: int) -> None:
        """Put the temporaries into the arena at this address."""
        if base != self._base:
            self._slots.array[self.given : self.given + len(self.offsets)] = self.offsets + np.uint64(base)
            self._base = base
            if self._moved[0]:
                self._move()

    def _move(self) -> None:
        """The slots that are others, moved on: after those have changed."""
        which, by = self._moved
        self._slots.array[self.given + len(self.offsets) :] = self._slots.array[which] + by

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> int:
        """OK, CHECK_FAILED or CANCELLED. `buffers`: the first `given` slots."""
        with threads.lock:
            pool = self._pool
            if pool is None or pool is not threads.current:
                pool = self._bind()
            if self._sized:
                self._resize(buffers, pool.threads)
            # addresses, not Buffers, are remembered: a program must not keep the memory of its last run alive
            addresses = [b.address for b in buffers]
            if addresses != self._last:
                self._pack(self._addresses, 0, *addresses)
                self._last = addresses
                if self._moved[0]:
                    self._move()
            words = self._words
            if clocks is not self._timed:
                words[3] = self._clocks.address if clocks else 0
                self._timed = clocks
            words[8] = 0
            if not self.arena_bytes:
                return self._run(self._start)
            with pool.arena(self.arena_bytes) as base:
                self._place(base)
                return self._run(self._start)

    def cancel(self) -> None:
        """Ask a run in another thread to stop before it writes in place; once it has begun to write, it finishes."""
        self._words[8] = 1

    @property
    def failed(self) -> tuple[int, int]:
        """(step, status) of the first failed check of the last run."""
        return int(self._words[6]), int(self._words[5])

    def times(self, calls: int) -> tuple[list[float], list[float]]:
        """(start since the launch, seconds) per call of the program, of the last run with clocks."""
        t = self._clocks.array.tolist()
        if len(self.steps) == calls:
            return [1e-9 * (x - t[0]) for x in t[:-1]], [1e-9 * (y - x) for x, y in itertools.pairwise(t)]
        starts, seconds = [0.0] * calls, [0.0] * calls
        for i, s in reversed(list(enumerate(self.steps))):
            starts[s.call] = 1e-9 * (t[i] - t[0])
            seconds[s.call] += 1e-9 * (t[i + 1] - t[i])
        return starts, seconds


Runner = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)  # ctypes takes an address quicker than a number
