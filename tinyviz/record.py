"""`Recorder` listens to the engine's hooks and keeps references; `build` makes wire data of them when someone looks."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from tinyengine import hooks
from tinyengine.size import most
from tinyviz import units, wire
from tinyviz.convert import Parts, fold, program
from tinyviz.frames import became
from tinyviz.sampling import Finite, Found, Values, sentence, warn
from tinyviz.tables import NameFile, Tables
from tinyviz.tvz import identified

KEPT_RUNS = 8  # first and last runs kept in full, each
SAMPLES = 512  # runs that the folded figures rest on: every n-th one, n doubling as they fill up
# So a program of k kernels keeps at most SAMPLES + 2 * KEPT_RUNS runs, about 100 bytes per kernel each, however many there are.
MOST_PROGRAMS = 64  # kept in full; the runs of further ones are counted
MOST_EVENTS = 512  # different ones of a kind; further ones are counted together


class Runs:
    """All runs of one program in bounded memory."""

    def __init__(self, lowered: Any) -> None:
        self.lowered = lowered
        self.seconds = dict(lowered.seconds)  # of stages that ran by then; later ones are done for looking only
        self.count = 0
        self.first: list[tuple[hooks.Launch, float | None]] = []
        self.last: list[tuple[hooks.Launch, float | None]] = []
        self.samples: list[hooks.Launch] = []
        self.gaps: list[float] = []  # before each sample: seconds since the run before, of whatever program; -1: none
        self.stride = 1
        self.gap_total = 0.0
        self.total: list[float] = []
        self.host_total = 0.0
        self.values: Values | None = None
        self.finite = Finite()

    def add(self, e: hooks.Launch, gap: float | None = None) -> None:
        """`gap`: seconds since the end of the run before, of whatever program; None for the first of all."""
        self.host_total += e.host_seconds
        self.gap_total += gap or 0.0
        if e.seconds:
            self.total = [a + b for a, b in zip(self.total, e.seconds, strict=True)] if self.total else list(e.seconds)
        if self.count < KEPT_RUNS:
            self.first.append((e, gap))
        else:
            self.last.append((e, gap))
            if len(self.last) > KEPT_RUNS:
                del self.last[0]
        if self.count % self.stride == 0:
            self.samples.append(e)
            self.gaps.append(-1.0 if gap is None else gap)
            if len(self.samples) == SAMPLES:
                del self.samples[1::2], self.gaps[1::2]
                self.stride *= 2
        self.count += 1

    def wire(self, zero: float) -> wire.Launches:
        out = wire.Launches(self.count, total=self.total, host_total=self.host_total, gap_total=self.gap_total)
        gaps = [g for g in self.gaps[1:] if g >= 0]  # before the first run it was compiled
        if gaps:
            out.gap_low, out.gap_median, out.gap_high = fold(gaps)
        for e, gap in [*self.first, *self.last]:
            out.runs.append(wire.Run(e.began - zero, e.host_seconds, list(e.starts), list(e.seconds), gap))
        # the first run pays for cold caches: where there are others it is shown, but not folded in
        samples = self.samples[1:] if len(self.samples) > 1 else self.samples
        if samples:
            out.host_low, out.host_median, out.host_high = fold(e.host_seconds for e in samples)
        timed = [e for e in samples if e.seconds]
        if timed:
            folded = [fold(column) for column in zip(*[e.seconds for e in timed], strict=True)]
            out.low, out.median, out.high = ([f[i] for f in folded] for i in range(3))
            middle = sorted(timed, key=lambda e: e.host_seconds)[len(timed) // 4 : len(timed) - len(timed) // 4]
            out.typical = [fmean(column) for column in zip(*[e.seconds for e in middle], strict=True)]
            out.host_typical = fmean(e.host_seconds for e in middle)
        return out


@dataclass
class _Folded:
    """An event that came `count` times; `program` is the place of a program in order of its first launch."""

    event: Any
    began: float
    program: int = -1
    count: int = 1
    seconds: float = 0.0


@dataclass
class Recorder:
    """Between `start` and `stop` every event is kept by reference; equal ones are folded, so that memory stays bounded."""

    title: str = ""
    every: int = 0  # sample the values of every so many runs of each program; 0: of none
    finite: bool = False  # watch that results are finite
    began: float = 0.0
    ended: float | None = None
    created: str = ""
    spent: float = 0.0  # seconds inside this recorder while the user's code ran, the two below included
    asked: float = 0.0  # of them, for values and for watching that they are finite
    collected: float = (
        0.0  # of them, in Python's garbage collector: it goes over all that the user holds, sooner or later
    )
    programs: dict[int, Runs] = field(default_factory=dict)  # by identity of the executable, which `Runs` keeps alive
    realized: dict[Any, _Folded] = field(default_factory=dict)
    caches: dict[Any, _Folded] = field(default_factory=dict)
    waits: dict[Any, _Folded] = field(default_factory=dict)
    _waiting: list[_Folded] = field(default_factory=list)  # realised, and not launched yet
    _last: float | None = None  # when the last run ended
    _differentiated: float = 0.0  # seconds in the stage since then: it runs before there is a program
    _trace: float | None = None  # when a function began to be traced, later by what was done meanwhile and is no tracing
    _traced: dict[str, dict[str, float]] = field(default_factory=dict)  # key of a graph -> seconds of the stages before it
    _forced: float | None = None  # when a computation was forced that has not run yet
    _more: Runs | None = None  # of programs beyond MOST_PROGRAMS, counted only
    _end: Callable[[], None] | None = None
    _inside: bool = False
    _collecting: float = 0.0  # when a collection inside began; 0: none runs

    def start(self) -> None:
        """Begin to listen; does nothing when it listens already."""
        if self._end is None:
            if not self.created:
                self.began, self.created = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
            self.ended = None
            kinds = [k for k in _HEARD if k is not hooks.Launching or self.every or self.finite]
            self._end = hooks.subscribe(self._take, *kinds)
            gc.callbacks.append(self._collection)

    def stop(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None
            gc.callbacks.remove(self._collection)
            self.ended = time.perf_counter()

    def _take(self, e: hooks.Event) -> None:
        now = time.perf_counter()
        self._inside = True
        try:
            _HEARD[type(e)](self, e, now)
        finally:
            self._inside = False
            self.spent += time.perf_counter() - now

    def _collection(self, phase: str, info: Any) -> None:
        """Python tells when a collection begins and ends; one that an allocation in here happens to set off is not ours."""
        if self._inside and phase == "start":
            self._collecting = time.perf_counter()
        elif self._collecting:
            self.collected += time.perf_counter() - self._collecting
            self._collecting = 0.0

    def _launch(self, e: hooks.Launch, now: float) -> None:
        runs = self._runs(e.program)
        if runs is self._more:
            runs.count, runs.host_total = runs.count + 1, runs.host_total + e.host_seconds
        else:
            runs.add(e, None if self._last is None else max(e.began - self._last, 0.0))
        self._last = e.began + e.host_seconds
        if self._trace is None:  # else it belongs to the program that is being traced
            self._differentiated = 0.0
        if self._forced is not None:
            if self._trace is not None:
                self._trace += now - self._forced
            self._forced = None
        if self.finite and (found := runs.finite.after(e.program)) is not None:
            warn(found)
        if self._waiting:
            at = next((i for i, key in enumerate(self.programs) if key == id(e.program.executable)), -1)
            for r in self._waiting:
                r.program = at if r.program < 0 else r.program
            self._waiting.clear()

    def _finished(self, e: hooks.StageFinished, now: float) -> None:
        if e.stage == "differentiate":
            self._differentiated += e.seconds
            if self._trace is not None:
                self._trace += e.seconds

    def _realized(self, e: hooks.Realized, now: float) -> None:
        self._forced = now if self._forced is None else self._forced
        frames = e.origin.frames
        self._waiting.append(self._fold(self.realized, (e.cause, frames[0] if frames else None), e, now))

    def _waited(self, e: hooks.HostWait, now: float) -> None:
        self._fold(self.waits, e.reason, e, now).seconds += e.seconds

    def _graph(self, key: str, now: float) -> None:
        """The graph of a program is known. If no forced computation asked for it, a traced function did: recording ends here. How
        long an unjitted program was recorded cannot be said: its operations stand between other lines of the user's."""
        if self._trace is not None and self._forced is None:
            self._traced[key] = {"record": now - self._trace}
            if self._differentiated:
                self._traced[key]["differentiate"] = self._differentiated
            self._trace, self._differentiated = None, 0.0

    def _hit(self, e: hooks.CacheHit, now: float) -> None:
        if e.cache == "program":
            self._graph(e.key, now)
        self._fold(self.caches, (e.cache, "" if e.cache == "kernel" else e.key), e, now)

    def _missed(self, e: hooks.CacheMiss, now: float) -> None:
        if e.cache == "jit":
            self._trace = now
        elif e.cache == "program":
            self._graph(e.key, now)
        key = "" if e.cache == "kernel" else e.key
        self._fold(self.caches, (e.cache, key, e.guard, str(e.old), str(e.new)), e, now)

    def _runs(self, program: Any) -> Runs:
        runs = self.programs.get(id(program.executable))
        if runs is None and len(self.programs) >= MOST_PROGRAMS:
            self._more = runs = self._more or Runs(program)
        elif runs is None:
            runs = self.programs[id(program.executable)] = Runs(program)
            if self._traced:
                runs.seconds |= self._traced.pop(program.graph.key()[0], {})
            if self._differentiated and any(o.phase == "backward" for n in program.graph.nodes for o in n.origin):
                runs.seconds["differentiate"] = self._differentiated
        return runs

    def _before(self, e: hooks.Launching, now: float) -> None:
        began, collected = time.perf_counter(), self.collected
        self._look(e)
        self.asked += time.perf_counter() - began - (self.collected - collected)

    def _look(self, e: hooks.Launching) -> None:
        runs = self._runs(e.program)
        if self.finite:
            runs.finite.before(runs.count, e.program, e.memory)
        if self.every:
            if runs.values is None:
                runs.values = Values(e.program, self.every)
            runs.values.take(e.program, runs.count, e.memory)

    def _fold(self, into: dict[Any, _Folded], key: Any, e: Any, now: float) -> _Folded:
        found = into.get(key)
        if found is None and len(into) >= MOST_EVENTS:
            key = "more"
            found = into.get(key)
        if found is None:
            found = into[key] = _Folded(e, now - self.began)
        else:
            found.count += 1
        return found


