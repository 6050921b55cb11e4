"""Index arithmetic: canonical forms and intervals of the integer expressions that address memory.

Every index is kept as `sum of coefficient * atom + constant`, where an atom is a loop variable, a floor division, a remainder or
a value
loaded from memory. Canonical means equal-by-identity wherever these rules can show equality, so `(i*8 + j) // 8` is `i` when 0 <=
j < 8.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyengine.extent import Extent
from tinyengine.loopnest import INDEX, Expr, apply, const, index, is_size, load_mask, map_expr, ramp, size, splat, subexprs, var
from tinyengine.node import Node, Shape
from tinyengine.size import Size, Variable

Terms = tuple[tuple[Expr, int], ...]
UNBOUNDED = 1 << 62


# ---- intervals


@functools.lru_cache(maxsize=200_000)
def bounds(e: Expr) -> tuple[int, int]:
    """The smallest and largest value that integer expression `e` can take, lanes included."""
    op = e.op
    if op == "const":
        return int(e.arg), int(e.arg)
    if op == "var":
        return e.arg[1], e.arg[2]
    if op == "ramp":
        low, high = bounds(e.args[0])
        reach = e.arg * (e.lanes - 1)
        return low + min(0, reach), high + max(0, reach)
    if op == "splat":
        return bounds(e.args[0])
    if op in ("add", "sub", "mul"):
        (a, b), (c, d) = bounds(e.args[0]), bounds(e.args[1])
        if op == "add":
            return a + c, b + d
        if op == "sub":
            return a - d, b - c
        ends = (a * c, a * d, b * c, b * d)
        return min(ends), max(ends)
    if op == "neg":
        a, b = bounds(e.args[0])
        return -b, -a
    if op in ("floordiv", "mod") and e.args[1].op == "const" and e.args[1].arg > 0:
        a, b = bounds(e.args[0])
        c = e.args[1].arg
        if op == "floordiv":
            return a // c, b // c
        return (a % c, b % c) if a // c == b // c else (0, c - 1)
    if op == "load" and e.arg.within is not None:
        low, high = e.arg.within
        return low, high
    if op in ("floordiv", "mod"):
        (a, b), (c, d) = bounds(e.args[0]), bounds(e.args[1])
        if a >= 0 and c > 0:
            return (a // d, b // c) if op == "floordiv" else (0, min(b, d - 1))
    if op in ("minimum", "maximum"):
        (a, b), (c, d) = bounds(e.args[0]), bounds(e.args[1])
        f = min if op == "minimum" else max
        return f(a, c), f(b, d)
    if op == "cast" and e.args[0].dtype.is_int:
        return bounds(e.args[0])
    if e.dtype.is_int and e.dtype is not INDEX:
        return e.dtype.min, e.dtype.max
    return -UNBOUNDED, UNBOUNDED


# ---- canonical sums


@functools.lru_cache(maxsize=200_000)
def terms(e: Expr) -> tuple[Terms, int]:
    """e as ((atom, coefficient), ...) and a constant."""
    if e.op == "const":
        return (), int(e.arg)
    if e.lanes == 1 and e.dtype is INDEX:
        if e.op in ("add", "sub"):
            (ta, ca), (tb, cb) = terms(e.args[0]), terms(e.args[1])
            sign = 1 if e.op == "add" else -1
            return _collect([*ta, *((t, sign * c) for t, c in tb)]), ca + sign * cb
        if e.op == "mul" and e.args[1].op == "const":
            ta, ca = terms(e.args[0])
            k = e.args[1].arg
            return tuple((t, c * k) for t, c in ta) if k else (), ca * k
        if e.op == "neg":
            ta, ca = terms(e.args[0])
            return tuple((t, -c) for t, c in ta), -ca
    return ((e, 1),), 0


def _collect(pairs: Iterable[tuple[Expr, int]]) -> Terms:
    out: dict[Expr, int] = {}
    for t, c in pairs:
        out[t] = out.get(t, 0) + c
    return tuple((t, c) for t, c in out.items() if c)


def total(pairs: Iterable[tuple[Expr, int]], constant: int) -> Expr:
    """The canonical expression for a sum; joins c*k*(x // c) + k*(x % c) into k*x."""
    ts = dict(_collect(pairs))
    if any(t.op == "mod" for t in ts):
        ts, constant = _join(ts, constant)
    e: Expr | None = None
    for t, c in sorted(ts.items(), key=_order) if len(ts) > 1 else ts.items():
        term = t if c == 1 else Expr("mul", INDEX, 1, (t, index(c)))
        e = term if e is None else Expr("add", INDEX, 1, (e, term))
    if e is None:
        return index(constant)
    return e if constant == 0 else Expr("add", INDEX, 1, (e, index(constant)))


def _order(item: tuple[Expr, int]) -> tuple[int, str]:
    return -abs(item[1]), str(item[0].arg if item[0].op in ("var", "name") else item[0])


def _join(ts: dict[Expr, int], constant: int) -> tuple[dict[Expr, int], int]:
    changed = True
    while changed:
        changed = False
        for t, k in list(ts.items()):
            if t.op != "mod" or t.args[1].op != "const":
                continue
            x, c = t.args[0], t.args[1].arg
            quotient, q_const = terms(floordiv(x, c))
            # the quotient may itself be a sum: all its terms must be present with factor k*c
            if quotient and all(ts.get(q, 0) == n * k * c for q, n in quotient):
                del ts[t]
                for q, _ in quotient:
                    del ts[q]
                more, more_const = terms(x)
                for q, n in more:
                    ts[q] = ts.get(q, 0) + n * k
                    if not ts[q]:
                        del ts[q]
                constant += more_const * k - q_const * k * c
                changed = True
                break
    return ts, constant


def add(*es: Expr) -> Expr:
    """The canonical sum."""
    pairs: list[tuple[Expr, int]] = []
    constant = 0
    for e in es:
        t, c = terms(e)
        pairs += t
        constant += c
    return total(pairs, constant)


def mul(e: Expr, k: int) -> Expr:
    t, c = terms(e)
    return total([(x, n * k) for x, n in t], c * k)


def sub(a: Expr, b: Expr) -> Expr:
    return add(a, mul(b, -1))


def over_lanes(pairs: Sequence[tuple[Expr, int]], constant: int = 0) -> Expr:
    """The sum of coefficient * expression, some of which may have lanes: a ramp where all of these are."""
    lanes = max([e.lanes for e, _ in pairs], default=1)
    scalars: list[tuple[Expr, int]] = []
    stride, rest = 0, []
    for e, c in pairs:
        if e.lanes > 1 and e.op not in ("ramp", "splat"):
            rest.append((e, c))
            continue
        stride += e.arg * c if e.op == "ramp" else 0
        ts, k = terms(e.args[0] if e.lanes > 1 else e)
        if any([t.op == "mod" for t, _ in ts]):  # it may be one term together with its division: seen before others are added
            ts, k = terms(total(ts, k))
        scalars += [(t, n * c) for t, n in ts]
        constant += k * c
    base = total(scalars, constant)
    if lanes == 1:
        return base
    out = ramp(base, lanes, stride) if stride else base
    for e, c in rest:
        out = apply("add", (out, e if c == 1 else apply("mul", (e, splat(index(c), lanes)))))
    return out


def times(a: Expr, b: Expr) -> Expr:
    """The canonical product, of which neither factor need be a number: products of atoms are atoms."""
    (ta, ca), (tb, cb) = terms(a), terms(b)
    out = [(x, n * cb) for x, n in ta] + [(y, n * ca) for y, n in tb]
    for x, n in ta:
        for y, m in tb:
            first, second = sorted((x, y), key=str)
            out.append((Expr("mul", INDEX, 1, (first, second)), n * m))
    return total(out, ca * cb)


def value(n: int | Size) -> Expr:
    """A number, or what a size is when the kernel runs."""
    of = n.size if isinstance(n, Extent) else n
    if not isinstance(of, Size):
        return index(of)
    parts = []
    for factors, c in of.terms:
        e = index(c)
        for s in factors:
            e = times(e, size(s))
        parts.append(e)
    return add(*parts)


def size_of(e: Expr) -> Any:
    """The size that an expression of sizes and numbers is: the inverse of `value`."""
    if is_size(e):
        low, high = e.arg.within
        return Variable(e.arg.name, low, high)
    if e.op == "mul":
        return size_of(e.args[0]) * size_of(e.args[1])
    if e.op == "add":
        return size_of(e.args[0]) + size_of(e.args[1])
    assert e.op == "const", e
    return e.arg


def _split(e: Expr, c: int) -> tuple[list[tuple[Expr, int]], int, list[tuple[Expr, int]], int]:
    """e = c * (quotient terms + q) + (rest terms + r), 0 <= r < c."""
    ts, k = terms(e)
    quotient = [(t, n // c) for t, n in ts if n % c == 0]
    rest = [(t, n) for t, n in ts if n % c]
    return quotient, k // c, rest, k % c


def _coarse(rest: list[tuple[Expr, int]], r: int, c: int) -> tuple[int, Expr, Expr] | None:
    """(g, A, B) with rest + r = g*A + B, g a divisor of c, and 0 <= B < g: the fine part never reaches the next multiple of g."""
    for g in sorted({math.gcd(n, c) for _, n in rest}, reverse=True):
        if g > 1:
            fine = total([(t, n) for t, n in rest if n % g], r % g)
            low, high = bounds(fine)
            if low >= 0 and high < g:
                return g, total([(t, n // g) for t, n in rest if n % g == 0], r // g), fine
    return None


@functools.lru_cache(maxsize=200_000)
def floordiv(e: Expr, c: int) -> Expr:
    """e // c for c > 0, rounding down."""
    if c == 1:
        return e
    quotient, q, rest, r = _split(e, c)
    if not rest:
        return total(quotient, q)
    inner = total(rest, r)
    low, high = bounds(inner)
    if low // c == high // c:
        return total(quotient, q + low // c)
    coarse = _coarse(rest, r, c)
    if coarse is not None:
        g, whole, _ = coarse
        return add(total(quotient, q), floordiv(whole, c // g))
    if len(rest) == 1 and rest[0][1] == 1 and r == 0 and rest[0][0].op == "floordiv" and rest[0][0].args[1].op == "const":
        x, d = rest[0][0].args
        return add(total(quotient, q), floordiv(x, d.arg * c))
    return total([*quotient, (Expr("floordiv", INDEX, 1, (inner, index(c))), 1)], q)


@functools.lru_cache(maxsize=200_000)
def mod(e: Expr, c: int) -> Expr:
    """e % c for c > 0, never negative."""
    if c == 1:
        return index(0)
    _, _, rest, r = _split(e, c)
    if not rest:
        return index(r)
    inner = total(rest, r)
    low, high = bounds(inner)
    if low // c == high // c:
        return total(rest, r - (low // c) * c)
    coarse = _coarse(rest, r, c)
    if coarse is not None:
        g, whole, fine = coarse
        return add(mul(mod(whole, c // g), g), fine)
    if len(rest) == 1 and rest[0][1] == 1 and r == 0 and rest[0][0].op == "mod" and _multiple(rest[0][0], c):
        return mod(rest[0][0].args[0], c)
    return Expr("mod", INDEX, 1, (inner, index(c)))


def _multiple(e: Expr, c: int) -> bool:
    """Whether the divisor of a remainder is a multiple of `c`."""
    d = e.args[1]
    return bool(d.op == "const" and d.arg % c == 0)


def _rebuild(e: Expr) -> Expr | None:
    if e.dtype is not INDEX or e.lanes != 1:
        return None
    if e.op in ("add", "sub", "neg") or (e.op == "mul" and e.args[1].op == "const"):
        return total(*terms(e))
    if e.op == "mul" and e.args[0].op == "const":
        return mul(e.args[1], e.args[0].arg)
    if e.op == "floordiv" and e.args[1].op == "const" and e.args[1].arg > 0:
        return floordiv(e.args[0], e.args[1].arg)
    if e.op == "mod" and e.args[1].op == "const" and e.args[1].arg > 0:
        return mod(e.args[0], e.args[1].arg)
    return None


def simplify(e: Expr) -> Expr:
    """The canonical form of every scalar index inside `e`: used after a loop variable was replaced."""
    return map_expr(e, _rebuild)


def divisions(e: Expr) -> int:
    """How many floor divisions and remainders `e` holds."""
    return sum(x.op in ("floordiv", "mod") for x in subexprs(e))


def variables(e: Expr) -> set[Expr]:
    """The loop variables and names that `e` depends on, through load indices too."""
    return {x for x in subexprs(e) if x.op in ("var", "name")}


# ---- conditions


def within(e: Expr, extent: int) -> list[Expr]:
    """The conditions, beyond what intervals prove, under which 0 <= e < extent (the value of now, of a symbolic extent)."""
    low, high = bounds(e)
    out = []
    if low < 0:
        out.append(apply("lt", (index(-1), e)))
    if isinstance(extent, Extent):
        if bounds(sub(e, value(extent)))[1] >= 0:
            out.append(apply("lt", (e, value(extent))))
    elif high >= extent:
        out.append(apply("lt", (e, index(extent))))
    return out


def truth(c: Expr) -> bool | None:
    """Whether a comparison of indices always holds, or never; None where intervals do not tell."""
    (a, b), (x, y) = bounds(c.args[0]), bounds(c.args[1])
    if c.op == "lt":
        return True if b < x else False if a >= y else None
    return True if a == b == x == y else False if b < x or y < a else None


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """The conjunction of two conditions; None is 'always'."""
    if a is None or a is b:
        return b
    return a if b is None else apply("and", (a, b))


def conjuncts(e: Expr | None) -> list[Expr]:
    """The conditions joined by `and` in e."""
    if e is None:
        return []
    return conjuncts(e.args[0]) + conjuncts(e.args[1]) if e.op == "and" else [e]


Form = frozenset[tuple[Expr, int]]


def _primitive(ts: Iterable[tuple[Expr, int]]) -> tuple[Form, int]:
    """(the terms divided by what all coefficients have in common, that divisor)."""
    ts = tuple(ts)
    g = math.gcd(*(k for _, k in ts)) or 1
    return frozenset((t, k // g) for t, k in ts), g


def _facts(mask: Expr | None) -> dict[Form, int]:
    """What the conditions of a mask say: sum of terms -> the largest value that it can take."""
    facts: dict[Form, int] = {}
    for c in conjuncts(mask):
        if c.op == "lt" and c.lanes == 1:  # a < b: a - b <= -1
            ts, constant = terms(sub(*c.args))
            form, g = _primitive(ts)
            facts[form] = min(facts.get(form, UNBOUNDED), (-1 - constant) // g)
    return facts


def _most(ts: Iterable[tuple[Expr, int]], facts: dict[Form, int], limit: int, depth: int = 3) -> int:
    """A bound for a sum of terms, by intervals and, where these stay above `limit`, by facts: what a fact says of some of its
    terms and what the others can reach beyond."""
    ts = tuple(ts)
    whole = 0
    for t, k in ts:
        low, high = bounds(t)
        whole += k * (high if k > 0 else low)
    if whole <= limit or not depth:
        return whole
    have = dict(ts)
    for form, value in facts.items():
        for c in {have[t] // k for t, k in form if t in have and have[t] * k > 0 and have[t] % k == 0}:
            rest = _collect([*ts, *((t, -c * k) for t, k in form)])
            whole = min(whole, c * value + _most(rest, facts, limit - c * value, depth - 1))
            if whole <= limit:
                return whole
    return whole


Grid = Mapping[str, tuple[int, int]]  # a loop variable -> (its first value, its step)


def residue(e: Expr, c: int, grid: Grid) -> tuple[int, int]:
    """(g, r) with e % g == r always, g the largest such divisor of c that the steps of the loops tell. So e can grow by
    g - r - 1, at least, before e // c changes."""
    ts, constant = terms(e)
    g = c
    for atom, k in ts:
        start, step = grid.get(atom.arg[0], (0, 1)) if atom.op == "var" else (0, 1)
        constant += k * start
        g = math.gcd(g, k * step)
    return g, constant % g


def stepped(e: Expr, grid: Grid) -> Expr:
    """`e` for intervals: each remainder x % c inside is a variable with the bounds that the steps of the loops leave it."""

    def tight(x: Expr) -> Expr | None:
        if x.op != "mod" or x.lanes != 1 or x.args[1].op != "const" or x.args[1].arg <= 0:
            return None
        c = x.args[1].arg
        g, r = residue(x.args[0], c, grid)
        low, high = bounds(x)
        return var(f"{x}", max(low, r), min(high, c - g + r)) if g > 1 else None

    return map_expr(e, tight)


def proven(at: Sequence[Expr], shape: Shape, mask: Expr | None) -> bool:
    """Whether an access is in bounds on every axis, by intervals and by what the mask says."""
    facts = _facts(mask) if mask is not None else {}
    for e, extent in zip(at, shape, strict=True):
        ts, constant = terms(e)
        top, bottom = int(extent) - 1 - constant, constant
        if _most(ts, facts, top) > top or _most([(t, -k) for t, k in ts], facts, bottom) > bottom:
            return False
    return True


# ---- movement ops as index maps


def strides(shape: Shape) -> tuple[int, ...]:
    out, step = [], 1
    for d in reversed(shape):
        out.append(step)
        step *= d
    return tuple(reversed(out))


def flatten(at: Sequence[Expr], shape: Shape) -> Expr:
    """The row-major position of `at` in `shape`."""
    return over_lanes(list(zip(at, strides(shape), strict=True)))


def unflatten(flat: Expr, shape: Shape) -> tuple[Expr, ...]:
    """The index in `shape` of a row-major position."""
    out: list[Expr] = []
    for d, s in zip(shape, strides(shape), strict=True):
        out.append(index(0) if d == 1 else mod(floordiv(flat, s), d))
    return tuple(out)


def _reshape(at: Sequence[Expr], shape: Shape, to: Shape) -> tuple[Expr, ...]:
    """`at` in `shape` -> the index of the same element in `to`; axes are grouped so that unrelated ones stay apart."""
    if any([isinstance(d, Extent) for d in (*shape, *to)]):
        return _symbolic_reshape(at, shape, to)
    if 1 in shape or 1 in to:  # axes of extent 1 come and go without touching the others
        rest = [(e, d) for e, d in zip(at, shape, strict=True) if d != 1]
        moved = iter(_reshape([e for e, _ in rest], tuple([d for _, d in rest]), tuple([d for d in to if d != 1])))
        return tuple([index(0) if d == 1 else next(moved) for d in to])
    out: list[Expr] = []
    i = j = 0
    while i < len(shape) or j < len(to):
        i0, j0 = i, j
        a = b = 1
        if i < len(shape):
            a, i = shape[i], i + 1
        if j < len(to):
            b, j = to[j], j + 1
        while a != b:
            if a < b and i < len(shape):
                a, i = a * shape[i], i + 1
            elif j < len(to):
                b, j = b * to[j], j + 1
            else:
                a, i = a * shape[i], i + 1
        if i - i0 == 1 and j - j0 == 1:
            out.append(at[i0])
        else:
            out += unflatten(flatten(at[i0:i], shape[i0:i]), to[j0:j])
    return tuple(out)


def _symbolic_reshape(at: Sequence[Expr], shape: Shape, to: Shape) -> tuple[Expr, ...]:
    """`_reshape` where an extent is symbolic: equal axes at both ends stay, and what is between goes through its position in
    row-major order, with strides that are known when the kernel runs."""
    first = last = 0
    while first < min(len(shape), len(to)) and shape[first] == to[first]:
        first += 1
    while last < min(len(shape), len(to)) - first and shape[-1 - last] == to[-1 - last]:
        last += 1
    old, new = shape[first : len(shape) - last], to[first : len(to) - last]
    flat, step = index(0), index(1)
    for e, d in zip(reversed(at[first : len(shape) - last]), reversed(old), strict=True):
        flat, step = add(flat, times(e, step)), times(step, value(d))
    middle: list[Expr] = []
    lead = next((k for k, d in enumerate(new) if d != 1), len(new))
    for k in range(len(new) - 1, -1, -1):
        if new[k] == 1:
            middle.append(index(0))
            continue
        by = value(new[k])
        if k == lead:
            middle.append(flat if bounds(flat)[1] < int(new[k]) else apply("minimum", (flat, index(int(new[k]) - 1))))
        elif by.op == "const":
            middle.append(mod(flat, by.arg))
            flat = floordiv(flat, by.arg)
        else:
            middle.append(Expr("mod", INDEX, 1, (flat, by)))
            flat = Expr("floordiv", INDEX, 1, (flat, by))
    return (*at[:first], *reversed(middle), *at[len(shape) - last :])


def pull(node: Node, at: Sequence[Expr]) -> tuple[tuple[Expr, ...], list[Expr]]:
    """For movement `node` read at index `at`: the index into its operand, and the conditions outside which the value is 0."""
    src = node.src[0]
    op, arg = node.op, node.arg
    if op == "reshape":
        if 0 in src.shape:
            return tuple(index(0) for _ in src.shape), []
        return _reshape(at, node.shape, src.shape), []
    if op == "permute":
        out: list[Expr] = [index(0)] * len(at)
        for d, a in enumerate(arg):
            out[a] = at[d]
        return tuple(out), []
    if op == "expand":
        return tuple(index(0) if s == 1 else e for e, s in zip(at, src.shape, strict=True)), []
    if op == "slice":
        return tuple(add(mul(e, step), value(start)) for e, (start, step) in zip(at, arg, strict=True)), []
    if op == "flip":
        return tuple(
            add(mul(e, -1), value(n), index(-1)) if d in arg else e for d, (e, n) in enumerate(zip(at, src.shape, strict=True))
        ), []
    conditions: list[Expr] = []
    if op == "pad":
        moved: list[Expr] = []
        for e, (low, _, interior), n in zip(at, arg, src.shape, strict=True):
            moved.append(_inverse(sub(e, value(low)), interior + 1, n, conditions))
        return tuple(moved), conditions
    axis, kaxis, stride, dilation = arg
    out = list(at)
    if op == "window":
        out[axis] = add(mul(at[axis], stride), mul(at[kaxis], dilation))
        return tuple(out), []
    assert op == "place", op
    out[axis] = _inverse(sub(at[axis], mul(at[kaxis], dilation)), stride, src.shape[axis], conditions)
    return tuple(out), conditions


def _inverse(t: Expr, stride: int, extent: int, conditions: list[Expr]) -> Expr:
    """t / stride where that is a whole number in range; adds the conditions for it."""
    if stride > 1:
        rest = mod(t, stride)
        if rest.op != "const" or rest.arg:
            conditions.append(apply("eq", (rest, index(0))))
        t = floordiv(t, stride)
    conditions += within(t, extent)
    return t


__all__ = [
    "add", "both", "bounds", "conjuncts", "const", "divisions", "flatten", "floordiv", "load_mask", "mod", "mul", "proven",
    "pull",
    "simplify", "strides", "sub", "terms", "total", "unflatten", "variables", "within",
]  # fmt: skip
