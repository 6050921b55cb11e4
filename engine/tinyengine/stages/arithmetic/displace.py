"""Constant positions out of addresses, so that kernels which differ in them alone share code: `xs[12, j]` is `xs[0, j]` through a
pointer that stands 12 rows further on.

A pointer is moved by a whole number of cache lines, so that what is aligned stays aligned; the rest stays in the address.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from math import gcd

from tinyengine.index import add
from tinyengine.loopnest import (
    INDEX,
    Accumulate,
    Buf,
    Expr,
    Kernel,
    Loop,
    Prefetch,
    Stmt,
    Store,
    apply,
    load,
    load_index,
    load_mask,
    map_expr,
    map_stmt,
    ramp,
    splat,
    stmt_exprs,
    subexprs,
    walk,
)
from tinyengine.loopnest import index as number
from tinyengine.stages.specs.plan import ALIGN

At = tuple[Expr, ...]


def displaced(kernel: Kernel, fixed: Container[str] = ()) -> tuple[Kernel, dict[str, int]]:
    """The kernel without the constant that all indices of a parameter have, and by how many bytes the pointers of its parameters
    are moved on for it. `fixed`: parameters whose pointers stay, as they share memory with others."""
    least = {b: at for b, at in _least(kernel).items() if b.name not in fixed and any(at)}
    if not least:
        return kernel, {}
    by = {b.name: at for b, at in least.items()}
    nbytes = {
        b.name: sum([m * stride for m, stride in zip(at, b.strides, strict=True)]) * b.dtype.itemsize for b, at in least.items()
    }
    return rewritten(kernel, by, lambda b, at: (b, tuple([minus(e, m) for e, m in zip(at, by[b.name], strict=True)]))), nbytes


def rewritten(kernel: Kernel, names: Container[str], change: Callable[[Buf, At], tuple[Buf, At]]) -> Kernel:
    """The kernel with other accesses to the parameters of these names."""
    memo: dict[Expr, Expr] = {}

    def access(e: Expr) -> Expr | None:
        if e.op == "load" and e.arg.name in names:
            return load(*change(e.arg, load_index(e)), load_mask(e))
        return None

    def stmt(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            ends = [e if e is None else map_expr(e, access, memo) for e in (s.limit, s.first)]
            return replace(s, body=tuple([stmt(b) for b in s.body]), limit=ends[0], first=ends[1])
        s = map_stmt(s, lambda e: map_expr(e, access, memo))
        if isinstance(s, (Store, Accumulate, Prefetch)) and s.buf.name in names:
            buf, at = change(s.buf, s.index)
            s = replace(s, buf=buf, index=at)
        return s

    return replace(kernel, body=tuple([stmt(s) for s in kernel.body]))


def _least(kernel: Kernel) -> dict[Buf, tuple[int, ...]]:
    """For each parameter and axis the constant that all of its indices have, in whole cache lines."""
    found: dict[Buf, list[int]] = {}
    for buf, at in accesses(kernel):
        own = [constant(e) for e in at]
        known = found.get(buf)
        found[buf] = own if known is None else [min(a, b) for a, b in zip(known, own, strict=True)]
    return {buf: tuple([lines(buf, axis, m) for axis, m in enumerate(least)]) for buf, least in found.items()}


def lines(buf: Buf, axis: int, m: int) -> int:
    """At most `m`, such that so many steps along the axis are whole cache lines."""
    line = ALIGN // buf.dtype.itemsize
    whole = line // gcd(line, buf.strides[axis])
    return m // whole * whole


def accesses(kernel: Kernel) -> Iterator[tuple[Buf, At]]:
    """Every access to a parameter that holds elements."""
    seen: set[int] = set()
    for s in walk(kernel.body):
        if isinstance(s, (Store, Accumulate, Prefetch)) and s.buf.space == "global":
            yield s.buf, s.index
        for root in s.ends if isinstance(s, Loop) else stmt_exprs(s):
            for e in subexprs(root, seen):
                if e.op == "load" and e.arg.space == "global" and e.arg.within is None:
                    yield e.arg, load_index(e)


def constant(e: Expr) -> int:
    """What `minus` may take from an index."""
    if e.op == "const":
        return max(0, int(e.arg))
    if e.op == "add" and e.dtype is INDEX:
        return max(constant(e.args[0]), constant(e.args[1]))
    return constant(e.args[0]) if e.op in ("ramp", "splat") else 0


def minus(e: Expr, m: int) -> Expr:
    """e - m, where m is at most `constant(e)`."""
    if not m:
        return e
    if e.op == "const":
        return Expr("const", e.dtype, e.lanes, (), e.arg - m)
    if e.op == "ramp":
        return ramp(minus(e.args[0], m), e.lanes, e.arg)
    if e.op == "splat":
        return splat(minus(e.args[0], m), e.lanes)
    a, b = e.args
    if constant(b) < m:
        a, b = b, a
    rest = minus(b, m)
    return a if rest.op == "const" and not rest.arg else Expr("add", e.dtype, e.lanes, (a, rest))


def plus(e: Expr, m: int) -> Expr:
    """e + m, as `index` writes it."""
    if e.op == "const":
        return Expr("const", e.dtype, e.lanes, (), e.arg + m)
    if e.op == "ramp":
        return ramp(plus(e.args[0], m), e.lanes, e.arg)
    if e.op == "splat":
        return splat(plus(e.args[0], m), e.lanes)
    return add(e, number(m)) if e.lanes == 1 else apply("add", (e, number(m)))


__all__ = ["accesses", "constant", "displaced", "lines", "minus", "plus", "rewritten"]
