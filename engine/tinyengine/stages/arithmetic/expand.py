"""Between schedule and emit: how is an op computed that the machine has no instruction for?

Input and output: kernel IR. Transcendental functions, the random generator, floor division and remainder on vectors, and
conversions with corner cases become mul, fma, compare, select and bit operations, once for all backends: the interpreter runs
them, the LLVM and OpenCL backends emit them. No library is called, least of all once per lane.

`Expander` rewrites expressions, which are DAGs: each distinct one is emitted once. `expand_kernel` gives a kernel to read or to
print as source, in which every value that is used more than once has a name (`Let`).
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.loopnest import (
    Alloc,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    Store,
    apply,
    const,
    map_stmt,
    name,
    ramp,
    splat,
    stmt_exprs,
    subexprs,
    walk,
)
from tinyengine.ops import THREEFRY_ROTATIONS
from tinyengine.stages.arithmetic import affine as af
from tinyengine.stages.arithmetic import math as m
from tinyengine.stages.arithmetic import narrow

QUESTION = "How is an op computed that the machine has no instruction for?"


@dataclass(frozen=True, slots=True)
class Expansion:
    """`build` gives the replacement of an `op` expression, or None where the machine can do it. `reason`: why the result is
    right."""

    name: str
    reason: str
    op: str
    build: Callable[[Expr, m.Powers], Expr | None]


def _through_float32(f: Callable[[Expr, m.Powers], Expr]) -> Callable[[Expr, m.Powers], Expr | None]:
    @functools.wraps(f)
    def build(e: Expr, powers: m.Powers) -> Expr | None:
        x = e.args[0]
        if x.dtype is dtypes.float16:
            return apply("cast", (f(apply("cast", (x,), dtypes.float32), powers),), dtypes.float16)
        return f(x, powers) if x.dtype.is_float else None

    return build


def _alone(f: Callable[[Expr], Expr]) -> Callable[[Expr, m.Powers], Expr]:
    """For what needs no power of two."""

    @functools.wraps(f)
    def build(x: Expr, powers: m.Powers) -> Expr:
        return f(x)

    return build


def _threefry(e: Expr, powers: m.Powers) -> Expr:
    counter, key = e.args
    word = functools.partial(const, dtype=dtypes.uint32, lanes=e.lanes)
    keys = (key, word(0), apply("xor", (key, word(0x1BD11BDA))))
    x0, x1 = m.add(counter, key), word(0)
    for block in range(5):
        for r in THREEFRY_ROTATIONS[block % 2]:
            x0 = m.add(x0, x1)
            x1 = apply("or", (apply("shl", (x1, word(r))), apply("shr", (x1, word(32 - r)))))
            x1 = apply("xor", (x1, x0))
        x0 = m.add(x0, keys[(block + 1) % 3])
        x1 = m.add(m.add(x1, keys[(block + 2) % 3]), word(block + 1))
    return x0


def _integer_division(e: Expr, powers: m.Powers) -> Expr | None:
    """a // b and a % b for vectors of at most 32 bits: |a/b| is below 2**31, so float64 tells apart all quotients."""
    a, b = e.args
    if not e.dtype.is_int or e.dtype.itemsize > 4 or e.lanes == 1 or b.op == "const":
        return None
    zero, f64 = const(0, e.dtype, e.lanes), dtypes.float64
    by_zero = apply("eq", (b, zero))
    safe = m.where(by_zero, const(1, e.dtype, e.lanes), b)
    exact = apply("div", (apply("cast", (a,), f64), apply("cast", (safe,), f64)))
    down = apply("trunc", (exact,))
    floor = m.where(m.lt(exact, down), m.sub(down, m.c(1.0, down)), down)
    # by way of int64: the lowest number // -1 wraps instead of being undefined
    quotient = apply("cast", (apply("cast", (floor,), dtypes.int64),), e.dtype)
    if e.op == "mod":
        return m.where(by_zero, zero, m.sub(a, m.mul(quotient, safe)))
    return m.where(by_zero, zero, quotient)


