"""The bookkeeping of `fuse`: which kernel uses which value, in which loops and at which index."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from tinyengine import index
from tinyengine.choices import AGAIN, ON_THE_WAY
from tinyengine.loopnest import Expr, var
from tinyengine.loopnest import index as number
from tinyengine.node import Graph, Node, Shape
from tinyengine.ops import SCATTER
from tinyengine.stages.fusion.blocks import block_loops
from tinyengine.stages.fusion.groups import Group, Scope, scan_apart
from tinyengine.stages.values import squeeze

if TYPE_CHECKING:
    from tinyengine.stages.fusion.cost import Costs

Use = tuple[Scope, tuple[Expr, ...]]


def _repeats(g: Group) -> bool:
    """Whether it holds a value that is computed again for its gradient (see `stages.fusion.recompute`)."""
    return any(v.origin and v.origin[0].derivative in (AGAIN, ON_THE_WAY) for v in g.values)


class Uses:
    """Groups, and for every value its uses; each value's needs are recorded when it has been decided."""

    MAX_USES = 64  # distinct uses of one value after which it is stored without counting further

    def __init__(self, graph: Graph, costs: Costs) -> None:
        self.graph, self.costs = graph, costs
        self.uses: dict[Node, list[Use]] = {n: [] for n in graph.nodes}
        self.stored: dict[Node, Group] = {}
        self.feeds: dict[Group, set[Group]] = {}  # group -> groups that read what it stores
        self.counter = 0
        self._spaces: dict[Shape, tuple[Expr, ...]] = {}
        self._pulled: dict[tuple[Node, tuple[Expr, ...]], tuple[tuple[Expr, ...], list[Expr]]] = {}
        self.roots: dict[Group, Scope] = {}

    # -- groups

    def space_vars(self, space: Shape) -> tuple[Expr, ...]:
        """The same variables for the same space, so that equal uses in two kernels are identical expressions."""
        found = self._spaces.get(space)
        if found is None:
            found = self._spaces[space] = tuple([var(f"i{d}", 0, max(n - 1, 0)) for d, n in enumerate(space)])
        return found

    def own_index(self, n: Node, g: Group) -> tuple[Expr, ...] | None:
        """The index of `n` that an iteration of g stands for; None where n is of another space."""
        if squeeze(n.shape) != g.space:
            return None
        free = iter(self.space_vars(g.space))
        return tuple(number(0) if d == 1 else next(free) for d in n.shape)

    def new_group(self, space: Shape) -> Group:
        g = Group(space)
        self.feeds[g] = set()
        trips = 1
        for n in space:
            trips *= n
        self.roots[g] = Scope(g, self.space_vars(space), trips)
        return g

    def find(self, g: Group) -> Group:
        while g.merged_into is not None:
            g = g.merged_into
        return g

    def reaches(self, a: Group, b: Group) -> bool:
        """Whether b reads, directly or through other kernels, what a stores."""
        seen, stack = {a}, [a]
        while stack:
            for g in self.feeds[stack.pop()]:
                while g.merged_into is not None:  # `find`, asked some hundred thousand times
                    g = g.merged_into
                if g is b:
                    return True
                if g not in seen:
                    seen.add(g)
                    stack.append(g)
        return False

    def can_join(self, a: Group, b: Group) -> str:
        """Empty when a and b may become one kernel, else why not."""
        if a.space != b.space:
            return "their iteration spaces differ"
        if _repeats(a) != _repeats(b) and not all(v.phase != "forward" for g in (a, b) for v in g.outputs):
            return "one computes again what the other need not keep"
        if a.writes_by_data or b.writes_by_data:
            return "one of them writes to addresses that depend on data"
        if self.reaches(a, b) or self.reaches(b, a):
            return "one waits for the other's stored result"
        if a.products and b.products and a.products != b.products:
            return "a kernel holds one matrix product or convolution"
        if not self._chain([*a.at.values(), *b.at.values()]):
            return "their outer loops do not nest"
        for one, other in ((a, b), (b, a)):
            if one.scan is not None and (why := scan_apart(other, *one.scan)):
                return why
        return ""

    def join(self, a: Group, b: Group) -> None:
        a.outputs += b.outputs
        a.also_stored += b.also_stored
        a.at |= b.at
        a.rows |= b.rows
        a.at_axes |= b.at_axes
        a.inlined += [v for v in b.inlined if v not in a.inlined]
        a.products = a.products or b.products
        b.merged_into = a
        self.feeds[a] |= self.feeds[b]
        for v in [*b.outputs, *b.also_stored]:
            self.stored[v] = a

    @staticmethod
    def _chain(sets: list[frozenset[int]]) -> bool:
        ordered = sorted(sets, key=len)
        return all(x <= y for x, y in pairwise(ordered))

    # -- uses

    def push(self, n: Node, scope: Scope, at: tuple[Expr, ...]) -> None:
        """Record that `n` is needed at index `at` inside `scope`."""
        uses = self.uses[n]
        if len(uses) < self.MAX_USES and (scope, at) not in uses:
            uses.append((scope, at))

    def pull(self, n: Node, at: tuple[Expr, ...]) -> tuple[tuple[Expr, ...], list[Expr]]:
        """`index.pull`. Several values ask it of one view."""
        found = self._pulled.get((n, at))
        if found is None:
            found = self._pulled[n, at] = index.pull(n, at)
        return found

    def push_view(self, n: Node, scope: Scope, at: tuple[Expr, ...]) -> None:
        """Record the need of a view's operand; where the view is 0 the operand is not evaluated."""
        if n.is_movement:
            at, conditions = self.pull(n, at)
            if conditions:
                scope = Scope(scope.group, scope.loops, -(-scope.trips * n.src[0].size // max(n.size, 1)), scope.contraction)
        self.push(n.src[0], scope, at)

    def push_operands(self, n: Node, scope: Scope, at: tuple[Expr, ...]) -> None:
        """Record the needs of computing `n` at `at`."""
        if n.is_reduce:
            src = n.src[0]
            inner, trips, loops = list(at), scope.trips, list(scope.loops)
            for a in n.arg:
                if src.shape[a] > 1:
                    v = self.fresh(src.shape[a])
                    inner[a], trips = v, trips * src.shape[a]
                    loops.append(v)
            contraction = scope.contraction or self.costs.is_contraction(n)
            self.push(src, Scope(scope.group, tuple(loops), trips, contraction), tuple(inner))
        elif n.op == "gather":
            self.push(n.src[1], scope, at)
            table = n.src[0]
            self.push(table, scope, tuple(self.fresh(table.shape[i]) if i == n.arg else e for i, e in enumerate(at)))
        elif n.op in SCATTER:
            self.push(n.src[0], scope, at)
            values = n.src[2]
            each = tuple(number(0) if d == 1 else self.fresh(d) for d in values.shape)
            over = Scope(scope.group, tuple(v for v in each if v.op == "var"), max(values.size, 1))
            self.push(n.src[1], over, each)
            self.push(values, over, each)
        elif n.op == "assign":
            self.push(n.src[1], scope, at)
        elif n.is_movement:
            self.push_view(n, scope, at)
        else:
            for s in n.src:
                self.push(s, scope, at)

    def fresh(self, extent: int) -> Expr:
        self.counter += 1
        return var(f"r{self.counter}", 0, max(extent - 1, 0))

    # -- questions

    def groups_of(self, n: Node) -> list[Group]:
        out: list[Group] = []
        for scope, _ in self.uses[n]:
            g = self.find(scope.group)
            if g not in out:
                out.append(g)
        return out

    def _merge_uses(self, n: Node) -> None:
        """Uses at one index in the same loops of one kernel are one use: kernels may have been joined since they were
        recorded."""
        self.uses[n] = list({(id(self.find(s.group)), s.loops, at): (s, at) for s, at in self.uses[n]}.values())

    def evaluations(self, n: Node) -> int:
        """How often `n` is evaluated when it is inlined at every use. Where a view is 0 a load is left out; the loops of a
        reduction run all the same."""
        return sum(prod(v.arg[2] + 1 for v in s.loops) if n.is_reduce else s.trips for s, _ in self.uses[n])

    def at_loop(self, n: Node, g: Group, of: Group | None = None) -> tuple[frozenset[int] | None, int, str]:
        """(axes of g's space that stay open, elements of the local row, why not): where n would be computed once in kernel g.
        `of`: look only at the uses of that kernel."""
        if g.writes_by_data:
            return None, 1, "its reader writes to addresses that depend on data"
        axis_of = {v: d for d, v in enumerate(self.space_vars(g.space))}
        fixed: set[int] = set()
        row = 1
        for d, extent in enumerate(n.shape):
            if extent == 1:
                continue
            seen = {at[d] for s, at in self.uses[n] if of is None or self.find(s.group) is of}
            axis = axis_of.get(next(iter(seen))) if len(seen) == 1 else None
            if axis is not None and axis not in fixed and g.space[axis] <= extent:  # more iterations than elements: padding
                fixed.add(axis)
            else:
                row *= extent
        axes = frozenset(fixed)
        if g.scan is not None and g.scan[0] in axes:
            return None, row, "the loop of a scan is the innermost one"
        if not self._chain([*g.at.values(), axes]):
            return None, row, "the loops it depends on do not nest with those of another kept value"
        if axes < block_loops(g) and (row > 1 or n.is_reduce):
            return None, row, "a loop would stand beside the rows of the kernel's products, which run in blocks"
        if len(self.uses[n]) >= self.MAX_USES:
            return None, row, "it is used in too many different ways"
        return axes, row, ""
