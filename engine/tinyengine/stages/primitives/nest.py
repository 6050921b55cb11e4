"""Tools of the schedule primitives: finding loops by name, substituting loop variables, moving and cleaning statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tinyengine import index
from tinyengine.dependence import loads_in, names_in
from tinyengine.dtypes import bool_
from tinyengine.index import bounds
from tinyengine.loopnest import (
    INDEX,
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    Store,
    apply,
    const,
    load,
    map_stmt,
    splat,
    stmt_exprs,
    subexprs,
    walk,
)  # fmt: skip
from tinyengine.loopnest import index as constant

Body = tuple[Stmt, ...]
Path = tuple[Loop, ...]
_ARITHMETIC = ("add", "sub", "mul", "neg", "floordiv", "mod")


class ScheduleError(ValueError):
    """A schedule primitive does not apply: the message says which pattern was not found, or why the change would not be legal."""


# ---- finding loops


def loops(body: Iterable[Stmt]) -> list[Loop]:
    """Every loop, outer before inner, in order."""
    out: list[Loop] = []
    for s in body:
        if isinstance(s, Loop):
            out.append(s)
            out += loops(s.body)
    return out


def at(kernel: Kernel, name: str, f: Callable[[Loop, Path], Sequence[Stmt] | None], otherwise: str = "") -> Kernel:
    """Replace every loop called `name` by `f(loop, loops around it)`, where that is not None. ScheduleError where there is no
    such loop, and, with the message `otherwise`, where none was replaced."""
    found = changed = 0

    def visit(body: Body, path: Path) -> Body:
        nonlocal found, changed
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                if s.name == name:
                    new = f(s, path)
                    found, changed = found + 1, changed + (new is not None)
                    out += (s,) if new is None else new
                else:
                    inner = visit(s.body, (*path, s))
                    out.append(s if inner is s.body else replace(s, body=inner))
            else:
                out.append(s)
        return tuple(out) if any(a is not b for a, b in zip(out, body, strict=False)) or len(out) != len(body) else body

    body = visit(kernel.body, ())
    if not found:
        raise ScheduleError(f"no loop is called {name!r}; {listing(kernel)}")
    if not changed:
        raise ScheduleError(otherwise)
    return replace(kernel, body=body)


def over(variables: Sequence[Expr], s: Store | Accumulate, kind: str = "serial") -> Stmt:
    """The statement in a loop over all values of each variable, the first one outermost; a constant needs no loop."""
    out: Stmt = s
    for v in reversed(variables):
        if v.op == "var":
            out = Loop(v, 0, v.arg[2] + 1, 1, (out,), kind, False, s.nodes)
    return out


def listing(kernel: Kernel) -> str:
    names = list(dict.fromkeys(s.name for s in loops(kernel.body)))
    return f"the loops of {kernel.name} are {', '.join(names)}" if names else f"{kernel.name} has no loops"


def fresh(kernel: Kernel, name: str) -> str:
    """`name`, or `name` with a number, such that no loop has it yet."""
    used = {s.name for s in loops(kernel.body)}
    if name not in used:
        return name
    return next(f"{name}_{n}" for n in range(1, 1000) if f"{name}_{n}" not in used)


def fresh_buffer(kernel: Kernel, name: str) -> str:
    """A buffer name of the form `name`, `name_1`... that the kernel does not use yet."""
    used = {p.name for p in kernel.params} | {s.buf.name for s in walk(kernel.body) if isinstance(s, Alloc)}
    if name not in used:
        return name
    return next(f"{name}_{n}" for n in range(1, 1000) if f"{name}_{n}" not in used)


# ---- rebuilding expressions


def build(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """`e` with other operands of the same lanes, canonical where it is index arithmetic, folded where intervals decide it."""
    op = e.op
    if e.dtype is INDEX and e.lanes == 1 and op in _ARITHMETIC:
        made = index._rebuild(Expr(op, INDEX, 1, args, e.arg))
        return made if made is not None else Expr(op, INDEX, 1, args, e.arg)
    if op == "load":
        n = len(e.arg.shape)
        if len(args) > n and args[n].op == "const":
            return load(e.arg, args[:n]) if args[n].arg else const(0, e.dtype, e.lanes)
    elif op in ("lt", "eq") and args[0].dtype is INDEX:
        known = decided(op, *args)
        if known is not None:
            return const(known, bool_, e.lanes)
    elif op in ("and", "or") and e.dtype is bool_:
        for a, b in (args, args[::-1]):
            if a.op == "const":
                return b if a.arg == (op == "and") else a
    elif op == "splat" and args[0].op == "const":
        return const(args[0].arg, e.dtype, e.lanes)
    elif op == "where" and args[0].op == "const":
        return args[1] if args[0].arg else args[2]
    return Expr(op, e.dtype, e.lanes, args, e.arg)


def decided(op: str, a: Expr, b: Expr) -> bool | None:
    """What intervals say about a < b or a == b, in every lane."""
    (a0, a1), (b0, b1) = bounds(a), bounds(b)
    if op == "lt":
        return True if a1 < b0 else False if a0 >= b1 else None
    return True if a0 == a1 == b0 == b1 else False if a1 < b0 or b1 < a0 else None


Rewrite = Callable[[Expr], Expr]


def substitution(mapping: dict[Expr, Expr]) -> Rewrite:
    """The function that replaces these leaves (loop variables, names) everywhere in an expression."""
    memo: dict[Expr, Expr] = dict(mapping)

    def f(e: Expr) -> Expr:
        found = memo.get(e)
        if found is None:
            if e.args:
                args = tuple([f(a) for a in e.args])
                found = e if args == e.args else build(e, args)
            else:
                found = e
            memo[e] = found
        return found

    return f


def rewrite(body: Iterable[Stmt], f: Rewrite) -> Body:
    """Every expression of a body rewritten."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, Loop):
            limit, first = (f(e) if e is not None else None for e in (s.limit, s.first))
            out.append(replace(s, body=rewrite(s.body, f), limit=limit, first=first))
        else:
            s = map_stmt(s, f)
            if isinstance(s, (Store, Accumulate)) and s.mask is not None and s.mask.op == "const":
                if not s.mask.arg:
                    continue
                s = replace(s, mask=None)
            out.append(s)
    return tuple(out)