def _fmod(a: Expr, b: Expr) -> Expr:
    """C's fmod: the sign of a. Rounds of r - trunc(r/b) b, each exact by fma and worth the bits of a mantissa."""
    r = a
    for _ in range(4 if a.dtype is dtypes.float32 else 2):
        r = m.fma(apply("neg", (apply("trunc", (apply("div", (r, b)),)),)), b, r)
    # a rounded quotient may be one too far: bring r back towards the sign of a
    past = m.lt(m.mul(r, m.with_sign_of(a, m.c(1.0, a))), m.c(0.0, a))
    r = m.where(past, m.add(r, m.with_sign_of(a, m.magnitude(b))), r)
    infinite = apply("eq", (m.magnitude(b), m.c(float("inf"), b)))
    return m.where(apply("and", (infinite, m.lt(m.magnitude(a), m.c(float("inf"), a)))), a, r)


def _float_division(e: Expr, powers: m.Powers) -> Expr | None:
    """NumPy's floor_divide and remainder of floats (npy_divmod): the remainder has the sign of the divisor."""
    if not e.dtype.is_float:
        return None
    wide = dtypes.float32 if e.dtype is dtypes.float16 else e.dtype
    a, b = (x if x.dtype is wide else apply("cast", (x,), wide) for x in e.args)
    zero, one = m.c(0.0, a), m.c(1.0, a)
    r = _fmod(a, b)
    exact = apply("eq", (r, zero))
    opposite = m.lt(m.mul(m.with_sign_of(r, one), m.with_sign_of(b, one)), zero)
    if e.op == "mod":
        out = m.where(exact, m.with_sign_of(b, zero), m.where(opposite, m.add(r, b), r))
    else:
        ratio = apply("div", (m.sub(a, r), b))
        ratio = m.where(exact, ratio, m.where(opposite, m.sub(ratio, one), ratio))
        down = apply("trunc", (ratio,))
        down = m.where(m.lt(ratio, down), m.sub(down, one), down)
        down = m.where(m.lt(m.c(0.5, a), m.sub(ratio, down)), m.add(down, one), down)
        down = m.where(apply("eq", (ratio, zero)), m.with_sign_of(apply("div", (a, b)), zero), down)
        out = m.where(apply("eq", (b, zero)), zero, down)
    return out if wide is e.dtype else apply("cast", (out,), e.dtype)


def _to_integer(e: Expr, powers: m.Powers) -> Expr | None:
    x = e.args[0]
    if not x.dtype.is_float or not e.dtype.is_int:
        return None
    if x.dtype is dtypes.float16:
        x = apply("cast", (x,), dtypes.float32)
    low, high = float(e.dtype.min), _largest(x.dtype, e.dtype)
    inside = m.where(apply("eq", (x, x)), x, m.c(0.0, x))
    inside = m.at_most(m.at_least(inside, low), high)
    out = Expr("cast", e.dtype, x.lanes, (inside,))
    return out if int(high) == e.dtype.max else m.where(m.lt(m.c(high, x), x), const(e.dtype.max, e.dtype, x.lanes), out)


def _largest(source: DType, target: DType) -> float:
    """The largest `source` float that does not exceed the largest `target`."""
    f = m.FORMATS[source]
    spare = max(0, target.max.bit_length() - f.mantissa - 1)
    return float(target.max >> spare << spare)


def _dot2(e: Expr, powers: m.Powers) -> Expr | None:
    halves = [(narrow.low_half(x), narrow.high_half(x)) for x in e.args]
    (a0, a1), (b0, b1) = halves
    return m.fma(a1, b1, m.mul(a0, b0))


def _narrow_float(e: Expr, powers: m.Powers) -> Expr | None:
    (x,) = e.args
    if e.dtype.layout is None and x.dtype.layout is None:
        return None
    if x.dtype.layout is not None:
        x = narrow.decode(x)
    if e.dtype.layout is None:
        out = apply("cast", (x,), e.dtype) if e.dtype is not x.dtype else x
        return _to_integer(out, powers) or out
    return narrow.encode(apply("cast", (x,), dtypes.float32) if x.dtype is not dtypes.float32 else x, e.dtype)


