"""Findings about a whole program and its runs: time outside of kernels, compiling, and memory."""

from __future__ import annotations

from collections.abc import Iterator

from tinyviz import analysis, units
from tinyviz.findings.common import nbytes
from tinyviz.viewdata import Diagnosis
from tinyviz.wire import Program, Recording

OFTEN = 3  # misses of one cache with guards of one kind
PIECES = 10  # computations that were forced
BIG_BYTES = 1 << 20
MOST = 0.5  # of the arena


def host_bound(r: Recording, p: Program) -> Iterator[Diagnosis]:
    host, kernels = analysis.host_seconds(p), sum(analysis.typical(p)[0]) or None
    if host is None or kernels is None or host <= kernels:
        return
    why = "More time passes around the kernels than in them: larger batches, or fewer and larger programs, would use the machine."
    evidence = f"of one run, {units.seconds(kernels)} are kernels and {units.seconds(host)} are not"
    yield Diagnosis("host-bound", -1, why, evidence, host, -1)


def starved(r: Recording, p: Program) -> Iterator[Diagnosis]:
    """Between its runs more time passes than in them: the program waits for the next batch."""
    n = p.launches
    if n.gap_median is None or n.gap_low is None or n.host_median is None or n.count < OFTEN or n.gap_low <= n.host_median:
        return
    why = "It waits for Python between its runs longer than it runs: prepare batches ahead of time, or do more in the step."
    runs = units.some(n.count, "run")
    evidence = f"median of {runs} {units.seconds(n.host_median)}, between them {units.seconds(n.gap_median)}"
    loading = next((w for w in r.waits if w.reason == "data.batches"), None)
    if loading is not None:
        evidence += f"; data.batches took {units.seconds(loading.seconds / max(loading.count, 1))} for each batch"
    yield Diagnosis("starved", -1, why, evidence, n.gap_median, -1)


def compile_bound(r: Recording, p: Program) -> Iterator[Diagnosis]:
    spent = sum(s.seconds or 0.0 for s in p.stages)
    if p.launches.count < 2 or spent <= p.launches.host_total:
        return
    slowest = max(p.stages, key=lambda s: s.seconds or 0.0)
    why = "Compiling it took longer than all its runs together; another process will find it on disk."
    compiled = f"{units.seconds(spent)} to compile ({slowest.name} {units.seconds(slowest.seconds)})"
    evidence = f"{compiled}, {units.seconds(p.launches.host_total)} in {units.some(p.launches.count, 'run')}"
    yield Diagnosis("compile-bound", -1, why, evidence, spent, -1)


def compiled_again(r: Recording, p: Program) -> Iterator[Diagnosis]:
    """The same function is compiled again and again, because something about its arguments changes."""
    if p is not next(iter(sorted(r.programs, key=lambda q: -q.launches.count)), None):
        return  # it is about the recording: said once
    misses: dict[tuple[str, str], list[str]] = {}
    for c in sorted(r.caches, key=lambda c: c.cache != "jit"):
        if not c.hit and c.cache in ("jit", "program") and c.guard not in ("first call", "new graph", "new kernel", ""):
            misses.setdefault((c.cache, c.guard), []).extend([f"{c.old} → {c.new}"] * c.count)
    spent = [sum(s.seconds or 0.0 for s in q.stages) for q in r.programs]
    told: set[str] = set()
    for (cache, guard), changes in misses.items():
        # what jit missed, the program cache missed for the same reason
        if len(changes) >= OFTEN and not told.issuperset(changes):
            told.update(changes)
            why = f"It is compiled again and again, because the {guard} changes: pass it as a tensor, or keep sizes equal."
            evidence = f"{len(changes)} misses of the cache “{cache}”, such as {changes[-1]}"
            yield Diagnosis("compiled-again", -1, why, evidence, sum(spent) - max(spent) or None, -1)  # one would do


def in_pieces(r: Recording, p: Program) -> Iterator[Diagnosis]:
    """Values are asked for in the middle of the work, so that it runs as many small programs."""
    if r.programs.index(p) != max(range(len(r.programs)), key=lambda i: r.programs[i].launches.host_total):
        return
    forced = [x for x in r.realized if x.line >= 0 and x.cause not in ("step", "realize")]
    count = sum(x.count for x in forced)
    if len({x.line for x in forced}) < 2 or count < PIECES:
        return
    worst = max(forced, key=lambda x: x.count)
    why = "Lazy values are forced at several lines, so that the work runs in pieces: one jitted step would be one program."
    line = f"{r.files[r.lines.file[worst.line]].name}:{r.lines.line[worst.line]}"
    yield Diagnosis(
        "in-pieces", -1, why, f"{count} computations were forced, {worst.count} of them by {worst.cause} at {line}", None, -1
    )


def stored_once(r: Recording, p: Program) -> Iterator[Diagnosis]:
    """A large value goes to memory although one kernel alone reads it."""
    rate = r.machine.peaks.get("dram_bytes_per_second")
    made = {n: i for i, k in enumerate(p.kernels) for n in k.nodes}
    found = []
    for i, d in enumerate(p.decisions):
        refused = d.alternatives.get("inline") or d.alternatives.get("at loop")
        if (
            d.stage != "fuse"
            or d.kind != "edge"
            or not d.verdict.startswith("whole")
            or len(d.nodes) != 2
            or not refused
            or not rate
        ):
            continue
        a, b = d.nodes
        size = nbytes(p, a)
        readers = {j for j, k in enumerate(p.kernels) if b in k.nodes}
        if size >= BIG_BYTES and a in made and len(readers) == 1 and made[a] not in readers:
            found.append((size, i, a, refused))
    if found and rate:
        size, i, a, refused = max(found)
        why = f"A large value goes to memory to be read by one kernel alone; it was not fused: {refused}."
        evidence = f"%{a} {p.nodes.op[a]} of {units.nbytes(size)} is written and read once" + (
            f"; so are {len(found) - 1} more" if len(found) > 1 else ""
        )
        yield Diagnosis("stored-once", made[a], why, evidence, 2 * size / rate, i)


def one_buffer(r: Recording, p: Program) -> Iterator[Diagnosis]:
    """One temporary is most of the peak."""
    arena = p.arena_bytes or 0
    biggest = max((s for s in p.slots if s.role == "temporary"), key=lambda s: s.nbytes, default=None)
    if biggest is None or arena < BIG_BYTES or biggest.nbytes < MOST * arena:
        return
    kernel = p.calls[biggest.first].kernel if 0 <= biggest.first < len(p.calls) else -1
    why = (
        "One value is most of the memory that the program needs for itself: computing it again where it is used would shrink it."
    )
    alive = f"alive from launch {biggest.first} to {biggest.last}"
    evidence = f"{biggest.name} of {units.nbytes(biggest.nbytes)} in an arena of {units.nbytes(arena)}, {alive}"
    if biggest.again and not biggest.kept:
        tried = next((x for x in p.recomputed if x.slots == [p.slots.index(biggest)]), None)
        change = units.change(tried.peak - tried.peak_before, "bytes") if tried is not None else ""
        evidence += f"; computed again the peak changes by {change}" if tried else f"; rec.recompute({biggest.name!r}) tells"
    yield Diagnosis("one-buffer", kernel, why, evidence, None, -1)
