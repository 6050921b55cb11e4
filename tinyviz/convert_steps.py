"""From the engine's decisions and primitives to wire `Steps`. Done after the run, when someone looks: what was recorded is only
which program it was, and all of this is deterministic."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tinyviz import units, wire
from tinyviz.steps import Edit, Row, difference, rows
from tinyviz.tables import Tables

if TYPE_CHECKING:
    from tinyviz.convert import Parts

Change = tuple[list[Edit], list[list[int]]]  # what `tinyviz.steps.difference` says

NEST = "Every value of the kernel at every index of its space; views are arithmetic on the index."
EMIT = "Each statement becomes instructions that do the same, which the lines' links say."
MOVES = {
    "load": "How it is loaded changes no element; only what a lane, or an iteration, needs is read.",
    "store": "How it is stored changes no element; what no lane stands for is not written.",
    "pointers": "An address is the same sum, whichever part of it the pointer holds.",
    "hoist": "A load of what the loop does not write gives the same at each turn.",
}
PLAN = {
    "order": "What a kernel reads must be written before, and what it overwrites read; else the order is free.",
    "given": "Memory that the caller has is used as it is.",
    "place": "A temporary may stand where nothing else is alive while it is; the largest choose first.",
    "update": "A kernel may write over what it reads where no other iteration reads it.",
}


@dataclass
class _Writer:
    """The steps of one stage."""

    stage: wire.Stage
    tables: Tables
    index: dict[int, int]  # identity of a decision -> its position

    def step(
        self, rule: tuple[str, str, Callable[..., Any]], text: str, decision: Any = None, kernel: int = -1,
        change: Change = ([], []), nodes: Iterable[int] = (), seconds: float | None = None,
    ) -> None:  # fmt: skip
        name, reason, function = rule
        number = self.tables.rule(self.stage.name, name, reason, function)
        at = -1 if decision is None else self.index[id(decision)]
        _append(self.stage.steps, number, text, at, kernel, sorted(set(nodes)), change[1], seconds or None)
        for e in change[0]:
            _append(self.stage.edits, len(self.stage.steps) - 1, *e)


def _append(columns: wire.Columns, *row: Any) -> None:
    for column, value in zip(vars(columns).values(), row, strict=True):
        column.append(value)


def add_steps(p: wire.Program, parts: Parts, tables: Tables) -> None:
    """Fill in the steps of fuse, loops, schedule, plan and emit, as far as `parts` knows them."""
    stages = {s.name: s for s in p.stages}
    index = {id(d): i for i, d in enumerate(parts.decisions)}

    nests, plan = parts.nests is not None, parts.plan is not None
    known = {
        "fuse": parts.fused is not None and nests, "loops": nests and plan, "schedule": nests and plan, "plan": plan,
        "emit": parts.executable is not None,
    }  # fmt: skip
    for name, write in _WRITERS.items():
        stage = stages[name]
        whole = partial(write, _Writer(stage, tables, index), p, parts)
        if known[name] and parts.attempt(f"steps of {name}", whole):
            stage.replayed = True
        else:
            stage.steps, stage.edits = wire.Steps(), wire.Edits()  # half of them would be taken for all


def _fuse(w: _Writer, p: wire.Program, parts: Parts) -> bool:
    from tinyengine.stages.fusion import steps as fuse_steps

    steps, becomes = parts.fused
    made = [d for d in parts.decisions if d.stage == "fuse"]
    if [s.decision for s in steps] != made:
        raise RuntimeError("doing the stage again gave other decisions")
    number = parts.simplified.number
    order = sorted(becomes, key=lambda g: (becomes[g], g))
    labels = _labels(p, parts, becomes, set(steps[-1].kernels) if steps else set())
    known: dict[int, tuple[Any, list[Row]]] = {}

    def lines(g: int, kernel: Any) -> list[Row]:
        if g not in known or known[g][0] is not kernel:
            out = [Row(f"{labels[g]} {kernel[0].text}", ())]
            known[g] = (kernel, out + [Row("  " + x.text, (p.simplified[number[x.node]],)) for x in kernel[1:]])
        return known[g][1]

    before: list[Row] = []
    had: dict[int, Any] = {}
    for s, d in zip(steps, made, strict=True):
        now = {g: s.kernels[g] for g in order if g in s.kernels}
        name = fuse_steps.rule(d)
        reason, function = fuse_steps.RULES[name]
        change: Change = ([], [])
        moved: set[tuple[int, str, Any]] = set()
        if now != had:
            after = [row for g, kernel in now.items() for row in lines(g, kernel)]
            change = difference(before, after, nodes=True)
            moved = _places(now, had) ^ _places(had, now)
            before, had = after, now
        nodes = {p.simplified[number[n]] for _, _, n in moved}
        w.step((name, reason, function), d.verdict, d, change=change, nodes=nodes, seconds=s.seconds)
    return True


def _places(kernels: dict[int, Any], other: dict[int, Any]) -> set[tuple[int, str, Any]]:
    """(kernel, how it has it, value) in the kernels that are not the same in `other`."""
    return {(g, x.text, x.node) for g, k in kernels.items() if other.get(g) is not k for x in k if x.node is not None}


def _labels(p: wire.Program, parts: Parts, becomes: dict[int, int], last: set[int]) -> dict[int, str]:
    """What each kernel to be is called: as the kernel that it is at the end; what joins another is a group until then."""
    names = iter([n.kernel.name for n in parts.nests or ()])
    of = [next(names, "") if 0 not in g.space else "" for g in parts.fusion.groups]
    at = {p.kernels[i].name: i for i in _in_order(p, parts)}
    out = {}
    for g, i in becomes.items():
        out[g] = f"k{at[of[i]]} {of[i]}" if g in last and of[i] in at else f"group {g}"
    return out


def _loops(w: _Writer, p: wire.Program, parts: Parts) -> bool:
    from tinyengine.stages import loops
    from tinyengine.stages.nests import merge

    made = {n.kernel.name: n.decisions for n in parts.nests or ()}
    for i in _in_order(p, parts):
        n = sum(1 for line in p.kernels[i].loops.text if line.lstrip().startswith("for "))
        w.step(("nest", NEST, loops.build), units.some(n, "loop"), kernel=i, nodes=p.kernels[i].nodes)
        for d in made.get(p.kernels[i].name, ()):
            w.step(("merge", merge.RULE, merge.merge), d.verdict, d, i)
    return True


def _in_order(p: wire.Program, parts: Parts) -> list[int]:
    """The kernels in the order in which they were made, which is not always that in which they run; those that the plan added
    come last."""
    from tinyviz.convert import unscheduled

    at = {k.name: i for i, k in enumerate(p.kernels)}
    return [at[name] for name in unscheduled(parts) if name in at]


def _schedule(w: _Writer, p: wire.Program, parts: Parts) -> bool:
    from tinyengine.stages.schedules import steps as schedule_steps
    from tinyviz.convert import loops_code, unscheduled

    nests = unscheduled(parts)
    about: dict[str, list[Any]] = {}
    for d in parts.decisions:
        if d.stage == "schedule":
            about.setdefault(d.subject[0], []).append(d)
    for i in _in_order(p, parts):
        k = p.kernels[i]
        before = rows(k.loops)
        for s in schedule_steps.explain(nests[k.name], parts.plan.calls[i].kernel, about.pop(k.name, [])):
            change: Change = ([], [])
            nodes: set[int] = set()
            if s.primitive or s.rule == "tidy":
                after = rows(loops_code(s.kernel, p.simplified))
                change = difference(before, after, nodes=False)
                nodes = _inside(before, after, change[0])
                before = after
            text = s.primitive or (s.decision.verdict if s.decision is not None else "")
            w.step((s.rule, *schedule_steps.RULES[s.rule]), text, s.decision, i, change, nodes, s.seconds)
        if [r.text for r in before] != k.scheduled.text:
            raise RuntimeError(f"applying the primitives of {k.name} again gave another text")
    for d in (d for ds in about.values() for d in ds):
        w.step((d.kind, *schedule_steps.RULES[d.kind]), d.verdict, d)
    return True


def _inside(before: list[Row], after: list[Row], edits: list[Edit]) -> set[int]:
    """The nodes of lines that changed, and of those inside loops whose line changed."""
    out: set[int] = set()
    shift = 0
    for e in edits:
        for text, lines in ((before, range(e.at, e.at + e.gone)), (after, range(e.at + shift, e.at + shift + len(e.text)))):
            for i in lines:
                deep = _indent(text[i])
                out.update(text[i].nodes)
                for r in itertools.takewhile(lambda r: _indent(r) > deep, text[i + 1 :]):  # noqa: B023
                    out.update(r.nodes)
        shift += len(e.text) - e.gone
    return out


def _indent(r: Row) -> int:
    return len(r.text) - len(r.text.lstrip())


def _plan(w: _Writer, p: wire.Program, parts: Parts) -> bool:
    from tinyengine.stages import plan

    functions: dict[str, Callable[..., Any]] = {
        "given": plan.run, "place": plan._Planner._place, "update": plan._Planner.run, "order": plan._Order._next,
    }  # fmt: skip
    given = [(i, s) for i, s in enumerate(p.slots) if s.role != "temporary"]
    text = {i: Row(f"given: {s.name}, {s.role}, {units.nbytes(s.nbytes)}", _node(s)) for i, s in given}
    where = {i: (-1, i) for i in text}
    before = list(text.values())
    if given:
        first = difference([], before, nodes=True)
        held = [n for r in before for n in r.nodes]
        w.step(("given", PLAN["given"], functions["given"]), f"{len(given)} pieces of memory", change=first, nodes=held)
    calls: list[Row] = []
    open_slots = [i for i, s in enumerate(p.slots) if s.role == "temporary"]
    for d in (d for d in parts.decisions if d.stage == "plan"):
        nodes = [p.simplified[n] for n in d.subject if isinstance(n, int)]
        if d.kind == "order":
            calls.append(Row(f"{d.verdict}: {d.subject[0]}", ()))
        elif d.kind == "place":
            i = next(i for i in open_slots if p.slots[i].node in nodes and p.slots[i].offset == d.numbers["offset"])
            open_slots.remove(i)
            s = p.slots[i]
            end = d.numbers["offset"] + d.numbers["bytes"]
            text[i] = Row(f"{s.offset} to {end:.0f}: {s.name}, {units.nbytes(s.nbytes)}, calls {s.first} to {s.last}", _node(s))
            where[i] = (s.offset or 0, s.first)
        else:
            targets = {n for a in nodes for n in (a, *p.nodes.src[a][:1])}
            for i, s in given:
                if s.node in targets:
                    text[i] = Row(f"{text[i].text}, {d.verdict}", text[i].nodes)
        after = [*calls, *(text[i] for i in sorted(text, key=lambda i: (where[i], i)))]
        change = difference(before, after, nodes=True)
        w.step((d.kind, PLAN[d.kind], functions[d.kind]), d.verdict, d, change=change, nodes=nodes)
        before = after
    return True


def _node(s: wire.Slot) -> tuple[int, ...]:
    return (s.node,) if s.node >= 0 else ()


def _emit(w: _Writer, p: wire.Program, parts: Parts) -> bool:
    from tinyengine.backends.llvm_ir import Writer
    from tinyengine.backends.llvm_store import Memory
    from tinyengine.backends.llvm_strided import Strided
    from tinyengine.stages import emit
    from tinyengine.stages.arithmetic.displace import displaced
    from tinyviz.convert import loops_code

    of = {d.subject[0]: d for d in parts.decisions if (d.stage, d.kind) == ("emit", "threads")}
    functions: dict[str, Callable[..., Any]] = {
        "load": Strided.load, "store": Memory.store, "hoist": Writer.hoist, "pointers": displaced,
    }  # fmt: skip
    moves: dict[str, list[Any]] = {}
    for d in parts.decisions:
        if d.stage == "emit" and d.kind in MOVES:
            moves.setdefault(d.subject[0], []).append(d)
    expansions = getattr(parts.executable, "expansions", lambda call: ())
    for i, k in enumerate(p.kernels):
        if not k.source.text:
            continue
        before = rows(k.scheduled)
        for s in expansions(i):
            after = rows(loops_code(s.kernel, p.simplified))
            change = difference(before, after, nodes=False)
            x = s.expansion
            text = f"{x.op}, {units.some(s.places, 'place')}"
            w.step((x.name, x.reason, inspect.unwrap(x.build)), text, None, i, change, _inside(before, after, change[0]))
            before = after
        for d in moves.get(k.name, ()):
            about = d.subject[1:]  # the buffer or the loop
            name = re.compile(rf"\b{re.escape(about[0])}\b" if about else "")
            nodes = {n for r in rows(k.scheduled) if name.search(r.text) for n in r.nodes}
            w.step((d.kind, MOVES[d.kind], functions[d.kind]), ": ".join((*about, d.verdict)), d, i, nodes=nodes)
        text = f"{units.some(len(k.source.text), 'line')} of {k.source.language}"
        w.step(("emit", EMIT, emit.prepare), text, of.get(k.name), i, nodes=k.nodes)
    return True


_WRITERS: dict[str, Callable[[_Writer, wire.Program, Parts], bool]] = {
    "fuse": _fuse, "loops": _loops, "schedule": _schedule, "plan": _plan, "emit": _emit,
}  # fmt: skip
