"""roofline: how far is each kernel from what this machine can do, and what would make it faster?"""

from __future__ import annotations

import math

from tinyviz import analysis, findings, texts, units
from tinyviz.svg import LINE, Svg, css, cut, wrap
from tinyviz.viewdata import Diagnosis, KernelRow, Roof, RooflineData, RoofPoint
from tinyviz.views import base, choose
from tinyviz.wire import PHASES, Program, Recording, Selection

NAME = "roofline"
HOWTO = (
    "To the right: more FLOPs for each byte that a kernel moves. Upwards: more FLOPs per second. Both axes are logarithmic.",
    "Slanting roofs are memory, one per cache level; the flat one is arithmetic. ● is measured, ○ predicted before the run.",
    "Wasted is the time above the nearest roof whose level can hold the program's memory; kernels are sorted by it.",
)
LEVELS = (("l1", "L1"), ("l2", "L2"), ("l3", "L3"), ("dram", "memory"))


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> RooflineData:
    at = choose(r, program, selection)
    p = r.programs[at]
    peaks = roofs(r)
    size = p.certificate.peak_bytes
    points = [_point(row, peaks, size) for row in analysis.kernel_rows(p)]
    points.sort(key=lambda x: (-(x.wasted if x.wasted is not None else -1.0), x.kernel))
    return RooflineData(
        **base(NAME, f"Roofline: {p.name}", HOWTO, PHASES, at), roofs=peaks, points=points,
        diagnoses=findings.diagnose(r, p, points), measured=bool(p.launches.median), peaks=r.machine.measured,
    )  # fmt: skip


def roofs(r: Recording) -> list[Roof]:
    """The machine's peaks, fastest memory first, then arithmetic; those that were not recorded are left out."""
    peaks = r.machine.peaks
    out = [
        Roof(name, peaks[f"{key}_bytes_per_second"], peaks.get(f"{key}_bytes"))
        for key, name in LEVELS
        if peaks.get(f"{key}_bytes_per_second", 0.0) > 0
    ]
    flops = peaks.get("flops_per_second", 0.0)
    return [*out, Roof("arithmetic", flops, None)] if flops > 0 else out


def _point(row: KernelRow, peaks: list[Roof], size: int | None) -> RoofPoint:
    moved = None if row.bytes_read is None or row.bytes_written is None else row.bytes_read + row.bytes_written
    time = row.seconds if row.seconds is not None else row.seconds_predicted
    found = nearest(peaks, row.flops, moved, size if size is not None else moved, time)
    name, at_roof = found if found is not None else ("", None)
    return RoofPoint(
        row.kernel, row.phases[0] if row.phases else "host", row.flops, moved,
        row.flops / moved if row.flops is not None and moved else None, _over(row.flops, row.seconds),
        _over(row.flops, row.seconds_predicted), name, at_roof, row.seconds, row.seconds_predicted,
        None if time is None or at_roof is None else max(time - at_roof, 0.0),
    )  # fmt: skip


def nearest(
    peaks: list[Roof], flops: int | None, moved: int | None, size: int | None, time: float | None
) -> tuple[str, float] | None:
    """(name, seconds) of the nearest roof that is not slower than `time`: first that of the level which holds `size` bytes, then
    those of the faster levels. None where counts or peaks are missing."""
    levels = [x for x in peaks if x.name != "arithmetic"]
    flat = next((x for x in peaks if x.name == "arithmetic"), None)
    if flops is None or moved is None or flat is None or not levels:
        return None
    fits = [i for i, x in enumerate(levels) if x.holds is not None and size is not None and size <= x.holds]
    home = fits[0] if fits else len(levels) - 1
    arithmetic = flops / flat.rate
    found = ("", 0.0)
    for x in levels[home::-1]:
        seconds = moved / x.rate
        found = (x.name, seconds) if seconds >= arithmetic else (flat.name, arithmetic)
        if time is None or found[1] <= time:
            break
    return found


def _over(flops: int | None, seconds: float | None) -> float | None:
    rate = flops / seconds if flops and seconds else math.inf
    return rate if math.isfinite(rate) and rate > 0 else None


def efficiency(x: RoofPoint) -> float | None:
    """Of the nearest roof's rate."""
    time = x.seconds if x.seconds is not None else x.seconds_predicted
    return x.seconds_roof / time if time and x.seconds_roof is not None else None


