"""Which addresses does a kernel touch, and how often? Answered from its loop nest, without running it.

An access is a product of independent parts: axes of a buffer whose indices share no loop variable can be counted apart. A part
counted in closed form where its index is affine and dense, by evaluating it at all points of its variables where they are few,
and otherwise bounded from above, which the result says. A mask that is a conjunction falls into the parts in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tinyengine.loopnest import (
    INDEX,
    Accumulate,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    Store,
    apply,
    const,
    load_index,
    load_mask,
    map_expr,
    stmt_exprs,
    subexprs,
)  # fmt: skip
from tinyengine.ops import OPS
from tinyengine.positions import LIMIT, Array, Box, Count, Set, along, compact

LANE = "<lane>"  # the position within a vector, as one more variable

Domain = tuple[str, int, int, int]  # a variable and the range of its values


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store of one statement. `index` and `mask` are in terms of loop variables and data alone: Lets are put in.
    `dynamic` says on what data the address depends, or ''."""

    buf: Buf
    write: bool
    index: tuple[Expr, ...]
    mask: Expr | None
    lanes: int
    loops: tuple[Loop, ...]
    stmt: Stmt
    dynamic: str


# ---- collecting


def accesses(kernel: Kernel) -> list[Access]:
    """Every access to global and local memory, in order; an Accumulate reads and writes. Registers are no memory."""
    out: list[Access] = []
    _collect(kernel.body, (), {}, (), out)
    return out


def _collect(
    body: tuple[Stmt, ...], loops: tuple[Loop, ...], lets: dict[str, Expr], within: tuple[Expr, ...], out: list[Access]
) -> None:
    """`within`: what the ends of the loops around say, which masks their accesses."""
    memo: dict[Expr, Expr] = {}

    def inline(e: Expr) -> Expr:
        return map_expr(e, lambda x: inline(lets[x.arg]) if x.op == "name" and x.arg in lets else None, memo)

    def add(write: bool, s: Stmt, buf: Buf, at: tuple[Expr, ...], mask: Expr | None, lanes: int) -> None:
        at = tuple(map(inline, at))
        whole = None if mask is None else inline(mask)
        for c in within:
            whole = c if whole is None else apply("and", (whole, c))
        out.append(Access(buf, write, at, whole, lanes, loops, s, _data(at)))

    for s in body:
        if isinstance(s, Loop):
            _collect(s.body, (*loops, s), dict(lets), (*within, *_within(s)), out)
            continue
        seen: set[int] = set()
        for e in stmt_exprs(s):
            for x in subexprs(e, seen):
                if x.op == "load" and x.arg.space != "register":
                    add(False, s, x.arg, load_index(x), load_mask(x), x.lanes)
        if isinstance(s, (Store, Accumulate)) and s.buf.space != "register":
            lanes = max([s.value.lanes, *(e.lanes for e in s.index)])
            if isinstance(s, Accumulate):
                add(False, s, s.buf, s.index, s.mask, lanes)
            add(True, s, s.buf, s.index, s.mask, lanes)
        elif isinstance(s, Let):
            lets[s.name] = s.value


def _within(s: Loop) -> list[Expr]:
    """What holds in each iteration that runs, where the loop's ends follow from the loops around."""
    if s.trips < 2:
        return []
    ends = ((s.limit, lambda e: (s.var, e)), (s.first, lambda e: (const(-1, INDEX), apply("sub", (s.var, e)))))
    return [apply("lt", pair(e)) for e, pair in ends if e is not None and positional(e)]


def positional(e: Expr) -> bool:
    """Is it made of loop variables and constants alone?"""
    return not any(x.op in ("load", "name") for x in subexprs(e))


def _data(at: tuple[Expr, ...]) -> str:
    """What data an address depends on, in words, or ''."""
    for e in at:
        for x in subexprs(e):
            if x.op == "load":
                return f"the index reads {x.arg.name}"
    return ""


# ---- evaluation


