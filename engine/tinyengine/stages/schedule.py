"""Stage 6, schedule: in what order, how wide, on how many cores?

Input: a Kernel of scalar statements in serial loops. Output: the Kernel after a short list of primitives (see `primitives`),
which stands in `Kernel.schedule`, and a Decision for each choice and refusal. A schedule in `choices.schedules` is taken as it
is; it raises ScheduleError when it is not legal. The engine's own choices cannot fail: a primitive that is not legal is left out,
and said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tinyengine.choices import Choices, word
from tinyengine.dependence import accesses
from tinyengine.dtypes import bool_
from tinyengine.hooks import Decision
from tinyengine.loopnest import INDEX, Accumulate, Alloc, Check, Kernel, Let, Loop, Store, subexprs, walk
from tinyengine.machine import Machine
from tinyengine.stages.keys import kernel_key, localise
from tinyengine.stages.primitives.apply import apply, apply_one, parse
from tinyengine.stages.primitives.clip import clippable, needed, terms
from tinyengine.stages.primitives.nest import ScheduleError, loops, settled, tidy
from tinyengine.stages.schedules import ahead, block, border, contraction, elementwise, groups, scan
from tinyengine.stages.schedules.cost import body_cycles, plan, stride
from tinyengine.stages.schedules.forms import form
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES, few, short, stream, together, vectorize
from tinyengine.stages.schedules.product import chain
from tinyengine.stages.schedules.rows import first_rows
from tinyengine.stages.specs.nests import SCHEDULED as SPEC


@dataclass
class Chooser:
    """A kernel on its way: `do` applies a primitive if it is legal and notes the decision either way."""

    kernel: Kernel
    machine: Machine
    lanes: int
    decisions: list[Decision] = field(default_factory=list)
    within: bool = False  # what is scheduled now stands inside the loop that goes to the threads

    def do(self, text: str, kind: str, reason: str, numbers: Mapping[str, float] | None = None) -> bool:
        """Apply one primitive; False, with a Decision that says why, when it is not legal."""
        p = parse(text)[0]
        subject = (self.kernel.name, str(p.args[-1] if kind == "pack" and p.options else p.args[0]))
        try:
            changed = apply_one(self.kernel, p)
        except ScheduleError as e:
            self.decisions.append(Decision("schedule", kind, subject, "refused", str(e), dict(numbers or {}), {str(p): str(e)}))
            return False
        self.kernel = replace(changed, schedule=(*self.kernel.schedule, str(p)))
        self.decisions.append(Decision("schedule", kind, subject, str(p), reason, dict(numbers or {})))
        return True

    def refuse(self, kind: str, loop: str, reason: str, numbers: Mapping[str, float] | None = None) -> None:
        self.decisions.append(Decision("schedule", kind, (self.kernel.name, loop), "none", reason, dict(numbers or {})))

    def try_all(self, *texts: str) -> Kernel | None:
        """The kernel after all of these, or None when one is not legal; changes nothing."""
        try:
            k = self.kernel
            for p in parse(texts):
                k = apply_one(k, p)
        except ScheduleError:
            return None
        return k

    def do_all(self, steps: Iterable[tuple[str, str, str]], numbers: Mapping[str, float] | None = None) -> bool:
        """Apply all of these (primitive, kind, reason), or none, and say nothing, when one is not legal."""
        steps = tuple(steps)
        if self.try_all(*(text for text, _, _ in steps)) is None:
            return False
        for step in steps:
            self.do(*step, numbers)
        return True

    def top(self) -> Iterator[Loop]:
        for s in self.kernel.body:
            if isinstance(s, Loop):
                yield s


def run(kernel: Kernel, choices: Choices, machine: Machine) -> tuple[Kernel, tuple[Decision, ...]]:
    """The kernel under the schedule that `choices` names for it, or that tuning found for it, or under the engine's own; and the
    decisions."""
    out, decisions = _run(kernel, choices, machine)
    return settled(out), decisions


def _run(kernel: Kernel, choices: Choices, machine: Machine) -> tuple[Kernel, tuple[Decision, ...]]:
    given = asked(kernel, choices)
    if given is not None:
        out = apply(kernel, given)
        reason = "this schedule was chosen for the kernel by name"
        return out, (Decision("schedule", "schedule", (kernel.name,), "; ".join(out.schedule) or "none", reason),)
    tuned, decisions = _tuned(kernel, choices)
    if tuned is not None:
        return tuned, decisions
    rows = first_rows(kernel)
    f = form(rows.kernel)
    key = (f.key, choices.vector_width, machine.key())
    found = _known.get(key)
    if found is None:
        if len(_known) > 2000:
            _known.clear()
        found = _known[key] = choose(f.kernel, choices, machine)
    return rows.put_back(f.named(found[0])), (*decisions, *f.explained(found[1]))


# form of a kernel, with all that its schedule depends on -> what `choose` says
_known: dict[tuple[object, ...], tuple[Kernel, tuple[Decision, ...]]] = {}


def choose(kernel: Kernel, choices: Choices, machine: Machine) -> tuple[Kernel, tuple[Decision, ...]]:
    """The engine's own schedule; names do not count."""
    c = Chooser(kernel, machine, choices.vector_width or max(1, machine.vector_bytes // widest(kernel)))
    for s in list(c.top()):
        nest(c, s)
    c.kernel = tidy(c.kernel)
    border.run(c)
    clip(c)
    return c.kernel, tuple(c.decisions)


def clip(c: Chooser) -> None:
    """Leave out the terms that a mask makes 0."""
    names, whole = clippable(c.kernel), list[str]()
    before = terms(c.kernel) if names else 0
    for name in names:
        if c.do(f"clip({name})", "clip", "by the position alone the other terms are 0, or nobody looks at the sum"):
            numbers = {"terms": terms(c.kernel), "terms_before": before}
            c.decisions[-1], before = replace(c.decisions[-1], numbers=numbers), numbers["terms"]
        elif needed(c.kernel, name):  # no news of its own: one Decision tells of all these loops
            c.decisions.pop()
            whole.append(name)
    if whole:
        c.refuse("clip", whole[0], f"every iteration of {', '.join(whole)} has terms that count", {"terms": before})


def asked(kernel: Kernel, choices: Choices) -> tuple[str, ...] | None:
    """The schedule that `choices` names for this kernel, by its name or by its form, with the names of its own buffers."""
    named = choices.schedule_by_word
    given = named.get(kernel.name)
    if given is None and named:
        given = named.get(kernel_key(kernel))
    return None if given is None else localise(given, kernel)


def matched(kernels: Iterable[Kernel], choices: Choices) -> tuple[Decision, ...]:
    """One Decision per schedule that was chosen by name: whether a kernel of the program is meant."""
    if not choices.schedules:
        return ()
    names = {name for k in kernels for name in (k.name, kernel_key(k))}
    out = []
    for name, lines in choices.schedules.items():
        known = word(name) in names
        why = "a kernel of the program has this name or form" if known else "no kernel of the program has this name or form"
        out.append(Decision("schedule", "pin", (name,), "; ".join(lines) if known else "matches nothing", why))
    return tuple(out)


def _tuned(kernel: Kernel, choices: Choices) -> tuple[Kernel | None, tuple[Decision, ...]]:
    """The kernel as tuning left it, or None where tuning knows nothing better; and what there is to say."""
    found = choices.tuned.get(kernel_key(kernel)) if choices.tuned and choices.vector_width is None else None
    if found is None:
        return None, ()
    numbers = {"seconds_before": found.seconds_before, "seconds_after": found.seconds_after, "schedules": found.tried}

    def said(verdict: str, reason: str) -> tuple[Decision, ...]:
        return (Decision("schedule", "tuned", (kernel.name,), verdict, reason, numbers),)

    if found.schedule is None:
        return None, said("as it is", f"none of {found.tried} measured schedules was faster on this machine")
    given = localise(found.schedule, kernel)
    try:
        out = apply(kernel, given)
    except ScheduleError as e:
        return None, said("refused", f"what tuning found is not legal any more: {e}")
    return out, said("; ".join(given) or "none", f"the fastest of {found.tried} schedules measured on this machine")


def widest(kernel: Kernel) -> int:
    """Bytes of the largest element that the kernel computes with; indices do not count. What only moves is not computed with."""
    sizes = [p.dtype.itemsize for p in kernel.params if p.dtype.is_float] or [p.dtype.itemsize for p in kernel.params]
    least = 1 if moves(kernel) else 4
    return max([least, *sizes])


def moves(kernel: Kernel) -> bool:
    """Whether elements only change place: no arithmetic, nothing decided by data, and all of one size."""
    if len({p.dtype.itemsize for p in kernel.params}) > 1:
        return False
    for s in walk(kernel.body):
        if isinstance(s, (Accumulate, Check, Alloc)):
            return False
        if isinstance(s, (Let, Store)):
            values = [x for x in subexprs(s.value) if x.dtype is not INDEX and x.op not in ("load", "const", "name", "where")]
            if any(x.dtype is not bool_ or any(a.dtype is not INDEX and a.dtype is not bool_ for a in x.args) for x in values):
                return False
    return True


def nest(c: Chooser, s: Loop) -> None:
    """Schedule one loop of the outermost level with everything in it."""
    if c.machine.work_items:
        groups.run(c, s)
        return
    s = contraction.joined(c, s) if c.lanes > 1 else s
    around = chain(s)
    inner = [b for b in around[-1].body if isinstance(b, Loop)]
    if c.lanes > 1 and (contraction.run(c, around) or block.run(c, around)):
        return
    if c.lanes > 1 and scan.run(c, s):
        return
    if inner or around[0].reduce:
        rows(c, s)
    else:
        elementwise.run(c, around)


def cycles(s: Loop, lanes: int) -> float:
    return s.trips * body_cycles(s.body, None, lanes) / max(1, lanes)


def beside(s: Loop) -> bool:
    """Whether what iterations of `s` touch lies beside what the next ones do."""
    return all(stride(a.buf, a.at, s.name) in (0, 1) for a in accesses((s,)) if a.buf.space == "global")


def merged(c: Chooser, s: Loop) -> Loop:
    """`s` with one loop for two over which every access is contiguous: the innermost, and those that go into lanes."""
    lanes = list(plan(s, c.lanes).loops)
    for outer in reversed([s, *loops(s.body)]):
        found = [y for y in loops(c.kernel.body) if y.name == outer.name]
        inner = [b for b in found[0].body if not isinstance(b, Let)] if found else []
        if len(inner) != 1 or not isinstance(inner[0], Loop) or inner[0].reduce != outer.reduce:
            continue
        if not loops(inner[0].body) or (inner[0].name in lanes and beside(inner[0])):
            text = f"merge({outer.name}, {inner[0].name})"
            if c.try_all(text) is not None:
                c.do(text, "merge", "every access is contiguous over these loops: one loop has no short rows")
                lanes.append(outer.name + inner[0].name)
                if outer is s:
                    return next(y for y in c.top() if y.name == outer.name + inner[0].name)
    return next(y for y in c.top() if y.name == s.name)


def rows(c: Chooser, s: Loop) -> None:
    """A nest with loops inside: rows on the threads, vectors where strides make them cheapest."""
    s = merged(c, s)
    names, best = list(dict.fromkeys(x.name for x in loops((s,)))), plan(s, c.lanes)
    work = cycles(s, c.lanes)
    if s.reduce or any(isinstance(x, Alloc) for x in c.kernel.body):
        c.refuse("parallel", s.name, "the outermost level keeps an accumulator: one thread", {"cycles": work})
    elif work < PARALLEL_CYCLES or c.machine.threads < 2:
        few(c, s.name, work)
    else:
        c.do(f"parallel({s.name})", "parallel", "rows are independent", {"cycles": work, "threads": c.machine.threads})
    ahead.rows(c, s, best.loops)
    tried, failed = set[str](), set[str]()
    while c.lanes > 1 and (left := [n for n in best.loops if n not in tried]):
        for name in left:
            tried.add(name)
            if not _in_lanes(c, name, best.cycles):
                failed.add(name)
        if failed & {*left}:
            best = plan(s, c.lanes, failed)
    if c.lanes > 1:
        short(c, names)
    stream(c)


def _in_lanes(c: Chooser, name: str, cycles: float) -> bool:
    """Vectorize the loop, with several accumulators for a long sum; False where it is not legal."""
    loop = next(x for x in loops(c.kernel.body) if x.name == name)
    if not vectorize(c, name):
        return False
    plain = together(c, loop)[0] == c.lanes and not any(isinstance(x, (Loop, Store, Check)) for x in loop.body)
    if plain and loop.reduce and loop.trips >= 8 * c.lanes:
        c.do(f"accumulate({name}, 4)", "accumulate", "one chain of additions would wait for each result", {"cycles": cycles})
    return True


def text(decisions: tuple[Decision, ...]) -> str:
    """The decisions as readable lines."""
    return "\n".join(f"{d.subject[-1]}: {d.verdict} ({d.reason})" for d in decisions)


__all__ = ["SPEC", "Chooser", "ScheduleError", "run", "text"]