def rename_buffers(body: Body, new: dict[Buf, Buf]) -> Body:
    """Buffers replaced by others of the same rank."""
    memo: dict[Expr, Expr] = {}

    def f(e: Expr) -> Expr:
        found = memo.get(e)
        if found is None:
            args = tuple([f(a) for a in e.args])
            arg = new.get(e.arg, e.arg) if e.op == "load" else e.arg
            found = memo[e] = e if args == e.args and arg is e.arg else Expr(e.op, e.dtype, e.lanes, args, arg)
        return found

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(visit, s.body)))
        if isinstance(s, Alloc):
            return replace(s, buf=new[s.buf]) if s.buf in new else s
        s = map_stmt(s, f)
        return replace(s, buf=new[s.buf]) if isinstance(s, (Store, Accumulate)) and s.buf in new else s

    return tuple(map(visit, body)) if new else body


def limits(kernel: Kernel) -> Kernel:
    """Without the ends that name a loop which a primitive has moved inside, and those of an unrolled loop that are no numbers
    where the loops around are unrolled too: they only save work."""
    if not any(s.ends for s in loops(kernel.body)):
        return kernel

    def visit(body: Body, around: frozenset[Expr], unrolled: frozenset[Expr]) -> Body:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                copied = s.kind == "unroll"
                inner = visit(s.body, around | {s.var}, unrolled | {s.var} if copied else unrolled)
                kept = [e for e in s.ends if _leaves(e, not copied) <= (unrolled if copied else around)]
                limit, first = (e if e in kept else None for e in (s.limit, s.first))
                same = inner is s.body and limit is s.limit and first is s.first
                out.append(s if same else replace(s, body=inner, limit=limit, first=first))
            else:
                out.append(s)
        return tuple(out) if any(a is not b for a, b in zip(out, body, strict=True)) else body

    return replace(kernel, body=visit(kernel.body, frozenset(), frozenset()))


def _leaves(e: Expr, loads: bool) -> set[Expr]:
    """The variables in `e`, and the loads where these do not count as known."""
    return {x for x in subexprs(e) if x.op == "var" or (x.op == "load" and not loads)}


def settled(kernel: Kernel) -> Kernel:
    """A loop that ends at its limit settles the condition that its variable is below it. For scheduled kernels: from here on the
    limit counts."""

    def visit(body: Body) -> Body:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                inner = visit(s.body)
                if (
                    s.limit is not None
                    and s.kind != "unroll"
                    and s.step == 1
                    and bounds(index.sub(s.limit, constant(s.start)))[0] >= 1
                ):
                    free = rewrite(inner, substitution({apply("lt", (s.var, s.limit)): const(True, bool_)}))
                    # an address that only this condition keeps in bounds keeps it: bounds are proven by intervals
                    if all(_in_bounds(e) for e in _unmasked(free) - _unmasked(inner)):
                        inner = free
                s = replace(s, body=inner)
            out.append(s)
        return tuple(out)

    return replace(kernel, body=visit(kernel.body)) if any(p.within is not None for p in kernel.params) else kernel


