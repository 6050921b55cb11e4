"""overview: code | graph | kernels | time, on one screen."""

from __future__ import annotations

from tinyviz import analysis, texts, units
from tinyviz.boxes import draw_boxes, module_boxes
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import Figure, OverviewData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import PHASES, Program, Recording, Selection

NAME = "overview"
HOWTO = (
    "Left your lines with their cost, then the modules that they built, then the kernels that the engine made of them.",
    "Numbers of one run: predicted before it ran, measured while it ran. A dash means: not computed or not measured.",
    "Select a line, a module or a kernel: everything that belongs to it lights up in every view.",
)


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> OverviewData:
    at = choose(r, program, selection)
    p = r.programs[at]
    boxes, edges, width, height = module_boxes(p)
    return OverviewData(
        **base(NAME, f"Overview: {p.name}", HOWTO, (*PHASES, "host"), at), figures=figures(p), lines=analysis.line_rows(p)[0],
        kernels=analysis.kernel_rows(p), boxes=boxes, edges=edges, width=width, height=height,
    )  # fmt: skip


def figures(p: Program) -> list[Figure]:
    """The numbers of the whole program."""
    c, ran = p.certificate, p.launches
    launches = len(p.calls) if ran.count else None
    runs = f"median of {units.some(ran.count, 'run')}" if ran.count else "it did not run"
    return [
        Figure("nodes recorded", "", None, len(p.recorded)),
        Figure("nodes after simplify", "", None, len(p.simplified) or None),
        Figure("kernels", "", c.kernels, len(p.kernels) if ran.count else None),
        Figure("launches", "", c.launches, launches),
        Figure("FLOPs", "flops", c.flops, None, c.formulas.get("flops", "")),
        Figure("bytes read", "bytes", c.bytes_read, None, c.formulas.get("bytes_read", "")),
        Figure("bytes written", "bytes", c.bytes_written, None, c.formulas.get("bytes_written", "")),
        Figure("peak memory", "bytes", c.peak_bytes, p.peak_bytes, c.formulas.get("peak_bytes", "")),
        Figure("time of one run", "s", c.seconds, ran.host_median, runs),
    ]


def text(r: Recording, d: OverviewData) -> str:
    figure_rows = []
    for f in d.figures:
        values = [units.amount(v, f.unit) for v in (f.predicted, f.measured)]
        figure_rows.append([f.name, *values, f.note])
    parts = [texts.heading(d.title, d.howto) + texts.table(["", "predicted", "measured", ""], figure_rows, (1, 2))]
    rows = []
    for x in d.lines:
        code = "" if x.line < 0 else cut(r.lines.text[x.line], 60)
        rows.append([where(r, x.line), units.percent(x.share), texts.bar(x.share, 12), code])
    parts.append(texts.table(["line", "share", "", "code"], rows, (1,)) if rows else "no line is known")
    parts.append(kernel_table(r, d))
    if r.programs[d.program].missing:
        parts.append("missing: " + "; ".join(r.programs[d.program].missing))
    return "\n\n".join(parts)


def kernel_table(r: Recording, d: OverviewData) -> str:
    """Each kernel with its figures, in the order of the program."""
    p, rows = r.programs[d.program], []
    for k in d.kernels:
        moved = [units.nbytes(k.bytes_read), units.nbytes(k.bytes_written)]
        times = [units.seconds(k.seconds_predicted), units.seconds(k.seconds), units.percent(k.share)]
        phases = "".join(f[0].upper() for f in k.phases)
        name = f"{p.kernels[k.kernel].name} {analysis.flag(p, k.kernel)}".rstrip()
        rows.append([str(k.kernel), name, phases, units.count(k.flops), *moved, *times, k.bound])
    head = ["#", "kernel", "phase", "FLOPs", "read", "written", "predicted", "measured", "share", "bound"]
    return texts.table(head, rows, (0, 3, 4, 5, 6, 7, 8)) if rows else "no kernel was recorded"


def svg(r: Recording, d: OverviewData) -> str:
    p = r.programs[d.program]
    out = Svg(1180, d.title, d.howto, d.legend)
    top = out.y + LINE
    _figures(out, d, top)
    top += 44
    out.text(12, top, "code", "bold")
    y = top
    for x in d.lines[:24]:
        y += LINE + 2
        if x.share is not None:
            out.rect(12, y - 12, 330 * x.share, LINE, "raised")
        out.text(16, y, cut(where(r, x.line), 18), "mono faint")
        out.text(140, y, cut("not attributed" if x.line < 0 else r.lines.text[x.line], 30), "mono")
        out.text(400, y, units.percent(x.share), "mono end")
    out.text(430, top, "graph", "bold")
    draw_boxes(out, p, d.boxes, d.edges, 430, top + 12, 300, 24 * (LINE + 2))
    out.text(760, top, "kernels and their time", "bold")
    y = top
    biggest = max([k.seconds or k.seconds_predicted or 0.0 for k in d.kernels], default=0.0) or 1.0
    for k in d.kernels[:24]:
        y += LINE + 2
        phase = k.phases[0] if k.phases else "host"
        out.mark(760, y - 12, phase)
        name = f"{analysis.flag(p, k.kernel)[:1]} {p.kernels[k.kernel].name}".lstrip()
        out.text(780, y, cut(name, 22), "mono", tip=f"{p.kernels[k.kernel].name} {analysis.flag(p, k.kernel)}".rstrip())
        seconds = k.seconds if k.seconds is not None else k.seconds_predicted
        if seconds is not None:
            tip = "measured" if k.seconds is not None else "predicted"
            out.rect(935, y - 11, 150 * seconds / biggest, 13, f"fill {css(phase)}", tip=f"{tip}: {units.seconds(seconds)}")
        out.text(1168, y, units.seconds(seconds), "mono end")
    if len(d.kernels) > 24:
        out.text(760, y + LINE, f"… and {len(d.kernels) - 24} more", "faint")
    return str(out)


def _figures(out: Svg, d: OverviewData, y: float) -> None:
    x = 12.0
    for f in d.figures:
        value = f.measured if f.measured is not None else f.predicted
        out.text(x, y, f.name, "faint")
        out.text(x, y + LINE, units.amount(value, f.unit), "bold", tip=f.note)
        x += 128
