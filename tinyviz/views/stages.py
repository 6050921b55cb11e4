"""stages: what did each stage do, rule by rule, firing by firing, and why was it allowed?"""

from __future__ import annotations

from collections.abc import Iterable

from tinyviz import arena_steps, texts, units
from tinyviz.analysis import plus
from tinyviz.frames import became as became_at
from tinyviz.frames import blame, fate
from tinyviz.step_text import firing_text, node_text
from tinyviz.steps import count, edits, effects, touched
from tinyviz.svg import LINE, Svg, css, cut, wrap
from tinyviz.viewdata import StageRow, StagesData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import Program, Recording, Selection

NAME = "stages"
HOWTO = (
    "The stages of the compiler from top to bottom; each asks one question. Stages that changed nothing are folded.",
    "Under a stage stand the rules, choices and primitives that fired in it, how often, and why each is allowed.",
    "In the live view the arrow keys step through single firings: + marks what is new, − what went; nothing else moves.",
)
FROM_DISK = "The stages have no times: the program came from the cache on disk, and they were done again for this view alone."
TEXT_FIRINGS = 40


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> StagesData:
    at = choose(r, program, selection)
    p = r.programs[at]
    rows = [_row(p, i) for i in range(len(p.stages))]
    kind, ids = ("", []) if selection is None else (selection.kind, [int(part) for part in selection.id.split(".")])
    node = ids[1] if kind == "node" else -1
    rule = ids[0] if kind == "rule" else -1
    firing = ids[1:] if kind == "firing" else []
    if node >= len(p.nodes):
        raise ValueError(f"the program has {len(p.nodes)} nodes, counted from 0; there is no {node}")
    if rule >= len(r.rules):
        raise ValueError(f"the recording has {len(r.rules)} rules, counted from 0; there is no {rule}")
    if firing and not (firing[0] < len(p.stages) and firing[1] < count(p.stages[firing[0]])):
        raise ValueError(f"the program has no step {firing[1]} of stage {firing[0]}")
    legend = ("new", "removed", "inline", "at loop", "whole")
    timed = not rows or any(x.seconds is not None for x in rows if x.name not in ("record", "differentiate"))
    return StagesData(
        **base(NAME, f"Stages: {p.name}", HOWTO, legend, at), rows=rows, node=node, firing=firing, rule=rule,
        untimed="" if timed else FROM_DISK,
    )  # fmt: skip


def _row(p: Program, i: int) -> StageRow:
    s = p.stages[i]
    counts: dict[int, int] = {}
    times: dict[int, float | None] = {}
    columns = s.frames if len(s.frames) else s.steps
    for rule, seconds in zip(columns.rule, columns.seconds, strict=True):
        counts[rule] = counts.get(rule, 0) + 1
        times[rule] = plus(times.get(rule), seconds, 1.0)
    order = sorted(counts, key=lambda rule: (-counts[rule], rule))
    has_graph = bool(s.before or s.after)
    recorded = s.replayed or count(s) > 0
    firings = count(s) if recorded else None
    if has_graph:
        changed: bool | None = s.before != s.after or bool(firings)
    else:  # loops and emit make texts
        changed = len(s.edits) > 0 or (s.name in ("loops", "emit") and bool(firings)) if recorded else None
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
        firings = units.MISSING if x.firings is None else str(x.firings)
        rows.append([x.name, x.question, units.seconds(x.seconds), note, firings, str(x.decisions or "")])
    out = [
        texts.heading(d.title, d.howto)
        + texts.table(["stage", "question", "time", "nodes", "steps", "decisions"], rows, (2, 4, 5))
    ]
    if d.untimed:
        out.append(f"{units.MISSING} {d.untimed}")
    if p.bisection is not None:
        out.append(f"bisection: {p.bisection.sentence}")
    for x in d.rows:
        if x.rules:
            each = zip(x.rules, x.counts, x.times, strict=True)
            body = [[str(n), units.seconds(t), r.rules.name[i], r.rules.reason[i], _source(r, i)] for i, n, t in each]
            out.append(f"rules of {x.name}\n" + texts.table(["fired", "time", "rule", "reason", "source"], body, (0, 1)))
            out.append(firings_text(r, p, x.stage, rule=d.rule))
    if d.firing:
        out.append(firing_text(r, p, *d.firing))
    elif stepped := [x.stage for x in d.rows if x.rules and x.name != "emit"]:
        step = f"{d.program}.{stepped[-1]}.0"
        out.append(f'one step, word by word: rec.view("stages", selection=("firing", "{step}")), or --select firing:{step}')
    if d.node >= 0:
        out.append(history_text(r, p, d.node))
    return "\n\n".join(out)


def _source(r: Recording, rule: int) -> str:
    return f"{r.rules.file[rule]}:{r.rules.line[rule]}" if r.rules.file[rule] else ""


def firings_text(r: Recording, p: Program, stage: int, limit: int = TEXT_FIRINGS, rule: int = -1) -> str:
    """One line per firing: what became what. `rule`: of this one alone, and then all of them."""
    s = p.stages[stage]
    of = (s.frames if len(s.frames) else s.steps).rule
    effect = range(len(of)) if len(s.frames) else effects(s)
    wanted = [k for k, x in enumerate(of) if x == rule] if rule in of else effect
    shown = wanted if rule in of else wanted[:limit]
    if len(s.frames):
        head, rows, right = ["#", "rule", "before", "after", "nodes"], _frame_rows(r, p, stage, shown), (0,)
    else:
        head, rows, right = ["#", "rule", "about", "what was done", "lines"], _step_rows(r, p, stage, shown), (0,)
    notes = [f"… and {len(wanted) - len(shown)} more"] if len(wanted) > len(shown) else []
    notes += [f"{len(of) - len(wanted)} without effect, or refused"] if len(wanted) < len(of) and rule not in of else []
    return f"{'steps' if len(s.steps) else 'firings'} of {s.name}\n" + "\n".join([texts.table(head, rows, right), *notes])


