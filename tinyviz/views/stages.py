"""stages: what did each stage do, rule by rule, firing by firing, and why was it allowed?"""

from __future__ import annotations

from tinyviz import texts, units
from tinyviz.analysis import plus
from tinyviz.frames import became as became_at
from tinyviz.frames import blame, fate
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import StageRow, StagesData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import Program, Recording, Selection

NAME = "stages"
HOWTO = (
    "The stages of the compiler from top to bottom; each asks one question. Stages that changed nothing are folded.",
    "Under a stage stand the rules that fired in it, how often, and the reason why each is allowed.",
    "In the live view the arrow keys step through single firings: + marks new nodes, − those that went; nothing else moves.",
)
TEXT_FIRINGS = 40


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> StagesData:
    at = choose(r, program, selection)
    p = r.programs[at]
    rows = [_row(p, i) for i in range(len(p.stages))]
    node = int(selection.id.split(".")[1]) if selection is not None and selection.kind == "node" else -1
    if node >= len(p.nodes):
        raise ValueError(f"the program has {len(p.nodes)} nodes, counted from 0; there is no {node}")
    return StagesData(**base(NAME, f"Stages: {p.name}", HOWTO, ("new", "removed"), at), rows=rows, node=node)


def _row(p: Program, i: int) -> StageRow:
    s = p.stages[i]
    counts: dict[int, int] = {}
    times: dict[int, float | None] = {}
    for rule, seconds in zip(s.frames.rule, s.frames.seconds, strict=True):
        counts[rule] = counts.get(rule, 0) + 1
        times[rule] = plus(times.get(rule), seconds, 1.0)
    order = sorted(counts, key=lambda rule: (-counts[rule], rule))
    has_graph = bool(s.before or s.after)
    recorded = s.replayed or len(s.frames) > 0
    firings = len(s.frames) if recorded else None
    changed = None if not has_graph else s.before != s.after or bool(firings)
    decisions = sum(d.stage == s.name for d in p.decisions)
    before, after = (len(s.before) if has_graph else None), (len(s.after) if has_graph else None)
    return StageRow(
        i, s.name, s.question, s.seconds, firings, before, after, decisions, changed, order, [counts[x] for x in order],
        [times[x] for x in order],
    )  # fmt: skip


def text(r: Recording, d: StagesData) -> str:
    p = r.programs[d.program]
    rows = []
    for x in d.rows:
        nodes = f"{x.nodes_before} → {x.nodes_after}" if x.nodes_after is not None else ""
        note = "(unchanged)" if x.changed is False else nodes
        firings = units.MISSING if x.firings is None and x.name == "simplify" else "" if x.firings is None else str(x.firings)
        rows.append([x.name, x.question, units.seconds(x.seconds), note, firings, str(x.decisions or "")])
    out = [
        texts.heading(d.title, d.howto)
        + texts.table(["stage", "question", "time", "nodes", "firings", "decisions"], rows, (2, 4, 5))
    ]
    if p.bisection is not None:
        out.append(f"bisection: {p.bisection.sentence}")
    for x in d.rows:
        if x.rules:
            each = zip(x.rules, x.counts, x.times, strict=True)
            body = [[str(n), units.seconds(t), r.rules.name[i], r.rules.reason[i], _source(r, i)] for i, n, t in each]
            out.append(f"rules of {x.name}\n" + texts.table(["fired", "time", "rule", "reason", "source"], body, (0, 1)))
            out.append(firings_text(r, p, x.stage))
    if d.node >= 0:
        out.append(history_text(r, p, d.node))
    return "\n\n".join(out)


def _source(r: Recording, rule: int) -> str:
    return f"{r.rules.file[rule]}:{r.rules.line[rule]}" if r.rules.file[rule] else ""


