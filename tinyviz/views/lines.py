"""lines: what does each line of the user's code cost, forward, backward and optimizer apart?"""

from __future__ import annotations

from tinyviz import analysis, texts, units
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import LinesData
from tinyviz.views import base, choose
from tinyviz.wire import PHASES, Recording, Selection

NAME = "lines"
HOWTO = (
    "Each row is a line of your code; its bar is the time per run that its kernels take, forward, backward and optimizer apart.",
    "A fused kernel serves several lines: its time is split by the predicted cost of each line's operations in it.",
    "“not attributed” is time outside of kernels, or of kernels without a known line; all rows together are one typical run.",
)


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> LinesData:
    at = choose(r, program, selection)
    p = r.programs[at]
    rows, measured = analysis.line_rows(p)
    total = sum(x.seconds or 0.0 for x in rows) if measured else None
    return LinesData(
        **base(NAME, f"Lines: {p.name}", HOWTO, (*PHASES, "host"), at), rows=rows, total_seconds=total, measured=measured
    )


def where(r: Recording, line: int) -> str:
    """'In [3]:12', or the name of the row of what belongs to no line."""
    return "not attributed" if line < 0 else f"{r.files[r.lines.file[line]].name}:{r.lines.line[line]}"


def text(r: Recording, d: LinesData) -> str:
    rows = []
    for x in d.rows:
        mine = x.seconds if d.measured else x.seconds_predicted
        phases = [units.seconds(x.by_phase.get(f)) for f in PHASES]
        code = "" if x.line < 0 else cut(r.lines.text[x.line], 48)
        moved = units.nbytes(analysis.total([x.bytes_read, x.bytes_written]))
        kernels = str(len(x.kernels)) if x.kernels else units.MISSING
        rows.append([where(r, x.line), units.percent(x.share), units.seconds(mine), *phases, moved, kernels, code])
    word = "measured" if d.measured else "predicted"
    head = ["line", "share", word, *PHASES, "bytes", "kernels", "code"]
    body = texts.table(head, rows, range(1, 8)) if rows else "no kernel was recorded"
    total = (
        f"\na typical run: {units.seconds(d.total_seconds)} measured, the mean of the middle half of the runs"
        if d.measured
        else "\nnothing was measured: shares are of predicted time"
    )
    return texts.heading(d.title, d.howto) + body + total


def svg(r: Recording, d: LinesData) -> str:
    out = Svg(1000, d.title, d.howto, d.legend)
    out.y += LINE + 4
    marks = {c.name: c.mark for c in d.legend}
    word = "measured" if d.measured else "predicted"
    heads = ((12, "line", ""), (160, "code", ""), (490, f"time, {word}", ""), (770, "share", "end"), (860, "bytes", "end"))
    for at, name, classes in (*heads, (940, "kernels", "end")):
        out.text(at, out.y, name, f"faint {classes}")
    biggest = max([x.share or 0.0 for x in d.rows], default=0.0) or 1.0
    for x in d.rows[:40]:
        out.y += LINE + 3
        out.text(12, out.y, cut(where(r, x.line), 20), "mono")
        out.text(160, out.y, cut("" if x.line < 0 else r.lines.text[x.line].strip(), 46), "mono")
        mine = x.seconds if d.measured else x.seconds_predicted
        left = 490.0
        for phase in [*(f for f in PHASES if x.by_phase.get(f)), *(["host"] if x.line < 0 and x.share else [])]:
            seconds = x.by_phase.get(phase) if phase != "host" else None
            part = (x.share or 0.0) if phase == "host" else (x.share or 0.0) * (seconds or 0.0) / mine if mine else 0.0
            if phase == "host":
                part -= sum((x.share or 0.0) * (v or 0.0) / mine for v in x.by_phase.values()) if mine else 0.0
            width = 160 * part / biggest
            if width > 0.3:
                out.rect(left, out.y - 11, width, 13, f"fill {css(phase)}", tip=f"{phase}: {units.seconds(seconds)}")
                if width > 14:
                    out.text(left + width / 2, out.y, marks.get(phase, ""), "ontop mid")
                left += width
        figures = (units.seconds(mine), units.percent(x.share), units.nbytes(analysis.total([x.bytes_read, x.bytes_written])))
        for at, figure in zip((715, 770, 860), figures, strict=True):
            out.text(at, out.y, figure, "mono end")
        out.text(940, out.y, str(len(x.kernels)) if x.kernels else units.MISSING, "mono end")
    if len(d.rows) > 40:
        out.text(12, out.y + LINE, f"… and {units.some(len(d.rows) - 40, 'more line')}", "faint")
    return str(out)
