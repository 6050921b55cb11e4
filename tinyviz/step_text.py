"""One step of the compilation as text: its rule, its reason, where that is written, and what it changed, word by word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from tinyviz import units
from tinyviz.steps import Row, change, difference, makes
from tinyviz.svg import cut
from tinyviz.views.fusion import numbers_text
from tinyviz.views.lines import where
from tinyviz.wire import Frames, Program, Recording, Steps

MOST_LINES = 120  # of one step: the source of a kernel may have thousands
AROUND = 2  # lines that stay, around those that change


def node_text(p: Program, n: int) -> str:
    """'#12 mul(#3, #7) [8, 4]': ids of the recording."""
    args = ", ".join(f"#{s}" for s in p.nodes.src[n]) or p.nodes.arg[n]
    return cut(f"#{n} {p.nodes.op[n]}({args}) {units.shape(p.nodes.shape[n])}", 56)


def row_text(p: Program, stage: str, r: Row) -> str:
    """A line of a text; one of stage fuse is about a value, which is named behind it."""
    return f"{r.text} {node_text(p, r.nodes[0])}" if stage == "fuse" and r.nodes else r.text


def firing_text(r: Recording, p: Program, stage: int, k: int) -> str:
    """Everything about one firing or step. Raises ValueError for one that there is not."""
    s = p.stages[stage]
    columns: Frames | Steps = s.frames if len(s.frames) else s.steps
    n = len(columns)
    if not 0 <= k < n:
        raise ValueError(f"stage {s.name} has {n} steps, counted from 0; there is no {k}")
    rule, seconds = columns.rule[k], columns.seconds[k]
    source = f", {r.rules.file[rule]}:{r.rules.line[rule]}" if r.rules.file[rule] else ""
    out = [f"{s.name} step {k} of {n}: {r.rules.name[rule]}{source}", f"  allowed because: {r.rules.reason[rule]}"]
    if seconds is not None:
        out.append(f"  took {units.seconds(seconds)}")
    body = _frame(r, p, s.frames, k) if len(s.frames) else _step(p, stage, k)
    return "\n".join([*out, *body])


def _frame(r: Recording, p: Program, f: Frames, k: int) -> Iterator[str]:
    old, new = f.replaced[k], f.by[k]
    if old != new:
        yield f"  {words(node_text(p, old), node_text(p, new))}"
    for sign, nodes in (("+", f.added[k]), ("-", f.removed[k])):
        for n in nodes:
            lines = p.nodes.lines[n]
            yield f"{sign} {node_text(p, n)}" + (f"  for {where(r, lines[0])}  {r.lines.text[lines[0]]}" if lines else "")


def _step(p: Program, stage: int, k: int) -> Iterator[str]:
    s = p.stages[stage]
    kernel, d = s.steps.kernel[k], s.steps.decision[k]
    if kernel >= 0:
        yield f"  kernel {kernel}: {p.kernels[kernel].name}"
    if d >= 0:
        x = p.decisions[d]
        between = ", " if x.kind == "join" else " -> "
        about = between.join(node_text(p, n) for n in x.nodes) or x.subject
        yield f"  {x.kind} {about}: {x.verdict}"
        yield f"  why: {x.reason}"
        if x.numbers:
            yield f"  numbers: {numbers_text(x)}"
        yield from (f"  not {name}: {why}" for name, why in x.alternatives.items())
    else:
        yield f"  {s.steps.text[k]}"
    before, after = change(p, stage, k)
    if makes(s, k):
        yield "  becomes" if before else "  gives"
        for sign, text in (("-", before), ("+", after)):
            of = "fuse" if s.name == "loops" and text is before else s.name
            yield from [f"{sign} {row_text(p, of, r)}" for r in text[:MOST_LINES]]
            if len(text) > MOST_LINES:
                yield f"  … and {units.some(len(text) - MOST_LINES, 'more line')}"
        return
    if before == after:
        yield "  it shows in the source" if s.name == "emit" else "  changes nothing"
        return
    yield from marked([row_text(p, s.name, r) for r in before], [row_text(p, s.name, r) for r in after])


def marked(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """The lines that change with a few around them: '-' and '+' for lines, '~' with [-old-]{+new+} for words in one."""
    a, b = [Row(t, ()) for t in before], [Row(t, ()) for t in after]
    shift, shown, total = 0, 0, 0
    for e in difference(a, b, nodes=False)[0]:
        start = max(shown, e.at - AROUND)
        if start > shown:
            yield f"  … {units.some(start - shown, 'line')}"
        yield from [f"  {t}" for t in before[start : e.at]]
        gone, come = before[e.at : e.at + e.gone], after[e.at + shift : e.at + shift + len(e.text)]
        for old, new in paired(gone, come):
            if old is None or new is None:
                yield f"+ {new}" if old is None else f"- {old}"
            else:
                yield f"{'~' if old.lstrip() != new.lstrip() else ' '} {words(old, new)}"
        shift += len(e.text) - e.gone
        shown = e.at + e.gone
        total += len(gone) + len(come)
        if total > MOST_LINES:
            yield "  … and more"
            return
    yield from [f"  {t}" for t in before[shown : shown + AROUND]]
    if len(before) > shown + AROUND:
        yield f"  … {units.some(len(before) - shown - AROUND, 'line')}"


PAIRS_MOST = 20_000  # comparisons of lines


def paired(before: Sequence[str], after: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """The lines of both in order, those that are alike side by side: of all ways the one in which pairs have most in common."""
    n, m = len(before), len(after)
    if n * m > PAIRS_MOST:
        return [(old, None) for old in before] + [(None, new) for new in after]
    a, b = ([Counter(re.findall(WORD, t)) for t in text] for text in (before, after))
    best = [[0.0] * (m + 1) for _ in range(n + 1)]
    alike = [[_alike(x, y) for y in b] for x in a]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + alike[i][j])
    out: list[tuple[str | None, str | None]] = []
    i = j = 0
    while i < n or j < m:
        if i < n and j < m and alike[i][j] > 0 and best[i][j] == best[i + 1][j + 1] + alike[i][j]:
            out.append((before[i], after[j]))
            i, j = i + 1, j + 1
        elif j == m or (i < n and best[i][j] == best[i + 1][j]):
            out.append((before[i], None))
            i += 1
        else:
            out.append((None, after[j]))
            j += 1
    return out


def _alike(a: Counter[str], b: Counter[str]) -> float:
    """The share of words that two lines have in common, where it is more than half; else 0."""
    share = 2 * (a & b).total() / ((a.total() + b.total()) or 1)
    return share if share > 0.5 else 0.0


WORD = r"[\w.]+|[^\w\s]"


def words(before: str, after: str) -> str:
    """One line for two: what went in [- -], what came in {+ +}. How far it is indented does not count."""
    a, b = (re.findall(rf"{WORD}|\s+", t.lstrip()) for t in (before, after))
    out = after[: len(after) - len(after.lstrip())]
    for tag, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = "".join(a[i:j]), "".join(b[k:m])
        out += old if tag == "equal" else (f"[-{old}-]" if old else "") + (f"{{+{new}+}}" if new else "")
    return out