# what is done with each kind of event; one look-up, because it happens in the user's step
_HEARD: dict[type[hooks.Event], Callable[[Recorder, Any, float], None]] = {
    hooks.Launch: Recorder._launch, hooks.CacheHit: Recorder._hit, hooks.CacheMiss: Recorder._missed,
    hooks.Realized: Recorder._realized, hooks.HostWait: Recorder._waited, hooks.Launching: Recorder._before,
    hooks.StageFinished: Recorder._finished,
}  # fmt: skip


def build(r: Recorder, name_file: NameFile | None = None, kept: list[Any] | None = None) -> wire.Recording:
    """The wire data of everything recorded. Stages that a cached program skipped are done again; the user's program is not.
    `kept` gets the engine's Lowered behind each program of the recording."""
    tables = Tables(name_file)
    missing: list[str] = []
    programs: list[wire.Program] = []
    place: dict[int, int] = {}  # order of first launch -> position in the recording
    machine = backend = None
    for i, runs in enumerate(r.programs.values()):
        machine, backend = machine or runs.lowered.machine, backend or runs.lowered.backend
        try:
            parts = Parts.of(runs.lowered, f"program {i}")
            parts.seconds = runs.seconds
            p = program(parts, tables)
        except Exception as error:  # one program that cannot be shown takes no other with it
            missing.append(f"program {i}: {type(error).__name__}: {error}")
            continue
        p.launches = runs.wire(r.began)
        sampled(p, runs, parts, tables)
        place[i] = len(programs)
        programs.append(p)
        if kept is not None:
            kept.append(runs.lowered)
    if not programs:
        missing.append("no program was compiled or run while this was recorded")
    realized = []
    for f in r.realized.values():
        frames = f.event.origin.frames
        line = tables.line(frames[0]) if frames else -1
        realized.append(wire.Realized(f.event.cause, line, place.get(f.program, -1), f.began, f.count))
    caches = []
    for f in r.caches.values():
        e, hit = f.event, isinstance(f.event, hooks.CacheHit)
        old, new = ("", "") if hit else (_text(e.old), _text(e.new))
        caches.append(wire.CacheEvent(e.cache, hit, e.key[:16], f.count, "" if hit else e.guard, old, new, f.began))
    if r._more is not None:
        further = units.some(r._more.count, "run")
        missing.append(f"{further} of further programs: only the first {len(r.programs)} programs are kept")
    for kind, events in (("computations that were forced", r.realized), ("cache look-ups", r.caches), ("waits", r.waits)):
        if "more" in events:
            missing.append(f"{events['more'].count} more {kind}, of other kinds than the first {MOST_EVENTS}: counted as one")
    name_programs(programs, realized)
    out = wire.Recording(
        wire.VERSION, "", r.title or "recording", r.created, engine_version(), backend or "", machine_of(machine), tables.files,
        tables.lines, tables.rules, programs, realized, caches,
        [wire.Wait(f.event.reason, f.seconds, f.began, f.count) for f in r.waits.values()],
        (r.ended or time.perf_counter()) - r.began, r.spent - r.asked - r.collected,
        {name: s for name, s in (("looking at values", r.asked), ("garbage collection", r.collected)) if s}, missing,
        tables.sources,
    )  # fmt: skip
    return identified(out)


