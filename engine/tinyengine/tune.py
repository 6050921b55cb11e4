"""tune: measure a handful of schedules per kernel, on this machine, and keep the fastest.

Kernels with the most predicted waste (predicted time above the nearest peak of the machine) come first; equal kernels are tuned
once. From the engine's own schedule the search walks to neighbours (`neighbours`), those with the shortest predicted time first.
Each candidate must give what the unscheduled loops give (`oracle`) before it is timed, and must beat the engine's own schedule
launch by launch before it wins. What was found is stored by machine (`tune_store`) and used by every later lowering through
`Choices.tuned`. Everything runs on copies: parameters, buffers and random state of the user stay as they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tinyengine import oracle, timing, tune_store, units
from tinyengine.choices import Choices
from tinyengine.cost import KernelCost
from tinyengine.jit import jit
from tinyengine.jit import lowered as traced
from tinyengine.loopnest import Kernel
from tinyengine.machine import Machine
from tinyengine.neighbours import Neighbour, neighbours
from tinyengine.pipeline import Lowered
from tinyengine.stages import schedule
from tinyengine.stages.keys import generalise, kernel_key, localise
from tinyengine.stages.primitives.apply import apply
from tinyengine.trial import Case, Isolated, Timing
from tinyengine.tune_store import Attempt, Entry

TRIES = 8  # schedules per kernel and round of the search
ROUNDS = 3
QUIET = 2.0  # seconds before progress is shown
LAUNCHES = 0.02  # seconds of launches for one candidate
LEAST = 0.003  # share of the program's predicted time from which a kernel is worth it
GAIN = 0.97  # a winner takes at most this share of the time
SELDOM = 0.25  # and is the slower one in at most this share of the launches
HOPELESS = 2.0  # times the fastest: not worth more launches; predicted against predicted: not worth one
TOGETHER = 4  # launches of a small kernel in one program: threads that sleep between them are not what is measured


@dataclass(frozen=True)
class TunedKernel:
    """One kernel after tuning. `calls`: its positions in the program; `schedule`: the one that won, with this kernel's names,
    None where the engine's own did; `attempts`: every schedule that was tried, the engine's own first; seconds of one launch."""

    name: str
    key: str
    calls: tuple[int, ...]
    seconds_wasted: float  # predicted, of all calls
    seconds_before: float
    seconds_after: float
    schedule: tuple[str, ...] | None
    attempts: tuple[Attempt, ...]
    reason: str = ""  # why nothing was tried


@dataclass(frozen=True)
class Tuning:
    """What `tune` gives. `lowered`: the program with what was found; `left`: kernels for which the budget did not last."""

    lowered: Lowered
    kernels: tuple[TunedKernel, ...]
    left: tuple[str, ...]
    seconds: float
    interrupted: bool = False

    @property
    def seconds_before(self) -> float:
        """Of one run, all launches of the kernels that were tuned."""
        return sum(k.seconds_before * len(k.calls) for k in self.kernels)

    @property
    def seconds_after(self) -> float:
        return sum(k.seconds_after * len(k.calls) for k in self.kernels)

    def text(self) -> str:
        """One line per kernel: before, after, what won."""
        tried = sum(len(k.attempts) for k in self.kernels)
        out = [
            f"{len(self.kernels)} kernel{'s' * (len(self.kernels) != 1)} tuned in {self.seconds:.1f} s, {tried} schedules tried:"
            f" {units.seconds(self.seconds_before)} -> {units.seconds(self.seconds_after)} per run"
        ]
        for k in self.kernels:
            won = k.reason or ("the engine's own schedule stays" if k.schedule is None else "; ".join(k.schedule))
            count = f" x{len(k.calls)}" if len(k.calls) > 1 else ""
            out.append(f"  {k.name}{count}: {units.seconds(k.seconds_before)} -> {units.seconds(k.seconds_after)}  {won}")
        if self.left:
            why = "interrupted before" if self.interrupted else "the budget did not last for"
            out.append(f"  {why}: {', '.join(self.left)}")
        return "\n".join(out)

    __repr__ = text


def tune(
    what: Any, *args: Any, budget: float = 2.0, tries: int = TRIES, only: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None, **kwargs: Any,
) -> Tuning:  # fmt: skip
    """Measure schedules for the kernels of `what`: a Lowered, or a function (jitted or not) with its arguments, which is traced.

    `budget`: seconds; a candidate that has begun is finished. `tries`: at most so many schedules per kernel and round. `only`:
    names of kernels; by default all that count. `progress` gets a line of text now and then, after two seconds; by default it
    goes to the error stream. Ctrl-C ends it and keeps what was found. A jitted function uses the result from its next call on.
    Raises TypeError where `what` is neither, ValueError for a budget that is not positive."""
    if not isinstance(budget, (int, float)) or not budget > 0:
        raise ValueError(f"tune: the budget is {budget!r}; expected a number of seconds above 0")
    lowered = what
    if not isinstance(what, Lowered):
        if not callable(what):
            raise TypeError(f"tune takes a Lowered, or a function and its arguments; got {type(what).__name__}")
        lowered = traced(what, *args, **kwargs)
    elif args or kwargs:
        raise TypeError("tune: a Lowered takes no arguments: it has them already")
    told = _Progress(progress)
    try:
        done = _Tuner(lowered, budget, tries, told, only).run()
    finally:
        told.close()
    if isinstance(what, jit):
        what.renew()
    return done


@dataclass
class _Tuner:
    lowered: Lowered
    budget: float
    tries: int
    say: _Progress
    only: Sequence[str] | None = None
    found: list[TunedKernel] = field(default_factory=list)

    def run(self) -> Tuning:
        began = time.perf_counter()
        self.end = began + self.budget
        low = self.lowered
        jobs = list(promising(low, self.only))
        self.store = tune_store.store(low.machine, low.backend)
        interrupted = False
        try:
            isolated = Isolated(low)
            for i, (nest, calls, wasted) in enumerate(jobs):
                left = self.end - time.perf_counter()
                if left <= 0:
                    break
                share = left if i == len(jobs) - 1 else left / 2
                search = _Search(nest, isolated.case(calls[0]), low, self.tries, min(self.end, time.perf_counter() + share))
                search.say = self._saying(search, f"tuning kernel {i + 1} of {len(jobs)}, {nest.name}")
                interrupted = search.run(self.store.entries.get(kernel_key(nest)))
                self._keep(nest, calls, wasted, search)
                if interrupted:
                    break
        except KeyboardInterrupt:
            interrupted = True
        names = {k.name for k in self.found}
        tuned = {**low.choices.tuned, **self.store.tuned}
        after = low.with_choices(replace(low.choices, tuned=tuned))
        left_over = tuple(nest.name for nest, _, _ in jobs if nest.name not in names)
        return Tuning(after, tuple(self.found), left_over, time.perf_counter() - began, interrupted)

    def _saying(self, search: _Search, what: str) -> Callable[[], None]:
        """Says how far the search is."""

        def say() -> None:
            left = max(0.0, self.end - time.perf_counter())
            self.say(f"{what}: {search.progress()}; {left:.1f} s left")

        return say

    def _keep(self, nest: Kernel, calls: tuple[int, ...], wasted: float, s: _Search) -> None:
        if not s.attempts:
            if s.refused:
                self.found.append(TunedKernel(nest.name, kernel_key(nest), calls, wasted, 0.0, 0.0, None, (), s.refused))
            return
        before = s.attempts[0].seconds or 0.0
        won = s.won
        after = before if won is None or won.seconds is None else won.seconds
        lines = None if won is None else won.schedule
        if s.before is not None and won is not None:
            before = s.before.seconds
        attempts = tuple(s.attempts)
        self.found.append(TunedKernel(nest.name, kernel_key(nest), calls, wasted, before, after, lines, attempts))
        general = tuple(replace(a, schedule=generalise(a.schedule, nest)) for a in attempts)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(nest.name, date, None if lines is None else generalise(lines, nest), before, after, general)
        self.store.add({kernel_key(nest): entry})


def promising(lowered: Lowered, only: Sequence[str] | None = None) -> Iterator[tuple[Kernel, tuple[int, ...], float]]:
    """(kernel before scheduling, the calls that are of its form, predicted seconds wasted by all of them), most waste first.
    Kernels whose schedule was chosen by name are left out, and those that hardly count;
    or all but those called `only`."""
    nests = {n.kernel.name: n.kernel for n in lowered.nests}
    by_form: dict[str, tuple[Kernel, list[int], list[float]]] = {}
    for i, call in enumerate(lowered.plan.calls):
        nest = nests.get(call.kernel.name)
        if nest is not None and schedule.asked(nest, lowered.choices) is None:
            _, calls, waste = by_form.setdefault(kernel_key(nest), (nest, [], []))
            calls.append(i)
            waste.append(wasted(lowered.certificate.kernels[i], lowered.machine))
    cost = lowered.certificate
    for nest, calls, waste in sorted(by_form.values(), key=lambda x: -sum(x[2])):
        names = {lowered.plan.calls[i].kernel.name for i in calls}
        if names & set(only) if only is not None else sum(cost.kernels[i].seconds for i in calls) >= LEAST * cost.seconds:
            yield nest, tuple(calls), sum(waste)


def wasted(k: KernelCost, machine: Machine) -> float:
    """Predicted seconds above the nearest peak: all cores' arithmetic, or memory."""
    return max(0.0, k.seconds - max(k.flops / machine.fma_flops_all, k.bytes_moved / machine.copy_all))


