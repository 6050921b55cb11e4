"""What several views compute from a program: rows of kernels and of lines. A number that was not recorded stays None."""

from __future__ import annotations

from collections.abc import Iterable

from tinyviz.viewdata import KernelRow, LineRow
from tinyviz.wire import PHASES, Kernel, Program


def total(values: Iterable[float | None]) -> float | None:
    """The sum, or None when any part is missing: half a sum is a made-up number."""
    out = 0.0
    for v in values:
        if v is None:
            return None
        out += v
    return out


def kernel_rows(p: Program) -> list[KernelRow]:
    """One row per kernel, in the order of the program; figures are of all its launches in one run."""
    timed = p.launches.median
    of: dict[int, list[int]] = {}
    for c, call in enumerate(p.calls):
        of.setdefault(call.kernel, []).append(c)
    rows = []
    for i, k in enumerate(p.kernels):
        calls = of.get(i, [])
        n = len(calls)
        times = [sum(column[c] for c in calls) if column else None for column in (timed, p.launches.low, p.launches.high)]
        phases = kernel_phases(p, k)
        predicted, flops = times_of(k.seconds_predicted, n), whole(k.flops, n)
        read, written = whole(k.bytes_read, n), whole(k.bytes_written, n)
        rows.append(KernelRow(i, calls, times[0], times[1], times[2], predicted, None, flops, read, written, k.bound, phases))
    sums = total(r.seconds for r in rows)
    for r in rows:
        r.share = r.seconds / sums if r.seconds is not None and sums else None
    return rows


def kernel_phases(p: Program, k: Kernel) -> list[str]:
    """The phases that a kernel works for: the one with most of its time first."""
    time: dict[str, float] = {}
    for phase, share in zip(k.shares.phase, k.shares.share, strict=True):
        time[phase] = time.get(phase, 0.0) + share
    if not time:  # shares are not known
        found = {x for node in k.nodes for x in phases_of(p, node)}
        return [x for x in PHASES if x in found]
    return sorted(time, key=lambda x: (-time[x], x))


def line_shares(k: Kernel) -> list[tuple[int, str, float]]:
    """(line, phase, share) by falling share: stacks that end on the same line are one."""
    out: dict[tuple[int, str], float] = {}
    for line, phase, share in zip(k.shares.line, k.shares.phase, k.shares.share, strict=True):
        out[line, phase] = out.get((line, phase), 0.0) + share
    return sorted([(line, phase, share) for (line, phase), share in out.items()], key=lambda x: -x[2])


def phases_of(p: Program, node: int) -> list[str]:
    return [p.origins.phase[o] for o in p.nodes.origins[node]] or [p.nodes.phase[node]]


def times_of(value: float | None, n: int) -> float | None:
    return None if value is None else value * n


def whole(value: int | None, n: int) -> int | None:
    return None if value is None else value * n


def typical(p: Program) -> tuple[list[float], float | None]:
    """(seconds of each call, seconds of the run around them) of a typical run: means, which add up. A sum of medians is not the
    median of the sums: where runs are disturbed at different places each, it falls short by what disturbs them."""
    ran = p.launches
    return (ran.typical, ran.host_typical) if ran.typical else (ran.median, ran.host_median)


def host_seconds(p: Program) -> float | None:
    """Time of a typical run outside of kernels: around the native call, less the kernels."""
    kernels, run = typical(p)
    return None if run is None or not kernels else max(run - sum(kernels), 0.0)


def line_rows(p: Program) -> tuple[list[LineRow], bool]:
    """(rows by falling time, whether the times are measured). Kernel times are split by the shares of lines; what a kernel
    charges to no line, and the time outside of kernels, is the row of line -1. The shares of all rows sum to 1."""
    rows = kernel_rows(p)
    measured, times = bool(p.launches.median), typical(p)[0]
    out: dict[int, LineRow] = {}

    def row(line: int) -> LineRow:
        return out.setdefault(line, LineRow(line, None, None, None, {}, None, None, None, []))

    for k in rows:
        shares = p.kernels[k.kernel].shares
        parts = list(zip(shares.line, shares.phase, shares.share, strict=True)) or [(-1, "forward", 1.0)]
        seconds = sum(times[c] for c in k.calls) if measured else None
        for line, phase, share in parts:
            x = row(line)
            x.seconds = plus(x.seconds, seconds, share)
            x.seconds_predicted = plus(x.seconds_predicted, k.seconds_predicted, share)
            time = seconds if measured else k.seconds_predicted
            x.by_phase[phase] = plus(x.by_phase.get(phase), time, share)
            x.bytes_read = plus(x.bytes_read, k.bytes_read, share)
            x.bytes_written = plus(x.bytes_written, k.bytes_written, share)
            x.flops = plus(x.flops, k.flops, share)
            if k.kernel not in x.kernels:
                x.kernels.append(k.kernel)
    outside = host_seconds(p)
    if outside is not None:
        row(-1).seconds = (row(-1).seconds or 0.0) + outside
    sums = sum((r.seconds if measured else r.seconds_predicted) or 0.0 for r in out.values())
    for r in out.values():
        mine = r.seconds if measured else r.seconds_predicted
        r.share = mine / sums if mine is not None and sums else None
    return sorted(out.values(), key=lambda r: (r.line < 0, -(r.share or 0.0), r.line)), measured


def plus(sum_so_far: float | None, value: float | None, share: float) -> float | None:
    return sum_so_far if value is None else (sum_so_far or 0.0) + value * share


def node_kernels(p: Program) -> dict[int, list[int]]:
    """Node id -> kernels that compute it; several where it is recomputed."""
    out: dict[int, list[int]] = {}
    for i, k in enumerate(p.kernels):
        for n in k.nodes:
            out.setdefault(n, []).append(i)
    return out


def flag(p: Program, kernel: int) -> str:
    """'▲ NaN' of the kernel that made the first one, '▲ NaN from before' of those that it reached; else nothing."""
    found = next((f for f in p.faults if kernel in f.kernels), None)
    if found is None:
        return ""
    return f"▲ {found.what or 'not finite'}" + ("" if found.kernels[0] == kernel else " from before")
