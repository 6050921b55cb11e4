"""Index expressions as `base + constant + stride * lane`: what an address generator needs to know about an index.

`affine(e)` flattens sums and products by constants into terms; `shared` finds lanes that read one element with their neighbours;
`interval(e)` bounds an integer expression by the bounds of its loop variables; `narrow(e)` states a 64-bit vector index in 32-bit
lanes where its interval allows it; `substitute` replaces loop variables by constants and folds what becomes constant, as where a
loop is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from tinyengine import dtypes
from tinyengine.loopnest import Expr, Loop, apply, const, index, ramp

INT32_MAX = 2**31 - 1
NEAR = 8  # elements between lanes up to which contiguous loads and shuffles are cheaper than a load per lane
WOVEN = 16  # rows at most that an unrolled loop reads or writes woven into each other, in registers
BLOCK = 16  # rows at most of a block that is turned in registers


class Affine(NamedTuple):
    """sum(coefficient * scalar) + constant + lane * (0, 1, ..., lanes-1)."""

    terms: tuple[tuple[Expr, int], ...]
    constant: int
    lane: int


_affine: dict[Expr, Affine | None] = {}
_interval: dict[Expr, tuple[int, int] | None] = {}


def affine(e: Expr) -> Affine | None:
    """The affine form of an int64 index expression, or None when its lanes are not evenly spaced."""
    if e in _affine:
        return _affine[e]
    if len(_affine) > 50_000:
        _affine.clear()
    _affine[e] = out = _find_affine(e)
    return out


def _find_affine(e: Expr) -> Affine | None:
    if e.op == "const":
        return Affine((), int(e.arg), 0)
    if e.op == "splat":
        return affine(e.args[0])
    if e.op == "ramp":
        base = affine(e.args[0])
        return None if base is None else Affine(base.terms, base.constant, base.lane + e.arg)
    if e.op in ("add", "sub"):
        a, b = affine(e.args[0]), affine(e.args[1])
        return None if a is None or b is None else combine([(a, 1), (b, 1 if e.op == "add" else -1)])
    if e.op == "neg":
        a = affine(e.args[0])
        return None if a is None else combine([(a, -1)])
    if e.op == "mul":
        a, b = affine(e.args[0]), affine(e.args[1])
        if a is not None and b is not None:
            if not a.terms and not a.lane:
                return combine([(b, a.constant)])
            if not b.terms and not b.lane:
                return combine([(a, b.constant)])
    return Affine(((e, 1),), 0, 0) if e.lanes == 1 else None


def combine(parts: list[tuple[Affine, int]]) -> Affine:
    """sum(factor * form)."""
    terms: dict[Expr, int] = {}
    constant = lane = 0
    for a, factor in parts:
        for t, c in a.terms:
            terms[t] = terms.get(t, 0) + c * factor
        constant += a.constant * factor
        lane += a.lane * factor
    return Affine(tuple((t, c) for t, c in terms.items() if c), constant, lane)


def flat(at: tuple[Expr, ...], strides: tuple[int, ...]) -> Affine | None:
    """The affine form of the element offset of `at` in a row-major buffer; None when its lanes are not evenly spaced."""
    parts = []
    for e, stride in zip(at, strides, strict=True):
        a = affine(e)
        if a is None:
            return None
        parts.append((a, stride))
    return combine(parts)


class Shared(NamedTuple):
    """Neighbouring lanes that read one element: lane k reads `first` + (`rest` + k) // `each`."""

    first: Affine
    each: int
    rest: int


def shared(at: tuple[Expr, ...], strides: tuple[int, ...], grain: Callable[[Expr], int]) -> Shared | None:
    """The offset of x[i // 2] and its like, lanes along i; None where it has another form. `grain`: a number that divides a
    term."""
    parts: list[tuple[Affine, int]] = []
    found: tuple[int, int] | None = None
    todo = list(zip(at, strides, strict=True))
    while todo:
        e, stride = todo.pop()
        a = affine(e)
        if a is None and e.op == "add":
            todo += [(x, stride) for x in e.args]
            continue
        if a is None:
            same = _neighbours(e, grain) if found is None and stride == 1 else None
            if same is None:
                return None
            a, found = same.first, (same.each, same.rest)
        elif a.lane:
            return None
        parts.append((a, stride))
    return Shared(combine(parts), *found) if found is not None else None


