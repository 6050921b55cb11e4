"""What is wrong with a kernel or a program, or right: coded findings, each a sentence with its evidence and what mending it can
gain at most. Everything said comes from recorded numbers and Decisions; where a number is missing, nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tinyviz.findings import data, kernels, program, work
from tinyviz.viewdata import Diagnosis, RoofPoint
from tinyviz.wire import Program, Recording

#: about one kernel and its time in seconds
KERNEL: tuple[Callable[[Recording, Program, RoofPoint, float], Diagnosis | None], ...] = (
    kernels.ablated, kernels.launch_bound, kernels.near_a_roof, kernels.transcendental, kernels.far_from_roofs,
    kernels.one_thread, kernels.not_vectorised, work.recompute, work.masked_tail, work.converts, data.gather, data.strided,
    data.subnormal,
)  # fmt: skip

PART = 1e-3  # of a run: a fault of kernels that costs less is not worth a sentence
STATES = ("compute-bound", "memory-bound", "transcendental", "ablation")  # what is so, whatever it could gain

#: about a program and its runs
PROGRAM: tuple[Callable[[Recording, Program], Iterator[Diagnosis]], ...] = (
    program.host_bound, program.starved, program.compile_bound, program.compiled_again, program.in_pieces, program.stored_once,
    program.one_buffer,
)  # fmt: skip


def diagnose(r: Recording, p: Program, points: list[RoofPoint]) -> list[Diagnosis]:
    """All findings that are worth it, largest gain first; equal ones about several kernels are one."""
    out = [d for f in PROGRAM for d in f(r, p)]
    times = [x.seconds if x.seconds is not None else x.seconds_predicted for x in points]
    run = p.launches.host_median or sum(time or 0.0 for time in times)
    for x, time in zip(points, times, strict=True):
        if time is not None and time > 0:
            out += [d for g in KERNEL if (d := g(r, p, x, time)) is not None]
    worth = [d for d in grouped(out) if d.kernel < 0 or d.code in STATES or d.gain is None or d.gain >= PART * run]
    return sorted(worth, key=lambda d: (-(d.gain or 0.0), d.kernel, d.code))


def grouped(found: list[Diagnosis]) -> list[Diagnosis]:
    """The same sentence about several kernels once, with the evidence of the one that can gain most; the gains add up."""
    by: dict[tuple[str, str], list[Diagnosis]] = {}
    for d in found:
        by.setdefault((d.code, d.sentence if d.kernel >= 0 else d.sentence + d.evidence), []).append(d)
    out = []
    for same in by.values():
        same.sort(key=lambda d: (-(d.gain or 0.0), d.kernel))
        first = same[0]
        gains = [d.gain for d in same if d.gain is not None]
        first.gain = sum(gains) if gains else None
        first.also = [d.kernel for d in same[1:]]
        out.append(first)
    return out
