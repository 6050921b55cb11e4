"""values: how do weights, activations, gradients and updates develop over training, and where did a NaN come from?"""

from __future__ import annotations

import math
from dataclasses import replace
from textwrap import wrap

from tinyviz import palette, texts, units
from tinyviz.svg import LINE, Svg, cut
from tinyviz.viewdata import ValueRow, ValuesData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import Program, Recording, Selection, Series

NAME = "values"
HOWTO = (
    "Each row is one value of the network, sampled over the runs of the program: its norm as a curve, its distribution as a "
    "picture (time to the right, values upwards, stronger is more).",
    "Updates are beside their weight: the ratio of the norms is near 0.001 in many healthy trainings; far off, a remark says so.",
    "What was not sampled is not drawn: record with tv.watch(values=10), and with finite=True to catch the first NaN.",
)
LEGEND = {"forward": "inputs, activations and weights", "backward": "gradients", "optimizer": "updates"}
PHASE = {"gradient": "backward", "update": "optimizer"}  # of the other kinds: forward
SLOW, FAST = 1e-6, 1e-1  # update-to-weight ratios beyond which a remark is made
NOT_SAMPLED = "no values were sampled: record with tv.watch(values=10), for every tenth run"


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> ValuesData:
    at = choose(r, program, selection)
    p = r.programs[at]
    rows = [_row(p, i) for i in _order(p)]
    shared = base(NAME, f"Values: {p.name}", HOWTO, (), at)
    shared["legend"] = [replace(palette.CATEGORIES[phase], label=words) for phase, words in LEGEND.items()]
    return ValuesData(**shared, rows=rows)


def _order(p: Program) -> list[int]:
    """Inputs first, then module by module: its activations, then its weights with their gradients and updates."""
    kinds = {"input": 0, "activation": 1, "softmax": 1, "weight": 2, "gradient": 2, "update": 2}
    modules = {m: i for i, m in enumerate(dict.fromkeys(s.module for s in sorted(p.values, key=lambda s: s.node)))}
    names = {n: i for i, n in enumerate(dict.fromkeys(s.name for s in p.values))}

    def key(i: int) -> tuple[bool, int, int, int, int]:
        s = p.values[i]
        return s.kind != "input", modules[s.module], kinds.get(s.kind, 3), names[s.name], i

    return sorted(range(len(p.values)), key=key)


def _row(p: Program, i: int) -> ValueRow:
    s = p.values[i]
    ratio = ratios(p, s) if s.kind == "update" else []
    return ValueRow(i, ratio, remarks(s, ratio))


def ratios(p: Program, update: Series) -> list[float | None]:
    """By sample: the norm of the update over that of its weight."""
    weight = next((s for s in p.values if s.kind == "weight" and s.name == update.name), None)
    if weight is None:
        return []
    pairs = zip(update.samples.norm, weight.samples.norm, strict=False)
    return [u / w if u is not None and w else None for u, w in pairs]


def remarks(s: Series, ratio: list[float | None]) -> list[str]:
    """What stands out, each from numbers of the series."""
    x, out = s.samples, []
    first = next((i for i, n in enumerate(x.nonfinite) if n), None)
    if first is not None:
        are = "is" if x.nonfinite[first] == 1 else "are"
        out.append(f"{units.some(x.nonfinite[first], 'element')} {are} NaN or infinite in run {x.run[first]}")
    # where everything is NaN nothing is 0: what was dead before is worth knowing
    dead = next((n for n, bad in zip(reversed(x.dead), reversed(x.nonfinite), strict=True) if not bad), None)
    if dead:
        count = s.shape[1] if len(s.shape) == 4 else s.shape[-1]
        out.append(f"{dead} of {count} units are 0 for the whole batch")
    if s.kind == "gradient" and x.norm and x.norm[-1] == 0:
        out.append("no gradient arrives here")
    norms = [v for v in x.norm if v]
    if s.kind == "gradient" and len(norms) > 1 and norms[-1] > 1e3 * norms[0]:
        out.append(f"grew {norms[-1] / norms[0]:.0f} times")
    last = next((v for v in reversed(ratio) if v is not None), None)
    if last is not None and last > FAST:
        out.append(f"steps of {units.percent(last)} of the weight: large")
    if last is not None and last < SLOW:
        out.append(f"steps of {last:.1e} of the weight: it hardly moves")
    return out


def text(r: Recording, d: ValuesData) -> str:
    p = r.programs[d.program]
    out = texts.heading(d.title, d.howto) + "".join(f"{fault(r, p, i)}\n" for i in range(len(p.faults)))
    if not d.rows:
        return out + f"{units.MISSING} {NOT_SAMPLED}"
    rows = []
    for row in d.rows:
        s = p.values[row.series]
        x = s.samples
        ratio = number(next((v for v in reversed(row.ratio) if v is not None), None))
        shape = "×".join(map(str, s.shape)) or "scalar"
        what = [cut(s.name, 40), s.kind, shape, spark(x.norm), number(x.norm[-1]), number(x.mean[-1]), number(x.std[-1])]
        rows.append([*what, units.percent(x.zeros[-1]), ratio if s.kind == "update" else "", "; ".join(row.remarks)])
    runs = p.values[0].samples.run
    head = ["value", "kind", "shape", f"norm, runs {runs[0]} to {runs[-1]}", "norm", "mean", "std", "zeros", "ratio", "remarks"]
    left = "".join(f"\n{units.MISSING} {x}" for x in p.missing if "not sampled" in x)
    return out + texts.table(head, rows, (4, 5, 6, 7, 8)) + left


