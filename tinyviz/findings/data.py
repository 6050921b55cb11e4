"""Findings about the data that a kernel touches: scattered, strided, or so small that the hardware is slow with it."""

from __future__ import annotations

import re

from tinyviz import units
from tinyviz.findings.common import FAR, ITEM, nbytes, said
from tinyviz.findings.kernels import short
from tinyviz.viewdata import Diagnosis, RoofPoint
from tinyviz.wire import Program, Recording

LINE = 64  # bytes of a cache line
MANY = 0.01  # of the elements
_LOAD = re.compile(r"(\w+)\[([^\[\]]*)\]")


def gather(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """Reads at places that depend on data, of a table larger than a fast cache, far from what memory allows."""
    if x.seconds_roof is None or x.seconds_roof > FAR * time or short(r, p, x, time):
        return None
    tables = [(nbytes(p, p.nodes.src[n][0]), n) for n in p.kernels[x.kernel].nodes if p.nodes.op[n] == "gather"]
    size, n = max(tables, default=(0, -1))
    fast = r.machine.peaks.get("l2_bytes", 0.0)
    if n < 0 or not fast or size <= fast:
        return None
    why = "It gathers from a table larger than the cache: no prefetcher knows which line comes next."
    took = f"{said(x)} {units.seconds(time)}, the roof allows {units.seconds(x.seconds_roof)}"
    evidence = f"table of {units.nbytes(size)}, L2 holds {units.nbytes(fast)}; {took}"
    return Diagnosis("gather", x.kernel, why, evidence, x.wasted, -1)


def strided(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """Along the vectorised loop an operand is read with a stride, so that every element costs a cache line of its own."""
    part = FAR if x.roof == "arithmetic" else 0.5
    if x.wasted is None or x.seconds_roof is None or x.seconds_roof > part * time or short(r, p, x, time):
        return None
    k = p.kernels[x.kernel]
    vector = next((step[len("vectorize(") :].partition(",")[0] for step in k.schedule if step.startswith("vectorize(")), "")
    if not vector:
        return None
    packed = {step[len("pack(") :].partition(",")[0] for step in k.schedule if step.startswith("pack(")}
    shapes = {
        m[1]: (m[2], [int(d) for d in m[3].split(",") if d.strip()])
        for m in re.finditer(r"(\w+): (\w+)\[([\d, ]*)\]", k.loops.text[0] if k.loops.text else "")
    }
    for text in k.loops.text[1:]:
        for name, inside in _LOAD.findall(text.partition("=")[2]):
            index = [part.strip() for part in inside.split(",")]
            if name not in shapes or name in packed or len(index) != len(shapes[name][1]) or len(index) < 2:
                continue
            dtype, shape = shapes[name]
            axes = [i for i, part in enumerate(index) if re.search(rf"\b{re.escape(vector)}\b", part)]
            stride = 1
            for d in shape[axes[-1] + 1 :] if axes else ():
                stride *= d
            if axes and stride * ITEM.get(dtype, 1) >= LINE:
                why = (
                    "It reads an operand along the wrong axis: each element that a vector needs lies in a cache line of its own."
                )
                step = f"{name}[{inside}] steps by {stride * ITEM.get(dtype, 1)} bytes along the vectorised loop {vector}"
                evidence = f"{step}; {said(x)} {units.seconds(time)}"
                return Diagnosis("strided", x.kernel, why, evidence, x.wasted, -1)
    return None


def subnormal(r: Recording, p: Program, x: RoofPoint, time: float) -> Diagnosis | None:
    """Numbers so small that many processors handle them in microcode."""
    own = set(p.kernels[x.kernel].nodes)
    for s in p.values:
        share = s.samples.subnormal[-1] if s.samples.subnormal else 0.0
        if s.node in own and share >= MANY:
            why = "It makes subnormal numbers, which many processors handle a hundred times more slowly: scale, or clamp to 0."
            evidence = f"{units.percent(share)} of {s.name} ({s.kind}) in run {s.samples.run[-1]} are smaller than 1.2e-38"
            return Diagnosis("denormals", x.kernel, why, evidence, x.wasted, -1)
    return None
