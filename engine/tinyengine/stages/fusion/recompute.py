"""Activations that are computed again for their gradient instead of being kept until then, where somebody chose that.

A value of the forward pass that the backward pass reads stays in memory in between. Computed again from what stays there anyway,
just before it is read, it leaves that memory free meanwhile, for arithmetic. (Griewank & Walther, "Algorithm 799: Revolve", 2000;
Chen et al., "Training deep nets with sublinear memory cost", 2016.) This is the last step of `simplify`: the readers in the
backward pass get copies of the nodes, and merging must not see them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tinyengine.choices import AGAIN, ON_THE_WAY, RECOMPUTE, Choices, word
from tinyengine.hooks import Decision, RuleApplied
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node
from tinyengine.ops import SCATTER
from tinyengine.rules import Observe, Rule
from tinyengine.stages import fuse
from tinyengine.stages.keys import edge_key
from tinyengine.stages.values import base, is_leaf

RULE = Rule("compute-again", "The same operations on the same operands give the same value again.", (), lambda n: None)
RULES = (RULE,)


def again(n: Node) -> bool:
    """Whether `n` is such a copy, or lies below one."""
    return bool(n.origin) and n.origin[0].derivative in (AGAIN, ON_THE_WAY)


def candidates(fusion: fuse.Fusion) -> dict[Node, str]:
    """Value -> why it cannot be computed again, or "": for every value of the forward pass that is stored and that the gradient
    reads."""
    results = {base(r) for r in fusion.graph.roots}
    out: dict[Node, str] = {}
    copied = {n.origin[0].forward for n in fusion.graph.nodes if again(n)}  # the gradient reads a copy of them already
    for n in fusion.graph.nodes:
        if fusion.verdicts.get(n) != "whole" or n.phase != "forward" or again(n):
            continue
        if n not in copied and not any(r.phase != "forward" for r, _ in fusion.readers[n]):
            continue
        forced = "it is a result of the program" if n in results else ""
        out[n] = forced or ("it writes to memory" if n.op in ("assign", *SCATTER) else "")
    return out


def names(values: Iterable[Node]) -> dict[Node, str]:
    """The name of each of these values for a pin: "maximum 90c1fe3a77", or where several have one form "maximum 90c1fe3a77.0",
    "maximum 90c1fe3a77.1" and so on, in their order; the name without the number stands for all of them."""
    forms: dict[str, list[Node]] = {}
    for n in values:
        forms.setdefault(edge_key(n, n, -1), []).append(n)
    return {n: f"{form}.{i}" if len(same) > 1 else form for form, same in forms.items() for i, n in enumerate(same)}


@dataclass
class _Copies:
    """The copies of `chosen`, made of what stays in memory (`kept`), and made when first asked for."""

    chosen: set[Node]
    kept: set[Node]
    of: dict[Node, Node] = field(default_factory=dict)
    reaches: dict[Node, bool] = field(default_factory=dict)

    def copy(self, n: Node) -> Node:
        """`n` computed again."""
        stack = [n]
        while stack:
            m = stack[-1]
            todo = [s for s in m.src if s not in self.of and not self._stays(s)]
            if todo:
                stack += todo
                continue
            stack.pop()
            if m not in self.of:
                what = AGAIN if m in self.chosen else ON_THE_WAY
                origin = tuple(o._replace(phase="backward", forward=m, derivative=what) for o in m.origin)
                self.of[m] = m._replace(src=tuple([s if self._stays(s) else self.of[s] for s in m.src]), origin=origin)
        return self.of[n]

    def _stays(self, n: Node) -> bool:
        """Whether it is there anyway: given, stored, or a view of what is."""
        while n.is_movement and n not in self.kept:
            n = n.src[0]
        return is_leaf(n) or n in self.kept

    def read(self, n: Node) -> Node:
        """The operand `n` of a reader in the backward pass, with copies in the place of what was chosen, also behind views."""
        if n in self.chosen:
            return self.copy(n)
        if not (n.is_movement or n.op == "contiguous") or not self._leads(n):
            return n
        if n not in self.of:
            self.of[n] = n._replace(src=(self.read(n.src[0]), *n.src[1:]))
        return self.of[n]

    def _leads(self, n: Node) -> bool:
        """Whether a view is one of a chosen value."""
        seen = []
        while n not in self.reaches and (n.is_movement or n.op == "contiguous"):
            seen.append(n)
            n = n.src[0]
        found = self.reaches.get(n, n in self.chosen)
        for m in seen:
            self.reaches[m] = found
        return found


def run(
    graph: Graph,
    choices: Choices,
    machine: Machine,
    observe: Observe | None = None,
    first: int = 0,
    most: int | None = None,
) -> tuple[Graph, tuple[Decision, ...]]:
    """(the graph in which the gradient reads copies of the values in `choices.recompute`, a Decision for each of them and for
    each name). `observe`, `first`, `most`: as in `rules.rewrite`; a firing is a reader that gets other operands."""
    fusion, _ = fuse.run(graph, replace(choices, recompute=()), machine)
    possible = candidates(fusion)
    words = {n: {word(name), word(name).partition(".")[0]} for n, name in names(possible).items()}
    asked = {word(name): name for name in choices.recompute}
    meant = {n for n, mine in words.items() if not mine.isdisjoint(asked)}
    chosen = {n for n in meant if not possible[n]}
    decisions = [_decision(graph, n, possible[n]) for n in possible if n in meant]
    for w, name in asked.items():
        count = sum(w in words[n] for n in meant)
        why = f"{count} value{'s' * (count != 1)} of this form" if count else "no value that the gradient reads has this form"
        verdict = RECOMPUTE if count else "matches nothing"
        decisions.append(Decision("simplify", "pin", (name,), verdict, why, {"values": count}))
    copies = _Copies(chosen, {n for n, v in fusion.verdicts.items() if v == "whole"} - chosen)
    new: dict[Node, Node] = {}
    fired = first
    for n in graph.nodes:
        src = tuple([new[s] for s in n.src])
        m = n if src == n.src else n._replace(src=src)
        if n.phase != "forward" and not n.is_movement and n.op != "contiguous" and (most is None or fired < most):
            # operands that changed are of the backward pass themselves, so they lead to nothing that was chosen
            read = tuple([copies.read(s) if s is t else t for s, t in zip(n.src, src, strict=True)])
            if read != src:
                after = m._replace(src=read)
                if observe is not None:
                    observe(RuleApplied("simplify", RULE.name, RULE.reason, fired, m, after))
                fired += 1
                m = after
        new[n] = m
    return Graph(new[r] for r in graph.roots), tuple(decisions)


def _decision(graph: Graph, n: Node, refused: str) -> Decision:
    """By number of `graph`; the caller knows those of the result."""
    reason = f"chosen by hand, but {refused}" if refused else "chosen by hand: computed again where its gradient needs it"
    verdict = "kept" if refused else RECOMPUTE
    return Decision("simplify", RECOMPUTE, (graph.number[n],), verdict, reason, {"bytes": float(n.nbytes)})