def affine(e: Expr) -> dict[str, int] | None:
    """Coefficients by variable (LANE for the lane, '' for the constant), or None where `e` is not affine."""
    if e.op == "const":
        return {"": int(e.arg)}
    if e.op == "var":
        return {e.arg[0]: 1, "": 0}
    if e.op in ("splat", "cast"):
        return affine(e.args[0]) if e.dtype.is_int else None
    if e.op == "ramp":
        base = affine(e.args[0])
        return None if base is None else {**base, LANE: e.arg}
    if e.op in ("add", "sub"):
        a, b = affine(e.args[0]), affine(e.args[1])
        if a is None or b is None:
            return None
        sign = 1 if e.op == "add" else -1
        return {v: a.get(v, 0) + sign * b.get(v, 0) for v in {**a, **b}}
    if e.op == "neg":
        a = affine(e.args[0])
        return None if a is None else {v: -c for v, c in a.items()}
    if e.op == "mul":
        a, b = affine(e.args[0]), affine(e.args[1])
        if a is not None and b is not None and (len(a) == 1 or len(b) == 1):
            a, k = (a, b[""]) if len(b) == 1 else (b, a[""])
            return {v: c * k for v, c in a.items()}
    return None


def steps(e: Expr) -> dict[str, int] | None:
    """By how much `e` moves with each variable (LANE for the lane), a part that comes from data or is not affine standing still;
    None where such a part differs between lanes."""
    known = affine(e)
    if known is not None:
        return known
    if e.op == "ramp":
        return {**(steps(e.args[0]) or {}), LANE: e.arg}
    if e.op in ("splat", "cast"):
        return steps(e.args[0])
    if e.op in ("add", "sub"):
        a, b = steps(e.args[0]), steps(e.args[1])
        if a is None or b is None:
            return None
        return {v: a.get(v, 0) + (b.get(v, 0) if e.op == "add" else -b.get(v, 0)) for v in {**a, **b}}
    return {} if e.lanes == 1 else None


def variables(e: Expr, scope: Iterable[str]) -> frozenset[str]:
    """The variables that `e` may change with; what is read from registers or local memory may change with all in scope."""
    out = set()
    for x in subexprs(e):
        if x.op == "var":
            out.add(x.arg[0])
        elif x.op == "ramp":
            out.add(LANE)
        elif x.op == "name" or (x.op == "load" and x.arg.space != "global"):
            return frozenset(scope)
    return frozenset(out)


def evaluate(e: Expr, values: dict[str, Array], memo: dict[Expr, Array]) -> Array:
    """`e` at the given values of its variables (arrays that broadcast)."""
    found = memo.get(e)
    if found is None:
        if e.op == "const":
            found = np.asarray(e.arg, e.dtype.values)
        elif e.op == "var":
            found = values[e.arg[0]]
        elif e.op == "ramp":
            found = evaluate(e.args[0], values, memo) + values[LANE] * e.arg
        elif e.op == "splat":
            found = evaluate(e.args[0], values, memo)
        elif e.op == "cast":
            found = e.dtype.convert(evaluate(e.args[0], values, memo))
        else:
            f = OPS[e.op].numpy
            assert f is not None, e.op
            found = np.asarray(f(*[evaluate(a, values, memo) for a in e.args]))
        memo[e] = found
    return found


def conjuncts(mask: Expr | None) -> list[Expr]:
    if mask is None:
        return []
    if mask.op == "and":
        return conjuncts(mask.args[0]) + conjuncts(mask.args[1])
    return conjuncts(mask.args[0]) if mask.op == "splat" else [mask]


# ---- parts


@dataclass(slots=True)
class Part:
    """Axes whose indices share variables, and the conditions on these. `ids`: the distinct positions (row-major over the axes),
    or a Count where they cannot be listed; `active`: at how many points of the variables the conditions hold."""

    axes: tuple[int, ...]
    ids: Set | Count
    active: Count


