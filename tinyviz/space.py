"""The iteration space of a kernel as data: its loops, and every address as arithmetic on their variables, in postfix."""

from __future__ import annotations

from typing import Any

from tinyviz import wire

MOST_TOKENS = 160  # of one index; more than that is not exported
_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "lt": "<", "eq": "=", "and": "&", "or": "|",
    "maximum": "max", "minimum": "min", "neg": "neg",
}  # fmt: skip


def space(kernel: Any) -> wire.Space:
    """Of a `tinyengine.loopnest.Kernel` before scheduling; lines are those of its text."""
    from tinyengine.loopnest import (
        Accumulate,
        Alloc,
        Let,
        Loop,
        Store,
        kernel_lines,
        load_index,
        load_mask,
        stmt_exprs,
        subexprs,
        walk,
    )

    out = wire.Space([], [], [])
    line = {id(s): i for i, (_, s) in enumerate(kernel_lines(kernel)) if s is not None}
    lets = {s.name: s.value for s in walk(kernel.body) if isinstance(s, Let)}
    own = [s.buf for s in walk(kernel.body) if isinstance(s, Alloc) and s.buf.space == "local"]
    place: dict[str, int] = {}
    for b in (*kernel.params, *own):
        if b.name not in place:
            place[b.name] = len(out.operands)
            out.operands.append(wire.Operand(b.name, b.dtype.name, list(b.shape), b.space == "local"))
    seen: set[tuple[Any, ...]] = set()

    def text(e: Any) -> str:
        tokens: list[str] = []
        return " ".join(tokens) if _postfix(e, lets, tokens) else "?"

    def access(s: Any, buf: Any, index: Any, mask: Any, write: bool, around: list[int]) -> None:
        if buf.name not in place:
            return
        made = wire.Access(
            place[buf.name], write, line[id(s)], list(around), [text(i) for i in index], "" if mask is None else text(mask)
        )
        key = (made.operand, write, tuple(made.loops), tuple(made.index), made.mask)
        if key not in seen:
            seen.add(key)
            out.accesses.append(made)

    def visit(body: Any, around: list[int]) -> None:
        for s in body:
            if isinstance(s, Loop):
                number = len(out.loops)
                parent = around[-1] if around else -1
                out.loops.append(wire.SpaceLoop(s.name, s.start, s.stop, s.step, s.reduce, parent, line[id(s)]))
                visit(s.body, [*around, number])
                continue
            for e in stmt_exprs(s):
                for x in subexprs(e):
                    if x.op == "load":
                        access(s, x.arg, load_index(x), load_mask(x), False, around)
            if isinstance(s, (Store, Accumulate)):
                access(s, s.buf, s.index, s.mask, True, around)

    visit(kernel.body, [])
    return out


def _postfix(e: Any, lets: dict[str, Any], out: list[str]) -> bool:
    """Append `e` in postfix; False where it depends on data, or grows too long."""
    if len(out) > MOST_TOKENS:
        return False
    if e.op == "const":
        out.append(str(int(e.arg)))
        return not isinstance(e.arg, float)
    if e.op == "var":
        out.append(e.arg[0])
        return True
    if e.op == "name":
        return e.arg in lets and _postfix(lets[e.arg], lets, out)
    if e.op == "cast" and not e.dtype.is_float:
        return _postfix(e.args[0], lets, out)
    if e.op not in _SIGNS or e.dtype.is_float or not all(_postfix(a, lets, out) for a in e.args):
        return False
    out.append(_SIGNS[e.op])
    return True
