"""compare: what changed from one recording to another, and did it become faster?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap

from tinyviz import differences, matching, palette, texts, units
from tinyviz.differences import SURE
from tinyviz.significance import CHANCE, LEAST
from tinyviz.svg import LINE, Svg, cut
from tinyviz.viewdata import Compared, CompareData, Difference, KernelPair, NodeChange
from tinyviz.views import base, choose
from tinyviz.views.graph import label
from tinyviz.views.lines import where
from tinyviz.wire import Program, Recording, Selection

NAME = "compare"
HOWTO = (
    "Two recordings of a program, before and after; what has no partner in the other one is marked + (new) or − (gone).",
    f"A time counts as more ▲ or less ▼ when noise alone would give such a difference in less than {CHANCE:.0%} of cases: noise "
    "from run to run (rank test), and from recording to recording, as kernels show that are the same in both; else it is marked "
    "≈, and · where nothing was tested.",
    "The graph: nodes with equal histories are left out; ▸ marks where a change begins, other rows follow from it.",
)
SIGNS = {
    "equal": "=", "more": "▲", "less": "▼", "noise": "≈", "new": "+", "gone": "−", "untested": "·", "unknown": units.MISSING,
}  # fmt: skip
OTHER = (
    "{}: a difference of times is one of {} and of the program together; nodes are those of the program alone;"
    " kernels, FLOPs and bytes also follow what the engine chose for {}"
)
TWO_MACHINES = OTHER.format("two machines", "the machines", "each machine")
OTHER_CORES = OTHER.format("another number of cores", "the cores", "each number")
SAME_PEAK = 0.25  # relative: two measurements of one machine differ by less
PEAKS = {
    "vector_bytes": ("a vector", units.nbytes, ""),
    "vector_registers": ("vector registers", units.count, ""),
    "l1_bytes": ("L1 of all cores", units.nbytes, ""),
    "l2_bytes": ("L2 of all cores", units.nbytes, ""),
    "l3_bytes": ("L3", units.nbytes, ""),
    "flops_per_second": ("arithmetic", units.count, "FLOP/s"),
    "l1_bytes_per_second": ("reads from L1", units.nbytes, "/s"),
    "l2_bytes_per_second": ("reads from L2", units.nbytes, "/s"),
    "l3_bytes_per_second": ("reads from L3", units.nbytes, "/s"),
    "dram_bytes_per_second": ("reads from memory", units.nbytes, "/s"),
}
DIFFERS = {"same": "nothing", "schedule": "schedule", "loops": "loops", "": ""}


class NothingToCompare(ValueError):
    """Only one recording is there."""


def data(
    r: Recording,
    program: int | None = None,
    selection: Selection | None = None,
    before: Recording | None = None,
    before_program: int | None = None,
) -> CompareData:
    """`r` is the later one. Without `before_program`, the program of `before` that is likest to the one shown."""
    if before is None:
        raise NothingToCompare("there is nothing to compare with: tv.compare(before, after) shows two recordings")
    at = choose(r, program, selection)
    from_ = choose(before, before_program, None) if before_program is not None else likest(before, r.programs[at])
    a, b = matching.Side(before, from_), matching.Side(r, at)
    m = matching.match(a, b)
    changes = matching.changes(a, b, m)
    shared = base(NAME, f"Compare: {a.p.name} → {b.p.name}", HOWTO, (), at)
    kinds = {"new": "only after", "removed": "only before"}
    shared["legend"] = [replace(palette.CATEGORIES[kind], label=words) for kind, words in kinds.items()]
    old, new = _compared(before, a.p), _compared(r, b.p)
    pairs = differences.kernel_pairs(a.p, b.p, m)
    out = CompareData(
        **shared, before=old, after=new, figures=differences.figures(a.p, b.p), kernels=pairs,
        lines=differences.line_pairs(before, a.p, r, b.p, m, pairs),
        nodes=[_node(before, a, r, b, c) for c in changes], equal=len(m.equal),
        behind=len(m.partner) - len(m.equal) - sum(c.kind in ("changed", "rewired") for c in changes),
    )  # fmt: skip
    for name in ("machine", "cores", "backend", "engine"):
        one, other = getattr(old, name), getattr(new, name)
        if one != other:
            out.settings.append(f"{name}: {one or units.MISSING} → {other or units.MISSING}")
    apart = machines(before, r)
    out.settings += apart
    if old.machine != new.machine or (apart and old.cores == new.cores):
        out.caveat = TWO_MACHINES
    elif old.cores != new.cores:
        out.caveat = OTHER_CORES
    elif out.settings:
        out.caveat = "a difference of times is one of these settings and of the program together"
    differences.judge(out)
    return out


def machines(a: Recording, b: Recording) -> list[str]:
    """The peaks that differ by more than a measurement of one machine does, with their ratio."""
    out = []
    for name, (words, written, per) in PEAKS.items():
        old, new = a.machine.peaks.get(name), b.machine.peaks.get(name)
        if old and new and abs(new / old - 1) > SAME_PEAK:
            out.append(f"{words}: {written(old)}{per} → {written(new)}{per} ({new / old:.2f} ×)")
    return out


def likest(before: Recording, p: Program) -> int:
    """The program of `before` that stands for `p`: with the same graph, else of the same name, else the one with most time."""
    first = choose(before, None, None)
    ranked = [(x.key != p.key, x.name != p.name, i != first, i) for i, x in enumerate(before.programs)]
    return min(ranked)[-1]


def _compared(r: Recording, p: Program) -> Compared:
    machine, backend = r.machine, p.backend or r.backend
    made = r.created.replace("T", " ").replace("+00:00", " UTC")
    return Compared(r.title, p.name, made, machine.name, machine.cores, backend, r.engine, p.launches.count)


def _node(r0: Recording, a: matching.Side, r1: Recording, b: matching.Side, c: matching.Change) -> NodeChange:
    r, side, n = (r1, b, c.after) if c.after >= 0 else (r0, a, c.before)
    line = next(iter(side.p.nodes.lines[n]), -1)
    code = r.lines.text[line] if line >= 0 else ""
    texts_ = [node_text(s, i) if i >= 0 else "" for s, i in ((a, c.before), (b, c.after))]
    place = where(r, line) if line >= 0 else ""
    return NodeChange(c.kind, c.first, c.before, c.after, texts_[0], texts_[1], place, code, side.p.nodes.module[n])


def node_text(side: matching.Side, n: int) -> str:
    """'maximum(%3, %5) float32[32, 128]'."""
    nodes = side.p.nodes
    of = f"({', '.join(f'%{s}' for s in side.src[n])})" if side.src[n] else ""
    return f"{label(side.p, n)}{of} {nodes.dtype[n]}{units.shape(nodes.shape[n])}"


def ratio(d: Difference) -> str:
    """'0.71 ×', after in units of before."""
    return f"{d.after / d.before:.2f} ×" if d.before and d.after is not None else units.MISSING


def chance(d: Difference) -> str:
    if d.chance is None:
        return units.MISSING
    return "< 0.001" if d.chance < 0.001 else f"{d.chance:.2g}"


def kernel_name(x: KernelPair) -> str:
    return " → ".join(dict.fromkeys(name for name in (x.name_before, x.name_after) if name))


def text(r: Recording, d: CompareData) -> str:
    out = [texts.heading(d.title, d.howto) + _sides(d)]
    if d.settings:
        out.append("\n".join(["settings that differ", *(f"  {x}" for x in d.settings), d.caveat]))
    if d.floor:
        out.append(d.floor)

    def numbers(x: Difference) -> list[str]:
        return [units.amount(x.before, x.unit), units.amount(x.after, x.unit), SIGNS[x.verdict], ratio(x), chance(x)]

    head = ["before", "after", "", "ratio", "chance"]
    out.append(texts.table(["the program", *head], [[x.name, *numbers(x)] for x in d.figures], (1, 2, 4, 5)))
    out.append(f"{graph_text(d)}\n{_nodes(d)}")
    rows = [[kernel_name(x), *numbers(x.time), _pair(x.bytes), DIFFERS[x.code]] for x in d.kernels]
    out.append("kernels\n" + texts.table(["kernel", *head, "bytes", "differs in"], rows, (1, 2, 4, 5)))
    rows = [[x.where_after or x.where_before, *numbers(x.time), cut(x.code, 110)] for x in d.lines]
    out.append("lines\n" + texts.table(["line", *head, "code"], rows, (1, 2, 4, 5)))
    return "\n\n".join(out)


def graph_text(d: CompareData) -> str:
    return f"graph: {units.some(d.equal, 'node')} equal, {d.behind} behind a change, {len(d.nodes)} different"


def _sides(d: CompareData) -> str:
    rows = [
        [name, x.recording, x.program, x.created, x.backend, x.machine or units.MISSING, str(x.runs)]
        for name, x in (("before", d.before), ("after", d.after))
        if x is not None
    ]
    few = any(x is not None and x.runs <= LEAST for x in (d.before, d.after))
    note = f"\nfewer than {LEAST + 1} runs on a side: no time can be told from noise" if few else ""
    return texts.table(["", "recording", "program", "made", "backend", "machine", "runs"], rows, (6,)) + note


def _nodes(d: CompareData) -> str:
    rows = []
    for x in d.nodes:
        both = [cut(each or units.MISSING, 44) for each in (x.text_before, x.text_after)]
        rows.append(["▸" if x.first else "", x.kind, *both, x.where, cut(x.code, 40)])
    return texts.table(["", "", "before", "after", "line", "code"], rows) if rows else "both ask for the same computation"


def _pair(x: Difference) -> str:
    a, b = units.amount(x.before, x.unit), units.amount(x.after, x.unit)
    return a if a == b else f"{a} → {b}"


MOST = 24  # rows of one table in a still picture


def svg(r: Recording, d: CompareData) -> str:
    out = Svg(1000, d.title, d.howto, d.legend)
    for name, x in (("before", d.before), ("after", d.after)):
        out.y += LINE
        out.text(12, out.y, name, "bold")
        if x is not None:
            about = f"{x.recording}: {x.program}, {x.created}, {x.backend}, {units.some(x.runs, 'run')}"
            out.text(80, out.y, cut(about, 130), "faint")
    for line in [*(f"differs: {x}" for x in d.settings), *filter(None, (d.caveat, d.floor))]:
        for part in wrap(line, 150):
            out.y += LINE
            out.text(12, out.y, part)
    _table(out, "the program", [(x.name, x) for x in d.figures])
    out.y += LINE * 2
    out.text(12, out.y, graph_text(d), "bold")
    for c in d.nodes[:MOST]:
        out.y += LINE
        category = {"added": "new", "removed": "removed"}.get(c.kind)
        if category:
            out.mark(28, out.y - 11, category)
        out.text(12, out.y, "▸" if c.first else "")
        out.text(50, out.y, c.kind, "faint")
        out.text(120, out.y, cut(" → ".join(x for x in (c.text_before, c.text_after) if x), 88), "mono", tip=c.code)
        out.text(988, out.y, cut(c.where, 28), "faint end")
    _more(out, len(d.nodes))
    _table(out, "kernels", [(kernel_name(x), x.time) for x in d.kernels])
    _table(out, "lines", [(f"{x.where_after or x.where_before}  {x.code}", x.time) for x in d.lines])
    return str(out)


def _table(out: Svg, title: str, rows: Sequence[tuple[str, Difference]]) -> None:
    out.y += LINE * 2
    out.text(12, out.y, title, "bold")
    for x, name in ((600, "before"), (700, "after"), (800, "ratio"), (880, "chance")):
        out.text(x, out.y, name, "faint end")
    for name, d in rows[:MOST]:
        out.y += LINE
        sure = d.verdict in SURE
        ink = "mono end" if sure else "mono end faint"
        out.text(12, out.y, cut(name, 74), "mono", tip=name)
        out.text(600, out.y, units.amount(d.before, d.unit), ink)
        out.text(700, out.y, units.amount(d.after, d.unit), ink)
        out.text(800, out.y, ratio(d), ink)
        out.text(880, out.y, chance(d), "mono end faint")
        out.text(900, out.y, f"{SIGNS[d.verdict]} {d.verdict}", "bold" if sure else "faint")
    _more(out, len(rows))


def _more(out: Svg, rows: int) -> None:
    if rows > MOST:
        out.y += LINE
        out.text(12, out.y, f"… and {rows - MOST} more: see the live view or the text", "faint")
