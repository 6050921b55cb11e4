"""kernel: the loops of a kernel, its schedule, its source and its instructions, linked line by line."""

from __future__ import annotations

import math

from tinyviz import analysis, texts, units
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import KernelData, KernelRow
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import PHASES, Code, Kernel, Program, Recording, Selection, Steps

NAME = "kernel"
HOWTO = (
    "One kernel from left to right: its loops, what the compiler got, and the instructions that came out.",
    "Numbers at the left of a line link it: the same number is the same line of the scheduled loops.",
    "Figures are of one launch; the shares say which of your lines it works for.",
)
SVG_LINES = 60
TEXT_LINES = 400


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> KernelData:
    at = choose(r, program, selection)
    p = r.programs[at]
    rows = analysis.kernel_rows(p)
    shown = 0
    if selection is not None and selection.kind in ("kernel", "loop", "source", "assembly"):
        shown = int(selection.id.split(".")[1])
        if shown >= len(rows):
            raise ValueError(f"the program has {len(rows)} kernels, counted from 0; there is no {shown}")
    elif rows:
        shown = max(rows, key=lambda k: (k.seconds or k.seconds_predicted or 0.0, -k.kernel)).kernel
    by: dict[int, list[int]] = {}
    for i, d in enumerate(p.decisions):
        by.setdefault(d.kernel, []).append(i)
    decisions = [by.get(k.kernel, []) for k in rows]
    title = f"Kernel {shown}: {p.kernels[shown].name}" if rows else "Kernel: none was recorded"
    return KernelData(**base(NAME, title, HOWTO, PHASES, at), kernel=shown, rows=rows, decisions=decisions)


def facts(p: Program, k: Kernel, row: KernelRow) -> list[list[str]]:
    """Name and value of each figure of one kernel, of all its launches in one run."""
    flagged = analysis.flag(p, row.kernel)
    issued = units.MISSING if k.bytes_issued is None else units.nbytes(k.bytes_issued)
    expanded = units.MISSING if k.flops_expanded is None else units.count(k.flops_expanded)
    flops = f"{units.count(row.flops)} (after expansion {expanded})"
    low, high = units.seconds(k.seconds_predicted_low), units.seconds(k.seconds_predicted_high)
    spread = f" ({units.seconds(row.seconds_low)} to {units.seconds(row.seconds_high)})" if row.seconds is not None else ""
    return [
        ["launches per run", str(len(row.calls))],
        ["FLOPs", flops],
        ["bytes read, written, issued", f"{units.nbytes(row.bytes_read)}, {units.nbytes(row.bytes_written)}, {issued}"],
        ["time predicted", f"{units.seconds(row.seconds_predicted)} ({low} to {high}) {k.bound}".rstrip()],
        ["time measured", units.seconds(row.seconds) + spread],
        *([["results", f"{flagged}: see the view values"]] if flagged else []),
    ]


def text(r: Recording, d: KernelData) -> str:
    p = r.programs[d.program]
    if not d.rows:
        return texts.heading(d.title, d.howto) + "no kernel was recorded"
    k, row = p.kernels[d.kernel], d.rows[d.kernel]
    out = [texts.heading(d.title, d.howto) + texts.table(["figure", "value"], facts(p, k, row))]
    if len(k.shares):
        rows = []
        for i, phase, share in analysis.line_shares(k):
            rows.append([where(r, i), phase, units.percent(share), "" if i < 0 else cut(r.lines.text[i], 60)])
        out.append("for which lines it works\n" + texts.table(["line", "phase", "share", "code"], rows, (2,)))
    out.append("loops\n" + listing(k.loops))
    out.append("schedule\n" + ("\n".join(f"  {s}" for s in k.schedule) or "  as it is: no primitive was applied"))
    for i in d.decisions[d.kernel]:
        x = p.decisions[i]
        if x.stage == "schedule":
            refused = "".join(f"; not {v}: {why}" for v, why in x.alternatives.items())
            out.append(f"  {x.kind}: {x.verdict}. {x.reason}{refused}")
    if k.attempts:
        out.append(f"what the tuner tried{f', {k.tuned}' if k.tuned else ''}\n" + attempts(k))
    out.append("scheduled loops\n" + listing(k.scheduled, own=True))
    if rows := emission(r, p, d.kernel):
        out.append("on the way to the source\n" + texts.table(["what", "about", "reason"], rows))
    for name, code in (("source", k.source), ("assembly", k.assembly)):
        out.append(f"{name} ({code.language or 'none'})\n" + (listing(code) if code.text else f"  {units.MISSING} {k.missing}"))
    return "\n\n".join(out)


def emission(r: Recording, p: Program, kernel: int) -> list[list[str]]:
    """What stage emit did with the scheduled loops of a kernel before it wrote the source: expansions, ways to load and store."""
    steps = next((s.steps for s in p.stages if s.name == "emit"), Steps())
    out = []
    for k in [k for k, of in enumerate(steps.kernel) if of == kernel][:-1]:
        rule, d = steps.rule[k], p.decisions[steps.decision[k]] if steps.decision[k] >= 0 else None
        refused = "".join(f"; not {v}: {why}" for v, why in d.alternatives.items()) if d else ""
        out.append([r.rules.name[rule], steps.text[k], (d.reason if d else r.rules.reason[rule]) + refused])
    return out


