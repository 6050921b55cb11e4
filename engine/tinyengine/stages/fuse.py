"""Stage 4, fuse: what is computed together, and where is each value kept?

Input: the simplified Graph. Output: a Fusion. For every value there are three answers (Halide's compute-at idea):
  inline    computed where it is used, once per use;
  at loop   computed once per iteration of an outer loop of its consumer, kept in a register or a cache-resident row;
  whole     stored whole in memory by a kernel, and read from there.
A value is judged after all its users: every use is known as (kernel, loops around it, index expressions), so that the number of
evaluations that inlining costs is counted, not guessed. Movement ops are never kept: views are index arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine import hooks, index
from tinyengine.choices import DEFAULT, Choices
from tinyengine.loopnest import Expr, var
from tinyengine.loopnest import index as number
from tinyengine.node import Graph, Node, Shape
from tinyengine.stages.fuse_cost import Costs, is_contraction
from tinyengine.stages.fuse_groups import Fusion, Group, Scope, decision_text
from tinyengine.stages.values import base, is_leaf, value_key

if TYPE_CHECKING:
    from tinyengine.machine import Machine

MAX_USES = 64  # distinct uses of one value after which it is stored without counting further


Use = tuple[Scope, tuple[Expr, ...]]


class _Fuser:
    def __init__(self, graph: Graph, choices: Choices, machine: Machine) -> None:
        self.graph, self.choices = graph, choices
        self.costs = Costs(machine)
        self.uses: dict[Node, list[Use]] = {n: [] for n in graph.nodes}
        self.readers: dict[Node, list[tuple[Node, int]]] = {n: [] for n in graph.nodes}  # value -> (consumer value, operand position)
        self.forced: dict[Node, str] = {}
        self.stored: dict[Node, Group] = {}
        self.verdict: dict[Node, str] = {}
        self.feeds: dict[Group, set[Group]] = {}  # group -> groups that read what it stores
        self.decisions: list[hooks.Decision] = []
        self.counter = 0
        self._spaces: dict[Group, tuple[Expr, ...]] = {}
        self._roots: dict[Group, Scope] = {}

    # -- groups

    def space_vars(self, space: Shape) -> tuple[Expr, ...]:
        """The same variables for the same shape, so that equal uses in two kernels are identical expressions."""
        return tuple(number(0) if n == 1 else var(f"i{d}", 0, max(n - 1, 0)) for d, n in enumerate(space))

    def new_group(self, space: Shape) -> Group:
        g = Group(space)
        self.feeds[g] = set()
        trips = 1
        for n in space:
            trips *= n
        self._spaces[g] = self.space_vars(space)
        self._roots[g] = Scope(g, tuple(v for v in self._spaces[g] if v.op == "var"), trips)
        return g

    def find(self, g: Group) -> Group:
        while g.merged_into is not None:
            g = g.merged_into
        return g

    def reaches(self, a: Group, b: Group) -> bool:
        """Whether b reads, directly or through other kernels, what a stores."""
        seen, stack = {a}, [a]
        while stack:
            for g in {self.find(x) for x in self.feeds[stack.pop()]}:
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
        if a.writes_by_data or b.writes_by_data:
            return "one of them writes to addresses that depend on data"
        if self.reaches(a, b) or self.reaches(b, a):
            return "one waits for the other's stored result"
        if a.contraction and b.contraction and a.contraction is not b.contraction:
            return "a kernel holds one matrix product or convolution"
        if not self._chain([*a.at.values(), *b.at.values()]):
            return "their outer loops do not nest"
        return ""

    def join(self, a: Group, b: Group) -> None:
        a.outputs += b.outputs
        a.also_stored += b.also_stored
        a.at |= b.at
        a.rows |= b.rows
        a.at_axes |= b.at_axes
        a.inlined += [v for v in b.inlined if v not in a.inlined]
        a.contraction = a.contraction or b.contraction
        b.merged_into = a
        self.feeds[a] |= self.feeds[b]
        for v in [*b.outputs, *b.also_stored]:
            self.stored[v] = a

    @staticmethod
    def _chain(sets: list[frozenset[int]]) -> bool:
        ordered = sorted(sets, key=len)
        return all(x <= y for x, y in zip(ordered, ordered[1:], strict=False))

    # -- uses

    def push(self, n: Node, scope: Scope, at: tuple[Expr, ...]) -> None:
        """Record that `n` is needed at index `at` inside `scope`."""
        uses = self.uses[n]
        if len(uses) < MAX_USES and (scope, at) not in uses:
            uses.append((scope, at))

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
            self.push(src, Scope(scope.group, tuple(loops), trips, scope.contraction or is_contraction(n)), tuple(inner))
        elif n.op == "gather":
            self.push(n.src[1], scope, at)
            self.push(n.src[0], scope, tuple(self.fresh(d) if i == n.arg else e for i, (e, d) in enumerate(zip(at, n.src[0].shape, strict=True))))
        elif n.op == "scatter_add":
            self.push(n.src[0], scope, at)
            values = n.src[2]
            inner_at = tuple(number(0) if d == 1 else self.fresh(d) for d in values.shape)
            inner = Scope(scope.group, tuple(v for v in inner_at if v.op == "var"), max(values.size, 1))
            self.push(n.src[1], inner, inner_at)
            self.push(values, inner, inner_at)
        elif n.op == "assign":
            self.push(n.src[1], scope, at)
        elif n.is_movement:
            self.push(n.src[0], scope, index.pull(n, at)[0])
        else:
            for s in n.src:
                self.push(s, scope, at)

    def fresh(self, extent: int) -> Expr:
        self.counter += 1
        return var(f"r{self.counter}", 0, max(extent - 1, 0))

    # -- the pass

    def run(self) -> Fusion:
        for r in self.graph.roots:
            b = base(r)
            if b.op != "buffer":
                self.forced[b] = "it is a result of the program" if r.op != "contiguous" else "contiguous() asks for memory of its own"
        for n in self.graph.nodes:
            if n.op == "contiguous" and base(n).op != "buffer":
                self.forced.setdefault(base(n), "contiguous() asks for memory of its own")
            elif n.op in ("assign", "scatter_add"):
                self.forced[n] = "it writes to existing memory" if n.op == "assign" else "its addresses depend on data, so it writes in place"
            elif n.op == "gather" and base(n.src[0]).op != "buffer":
                self.forced.setdefault(base(n.src[0]), "its reader's addresses depend on data")
            if n.op == "assign":
                self.forced.pop(n.src[0], None)
        self._link_readers()
        for n in reversed(self.graph.nodes):
            if n not in self.forced and is_leaf(n):
                continue
            if n in self.forced or not (n.is_movement or n.op == "contiguous"):
                self.decide(n)
            elif self.uses[n]:
                for scope, at in self.uses[n]:
                    self.push(n.src[0], scope, index.pull(n, at)[0] if n.is_movement else at)
        self._join_siblings()
        groups = self._ordered()
        return Fusion(self.graph, tuple(groups), self.stored, tuple(self.decisions), self.verdict)

    def _join_siblings(self) -> None:
        """Kernels of one space that read the same memory become one kernel, so that it is read once. A decision of its own."""
        reads: dict[Group, dict[Node, int]] = {}
        for n in self.graph.nodes:
            if n.op == "buffer" or n in self.stored:
                for g in self.groups_of(n):
                    if self.stored.get(n) is not g:
                        reads.setdefault(g, {})[n] = n.nbytes
        groups = [g for g in reads if g.merged_into is None]
        for i, b in enumerate(groups):
            for a in groups[:i]:
                if a.merged_into is not None or b.merged_into is not None or a.space != b.space or a.contraction or b.contraction:
                    continue
                shared = sum(size for n, size in reads[a].items() if n in reads[b])
                if not shared or 4 * shared < min(sum(reads[a].values()), sum(reads[b].values())):
                    continue
                why = self.can_join(a, b)
                if not why:
                    self.join(a, b)
                    reads[a] |= reads[b]
                subject = tuple(self.graph.number[v] for v in (a.outputs[0], b.outputs[0]))
                text = "they read the same memory in the same loops" if not why else why
                self.decisions.append(hooks.Decision("fuse", "join", subject, "kept apart" if why else "joined", text, {"bytes_shared": shared}))
                if not why:
                    break

    def _link_readers(self) -> None:
        """For every kept-or-computed value: the values that read it, seen through movement."""
        through: dict[Node, set[Node]] = {}  # movement node -> values beneath it
        for n in self.graph.nodes:
            kept = n in self.forced
            if (n.is_movement or n.op == "contiguous") and not kept:
                s = n.src[0]
                through[n] = through.get(s, {s})
            else:
                for pos, s in enumerate(n.src):
                    if not (n.op == "assign" and pos == 0):
                        for v in through.get(s, {s}):
                            self.readers[v].append((n, pos))

    def groups_of(self, n: Node) -> list[Group]:
        out: list[Group] = []
        for scope, _ in self.uses[n]:
            g = self.find(scope.group)
            if g not in out:
                out.append(g)
        return out

    def evaluations(self, n: Node) -> int:
        """How often `n` is evaluated when it is inlined at every use; equal uses in one kernel count once."""
        seen = {(id(self.find(s.group)), s.loops, at): s.trips for s, at in self.uses[n]}
        return sum(seen.values())

    def at_loop(self, n: Node, g: Group, of: Group | None = None) -> tuple[frozenset[int] | None, int, str]:
        """(axes of g's space that stay open, elements of the local row, why not): where n would be computed once in kernel g.
        `of`: look only at the uses of that kernel."""
        if g.writes_by_data:
            return None, 1, "its reader writes to addresses that depend on data"
        axis_of = {v: d for d, v in enumerate(self.space_vars(g.space)) if v.op == "var"}
        fixed: set[int] = set()
        row = 1
        for d, extent in enumerate(n.shape):
            if extent == 1:
                continue
            seen = {at[d] for s, at in self.uses[n] if of is None or self.find(s.group) is of}
            if len(seen) == 1 and next(iter(seen)) in axis_of and axis_of[next(iter(seen))] not in fixed:
                fixed.add(axis_of[next(iter(seen))])
            else:
                row *= extent
        axes = frozenset(fixed)
        if not self._chain([*g.at.values(), axes]):
            return None, row, "the loops it depends on do not nest with those of another kept value"
        if len(self.uses[n]) >= MAX_USES:
            return None, row, "it is used in too many different ways"
        return axes, row, ""

    def decide(self, n: Node) -> None:
        """Choose where `n` is kept, record one Decision per edge, and pass its needs on."""
        chosen = self.choices.fusion.get(value_key(n)) if self.choices.fusion else None
        if n not in self.forced and not self.uses[n]:
            return  # only an assign's own target
        groups = self.groups_of(n)
        joined: list[tuple[str, bool]] = []
        if len(groups) > 1 and n not in self.forced and chosen != "whole":
            groups = self._join_users(n, groups, joined)
        options = self.costs.options(n, self, groups) if n not in self.forced else {}
        reasons = {k: o.refused for k, o in options.items() if o.refused}
        legal = {k: o for k, o in options.items() if not o.refused}
        if n in self.forced:
            verdict, reason = "whole", self.forced[n]
        elif chosen is not None and (chosen in legal or chosen == "whole"):
            verdict, reason = chosen, "chosen by hand"
        else:
            verdict = min(legal, key=lambda k: (legal[k].seconds, ("inline", "at loop", "whole").index(k)))
            reason = legal[verdict].reason
            if chosen is not None:
                reasons[chosen] = f"chosen by hand, but not legal: {reasons.get(chosen, 'unknown verdict')}"
        numbers: dict[str, float] = {"evaluations": self.evaluations(n), "elements": n.size} if self.uses[n] else {"elements": n.size}
        for k, o in options.items():
            if not o.refused:
                numbers[f"seconds_{k.replace(' ', '_')}"] = o.seconds
                if k != verdict:
                    reasons.setdefault(k, f"predicted {o.seconds * 1e6:.3g} us against {legal[verdict].seconds * 1e6:.3g} us: {o.reason}" if verdict in legal else o.reason)
        self.verdict[n] = verdict
        place = ""
        if verdict == "whole":
            self._keep_whole(n, groups, joined)
        elif verdict == "at loop":
            g = groups[0]
            axes = self.at_loop(n, g)[0]
            assert axes is not None
            place = self._keep_at(n, g, axes)
        else:
            for g in groups:
                g.inlined.append(n)
                if is_contraction(n):
                    g.contraction = n
            for scope, at in self.uses[n]:
                self.push_operands(n, scope, at)
        num = self.graph.number
        for reader, _ in self.readers[n] or [(n, -1)]:
            subject = (num[n], num[reader]) if reader is not n else (num[n],)
            word = verdict if not place else f"{verdict} {place}"
            if verdict == "whole" and reader is not n and self._forwarded(n, reader):
                word = "whole, forwarded in a register"
            self.decisions.append(hooks.Decision("fuse", "edge", subject, word, reason, numbers, reasons))
        for text, ok in joined:
            self.decisions.append(hooks.Decision("fuse", "join", (num[n],), "joined" if ok else "kept apart", text))

    def _forwarded(self, n: Node, reader: Node) -> bool:
        g = self.stored.get(n)
        return g is not None and (self.stored.get(reader) is g or any(reader in x.inlined or reader in x.at for x in [self.find(g)]))

    def _join_users(self, n: Node, groups: list[Group], notes: list[tuple[str, bool]]) -> list[Group]:
        """Kernels of one space that all need `n` at their own index, or all once per iteration of the same loops, become one kernel,
        so that n is computed once."""
        for i, b in enumerate(groups):
            mine = self._need(n, b)
            for a in groups[:i]:
                if mine is None or a.merged_into is not None or a.space != b.space or self._need(n, a) != mine:
                    continue
                why = self.can_join(a, b)
                if not why:
                    self.join(a, b)
                notes.append((f"both need %{self.graph.number[n]} " + ("at the same index" if mine == "own" else "in the same loops") if not why else why, not why))
                if not why:
                    break
        return self.groups_of(n)

    def _need(self, n: Node, g: Group) -> object:
        """How g needs `n`: "own" at its own index, the axes of g that fix it, or None where neither fits."""
        if all(at == self.space_vars(g.space) for s, at in self.uses[n] if self.find(s.group) is g):
            return "own"
        if any(s.contraction for s, _ in self.uses[n] if self.find(s.group) is g):
            return None
        axes, row, _ = self.at_loop(n, g, of=g)
        return (axes, row) if axes and row * n.dtype.itemsize <= self.costs.row_limit else None

    def _keep_whole(self, n: Node, groups: list[Group], notes: list[tuple[str, bool]]) -> None:
        home: Group | None = None
        for g in groups:
            need = self._need(n, g)
            own = need == "own" and g.space == n.shape
            if not own and (not isinstance(need, tuple) or n in self.forced or is_contraction(n) or need[1] > 1):
                continue
            if n.op == "scatter_add" or g.writes_by_data:
                notes.append(("it writes to addresses that depend on data", False))
            elif any(self.reaches(x, g) for x in groups if x is not g):
                notes.append(("another reader of it must run before this kernel", False))
            elif is_contraction(n) and g.contraction is not None:
                notes.append(("a kernel holds one matrix product or convolution", False))
            elif own:
                home = g
                notes.append(("it is stored from the kernel that needs it at the same index anyway", True))
                break
            else:
                # computed once per iteration of outer loops there: stored from there as well
                notes.append(("it is stored from the kernel that computes it in an outer loop anyway", True))
                g.also_stored.append(n)
                self.stored[n] = g
                self.feeds[g] |= {x for x in groups if x is not g}
                self.uses[n] = [u for u in self.uses[n] if self.find(u[0].group) is g]
                axes = self.at_loop(n, g)[0]
                assert axes is not None
                self._keep_at(n, g, axes)
                return
        if home is None:
            home = self.new_group(n.shape)
        home.outputs.append(n)
        if is_contraction(n):
            home.contraction = n
        self.stored[n] = home
        self.feeds[home] |= {g for g in groups if g is not home}
        self.push_operands(n, self._roots[home], self._spaces[home])

    def _keep_at(self, n: Node, g: Group, axes: frozenset[int]) -> str:
        g.at[n] = axes
        if is_contraction(n):
            g.contraction = n
        space = self.space_vars(g.space)
        axis_of = {v: d for d, v in enumerate(space) if v.op == "var"}
        at: list[Expr] = []
        loops = [space[a] for a in sorted(axes)]
        trips = 1
        for a in axes:
            trips *= g.space[a]
        used: set[Expr] = set()
        rows: list[int] = []
        for d, extent in enumerate(n.shape):
            seen = {u[d] for _, u in self.uses[n]}
            v = next(iter(seen))
            if extent == 1:
                at.append(number(0))
            elif len(seen) == 1 and v in axis_of and axis_of[v] in axes and v not in used:
                at.append(v)
                used.add(v)
            else:
                v = self.fresh(extent)
                at.append(v)
                loops.append(v)
                rows.append(d)
                trips *= extent
        g.rows[n] = tuple(rows)
        g.at_axes[n] = tuple(axis_of.get(v, -1) for v in at)
        self.push_operands(n, Scope(g, tuple(loops), trips), tuple(at))
        names = [f"i{a}" for a in sorted(axes)]
        return ", ".join(names) if names else "(before all loops)"

    def _ordered(self) -> list[Group]:
        """Producers before readers; otherwise in the order of the graph."""
        groups: list[Group] = []
        for n in self.graph.nodes:
            if n in self.stored:
                g = self.stored[n] = self.find(self.stored[n])
                if g not in groups:
                    groups.append(g)
        reads: dict[Group, set[Group]] = {g: set() for g in groups}
        for g in self.feeds:
            for r in self.feeds[g]:
                a, b = self.find(g), self.find(r)
                if a is not b:
                    reads[b].add(a)
        out: list[Group] = []
        done: set[Group] = set()

        def visit(g: Group) -> None:
            if g in done:
                return
            done.add(g)
            for p in sorted(reads[g], key=groups.index):
                visit(p)
            out.append(g)

        for g in groups:
            visit(g)
        number_of = self.graph.number
        for g in out:
            g.outputs.sort(key=number_of.__getitem__)
            g.at = dict(sorted(g.at.items(), key=lambda kv: number_of[kv[0]]))
        return out


def run(graph: Graph, choices: Choices = DEFAULT, machine: Machine | None = None) -> tuple[Fusion, tuple[hooks.Decision, ...]]:
    """(fusion, decisions): pure; equal input gives equal output."""
    if machine is None:
        from tinyengine.machine import current

        machine = current()
    fusion = _Fuser(graph, choices, machine).run()
    return fusion, fusion.decisions


__all__ = ["Fusion", "Group", "Scope", "decision_text", "run"]