def _double_to_half(e: Expr, powers: m.Powers) -> Expr | None:
    x = e.args[0]
    if x.dtype is not dtypes.float64 or e.dtype is not dtypes.float16:
        return None
    y = apply("cast", (x,), dtypes.float32)
    back = apply("cast", (y,), dtypes.float64)
    raw = m.bits(y)
    # rounded to odd: an inexact float32 keeps a last bit of 1, and no tie can arise in the second rounding
    step = m.where(m.lt(m.magnitude(back), m.magnitude(x)), m.integer(1, y), m.integer(-1, y))
    even = apply("eq", (apply("and", (raw, m.integer(1, y))), m.integer(0, y)))
    same = apply("or", (apply("eq", (back, x)), apply("eq", (m.lt(m.magnitude(back), m.c(float("inf"), back)), _false(x)))))
    odd = m.where(same, raw, m.where(even, m.add(raw, step), raw))
    return Expr("cast", dtypes.float16, x.lanes, (m.floats(odd, m.F32),))


def _false(like: Expr) -> Expr:
    return const(False, dtypes.bool_, like.lanes)


def _compare_indices(e: Expr, powers: m.Powers) -> Expr | None:
    """a < b on lanes of 64-bit indices: the evenly spaced part of b - a is one number for all lanes, and fits 32 bits."""
    a, b = e.args
    if a.dtype is not dtypes.int64 or e.lanes == 1:
        return None
    fa, fb = af.affine(a), af.affine(b)
    if fa is not None and fb is not None:
        d = af.combine([(fb, 1), (fa, -1)])
        gap = _scalar(d)
        if af.fits32(gap):
            near = af.narrow(gap)
            assert near is not None
            return Expr(e.op, dtypes.bool_, e.lanes, (ramp(const(0, dtypes.int32), e.lanes, -d.lane), splat(near, e.lanes)))
    na, nb = af.narrow(a), af.narrow(b)
    return None if na is None or nb is None else Expr(e.op, dtypes.bool_, e.lanes, (na, nb))


def _scalar(a: af.Affine) -> Expr:
    out: Expr | None = None
    for t, k in a.terms:
        term = t if k == 1 else m.mul(t, const(k, dtypes.int64))
        out = term if out is None else m.add(out, term)
    constant = const(a.constant, dtypes.int64)
    return constant if out is None else out if a.constant == 0 else m.add(out, constant)


def _narrow_cast(e: Expr, powers: m.Powers) -> Expr | None:
    x = e.args[0]
    if x.dtype is not dtypes.int64 or e.lanes == 1 or e.dtype is dtypes.int64:
        return None
    short = af.narrow(x)
    if short is None or short.op == "cast":
        return None
    return short if e.dtype is dtypes.int32 else Expr("cast", e.dtype, e.lanes, (short,))


def _power_plus(e: Expr, powers: m.Powers) -> Expr | None:
    for power, constant in (e.args, e.args[::-1]):
        if power.op in ("exp", "exp2") and constant.op == "const" and e.dtype in m.FORMATS:
            return m.power_plus(power.op, power.args[0], constant.arg, powers)
    return None