def _unmasked(body: Body) -> set[Expr]:
    """The loads without a mask."""
    found = (x for s in walk(body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load")
    return {x for x in found if len(x.args) == len(x.arg.shape)}


def _in_bounds(e: Expr) -> bool:
    return all(bounds(i)[0] >= 0 and bounds(i)[1] < n for i, n in zip(e.args, e.arg.shape, strict=False))


def lanes_of(e: Expr, lanes: int) -> Expr:
    return e if e.lanes == lanes else splat(e, lanes)


# ---- what statements need


def written(body: Iterable[Stmt]) -> set[Buf]:
    """Buffers that a body writes, allocations included."""
    return {s.buf for s in walk(tuple(body)) if isinstance(s, (Store, Accumulate, Alloc))}


def read_buffers(e: Expr) -> set[Buf]:
    return {x.arg for x in loads_in(e)}


def used_names(body: Iterable[Stmt]) -> set[str]:
    """Let names that a body refers to."""
    out: set[str] = set()
    for s in body:
        if isinstance(s, Loop):
            out |= used_names(s.body)
        else:
            for e in stmt_exprs(s):
                out |= names_in(e)
    return out


def used_buffers(body: Iterable[Stmt]) -> set[Buf]:
    out: set[Buf] = set()
    for s in body:
        if isinstance(s, Loop):
            out |= used_buffers(s.body)
            continue
        if isinstance(s, (Store, Accumulate)):
            out.add(s.buf)
        for e in stmt_exprs(s):
            out.update([x.arg for x in loads_in(e)])
    return out


def sinkable(lets: Sequence[Let], into: Body) -> str:
    """Why these values cannot be computed inside `into` instead of before it; empty when they can."""
    touched = written(into)
    for s in lets:
        for b in read_buffers(s.value) & touched:
            return f"{s.name} reads {b.name}, which is written further in"
    return ""


def closure(needed: set[str], lets: Sequence[Let]) -> list[Let]:
    """Those of `lets` that give the needed names, and what these need in turn, in order."""
    out: list[Let] = []
    for s in reversed(lets):
        if s.name in needed:
            out.append(s)
            needed = needed | names_in(s.value)
    return out[::-1]


# ---- cleaning up


def tidy(kernel: Kernel) -> Kernel:
    """Drop values that nobody uses; compute a value before the loops in which it does not change."""
    live: set[str] = set()

    def prune(body: Body) -> Body:
        out: list[Stmt] = []
        for s in reversed(body):
            if isinstance(s, Let) and s.name not in live:
                continue
            if isinstance(s, Loop):
                inner = prune(s.body)
                if not inner:
                    continue
                out.append(s if inner == s.body else replace(s, body=inner))
                continue
            if isinstance(s, Let):
                live.discard(s.name)  # parts of a loop give values of one name, each to itself
            for e in stmt_exprs(s):
                live.update(names_in(e))
            out.append(s)
        return tuple(reversed(out))

    return replace(kernel, body=_hoist(prune(kernel.body)))


def _hoist(body: Body) -> Body:
    out: list[Stmt] = []
    changing = written(body)
    values: dict[str, set[Expr]] = {}
    for x in walk(body):
        if isinstance(x, Let):
            values.setdefault(x.name, set()).add(x.value)
    defined = {s.name for s in body if isinstance(s, Let)}
    front = 0  # of the loops beside each other: parts of one loop stay so
    for s in body:
        if not isinstance(s, Loop):
            out.append(s)
            front = len(out)
            continue
        inner = _hoist(s.body)
        local = {x.name for x in inner if isinstance(x, Let)}
        kept: list[Stmt] = []
        for x in inner:
            # siblings may define one name differently (a tail is narrower): such a name stays where it is
            if isinstance(x, Let) and len(values[x.name]) == 1 and _fixed(x.value, s.name, local, changing):
                if x.name not in defined:
                    out.insert(front, x)
                    front += 1
                    defined.add(x.name)
                local.discard(x.name)
            else:
                kept.append(x)
        out.append(replace(s, body=tuple(kept)) if len(kept) != len(s.body) or inner is not s.body else s)
    return tuple(out)


def _fixed(e: Expr, v: str, local: set[str], changing: set[Buf]) -> bool:
    """Whether `e` has one value for all iterations of loop v."""
    for y in subexprs(e):
        if (y.op == "var" and y.arg[0] == v) or (y.op == "name" and y.arg in local) or (y.op == "load" and y.arg in changing):
            return False
    return True
