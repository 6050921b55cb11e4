"""timeline: when did what run, what did the host wait for, and did the predictions hold?"""

from __future__ import annotations

from tinyviz import analysis, texts, units
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import LedgerRow, Segment, TimelineData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import PHASES, CacheEvent, Program, Recording, Selection

NAME = "timeline"
HOWTO = (
    "Above one run: its kernels one after the other, and the time around them. Brackets: where they end in half of all runs.",
    "Below the ledger: what was predicted before anything ran, and the median of what was measured. A dash means: not known.",
    "A ✗ marks a difference beyond the prediction's error bar, the spread of the runs and what reading the clock takes.",
)
CLOCK = 40e-9  # seconds of each launch's time that may be the clock's: a reading takes 20 to 30 ns, and it ticks in 10


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> TimelineData:
    at = choose(r, program, selection)
    p = r.programs[at]
    shared = base(NAME, f"Timeline: {p.name}", HOWTO, (*PHASES, "host"), at)
    return TimelineData(**shared, run=run(p), recording=whole(r), compile=compiling(p), ledger=ledger(p), runs=p.launches.count)


def add(s: Segment, lane: str, label: str, start: float, seconds: float, category: str, call: int = -1, line: int = -1) -> None:
    for column, value in zip(vars(s).values(), (lane, label, start, seconds, category, call, line), strict=True):
        column.append(value)


def run(p: Program) -> Segment:
    """One run: of those kept in full, the one whose time is nearest to the median of all."""
    out = Segment()
    timed = [x for x in p.launches.runs if x.starts]
    if not timed:
        return out
    median = p.launches.host_median
    full = timed[-1] if median is None else min(timed, key=lambda x: abs(x.host_seconds - median))
    phases = [k.phases for k in analysis.kernel_rows(p)]
    for c, call in enumerate(p.calls):
        mine = phases[call.kernel]
        add(out, "kernels", p.kernels[call.kernel].name, full.starts[c], full.seconds[c], mine[0] if mine else "host", c)
    end = max(full.starts[c] + full.seconds[c] for c in range(len(p.calls)))
    add(out, "host", "launch and return", 0.0, max(full.host_seconds, end), "host")
    return out


def whole(r: Recording) -> Segment:
    """The recording from its beginning: what the host did (what forced computations, cache misses with the guard that failed,
    waits, and the time between runs), and the runs that were kept in full."""
    out = Segment()
    for x in r.realized:
        add(out, "host", f"{x.cause}" + (f" ×{x.count}" if x.count > 1 else ""), x.began, 0.0, "host", line=x.line)
    for c in r.caches:
        if not c.hit and c.began is not None:
            times = f" ×{c.count}" if c.count > 1 else ""
            add(out, "cache misses", f"{c.cache}: {guard_text(c)}{times}", c.began, 0.0, "host")
    for w in r.waits:
        times = f", ×{w.count} in all {units.seconds(w.seconds)}" if w.count > 1 else ""
        add(out, "waits", f"{w.reason}{times}", w.began, w.seconds / max(w.count, 1), "host")
    missed = [c.began for c in r.caches if not c.hit and c.began is not None]
    for p in r.programs:
        for each in p.launches.runs:
            if each.gap:
                compiled = any(each.began - each.gap <= at < each.began for at in missed)
                label = "host: Python, data loading" + (", compiling after a cache miss" if compiled else "")
                add(out, "between runs", label, each.began - each.gap, each.gap, "host")
    for p in r.programs:
        for each in p.launches.runs:
            add(out, "runs", p.name, each.began, each.host_seconds, "host")
    return out


def guard_text(c: CacheEvent) -> str:
    """'shape of %3 mul: (3,) → (5,)'."""
    change = f"{c.old} → {c.new}" if c.old else c.new
    return c.guard + (f": {change}" if change else "")


def compiling(p: Program) -> Segment:
    """The stages one after the other; those whose time is not known are left out."""
    out = Segment()
    at = 0.0
    for s in p.stages:
        if s.seconds is not None:
            add(out, "compile", s.name, at, s.seconds, "host")
            at += s.seconds
    return out


COUNTS = (("FLOPs", "flops", "flops"), ("bytes read", "bytes", "bytes_read"), ("bytes written", "bytes", "bytes_written"))