def firings_text(r: Recording, p: Program, stage: int, limit: int = TEXT_FIRINGS) -> str:
    """One line per firing: what became what."""
    f = p.stages[stage].frames
    rows = []
    for k in range(min(len(f), limit)):
        change = f"+{len(f.added[k])} −{len(f.removed[k])}"
        before, after = node_text(p, f.replaced[k]), node_text(p, f.by[k])
        if f.replaced[k] == f.by[k] and f.added[k]:  # it only adds: for a line of the user's, or for the node of a gradient
            lines = p.nodes.lines[f.added[k][0]]
            if f.by[k] in f.added[k]:
                before = cut(f"{where(r, lines[0])}  {r.lines.text[lines[0]]}", 56) if lines else ""
            after = cut(", ".join(f"#{i} {p.nodes.op[i]}" for i in f.added[k]), 56)
        rows.append([str(k), r.rules.name[f.rule[k]], before, "→ " + after, change])
    more = f"\n… and {len(f) - limit} more firings" if len(f) > limit else ""
    return f"firings of {p.stages[stage].name}\n" + texts.table(["#", "rule", "before", "after", "nodes"], rows, (0,)) + more


def history_text(r: Recording, p: Program, node: int) -> str:
    """Where a node came from, back to the user's line, and what became of it."""
    out = [node_text(p, node)]
    for word, firings in (("made by", blame(p, node)), ("then", fate(p, node))):
        for s, k in firings:
            f = p.stages[s].frames
            became = "" if f.replaced[k] == f.by[k] else f": {node_text(p, f.replaced[k])} → {node_text(p, f.by[k])}"
            out.append(f"  {word} {p.stages[s].name} step {k}, {r.rules.name[f.rule[k]]}{became}")
    end = became_at(p, node)
    kernels = [k.name for k in p.kernels if end in k.nodes]
    out.append(f"  at the end: {node_text(p, end)}" + (f", in {', '.join(kernels)}" if kernels else ", in no kernel"))
    out += [f"  asked for by {where(r, line)}  {r.lines.text[line]}" for line in p.nodes.lines[node]]
    return "\n".join(out)


def node_text(p: Program, n: int) -> str:
    """'#12 mul(#3, #7) [8, 4]': ids of the recording."""
    args = ", ".join(f"#{s}" for s in p.nodes.src[n]) or p.nodes.arg[n]
    return cut(f"#{n} {p.nodes.op[n]}({args}) {units.shape(p.nodes.shape[n])}", 56)


def svg(r: Recording, d: StagesData) -> str:
    p = r.programs[d.program]
    out = Svg(940, d.title, d.howto, d.legend)
    out.y += 8
    most = max([s.seconds or 0.0 for s in d.rows], default=0.0) or 1.0
    for x in d.rows:
        out.y += LINE + 8
        out.rect(12, out.y - 14, 916, LINE + 3, "raised", rx=4)
        out.text(20, out.y, x.name, "bold")
        out.text(130, out.y, x.question)
        if x.nodes_after is not None:
            out.text(600, out.y, "unchanged" if x.changed is False else f"{x.nodes_before} → {x.nodes_after} nodes", "faint")
        elif x.decisions:
            out.text(600, out.y, f"{x.decisions} decisions", "faint")
        if x.seconds is not None:
            out.rect(750, out.y - 10, 100 * x.seconds / most, 11, f"fill {css('host')}")
        out.text(920, out.y, units.seconds(x.seconds), "mono end")
        for rule, n, t in list(zip(x.rules, x.counts, x.times, strict=True))[:18]:
            out.y += LINE
            out.text(58, out.y, str(n), "mono end")
            out.text(70, out.y, cut(r.rules.name[rule], 38), "mono")
            out.text(350, out.y, cut(r.rules.reason[rule], 84), "faint")
            out.text(920, out.y, units.seconds(t), "mono faint end")
        if len(x.rules) > 18:
            out.y += LINE
            out.text(70, out.y, f"… and {len(x.rules) - 18} more rules", "faint")
    if p.bisection is not None:
        out.y += LINE + 8
        out.text(20, out.y, "bisection", "bold")
        out.text(130, out.y, cut(p.bisection.sentence, 130), tip=p.bisection.sentence)
    return str(out)
