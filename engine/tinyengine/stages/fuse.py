"""Stage 4, fuse: what is computed together, and where is each value kept?

Input: the simplified Graph. Output: a Fusion. For every value there are three answers (Halide's compute-at idea):
  inline    computed where it is used, once per use;
  at loop   computed once per iteration of an outer loop of its consumer, kept in a register or a cache-resident row;
  whole     stored whole in memory by a kernel, and read from there.
A value is judged after all its users: every use is known as (kernel, loops around it, index expressions), so that the number of
evaluations that inlining costs is counted, not guessed. Movement ops are never kept: views are index arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinyengine import hooks, units
from tinyengine.choices import AGAIN, DEFAULT, VERDICTS, Choices, word
from tinyengine.loopnest import Expr
from tinyengine.loopnest import index as number
from tinyengine.node import Graph, Node
from tinyengine.ops import ELEMENTWISE, OPS, SCATTER
from tinyengine.stages.fusion import across
from tinyengine.stages.fusion.blocks import in_rows, operand_row, operand_seconds
from tinyengine.stages.fusion.cost import TURNS, Costs, beside
from tinyengine.stages.fusion.groups import Fusion, Group, Scope, decision_text, scan_apart, scan_axis
from tinyengine.stages.fusion.uses import Uses
from tinyengine.stages.keys import edge_keys
from tinyengine.stages.specs.fusion import SPEC as SPEC
from tinyengine.stages.values import base, is_leaf, squeeze

if TYPE_CHECKING:
    from tinyengine.machine import Machine


class Fuser(Uses):
    """Judges the values of a graph, users before operands."""

    def __init__(self, graph: Graph, choices: Choices, machine: Machine) -> None:
        super().__init__(graph, Costs(graph, machine))
        self.choices = choices
        # value -> (consumer value, operand position)
        self.readers: dict[Node, list[tuple[Node, int]]] = {n: [] for n in graph.nodes}
        self.forced: dict[Node, str] = {}
        self.verdict: dict[Node, str] = {}
        self.chosen: dict[Node, str] = {}
        self.decisions: list[hooks.Decision] = []
        self.row_loops: dict[tuple[Node, tuple[Expr, ...], tuple[int, ...]], str] = {}  # see fusion.blocks.row_loop
        self.products_in: dict[Node, list[Node]] = {}  # see fusion.blocks.products_in
        self.leaves_at: dict[tuple[Node, tuple[Expr, ...]], list[tuple[Node, tuple[Expr, ...]]]] = {}  # see fusion.blocks.leaves

    def run(self) -> Fusion:
        for r in self.graph.roots:
            b = base(r)
            if b.op != "buffer":
                self.forced[b] = (
                    "it is a result of the program" if r.op != "contiguous" else "contiguous() asks for memory of its own"
                )
        for n in self.graph.nodes:
            if n.op == "contiguous" and base(n).op != "buffer":
                self.forced.setdefault(base(n), "contiguous() asks for memory of its own")
            elif n.op == "assign" or n.op in SCATTER:
                self.forced[n] = (
                    "it writes to existing memory" if n.op == "assign" else "its addresses depend on data, so it writes in place"
                )
            elif n.op == "gather" and base(n.src[0]).op != "buffer" and not self._found_in_place(n.src[0], 2 * n.size):
                self.forced.setdefault(base(n.src[0]), "its reader's addresses depend on data")
            if n.op == "assign":
                self.forced.pop(n.src[0], None)
            if _again(n):
                self.forced.setdefault(n, "it is computed again, as a whole, because that was chosen")
        self._link_readers()
        self.costs.expect(self.readers)
        self._find_choices()
        for n in reversed(self.graph.nodes):
            if n not in self.forced and is_leaf(n):
                continue
            if n in self.forced or not (n.is_movement or n.op == "contiguous"):
                self.decide(n)
            elif self.uses[n]:
                for scope, at in self.uses[n]:
                    self.push_view(n, scope, at)
        self._join_siblings()
        groups = self._ordered()
        return Fusion(self.graph, tuple(groups), self.stored, tuple(self.decisions), self.verdict, self.readers)

    def _found_in_place(self, table: Node, least: int) -> bool:
        """Whether an element of `table` follows from elements at its own place, and so few of them are read (one of `least`) that
        the others need not be computed; but storing a small one costs less than a kernel. Views that only name axes are looked
        through; others would calculate with a position that depends on data."""
        small = least and table.nbytes < self.costs.launch * self.costs.bandwidth
        if table.op not in ELEMENTWISE or table.size < least or small:
            return False
        for s in table.src:
            while s.op in ("expand", "permute") or (s.op == "reshape" and squeeze(s.shape) == squeeze(s.src[0].shape)):
                s = s.src[0]
            if not (s.op in ("buffer", "const", "iota", "size") or s.is_reduce or self._found_in_place(s, 0)):
                return False
        return True

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
                if a.merged_into is not None or b.merged_into is not None or a.space != b.space or a.products or b.products:
                    continue
                shared = sum(size for n, size in reads[a].items() if n in reads[b])
                if not shared or 4 * shared < min(sum(reads[a].values()), sum(reads[b].values())):
                    continue
                why = self.can_join(a, b)
                if not why:
                    self.join(a, b)
                    reads[a] |= reads[b]
                subject = tuple(self.graph.number[v] for v in (a.outputs[0], b.outputs[0]))
                text = why or "they read the same memory in the same loops"
                self.note("join", subject, "kept apart" if why else "joined", text, {"bytes_shared": shared})
                if not why:
                    break
        self._note_small({g: sum(r.values()) for g, r in reads.items() if g.merged_into is None and not g.products})

    def _note_small(self, read: Mapping[Group, int]) -> None:
        """Say of the kernels that take no longer than their launch what one launch for all of them would save (decision 20)."""
        most = self.costs.launch * self.costs.bandwidth
        small = [g for g, nbytes in read.items() if nbytes + sum(n.nbytes for n in g.outputs) <= most]
        if len(small) > 1:
            saved = (len(small) - 1) * self.costs.launch
            text = f"a kernel has loops of one space; one launch for all of these would save at most {units.seconds(saved)}"
            numbers = {"kernels": len(small), "seconds_saved": saved}
            self.note("join", tuple(self.graph.number[g.outputs[0]] for g in small), "kept apart", text, numbers)

    def can_join(self, a: Group, b: Group) -> str:
        """Empty when a and b may become one kernel, else why not."""
        why = super().can_join(a, b)
        if not why and across.seconds(self, a, across.reductions(self, b), across.rows(b)) > self.costs.launch:
            return across.WHY
        return why

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

    def _find_choices(self) -> None:
        """For every value the verdict that was chosen for an edge of it: a value is stored if any edge says whole."""
        asked = self.choices.fusion_by_word
        if not asked:
            return
        found: dict[str, int] = {}
        for n in self.graph.nodes:
            if (n.is_movement or n.op == "contiguous" or is_leaf(n)) and n not in self.forced:
                continue
            for key in map(word, edge_keys(n, self.readers[n])):
                if key in asked:
                    found[key] = found.get(key, 0) + 1
                    self.chosen[n] = max(asked[key], self.chosen.get(n, "inline"), key=VERDICTS.index)
        for name, verdict in self.choices.fusion.items():
            count = found.get(word(name), 0)
            why = f"{count} edge{'s' * (count != 1)} of this form" if count else "no edge of the program has this form"
            self.note("pin", (name,), verdict if count else "matches nothing", why, {"edges": count})

    def decide(self, n: Node) -> None:
        """Choose where `n` is kept, record one Decision per edge, and pass its needs on."""
        chosen = self.chosen.get(n)
        if n not in self.forced and not self.uses[n]:
            return  # only an assign's own target
        self._merge_uses(n)
        groups = self.groups_of(n)
        if len(groups) > 1 and n not in self.forced and chosen != "whole":
            groups = self._join_users(n, groups)
            self._merge_uses(n)
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
        numbers: dict[str, float] = (
            {"evaluations": self.evaluations(n), "elements": n.size} if self.uses[n] else {"elements": n.size}
        )
        for k, o in legal.items():
            numbers[f"seconds_{k.replace(' ', '_')}"] = o.seconds
            if k != verdict:
                reasons.setdefault(k, beside(o, legal.get(verdict)))
        self.verdict[n] = verdict
        if verdict != "whole":
            numbers |= self._saved(n, groups, verdict)
            if n in self.costs.anyway and "whole" in reasons:
                reasons["whole"] += "; what reads it was priced as if it were stored"
        place = ""
        if verdict == "whole":
            self._keep_whole(n, groups, apart=chosen == "whole" or _again(n))
        elif verdict == "at loop":
            g = groups[0]
            axes = self.at_loop(n, g)[0]
            assert axes is not None
            place = self._keep_at(n, g, axes)
        else:
            for g in groups:
                g.inlined.append(n)
                self._holds(g, n)
            for scope, at in self.uses[n]:
                self.push_operands(n, scope, at)
        num = self.graph.number
        for reader, _ in self.readers[n] or [(n, -1)]:
            subject = (num[n], num[reader]) if reader is not n else (num[n],)
            word = verdict if not place else f"{verdict} {place}"
            if verdict == "whole" and reader is not n and self._forwarded(n, reader):
                word = "whole, forwarded in a register"
            self.note("edge", subject, word, reason, numbers, reasons)

    def note(
        self,
        kind: str,
        subject: tuple[int | str, ...],
        verdict: str,
        reason: str,
        numbers: Mapping[str, float] | None = None,
        alternatives: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a decision. They are noted as they are made, and what they change is done by then (see `fusion.steps`)."""
        self.decisions.append(hooks.Decision("fuse", kind, subject, verdict, reason, numbers or {}, alternatives or {}))

    def _note_join(self, n: Node, joined: bool, reason: str) -> None:
        self.note("join", (self.graph.number[n],), "joined" if joined else "kept apart", reason)

    def _saved(self, n: Node, groups: list[Group], verdict: str) -> dict[str, float]:
        """What not storing `n` saves and costs: the bytes of one store and of one load per kernel that uses it; the FLOPs of `n`
        alone that are done again."""
        evaluations = self.evaluations(n)
        if verdict == "at loop":
            axes, row, _ = self.at_loop(n, groups[0])
            evaluations = row
            for a in axes or ():
                evaluations *= groups[0].space[a]
        flops = OPS[n.op].flops * (n.src[0].size // max(n.size, 1) if n.is_reduce else 1)
        return {"bytes_saved": n.nbytes * (1 + len(groups)), "flops_recomputed": flops * max(0, evaluations - n.size)}

    def _forwarded(self, n: Node, reader: Node) -> bool:
        g = self.stored.get(n)
        return g is not None and (self.stored.get(reader) is g or reader in self.find(g).inlined or reader in self.find(g).at)

    def _join_users(self, n: Node, groups: list[Group]) -> list[Group]:
        """Kernels of one space that all need `n` at their own index, or all once per iteration of the same loops, become one,
        so that n is computed once."""
        for i, b in enumerate(groups):
            mine = self._need(n, b)
            for a in groups[:i]:
                if mine is None or a.merged_into is not None or a.space != b.space or self._need(n, a) != mine:
                    continue
                why = self.can_join(a, b)
                if not why:
                    self.join(a, b)
                how = "at the same index" if mine == "own" else "in the same loops"
                self._note_join(n, not why, why or f"both need %{self.graph.number[n]} {how}")
                if not why:
                    break
        return self.groups_of(n)

    def _need(self, n: Node, g: Group) -> object:
        """How g needs `n`: "own" at its own index, the axes of g that fix it, or None where neither fits."""
        own = self.own_index(n, g)
        if all(at == own for s, at in self.uses[n] if self.find(s.group) is g):
            return "own"
        if any(s.contraction for s, _ in self.uses[n] if self.find(s.group) is g) and operand_row(self, n, g):
            return None
        axes, row, _ = self.at_loop(n, g, of=g)
        return (axes, row) if axes and row * n.dtype.itemsize <= self.costs.row_limit else None

    def _row_is_contiguous(self, n: Node, g: Group, axes: frozenset[int], row: int) -> bool:
        """Whether g computes all of `n`, what it does in one go is contiguous in memory; and n is not rather the epilogue of a
        product."""
        outer = 1
        for a in axes:
            outer *= g.space[a]
        if self.costs.is_contraction(n) or outer * row != n.size:
            return False
        fixed, space = sorted(axes), self.space_vars(g.space)
        lead = [{at[d] for s, at in self.uses[n] if self.find(s.group) is g} for d, extent in enumerate(n.shape) if extent != 1]
        if any(s.contraction for s, _ in self.uses[n] if self.find(s.group) is g):
            apart = operand_seconds(self, n, g) > n.nbytes / self.costs.bandwidth + self.costs.launch
        else:
            apart = bool(self.costs.products_below(n) and operand_row(self, n, g))
        return row == 1 or (not apart and lead[: len(fixed)] == [{space[a]} for a in fixed])

    def _keep_whole(self, n: Node, groups: list[Group], apart: bool) -> None:
        """Store `n` from a kernel that computes it anyway, or from one of its own; always the latter when it is to stand
        `apart`."""
        home: Group | None = None
        for g in () if apart else groups:
            need = self._need(n, g)
            own = need == "own"
            if not own and (not isinstance(need, tuple) or n in self.forced or not self._row_is_contiguous(n, g, *need)):
                continue
            if n.op in SCATTER or g.writes_by_data:
                self._note_join(n, False, "it writes to addresses that depend on data")
            elif n.is_scan and (not own or scan_apart(g, *scan_axis(n))):
                self._note_join(n, False, scan_apart(g, *scan_axis(n)) or "its elements come in another order than they are used")
            elif any(self.reaches(x, g) for x in groups if x is not g):
                self._note_join(n, False, "another reader of it must run before this kernel")
            elif why := self.costs.beside_scan(n, g):
                self._note_join(n, False, why)
            elif self.costs.is_contraction(n) and g.products and in_rows(self, n, g):
                self._note_join(n, False, in_rows(self, n, g))
            elif self.costs.gathers(n) and g.products:
                self._note_join(n, False, "the check of its data-dependent addresses would stand between the loops of a product")
            elif isinstance(need, tuple) and self.costs.turns(n, g, need[0]):
                self._note_join(n, False, TURNS)
            elif n.is_reduce and across.seconds(self, g, across.uses(self, n, g)) > self.costs.launch:
                self._note_join(n, False, across.WHY)
            elif own and not self._before_rows(n, g):
                home = g
                self._note_join(n, True, "it is stored from the kernel that needs it at the same index anyway")
                break
            else:
                # computed once per iteration of outer loops there: stored from there as well
                self._note_join(n, True, "it is stored from the kernel that computes it in an outer loop anyway")
                g.also_stored.append(n)
                self.stored[n] = g
                self.feeds[g] |= {x for x in groups if x is not g}
                self.uses[n] = [u for u in self.uses[n] if self.find(u[0].group) is g]
                axes = self.at_loop(n, g)[0]
                assert axes is not None
                self._keep_at(n, g, axes)
                return
        if home is None:
            home = self.new_group(squeeze(n.shape))
        home.outputs.append(n)
        self._holds(home, n)
        self.stored[n] = home
        self.feeds[home] |= {g for g in groups if g is not home}
        own_index = self.own_index(n, home)
        assert own_index is not None
        self.push_operands(n, self.roots[home], own_index)

    def _before_rows(self, n: Node, g: Group) -> bool:
        """Whether `n`, which g needs at its own index, is needed for a row that g keeps: it has to be there before the row, or
        each element of the row would compute it, and the sums below it, again."""
        inside = any(s.loops != self.space_vars(g.space) for s, _ in self.uses[n] if self.find(s.group) is g)
        return inside and any(g.rows.values()) and self.at_loop(n, g, of=g)[0] is not None

    def _holds(self, g: Group, n: Node) -> None:
        if self.costs.is_contraction(n) and n not in g.products:
            g.products.append(n)

    def _keep_at(self, n: Node, g: Group, axes: frozenset[int]) -> str:
        g.at[n] = axes
        self._holds(g, n)
        space = self.space_vars(g.space)
        axis_of = {v: d for d, v in enumerate(space)}
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
            elif len(seen) == 1 and v in axis_of and axis_of[v] in axes and v not in used and g.space[axis_of[v]] <= extent:
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


def _again(n: Node) -> bool:
    """Whether it is a value that is computed again for its gradient (see `stages.fusion.recompute`)."""
    return bool(n.origin) and n.origin[0].derivative == AGAIN


def run(graph: Graph, choices: Choices = DEFAULT, machine: Machine | None = None) -> tuple[Fusion, tuple[hooks.Decision, ...]]:
    """(fusion, decisions): pure; equal input gives equal output."""
    if machine is None:
        from tinyengine.machine import current

        machine = current()
    fusion = Fuser(graph, choices, machine).run()
    return fusion, fusion.decisions


__all__ = ["Fusion", "Group", "Scope", "decision_text", "run"]
