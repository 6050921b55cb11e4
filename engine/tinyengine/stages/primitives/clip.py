"""clip: a loop does not run where its sums need no terms.

`Accumulate.only` says where a term counts: stage 5 proves it from the positions that a mask compares (`nests.support`), and
primitives rewrite it with the statement. An iteration is left out where no sum inside counts, in no lane and no inner loop, so a
register tile ends where its last row does. A condition that the loop does not change leaves out all of it: the scores that a mask
hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from tinyengine import index
from tinyengine.footprint import conjuncts, runs
from tinyengine.index import bounds
from tinyengine.loopnest import Accumulate, Alloc, Check, Expr, Kernel, Loop, Stmt, Store, apply, subexprs, walk
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, loops

Ends = tuple[Expr | None, Expr | None]  # the first iteration that is needed, and the first that is not any more


class NothingLeftOut(ScheduleError):
    """A clip that would change nothing."""


def clip(kernel: Kernel, loop: str) -> Kernel:
    """for reduce r in 0..256: acc += p[k, r] * v[r]  (only r < k + 1)
    → for reduce r in 0..min(256, k + 1): acc += p[k, r] * v[r]  (only r < k + 1)

    Best last: what moves or widens loops after it loses the ends. Illegal where an iteration has another effect."""
    found, refused = 0, ""

    def change(s: Loop, path: Path) -> list[Loop]:
        nonlocal found, refused
        if s.trips < 2 or s.limit is not None:
            return [s]
        effects = _conditions(s)
        conditions = [e for e in dict.fromkeys(effects) if e is not None]
        if None in effects:
            if any(isinstance(x, Accumulate) and x.only is not None for x in walk(s.body)):
                refused = f" is not legal: every iteration of {loop} does more than to add to such sums"
            return [s]
        first, limit = _clipped(s, path, conditions)
        found += (first, limit) != (None, None)
        return [replace(s, first=first, limit=limit)]

    kernel = at(kernel, loop, change)
    if refused and not found:
        raise ScheduleError(f"clip({loop}){refused}")
    if not found:
        raise NothingLeftOut(f"clip({loop}): every iteration of {loop} has terms that count")
    return kernel


def needed(kernel: Kernel, loop: str) -> bool:
    """Whether every iteration of the loop has terms that count, so that there is nothing to clip."""
    try:
        clip(kernel, loop)
    except NothingLeftOut:
        return True
    except ScheduleError:
        pass
    return False


def clippable(kernel: Kernel) -> list[str]:
    """The loops around sums that do not need all of their terms."""
    if not any(isinstance(s, Accumulate) and s.only is not None for s in walk(kernel.body)):
        return []
    some = [s for s in loops(kernel.body) if s.trips > 1 and any(_conditions(s))]
    return list(dict.fromkeys(s.name for s in some if not any(isinstance(x, Store) for x in walk(s.body)) or s.reduce))


def clipped(kernel: Kernel) -> Kernel:
    """The kernel with every loop clipped that can be."""
    for name in clippable(kernel):
        try:
            kernel = clip(kernel, name)
        except ScheduleError:
            continue
    return kernel


def terms(kernel: Kernel) -> int:
    """How many terms it adds up in the sums that do not need all of them."""

    def count(body: Sequence[Stmt], around: tuple[Loop, ...]) -> int:
        inner = sum(count(s.body, (*around, s)) for s in body if isinstance(s, Loop))
        lanes = sum(s.value.lanes for s in body if isinstance(s, Accumulate) and s.only is not None)
        return inner + lanes * runs(around) if lanes else inner

    return count(kernel.body, ())


def _conditions(s: Loop) -> list[Expr | None]:
    """For each effect of an iteration outside of it, the condition of the sum; None where it has none."""
    own = {x.buf for x in walk(s.body) if isinstance(x, Alloc)}
    effects = [x for x in walk(s.body) if isinstance(x, Check) or (isinstance(x, (Store, Accumulate)) and x.buf not in own)]
    return [x.only if isinstance(x, Accumulate) else None for x in effects]


def _clipped(s: Loop, path: Path, conditions: Sequence[Expr]) -> Ends:
    """The ends of `s` in terms of the loops around it, of an unrolled one in terms of unrolled ones: there they are numbers.
    None where they are its own."""
    known = frozenset(x.var for x in (*path, s) if (x.kind == "unroll") == (s.kind == "unroll"))
    parts: list[Ends] = []
    for only in conditions:
        slacks = [_slack(c, known) for c in conjuncts(only)]
        free = [_split(x, s.var) for x in slacks if not any(_held(x, p) for p in path)]
        parts.append(_ends(s, [(a, rest) for a, rest in free if rest is not None]))
    return _hull([p[0] for p in parts], "minimum"), _hull([p[1] for p in parts], "maximum")


def _slack(condition: Expr, known: frozenset[Expr]) -> Expr:
    """What is at least 1 wherever a condition, lt(a, b), holds in some lane, and in some iteration of the loops that are not
    `known`."""
    if condition.op == "const":
        return constant(int(condition.arg))
    a, b = condition.args
    e = index.over_lanes([(b, 1), (a, -1)])
    reach = 0
    if e.op == "ramp":
        e, reach = e.args[0], max(0, e.arg * (e.lanes - 1))
    if e.lanes > 1:
        return constant(bounds(e)[1])
    ts, total = index.terms(e)
    kept: list[tuple[Expr, int]] = []
    for x, c in ts:
        if {v for v in subexprs(x) if v.op == "var"} <= known:
            kept.append((x, c))
        else:
            total += c * bounds(x)[c > 0]
    return index.total(kept, total + reach)


def _split(slack: Expr, v: Expr) -> tuple[int, Expr | None]:
    """slack = a * v + rest; rest is None where it depends on v in another way."""
    ts, total = index.terms(slack)
    a = sum(c for x, c in ts if x is v)
    rest = index.total([(x, c) for x, c in ts if x is not v], total)
    return a, None if v in subexprs(rest) else rest


def _held(slack: Expr, s: Loop) -> bool:
    """Whether it is at least 1 in all iterations of `s` that run."""
    if not s.ends:
        return False
    a, rest = _split(slack, s.var)
    if rest is None:
        return False
    first, limit = _ends(s, [(a, rest)])
    held = _operands(s.first, "maximum"), _operands(s.limit, "minimum")
    return (first is None or first in held[0]) and (limit is None or limit in held[1])


def _operands(e: Expr | None, op: str) -> tuple[Expr | None, ...]:
    return (*_operands(e.args[0], op), *_operands(e.args[1], op)) if e is not None and e.op == op else (e,)


def _ends(s: Loop, slacks: Sequence[tuple[int, Expr]]) -> Ends:
    """Where all a * v + rest >= 1."""
    first: list[Expr] = []
    limit: list[Expr] = []
    for a, rest in slacks:
        if a > 0:
            least = index.floordiv(index.sub(constant(a), rest), a)
            steps = index.floordiv(index.add(least, constant(s.step - 1 - s.start)), s.step)
            first.append(index.add(index.mul(steps, s.step), constant(s.start)))
        elif a < 0:
            limit.append(index.add(index.floordiv(index.add(rest, constant(-1)), -a), constant(1)))
        else:  # all of the loop, or nothing
            limit.append(index.add(index.mul(rest, s.stop - s.start), constant(s.start)))
    first = [e for e in dict.fromkeys(first) if bounds(e)[1] > s.start]
    limit = [e for e in dict.fromkeys(limit) if bounds(e)[0] < s.stop]
    return _joined(first, "maximum"), _joined(limit, "minimum")


def _joined(ends: Sequence[Expr], op: str) -> Expr | None:
    return reduce(lambda a, b: apply(op, (a, b)), ends) if ends else None


def _hull(ends: Sequence[Expr | None], op: str) -> Expr | None:
    """One end for several sums; None where one of them has none."""
    found = [e for e in dict.fromkeys(ends) if e is not None]
    return _joined(found, op) if len(found) == len(dict.fromkeys(ends)) else None
