"""Rule: a named rewrite with the reason why it is allowed. `rewrite`: the one driver, which applies rules to a fixed point."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyengine import hooks
from tinyengine.node import Graph, Node, toposort
from tinyengine.origin import Origin, unite

Build = Callable[[Node], Node | None]
Observe = Callable[[hooks.RuleApplied], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern`: the ops at which it may fire; `build`: the replacement, or None where it does not apply (new nodes need no
    origin: the driver gives them the origins of the nodes that they stand for).
    `name` is kebab-case English, `reason` one sentence of at most 90 characters that says why it is allowed.
    `sole`: it repeats the work of its first operand, so it fires only where nothing else uses that operand."""

    name: str
    reason: str
    pattern: tuple[str, ...]
    build: Build
    sole: bool = False

    def __post_init__(self) -> None:
        if len(self.reason) > 90 or not self.reason:
            raise ValueError(f"rule {self.name}: the reason must have 1 to 90 characters, has {len(self.reason)}")


MERGE = Rule("merge-equal", "Two nodes with the same op, operands and argument have the same value.", (), lambda n: None)

# What two tensors asked for separately they must get separately: each `contiguous` owns its memory.
_NEVER_MERGED = frozenset({"contiguous"})
_COMMUTES = frozenset({"add", "mul", "maximum", "minimum", "eq", "and", "or", "xor"})
_SOURCES = frozenset({"const", "buffer", "iota", "size"})


class RewriteError(RuntimeError):
    """The rules did not come to rest, or a rule changed the dtype or shape of a value."""


def rewrite(
    graph: Graph,
    rules: Sequence[Rule],
    stage: str,
    merge: bool = True,
    limit: int = 64,
    observe: Observe | None = None,
    first: int = 0,
    most: int | None = None,
) -> tuple[Graph, int]:
    """Apply `rules` bottom-up until nothing fires; returns (new graph, number of firings).

    Deterministic: the same graph gives the same firings in the same order. Each firing goes to `observe`, by default to the
    subscribers of the hooks; they are numbered from `first`. Equal nodes become one (`merge`). Origins: a new node gets those of
    the node it replaces and of the operands it
    absorbs; a merged node those of both. Raises RewriteError when rules build on their own results more than `limit` deep, or
    when a rule changes a value's dtype or shape. `most`: after so many firings (counted from 0) nothing fires any more."""
    driver = _Driver(graph, rules, stage, merge, limit, observe, first, most)
    return driver.run(graph)[0], driver.fired - first


def rewrite_map(
    graph: Graph, rules: Sequence[Rule], stage: str, observe: Observe | None = None, first: int = 0, most: int | None = None
) -> tuple[Graph, dict[Node, Node], int]:
    """`rewrite` with what became of each node of `graph` in the middle: input node -> output node; nodes of which nothing is left
    are missing."""
    driver = _Driver(graph, rules, stage, True, 64, observe, first, most)
    return *driver.run(graph), driver.fired - first


