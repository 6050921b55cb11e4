"""Which loop to run in the lanes of vectors: an estimate per loop, from the strides of its accesses.

Cycles are rough: half a cycle per operation and one per access of a vector or scalar, as many as lanes for lanes that lie apart.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import gcd

from tinyengine.dependence import Access, accesses
from tinyengine.index import terms
from tinyengine.loopnest import INDEX, Accumulate, Alloc, Buf, Expr, Let, Loop, Stmt, Store, stmt_exprs, subexprs, walk
from tinyengine.machine import Machine
from tinyengine.stages.arithmetic.affine import NEAR, WOVEN

EXPENSIVE = {
    "exp": 8.0, "exp2": 6.0, "log": 12.0, "sin": 12.0, "tanh": 14.0, "erf": 20.0, "threefry": 60.0, "div": 4.0, "sqrt": 4.0,
    "reciprocal": 4.0,
}  # fmt: skip
FREE = frozenset(("const", "var", "name", "load", "ramp", "splat", "cast", "bitcast"))
PAGE, WAYS, LINE = 4096, 8, 64  # bytes that one way of the first cache holds; its ways; bytes of a line
CONFLICT = 4.0  # times as many cycles where each line is gone before its neighbouring elements are needed
PICKED = 1.5  # times as many cycles for lanes that lie where data says
SCALARS = 0.5  # of the arithmetic's cycles are saved where it is scalar: twice as many units do it
JOIN = 12.0  # cycles for joining the lanes of an accumulator


def changing(s: Loop) -> frozenset[str]:
    """Names of the values in `s` that change with its variable."""
    out = set[str]()
    written = {x.buf for x in walk(s.body) if isinstance(x, (Store, Accumulate))}
    for x in walk(s.body):
        if not isinstance(x, Let):
            continue
        for e in subexprs(x.value):
            if e is s.var or (e.op == "name" and e.arg in out) or (e.op == "load" and e.arg in written):
                out.add(x.name)
                break
    return frozenset(out)


def picked(at: tuple[Expr, ...], names: Container[str]) -> bool:
    """Whether one of these values says where the access goes."""
    return any(x.op == "name" and x.arg in names for e in at for x in subexprs(e))


def stride(buf: Buf, at: tuple[Expr, ...], v: str, names: Container[str] | None = None) -> int | None:
    """By how many elements the access moves when loop variable v moves by one; None when that varies, as a position from data
    may. `names`: of the values that change with v, where they are known."""
    out = 0
    for e, s in zip(at, buf.strides, strict=True):
        for atom, c in terms(e)[0]:
            if atom.op == "var":
                if atom.arg[0] == v:
                    out += c * s
            elif any(x.op == "var" and x.arg[0] == v for x in subexprs(atom)):
                return None
            elif any(x.op == "name" and (names is None or x.arg in names) for x in subexprs(atom)):
                return None  # a position that comes from data
    return out


def share(buf: Buf, at: tuple[Expr, ...], v: str) -> int:
    """How many neighbouring iterations of v read one element, and the next ones the next, as of x[v // 2]; 0 where it is none of
    this kind."""
    found = 0
    for e, s in zip(at, buf.strides, strict=True):
        for atom, c in terms(e)[0]:
            if not any(x.op == "var" and x.arg[0] == v for x in subexprs(atom)):
                continue
            n = atom.args[1] if atom.op == "floordiv" else None
            inside = dict(terms(atom.args[0])[0]) if n is not None else {}
            steps = [k for x, k in inside.items() if any(y.op == "var" and y.arg[0] == v for y in subexprs(x))]
            if found or n is None or n.op != "const" or c * s != 1 or steps != [1]:
                return 0
            found = int(n.arg)
    return found


def held(machine: Machine, step: int) -> int:
    """How many rows that lie `step` bytes apart the first cache holds beside something else: rows whole pages apart share one set
    of it, of which the others take a way."""
    return max(1, machine.l1_bytes // PAGE - 1) * (PAGE // gcd(step, PAGE))


@dataclass(frozen=True, slots=True)
class Plan:
    """`cycles` for the whole nest, and the loops to vectorize for it."""

    cycles: float
    loops: tuple[str, ...]


def operations(s: Stmt) -> float:
    """Cycles of the arithmetic of one statement, per vector or scalar."""
    total = 0.0
    for e in stmt_exprs(s):
        for x in subexprs(e):
            if x.op not in FREE and x.dtype is not INDEX:
                total += EXPENSIVE.get(x.op, 0.5)
    return total


def statement(s: Stmt, v: str | None, lanes: int, names: Container[str] = (), around: Loop | None = None) -> float:
    """Cycles of one statement for one vector along v (or for one scalar). `names`: of the values that change with v. `around`:
    the loop inside v that it stands in."""
    total = operations(s)
    for a in accesses((s,)):
        if a.buf.space == "register":
            continue
        step = stride(a.buf, a.at, v, names) if v is not None else 0
        if around is not None and step == around.trips and _behind(a, around):
            total += woven(around.trips)
            continue
        if step is None and v is not None and a.op == "read" and (n := share(a.buf, a.at, v)) and lanes % n == 0:
            total += 1.5
        else:
            total += apart(step, lanes, a) * (PICKED if step is None and picked(a.at, names) else 1.0)
    return total + (0.5 if isinstance(s, Accumulate) else 0.0)


def _behind(a: Access, around: Loop) -> bool:
    """Whether the short rows of `around`, written out, lie behind each other and can wait for each other: what they touch is not
    both read and written."""
    same = [x.op == "read" for x in accesses(around.body) if x.buf == a.buf]
    return around.trips <= WOVEN and stride(a.buf, a.at, around.name) == 1 and (len(same) == 1 or all(same))


def apart(step: int | None, lanes: int, a: Access) -> float:
    """Cycles of an access whose lanes lie `step` elements apart; None: anywhere."""
    if step in (0, 1):
        return 1.0
    if step is not None and 1 < step <= NEAR:
        return float(step)
    each = lanes * (1.0 if a.op == "read" else 1.5)
    return 2.0 if step == -1 else each * (1.0 if step is None else conflict(step * a.buf.dtype.itemsize, lanes))


def woven(rows: int) -> float:
    """Cycles of each of the vectors that hold `rows` vectors woven into each other: a store, and a shuffle less than it has for
    each prime in it."""
    cycles, left = 1.0, rows
    while left > 1:
        p = next(k for k in range(2, left + 1) if left % k == 0)
        cycles, left = cycles + 0.5 * (p - 1), left // p
    return cycles


def conflict(nbytes: int, lanes: int) -> float:
    """Times as many cycles for lanes that lie `nbytes` apart: more where these are whole pages and the lanes more than the first
    cache has ways, as all are in one set of it."""
    return CONFLICT if lanes > WAYS and nbytes % PAGE == 0 else 1.0


def crowded(pitch: int, rows: int) -> bool:
    """Whether a vector of each of so many rows, `pitch` bytes apart, finds no place in the sets of the first cache that they fall
    into. Where rows do not begin with a line, a vector is part of two lines."""
    lines = 2 * rows if pitch % LINE else rows
    return len({k * pitch % PAGE // LINE for k in range(rows)}) * WAYS < lines


def body_cycles(body: tuple[Stmt, ...], v: Loop | None, lanes: int) -> float:
    """Cycles of the statements for one vector along the loop v (or for one scalar)."""
    name, names = (None, frozenset[str]()) if v is None else (v.name, changing(v))

    def cycles(body: tuple[Stmt, ...], around: Loop | None) -> float:
        total = 0.0
        for s in body:
            if isinstance(s, Loop):
                total += s.trips * (cycles(s.body, s) + 0.5)
            elif not isinstance(s, Alloc):
                total += statement(s, name, lanes, names, around)
        return total

    return cycles(body, None)


def plan(s: Loop, lanes: int, without: Container[str] = ()) -> Plan:
    """The cheapest of: this loop in lanes; the best of each loop inside it; no lanes. `without`: loops that may not be."""
    vectors = -(-s.trips // lanes)
    accumulates = s.reduce or any(isinstance(x, Accumulate) and stride(x.buf, x.index, s.name, ()) == 0 for x in s.body)
    this = vectors * body_cycles(s.body, s, lanes) + (JOIN if accumulates else 0.0)
    inside = 0.0
    loops: list[str] = []
    for b in s.body:
        if isinstance(b, Loop):
            p = plan(b, lanes, without)
            inside += p.cycles
            loops += p.loops
        elif not isinstance(b, Alloc):
            inside += statement(b, None, lanes) - SCALARS * operations(b)
    inside = s.trips * (inside + 0.5)
    scalar = s.trips * body_cycles(s.body, None, lanes)
    if s.name in without:
        return Plan(inside, tuple(loops)) if loops else Plan(scalar, ())
    if loops and inside < this:
        return Plan(inside, tuple(loops))
    return Plan(this, (s.name,)) if this < scalar and s.trips > 1 else Plan(scalar, tuple(loops))
