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
from tinyengine.dependence import carried
from tinyengine.hooks import Decision
from tinyengine.loopnest import Alloc, Check, Kernel, Let, Loop, Store, stmt_exprs, subexprs, walk
from tinyengine.machine import Machine
from tinyengine.stages import schedule_contraction
from tinyengine.stages.forms import form
from tinyengine.stages.keys import kernel_key, localise
from tinyengine.stages.nest import ScheduleError, loops, tidy
from tinyengine.stages.nest_spec import SCHEDULED as SPEC
from tinyengine.stages.primitives import apply, apply_one, parse
from tinyengine.stages.schedule_cost import body_cycles, operations, plan

PARALLEL_CYCLES = 12_000.0  # below this a second thread costs more than it brings
CHUNKS = 4  # pieces per thread, so that a thread that starts late finds less to do
SIDE_BY_SIDE = 4  # vectors whose long arithmetic goes on at once: each result waits some cycles for the one before
LONG = 6.0  # cycles of arithmetic per vector that are worth it


@dataclass
class Chooser:
    """A kernel on its way: `do` applies a primitive if it is legal and notes the decision either way."""

    kernel: Kernel
    machine: Machine
    lanes: int
    decisions: list[Decision] = field(default_factory=list)

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

    def top(self) -> Iterator[Loop]:
        for s in self.kernel.body:
            if isinstance(s, Loop):
                yield s


def run(kernel: Kernel, choices: Choices, machine: Machine) -> tuple[Kernel, tuple[Decision, ...]]:
    """The kernel under the schedule that `choices` names for it, or that tuning found for it, or under the engine's own; and the
    decisions."""
    given = asked(kernel, choices)
    if given is not None:
        out = apply(kernel, given)
        reason = "this schedule was chosen for the kernel by name"
        return out, (Decision("schedule", "schedule", (kernel.name,), "; ".join(out.schedule) or "none", reason),)
    tuned, decisions = _tuned(kernel, choices)
    if tuned is not None:
        return tuned, decisions
    f = form(kernel)
    key = (f.key, choices.vector_width, machine.key())
    found = _known.get(key)
    if found is None:
        if len(_known) > 2000:
            _known.clear()
        found = _known[key] = choose(f.kernel, choices, machine)
    return f.named(found[0]), (*decisions, *f.explained(found[1]))


# form of a kernel, with all that its schedule depends on -> what `choose` says
_known: dict[tuple[object, ...], tuple[Kernel, tuple[Decision, ...]]] = {}


