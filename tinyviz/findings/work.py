"""Findings about what a kernel computes: the same again, for lanes that are masked off, or nothing but conversions."""

from __future__ import annotations

import re

from tinyviz import units
from tinyviz.findings.common import decisions, said
from tinyviz.findings.kernels import short
from tinyviz.viewdata import Diagnosis, RoofPoint
from tinyviz.wire import Program, Recording

MUCH = 0.5  # of a kernel's FLOPs
IDLE = 0.25  # of the lanes
_LOOP = re.compile(r"^\s*(?:parallel |reduce |unroll )?(?:for )?(?:reduce |parallel )?(\w+) in (\d+)\.\.(\d+)")
_VECTORIZE = re.compile(r"vectorize\((\w+), (\d+)\)")
_MOVES = {"buffer", "const", "reshape", "permute", "expand", "pad", "shrink", "flip", "cast", "bitcast", "contiguous", "assign"}


def recompute(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """Arithmetic bounds the kernel, most of it is done again, and that takes longer than storing one of the values would."""
    k = p.kernels[x.kernel]
    bound = k.bound if k.ablation is None else {"arithmetic": "compute"}.get(k.ablation.bound, k.ablation.bound)
    if not k.flops or bound not in ("compute", "both") or short(r, p, x, time):
        return None
    again, price, worst, at = 0.0, 0.0, 0.0, -1
    index = decisions(p)
    values = {p.decisions[i].nodes[0]: i for node in dict.fromkeys(k.nodes) for i in index.inline.get(node, ())}
    for value, i in values.items():
        numbers = p.decisions[i].numbers
        if "seconds_whole" not in numbers:
            continue  # it cannot be stored
        # what is counted is of all kernels that have the value: equal parts
        extra = numbers.get("flops_recomputed", 0.0) / max(len(index.kernels(p, value)), 1)
        again += extra
        if extra > worst:
            worst, price, at = extra, numbers["seconds_whole"], i
    launches = sum(c.kernel == x.kernel for c in p.calls)
    gain = min(time * again / k.flops, time if x.wasted is None else x.wasted) - price * launches
    if again < MUCH * k.flops or gain <= 0:
        return None
    d = p.decisions[at]
    node = d.nodes[0]
    times = d.numbers["evaluations"] / max(d.numbers["elements"], 1.0)
    why = "Most of its arithmetic computes again what is known: storing the value once would cost memory traffic instead."
    part = f"{units.count(again)} of {units.count(k.flops)} FLOPs"
    evidence = (
        f"%{node} {p.nodes.op[node]} is computed {times:.3g} times for each element; {part};"
        f" storing it is predicted to take {units.seconds(price * launches)}"
    )
    return Diagnosis("recompute", x.kernel, why, evidence, gain, at)


def masked_tail(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """A vectorised loop is so short, or so odd, that many lanes do nothing."""
    if short(r, p, x, time):
        return None
    k = p.kernels[x.kernel]
    extents = {m[1]: int(m[3]) - int(m[2]) for text in k.loops.text if (m := _LOOP.match(text))}
    for step in k.schedule:
        m = _VECTORIZE.match(step)
        extent = extents.get(m[1]) if m else None
        if m is None or not extent:
            continue
        lanes = int(m[2])
        idle = 1 - extent / (-(-extent // lanes) * lanes)
        if idle >= IDLE:
            why = "Lanes stand idle: the vectorised loop is no multiple of the vector, and what is left over is masked."
            evidence = (
                f"loop {m[1]} has {extent} iterations for vectors of {lanes}: {units.percent(idle)} of the lanes do nothing"
            )
            return Diagnosis("masked-tail", x.kernel, why, evidence, time * idle, -1)
    return None


def converts(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """It does nothing but change dtypes or move data."""
    k = p.kernels[x.kernel]
    ops = {p.nodes.op[n] for n in k.nodes}
    casts = [n for n in k.nodes if p.nodes.op[n] == "cast"]
    if not casts or ops - _MOVES or short(r, p, x, time):
        return None
    n = casts[0]
    of = p.nodes.src[n][0]
    why = "It only converts: with the dtype that its reader wants from the beginning, it would not be there."
    evidence = f"{said(x)} {units.seconds(time)} to turn {p.nodes.dtype[of]} into {p.nodes.dtype[n]}, {units.nbytes(x.nbytes)}"
    return Diagnosis("conversion", x.kernel, why, evidence, time, -1)