def build_lowered(lowered: Any, title: str = "", name_file: NameFile | None = None) -> wire.Recording:
    """The wire data of one `tinyengine.pipeline.Lowered` that was not run."""
    return build_parts(Parts.of(lowered, title or "lowered"), name_file)


def build_parts(parts: Parts, name_file: NameFile | None = None) -> wire.Recording:
    """The wire data of one program of which only some stages may be known."""
    tables = Tables(name_file)
    p = program(parts, tables)
    out = wire.Recording(
        wire.VERSION, "", parts.name, datetime.now(UTC).isoformat(timespec="seconds"), engine_version(), parts.backend,
        machine_of(parts.machine), tables.files, tables.lines, tables.rules, [p], [], [], [], missing=["it was lowered, not run"],
        sources=tables.sources,
    )  # fmt: skip
    return identified(out)


def sampled(p: wire.Program, runs: Runs, parts: Parts, tables: Tables) -> None:
    """Take over what was seen of values."""
    number = {n: p.recorded[i] for i, n in enumerate(parts.graph.nodes)}
    if runs.values is not None and runs.values.left_out:
        kept = len(runs.values.series)
        p.missing.append(
            f"{runs.values.left_out} of {runs.values.left_out + kept} values were not sampled: a program has at most {kept}"
        )
    for s in runs.values.series if runs.values is not None else ():
        if not s.samples:
            continue
        columns = wire.Samples(*([getattr(x, f.name) for x in s.samples] for f in fields(wire.Samples)))
        picture = None if s.picture is None else wire.Tiles(**vars(s.picture))
        w = s.watched
        shape = [most(d) for d in w.node.shape]
        p.values.append(wire.Series(w.name, w.kind, w.module, number.get(w.node, -1), shape, columns, picture))
    found = runs.finite.found
    if found is not None:
        p.faults.append(fault(p, found, number, tables))