def _step_rows(r: Recording, p: Program, stage: int, shown: Iterable[int]) -> list[list[str]]:
    s, of = p.stages[stage].steps, edits(p.stages[stage])
    rows = []
    for k in shown:
        d = p.decisions[s.decision[k]] if s.decision[k] >= 0 else None
        between = ", " if d and d.kind == "join" else " -> "
        nodes = between.join(f"#{n} {p.nodes.op[n]}" for n in (d.nodes if d else ()))
        about = p.kernels[s.kernel[k]].name if s.kernel[k] >= 0 else nodes
        lines = f"+{sum(len(e.text) for e in of[k])} −{sum(e.gone for e in of[k])}" if of[k] or s.moved[k] else ""
        rows.append([str(k), r.rules.name[s.rule[k]], cut(about, 44), cut(s.text[k], 60), lines])
    return rows


def _frame_rows(r: Recording, p: Program, stage: int, shown: Iterable[int]) -> list[list[str]]:
    f = p.stages[stage].frames
    rows = []
    for k in shown:
        change = f"+{len(f.added[k])} −{len(f.removed[k])}"
        before, after = node_text(p, f.replaced[k]), node_text(p, f.by[k])
        if f.replaced[k] == f.by[k] and f.added[k]:  # it only adds: for a line of the user's, or for the node of a gradient
            lines = p.nodes.lines[f.added[k][0]]
            if f.by[k] in f.added[k]:
                before = cut(f"{where(r, lines[0])}  {r.lines.text[lines[0]]}", 56) if lines else ""
            after = cut(", ".join(f"#{i} {p.nodes.op[i]}" for i in f.added[k]), 56)
        rows.append([str(k), r.rules.name[f.rule[k]], before, "→ " + after, change])
    return rows


def history_text(r: Recording, p: Program, node: int) -> str:
    """Where a node came from, back to the user's line, and what became of it."""
    out = [node_text(p, node)]
    for word, firings in (("made by", blame(p, node)), ("then", fate(p, node))):
        for s, k in firings:
            f = p.stages[s].frames
            became = "" if f.replaced[k] == f.by[k] else f": {node_text(p, f.replaced[k])} → {node_text(p, f.by[k])}"
            out.append(f"  {word} {p.stages[s].name} step {k}, {r.rules.name[f.rule[k]]}{became}")
    for s, k in touched(p, node):
        x = p.stages[s].steps
        of = f", {p.kernels[x.kernel[k]].name}" if x.kernel[k] >= 0 else ""
        out.append(f"  {p.stages[s].name} step {k}{of}, {r.rules.name[x.rule[k]]}: {cut(x.text[k], 60)}")
    end = became_at(p, node)
    kernels = [k.name for k in p.kernels if end in k.nodes]
    out.append(f"  at the end: {node_text(p, end)}" + (f", in {', '.join(kernels)}" if kernels else ", in no kernel"))
    out += [f"  asked for by {where(r, line)}  {r.lines.text[line]}" for line in p.nodes.lines[node]]
    return "\n".join(out)


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
            became = f"{x.nodes_before} → {units.some(x.nodes_after, 'node')}"
            out.text(600, out.y, "unchanged" if x.changed is False else became, "faint")
        elif x.decisions:
            out.text(600, out.y, units.some(x.decisions, "decision"), "faint")
        if x.seconds is not None:
            out.rect(750, out.y - 10, 100 * x.seconds / most, 11, f"fill {css('host')}")
        out.text(920, out.y, units.seconds(x.seconds), "mono end")
        for rule, n, t in list(zip(x.rules, x.counts, x.times, strict=True))[:18]:
            out.y += LINE
            out.text(58, out.y, str(n), "mono end")
            out.text(70, out.y, cut(r.rules.name[rule], 38), "mono")
            out.text(920, out.y, units.seconds(t), "mono faint end")
            for i, row in enumerate(wrap(r.rules.reason[rule], 80)):
                out.y += LINE if i else 0
                out.text(350, out.y, row, "faint")
        if len(x.rules) > 18:
            out.y += LINE
            out.text(70, out.y, f"… and {units.some(len(x.rules) - 18, 'more rule')}", "faint")
    if d.firing:
        out.y += 10
        for row in firing_text(r, p, *d.firing).split("\n"):
            out.y += LINE
            if row[:2] in ("+ ", "- ", "~ "):
                out.rect(14, out.y - 12, 912, LINE - 1, "raised")
            out.text(20, out.y, cut(row, 136), "mono")
        if p.stages[d.firing[0]].name == "plan" and p.arena_bytes:
            arena_steps.draw(out, p, *d.firing)
    if p.bisection is not None:
        out.y += LINE + 8
        out.text(20, out.y, "bisection", "bold")
        out.text(130, out.y, cut(p.bisection.sentence, 130), tip=p.bisection.sentence)
    return str(out)
