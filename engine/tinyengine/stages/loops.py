"""Stage 5, loops: which loops, and which addresses?

Input: a Fusion. Output: one Nest per kernel: a LoopNest of scalar statements, one `Let` per graph node, and the value behind
each parameter. Views (reshape, permute, pad, window...) are gone: they have become index arithmetic and masks
(nests/values.py). A value that does not change in a loop is computed before it. Every access is proven in bounds here, or
carries a mask or a Check; where none of these holds the kernel is refused with a SpecError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tinyengine import index
from tinyengine import loopnest as ir
from tinyengine.hooks import Decision
from tinyengine.loopnest import Accumulate, Alloc, Buf, Expr, Kernel, Loop, Stmt, Store
from tinyengine.node import Node
from tinyengine.ops import SCAN, SCATTER
from tinyengine.size import Symbol
from tinyengine.spec import Sentence
from tinyengine.stages.fuse import Fusion, Group
from tinyengine.stages.nests.merge import merge, sink
from tinyengine.stages.nests.reuse import reuse
from tinyengine.stages.nests.support import Support
from tinyengine.stages.nests.values import Values
from tinyengine.stages.nests.views import flat_views
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


# of the loop nest inside a Nest
SPEC: tuple[Sentence, ...] = tuple((sentence, lambda nest, f=f: f(nest.kernel)) for sentence, f in NEST_SPEC)  # type: ignore[misc]
SPACE_NAMES = "ijklmnpq"


class _Builder(Values):
    """Builds the body of one kernel by evaluating its outputs at symbolic indices."""

    def __init__(self, fusion: Fusion, group: Group, support: Support) -> None:
        super().__init__(fusion, group, support)
        self.carried: dict[Node, Buf] = {}  # of scans
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
        inside, nodes, joined = self.inside(), (self.number[n],), SCATTER[n.op]
        self.blocks[-1].stmts.append(
            Accumulate(out, target, joined, value, inside, nodes) if joined else Store(out, target, value, inside, "", nodes)
        )
        for _ in opened:
            self.close()

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
    body, bufs = flat_views(reuse(sink(merge(body, name, decisions))), b.bufs)
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
