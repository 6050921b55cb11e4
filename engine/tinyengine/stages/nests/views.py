"""Which index of a buffer: one for each axis, or one position for several axes beside each other."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tinyengine import index
from tinyengine import loopnest as ir
from tinyengine.loopnest import Accumulate, Buf, Expr, Loop, Stmt, Store
from tinyengine.node import Node, Shape

Access = tuple[tuple[Expr, ...], bool]  # the index by axis, and whether a mask guards it
Runs = tuple[range, ...]  # axes beside each other that one position stands for


def flat_views(body: tuple[Stmt, ...], bufs: dict[Node, Buf]) -> tuple[tuple[Stmt, ...], dict[Node, Buf]]:
    """Address axes of a buffer that lie beside each other by one position where that needs fewer divisions; the others keep an
    index of their own, by which schedules know rows, windows and panels."""
    found: dict[Buf, dict[Access, None]] = {}
    for s in ir.walk(body):
        for e in ir.stmt_exprs(s):
            for x in ir.subexprs(e):
                if x.op == "load" and x.arg.space == "global":
                    found.setdefault(x.arg, {})[ir.load_index(x), ir.load_mask(x) is not None] = None
    runs: dict[Buf, Runs] = {}
    for b, accesses in found.items():
        divided = [a for a in accesses if any(map(index.divisions, a[0]))]
        if divided and len(merged := _runs(divided, b.shape)) < len(b.shape):
            runs[b] = merged
    if not runs:
        return body, bufs
    flat = {b: Buf(b.name, b.dtype, tuple([prod(b.shape[d] for d in run) for run in r])) for b, r in runs.items()}

    def position(b: Buf, at: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple([_position(run, at, b.shape) for run in runs[b]])

    def view(e: Expr) -> Expr | None:
        if e.op == "load" and e.arg in flat:
            return ir.load(flat[e.arg], position(e.arg, ir.load_index(e)), ir.load_mask(e))
        return None

    memo: dict[Expr, Expr] = {}

    def rebuild(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(rebuild, s.body)))
        s = ir.map_stmt(s, lambda e: ir.map_expr(e, view, memo))
        if isinstance(s, Store) and s.buf in flat:
            return Store(flat[s.buf], position(s.buf, s.index), s.value, s.mask, s.hint, s.nodes)
        if isinstance(s, Accumulate) and s.buf in flat:
            return replace(s, buf=flat[s.buf], index=position(s.buf, s.index))
        return s

    return tuple(map(rebuild, body)), {n: flat.get(b, b) for n, b in bufs.items()}


def _position(run: range, at: tuple[Expr, ...], shape: Shape) -> Expr:
    """The place within the axes of `run`, in row-major order."""
    here = slice(run.start, run.stop)
    return at[run.start] if len(run) == 1 else index.flatten(at[here], shape[here])


def _runs(accesses: list[Access], shape: Shape) -> Runs:
    """The runs of axes with the fewest divisions, and of those the most: of every prefix of the axes the best, from shorter ones.
    A position that only a mask keeps within its run is none."""
    best: list[tuple[int, int, Runs]] = [(0, 0, ())]  # divisions, minus the number of runs, runs
    for stop in range(1, len(shape) + 1):
        found = []
        for start in range(stop):
            run = range(start, stop)
            at = [(_position(run, at, shape), masked and len(run) > 1) for at, masked in accesses]
            extent = prod(shape[d] for d in run)
            if all(not masked or index.proven((p,), (extent,), None) for p, masked in at):
                divisions, count, before = best[start]
                found.append((divisions + sum(index.divisions(p) for p, _ in at), count - 1, (*before, run)))
        best.append(min(found, key=lambda b: b[:2]))
    return best[-1][2]