def _neighbours(e: Expr, grain: Callable[[Expr], int]) -> Shared | None:
    """i // n with lanes along i, of which the first one's place among the n is known."""
    inner = affine(e.args[0]) if e.op == "floordiv" else None
    by = affine(e.args[1]) if e.op == "floordiv" else None
    if inner is None or by is None or inner.lane != 1 or by.lane or by.terms or by.constant < 2:
        return None
    n = by.constant
    if any(c * grain(t) % n for t, c in inner.terms):
        return None
    terms = tuple((t, c // n) if c % n == 0 else (_quotient(t, c, n), 1) for t, c in inner.terms)
    return Shared(Affine(terms, inner.constant // n, 0), n, inner.constant % n)


def _quotient(t: Expr, factor: int, n: int) -> Expr:
    """t * factor // n, a scalar."""
    product = t if factor == 1 else apply("mul", (t, index(factor)))
    return apply("floordiv", (product, index(n)))


def flat_expr(at: tuple[Expr, ...], strides: tuple[int, ...]) -> Expr:
    """The element offset as one (vector) expression."""
    out: Expr | None = None
    for e, stride in zip(at, strides, strict=True):
        term = e if stride == 1 else apply("mul", (e, index(stride)))
        out = term if out is None else apply("add", (out, term))
    return index(0) if out is None else out


def iterations(s: Loop, known: Callable[[Expr], Expr]) -> range:
    """The values that the variable of an unrolled loop takes, or that of a loop with one iteration. `known` replaces the
    variables of the unrolled loops around."""
    start, stop = s.start, s.stop
    if s.trips > 1:
        first, limit = (interval(known(e)) if e is not None else None for e in (s.first, s.limit))
        assert all(e is None or e[0] == e[1] for e in (first, limit)), f"the ends of {s.name} are no numbers"
        start, stop = max(start, first[0]) if first else start, min(stop, limit[0]) if limit else stop
    return range(start, stop, s.step)


def interval(e: Expr) -> tuple[int, int] | None:
    """(lowest, highest) value of an integer expression over all lanes and iterations; None when unknown."""
    if e in _interval:
        return _interval[e]
    if len(_interval) > 50_000:
        _interval.clear()
    _interval[e] = out = _find_interval(e)
    return out


def _find_interval(e: Expr) -> tuple[int, int] | None:
    if e.op == "const":
        return (int(e.arg), int(e.arg)) if not e.dtype.is_float else None
    if e.op == "var":
        return e.arg[1], e.arg[2]
    if e.op == "load" and e.arg.within is not None:
        low, high = e.arg.within
        return low, high
    if e.op == "splat":
        return interval(e.args[0])
    if e.op == "ramp":
        base, reach = interval(e.args[0]), e.arg * (e.lanes - 1)
        return None if base is None else (base[0] + min(0, reach), base[1] + max(0, reach))
    if e.op == "cast":
        source = e.args[0].dtype
        inner = interval(e.args[0])
        if inner is None and source.kind in ("bool", "int", "uint"):
            inner = (int(source.min), int(source.max))
        if inner is None or not e.dtype.is_int or inner[0] < e.dtype.min or inner[1] > e.dtype.max:
            return None
        return inner
    if e.op in ("add", "sub", "mul", "maximum", "minimum"):
        a, b = interval(e.args[0]), interval(e.args[1])
        if a is None or b is None:
            return None
        if e.op == "add":
            return a[0] + b[0], a[1] + b[1]
        if e.op == "sub":
            return a[0] - b[1], a[1] - b[0]
        if e.op == "mul":
            corners = [x * y for x in a for y in b]
            return min(corners), max(corners)
        pick = max if e.op == "maximum" else min
        return pick(a[0], b[0]), pick(a[1], b[1])
    if e.op == "where":
        a, b = interval(e.args[1]), interval(e.args[2])
        return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
    if e.op in ("floordiv", "mod"):
        a, b = interval(e.args[0]), interval(e.args[1])
        if b is None or b[0] != b[1] or b[0] <= 0:
            return None
        if e.op == "floordiv":
            return None if a is None else (a[0] // b[0], a[1] // b[0])
        return (a[0], a[1]) if a is not None and a[0] >= 0 and a[1] < b[0] else (0, b[0] - 1)
    return None


def fits32(e: Expr) -> bool:
    bounds = interval(e)
    return bounds is not None and bounds[0] >= -INT32_MAX and bounds[1] <= INT32_MAX


def narrow(e: Expr) -> Expr | None:
    """The same values as int32; None when they may not fit. Only vectors gain: a scalar is computed wide and truncated."""
    if e.op == "const":
        return const(e.arg, dtypes.int32, e.lanes) if fits32(e) else None
    if not fits32(e):
        return None
    if e.lanes == 1:
        return Expr("cast", dtypes.int32, 1, (e,))
    if e.op == "splat":
        inner = narrow(e.args[0])
        return None if inner is None else Expr("splat", dtypes.int32, e.lanes, (inner,))
    if e.op == "ramp":
        inner = narrow(e.args[0])
        return None if inner is None else ramp(inner, e.lanes, e.arg)
    if e.op in ("add", "sub", "mul", "floordiv", "mod", "maximum", "minimum"):
        a, b = narrow(e.args[0]), narrow(e.args[1])
        if a is not None and b is not None:
            return Expr(e.op, dtypes.int32, e.lanes, (a, b))
    if e.op == "where":
        a, b = narrow(e.args[1]), narrow(e.args[2])
        if a is not None and b is not None:
            return Expr("where", dtypes.int32, e.lanes, (e.args[0], a, b))
    return Expr("cast", dtypes.int32, e.lanes, (e,))


def order(e: Expr, done: Container[Expr]) -> list[Expr]:
    """What stands under `e` and not in `done`, operands first, e last. Iterative: a fused chain is deeper than Python's stack."""
    out: list[Expr] = []
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(e, False)]
    while stack:
        n, ready = stack.pop()
        if ready:
            out.append(n)
        elif n not in seen and n not in done:
            seen.add(n)
            stack.append((n, True))
            for a in reversed(n.args):
                if a not in seen and a not in done:
                    stack.append((a, False))
    return out


def rewrite(e: Expr, f: Callable[[Expr], Expr], memo: dict[Expr, Expr]) -> Expr:
    """Bottom-up rewrite like `loopnest.map_expr`, without recursion: `f` gets each node with its operands rewritten."""
    stack = [e]
    while stack:
        n = stack[-1]
        if n not in memo:
            missing = [a for a in n.args if a not in memo]
            if missing:
                stack += missing[::-1]
                continue
            args = tuple([memo[a] for a in n.args])
            memo[n] = f(n if args == n.args else Expr(n.op, n.dtype, n.lanes, args, n.arg))
        stack.pop()
    return memo[e]


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "maximum": max, "minimum": min, "lt": lambda a, b: a < b, "eq": lambda a, b: a == b,
}  # fmt: skip


def fold(e: Expr) -> Expr:
    """A constant for an int64 operation on constants, and the chosen side of a `where` or of a constant mask."""
    if e.op == "where" and e.args[0].op == "const":
        return e.args[1] if e.args[0].arg else e.args[2]
    if e.op in ("and", "or") and e.dtype is dtypes.bool_:
        for c, other in (e.args, e.args[::-1]):
            if c.op == "const":
                return (other if c.arg else c) if e.op == "and" else (c if c.arg else other)
    if e.op == "load" and len(e.args) > len(e.arg.shape) and e.args[-1].op == "const":
        return Expr("load", e.dtype, e.lanes, e.args[:-1], e.arg) if e.args[-1].arg else const(0, e.dtype, e.lanes)
    if e.op == "splat" and e.args[0].op == "const":
        return Expr("const", e.dtype, e.lanes, (), e.args[0].arg)
    if len(e.args) == 2 and e.op in _FOLD and all(a.op == "const" and a.dtype is dtypes.int64 for a in e.args):
        return const(_FOLD[e.op](e.args[0].arg, e.args[1].arg), e.dtype, e.lanes)
    return e


def substitute(e: Expr, values: Mapping[Expr, Expr], memo: dict[Expr, Expr]) -> Expr:
    """`e` with loop variables and names replaced, folded. `memo` belongs to this one set of values."""
    return rewrite(e, lambda n: values.get(n, n) if n.op in ("var", "name") else fold(n), memo)