def parts(a: Access, inside: int = 0) -> tuple[list[Part], int]:
    """The parts of an access within its loops from number `inside` on (the outer ones stand still), and the factor of the loops
    and lanes that none of them mentions."""
    domains = {l.name: (l.name, l.start, l.stop, l.step) for l in a.loops[inside:]}
    for l in a.loops[:inside]:
        domains[l.name] = (l.name, l.start, l.start + 1, 1)
    if a.lanes > 1:
        domains[LANE] = (LANE, 0, a.lanes, 1)
    groups: list[tuple[set[str], list[int], list[Expr]]] = []

    def add(vs: Iterable[str], axis: int | None, condition: Expr | None) -> None:
        merged = (set(vs), [] if axis is None else [axis], [] if condition is None else [condition])
        for g in [g for g in groups if g[0] & merged[0]]:
            groups.remove(g)
            merged = (g[0] | merged[0], g[1] + merged[1], g[2] + merged[2])
        groups.append(merged)

    for axis, e in enumerate(a.index):
        add(variables(e, domains), axis, None)
    for c in conjuncts(a.mask):
        add(variables(c, domains), None, c)
    used = set().union(*(g[0] for g in groups)) if groups else set()
    rest = prod(len(range(*d[1:])) for v, d in domains.items() if v not in used)
    out = []
    for vs, axes, conditions in groups:
        axes.sort()
        terms = tuple((a.index[x], a.buf.shape[x]) for x in axes)
        ids, active = _part(terms, tuple(conditions), tuple(domains[v] for v in domains if v in vs))
        out.append(Part(tuple(axes), ids, active))
    return out, rest


Solution = tuple[Set | Count, Count]  # the distinct positions, the number of points
_memo: dict[Any, Solution] = {}


def _part(terms: tuple[tuple[Expr, int], ...], conditions: tuple[Expr, ...], domains: tuple[Domain, ...]) -> Solution:
    key = (terms, conditions, domains)
    if key not in _memo:
        if len(_memo) > 20_000:
            _memo.clear()
        _memo[key] = _solve(terms, conditions, domains)
    return _memo[key]


def _solve(terms: tuple[tuple[Expr, int], ...], conditions: tuple[Expr, ...], domains: tuple[Domain, ...]) -> Solution:
    points = prod(len(range(*d[1:])) for d in domains)
    if points == 0:
        return range(0), Count(0, True)
    known = tuple(c for c in conditions if positional(c))
    static = all(positional(e) for e, _ in terms)
    exact = len(known) == len(conditions) and static
    if static and len(terms) == 1:
        found = _progression(terms[0][0], known, domains)
        if found is not None:
            ids, active = found
            return (ids, Count(active, True)) if exact else (Count(len(ids), False), Count(active, False))
    if points <= LIMIT:
        values: dict[str, Array] = {}
        for k, (name, start, stop, step) in enumerate(domains):
            values[name] = np.arange(start, stop, step, dtype=np.int64).reshape(along(k, len(domains)))
        memo: dict[Expr, Array] = {}
        shape = tuple(len(range(*d[1:])) for d in domains)
        keep = np.ones((), bool)
        for c in known:
            keep = keep & evaluate(c, values, memo)
        active = int(np.count_nonzero(np.broadcast_to(keep, shape)))
        if static:
            flat: Array = np.zeros((), np.int64)
            for e, extent in terms:
                flat = flat * extent + evaluate(e, values, memo)
            chosen = np.broadcast_to(flat, shape)[np.broadcast_to(keep, shape)]
            listed = compact(np.unique(chosen))
            return (listed, Count(active, True)) if exact else (Count(len(listed), False), Count(active, False))
        points = active
    extents = prod(extent for _, extent in terms)
    return Count(min(points, extents), False), Count(points, len(known) == len(conditions) and (points <= LIMIT or not known))