def attempts(k: Kernel) -> str:
    """Every schedule that the tuner tried, in order: its time, as text and as a bar, and what became of it."""
    longest = max((a.seconds for a in k.attempts if a.seconds is not None), default=0.0) or 1.0
    rows = []
    for a in k.attempts:
        bar = "" if a.seconds is None else "#" * max(1, round(20 * a.seconds / longest))
        rows.append([units.seconds(a.seconds), bar, a.verdict, a.origin or "the engine's own", a.reason])
    return texts.table(["time", "", "verdict", "changed", "reason"], rows, (0,))


def listing(code: Code, own: bool = False) -> str:
    """Each line with the number of the scheduled line that it does."""
    if not code.text:
        return f"  {units.MISSING}"
    rows = []
    for i, line in enumerate(code.text[:TEXT_LINES]):
        link = i if own else code.link[i] if code.link else -1
        rows.append(f"{link if link >= 0 else '':>4} {line}".rstrip())
    if len(code.text) > TEXT_LINES:
        rows.append(f"     … and {units.some(len(code.text) - TEXT_LINES, 'more line')}")
    return "\n".join(rows)


def svg(r: Recording, d: KernelData) -> str:
    p = r.programs[d.program]
    out = Svg(1240, d.title, d.howto, d.legend)
    out.y += 8
    if not d.rows:
        out.text(12, out.y + LINE, "no kernel was recorded")
        return str(out)
    k, row = p.kernels[d.kernel], d.rows[d.kernel]
    for name, value in facts(p, k, row):
        out.y += LINE
        out.text(12, out.y, name, "faint")
        out.text(210, out.y, value)
    for line, phase, share in analysis.line_shares(k):
        out.y += LINE
        out.mark(12, out.y - 11, phase if phase in PHASES else "host")
        out.text(32, out.y, f"{units.percent(share)} for {where(r, line)}", "mono")
        out.text(210, out.y, "" if line < 0 else cut(r.lines.text[line], 100), "mono")
    if k.schedule:
        out.y += LINE
        out.text(12, out.y, "schedule", "faint")
        out.text(210, out.y, cut("; ".join(k.schedule), 150), "mono")
    if k.attempts:
        _landscape(out, k)
    top = out.y + LINE + 12
    columns = [("scheduled loops", k.scheduled, 12.0, 400.0), (f"source, {k.source.language or 'none'}", k.source, 424.0, 420.0),
               ("assembly", k.assembly, 856.0, 372.0)]  # fmt: skip
    for title, code, x, width in columns:
        out.text(x, top, title, "bold")
        _column(out, code, x, top, width, code is k.scheduled, k.missing)
    return str(out)


MARKS = {"default": "D", "faster": "F", "slower": "S", "wrong": "W", "failed": "X"}


def _landscape(out: Svg, k: Kernel) -> None:
    """What the tuner tried: a letter per schedule, in order, over its time (logarithmic)."""
    timed = [a.seconds for a in k.attempts if a.seconds]
    out.y += LINE
    out.text(12, out.y, "what the tuner tried", "faint")
    out.text(210, out.y, "D the engine's own, F faster, S slower, W wrong, X failed; higher is slower", "faint")
    if not timed:
        return
    low, high, height = math.log(min(timed)), math.log(max(timed)), 70.0
    top, step = out.y + 12, min(24.0, 980 / len(k.attempts))
    for value, y in ((max(timed), top), (min(timed), top + height)):
        out.text(200, y + 4, units.seconds(value), "faint end")
    for i, a in enumerate(k.attempts):
        y = top + height + 12 if not a.seconds else top + height * (high - math.log(a.seconds)) / ((high - low) or 1.0)
        out.text(216 + i * step, y + 4, MARKS.get(a.verdict, "?"), "mono bold" if a.verdict != "slower" else "mono")
    out.y = top + height + 18


def _column(out: Svg, code: Code, x: float, y: float, width: float, own: bool, missing: str) -> None:
    fits = int((width - 34) / 6.7)
    if not code.text:
        out.text(x, y + LINE, units.MISSING + " " + cut(missing, fits), "faint")
    # what comes before the first line of the loops only fetches the arguments
    first = 0 if own else max(next((i for i, link in enumerate(code.link) if link >= 0), 0) - 2, 0)
    if first:
        y += LINE - 3
        out.text(x + 30, y, f"… {units.some(first, 'line')} before the loops", "faint")
    for i, line in list(enumerate(code.text))[first : first + SVG_LINES]:
        y += LINE - 3
        link = i if own else code.link[i] if code.link else -1
        if link >= 0 and link % 2:
            out.rect(x, y - 10, width, LINE - 3, "raised")
        out.text(x + 24, y, str(link) if link >= 0 else "", "mono faint end")
        out.text(x + 30, y, cut(line, fits), "mono")
    if len(code.text) > first + SVG_LINES:
        out.text(x + 30, y + LINE, f"… and {units.some(len(code.text) - first - SVG_LINES, 'more line')}", "faint")


__all__ = ["NAME", "attempts", "css", "data", "facts", "listing", "svg", "text"]