@dataclass(frozen=True)
class Measured:
    """A candidate and the engine's own schedule, launch by launch in turn: whatever disturbs the machine disturbs both."""

    made: Any
    mine: Timing
    theirs: Timing

    @property
    def ratio(self) -> float:
        return self.mine.seconds / self.theirs.seconds

    @property
    def surely(self) -> bool:
        """Whether it is faster by more than the launches scatter."""
        return self.mine.high < self.theirs.low


class _Search:
    """One kernel: its attempts, and the one that won (None: the engine's own)."""

    def __init__(self, nest: Kernel, case: Case, lowered: Lowered, tries: int, end: float) -> None:
        self.nest, self.case, self.machine, self.tries, self.end = nest, case, lowered.machine, tries, end
        self.own = schedule.run(nest, Choices(vector_width=lowered.choices.vector_width), lowered.machine)[0]
        self.backend = lowered.backend
        self.attempts: list[Attempt] = []
        self.made: Any = None  # the engine's own, compiled
        self.measured: dict[tuple[str, ...], Measured] = {}
        self.won: Attempt | None = None
        self.before: Timing | None = None
        self.launches = 1
        self.refused = ""
        self.say: Callable[[], None] = lambda: None  # called before each thing that takes long

    def progress(self) -> str:
        """What was tried so far, in words."""
        tried = units.some(len(self.attempts), "schedule") + " tried"
        best = min((m.ratio for m in self.measured.values()), default=1.0)
        return f"{tried}, the fastest {best:.2f} times the engine's own" if best < 1 else tried

    def run(self, known: Entry | None) -> bool:
        """`known`: what an earlier tuning found, tried first. True when it was interrupted; what was found so far stays."""
        best: Attempt | None = None
        try:
            self.say()
            want = oracle.answer(self.nest, self.case.given(), self.backend)
            made = self.case.compile(self.own)
            self.default = self.case.results(made)
            verdict = oracle.compare(self.nest, self.default, want, self.default)
            if verdict.wrong or verdict.error > 1e-2:
                self.refused = f"the engine's own schedule is off by {verdict.error:.2g}: nothing to compare with"
                return False
            once = self.case.seconds(made)
            self.launches = TOGETHER if once < LAUNCHES / TOGETHER else 1
            made = self.case.compile(self.own, self.launches)
            t = self.case.time(made, LAUNCHES)
            lines = tuple(map(str, self.own.schedule))
            self.made, self.measured[lines] = made, Measured(made, t, t)
            best = Attempt(lines, "", "default", "the engine's own", t.seconds, t.low, t.high, verdict.error)
            self.attempts.append(best)
            if known is not None and known.schedule is not None:
                best = self._try(localise(known.schedule, self.nest), "found by an earlier tuning", want, best)
            for _ in range(ROUNDS):
                start = best
                for n in self._near(start):
                    if time.perf_counter() > self.end:
                        break
                    self.say()
                    best = self._try(tuple(map(str, n.kernel.schedule)), n.origin, want, best)
                if best is start:
                    break
            if best is not self.attempts[0]:
                self._decide(best)
        except KeyboardInterrupt:
            done = [a for a in self.attempts if a.schedule in self.measured]
            fastest = min(done, key=lambda a: self.measured[a.schedule].ratio, default=None)
            if fastest is not None and self.measured[fastest.schedule].surely:
                self.won, self.before = fastest, self.measured[fastest.schedule].theirs
            return True
        return False

    def _near(self, start: Attempt) -> list[Neighbour]:
        """The neighbours of `start` to measure: of every kind of change the one with the shortest predicted time, and so on."""
        tried = {a.schedule for a in self.attempts}
        expected = timing.predict(apply(self.nest, start.schedule), self.machine).seconds
        kinds: dict[str, list[tuple[float, int, Neighbour]]] = {}
        for i, n in enumerate(neighbours(self.nest, start.schedule, self.machine)):
            if time.perf_counter() > self.end:
                break
            if n.kernel.schedule not in tried:
                seconds = timing.predict(n.kernel, self.machine).seconds
                if seconds < HOPELESS * expected:
                    kinds.setdefault(n.origin.partition("(")[0], []).append((seconds, i, n))
        ranked = [(rank, *of) for group in kinds.values() for rank, of in enumerate(sorted(group))]
        return [n for *_, n in sorted(ranked)[: self.tries]]

    def _try(self, lines: tuple[str, ...], origin: str, want: oracle.Answer, best: Attempt) -> Attempt:
        """One candidate: compiled, checked, then timed. Returns the faster one of it and `best`."""
        try:
            kernel = apply(self.nest, lines)
            verdict = oracle.compare(self.nest, self.case.results(self.case.compile(kernel)), want, self.default)
        except Exception as e:
            self.attempts.append(Attempt(lines, origin, "failed", f"{type(e).__name__}: {str(e).splitlines()[0][:160]}"))
            return best
        if verdict.wrong:
            self.attempts.append(Attempt(lines, origin, "wrong", verdict.wrong, error=verdict.error))
            return best
        made, own, before = self.case.compile(kernel, self.launches), self.made, self.measured[best.schedule].ratio
        m = Measured(made, *self.case.duel(made, own, 0.0, least=1))
        if m.ratio < HOPELESS * before:
            m = Measured(made, *self.case.duel(made, own, LAUNCHES, least=5))
        t, reason = m.mine, f"{m.ratio:.2f} times the engine's own"
        a = Attempt(lines, origin, "faster" if m.ratio < 1 else "slower", reason, t.seconds, t.low, t.high, verdict.error)
        self.attempts.append(a)
        self.measured[lines] = m
        return a if m.ratio < GAIN * before else best

    def _decide(self, best: Attempt) -> None:
        """The fastest against the engine's own, launch by launch in turn: only what wins there wins."""
        mine, theirs = self.case.duel(self.measured[best.schedule].made, self.made, 2 * LAUNCHES)
        # a busy neighbour moves medians
        ratio = max(mine.seconds / theirs.seconds, mine.low / theirs.low, min(mine.samples) / min(theirs.samples))
        slower = sum(a >= b for a, b in zip(mine.samples, theirs.samples, strict=True))
        often = slower <= SELDOM * len(mine.samples)
        at = self.attempts.index(best)
        if ratio <= GAIN and often:
            won = replace(best, verdict="faster", seconds=mine.seconds, seconds_low=mine.low, seconds_high=mine.high)
            self.won = self.attempts[at] = replace(won, reason=f"{ratio:.2f} times the engine's own, measured in turn")
            self.before = theirs
        else:
            told = f"{ratio:.2f} times the engine's own when measured in turn: no gain"
            if not often:
                told = f"measured in turn it was the slower one in {slower} of {len(mine.samples)} launches: no gain"
            self.attempts[at] = replace(best, verdict="slower", reason=told)


class _Progress:
    """Hands lines to `show`, or writes them to the error stream, once QUIET seconds are over: on a terminal over each other, else
    below each other, one in QUIET seconds."""

    def __init__(self, show: Callable[[str], None] | None) -> None:
        self.show, self.began, self.shown = show, time.perf_counter(), 0.0

    def __call__(self, text: str) -> None:
        now = time.perf_counter()
        if now - self.began < QUIET:
            return
        if self.show is not None:
            self.show(text)
        elif sys.stderr is not None:
            terminal = sys.stderr.isatty()
            if not terminal and now - self.shown < QUIET:
                return
            sys.stderr.write(f"\r{text:<78}" if terminal else f"{text}\n")
            sys.stderr.flush()
        self.shown = now

    def close(self) -> None:
        if self.shown and self.show is None and sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write("\n")