EXPANSIONS: tuple[Expansion, ...] = (
    Expansion(
        "add-to-power-by-one-fma",
        "A product with 2**n is exact, and what underflows is lost beside the constant anyway.",
        "add",
        _power_plus,
    ),
    Expansion(
        "exp-by-powers-of-two",
        "e**x = 2**n e**r with |r| <= ln2/2, where a short polynomial is exact to 1 ulp.",
        "exp",
        _through_float32(m.exp),
    ),
    Expansion(
        "exp2-by-whole-powers",
        "2**x = 2**n 2**f with |f| <= 1/2, and x - n is exact.",
        "exp2",
        _through_float32(m.exp2),
    ),
    Expansion(
        "log-by-exponent",
        "log(2**k m) = k ln2 + log m, and m near 1 has a short series.",
        "log",
        _through_float32(_alone(m.log)),
    ),
    Expansion(
        "sin-by-quarter-turns",
        "Subtracting quarter turns leaves sin or cos of |r| <= pi/4.",
        "sin",
        _through_float32(_alone(m.sin)),
    ),
    Expansion(
        "tanh-by-expm1",
        "tanh a = E/(E+2) with E = e**2a - 1; the sign is put back.",
        "tanh",
        _through_float32(_alone(m.tanh)),
    ),
    Expansion(
        "erf-by-powers-of-two",
        "log2(1 - erf a) is a short polynomial; float64 takes another one near 0.",
        "erf",
        _through_float32(_alone(m.erf)),
    ),
    Expansion("threefry-rounds", "Threefry2x32-20 is 20 rounds of add, rotate and xor.", "threefry", _threefry),
    Expansion(
        "divide-integers-as-floats",
        "Quotients below 2**31 differ by more than float64's rounding.",
        "floordiv",
        _integer_division,
    ),
    Expansion("remainder-as-floats", "a - floor(a/b) b, the quotient being exact.", "mod", _integer_division),
    Expansion("floor-divide-floats", "(a - a mod b) / b is whole up to rounding, as in NumPy.", "floordiv", _float_division),
    Expansion("float-remainder", "a - trunc(a/b) b is exact by fma while |a/b| < 2**90.", "mod", _float_division),
    Expansion("dot-by-halves", "A bfloat16 is the leading half of a float32: two products, one sum.", "dot2", _dot2),
    Expansion(
        "narrow-float-by-bits",
        "A shorter float is the leading bits of a float32, rounded to even.",
        "cast",
        _narrow_float,
    ),
    Expansion(
        "saturate-float-to-int",
        "Out of range gives the nearest integer, NaN gives 0: defined on every machine.",
        "cast",
        _to_integer,
    ),
    Expansion(
        "round-double-to-half-once",
        "By way of a float32 rounded to odd, so the second rounding is right.",
        "cast",
        _double_to_half,
    ),
    Expansion("convert-short-index", "An index whose bounds fit 32 bits converts with half the width.", "cast", _narrow_cast),
    Expansion(
        "compare-short-index", "Lanes of indices differ by constants: one 32-bit difference decides.", "lt", _compare_indices
    ),
    Expansion(
        "compare-equal-short-index",
        "Lanes of indices differ by constants: one 32-bit difference decides.",
        "eq",
        _compare_indices,
    ),
)


class Expander:
    """Rewrites expressions by EXPANSIONS; remembers what it has done. `scales`: the machine multiplies by powers of two
    in one instruction. `dots`: it has a dot product of pairs of bfloat16, for vectors of 4, 8 and 16."""

    def __init__(self, scales: bool = False, dots: bool = False) -> None:
        self.dots = dots
        self.powers = m.SCALEF if scales else m.PORTABLE
        self.memo: dict[Expr, Expr] = {}
        self.whole: dict[Expr, Expr] = {}  # what a power became -> the power, for whoever adds to it
        self.table: dict[str, list[Expansion]] = {}
        for x in EXPANSIONS:
            self.table.setdefault(x.op, []).append(x)

    def __call__(self, e: Expr) -> Expr:
        if len(self.memo) > 50_000:
            self.memo.clear()
            self.whole.clear()
        return af.rewrite(e, self._one, self.memo)

    def only(self, *rules: Expansion) -> Expander:
        """One that knows no other rules."""
        out = copy.copy(self)
        out.memo, out.whole = {}, {}
        out.table = {op: [x for x in known if x in rules] for op, known in self.table.items()}
        return out

    def fired(self, e: Expr) -> Expansion | None:
        """The rule that rewrites `e` itself, if one does."""
        return next((x for x in self.table.get(e.op, ()) if x.build(e, self.powers) is not None), None)

    def _one(self, e: Expr) -> Expr:
        if self.dots and e.op == "dot2" and e.lanes in (4, 8, 16):
            return e
        asked = e
        if e.op == "add" and e.dtype.is_float:
            asked = Expr("add", e.dtype, e.lanes, tuple([self.whole.get(a, a) for a in e.args]))
        for x in self.table.get(e.op, ()):
            out = x.build(asked, self.powers)
            if out is not None:
                if e.op in ("exp", "exp2"):
                    self.whole[out] = e
                return out
        return e


@functools.cache
def expander(scales: bool = False, dots: bool = False) -> Expander:
    return Expander(scales, dots)


def powers_added(body: tuple[Stmt, ...]) -> frozenset[str]:
    """The names of powers of named values that nothing but an addition of a constant in the same block uses: a backend that puts
    them in there gets both by `add-to-power-by-one-fma`."""
    roots = [e for s in walk(body) for e in stmt_exprs(s)]
    operands = (a for r in roots for x in subexprs(r) for a in x.args)
    uses = Counter(a.arg for a in (*roots, *operands) if a.op == "name")
    found: set[str] = set()
    for block in [body, *(s.body for s in walk(body) if isinstance(s, Loop))]:
        powers = {
            s.name for s in block
            if isinstance(s, Let) and s.value.op in ("exp", "exp2") and s.value.args[0].op == "name" and uses[s.name] == 1
        }  # fmt: skip
        roots = [e for s in block if powers and isinstance(s, (Let, Store)) for e in stmt_exprs(s)]
        sums = [x.args for e in roots for x in subexprs(e) if x.op == "add" and any(a.op == "const" for a in x.args)]
        found |= {a.arg for pair in sums for a in pair if a.op == "name"} & powers
    return frozenset(found)


