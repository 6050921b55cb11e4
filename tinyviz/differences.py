"""The numbers of two programs beside each other, and which times differ by more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from tinyviz import analysis, matching
from tinyviz.kernel_form import form
from tinyviz.matching import Matching
from tinyviz.significance import CHANCE, SPREAD, Floor, mann_whitney
from tinyviz.viewdata import CompareData, Difference, KernelPair, KernelRow, LinePair
from tinyviz.views.lines import where
from tinyviz.wire import Program, Recording

Three = tuple[float | None, float | None, float | None]
NONE: Three = (None, None, None)
SURE = ("more", "less", "new", "gone")


def difference(name: str, unit: str, old: Three, new: Three, chance: float | None = None, timed: bool = False) -> Difference:
    """`timed`: the numbers are measurements, so that a difference may be noise; `chance`: that of their runs alone."""
    a, b = old[0], new[0]
    if a is None or b is None:
        verdict = "unknown"
    elif timed:
        verdict = "untested"  # until it is judged
    else:
        verdict = "equal" if a == b else "more" if b > a else "less"
    return Difference(name, unit, *old, *new, chance, verdict)


def exact(name: str, unit: str, a: float | None, b: float | None) -> Difference:
    return difference(name, unit, (a, None, None), (b, None, None))


def figures(a: Program, b: Program) -> list[Difference]:
    """The numbers of the whole programs."""
    runs = [_host(p) for p in (a, b)]
    x, y = ((p.launches.host_median, p.launches.host_low, p.launches.host_high) for p in (a, b))
    c, d = a.certificate, b.certificate
    timed = [[s.seconds for s in p.stages if s.seconds is not None] for p in (a, b)]
    compile = [sum(seconds) if seconds else None for seconds in timed]
    return [
        difference("time of one run", "s", x, y, mann_whitney(*runs), timed=True),
        exact("predicted time", "s", c.seconds, d.seconds),
        exact("kernels", "", len(a.kernels), len(b.kernels)),
        exact("launches", "", len(a.calls), len(b.calls)),
        exact("nodes", "", len(a.simplified or a.recorded), len(b.simplified or b.recorded)),
        exact("FLOPs", "flops", c.flops, d.flops),
        exact("bytes read", "bytes", c.bytes_read, d.bytes_read),
        exact("bytes written", "bytes", c.bytes_written, d.bytes_written),
        exact("peak memory", "bytes", c.peak_bytes, d.peak_bytes),
        difference("first compilation", "s", (compile[0], None, None), (compile[1], None, None), timed=True),
    ]


def _host(p: Program) -> list[float]:
    """Seconds of the runs kept in full, without the first: it pays for cold caches."""
    return [x.host_seconds for x in p.launches.runs[1:]]


def kernel_pairs(a: Program, b: Program, m: Matching) -> list[KernelPair]:
    """Kernels and what they became."""
    olds, news = analysis.kernel_rows(a), analysis.kernel_rows(b)
    out = []
    for before, after, common in matching.kernels(a, b, m):
        old, new = olds[before] if before >= 0 else None, news[after] if after >= 0 else None
        chance = mann_whitney(_calls(a, old), _calls(b, new)) if old is not None and new is not None else None
        spreads = [NONE if x is None else (x.seconds, x.seconds_low, x.seconds_high) for x in (old, new)]
        moved = [None if x is None else analysis.total([x.bytes_read, x.bytes_written]) for x in (old, new)]
        flops = [None if x is None else x.flops for x in (old, new)]
        names = [p.kernels[x.kernel].name if x is not None else "" for p, x in ((a, old), (b, new))]
        time = difference("time", "s", spreads[0], spreads[1], chance, timed=True)
        moves, works = exact("bytes", "bytes", *moved), exact("FLOPs", "flops", *flops)
        pair = KernelPair(before, after, names[0], names[1], common, time, moves, works, "")
        if old is None or new is None:
            for x in (pair.time, pair.bytes, pair.flops):
                x.verdict = "new" if old is None else "gone"
        else:
            was, now = form(a.kernels[before]), form(b.kernels[after])
            pair.code = "same" if was == now else "schedule" if was.loops == now.loops else "loops"
        out.append(pair)
    return out


def _calls(p: Program, row: KernelRow) -> list[float]:
    return [sum(run.seconds[c] for c in row.calls) for run in p.launches.runs[1:] if run.seconds]


def line_pairs(r0: Recording, a: Program, r1: Recording, b: Program, m: Matching, pairs: Sequence[KernelPair]) -> list[LinePair]:
    """Lines and what they became; largest difference first."""
    others = [x for x in pairs if x.code != "same"]
    olds, news = _line_times(a, {x.before for x in others}), _line_times(b, {x.after for x in others})
    became = {-1: -1, **matching.lines(r0, a, r1, b, m)}
    rows: list[tuple[int | None, int | None]] = [(x, y if (y := became.get(x)) in news else None) for x in olds]
    rows += [(None, y) for y in news.keys() - {y for _, y in rows}]
    out = []
    for x, y in rows:
        old, new = olds[x] if x is not None else None, news[y] if y is not None else None
        times = [side.seconds if side is not None else [] for side in (old, new)]
        d = difference("time", "s", _spread(times[0]), _spread(times[1]), mann_whitney(*times), timed=True)
        d.verdict = "gone" if new is None else "new" if old is None else d.verdict
        places = [where(r, line) if line is not None else "" for r, line in ((r0, x), (r1, y))]
        codes = [r.lines.text[line] if line >= 0 else "not attributed" for r, line in ((r0, x), (r1, y)) if line is not None]
        same = not any(side is None or side.changed for side in (old, new))
        code = " → ".join(dict.fromkeys(codes))
        out.append(LinePair(-1 if y is None else y, places[0], places[1], code, same, d))
    return sorted(out, key=lambda x: -abs((x.time.after or 0.0) - (x.time.before or 0.0)))


@dataclass
class LineTimes:
    """The seconds of a line in each run that was kept, and whether some of its kernels changed."""

    seconds: list[float]
    changed: bool


def _line_times(p: Program, changed: set[int]) -> dict[int, LineTimes]:
    """By line, -1: what is not attributed. `changed`: kernels that did."""
    shares = [analysis.line_shares(k) or [(-1, "forward", 1.0)] for k in p.kernels]
    out = {line: LineTimes([], False) for line in sorted({-1, *(x for of in shares for x, *_ in of)})}
    for k in changed - {-1}:
        for line, *_ in shares[k]:
            out[line].changed = True
    for run in p.launches.runs[1:]:
        if not run.seconds:
            continue
        mine = dict.fromkeys(out, 0.0)
        mine[-1] = max(run.host_seconds - sum(run.seconds), 0.0)
        for call, seconds in zip(p.calls, run.seconds, strict=True):
            for line, _, share in shares[call.kernel]:
                mine[line] += share * seconds
        for line, seconds in mine.items():
            out[line].seconds.append(seconds)
    return out


def _spread(times: Sequence[float]) -> Three:
    """(median, first and third quartile)."""
    if len(times) < 2:
        return (times[0], None, None) if times else NONE
    low, middle, high = quantiles(times, method="inclusive")
    return middle, low, high


def judge(out: CompareData) -> None:
    """Give each time that was measured its verdict. Where a setting differs no kernel is the same; where nothing differs at all,
    any difference of times is noise."""
    same = {} if out.settings else {x.after: (x.time.before, x.time.after) for x in out.kernels if x.code == "same"}
    alike = not out.settings and len(same) == len(out.kernels)
    floor = Floor({k: (a, b) for k, (a, b) in same.items() if a and b})
    if any(x.time.chance is not None for x in out.kernels):
        out.floor = _floor_words(floor, alike)
    for rows in (
        [(x.time, x.after in same, x.after) for x in out.kernels],
        [(x.time, x.same and not out.settings, -1) for x in out.lines],
        [(x, alike, -1) for x in out.figures],
    ):
        tested = Counter(as_it_was for x, as_it_was, _ in rows if x.chance is not None)
        for x, as_it_was, own in rows:
            if x.chance is None or not x.before or not x.after:
                continue
            chance, more = floor.judge(x.before, x.after, as_it_was, own)
            if as_it_was:  # any of so many may stand out (Bonferroni's correction), without a reason
                chance = 1.0 if alike else min(chance * tested[True], 1.0)
            x.chance = max(x.chance, chance)
            x.verdict = "noise" if x.chance >= CHANCE else "more" if more else "less"
    out.kernels.sort(key=lambda x: (x.time.verdict not in SURE, -abs((x.time.after or 0.0) - (x.time.before or 0.0))))


def _floor_words(floor: Floor, alike: bool) -> str:
    """'34 kernels are the same in both; half of their times became 0.97 to 1.04 × …'. `alike`: all of them are."""
    ratios = sorted(b / a for a, b in floor.times.values())
    if alike:
        ends = f"; the kernels became {ratios[0]:.2f} to {ratios[-1]:.2f} ×" if ratios else ""
        return f"Both ran the same kernels: however much a time differs, it is noise between the two recordings{ends}."
    if len(ratios) < 2:
        known = "One kernel ran" if ratios else "No kernel ran"
        return f"{known} as it was: how far two recordings lie apart is not measured, about {SPREAD:.0%} are assumed."
    low, _, high = quantiles(ratios, method="inclusive")
    words = f"{len(ratios)} kernels are the same in both; half of their times became {low:.2f} to {high:.2f} ×"
    return words + ": a time counts as another one where it stands out from that."
