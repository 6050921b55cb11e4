"""fusion: what is computed together, where is each value kept, and what was refused for which reason?"""

from __future__ import annotations

from tinyviz import texts, units
from tinyviz.palette import verdict
from tinyviz.svg import LINE, Svg, css, cut, wrap
from tinyviz.viewdata import FusionData, FusionEdge
from tinyviz.views import base, choose
from tinyviz.wire import Decision, Program, Recording, Selection

NAME = "fusion"
HOWTO = (
    "One row for each value that flows to a user: inline, computed once per iteration of a loop of its user, or stored whole.",
    "The reason is the engine's own, with the numbers that it compared; what it refused stands below, with why.",
    "Rows are grouped by the kernel that computes the user.",
)


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> FusionData:
    at = choose(r, program, selection)
    p = r.programs[at]
    of: dict[int, int] = {}
    for i, k in enumerate(p.kernels):
        for n in k.nodes:
            of.setdefault(n, i)
    edges: list[FusionEdge] = []
    groups: list[int] = []
    counts: dict[str, int] = {}
    for i, d in enumerate(p.decisions):
        if d.stage != "fuse":
            continue
        if d.kind != "edge" or not d.nodes:
            groups.append(i)
            continue
        producer, consumer = d.nodes[0], d.nodes[-1]
        word = verdict(d.verdict)
        word = d.verdict if word == "host" else word
        counts[word] = counts.get(word, 0) + 1
        rest = d.verdict.removeprefix(word).lstrip(", ")
        saved, again = d.numbers.get("bytes_saved"), d.numbers.get("flops_recomputed")
        edges.append(FusionEdge(producer, consumer, word, rest, saved, again, i, of.get(consumer, -1)))
    edges.sort(key=lambda e: (e.kernel < 0, e.kernel, e.decision))
    legend = ("inline", "at loop", "whole")
    return FusionData(**base(NAME, f"Fusion: {p.name}", HOWTO, legend, at), edges=edges, groups=groups, counts=counts)


def numbers(p: Program) -> dict[int, int]:
    """Node id -> its number in the simplified graph."""
    return {n: i for i, n in enumerate(p.simplified)}


def edge_text(p: Program, e: FusionEdge, number: dict[int, int]) -> str:
    """'%4 exp -> %7 sum', by numbers of the simplified graph."""
    ends = [e.producer] if e.producer == e.consumer else [e.producer, e.consumer]
    return " -> ".join(f"%{number.get(n, '?')} {p.nodes.op[n]}" for n in ends)


def numbers_text(d: Decision) -> str:
    """'evaluations 40, seconds_inline 1.2 µs': each number in the unit that its name says."""
    parts = []
    for name, value in d.numbers.items():
        unit = "s" if name.startswith("seconds") else "bytes" if "bytes" in name else ""
        parts.append(f"{name} {units.amount(value, unit)}")
    return ", ".join(parts)


def text(r: Recording, d: FusionData) -> str:
    p = r.programs[d.program]
    number = numbers(p)
    counts = ", ".join(f"{units.some(n, 'edge')} {v}" for v, n in d.counts.items())
    out = [texts.heading(d.title, d.howto) + (counts or "no decision was recorded")]
    for kernel in sorted({e.kernel for e in d.edges}, key=lambda k: (k < 0, k)):
        rows = []
        for e in (x for x in d.edges if x.kernel == kernel):
            made = p.decisions[e.decision]
            rows.append([edge_text(p, e, number), f"{e.verdict} {e.where}".strip(), made.reason])
            rows += [["", f"not {v}", why] for v, why in made.alternatives.items()]
            rows += [["", "numbers", numbers_text(made)]] if made.numbers else []
        name = f"kernel {kernel}: {p.kernels[kernel].name}" if kernel >= 0 else "in no kernel"
        out.append(f"{name}\n" + texts.table(["edge", "verdict", "reason"], rows))
    first = next((e for e in d.edges if e.producer != e.consumer and e.producer in number and e.consumer in number), None)
    if first is not None:
        ends = f"({number[first.producer]}, {number[first.consumer]})"
        other = "inline" if first.verdict == "whole" else "whole"
        out.append(f'what if? In Python: lowered.what_if({ends}, "{other}"); in the live view: click an edge')
    if d.groups:
        rows = [[p.decisions[i].subject, p.decisions[i].verdict, p.decisions[i].reason] for i in d.groups]
        out.append("kernels joined or kept apart\n" + texts.table(["about", "verdict", "reason"], rows))
    return "\n\n".join(out)


def svg(r: Recording, d: FusionData) -> str:
    p = r.programs[d.program]
    number = numbers(p)
    out = Svg(980, d.title, d.howto, d.legend)
    out.y += 6
    last = None
    for e in d.edges[:60]:
        if e.kernel != last:
            last = e.kernel
            out.y += LINE + 10
            out.rect(12, out.y - 14, 956, LINE + 3, "raised", rx=4)
            out.text(20, out.y, f"kernel {e.kernel}: {p.kernels[e.kernel].name}" if e.kernel >= 0 else "in no kernel", "bold")
        out.y += LINE + 2
        out.mark(20, out.y - 11, e.verdict if e.verdict in ("inline", "at loop", "whole") else "host")
        out.text(40, out.y, cut(edge_text(p, e, number), 34), "mono")
        out.text(290, out.y, cut(f"{e.verdict} {e.where}".strip(), 24), "bold")
        saved = "" if e.bytes_saved is None else f" Saves {units.nbytes(e.bytes_saved)}"
        again = f", {units.count(e.flops_recomputed)} FLOPs done again." if saved and e.flops_recomputed is not None else ""
        rows = wrap(f"{p.decisions[e.decision].reason}{'.' if saved else ''}{saved}{again}", 78)
        for row in rows[:3]:
            out.text(470, out.y, row)
            out.y += LINE - 2
        out.y -= LINE - 2
        for v, why in p.decisions[e.decision].alternatives.items():
            out.y += LINE - 2
            out.text(470, out.y, cut(f"not {v}: {why}", 82), "faint")
        out.path(f"M20 {out.y + 5:.1f}H968", f"rule {css('host')}")
    if len(d.edges) > 60:
        out.text(20, out.y + LINE, f"… and {units.some(len(d.edges) - 60, 'more edge')}: see the live view or the text", "faint")
    return str(out)
