"""One id per node through all rewriting.

The engine's nodes are immutable: when an operand changes, the users are made anew without an event. Such a node is recognised as
the one it stands for by its key: op, dtype, shape, argument and the ids of its operands after all replacements so far. Keys of
users are renewed whenever an operand is replaced (congruence closure, without the merging), so every look-up is one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyviz.wire import Frames


class Identities:
    """`node_of[i]`: the engine's node behind id i; `src[i]`: its operands when it was made; `by[i]`: what replaced it, or i."""

    def __init__(self) -> None:
        self.node_of: list[Any] = []
        self.src: list[list[int]] = []
        self.by: list[int] = []
        self.uses: list[int] = []
        self._ids: dict[Any, int] = {}
        self._users: list[list[int]] = []
        self._index: dict[Any, list[int]] = {}
        self._added: list[int] = []
        self._removed: list[int] = []
        self._fresh: range = range(0)  # ids that the last firing made

    def find(self, i: int) -> int:
        """What node i has become."""
        by = self.by
        while by[i] != i:
            by[i] = by[by[i]]
            i = by[i]
        return i

    def graph(self, nodes: Iterable[Any], fresh: bool = False) -> list[int]:
        """The ids of a graph's nodes, in its order. `fresh`: a first graph, in which each node is one of its own."""
        return [self._new(n) if fresh and n not in self._ids else self.id(n) for n in nodes]

    def hold(self, roots: Iterable[int]) -> None:
        """These are used from outside."""
        for r in roots:
            self._use(r)

    def release(self, roots: Iterable[int]) -> None:
        for r in roots:
            self._unuse(self.find(r))

    def id(self, node: Any, built: bool = False, but: int = -1) -> int:
        """The id of `node`, a new one if it stands for none that is known. `built` by a rule: it may be new and equal
        another. `but`: an id that it does not stand for."""
        found = self._ids.get(node)
        if found is not None:
            return self.find(found)
        stack = [node]
        while stack:
            n = stack[-1]
            unknown = [s for s in n.src if s not in self._ids] if n not in self._ids else []
            if unknown:
                stack += unknown
                continue
            stack.pop()
            if n not in self._ids:
                same = self._stands_for(n, built, but if n is node else -1)
                if same is None:
                    self._new(n)
                else:
                    self._ids[n] = same
                    self.node_of[same] = n
        return self.find(self._ids[node])

    def fire(self, frames: Frames, rule: int, before: Any, after: Any, seconds: float | None) -> None:
        """Record that a rule replaced `before` by `after`."""
        for s in before.src:  # what it reads was there before the rule built anything
            self.id(s)
        first = len(self.node_of)
        new = self.id(after, built=True)
        old = self.id(before, but=new)
        self._fresh = range(first, len(self.node_of))
        self._added, self._removed = [], []
        if old != new:
            self._replace(old, new)
        frames.rule.append(rule)
        frames.replaced.append(old)
        frames.by.append(new)
        removed = set(self._removed)
        gone = removed - set(self._added)
        frames.added.append([i for i in self._added if i not in removed])
        frames.removed.append([i for i in self._removed if i in gone])
        frames.seconds.append(seconds)

    def _replace(self, old: int, new: int) -> None:
        uses = self.uses[old]
        if uses:  # users of the old one use the new one from now on
            self._use(new)
            self.uses[new] += uses - 1
            self.uses[old] = 1
            self._unuse(old)
        self.by[old] = new
        users = self._users[old]
        self._users[new] += users
        self._users[old] = []
        for u in users:
            if self.by[u] == u:
                self._index.setdefault(self._key(self.node_of[u], self.src[u]), []).append(u)

    def __contains__(self, node: Any) -> bool:
        return node in self._ids

    def update_origins(self, nodes: Sequence[Any]) -> None:
        """Take the nodes of a finished graph for the ids they stand for: merging has united their origins."""
        for n in nodes:
            self.node_of[self.id(n)] = n

    def _new(self, node: Any) -> int:
        i = len(self.node_of)
        src = [self.find(self._ids[s]) for s in node.src]
        self.node_of.append(node)
        self.src.append(src)
        self.by.append(i)
        self.uses.append(0)
        self._users.append([])
        self._ids[node] = i
        for s in src:
            self._users[s].append(i)
        self._index.setdefault(self._key(node, src), []).append(i)
        return i

    def _key(self, node: Any, src: Iterable[int]) -> Any:
        arg = id(node.arg) if node.op == "buffer" else repr(node.arg)
        return (node.op, node.dtype.name, node.shape, arg, tuple(map(self.find, src)))

    def _stands_for(self, node: Any, built: bool, but: int) -> int | None:
        """The known node that this one was made anew from; several equal ones are told apart by their origins and by the order in
        which the engine works: through a graph in its order, but at once through what a rule has built."""
        best: tuple[bool, bool, int, bool, int] | None = None
        for i in self._index.get(self._key(node, [self._ids[s] for s in node.src]), ()):
            known = self.node_of[i]
            if self.by[i] != i:
                continue
            if known.origin is node.origin:
                kinship = 0
            elif node.origin[: len(known.origin)] == known.origin:
                kinship = 1  # merging adds origins behind those of the node that stays; what a rule builds has none at first
            elif [o._replace(forward=None) for o in node.origin] == [o._replace(forward=None) for o in known.origin]:
                kinship = 2  # the stage was done twice: what a copy is a copy of is another object each time
            else:
                kinship = 3
            if built:
                # with the very operands of a known node it was not made anew from that node, but is another one, equal to it;
                # unless it was made anew only to give it an origin
                given = bool(node.origin) and not known.origin
                if kinship >= 2 or (known.src == node.src and not given):
                    continue
            rank = (i == but, i not in self._fresh, kinship, not self.uses[i], i)
            if best is None or rank < best:
                best = rank
        return None if best is None else best[-1]

    def _use(self, i: int) -> None:
        stack = [i]
        while stack:
            i = stack.pop()
            self.uses[i] += 1
            if self.uses[i] == 1:
                self._added.append(i)
                stack += [self.find(s) for s in self.src[i]]

    def _unuse(self, i: int) -> None:
        stack = [i]
        while stack:
            i = stack.pop()
            self.uses[i] -= 1
            if self.uses[i] == 0:
                self._removed.append(i)
                stack += [self.find(s) for s in self.src[i]]
