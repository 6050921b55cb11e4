"""Reading the steps of stages that make no new graph: the text before and after any of them, and those that touched a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from tinyviz.frames import became
from tinyviz.wire import Code, Program, Stage


class Row(NamedTuple):
    """A line of a text; `nodes`: those that it is about."""

    text: str
    nodes: tuple[int, ...]


class Edit(NamedTuple):
    """Lines of a text that become others, as in `wire.Edits`."""

    at: int
    gone: int
    text: list[str]
    nodes: list[list[int]]


def edits(s: Stage) -> list[list[Edit]]:
    """What each step of a stage changes."""
    out: list[list[Edit]] = [[] for _ in range(len(s.steps))]
    for step, *e in zip(*vars(s.edits).values(), strict=True):
        out[step].append(Edit(*e))
    return out


def count(s: Stage) -> int:
    """How many firings or steps a stage has: what the last part of the id of a `firing` counts."""
    return len(s.frames) or len(s.steps)


def makes(s: Stage, step: int) -> bool:
    """Whether a step makes a text of a kernel from another one, and edits none: every one of `loops`, and in `emit` the last one
    of a kernel, which makes the source."""
    k = s.steps.kernel[step]
    return s.name == "loops" or (s.name == "emit" and k not in s.steps.kernel[step + 1 :])


def effects(s: Stage) -> list[int]:
    """The steps that change a text, or make one."""
    if s.name in ("loops", "emit"):  # in emit, what changes no loops shows in the source
        return list(range(len(s.steps)))
    return sorted({*s.edits.step, *(k for k, moved in enumerate(s.steps.moved) if moved)})


def rows(c: Code) -> list[Row]:
    """The lines of a text of a kernel."""
    nodes = c.nodes or [[]] * len(c.text)
    return [Row(text, tuple(of)) for text, of in zip(c.text, nodes, strict=True)]


def applied(before: Sequence[Row], made: Iterable[Edit], moved: Iterable[Sequence[int]] = ()) -> list[Row]:
    """The text after a step."""
    out: list[Row] = []
    done = 0
    for e in made:
        out += before[done : e.at]
        out += [Row(text, tuple(of)) for text, of in zip(e.text, e.nodes or [[]] * len(e.text), strict=True)]
        done = e.at + e.gone
    out += before[done:]
    for start, end, by in moved:
        out[start:end] = [Row(" " * by + r.text if by > 0 else r.text[-by:], r.nodes) for r in out[start:end]]
    return out


def difference(before: Sequence[Row], after: Sequence[Row], nodes: bool) -> tuple[list[Edit], list[list[int]]]:
    """The edits that make one text of another, and which lines that stay move to the right or left. `nodes`: lines that are about
    other nodes are other lines, and say so."""
    start, end, most = 0, 0, min(len(before), len(after))
    while start < most and (before[start] is after[start] or before[start] == after[start]):
        start += 1
    while end < most - start and (before[-1 - end] is after[-1 - end] or before[-1 - end] == after[-1 - end]):
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    a, b = ([(r.text.lstrip(), r.nodes if nodes else ()) for r in text] for text in (old, new))
    made: list[Edit] = []
    moved: list[list[int]] = []
    for tag, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            lines = new[k:m]
            made.append(Edit(start + i, j - i, [r.text for r in lines], [list(r.nodes) for r in lines] if nodes else []))
            continue
        for n in range(m - k):
            by, at = len(new[k + n].text) - len(old[i + n].text), start + k + n
            if by and moved and moved[-1][1:] == [at, by]:
                moved[-1][1] = at + 1
            elif by:
                moved.append([at, at + 1, by])
    return made, moved


def change(p: Program, stage: int, step: int) -> tuple[list[Row], list[Row]]:
    """The text before and after a step. Raises IndexError for a step that there is not."""
    s = p.stages[stage]
    k = s.steps.kernel[step]
    if s.name == "loops":
        return group(p, k), rows(p.kernels[k].loops)
    before, of = rows(begin(p, s, k)) if k >= 0 else [], edits(s)
    for i in range(step):
        if s.steps.kernel[i] == k:
            before = applied(before, of[i], s.steps.moved[i])
    if makes(s, step):
        return before, rows(p.kernels[k].source)
    return before, applied(before, of[step], s.steps.moved[step])


def begin(p: Program, s: Stage, kernel: int) -> Code:
    """The text of a kernel that the steps of a stage begin with."""
    return p.kernels[kernel].scheduled if s.name == "emit" else p.kernels[kernel].loops


def group(p: Program, kernel: int) -> list[Row]:
    """What stage fuse left of a kernel: its line and those of its values. Empty where its steps were not recorded."""
    stage = next((i for i, s in enumerate(p.stages) if s.name == "fuse" and len(s.steps)), -1)
    text = change(p, stage, len(p.stages[stage].steps) - 1)[1] if stage >= 0 else []
    heads = [i for i, r in enumerate(text) if not r.nodes] + [len(text)]
    parts = [text[a:b] for a, b in pairwise(heads)]
    return next((part for part in parts if part[0].text.startswith(f"k{kernel} ")), [])


def of_kernel(p: Program, stage: str, kernel: str, primitive: int = -1) -> int:
    """The step of a stage that made what it left of a kernel; of stage schedule the one that applied the primitive of that
    position in the kernel's schedule, or that tidied up at the end. -1 where its steps were not recorded."""
    s = next((s for s in p.stages if s.name == stage), None)
    own = [k for k, of in enumerate(s.steps.kernel) if of >= 0 and p.kernels[of].name == kernel] if s is not None else []
    if s is None or not own:
        return -1
    if stage != "schedule" or primitive < 0:
        return own[-1]
    applied: list[int] = []  # in the order of the schedule; between them stand refusals
    schedule = p.kernels[s.steps.kernel[own[0]]].schedule
    for k in own:
        if len(applied) < len(schedule) and s.steps.text[k] == schedule[len(applied)]:
            applied.append(k)
    return applied[primitive] if primitive < len(applied) else -1


def touched(p: Program, node: int) -> list[tuple[int, int]]:
    """The steps that changed where the value of a node is computed and kept, in their order, as (stage, step)."""
    end = became(p, node)
    return [(s, k) for s, stage in enumerate(p.stages) for k, nodes in enumerate(stage.steps.nodes) if end in nodes]
