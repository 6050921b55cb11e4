"""Which elements do the statements of a loop touch, and may two iterations touch the same one?

The test is the classical one for affine accesses: on some axis of the buffer both indices are `c*v + (the same outer part) +
inner`, and the inner parts together span less than the distance `|c| * step` between two iterations of v. What it cannot show, it
does not claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

from tinyengine.index import bounds, terms
from tinyengine.loopnest import Accumulate, Alloc, Buf, Expr, Loop, Stmt, Store, load_index, stmt_exprs, subexprs, walk


@dataclass(frozen=True, slots=True)
class Access:
    """One access of a statement: `op` is 'read', 'write', or the combining op of an Accumulate."""

    stmt: Stmt
    buf: Buf
    at: tuple[Expr, ...]
    op: str


@lru_cache(maxsize=100_000)
def loads_in(e: Expr) -> tuple[Expr, ...]:
    """Every load in `e`, each once."""
    return tuple([x for x in subexprs(e) if x.op == "load"])


@lru_cache(maxsize=100_000)
def names_in(e: Expr) -> frozenset[str]:
    """The values (not loop variables) that `e` refers to."""
    return frozenset([x.arg for x in subexprs(e) if x.op == "name"])


def loads(s: Stmt) -> list[Expr]:
    """Every load in the expressions of `s`, each once."""
    out: list[Expr] = []
    for e in stmt_exprs(s):
        out += loads_in(e)
    return list(dict.fromkeys(out)) if len(out) > 1 else out


def accesses(body: tuple[Stmt, ...]) -> list[Access]:
    """All accesses of the statements in `body`, in order."""
    out: list[Access] = []
    for s in body:
        if isinstance(s, Loop):
            out += accesses(s.body)
        if isinstance(s, (Loop, Alloc)):
            continue
        out += [Access(s, x.arg, load_index(x), "read") for x in loads(s)]
        if isinstance(s, Store):
            out.append(Access(s, s.buf, s.index, "write"))
        elif isinstance(s, Accumulate):
            out.append(Access(s, s.buf, s.index, s.op))
    return out


def inner_variables(loop: Loop) -> set[str]:
    """Names of the loops inside `loop`, and of the values that are defined in it."""
    return {s.name for s in walk(loop.body) if not isinstance(s, (Alloc, Store, Accumulate)) and hasattr(s, "name")}


def grains(body: tuple[Stmt, ...]) -> dict[str, int]:
    """For each loop in `body` a number of which all values of its variable are multiples."""
    out: dict[str, int] = {}
    for s in walk(body):
        if isinstance(s, Loop):
            out[s.name] = gcd(out.get(s.name, 0), s.start, s.step)
    return out


def split(e: Expr, v: str, inner: set[str]) -> tuple[int, frozenset[tuple[Expr, int]], int, int] | None:
    """e as coefficient * v + outer part + [low, high]; None when v stands in it in another way."""
    parts = _parts(e, v, inner)
    if parts is None:
        return None
    coefficient, outer, spans, constant = parts
    return coefficient, outer, constant + sum(a for _, a, _ in spans), constant + sum(b for _, _, b in spans)


def _parts(
    e: Expr, v: str, inner: set[str], grain: Mapping[str, int] = {}
) -> tuple[int, frozenset[tuple[Expr, int]], list[tuple[int, int, int]], int] | None:
    """e as coefficient * v + outer part + inner parts + constant; inner parts as (multiple of what, lowest, highest)."""
    spans: list[tuple[int, int, int]] = []
    if e.op == "ramp":
        reach = e.arg * (e.lanes - 1)
        spans.append((1, min(0, reach), max(0, reach)))
        e = e.args[0]
    ts, constant = terms(e)
    coefficient, outer = 0, []
    for atom, c in ts:
        if atom.op == "var" and atom.arg[0] == v:
            coefficient += c
            continue
        names = {x.arg[0] if x.op == "var" else x.arg for x in subexprs(atom) if x.op in ("var", "name")}
        if v in names:
            return None
        if any(x.op == "load" and x.arg.within is None for x in subexprs(atom)):
            return None
        if names & inner:
            a, b = bounds(atom)
            step = grain.get(atom.arg[0], 1) if atom.op == "var" else 1
            spans.append((abs(c) * step, min(a * c, b * c), max(a * c, b * c)))
        else:
            outer.append((atom, c))
    return coefficient, frozenset(outer), spans, constant


def apart(loop: Loop, a: Access, b: Access, inner: set[str], grain: Mapping[str, int] = {}) -> bool:
    """Whether `a` in one iteration of `loop` and `b` in another can be shown to touch different elements. `grain`: of the loops
    inside, see `grains`."""
    for x, y in zip(a.at, b.at, strict=True):
        (x0, x1), (y0, y1) = bounds(x), bounds(y)
        if x1 < y0 or y1 < x0:
            return True
        p = _parts(x, loop.name, inner, grain)
        q = p if x is y else _parts(y, loop.name, inner, grain)
        if p is None or q is None or p[:2] != q[:2] or not p[0]:
            continue
        distance = abs(p[0]) * loop.step
        whole = distance * (loop.trips - 1)  # between the first and the last iteration
        for digit in (0, *sorted({g for g, _, _ in (*p[2], *q[2]) if g > whole})):
            # parts that are multiples of `digit` differ by 0 or by more than everything else together
            ends = [
                constant + sum(span[k] for span in spans if not digit or span[0] % digit)
                for _, _, spans, constant in (p, q)
                for k in (1, 2)
            ]
            rest = max(ends) - min(ends)
            if rest < distance and (not digit or whole + rest < digit):
                return True
    return False


def conflicts(loop: Loop) -> Iterator[tuple[Access, Access]]:
    """Pairs of accesses, one a write, that different iterations of `loop` may make to the same element of memory outside it."""
    if loop.trips <= 1:
        return
    own = {s.buf for s in walk(loop.body) if isinstance(s, Alloc)}
    inner, grain = inner_variables(loop), grains(loop.body)
    by_buf: dict[Buf, list[Access]] = {}
    for a in accesses(loop.body):
        if a.buf not in own:
            by_buf.setdefault(a.buf, []).append(a)
    for all_of in by_buf.values():
        for i, a in enumerate(all_of):
            for b in all_of[i:]:
                if not (a.op == b.op == "read") and not apart(loop, a, b, inner, grain):
                    yield a, b


def carried(loop: Loop) -> str:
    """Why the iterations of `loop` are not independent, in words; empty when they are."""
    for a, b in conflicts(loop):
        return f"iterations of {loop.name} may touch the same element of {a.buf.name} ({_word(a)} and {_word(b)})"
    return ""


def carried_beyond_reduction(loop: Loop) -> str:
    """Why the iterations of `loop` cannot be reordered even as a reduction; empty when all conflicts are equal accumulations."""
    for a, b in conflicts(loop):
        if a.op != b.op or a.op in ("read", "write"):
            return f"iterations of {loop.name} depend on each other through {a.buf.name} ({_word(a)} and {_word(b)})"
    return ""


def _word(a: Access) -> str:
    at = ", ".join(map(str, a.at))
    return f"{a.op if a.op in ('read', 'write') else 'accumulate'} {a.buf.name}[{at}]"
