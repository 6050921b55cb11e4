"""Which index of a buffer: one for each axis, or its flat position."""

from __future__ import annotations

from dataclasses import replace

from tinyengine import index
from tinyengine import loopnest as ir
from tinyengine.loopnest import Accumulate, Buf, Expr, Loop, Stmt, Store
from tinyengine.node import Node


def flat_views(body: tuple[Stmt, ...], bufs: dict[Node, Buf]) -> tuple[tuple[Stmt, ...], dict[Node, Buf]]:
    """Address a buffer by its flat position where that needs fewer divisions than one index per axis."""
    cost: dict[Buf, list[tuple[int, int, bool]]] = {}

    def look(buf: Buf, at: tuple[Expr, ...], masked: bool) -> None:
        by_axis = sum(index.divisions(e) for e in at)
        if by_axis == 0:
            cost.setdefault(buf, []).append((0, 0, False))
            return
        flat = index.flatten(at, buf.shape)
        ok = index.proven((flat,), (buf.size,), None)
        cost.setdefault(buf, []).append((by_axis, index.divisions(flat), masked and not ok))

    for s in ir.walk(body):
        for e in ir.stmt_exprs(s):
            for x in ir.subexprs(e):
                if x.op == "load" and x.arg.space == "global":
                    look(x.arg, ir.load_index(x), ir.load_mask(x) is not None)
    flat = {
        b: Buf(b.name, b.dtype, (b.size,))
        for b, cs in cost.items()
        if sum(c[1] for c in cs) < sum(c[0] for c in cs) and not any(c[2] for c in cs)
    }
    if not flat:
        return body, bufs

    def view(e: Expr) -> Expr | None:
        if e.op == "load" and e.arg in flat:
            return ir.load(flat[e.arg], (index.flatten(ir.load_index(e), e.arg.shape),), ir.load_mask(e))
        return None

    memo: dict[Expr, Expr] = {}

    def rebuild(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(rebuild, s.body)))
        s = ir.map_stmt(s, lambda e: ir.map_expr(e, view, memo))
        if isinstance(s, Store) and s.buf in flat:
            return Store(flat[s.buf], (index.flatten(s.index, s.buf.shape),), s.value, s.mask, s.hint, s.nodes)
        if isinstance(s, Accumulate) and s.buf in flat:
            return replace(s, buf=flat[s.buf], index=(index.flatten(s.index, s.buf.shape),))
        return s

    return tuple(map(rebuild, body)), {n: flat.get(b, b) for n, b in bufs.items()}