def fault(p: wire.Program, found: Found, number: dict[Any, int], tables: Tables) -> wire.Fault:
    """A fault with the kernels that it reached, in the order in which they ran."""
    f = found.fault
    bad = {became(p, number[n]) for n in found.bad if n in number}
    kernels = [i for i, k in enumerate(p.kernels) if bad.intersection(k.nodes)]
    if f is None:
        return wire.Fault(found.run, "", -1, -1, kernels, sentence(found))
    made = became(p, number[f.node]) if f.node in number else -1
    kernels.sort(key=lambda i: made not in p.kernels[i].nodes)
    frames = f.node.origin[0].frames if f.node.origin else ()
    line = tables.line(frames[0]) if frames else -1
    return wire.Fault(found.run, f.what, number.get(f.node, -1), line, kernels, sentence(found))


def name_programs(programs: list[wire.Program], realized: list[wire.Realized]) -> None:
    """Name each by what its nodes are for, and by what asked for it."""
    for i, p in enumerate(programs):
        phases = {p.nodes.phase[n] for n in p.recorded if p.nodes.src[n]}
        step, both = ("backward", "optimizer"), ("backward",)
        kinds = (step, "training step"), (("optimizer",), "optimizer"), (both, "forward and backward")
        what = next((name for need, name in kinds if phases.issuperset(need)), "forward")
        cause = next((r.cause for r in realized if r.program == i), "")
        p.name = what + (f", for {cause}" if cause.isidentifier() else f": {cause}" if cause else "")
    names = [p.name for p in programs]
    for i, p in enumerate(programs):
        if names.count(p.name) > 1:
            p.name += f" #{names[: i + 1].count(names[i])}"


def machine_of(m: Any) -> wire.Machine:
    if m is None:
        return wire.Machine("", os.cpu_count() or 0)
    peaks = {"flops_per_second": m.fma_flops_all, "launch_seconds": m.launch_seconds, "start_seconds": m.start_seconds}
    peaks |= {f"{level}_bytes_per_second": x for level, x in m.read_all.items()}
    peaks |= {"l1_bytes": float(m.l1_bytes * m.cores), "l2_bytes": float(m.l2_bytes * m.cores), "l3_bytes": float(m.l3_bytes)}
    peaks |= {"vector_bytes": float(m.vector_bytes), "vector_registers": float(m.vector_registers)}
    return wire.Machine(m.name, m.cores, peaks, m.source + (f", {m.date}" if m.date else ""))


def engine_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tinyviz-lab")
    except PackageNotFoundError:
        return "from source"


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:200]
