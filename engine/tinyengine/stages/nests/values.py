"""The value of a node at an index, as statements: views become index arithmetic and masks, a value is bound where it does not
change."""

from __future__ import annotations

import re

from tinyengine import dtypes, index, spec
from tinyengine import loopnest as ir
from tinyengine.extent import Extent
from tinyengine.loopnest import Accumulate, Alloc, Buf, Check, Expr
from tinyengine.node import Node
from tinyengine.ops import ELEMENTWISE, REDUCE, SCAN, SCATTER
from tinyengine.spec import SpecError
from tinyengine.stages.fusion.groups import Fusion, Group
from tinyengine.stages.nests.blocks import Blocks
from tinyengine.stages.nests.support import Support, open_conditions, union
from tinyengine.stages.record import OPERAND, RESULT

ZERO_PRESERVING = ("mul", "add", "sub", "neg", "cast")  # 0 for operands that are 0; a product for any one of them
WILD = frozenset(("div", "reciprocal", "log", "exp", "exp2", "sqrt", "mod", "floordiv"))  # not finite for some finite operands


def _between(e: Expr, extent: int) -> Expr:
    """An index, or the nearest that there is."""
    first, last = (ir.const(k, e.dtype) for k in (0, extent - 1))
    return ir.apply("maximum", (first, ir.apply("minimum", (e, last))))


class Values(Blocks):
    """Evaluates nodes at symbolic indices, for one kernel."""

    def __init__(self, fusion: Fusion, group: Group, support: Support) -> None:
        self.sizes = fusion.graph.sizes()
        super().__init__(fusion.graph.number, self.sizes)
        self.fusion, self.group, self.support = fusion, group, support
        self.looked: tuple[Expr, ...] = ()  # where one of these is false, nobody looks at the value that is computed now
        self.bufs: dict[Node, Buf] = {}
        self.kept: dict[Node, Expr | Buf] = {}
        self.outside: dict[Expr, frozenset[Expr]] = {}
        self.touched: set[Expr] = set()  # values that come from a masked load: where the mask is false, from 0
        self.wild: set[Expr] = set()  # of these, those that may be infinite or NaN there

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
            if value == ir.const(True, dtypes.bool_):
                return self.let(n, own)
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
