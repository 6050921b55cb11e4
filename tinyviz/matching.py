"""What became of the nodes and kernels of one program in another: equal hashes first, then by operands, origin and position.

Near-linear: every step looks in a table. Two nodes are *equal* when their whole histories are: op, dtype, shape, argument and
equal operands. What is left is paired in topological order with a node of the same op that uses the partner of one of its
operands, or that came from the same line and module; the best of a handful of candidates wins.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import chain, islice

from tinyviz.views.graph import operands
from tinyviz.wire import Program, Recording

CANDIDATES = 64  # users of one node that are looked at; more of them are equal in every respect that counts here


class Side:
    """One program's last graph: its nodes, their operands, and what of them can be compared between recordings."""

    def __init__(self, r: Recording, program: int) -> None:
        self.p: Program = r.programs[program]
        self.nodes: list[int] = list(self.p.simplified or self.p.recorded)
        self.src = operands(self.p, self.nodes)
        texts = [(r.lines.function[i], r.lines.text[i]) for i in range(len(r.lines))]
        self.origin: dict[int, Hashable] = {
            n: (self.p.nodes.module[n], self.p.nodes.phase[n], tuple(texts[i] for i in self.p.nodes.lines[n])) for n in self.nodes
        }

    def form(self, n: int) -> tuple[str, str, tuple[int | str, ...], str]:
        """What the node is by itself."""
        nodes = self.p.nodes
        return nodes.op[n], nodes.dtype[n], tuple(nodes.shape[n]), nodes.arg[n]

    def users(self) -> dict[int, list[int]]:
        out: dict[int, list[int]] = defaultdict(list)
        for n in self.nodes:
            for s in dict.fromkeys(self.src[n]):
                out[s].append(n)
        return out


@dataclass
class Matching:
    """`partner`: node before -> node after; `back` the other way; `equal`: nodes after whose whole history is the same."""

    partner: dict[int, int] = field(default_factory=dict)
    back: dict[int, int] = field(default_factory=dict)
    equal: set[int] = field(default_factory=set)

    def pair(self, before: int, after: int) -> None:
        self.partner[before], self.back[after] = after, before


def match(before: Side, after: Side) -> Matching:
    """Pair the nodes of two programs; a node without a partner was removed or added."""
    m = Matching()
    _equal(before, after, m)
    users = before.users()
    place = {n: i / len(before.nodes) for i, n in enumerate(before.nodes)}
    left: dict[Hashable, deque[int]] = defaultdict(deque)
    for n in before.nodes:
        if n not in m.partner:
            for key in _keys(before, n):
                left[key].append(n)

    def waiting(key: Hashable) -> Iterable[int]:
        bucket = left[key]
        while bucket and bucket[0] in m.partner:
            bucket.popleft()
        return islice(bucket, CANDIDATES)

    for i, n in enumerate(after.nodes):
        if n in m.back:
            continue
        near = [u for s in after.src[n] if s in m.back for u in users[m.back[s]][:CANDIDATES]]
        best: tuple[float, int] | None = None
        for u in chain(near, *map(waiting, _keys(after, n))):
            if u in m.partner or before.p.nodes.op[u] != after.p.nodes.op[n]:
                continue
            score = _likeness(before, u, after, n, m) - abs(place[u] - i / len(after.nodes))
            if best is None or score > best[0]:
                best = (score, u)
        if best is not None and best[0] > 1:
            m.pair(best[1], n)
    return m


def _equal(before: Side, after: Side, m: Matching) -> None:
    """Pair the nodes with equal histories; among several, those of one origin first, then in order."""
    numbers: dict[Hashable, int] = {}

    def histories(side: Side) -> dict[int, int]:
        out: dict[int, int] = {}
        given: dict[Hashable, int] = defaultdict(int)  # pieces of memory that look the same are told apart by their order
        for n in side.nodes:
            form = side.form(n)
            if form[0] == "buffer":
                given[form] += 1
            key = (*form, given[form] if form[0] == "buffer" else 0, tuple(out[s] for s in side.src[n]))
            out[n] = numbers.setdefault(key, len(numbers))
        return out

    old, new = histories(before), histories(after)
    for with_origin in (True, False):
        free: dict[Hashable, list[int]] = defaultdict(list)
        for n in reversed(before.nodes):
            if n not in m.partner:
                free[old[n], before.origin[n] if with_origin else None].append(n)
        for n in after.nodes:
            found = free.get((new[n], after.origin[n] if with_origin else None)) if n not in m.back else None
            if found:
                m.pair(found.pop(), n)
                m.equal.add(n)


def _keys(side: Side, n: int) -> list[Hashable]:
    """Tables in which a node is looked for, the narrower first; the last one finds it where its line was written anew."""
    form, origin, nodes = side.form(n), side.origin[n], side.p.nodes
    op, _, _, arg = form
    here = nodes.module[n], nodes.phase[n]
    return [("form", form, origin), ("arg", op, arg, origin), ("op", op, origin), ("place", form, here)]


