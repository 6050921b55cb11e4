"""Stage 5, loops: which loops, and which addresses?

Input: a Fusion. Output: one Nest per kernel: a LoopNest of scalar statements, one `Let` per graph node, and the value behind each
parameter. Views (reshape, permute, pad, window...) are gone: they have become index arithmetic and masks. A value that does not
change in
a loop is computed before it. Every access is proven in bounds here, or carries a mask or a Check; where none of these holds the
kernel
is refused with a SpecError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from tinyengine import dtypes, index, spec
from tinyengine import loopnest as ir
from tinyengine.extent import Extent
from tinyengine.hooks import Decision
from tinyengine.loopnest import Accumulate, Alloc, Buf, Check, Expr, Kernel, Let, Loop, Stmt, Store
from tinyengine.node import Node
from tinyengine.ops import ELEMENTWISE, REDUCE, SCAN, SCATTER
from tinyengine.size import Symbol
from tinyengine.spec import Sentence, SpecError
from tinyengine.stages.fuse import Fusion, Group
from tinyengine.stages.nests.merge import merge, sink
from tinyengine.stages.nests.reuse import reuse
from tinyengine.stages.nests.support import Support, open_conditions, union
from tinyengine.stages.record import OPERAND, RESULT
from tinyengine.stages.specs.nests import SPEC as NEST_SPEC
from tinyengine.stages.values import base, is_contraction


@dataclass(frozen=True)
class Nest:
    """`values[i]` is the value behind `kernel.params[i]`: a buffer node, a value that some kernel stores, or the variable
    (size.Symbol) whose value it holds.
    `in_place`: assign node -> name of the parameter that is its target's own memory. `decisions`: which loops became one."""

    kernel: Kernel
    values: tuple[Node | Symbol, ...]
    in_place: dict[Node, str]
    decisions: tuple[Decision, ...] = ()

    def text(self) -> str:
        return self.kernel.text()

    __repr__ = text


@dataclass
class _Block:
    loop: tuple[Expr, int, bool] | None  # variable, extent, reduce
    stmts: list[Stmt] = field(default_factory=list)
    memo: dict[tuple[Node, tuple[Expr, ...], Expr | None], Expr] = field(default_factory=dict)


# of the loop nest inside a Nest
SPEC: tuple[Sentence, ...] = tuple((sentence, lambda nest, f=f: f(nest.kernel)) for sentence, f in NEST_SPEC)  # type: ignore[misc]
SPACE_NAMES = "ijklmnpq"
ZERO_PRESERVING = ("mul", "add", "sub", "neg", "cast")  # 0 for operands that are 0; a product for any one of them
WILD = frozenset(("div", "reciprocal", "log", "exp", "exp2", "sqrt", "mod", "floordiv"))  # not finite for some finite operands


def _between(e: Expr, extent: int) -> Expr:
    """An index, or the nearest that there is."""
    first, last = (ir.const(k, e.dtype) for k in (0, extent - 1))
    return ir.apply("maximum", (first, ir.apply("minimum", (e, last))))