def ledger(p: Program) -> list[LedgerRow]:
    """Predicted beside measured: for the program, then for each kernel its time and its counts. FLOPs, bytes and peak memory are
    measured by counting (see `Recording.count`); a predicted count that is an upper bound has an error bar down to 0."""
    c, ran = p.certificate, p.launches.count > 0
    counted = [k.counted for k in p.kernels]
    rows = [
        _row("kernels", "", -1, _just(c.kernels), _just(len(p.kernels) if ran else None)),
        _row("launches", "", -1, _just(c.launches), _just(len(p.calls) if ran else None)),
    ]
    for name, unit, column in COUNTS:
        sums = analysis.total(getattr(k, column) if k is not None else None for k in counted) if counted else None
        sure = None if all(k.exact for k in p.kernels) else sum(getattr(k, column) or 0 for k in p.kernels if k.exact)
        rows.append(_row(name, unit, -1, _upto(getattr(c, column), sure), _just(sums)))
    rows.append(_row("peak memory", "bytes", -1, _just(c.peak_bytes), _just(p.peak_bytes)))
    ran_for = (p.launches.host_median, p.launches.host_low, p.launches.host_high)
    rows.append(_row("time of one run", "s", -1, (c.seconds, c.seconds_low, c.seconds_high), ran_for, CLOCK * len(p.calls)))
    for k in analysis.kernel_rows(p):
        kernel, n = p.kernels[k.kernel], len(k.calls)
        low, high = analysis.times_of(kernel.seconds_predicted_low, n), analysis.times_of(kernel.seconds_predicted_high, n)
        predicted, measured = (k.seconds_predicted, low, high), (k.seconds, k.seconds_low, k.seconds_high)
        rows.append(_row(f"time of {kernel.name}", "s", k.kernel, predicted, measured, CLOCK * n))
        for name, unit, column in COUNTS:
            said = analysis.whole(getattr(kernel, column), n)
            seen = analysis.whole(getattr(kernel.counted, column) if kernel.counted is not None else None, n)
            rows.append(_row(f"{name} of {kernel.name}", unit, k.kernel, _upto(said, None if kernel.exact else 0), _just(seen)))
    return rows


Three = tuple[float | None, float | None, float | None]


def _just(value: float | None) -> Three:
    return value, value, value


def _upto(value: float | None, sure: float | None) -> Three:
    """A count; where it is an upper bound, anything from what is `sure` up to it."""
    return value, value if sure is None or value is None else sure, value


def _row(name: str, unit: str, kernel: int, a: Three, b: Three, clock: float = 0.0) -> LedgerRow:
    """`clock`: what of the measured time may be the clock's."""
    agrees = None
    if a[0] is not None and b[0] is not None:
        low_a, high_a = a[1] if a[1] is not None else a[0], a[2] if a[2] is not None else a[0]
        low_b, high_b = b[1] if b[1] is not None else b[0], b[2] if b[2] is not None else b[0]
        agrees = low_a <= high_b and low_b - clock <= high_a
    return LedgerRow(name, unit, kernel, *a, *b, agrees)


def ledger_text(d: TimelineData) -> str:
    """The program's rows and each kernel's time, then what was counted of each kernel."""
    return texts.table(["", "predicted", "error bar", "measured", "quartiles", ""], [_cells(x) for x in _shown(d)], (1, 3))


def _shown(d: TimelineData) -> list[LedgerRow]:
    """The rows that are shown first: of a kernel its time, and each count that is not what was predicted."""
    return [x for x in d.ledger if x.kernel < 0 or x.unit == "s" or x.agrees is False]


def _cells(x: LedgerRow) -> list[str]:
    sign = {True: "✓", False: "✗", None: ""}[x.agrees]
    bar = _range(x.predicted_low, x.predicted, x.predicted_high, x.unit)
    spread = _range(x.measured_low, x.measured, x.measured_high, x.unit)
    return [x.name, units.amount(x.predicted, x.unit), bar, units.amount(x.measured, x.unit), spread, sign]


def _range(low: float | None, middle: float | None, high: float | None, unit: str) -> str:
    ends = units.amount(low, unit), units.amount(high, unit)
    return "" if low is None or low == middle or ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def counts_text(p: Program) -> str:
    """FLOPs and bytes of each kernel, predicted and counted."""
    rows = []
    for k in p.kernels:
        row = [k.name]
        for _, unit, column in COUNTS:
            seen = getattr(k.counted, column) if k.counted is not None else None
            row += [units.amount(getattr(k, column), unit) + ("" if k.exact else " at most"), units.amount(seen, unit)]
        rows.append(row)
    head = ["kernel", "FLOPs", "counted", "bytes read", "counted", "bytes written", "counted"]
    return texts.table(head, rows, range(1, 7))