class _Driver:
    def __init__(
        self,
        graph: Graph,
        rules: Sequence[Rule],
        stage: str,
        merge: bool,
        limit: int,
        observe: Observe | None,
        first: int,
        most: int | None,
    ) -> None:
        self.stage, self.merge, self.limit, self.fired = stage, merge, limit, first
        self.most = sys.maxsize if most is None else most
        self.observe = observe or (hooks.publish if hooks.watching else None)
        self.table: dict[str, list[Rule]] = {}
        for r in rules:
            for op in r.pattern:
                self.table.setdefault(op, []).append(r)
        self.final: dict[Node, Node] = {}  # every node met -> its final form; final forms lead to themselves
        self.unique: dict[Any, Node] = {}
        self.united: dict[Node, list[tuple[Origin, ...]]] = {}  # final node -> origins of the nodes that became it
        self.uses: dict[Node, int] = dict.fromkeys(graph.roots, 1)  # a root is used from outside
        if any(r.sole for r in rules):
            for n in graph.nodes:
                for s in n.src:
                    self.uses[s] = self.uses.get(s, 0) + 1

    def run(self, graph: Graph) -> tuple[Graph, dict[Node, Node]]:
        final, uses = self.final, self.uses
        for n in graph.nodes:
            m = final[n] = self.settle(n, 0)
            if m is not n and n in uses:
                uses[m] = uses.get(m, 0) + uses[n]
        out, new = _with_origins(Graph(final[r] for r in graph.roots), self.united)
        return out, {n: new[final[n]] for n in graph.nodes if final[n] in new}

    def resolve(self, root: Node, origin: tuple[Origin, ...], depth: int) -> Node:
        """The final form of what a rule built; its new nodes get `origin` where they have none."""
        if depth > self.limit:
            raise RewriteError(f"the rules of {self.stage} build on their own results more than {self.limit} deep at {root!r}")
        final = self.final
        stack = [root]
        while stack:
            n = stack[-1]
            missing = [] if n in final else [s for s in n.src if s not in final]
            if missing:
                stack += missing[::-1]
                continue
            stack.pop()
            if n not in final:
                final[n] = self.settle(n if n.origin else n._replace(origin=origin), depth)
        return final[root]

    def settle(self, n: Node, depth: int) -> Node:
        """The final form of a node whose operands have one."""
        final = self.final
        for s in n.src:
            if final[s] is not s:
                n = n._replace(src=tuple([final[s] for s in n.src]))
                break
        if self.fired >= self.most:
            final[n] = n
            return n
        observe = self.observe
        began = time.perf_counter() if observe else 0.0
        for rule in self.table.get(n.op, ()):
            new = rule.build(n)
            if new is None or new is n or (rule.sole and self.uses.get(n.src[0], 0) > 1):
                continue
            if new.dtype is not n.dtype or new.shape != n.shape:
                raise RewriteError(f"rule {rule.name} changed {n.dtype}{n.shape} into {new.dtype}{new.shape}")
            known = new in final
            origin = n.origin
            if not known:
                origin = new.origin
                for absorbed in (n.origin, *_absorbed(n, new, final)):
                    origin = unite(origin, absorbed) if origin else absorbed
                new = new._replace(origin=origin)
            self.fire(rule, n, new, began)
            m = self.resolve(new, origin, depth + 1)
            if known:
                self.united.setdefault(m, []).append(n.origin)
            return m
        if self.merge and n.op not in _NEVER_MERGED:
            # -0.0 and 0.0 are equal as numbers but not as constants; a Buffer is equal only to itself
            src = n.src if n.op not in _COMMUTES or id(n.src[0]) <= id(n.src[1]) else n.src[::-1]
            key = (n.op, n.dtype, n.shape, src, repr(n.arg) if n.op == "const" else n.arg)
            old = self.unique.setdefault(key, n)
            if old is not n:
                self.united.setdefault(old, []).append(n.origin)
                self.fire(MERGE, n, old, began)
                return old
        final[n] = n
        return n

    def fire(self, rule: Rule, before: Node, after: Node, began: float) -> None:
        if self.observe:
            seconds = time.perf_counter() - began
            self.observe(hooks.RuleApplied(self.stage, rule.name, rule.reason, self.fired, before, after, seconds))
        self.fired += 1


def _absorbed(before: Node, after: Node, final: Mapping[Node, Node]) -> list[tuple[Origin, ...]]:
    """The origins of those operands of `before` (two levels deep) that stand no longer in `after`: it does their work too."""
    kept: set[Node] = set()
    stack = [after]
    while stack:
        n = stack.pop()
        for s in n.src:
            kept.add(s)
            if s not in final:
                stack.append(s)
    out = []
    for s in before.src:
        if s not in kept and s.op not in _SOURCES:
            out.append(s.origin)
            out += [t.origin for t in s.src if t not in kept and t.op not in _SOURCES]
    return out


def _with_origins(graph: Graph, united: Mapping[Node, list[tuple[Origin, ...]]]) -> tuple[Graph, dict[Node, Node]]:
    """The graph with the origins that merging united, and old node -> new node; only nodes at and above a change are made
    anew."""
    new: dict[Node, Node] = {}
    changed = False
    for n in graph.nodes:
        origin = unite(n.origin, *united[n]) if n in united else n.origin
        if origin is not n.origin or (changed and any([new[s] is not s for s in n.src])):
            new[n] = n._replace(src=tuple([new[s] for s in n.src]), origin=origin)
            changed = True
        else:
            new[n] = n
    return Graph(new[r] for r in graph.roots) if changed else graph, new


__all__ = ["MERGE", "RewriteError", "Rule", "rewrite", "rewrite_map", "toposort"]