def fault(r: Recording, p: Program, i: int) -> str:
    """What is said of one fault: the sentence, and the kernels that it reached."""
    f = p.faults[i]
    names = ", ".join(f"k{k} {p.kernels[k].name}" for k in f.kernels[:4]) + (" …" if len(f.kernels) > 4 else "")
    place = f" [{where(r, f.line)}]" if f.line >= 0 and r.files[r.lines.file[f.line]].cell else ""
    return f"NOT FINITE: {f.sentence}{place}" + (f"; kernels with such results, the first one made it: {names}" if names else "")


def number(value: float | None) -> str:
    return units.MISSING if value is None else f"{value:.3g}"


def spark(values: list[float | None], width: int = 24) -> str:
    """A curve of block characters; a gap where a value is missing."""
    every = max(-(-len(values) // width), 1)
    shown = values[::every]
    fine = [v for v in shown if v is not None]
    if not fine:
        return ""
    low, high = min(fine), max(fine)
    return "".join(" " if v is None else "▁▂▃▄▅▆▇█"[int(7.99 * (v - low) / (high - low)) if high > low else 3] for v in shown)


MOST, PICTURES = 40, 10
ROW = 30.0


def svg(r: Recording, d: ValuesData) -> str:
    p = r.programs[d.program]
    out = Svg(1160, d.title, d.howto, d.legend)
    for i in range(len(p.faults)):
        for part in wrap("▲ " + fault(r, p, i), 150):
            out.y += LINE
            out.text(12, out.y, part, "bold")
    out.y += LINE
    if not d.rows:
        out.text(12, out.y, f"{units.MISSING} {NOT_SAMPLED}", "faint")
        return str(out)
    for x, name in ((12, "value"), (330, "norm"), (530, "distribution"), (680, "norm, last"), (770, "ratio"), (840, "remarks")):
        out.text(x, out.y, name, "faint")
    for row in d.rows[:MOST]:
        s = p.values[row.series]
        out.y += ROW
        out.mark(12, out.y - 18, PHASE.get(s.kind, "forward"))
        out.text(32, out.y - 8, cut(s.name, 42), "mono bold", tip=s.name)
        out.text(32, out.y + 4, f"{s.kind} {'×'.join(map(str, s.shape))}", "faint")
        _curve(out, s, 330, out.y - 18, 180, 22)
        _distribution(out, s, 530, out.y - 18, 130, 24)
        out.text(740, out.y, number(s.samples.norm[-1]), "mono end")
        last = next((v for v in reversed(row.ratio) if v is not None), None)
        out.text(820, out.y, number(last) if row.ratio else "", "mono end")
        out.text(840, out.y, cut("; ".join(row.remarks), 44), "bold", tip="; ".join(row.remarks))
    if len(d.rows) > MOST:
        out.y += LINE
        out.text(12, out.y, f"… and {len(d.rows) - MOST} more: see the live view or the text", "faint")
    return str(out)


def _curve(out: Svg, s: Series, x: float, y: float, width: float, height: float) -> None:
    out.rect(x, y, width, height, "raised")
    fine = [v for v in s.samples.norm if v is not None]
    if not fine:
        return
    low, high = min(fine), max(fine)
    step = width / max(len(s.samples.norm) - 1, 1)
    path, pen = "", "M"
    for i, v in enumerate(s.samples.norm):
        if v is None:
            pen = "M"  # a gap where it was not finite
            continue
        path += f"{pen}{x + i * step:.1f} {y + height - 2 - (height - 4) * ((v - low) / (high - low) if high > low else 0.5):.1f}"
        pen = "L"
    out.path(path, "edge")


def _distribution(out: Svg, s: Series, x: float, y: float, width: float, height: float) -> None:
    """Eight moments of it, as columns of the histogram on one scale."""
    picked = heat(s, 10, 8)
    wide, high = width / max(len(picked), 1), height / 8
    for i, column in enumerate(picked):
        if not column:  # nothing was finite
            out.text(x + (i + 0.5) * wide, y + height / 2 + 4, units.MISSING, "faint mid")
        most = max(column, default=0)
        for j, n in enumerate(column):
            if n:
                dark = 0.15 + 0.85 * math.sqrt(n / most)
                place = f'x="{x + i * wide:.1f}" y="{y + height - (j + 1) * high:.1f}" width="{wide:.1f}" height="{high:.1f}"'
                out.parts.append(f'<rect {place} fill="var(--ink)" fill-opacity="{dark:.2f}"/>')


def heat(s: Series, columns: int, rows: int) -> list[list[float]]:
    """The histograms of at most so many samples on one common scale of so many rows; a sample that had none is an empty list."""
    x = s.samples
    every = max(-(-len(x.run) // columns), 1)
    lows, highs = [v for v in x.low if v is not None], [v for v in x.high if v is not None]
    if not lows:
        return []
    low, span = min(lows), (max(highs) - min(lows)) or 1.0
    out = []
    for i in range(0, len(x.run), every):
        column = [0.0] * rows if x.histogram[i] else []
        a, b = x.low[i], x.high[i]
        for j, n in enumerate(x.histogram[i]):
            if a is not None and b is not None:
                value = a + (j + 0.5) / len(x.histogram[i]) * (b - a)
                column[min(int(rows * (value - low) / span), rows - 1)] += n
        out.append(column)
    return out
