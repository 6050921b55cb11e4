"""Constant positions out of addresses, so that kernels which differ in them alone share code: `xs[12, j]` is `xs[0, j]` through a
pointer that stands 12 rows further on.

A pointer is moved by a whole number of cache lines, so that what is aligned stays aligned; the rest stays in the address.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from math import gcd

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

At = tuple[Expr, ...]
ALIGN = 64  # bytes: where memory begins, and what is aligned is taken to be


def displaced(kernel: Kernel, fixed: Container[str] = ()) -> tuple[Kernel, dict[str, int]]:
    """The kernel without the constant that all indices of a parameter have, and by how many bytes the pointers of its parameters
    are moved on for it. `fixed`: parameters whose pointers stay, as they share memory with others."""
    least = {b.name: at for b, at in _least(kernel).items() if b.name not in fixed and any(at)}
    if not least:
        return kernel, {}
    params = {p.name: p for p in kernel.params if p.name in least}
    memo: dict[Expr, Expr] = {}

    def moved(name: str, at: At) -> At:
        return tuple([_minus(e, m) for e, m in zip(at, least[name], strict=True)])

    def access(e: Expr) -> Expr | None:
        if e.op == "load" and e.arg.name in least:
            return load(e.arg, moved(e.arg.name, load_index(e)), load_mask(e))
        return None

    def stmt(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            ends = [e if e is None else map_expr(e, access, memo) for e in (s.limit, s.first)]
            return replace(s, body=tuple([stmt(b) for b in s.body]), limit=ends[0], first=ends[1])
        s = map_stmt(s, lambda e: map_expr(e, access, memo))
        if isinstance(s, (Store, Accumulate, Prefetch)) and s.buf.name in least:
            s = replace(s, index=moved(s.buf.name, s.index))
        return s

    nbytes = {
        name: sum([m * stride for m, stride in zip(at, params[name].strides, strict=True)]) * params[name].dtype.itemsize
        for name, at in least.items()
    }
    return replace(kernel, body=tuple([stmt(s) for s in kernel.body])), nbytes


def _least(kernel: Kernel) -> dict[Buf, tuple[int, ...]]:
    """For each parameter and axis the constant that all of its indices have, in whole cache lines."""
    found: dict[Buf, list[int]] = {}
    for buf, at in _accesses(kernel):
        own = [_constant(e) for e in at]
        known = found.get(buf)
        found[buf] = own if known is None else [min(a, b) for a, b in zip(known, own, strict=True)]
    out = {}
    for buf, least in found.items():
        line = ALIGN // buf.dtype.itemsize
        steps = [line // gcd(line, stride) for stride in buf.strides]
        out[buf] = tuple([m // k * k for m, k in zip(least, steps, strict=True)])
    return out


def _accesses(kernel: Kernel) -> Iterator[tuple[Buf, At]]:
    """Every access to a parameter that holds elements."""
    seen: set[int] = set()
    for s in walk(kernel.body):
        if isinstance(s, (Store, Accumulate, Prefetch)) and s.buf.space == "global":
            yield s.buf, s.index
        for root in s.ends if isinstance(s, Loop) else stmt_exprs(s):
            for e in subexprs(root, seen):
                if e.op == "load" and e.arg.space == "global" and e.arg.within is None:
                    yield e.arg, load_index(e)


def _constant(e: Expr) -> int:
    """What `_minus` may take from an index."""
    if e.op == "const":
        return max(0, int(e.arg))
    if e.op == "add" and e.dtype is INDEX:
        return max(_constant(e.args[0]), _constant(e.args[1]))
    return _constant(e.args[0]) if e.op in ("ramp", "splat") else 0


def _minus(e: Expr, m: int) -> Expr:
    """e - m, where m is at most `_constant(e)`."""
    if not m:
        return e
    if e.op == "const":
        return Expr("const", e.dtype, e.lanes, (), e.arg - m)
    if e.op == "ramp":
        return ramp(_minus(e.args[0], m), e.lanes, e.arg)
    if e.op == "splat":
        return splat(_minus(e.args[0], m), e.lanes)
    a, b = e.args
    if _constant(b) < m:
        a, b = b, a
    rest = _minus(b, m)
    return a if rest.op == "const" and not rest.arg else Expr("add", e.dtype, e.lanes, (a, rest))


__all__ = ["displaced"]
