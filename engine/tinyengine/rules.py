"""Rule: a named rewrite with the reason why it is allowed. `rewrite`: the one driver that applies rules to a graph, to a fixed point."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyengine import hooks
from tinyengine.node import Graph, Node, toposort
from tinyengine.origin import unite

Build = Callable[[Node], Node | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern`: the ops at which it may fire; `build`: the replacement, or None where it does not apply.
    `name` is kebab-case English, `reason` one sentence of at most 90 characters that says why it is allowed."""

    name: str
    reason: str
    pattern: tuple[str, ...]
    build: Build

    def __post_init__(self) -> None:
        if len(self.reason) > 90 or not self.reason:
            raise ValueError(f"rule {self.name}: the reason must have 1 to 90 characters, has {len(self.reason)}")


MERGE = Rule("merge-equal", "Two nodes with the same op, operands and argument have the same value.", (), lambda n: None)


class RewriteError(RuntimeError):
    """The rules did not come to rest, or a rule changed the dtype or shape of a value."""


def rewrite(graph: Graph, rules: Sequence[Rule], stage: str, merge: bool = True, limit: int = 64) -> tuple[Graph, int]:
    """Apply `rules` bottom-up until nothing fires; returns (new graph, number of firings). Every firing is published when watched.

    Raises RewriteError when a node is rewritten more than `limit` times, or when a rule changes a value's dtype or shape."""
    table: dict[str, list[Rule]] = {}
    for r in rules:
        for op in r.pattern:
            table.setdefault(op, []).append(r)
    done: dict[Node, Node] = {}  # input or intermediate node -> its final form
    unique: dict[Any, Node] = {}
    watching = hooks.watching
    fired = 0

    def fire(rule: Rule, before: Node, after: Node, began: float) -> None:
        nonlocal fired
        fired += 1
        if watching:
            hooks.publish(hooks.RuleApplied(stage, rule.name, rule.reason, fired - 1, before, after, time.perf_counter() - began))

    def settle(n: Node, depth: int) -> Node:
        """The final form of a node whose operands are final."""
        for _ in range(limit):
            began = time.perf_counter() if watching else 0.0
            for rule in table.get(n.op, ()):
                new = rule.build(n)
                if new is None or new is n:
                    continue
                if new.dtype is not n.dtype or new.shape != n.shape:
                    raise RewriteError(f"rule {rule.name} changed {n.dtype}{n.shape} into {new.dtype}{new.shape}")
                new = new._replace(origin=unite(new.origin, n.origin)) if new.origin is not n.origin else new
                fire(rule, n, new, began)
                n = resolve(new, depth + 1)
                break
            else:
                break
            if n in finals:
                return n
        else:
            raise RewriteError(f"{n!r} was rewritten {limit} times by the rules of {stage} and did not come to rest")
        if merge and n.op != "buffer":
            key = (n.op, n.dtype.name, n.shape, n.src, repr(n.arg))
            old = unique.get(key)
            if old is None:
                unique[key] = n
            elif old is not n:
                both = unite(old.origin, n.origin)
                if both != old.origin:
                    origins[old] = unite(origins.get(old, old.origin), n.origin)
                fire(MERGE, n, old, time.perf_counter() if watching else 0.0)
                n = old
        finals.add(n)
        return n

    def resolve(root: Node, depth: int) -> Node:
        """Rewrite everything under `root` that is new."""
        if depth > limit:
            raise RewriteError(f"the rules of {stage} build on their own results more than {limit} deep at {root!r}")
        for n in _new_nodes(root, done, finals):
            src = tuple(done.get(s, s) for s in n.src)
            m = n if src == n.src else n._replace(src=src)
            done[n] = settle(m, depth)
        return done.get(root, root)

    finals: set[Node] = set()
    origins: dict[Node, Any] = {}
    roots = [resolve(r, 0) for r in graph.roots]
    return _with_origins(Graph(roots), origins), fired


def _new_nodes(root: Node, done: Mapping[Node, Node], finals: set[Node]) -> list[Node]:
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        n, ready = stack.pop()
        if ready:
            order.append(n)
        elif n not in seen and n not in done and n not in finals:
            seen.add(n)
            stack.append((n, True))
            stack.extend((s, False) for s in reversed(n.src))
    return order


def _with_origins(graph: Graph, origins: Mapping[Node, Any]) -> Graph:
    """The graph with the origins that merging united; only nodes above a change are made anew."""
    if not origins:
        return graph
    new: dict[Node, Node] = {}
    for n in graph.nodes:
        src = tuple(new[s] for s in n.src)
        origin = origins.get(n, n.origin)
        new[n] = n if src == n.src and origin is n.origin else n._replace(src=src, origin=origin)
    return Graph(new[r] for r in graph.roots)


__all__ = ["MERGE", "RewriteError", "Rule", "rewrite", "toposort"]