def text(r: Recording, d: TimelineData) -> str:
    p = r.programs[d.program]
    out = [texts.heading(d.title, d.howto) + units.some(d.runs, "run") + ("" if d.runs else ": nothing was measured")]
    n = p.launches
    if n.gap_median is not None:
        spread = f"{units.seconds(n.gap_low)} to {units.seconds(n.gap_high)}"
        out[0] += f"\nhost between the runs (Python, data loading): median {units.seconds(n.gap_median)}, half of them {spread}"
    out[0] += "\n" + cost_text(r)
    kernels = [i for i in range(len(d.run)) if d.run.lane[i] == "kernels"]
    if kernels:
        end = max(d.run.start[i] + d.run.seconds[i] for i in range(len(d.run)))
        rows = []
        for i in kernels:
            bar = texts.bar(d.run.seconds[i] / end, 30) if end else ""
            c = d.run.call[i]
            half = f"{units.seconds(n.low[c])} to {units.seconds(n.high[c])}" if n.median else units.MISSING
            middle = units.seconds(n.median[c] if n.median else None)
            times = [units.seconds(d.run.start[i]), units.seconds(d.run.seconds[i]), middle, half]
            rows.append([str(c), d.run.label[i], *times, bar])
        head = ["#", "kernel", "start", "time", f"median of {n.count}", "quartiles", ""]
        out.append("one run, the nearest to the median, beside all of them\n" + texts.table(head, rows, (0, 2, 3, 4)))
    out.append("ledger\n" + ledger_text(d))
    if p.kernels:
        note = "" if p.peak_bytes is not None else ": not counted yet; rec.count() does, in the interpreter"
        out.append(f"counts of one launch of each kernel{note}\n" + counts_text(p))
    if len(d.compile):
        rows = [[d.compile.label[i], units.seconds(d.compile.seconds[i])] for i in range(len(d.compile))]
        out.append("compilation\n" + texts.table(["stage", "time"], rows, (1,)))
    if r.realized:
        rows = [[x.cause, str(x.count), where(r, x.line) if x.line >= 0 else units.MISSING] for x in r.realized]
        out.append("what forced a computation\n" + texts.table(["cause", "times", "line"], rows, (1,)))
    if r.waits:
        rows = [[w.reason, str(w.count), units.seconds(w.seconds), units.seconds(w.seconds / max(w.count, 1))] for w in r.waits]
        out.append("what the host waited for\n" + texts.table(["", "times", "in all", "each"], rows, (1, 2, 3)))
    if r.caches:
        rows = [
            [c.cache, "hit" if c.hit else "miss", str(c.count), c.guard, f"{c.old} → {c.new}" if c.guard and c.old else c.new]
            for c in r.caches
        ]
        out.append("caches\n" + texts.table(["cache", "", "times", "guard that failed", "change"], rows, (2,)))
    if p.missing:
        out.append("missing: " + "; ".join(p.missing))
    return "\n\n".join(out)


def cost_text(r: Recording) -> str:
    """What watching cost, as far as the recorder's own clock knows."""
    if not r.seconds or r.observer_seconds is None:
        return f"cost of recording: {units.MISSING} not measured"
    share = units.percent(r.observer_seconds / r.seconds)
    apart = "".join(f"; {name} in it, {units.seconds(s)}, stands apart" for name, s in r.observer_apart.items())
    return f"cost of recording: {units.seconds(r.observer_seconds)} of {units.seconds(r.seconds)} watched, {share}{apart}"


def svg(r: Recording, d: TimelineData) -> str:
    p = r.programs[d.program]
    out = Svg(1000, d.title, d.howto, d.legend)
    out.y += 10
    end = max([d.run.start[i] + d.run.seconds[i] for i in range(len(d.run))], default=0.0)
    if end:
        for lane in ("host", "kernels"):
            out.y += 30
            out.text(12, out.y, lane, "bold")
            for i in range(len(d.run)):
                if d.run.lane[i] == lane:
                    x, width = 90 + 890 * d.run.start[i] / end, 890 * d.run.seconds[i] / end
                    tip = f"{d.run.label[i]}: {units.seconds(d.run.seconds[i])}"
                    out.rect(x, out.y - 15, max(width, 0.6), 20, f"fill {css(d.run.category[i])}", rx=2, tip=tip)
                    if width > 60:
                        out.text(x + 4, out.y, cut(d.run.label[i], int(width / 8.6)), "ontop")
        out.y += LINE + 4
        for i in range(5):
            out.text(
                90 + 890 * i / 4, out.y, units.seconds(end * i / 4), "faint mono " + ("end" if i == 4 else "mid" if i else "")
            )
    else:
        out.y += LINE
        out.text(12, out.y, f"{units.MISSING} no run with clocks was recorded", "faint")
    out.y += 14
    for x, name, classes in ((12, "ledger", "bold"), (470, "predicted", "faint end"), (700, "measured", "faint end")):
        out.text(x, out.y + LINE, name, classes)
    out.y += LINE
    shown = _shown(d)
    for row in shown[:40]:
        out.y += LINE
        out.text(12, out.y, cut(row.name, 48))
        out.text(470, out.y, units.amount(row.predicted, row.unit), "mono end")
        out.text(480, out.y, _range(row.predicted_low, row.predicted, row.predicted_high, row.unit), "mono faint")
        out.text(710, out.y, _range(row.measured_low, row.measured, row.measured_high, row.unit), "mono faint")
        sign = {True: "✓ agrees", False: "✗ differs", None: ""}[row.agrees]
        out.text(880, out.y, sign, "bold" if row.agrees is False else "faint")
    if len(shown) > 40:
        out.text(12, out.y + LINE, f"… and {units.some(len(shown) - 40, 'more row')}", "faint")
    if p.missing:
        out.text(12, out.y + 2 * LINE, cut("missing: " + "; ".join(p.missing), 150), "faint")
    return str(out)