def text(r: Recording, d: RooflineData) -> str:
    p = r.programs[d.program]
    if d.roofs:
        rates = ", ".join(f"{x.name} {rate(x)}" for x in d.roofs)
        head = f"roofs of {r.machine.name or 'this machine'}, all cores ({d.peaks or 'source unknown'}): {rates}"
    else:
        head = f"roofs: {units.MISSING} the machine's peaks were not recorded"
    out = [texts.heading(d.title, d.howto) + head + ("" if d.measured else "\nnothing was measured: wasted time is predicted")]
    rows = []
    for x in d.points:
        rows.append([
            p.kernels[x.kernel].name, units.seconds(x.wasted), units.seconds(x.seconds), units.seconds(x.seconds_predicted),
            x.roof or units.MISSING, units.seconds(x.seconds_roof), units.percent(efficiency(x)),
            units.count(x.intensity), units.count(x.rate), units.count(x.rate_predicted), units.nbytes(x.nbytes),
        ])  # fmt: skip
    times, speeds = ["wasted", "measured", "predicted"], ["FLOPs/byte", "FLOP/s", "predicted", "bytes"]
    titles = ["kernel", *times, "roof", "at roof", "of roof", *speeds]
    out.append("kernels, most wasted time first\n" + texts.table(titles, rows, (1, 2, 3, 5, 6, 7, 8, 9, 10)))
    out.append(ablations(p, d))
    if d.diagnoses:
        rows = []
        for found in d.diagnoses:
            rows.append([about(p, found), found.code, units.seconds(found.gain), found.sentence])
            rows.append(["", "", "", f"  {found.evidence}"])
        out.append("diagnosis\n" + texts.table(["kernel", "finding", "gain, at most", "why, and the evidence"], rows, (2,)))
    else:
        out.append("diagnosis: nothing to report" if d.roofs else f"diagnosis: {units.MISSING} no peaks to compare with")
    return "\n\n".join(out)


def ablations(p: Program, d: RooflineData) -> str:
    """What ablating the kernels has measured, in the order of the kernels above."""
    rows = []
    for x in d.points:
        a = p.kernels[x.kernel].ablation
        if a is None:
            continue
        shares = [(t.low, t.low / a.whole.low if a.whole.low else None) for t in (a.loads, a.arithmetic, a.empty)]
        parts = [f"{units.seconds(seconds)} {units.percent(share)}" for seconds, share in shares]
        rows.append([p.kernels[x.kernel].name, units.seconds(a.whole.low), *parts, a.bound, a.predicted])
    if not rows:
        return f"ablation: {units.MISSING} no kernel was ablated; rec.ablate(KERNEL) measures what bounds one"
    head = ["kernel", "whole", "loads and stores", "arithmetic", "empty", "bound by", "predicted"]
    title = "ablation: each kernel beside what is left of it without the rest; one launch, first quartile of its runs"
    return f"{title}\n" + texts.table(head, rows, (1, 2, 3, 4))


def about(p: Program, found: Diagnosis) -> str:
    """'matmul_relu and 3 more', 'the program'."""
    if found.kernel < 0:
        return "the program"
    return p.kernels[found.kernel].name + (f" and {len(found.also)} more" if found.also else "")


def rate(x: Roof) -> str:
    return f"{units.flops(x.rate)}/s" if x.name == "arithmetic" else f"{units.nbytes(x.rate)}/s"


def ranges(d: RooflineData) -> tuple[float, float, float, float] | None:
    """(least, most FLOPs per byte, least, most FLOP/s), in decades around points and the ridges; None: nothing to draw."""
    flat = next((x.rate for x in d.roofs if x.name == "arithmetic"), None)
    slanted = [x.rate for x in d.roofs if x.name != "arithmetic"]
    if flat is None or not slanted:
        return None
    xs = [x.intensity for x in d.points if x.intensity] + [flat / s for s in slanted]
    ys = [v for x in d.points for v in (x.rate, x.rate_predicted) if v] + [flat]
    x0, x1 = math.floor(math.log10(min(xs)) - 0.2), math.ceil(math.log10(max(xs)) + 0.2)
    return x0, x1, math.floor(math.log10(min(ys)) - 0.2), math.ceil(math.log10(max(ys)) + 0.1)


LEFT, WIDE, HIGH = 70.0, 560.0, 330.0