class _Builder:
    """Builds the body of one kernel by evaluating its outputs at symbolic indices."""

    def __init__(self, fusion: Fusion, group: Group, support: Support) -> None:
        self.fusion, self.group, self.support = fusion, group, support
        self.number = fusion.graph.number
        self.looked: tuple[Expr, ...] = ()  # where one of these is false, nobody looks at the value that is computed now
        self.blocks = [_Block(None)]
        self.depth: dict[Expr | str, int] = {}  # loop variable, let name or local buffer -> block that it lives in
        self.bufs: dict[Node, Buf] = {}
        self.kept: dict[Node, Expr | Buf] = {}
        self.carried: dict[Node, Buf] = {}  # of scans
        self.spans: dict[Expr, tuple[int, int]] = {}  # let name of an integer -> the least and the largest that it can be
        self.outside: dict[Expr, frozenset[Expr]] = {}
        self.touched: set[Expr] = set()  # values that come from a masked load: where the mask is false, from 0
        self.wild: set[Expr] = set()  # of these, those that may be infinite or NaN there
        self.sizes = fusion.graph.sizes()
        self.used: dict[str, int] = {s.name: 1 for s in self.sizes}
        self.loops = tuple(
            ir.var(self.unique(SPACE_NAMES[d] if d < len(SPACE_NAMES) else f"i{d}"), 0, max(n - 1, 0))
            for d, n in enumerate(group.space)
        )
        # what iterations stand for: a reversed scan begins at the end
        self.space = tuple(
            index.sub(ir.index(n - 1), v) if group.scan == (d, True) else v
            for d, (v, n) in enumerate(zip(self.loops, group.space, strict=True))
        )

    def own_index(self, n: Node) -> tuple[Expr, ...]:
        """The index of `n` that an iteration of the space stands for."""
        free = iter(self.space)
        return tuple(ir.index(0) if d == 1 else next(free) for d in n.shape)

    # -- names and blocks

    def unique(self, name: str) -> str:
        n = self.used.get(name, 0)
        self.used[name] = n + 1
        return name if n == 0 else f"{name}_{n}"

    def open(self, v: Expr, extent: int, reduce: bool = False) -> None:
        self.blocks.append(_Block((v, extent, reduce)))
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

    # -- memory

    def buffer(self, n: Node) -> Buf:
        """The parameter that holds value `n`."""
        if n not in self.bufs:
            name = getattr(n.arg, "name", "") if n.op == "buffer" else ""
            word = re.sub(r"\W+", "_", name).strip("_")  # schedules name buffers: identifiers only
            word = f"p{word}" if word[:1].isdigit() else word
            self.bufs[n] = Buf(self.unique(word or f"t{self.number[n]}"), n.dtype, tuple(map(int, n.shape)))
        return self.bufs[n]

    def read(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> Expr:
        if self.sizes and not index.proven(at, n.shape, mask):
            # where a size puts it outside nobody reads the value; memory outside is not touched all the same
            for e, extent in zip(at, n.shape, strict=True):
                for c in index.within(e, int(extent)):
                    mask = index.both(mask, c)
        if not index.proven(at, n.shape, mask):
            if mask is None or spec.enabled:
                sentence = "every access is in bounds, masked or checked"
                raise SpecError("loops", sentence, f"%{self.number[n]} {n!r} at [{', '.join(map(str, at))}]")
            # the mask holds what keeps it in bounds, in a form that `proven` does not see through
            at = tuple([_between(e, int(extent)) for e, extent in zip(at, n.shape, strict=True)])
        return ir.load(self.buffer(n), at, mask)

    # -- values

    def ev(self, n: Node, at: tuple[Expr, ...], mask: Expr | None = None) -> Expr:
        """The value of `n` at index `at`; where `mask` is false it may be anything, but no memory outside is touched."""
        if n.op == "const":
            return ir.const(n.arg, n.dtype)
        if mask is not None and self.in_memory(n) and index.proven(at, n.shape, None):
            mask = None  # safe to read everywhere
        for b in reversed(self.blocks):
            found = b.memo.get((n, at, mask))
            if found is not None:
                return found
        outside = self.looked
        if outside and (self.support.uses(n) > 1 or n in self.fusion.stored):
            self.looked = ()
        e, depth = self._compute(n, at, mask)
        self.looked = outside
        self.blocks[depth].memo[n, at, mask] = e
        return e

    def operands(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> tuple[Expr, ...]:
        """The operands of an elementwise `n`; of each it is noted where it makes no difference."""
        outside, out = self.looked, []
        for i, s in enumerate(n.src):
            self.looked = union(outside, self.support.needed(n, i, at))
            out.append(self.ev(s, at, mask))
        self.looked = outside
        return tuple(out)

    def _compute(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> tuple[Expr, int]:
        if self.in_memory(n):
            return self.masked(self.let(n, self.read(n, at, mask)), mask)
        kept = self.kept.get(n)
        if kept is not None:
            if isinstance(kept, Expr):
                return kept, self.depth[kept]
            row = tuple(at[d] for d in self.group.rows[n])
            if self.sizes and not index.proven(row, kept.shape, mask):
                for e, extent in zip(row, kept.shape, strict=True):
                    for c in index.within(e, extent):
                        mask = index.both(mask, c)
            return self.masked(self.let(n, ir.load(kept, row, mask)), mask)
        if n.op == "iota":
            return self.let(n, Expr("cast", n.dtype, 1, (at[n.arg],)))
        if n.op == "size":
            return self.let(n, Expr("cast", n.dtype, 1, (index.value(n.arg),)))
        if n.is_movement:
            below, conditions = index.pull(n, at)
            inner = mask
            own: Expr | None = None
            for c in conditions:
                if index.truth(c) is False:  # only padding is read
                    return ir.const(0, n.dtype), 0
                own = index.both(own, c)
                inner = index.both(inner, c)
            value = self.ev(n.src[0], below, inner)
            if own is None or self.zero_outside(value) >= set(index.conjuncts(inner)):
                return value, self.depth.get(value, 0)
            return self.derived(n, (value,), self.let(n, ir.apply("where", (own, value, ir.const(0, n.dtype)))))
        if n.op == "contiguous":
            value = self.ev(n.src[0], at, mask)
            return value, self.depth.get(value, 0)
        if n.op == "assign":
            value = self.ev(n.src[1], at, mask)
            return value, self.depth.get(value, 0)
        if n.is_reduce:
            return self._reduce(n, at, mask)
        if n.op == "gather":
            return self._gather(n, at, mask)
        assert n.op in ELEMENTWISE, n.op
        if n.op == "cast" and n.arg == OPERAND:
            whole = self._unrounded(n.src[0])
            if whole is not None:
                value = self.ev(whole, at, mask)
                return value, self.depth.get(value, 0)
        args = self._factors(n, at, mask) if n.op == "mul" and mask is not None else self.operands(n, at, mask)
        value, depth = self.derived(n, args, self.let(n, ir.apply(n.op, args, n.dtype)))
        if n.op in ZERO_PRESERVING:
            outside = [self.zero_outside(a) for a in args]
            zero = frozenset.intersection(*outside)
            if n.op == "mul":
                zero = zero.union(*(o for o, other in zip(outside, reversed(args), strict=True) if other not in self.wild))
            self.outside[value] = zero
        return value, depth

    def _factors(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> tuple[Expr, ...]:
        """The factors of a product. Where one is 0 outside the mask, another that may be read everywhere needs no mask."""
        for a, b in (n.src, n.src[::-1]):
            if not self._safe(b, at, None):
                continue
            first = self.ev(a, at, mask)
            covered = first not in self.wild and self.zero_outside(first) >= set(index.conjuncts(mask))
            second = self.ev(b, at, None if covered else mask)
            return (first, second) if a is n.src[0] else (second, first)
        return tuple(self.ev(s, at, mask) for s in n.src)

    def _safe(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> bool:
        """Whether `n` may be read at `at` where only `mask` holds."""
        if self.in_memory(n):
            return index.proven(at, n.shape, mask)
        if n in self.kept or n.is_reduce or n.op in ("gather", "assign", "contiguous", *SCAN, *SCATTER):
            return False
        if n.is_movement:
            at, conditions = index.pull(n, at)
            for c in conditions:
                mask = index.both(mask, c)
        return all(self._safe(s, at, mask) for s in n.src)

    def derived(self, n: Node, args: tuple[Expr, ...], made: tuple[Expr, int]) -> tuple[Expr, int]:
        """Note what `n` of these operands may be where masked loads gave 0."""
        if any(a in self.touched for a in args):
            self.touched.add(made[0])
            if n.op in WILD or any(a in self.wild for a in args):
                self.wild.add(made[0])
        return made

    def _unrounded(self, n: Node) -> Node | None:
        """The float32 that `n` is the rounded result of, in this kernel: between two ops nothing is rounded."""
        rounds = n.op == "cast" and n.arg == RESULT and n.src[0].dtype is dtypes.float32
        return n.src[0] if rounds and not self.in_memory(n) and n not in self.kept else None

    def in_memory(self, n: Node) -> bool:
        """Whether `n` is read from memory: given, or stored by another kernel."""
        home = self.fusion.stored.get(n)
        return n.op == "buffer" or (home is not None and home is not self.group)

    def masked(self, loaded: tuple[Expr, int], mask: Expr | None) -> tuple[Expr, int]:
        """Note that a load gives 0 where its mask is false."""
        self.outside[loaded[0]] = frozenset(index.conjuncts(mask))
        if mask is not None:
            self.touched.add(loaded[0])
        return loaded

    def zero_outside(self, value: Expr) -> frozenset[Expr]:
        """Conditions, each of which makes `value` 0 where it is false. (A product is 0 there for finite factors, which a factor
        is not that divides by a masked load.)"""
        return self.outside.get(value, frozenset())

    def _reduce(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> tuple[Expr, int]:
        src, num = n.src[0], (self.number[n],)
        init = {"sum": 0, "prod": 1, "max": n.dtype.min}[n.op]
        acc = Buf(self.unique(f"acc{num[0]}"), n.dtype, (), "register")
        self.depth[acc.name] = len(self.blocks) - 1
        self.blocks[-1].stmts.append(Alloc(acc, init, num))
        inner = list(at)
        loops = 0
        for a in n.arg:
            if src.shape[a] != 1:
                v = self.fresh("r", src.shape[a])
                self.open(v, src.shape[a], True)
                loops += 1
                inner[a] = v
        outside, self.looked = self.looked, ()
        value = self.ev(src, tuple(inner), mask)
        self.looked = outside
        beyond = [c for a in n.arg if isinstance(src.shape[a], Extent) for c in index.within(inner[a], src.shape[a])]
        counts: Expr | None = None
        for c in beyond:
            counts = index.both(counts, c)
        only: Expr | None = None
        for c in open_conditions(union(self.looked, self.support.idle(n, tuple(inner)))):
            only = index.both(only, c)
        self.blocks[-1].stmts.append(Accumulate(acc, (), REDUCE[n.op], value, counts, num, only))
        for _ in range(loops):
            self.close(num)
        result, depth = self.derived(n, (value,), self.let(n, ir.load(acc, ()), here=True))
        if n.op == "sum":
            own = {inner[a] for a in n.arg}
            self.outside[result] = frozenset(c for c in self.zero_outside(value) if not index.variables(c) & own)
        return result, depth

    def _guarded(self, n: Node, idx: Expr, extent: int, mask: Expr | None) -> Expr:
        """A data-dependent position: checked, counted from the end when negative, and clamped so that memory stays safe."""
        e = Expr("cast", ir.INDEX, 1, (idx,))
        low, high = self.span(idx)
        fits = extent - 1 <= idx.dtype.max
        near = Expr("cast", ir.INDEX, 1, (_between(idx, int(extent)),)) if fits else _between(e, int(extent))
        if low >= 0 and high < extent and not isinstance(extent, Extent):
            return near
        ok = ir.apply("and", (ir.apply("lt", (ir.index(-1), e)), ir.apply("lt", (e, index.value(extent)))))
        mask = index.both(mask, self.inside())
        if mask is not None:
            ok = ir.apply("or", (ok, ir.apply("eq", (mask, ir.const(False, dtypes.bool_)))))
        where = n.origin[0] if n.origin else "an unknown line"
        text = (getattr(where, "frames", ()) and f" at {where}: {where.frames[0].text}") or ""  # type: ignore[union-attr]
        message = f"index out of range in {n.op}: expected 0 <= index < {extent}{text}"
        block = self.blocks[self.home(ok)]
        block.stmts.append(Check(ok, message, (self.number[n],)))
        return near

    def _gather(self, n: Node, at: tuple[Expr, ...], mask: Expr | None) -> tuple[Expr, int]:
        table, idx = n.src
        position = self._guarded(n, self.ev(idx, at, mask), table.shape[n.arg], mask)
        value = self.ev(table, tuple(position if d == n.arg else e for d, e in enumerate(at)), mask)
        return value, self.depth.get(value, 0)

    # -- the kernel

    def build(self) -> tuple[tuple[Stmt, ...], list[Node]]:
        """The body, and the values it stores."""
        g = self.group
        if g.writes_by_data:
            self._scatter(g.outputs[0])
        else:
            self._nest(self._stores)
        return tuple(self.blocks[0].stmts), [*g.outputs, *g.also_stored]

    def _nest(self, innermost: Callable[[], None]) -> None:
        """Open the loops of the space in order, computing kept values where their loops are open."""
        g = self.group
        opened, scans = 0, sorted(g.scans, key=self.number.__getitem__)
        self._keep(0)
        for a in g.order:
            if opened + 1 == len(g.order):
                for n in scans:
                    self._total(n)
            self.open(self.loops[a], g.space[a])
            opened += 1
            self._keep(opened)
        for n in scans:
            self._scan(n)
        innermost()
        for _ in range(opened):
            self.close()

    def _total(self, n: Node) -> None:
        """The memory that carries a scan from one iteration to the next."""
        acc = self.carried[n] = Buf(self.unique(f"acc{self.number[n]}"), n.dtype, (), "register")
        self.depth[acc.name] = len(self.blocks) - 1
        self.blocks[-1].stmts.append(Alloc(acc, {"scan_add": 0, "scan_mul": 1, "scan_max": n.dtype.min}[n.op], (self.number[n],)))

    def _scan(self, n: Node) -> None:
        """Add this iteration's element of the scan `n`: the total is its value here."""
        value, acc, num = self.ev(n.src[0], self.own_index(n)), self.carried[n], (self.number[n],)
        self.blocks[-1].stmts.append(Accumulate(acc, (), SCAN[n.op], value, None, num))
        self.kept[n] = self.let(n, ir.load(acc, ()), here=True)[0]

    def _stores(self) -> None:
        values = [self.ev(n, self.own_index(n)) for n in self.group.outputs]
        for n, value in zip(self.group.outputs, values, strict=True):
            self.blocks[-1].stmts.append(Store(self.buffer(n), self.own_index(n), value, None, "", (self.number[n],)))

    def _keep(self, opened: int) -> None:
        g = self.group
        for n in g.at:
            if g.depth(n) != opened:
                continue
            rows = g.rows[n]
            at = self._own_index(n, rows)
            if not rows:
                e = self.ev(n, at)
                if e.op == "const":
                    e = self.let(n, e)[0]
                self.kept[n] = e
                self.depth.setdefault(e, 0)
                if n in g.also_stored:
                    self.blocks[-1].stmts.append(Store(self.buffer(n), at, e, None, "", (self.number[n],)))
                continue
            local = Buf(self.unique(f"row{self.number[n]}"), n.dtype, tuple(int(n.shape[d]) for d in rows), "local")
            self.blocks[-1].stmts.append(Alloc(local, None, (self.number[n],)))
            self.depth[local.name] = len(self.blocks) - 1
            inner = list(at)
            for d in rows:
                v = self.fresh("c", n.shape[d])
                self.open(v, n.shape[d])
                inner[d] = v
            value = self.ev(n, tuple(inner))
            self.blocks[-1].stmts.append(Store(local, tuple(inner[d] for d in rows), value, None, "", (self.number[n],)))
            if n in g.also_stored:
                self.blocks[-1].stmts.append(Store(self.buffer(n), tuple(inner), value, None, "", (self.number[n],)))
            for _ in rows:
                self.close()
            self.kept[n] = local

    def _own_index(self, n: Node, rows: Sequence[int]) -> tuple[Expr, ...]:
        axes = self.group.at_axes[n]
        return tuple(ir.index(0) if n.shape[d] == 1 or d in rows else self.space[axes[d]] for d in range(len(n.shape)))

    def _scatter(self, n: Node) -> None:
        out, (start, idx, values) = self.buffer(n), n.src

        def copy() -> None:
            at = self.own_index(n)
            self.blocks[-1].stmts.append(Store(out, at, self.ev(start, at), None, "", (self.number[n],)))

        self._nest(copy)
        at = tuple(ir.index(0) if d == 1 else self.fresh("s", d) for d in values.shape)
        opened = [(v, d) for v, d in zip(at, values.shape, strict=True) if d != 1]
        for v, d in opened:
            self.open(v, d)
        position = self._guarded(n, self.ev(idx, at), n.shape[n.arg], None)
        target = tuple(position if d == n.arg else e for d, e in enumerate(at))
        value = self.ev(values, at)
        self.blocks[-1].stmts.append(Accumulate(out, target, SCATTER[n.op], value, self.inside(), (self.number[n],)))
        for _ in opened:
            self.close()


def _flat_views(body: tuple[Stmt, ...], bufs: dict[Node, Buf]) -> tuple[tuple[Stmt, ...], dict[Node, Buf]]:
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


def kernel_label(g: Group) -> str:
    """A short name from what the kernel does: its product, its reductions, else its last op; and the shape of its result."""
    words: list[str] = []
    for v in g.values:
        if is_contraction(v):
            below = [v.src[0]]
            for _ in range(8):
                below += [s for s in below[-1].src[:1]]
                if not below[-1].src:
                    break
            windows = any(n.op in ("window", "place") for n in below)
            words.insert(0, "conv" if windows else "matmul")
        elif (v.is_reduce or v.is_scan) and v.op not in words:
            words.append(v.op)
    for v in g.outputs:
        b = base(v.src[1]) if v.op == "assign" else v
        word = "assign" if v.op == "assign" else b.op
        if word not in words and not b.is_reduce:
            words.append(word)
    shape = "x".join(str(d) for d in g.space if d != 1) or "scalar"
    return "_".join([*words[:3], shape])


def build(fusion: Fusion, group: Group, name: str, support: Support) -> Nest:
    """The loop nest of one kernel."""
    b = _Builder(fusion, group, support)
    body, outputs = b.build()
    in_place: dict[Node, str] = {}
    for n in outputs:
        if n.op == "assign" and not _reads_elsewhere(body, b.bufs.get(n.src[0]), b.own_index(n)):
            # the target's own memory takes the result: one parameter for both
            old, new = b.bufs.pop(n), b.buffer(n.src[0])
            body = _rename_output(body, old, new)
            in_place[n] = new.name
    decisions: list[Decision] = []
    body, bufs = _flat_views(reuse(sink(merge(body, name, decisions))), b.bufs)
    stored = {bufs[n.src[0]].name if n in in_place else bufs[n].name for n in outputs}
    ordered = sorted(bufs, key=lambda n: (bufs[n].name in stored, b.number[n]))
    sizes = _sizes(body, b.sizes)
    params = (*sizes, *(bufs[n] for n in ordered))
    kernel = Kernel(name, params, body, tuple(bufs[n].name for n in ordered if bufs[n].name in stored))
    return Nest(kernel, (*sizes.values(), *ordered), in_place, tuple(decisions))


def _sizes(body: tuple[Stmt, ...], known: Iterable[Symbol]) -> dict[Buf, Symbol]:
    """The memory of the variables that a body reads."""
    if not known:
        return {}
    read = {x.arg for s in ir.walk(body) for e in _all_exprs(s) for x in ir.subexprs(e) if ir.is_size(x)}
    return {b: s for s in known for b in (ir.size(s).arg,) if b in read}


def _all_exprs(s: Stmt) -> tuple[Expr, ...]:
    return s.ends if isinstance(s, Loop) else ir.stmt_exprs(s)


def _reads_elsewhere(body: tuple[Stmt, ...], buf: Buf | None, at: tuple[Expr, ...]) -> bool:
    """Whether the kernel reads `buf` at another index than the one it writes in the same iteration."""
    if buf is None:
        return False
    return any(
        x.op == "load" and x.arg == buf and ir.load_index(x) != at
        for s in ir.walk(body)
        for e in ir.stmt_exprs(s)
        for x in ir.subexprs(e)
    )


def _rename_output(body: tuple[Stmt, ...], old: Buf, new: Buf) -> tuple[Stmt, ...]:
    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(visit, s.body)))
        if isinstance(s, Store) and s.buf == old:
            return Store(new, s.index, s.value, s.mask, s.hint, s.nodes)
        return s

    return tuple(map(visit, body))


def run(fusion: Fusion) -> tuple[Nest, ...]:
    """One Nest per group, with names that are unique in the program. Kernels of empty results are left out."""
    out: list[Nest] = []
    support = Support(fusion.graph)
    names: dict[str, int] = {}
    for g in fusion.groups:
        if 0 in g.space:
            continue
        label = kernel_label(g)
        names[label] = names.get(label, 0) + 1
        out.append(build(fusion, g, label if names[label] == 1 else f"{label}_{names[label]}", support))
    return tuple(out)
