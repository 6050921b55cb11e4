"""The blocks of a loop nest under construction: which loops are open, and where a value of theirs is bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tinyengine import index
from tinyengine import loopnest as ir
from tinyengine.extent import Extent
from tinyengine.loopnest import Expr, Let, Loop, Stmt
from tinyengine.node import Node
from tinyengine.size import Symbol


@dataclass
class Block:
    """The statements of an open loop, or of the kernel, and the values that are there."""

    loop: tuple[Expr, int, bool] | None  # variable, extent, reduce
    stmts: list[Stmt] = field(default_factory=list)
    memo: dict[tuple[Node, tuple[Expr, ...], Expr | None], Expr] = field(default_factory=dict)


class Blocks:
    """Statements go into the innermost block, values into the outermost that has everything they need."""

    def __init__(self, number: Mapping[Node, int], sizes: Iterable[Symbol]) -> None:
        self.number = number
        self.blocks = [Block(None)]
        self.depth: dict[Expr | str, int] = {}  # loop variable, let name or local buffer -> block that it lives in
        self.spans: dict[Expr, tuple[int, int]] = {}  # let name of an integer -> the least and the largest that it can be
        self.used: dict[str, int] = {s.name: 1 for s in sizes}

    def unique(self, name: str) -> str:
        n = self.used.get(name, 0)
        self.used[name] = n + 1
        return name if n == 0 else f"{name}_{n}"

    def open(self, v: Expr, extent: int, reduce: bool = False) -> None:
        self.blocks.append(Block((v, extent, reduce)))
        self.depth[v] = len(self.blocks) - 1

    def close(self, nodes: tuple[int, ...] = ()) -> None:
        b = self.blocks.pop()
        assert b.loop is not None
        v, extent, reduce = b.loop
        limit = index.value(extent) if isinstance(extent, Extent) else None
        self.blocks[-1].stmts.append(Loop(v, 0, int(extent), 1, tuple(b.stmts), "serial", reduce, nodes, limit))

    def inside(self, conditions: Sequence[Expr] = ()) -> Expr | None:
        """Whether the open loops are all within their symbolic extents (and `conditions` hold); None where they always are.
        Values beyond are computed now and then, as nobody reads them; what has an effect must be left out there."""
        out: Expr | None = None
        for b in self.blocks:
            if b.loop is not None and isinstance(b.loop[1], Extent):
                for c in index.within(b.loop[0], b.loop[1]):
                    out = index.both(out, c)
        for c in conditions:
            out = index.both(out, c)
        return out

    def fresh(self, letter: str, extent: int) -> Expr:
        return ir.var(self.unique(letter), 0, max(extent - 1, 0))

    def home(self, e: Expr) -> int:
        """The outermost block in which everything that `e` needs is there."""
        d = 0
        for x in ir.subexprs(e):
            if x.op in ("var", "name"):
                d = max(d, self.depth[x])
            elif x.op == "load":
                d = max(d, self.depth.get(x.arg.name, 0))
        return d

    def let(self, n: Node, value: Expr, label: str = "v", here: bool = False) -> tuple[Expr, int]:
        """Bind `value`; returns the reference and its block."""
        if value.op in ("const", "name"):
            return value, self.depth.get(value, 0)
        at = len(self.blocks) - 1 if here else self.home(value)
        name = ir.name(self.unique(f"{label}{self.number[n]}"), value.dtype, value.lanes)
        self.blocks[at].stmts.append(Let(name.arg, value, (self.number[n],)))
        self.depth[name] = at
        if value.dtype.is_int:
            self.spans[name] = self.span(value)
        return name, at

    def span(self, e: Expr) -> tuple[int, int]:
        """The least and the largest that the integer `e` can be."""
        if e.op == "name" or not all(a.dtype.is_int or a.dtype.kind == "bool" for a in e.args):
            return self.spans.get(e, (e.dtype.min, e.dtype.max))
        if e.op == "where":
            ends = [self.span(a) for a in e.args[1:]]
            return min(a for a, _ in ends), max(b for _, b in ends)
        if e.op == "shr" and e.args[1].op == "const":
            low, high = (x >> e.args[1].arg for x in self.span(e.args[0]))
        elif e.op in ("cast", "add", "sub", "mul", "minimum", "maximum") and all(a.dtype.is_int for a in e.args):
            args = tuple([ir.var(f"arg{i}", *self.span(a)) for i, a in enumerate(e.args)])
            low, high = index.bounds(Expr(e.op, ir.INDEX, 1, args))
        else:
            low, high = index.bounds(e) if e.op in ("const", "var") else (e.dtype.min, e.dtype.max)
        return (low, high) if e.dtype.min <= low and high <= e.dtype.max else (e.dtype.min, e.dtype.max)