def _progression(e: Expr, conditions: tuple[Expr, ...], domains: tuple[Domain, ...]) -> tuple[range, int] | None:
    """(values, number of points) of an affine index that takes the values of one arithmetic progression, or None.
    Conditions must compare the index itself with constants, and each value must belong to one point."""
    a = affine(e)
    if a is None:
        return None
    start, count, step, points = a.get("", 0), 1, 1, 1
    terms = []
    for name, low, stop, pitch in domains:
        trips, c = len(range(low, stop, pitch)), a.get(name, 0)
        start += c * low
        points *= trips
        if c and trips > 1:
            start += min(0, c * pitch * (trips - 1))
            terms.append((abs(c * pitch), trips))
    for c, trips in sorted(terms):
        if count == 1:
            step = c
        elif c % step or c > step * count:
            return None
        count = (c // step) * (trips - 1) + count
    values = range(start, start + step * count, step)
    if not conditions:
        return values, points
    if points != count:
        return None
    low, high = values.start, values[-1]
    for condition in conditions:
        bounds = _bounds(condition, a)
        if bounds is None:
            return None
        low, high = max(low, bounds[0]), min(high, bounds[1])
    first = start + step * max(0, -(-(low - start) // step))
    clipped = range(first, max(first, min(high, values[-1]) + 1), step)
    return clipped, len(clipped)


_FAR = 1 << 62


def _bounds(condition: Expr, a: dict[str, int]) -> tuple[int, int] | None:
    """The interval of the index (affine form `a`) in which the condition holds, where it is one."""
    if condition.op != "lt":
        return None
    left, right = affine(condition.args[0]), affine(condition.args[1])
    if left is None or right is None:
        return None
    d = {v: left.get(v, 0) - right.get(v, 0) for v in {**left, **right}}  # holds where d < 0
    own = {v: c for v, c in a.items() if v and c}
    rest = {v: c for v, c in d.items() if v and c}
    if rest == own:
        return -_FAR, a.get("", 0) - d.get("", 0) - 1
    if rest == {v: -c for v, c in own.items()}:
        return a.get("", 0) + d.get("", 0) + 1, _FAR
    return None


# ---- answers


def box(a: Access, inside: int = 0) -> Box | Count:
    """The distinct elements of one access; a Count where they cannot be listed or depend on data."""
    found, _ = parts(a, inside)
    if any(p.active.n == 0 for p in found):
        return Count(0, True)
    own = sorted((p for p in found if p.axes), key=lambda p: p.axes)
    if any(isinstance(p.ids, Count) for p in own) or not all(p.active.exact for p in found):
        return Count(prod(p.ids.n if isinstance(p.ids, Count) else len(p.ids) for p in own), False)
    return Box(tuple(p.axes for p in own), [p.ids for p in own if not isinstance(p.ids, Count)])


def issued(a: Access) -> Count:
    """How many elements the access moves in all, masked-off ones excluded."""
    found, rest = parts(a)
    return Count(prod(p.active.n for p in found) * rest, all(p.active.exact for p in found))


def statements(body: tuple[Stmt, ...], around: tuple[Loop, ...] = ()) -> Iterator[tuple[Stmt, int]]:
    """Every statement that is no loop, with the number of times that it runs."""
    times = -1
    for s in body:
        if isinstance(s, Loop):
            yield from statements(s.body, (*around, s))
        else:
            times = runs(around) if times < 0 else times
            yield s, times


def runs(loops: tuple[Loop, ...]) -> int:
    """How often the body of these nested loops runs. Ends that depend on outer loops are evaluated for all their iterations;
    ends that are known late (sizes) count as never reached."""
    ends = [tuple([e for e in s.ends if s.trips > 1 and positional(e)]) for s in loops]
    asked = {x.arg[0] for es in ends for e in es for x in subexprs(e) if x.op == "var"}
    grid = [s for s in loops if s.name in asked]
    values = {s.name: np.arange(s.start, s.stop, s.step, dtype=np.int64).reshape(along(k, len(grid))) for k, s in enumerate(grid)}
    times: Array = np.ones(tuple(s.trips for s in grid), np.int64)
    memo: dict[Expr, Array] = {}
    for s, known in zip(loops, ends, strict=True):
        first = evaluate(s.first, values, memo) if s.first is not None and s.first in known else np.asarray(s.start)
        limit = evaluate(s.limit, values, memo) if s.limit is not None and s.limit in known else np.asarray(s.stop)
        if s.name in asked:
            times = times * ((values[s.name] >= first) & (values[s.name] < limit))
        else:
            steps = [np.clip(-(-(e - s.start) // s.step), 0, s.trips) for e in (first, limit)]
            times = times * np.maximum(0, steps[1] - steps[0])
    return int(times.sum())
