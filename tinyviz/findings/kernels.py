"""Findings from a kernel's time beside the machine's roofs, and from what the schedule refused."""

from __future__ import annotations

from tinyviz import units
from tinyviz.findings.common import BIG, FAR, NEAR, WAKE, about, said
from tinyviz.viewdata import Diagnosis, RoofPoint
from tinyviz.wire import Program, Recording


def launch_bound(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    launch = r.machine.peaks.get("launch_seconds")
    launches = sum(c.kernel == x.kernel for c in p.calls)
    if not launch or not launches or time >= launch * launches:
        return None
    why = "A launch that all threads join costs more than the whole kernel: only joining it with a neighbour can make it cheaper."
    ran = units.some(launches, "launch")
    evidence = f"{said(x)} {units.seconds(time)} in {ran}; such a launch costs {units.seconds(launch)}"
    return Diagnosis("launch-bound", x.kernel, why, evidence, time, -1)


def near_a_roof(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    if x.seconds_roof is None or x.seconds_roof < NEAR * time or short(r, p, x, time):
        return None
    evidence = f"{said(x)} {units.seconds(time)}; the roof “{x.roof}” allows {units.seconds(x.seconds_roof)}"
    if x.seconds_roof > time:
        evidence += " (the recorded peak is too low)"
    if x.roof == "arithmetic":
        why = "Bound by arithmetic, near its roof: only fewer FLOPs make it faster."
        return Diagnosis("compute-bound", x.kernel, why, f"{evidence}, for {units.count(x.flops)} FLOPs", x.wasted, -1)
    why = f"Bound by memory ({x.roof}), near its roof: only fewer bytes make it faster, by fusion or a narrower dtype."
    rate = f", for {units.nbytes(x.nbytes)} at {units.nbytes((x.nbytes or 0) / time)}/s"
    return Diagnosis("memory-bound", x.kernel, why, evidence + rate, x.wasted, -1)


EXPANDED = {"exp", "exp2", "log", "sin", "tanh", "erf", "threefry"}  # one FLOP each in the definition, many instructions each


def transcendental(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """Functions that are one FLOP each by definition explain its time, once they are counted as the polynomials that they are."""
    k, flat = p.kernels[x.kernel], r.machine.peaks.get("flops_per_second")
    ops = sorted({p.nodes.op[n] for n in k.nodes} & EXPANDED)
    if not flat or not ops or not k.flops_expanded or x.seconds_roof is None or short(r, p, x, time):
        return None
    needed = k.flops_expanded / flat * sum(c.kernel == x.kernel for c in p.calls)
    if needed < FAR * time or x.seconds_roof > FAR * time:
        return None
    why = f"Its arithmetic is {', '.join(ops)}, of many instructions each: only fewer or simpler functions make it faster."
    evidence = (
        f"{said(x)} {units.seconds(time)}; {units.count(k.flops)} FLOPs are {units.count(k.flops_expanded)} once these are"
        f" polynomials, which takes {units.seconds(needed)} at the arithmetic roof"
    )
    return Diagnosis("transcendental", x.kernel, why, evidence, max(time - needed, 0.0), -1)


EXPLAINED = {  # bound of the prediction -> why a kernel is far from its roofs though it takes the time that was predicted
    "compute": "its instructions take longer than the FLOPs that were asked for",
    "launch": "starting it takes longer than what it does",
    "L2": "it reads again from L2 what has left L1",
    "L3": "it reads again from L3 what has left L2",
    "memory": "it reads again from memory what has left the caches",
}


def far_from_roofs(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    if x.seconds_roof is None or x.seconds_roof > FAR * time or short(r, p, x, time):
        return None
    if transcendental(r, p, x, time) is not None:
        return None
    k = p.kernels[x.kernel]
    launches = sum(c.kernel == x.kernel for c in p.calls)
    most = k.seconds_predicted_high
    evidence = (
        f"{said(x)} {units.seconds(time)}; the nearest roof “{x.roof}” allows {units.seconds(x.seconds_roof)},"
        f" {units.count(time / x.seconds_roof) if x.seconds_roof else 'many'} times less"
    )
    if k.bound in EXPLAINED and most is not None and time <= most * launches:
        why = f"Far from every roof, as predicted: {EXPLAINED[k.bound]}."
    elif x.seconds is not None and most is not None:
        why = "Far from every roof, and slower than its instructions and its memory traffic let one expect."
    else:
        why = "Far from every roof: neither arithmetic nor memory explains its time."
    if x.seconds is not None and x.seconds_predicted is not None:
        evidence += f"; predicted {units.seconds(x.seconds_predicted)}" + (f", bound by {k.bound}" if k.bound else "")
    return Diagnosis("far-from-roofs", x.kernel, why, evidence, x.wasted, -1)


MADE_FREE = {"memory": "its memory traffic", "arithmetic": "its arithmetic", "launch": "its launch"}


def ablated(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """What an ablation measured: the part of a kernel without which it would be faster, and by how much."""
    a = p.kernels[x.kernel].ablation
    if a is None:
        return None
    loads, arithmetic, empty = (t.low / a.whole.low if a.whole.low else 0.0 for t in (a.loads, a.arithmetic, a.empty))
    launches = sum(c.kernel == x.kernel for c in p.calls)
    gain: float | None = None
    if a.bound in MADE_FREE:
        left = {"memory": a.arithmetic.low, "arithmetic": a.loads.low, "launch": a.whole.low - a.empty.low}[a.bound]
        gain = max(a.whole.low - left, 0.0) * launches
        why = f"Measured: what holds it up is {MADE_FREE[a.bound]}."
    elif a.bound == "both":
        gain, why = 0.0, "Measured: memory traffic and arithmetic take as long each, so making one of them cheaper gains little."
    else:
        gain = max(a.whole.low - max(a.loads.low, a.arithmetic.low), 0.0) * launches
        why = "Measured: neither memory traffic nor arithmetic alone explains its time; they wait for each other."
    evidence = (
        f"loads and stores alone take {units.percent(loads)} of its time, arithmetic alone {units.percent(arithmetic)},"
        f" an empty kernel {units.percent(empty)}; {units.some(a.whole.runs, 'run')}; predicted: {a.predicted}"
    )
    return Diagnosis("ablation", x.kernel, why, evidence, gain, -1)


def one_thread(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """All steps of the kernel run on one thread, though its time is worth waking the others."""
    launch = r.machine.peaks.get("launch_seconds")
    ran = list(about(p, x.kernel, "emit", "threads"))
    if not launch or not ran or any(d.verdict != "one thread" for _, d in ran):
        return None
    threads = max(d.numbers.get("threads", 1.0) for _, d in ran)
    launches = sum(c.kernel == x.kernel for c in p.calls)
    if threads < 2 or time < BIG * max(launch, WAKE) * launches:
        return None
    refused = [(i, d) for i, d in about(p, x.kernel, "schedule", "parallel") if d.verdict in ("none", "refused")]
    at, decision = max(refused, key=lambda found: found[1].numbers.get("cycles", 0.0)) if refused else ran[0]
    gain = time * (1 - 1 / threads) - launch * launches
    gain = gain if x.wasted is None else min(gain, x.wasted)
    why = f"It runs on one thread of {threads:.0f}, though it is big enough for all: {decision.reason}."
    evidence = f"{said(x)} {units.seconds(time)}; a launch that all threads join costs {units.seconds(launch)}"
    cycles = decision.numbers.get("cycles", decision.numbers.get("estimated_cycles"))
    evidence += f"; {units.count(cycles)} cycles of work" if cycles is not None else ""
    return Diagnosis("one-thread", x.kernel, why, evidence, max(gain, 0.0), at)


def not_vectorised(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """No loop of the kernel is vectorised, and a Decision says why."""
    if any(step.startswith("vectorize(") for step in p.kernels[x.kernel].schedule):
        return None
    if x.wasted is None or short(r, p, x, time):
        return None
    refused = [(i, d) for i, d in about(p, x.kernel, "schedule", "vectorize") if d.verdict in ("none", "refused")]
    if not refused:
        return None
    at, decision = refused[0]
    why = f"No loop of it is vectorised, because {decision.reason}."
    evidence = f"{said(x)} {units.seconds(time)}; refused for loop {decision.subject.rpartition(' -> ')[2]}"
    return Diagnosis("not-vectorised", x.kernel, why, evidence, x.wasted, at)


def short(r: Recording, p: Program, x: RoofPoint, time: float) -> bool:
    """Shorter than its launches, so what it does inside hardly matters."""
    return launch_bound(r, p, x, time) is not None