# ---- kernels, for reading and for backends that print source

_ATOMS = ("const", "var", "name", "splat", "ramp")


Labels = dict[tuple[int, Expr], str]  # (number of the statement, value) -> its name


class Step(NamedTuple):
    """What one rule did to a kernel: in how many places, and the kernel after it."""

    expansion: Expansion
    places: int
    kernel: Kernel


def explain(kernel: Kernel, lower: Expander, inlined: frozenset[str] = frozenset()) -> Iterator[Step]:
    """What each rule makes of a kernel, in the order of `EXPANSIONS`, those before it done. `inlined`: see `powers_added`."""
    labels: Labels = {}
    done: list[Expansion] = []
    before, inside = kernel, inline(kernel, inlined)
    distinct = {e for s in walk(inside.body) for root in stmt_exprs(s) for e in subexprs(root)}
    places = Counter(x for e in distinct if (x := lower.fired(e)) is not None)
    for x in EXPANSIONS:
        if places[x]:
            done.append(x)
            after = expand_kernel(inside, lower.only(*done), labels)
            if after != before:
                yield Step(x, places[x], after)
                before = after


def inline(kernel: Kernel, names: frozenset[str]) -> Kernel:
    """The kernel with these values computed where they are used."""

    def block(body: tuple[Stmt, ...], values: dict[Expr, Expr]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                out.append(replace(s, body=block(s.body, dict(values))))
                continue
            memo: dict[Expr, Expr] = {}
            new = s if isinstance(s, Alloc) else map_stmt(s, lambda e: af.rewrite(e, lambda n: values.get(n, n), memo))  # noqa: B023
            if isinstance(new, Let) and new.name in names:
                values[name(new.name, new.value.dtype, new.value.lanes)] = new.value
            else:
                out.append(new)
        return tuple(out)

    return replace(kernel, body=block(kernel.body, {})) if names else kernel


def expand_kernel(kernel: Kernel, lower: Expander | None = None, labels: Labels | None = None) -> Kernel:
    """The kernel with every op expanded; values that are used more than once in a statement get a Let in front of it. `labels`:
    the names that they have got before, for the same names again."""
    e = lower or expander()
    known: Labels = {} if labels is None else labels
    numbers = count()

    def block(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                out.append(replace(s, body=block(s.body)))
                continue
            number = next(numbers)
            new = s if isinstance(s, Alloc) else map_stmt(s, e)
            if stmt_exprs(new) == stmt_exprs(s):
                out.append(s)
            else:
                out += _named(new, number, known)
        return tuple(out)

    return replace(kernel, body=block(kernel.body))


def _named(s: Stmt, number: int, labels: Labels) -> list[Stmt]:
    """Lets for what stands more than once in `s`, then `s` in terms of them."""
    uses: dict[Expr, int] = {}
    seen: set[Expr] = set()
    distinct: list[Expr] = []
    for root in stmt_exprs(s):
        fresh = af.order(root, seen)
        seen.update(fresh)
        distinct += fresh
        uses[root] = uses.get(root, 0) + 1
    for e in distinct:
        for a in e.args:
            uses[a] = uses.get(a, 0) + 1
    memo: dict[Expr, Expr] = {}
    lets: list[Stmt] = []

    def named(e: Expr) -> Expr:
        return e

    for e in distinct:
        new = af.rewrite(e, named, memo)
        if uses.get(e, 0) > 1 and e.op not in _ATOMS and e.dtype is not dtypes.int64:
            label = labels.setdefault((number, e), f"e{len(labels)}")
            lets.append(Let(label, new, getattr(s, "nodes", ())))
            memo[e] = name(label, e.dtype, e.lanes)
    return [*lets, map_stmt(s, lambda e: memo[e])]
