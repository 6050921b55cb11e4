"""spill: finished sums leave the registers before what is done with them, which then needs no copy for each of them."""

from __future__ import annotations

from dataclasses import replace

from tinyengine.dependence import accesses
from tinyengine.loopnest import (
    Alloc,
    Buf,
    Expr,
    Kernel,
    Loop,
    Stmt,
    Store,
    load,
    load_index,
    load_mask,
    map_expr,
    map_stmt,
    stmt_exprs,
    subexprs,
    walk,
)
from tinyengine.stages.primitives.nest import Path, ScheduleError, at, fresh_buffer


def spill(kernel: Kernel, buf: str, loop: str) -> Kernel:
    """unroll i in 0..8: out[i] = f(acc[i])
       → local acc_tile[8]; unroll i in 0..8: acc_tile[i] = acc[i]
         for i in 0..8: out[i] = f(acc_tile[i])

    For long arithmetic after a sum: its code is written once, not once per register. It applies to the loops that only read
    the accumulator."""
    text = f"spill({buf}, at={loop})"
    targets = {s.buf for s in walk(kernel.body) if isinstance(s, Alloc) and s.buf.name == buf and s.buf.space == "register"}
    if not targets:
        raise ScheduleError(f"{text}: {kernel.name} keeps no {buf!r} in registers")
    local = fresh_buffer(kernel, f"{buf}_tile")

    def change(s: Loop, path: Path) -> list[Stmt] | None:
        touched = [a for a in accesses((s,)) if a.buf in targets]
        if not touched or any(p.reduce for p in path) or any(a.op != "read" for a in touched):
            return None
        source = touched[0].buf
        tile = Buf(local, source.dtype, source.shape, "local")
        memo: dict[Expr, Expr] = {}

        def moved(e: Expr) -> Expr | None:
            return load(tile, load_index(e), load_mask(e)) if e.op == "load" and e.arg == source else None

        after = _map(s, lambda e: map_expr(e, moved, memo))
        copies = replace(_copies(s, source, tile), kind="unroll")  # also where an earlier spill has made the loop a serial one
        return [Alloc(tile, None, s.nodes), copies, replace(after, kind="serial")]

    return at(kernel, loop, change, f"{text}: no loop {loop} reads the finished {buf}")


def _map(s: Loop, f: object) -> Loop:
    body = tuple(_map(x, f) if isinstance(x, Loop) else map_stmt(x, f) for x in s.body)  # type: ignore[arg-type]
    return replace(s, body=body)


def _copies(s: Loop, source: Buf, tile: Buf) -> Loop:
    """The loops of `s` with nothing in them but a copy of what they read of `source`; unrolled, as registers have no addresses
    (another accumulator may have left its own before, and these loops with it)."""
    out: list[Stmt] = []
    for x in s.body:
        if isinstance(x, Loop):
            inner = _copies(x, source, tile)
            out += [inner] if inner.body else []
            continue
        for e in dict.fromkeys(e for root in stmt_exprs(x) for e in subexprs(root) if e.op == "load" and e.arg == source):
            copy = Store(tile, load_index(e), e, load_mask(e), "", x.nodes)
            out += [copy] if copy not in out else []
    return replace(s, body=tuple(out), kind="unroll")