def svg(r: Recording, d: RooflineData) -> str:
    p = r.programs[d.program]
    out = Svg(1000, d.title, d.howto, d.legend)
    top = out.y + 22
    _plot(out, d, top)
    y = top + 4
    out.text(660, y, "most wasted time first", "bold")
    out.text(988, y, "wasted   of roof", "faint end")
    for i, x in enumerate(d.points[:18]):
        y += LINE + 1
        mark = {c.name: c.mark for c in d.legend}.get(x.category, "")
        out.text(660, y, f"{mark} {i + 1}", "faint")
        out.text(692, y, cut(p.kernels[x.kernel].name, 24), "mono")
        out.text(930, y, units.seconds(x.wasted), "mono end")
        out.text(988, y, units.percent(efficiency(x)), "mono end")
    if len(d.points) > 18:
        out.text(660, y + LINE + 1, f"… and {len(d.points) - 18} more", "faint")
    out.y = max(y, top + HIGH + 54) + LINE + 8
    out.text(12, out.y, "diagnosis", "bold")
    for found in d.diagnoses[:12]:
        out.y += LINE + 6
        out.text(12, out.y, cut(about(p, found), 26), "mono", tip=about(p, found))
        out.text(220, out.y, found.code, "bold")
        out.text(420, out.y, f"≤ {units.seconds(found.gain)}", "mono end")
        for text, classes in ((found.sentence, ""), (found.evidence, "faint")):
            for row in wrap(text, 92):
                out.text(434, out.y, row, classes)
                out.y += LINE - 2
        out.y -= LINE - 2
    if len(d.diagnoses) > 12:
        out.text(12, out.y + LINE, f"… and {len(d.diagnoses) - 12} more: see the live view or the text", "faint")
    if not d.diagnoses:
        out.text(90, out.y, "nothing to report" if d.roofs else f"{units.MISSING} no peaks to compare with", "faint")
    return str(out)


def _plot(out: Svg, d: RooflineData, top: float) -> None:
    found = ranges(d)
    if found is None:
        out.text(12, top, f"{units.MISSING} the machine's peaks were not recorded: there are no roofs to draw", "faint")
        return
    x0, x1, y0, y1 = found

    def px(v: float) -> float:
        return LEFT + WIDE * (math.log10(v) - x0) / (x1 - x0)

    def py(v: float) -> float:
        return top + HIGH * (y1 - math.log10(v)) / (y1 - y0)

    out.rect(LEFT, top, WIDE, HIGH, "raised")
    for e in range(int(x0), int(x1) + 1):
        out.text(px(10.0**e), top + HIGH + 15, f"{10.0**e:g}", "faint mid")
        out.path(f"M{px(10.0**e):.1f} {top:.1f}V{top + HIGH:.1f}", "rule", dash="2 3")
    for e in range(int(y0), int(y1) + 1):
        out.text(LEFT - 6, py(10.0**e) + 4, units.count(10.0**e), "faint end")
        out.path(f"M{LEFT:.1f} {py(10.0**e):.1f}H{LEFT + WIDE:.1f}", "rule", dash="2 3")
    out.text(LEFT + WIDE / 2, top + HIGH + 32, "FLOPs per byte moved", "faint mid")
    out.text(12, top - 8, "FLOP/s", "faint")
    flat = next(x.rate for x in d.roofs if x.name == "arithmetic")
    for roof in d.roofs:
        if roof.name == "arithmetic":
            ridge = min(flat / max(x.rate for x in d.roofs if x.name != "arithmetic"), 10.0**x1)
            out.path(f"M{px(ridge):.1f} {py(flat):.1f}H{LEFT + WIDE:.1f}", "edge")
            continue
        start = max(10.0**x0, 10.0**y0 / roof.rate)
        out.path(f"M{px(start):.1f} {py(start * roof.rate):.1f}L{px(flat / roof.rate):.1f} {py(flat):.1f}", "edge")
    slanted = sorted((x for x in d.roofs if x.name != "arithmetic"), key=lambda x: -x.rate)
    names = ", ".join(f"{x.name} {rate(x)}" for x in slanted)
    out.text(12, top + HIGH + 52, cut(f"roofs, from the left: {names}; flat: {rate(d.roofs[-1])}", 104), "faint")
    for i, x in reversed(list(enumerate(d.points))):
        if not x.intensity:
            continue
        a, b = (py(v) if v else None for v in (x.rate, x.rate_predicted))
        if a is not None and b is not None:
            out.path(f"M{px(x.intensity):.1f} {a:.1f}V{b:.1f}", f"line {css(x.category)}")
        if b is not None:
            out.rect(px(x.intensity) - 4, b - 4, 8, 8, f"box {css(x.category)}", rx=4, tip="predicted")
        if a is not None:
            tip = f"{units.flops(x.rate)}/s, {units.count(x.intensity)} FLOPs per byte"
            out.rect(px(x.intensity) - 8, a - 8, 16, 16, f"fill {css(x.category)}", rx=8, tip=tip)
            out.text(px(x.intensity), a + 4, str(i + 1), "ontop mid")