def _likeness(before: Side, u: int, after: Side, n: int, m: Matching) -> float:
    """How much speaks for `u` having become `n`; above 1 it is believed."""
    same = sum(m.partner.get(a) == b for a, b in zip(before.src[u], after.src[n], strict=False))
    (_, dtype, shape, arg), (_, dtype2, shape2, arg2) = before.form(u), after.form(n)
    of = max(len(before.src[u]), len(after.src[n]), 1)
    place = 2 * same / of + 2 * (before.origin[u] == after.origin[n])
    return place + (arg == arg2) + 0.5 * (shape == shape2) + 0.25 * (dtype == dtype2)


@dataclass
class Change:
    """One node that is not what it was. `first`: nothing before it in the program differs, so the change begins here."""

    kind: str  # added, removed, changed, rewired
    before: int  # node ids; -1
    after: int
    first: bool


def changes(before: Side, after: Side, m: Matching) -> list[Change]:
    """What differs, in the order of the program; nodes that only stand behind a change are not listed."""
    found: list[Change] = []
    touched: set[int] = set()  # nodes after that differ, or stand behind one that does
    for n in after.nodes:
        if n in m.equal:
            continue
        first = not any(s in touched for s in after.src[n])
        touched.add(n)
        u = m.back.get(n)
        if u is None:
            found.append(Change("added", -1, n, first))
        elif before.form(u) != after.form(n):
            found.append(Change("changed", u, n, first))
        elif _rewired(before.src[u], after.src[n], m):
            found.append(Change("rewired", u, n, first))
    gone: set[int] = set()
    for n in before.nodes:
        if n not in m.partner:
            found.append(Change("removed", n, -1, not any(s in gone for s in before.src[n])))
            gone.add(n)
    return found


def _rewired(before: list[int], after: list[int], m: Matching) -> bool:
    """Whether the operands are others, all of them known on both sides: a node that came or went between them says so itself."""
    known = all(s in m.partner for s in before) and all(s in m.back for s in after)
    return known and [m.partner[s] for s in before] != after


def lines(r0: Recording, before: Program, r1: Recording, after: Program, m: Matching) -> dict[int, int]:
    """Line before -> line after, of those that both recordings have: the same text in the same function, in order; what is left
    by the nodes that both made, the most of them first: a line that was written anew, or that stands in another class."""

    def texts(r: Recording, p: Program) -> dict[Hashable, list[int]]:
        out: dict[Hashable, list[int]] = defaultdict(list)
        for line in sorted({x for n in p.nodes.lines for x in n}):
            out[r.lines.function[line], r.lines.text[line]].append(line)
        return out

    new = texts(r1, after)
    partner = {a: b for key, olds in texts(r0, before).items() for a, b in zip(olds, new.get(key, ()), strict=False)}
    taken = set(partner.values())
    old, now = before.nodes.lines, after.nodes.lines
    common = Counter((old[u][0], now[n][0]) for u, n in m.partner.items() if old[u] and now[n])
    for a, b in sorted(common, key=lambda x: (-common[x], x)):
        if a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    return partner


def kernels(before: Program, after: Program, m: Matching) -> list[tuple[int, int, float]]:
    """(kernel before, kernel after, share of their nodes that they have in common); -1 where there is no partner. In the order
    of the program after; what went comes last."""
    of: dict[int, list[int]] = defaultdict(list)
    for i, k in enumerate(after.kernels):
        for n in k.nodes:
            of[n].append(i)
    common: dict[tuple[int, int], int] = defaultdict(int)
    for i, k in enumerate(before.kernels):
        for n in k.nodes:
            for j in of.get(m.partner.get(n, -1), ()):
                common[i, j] += 1

    def share(pair: tuple[int, int]) -> float:
        i, j = pair
        return common[pair] / (len(before.kernels[i].nodes) + len(after.kernels[j].nodes) - common[pair])

    order = sorted(common, key=lambda x: (-share(x), before.kernels[x[0]].name != after.kernels[x[1]].name, x[0] + x[1], x))
    return _paired(order, len(before.kernels), len(after.kernels), share)


def _paired(
    order: Iterable[tuple[int, int]], olds: int, news: int, share: Callable[[tuple[int, int]], float]
) -> list[tuple[int, int, float]]:
    """The pairs, taken greedily in this order."""
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in order:
        if j not in partner and i not in taken:
            partner[j] = i
            taken.add(i)
    out = [(partner.get(j, -1), j, share((partner[j], j)) if j in partner else 0.0) for j in range(news)]
    return [*out, *((i, -1, 0.0) for i in range(olds) if i not in taken)]