def choose(kernel: Kernel, choices: Choices, machine: Machine) -> tuple[Kernel, tuple[Decision, ...]]:
    """The engine's own schedule; names do not count."""
    c = Chooser(kernel, machine, choices.vector_width or max(1, machine.vector_bytes // widest(kernel)))
    for s in list(c.top()):
        nest(c, s)
    return tidy(c.kernel), tuple(c.decisions)


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
    """Bytes of the largest element that the kernel computes with; indices do not count."""
    sizes = [p.dtype.itemsize for p in kernel.params if p.dtype.is_float] or [p.dtype.itemsize for p in kernel.params]
    return max([4, *sizes])


def chain(s: Loop) -> list[Loop]:
    """The loops from `s` inward that stand alone (values beside them) in the one around them, while they are no reductions."""
    out = [s]
    while True:
        rest = [b for b in out[-1].body if not isinstance(b, Let)]
        if len(rest) != 1 or not isinstance(rest[0], Loop) or rest[0].reduce:
            return out
        out.append(rest[0])


def nest(c: Chooser, s: Loop) -> None:
    """Schedule one loop of the outermost level with everything in it."""
    around = chain(s)
    inner = [b for b in around[-1].body if isinstance(b, Loop)]
    if c.lanes > 1 and schedule_contraction.run(c, around):
        return
    if not inner:
        elementwise(c, around)
    else:
        rows(c, s)


def cycles(s: Loop, lanes: int) -> float:
    return s.trips * body_cycles(s.body, None, lanes) / max(1, lanes)


def elementwise(c: Chooser, around: list[Loop]) -> None:
    """Merge what is contiguous, split for the threads, vectorize the innermost loop."""
    names = [s.name for s in around]
    work = cycles(around[0], c.lanes)
    for first in range(len(names) - 1):
        part = names[first:]
        if c.try_all(f"merge({', '.join(part)})") is not None:
            c.do(f"merge({', '.join(part)})", "merge", "every access is contiguous over these loops: one loop has no short rows")
            names = [*names[:first], "".join(part)]
            break
    else:
        if len(names) > 1:
            c.refuse("merge", names[0], f"some access is not contiguous over {', '.join(names[-2:])}")
    found = {x.name: x for x in loops(c.kernel.body)}
    inner = found[names[-1]]
    dependent = carried(inner)
    if dependent:
        c.refuse("vectorize", inner.name, dependent)
    threads = c.machine.threads
    v = inner.name
    if work < PARALLEL_CYCLES or threads < 2:
        few(c, names[0], work)
    elif len(names) > 1 and found[names[0]].trips >= 2 * threads:
        c.do(f"parallel({names[0]})", "parallel", "iterations are independent", {"cycles": work, "threads": threads})
    elif len(names) == 1 and not dependent:
        size = chunk(inner.trips, threads, together(c, inner))
        if c.do(f"tile({v}, {size})", "tile", "one piece per ticket", {"iterations": inner.trips, "pieces": inner.trips // size}):
            c.do(f"parallel({v}o)", "parallel", "iterations are independent", {"cycles": work, "threads": threads})
            v += "i"
    if not dependent and c.lanes > 1:
        vectorize(c, v)
    _stream(c)


def few(c: Chooser, loop: str, work: float) -> None:
    c.refuse("parallel", loop, "too little work to wake a second thread", {"cycles": work, "least_cycles": PARALLEL_CYCLES})


def chunk(trips: int, threads: int, lanes: int) -> int:
    """Iterations per piece: whole vectors, few left over."""
    pieces = threads * CHUNKS
    vectors = trips // lanes
    if vectors < pieces:
        return max(1, trips // threads)
    # among a few counts the one that leaves the least behind
    best = min(range(pieces, 2 * pieces + 1), key=lambda n: (vectors - vectors // n * n, n))
    return vectors // best * lanes


def together(c: Chooser, s: Loop) -> int:
    """Lanes for `s`: several vectors side by side where their arithmetic is long and the loop has many of them."""
    own = tuple(x for x in s.body if not isinstance(x, (Loop, Alloc)))
    several = sum(map(operations, own)) >= LONG and s.trips >= 4 * SIDE_BY_SIDE * c.lanes and len(own) == len(s.body)
    return c.lanes * SIDE_BY_SIDE if several else c.lanes


def vectorize(c: Chooser, name: str) -> bool:
    """As wide as the machine allows and the loop is long."""
    found = [s for s in loops(c.kernel.body) if s.name == name]
    if not found:
        return False
    s = max(found, key=lambda x: x.trips)
    lanes = together(c, s)
    reason = "iterations are independent or a reduction"
    if lanes > c.lanes:
        reason += f"; {SIDE_BY_SIDE} vectors at once, because each waits for its own results"
    while lanes >= 2 * s.trips:
        lanes //= 2
    if lanes < 2:
        c.refuse("vectorize", name, "one iteration fills no vector", {"iterations": s.trips})
        return False
    return c.do(f"vectorize({name}, {lanes})", "vectorize", reason, {"lanes": lanes, "iterations": s.trips})


def _stream(c: Chooser) -> None:
    """Results far larger than the cache need not pass through it."""
    reads = {x.arg.name for s in walk(c.kernel.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"}
    for p in c.kernel.params:
        if p.name in c.kernel.outputs and p.name not in reads and p.nbytes > c.machine.l3_bytes // 2:
            c.do(
                f"streaming({p.name})", "streaming", "larger than half of the last cache: its lines need not be read first",
                {"bytes": p.nbytes, "l3_bytes": c.machine.l3_bytes},
            )  # fmt: skip


def rows(c: Chooser, s: Loop) -> None:
    """A nest with loops inside: vectorize where strides make it cheapest, rows on the threads."""
    if c.lanes > 1:
        best = plan(s, c.lanes)
        for name in best.loops:
            loop = next(x for x in loops(c.kernel.body) if x.name == name)
            numbers = {"cycles": best.cycles}
            if not vectorize(c, name):
                continue
            if together(c, loop) > c.lanes:
                continue
            if loop.reduce and loop.trips >= 8 * c.lanes and not any(isinstance(x, (Loop, Store, Check)) for x in loop.body):
                c.do(f"accumulate({name}, 4)", "accumulate", "one chain of additions would wait for each result", numbers)
    work = cycles(s, c.lanes)
    if s.reduce or any(isinstance(x, Alloc) for x in c.kernel.body):
        c.refuse("parallel", s.name, "the outermost level keeps an accumulator: one thread", {"cycles": work})
    elif work < PARALLEL_CYCLES or c.machine.threads < 2:
        few(c, s.name, work)
    else:
        c.do(f"parallel({s.name})", "parallel", "rows are independent", {"cycles": work, "threads": c.machine.threads})
    _stream(c)


def text(decisions: tuple[Decision, ...]) -> str:
    """The decisions as readable lines."""
    return "\n".join(f"{d.subject[-1]}: {d.verdict} ({d.reason})" for d in decisions)


__all__ = ["SPEC", "Chooser", "ScheduleError", "run", "text"]
