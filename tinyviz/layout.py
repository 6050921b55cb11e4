"""Layered layout in near-linear time (after Sugiyama, Tagawa & Toda 1981): longest-path ranks, dummy nodes, median sweeps.

A backward node is folded beside the forward node whose gradient it serves: edges from forward to backward, which would tear a
training graph apart, take no part in ranking and are drawn as stubs. The optimizer stands below the forward pass. While rules
rewrite a graph nothing moves: a new node takes the place of the one it replaces, and what it brings the nearest free places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyviz.wire import Frames, Layout, Nodes

COLUMN = 132.0  # between centres of neighbours in a rank
ROW = 68.0  # between ranks
FOLD = 3  # backward nodes beside a forward node, in one row
LONGEST = 6  # ranks over which an edge keeps its place by dummy nodes; longer ones pass behind
SWEEPS = 4


@dataclass(slots=True)
class _Item:
    """A forward or optimizer node with the backward nodes folded beside it, or a dummy node of a long edge."""

    rank: int
    width: float  # in columns
    rows: int
    node: int  # -1: dummy
    folded: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)  # items one rank above that it is linked with
    down: list[int] = field(default_factory=list)
    x: float = 0.0


def layout(nodes: Nodes, drawn: Sequence[int], src: Sequence[Sequence[int]], hint: Layout | None = None) -> Layout:
    """Positions of `drawn` (node ids, operands first). `src`: operands by position in `drawn`. `hint`: a layout to stay near."""
    place = {n: i for i, n in enumerate(drawn)}
    items, item_of = _items(nodes, drawn, src)
    _sink(items, drawn, src, place, item_of)
    ranks = _order(items, _link(items, drawn, src, place, item_of), hint)
    _straighten(items, ranks)
    out = Layout([None] * len(nodes), [None] * len(nodes), 0.0, 0.0)
    y = 0.5
    for members in ranks:
        height = max([items[i].rows for i in members], default=1)
        for i in members:
            _put(out, items[i], y)
        y += height
    _fit(out, drawn)
    for p, n in enumerate(drawn):
        if nodes.phase[n] == "backward":
            away = [s for s in src[p] if nodes.phase[s] != "backward" and item_of[place[s]] != item_of[p]]
            out.stubs += [[s, n] for s in dict.fromkeys(away)]
    return out


def _items(nodes: Nodes, drawn: Sequence[int], src: Sequence[Sequence[int]]) -> tuple[list[_Item], list[int]]:
    """Clusters, and for each drawn node its cluster. Operands come first, so ranks are known in one pass."""
    items: list[_Item] = []
    item_of: list[int] = []
    place = {n: i for i, n in enumerate(drawn)}
    below = _forward_ranks(nodes, drawn, src, place)
    for p, n in enumerate(drawn):
        above = [item_of[place[s]] for s in src[p]]
        if nodes.phase[n] == "backward":
            forward = nodes.forward[n]
            at = item_of[place[forward]] if place.get(forward, p) < p else _nearest(nodes, src[p], above)
            if at >= 0:
                items[at].folded.append(n)
                item_of.append(at)
                continue
        item_of.append(len(items))
        rank = max([items[a].rank for a in above], default=-1) + 1
        if nodes.phase[n] == "optimizer" and src[p]:
            rank = max(rank, below)
        items.append(_Item(rank, 1.0, 1, n))
    for item in items:
        item.width = 1.0 + min(len(item.folded), FOLD)
        item.rows = max(1, -(-len(item.folded) // FOLD))
    return items, item_of


def _forward_ranks(nodes: Nodes, drawn: Sequence[int], src: Sequence[Sequence[int]], place: dict[int, int]) -> int:
    """How many ranks the forward pass takes."""
    rank = [0] * len(drawn)
    for p, n in enumerate(drawn):
        if nodes.phase[n] == "forward":
            rank[p] = max([rank[place[s]] for s in src[p]], default=-1) + 1
    return max(rank, default=-1) + 1


def _nearest(nodes: Nodes, src: Sequence[int], above: list[int]) -> int:
    """Where a backward node without a forward node stands: beside what it continues."""
    for s, at in zip(src, above, strict=True):
        if nodes.phase[s] == "backward":
            return at
    return above[0] if above else -1


def _sink(
    items: list[_Item], drawn: Sequence[int], src: Sequence[Sequence[int]], place: dict[int, int], item_of: list[int]
) -> None:
    """What is not on the longest way down stands right above its first user: weights and their views beside what reads them."""
    users: list[set[int]] = [set() for _ in items]
    for p, n in enumerate(drawn):
        if items[item_of[p]].node == n:  # a folded node pulls nothing
            for s in src[p]:
                users[item_of[place[s]]].add(item_of[p])
    for i in range(len(items) - 1, -1, -1):  # users come later
        below = [items[u].rank for u in users[i] if u > i]
        if below:
            items[i].rank = max(items[i].rank, min(below) - 1)


def _link(
    items: list[_Item], drawn: Sequence[int], src: Sequence[Sequence[int]], place: dict[int, int], item_of: list[int]
) -> list[_Item]:
    """Links between neighbouring ranks, with dummy nodes where an edge passes through some."""
    for p in range(len(drawn)):
        low = item_of[p]
        if items[low].node != drawn[p]:
            continue  # a folded node pulls nothing
        for s in dict.fromkeys(src[p]):
            high = item_of[place[s]]
            span = items[low].rank - items[high].rank
            if high == low or span < 1 or span > LONGEST:
                continue
            last = high
            for rank in range(items[high].rank + 1, items[low].rank):
                items.append(_Item(rank, 0.3, 1, -1))
                items[last].down.append(len(items) - 1)
                items[-1].up.append(last)
                last = len(items) - 1
            items[last].down.append(low)
            items[low].up.append(last)
    return items


def _order(items: list[_Item], linked: list[_Item], hint: Layout | None) -> list[list[int]]:
    """Members of each rank from left to right: median sweeps down and up."""
    ranks: list[list[int]] = [[] for _ in range(max([i.rank for i in linked], default=-1) + 1)]
    for k, item in enumerate(linked):
        ranks[item.rank].append(k)
    position = [0.0] * len(items)
    for members in ranks:
        if hint is not None:
            members.sort(key=lambda k: _hinted(items[k], hint))
        for j, k in enumerate(members):
            position[k] = j
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for members in ranks if down else reversed(ranks):
            if len(members) < 2:
                continue
            keys = {}
            for k in members:
                near = items[k].up if down else items[k].down
                keys[k] = _median([position[n] for n in near]) if near else position[k]
            members.sort(key=keys.__getitem__)
            for j, k in enumerate(members):
                position[k] = j
    return ranks


def _hinted(item: _Item, hint: Layout) -> float:
    x = hint.x[item.node] if 0 <= item.node < len(hint.x) else None
    return x if x is not None else 0.0


def _median(values: list[float]) -> float:
    values.sort()
    n = len(values)
    return values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2


def _straighten(items: list[_Item], ranks: list[list[int]]) -> None:
    """Pull each item toward its neighbours without changing the order or letting boxes touch."""
    for members in ranks:
        _pack(items, members, [0.0] * len(members))
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for members in ranks if down else reversed(ranks):
            want = []
            for k in members:
                near = items[k].up if down else items[k].down
                want.append(sum([items[n].x for n in near]) / len(near) if near else items[k].x)
            _pack(items, members, want)


def _pack(items: list[_Item], members: list[int], want: list[float]) -> None:
    """Left to right as near to `want` as the widths allow: runs that collide are centred on the mean of their wishes."""
    blocks: list[tuple[float, float, list[int]]] = []  # (left edge, width, members)
    for k, x in zip(members, want, strict=True):
        w = items[k].width
        left, width, group = x - 0.5, w, [k]
        while blocks and blocks[-1][0] + blocks[-1][1] > left:
            before_left, before_width, before = blocks.pop()
            a, b = len(before), len(group)
            left = (before_left * a + (left - before_width) * b) / (a + b)
            width += before_width
            group = before + group
        blocks.append((left, width, group))
    for left, _, group in blocks:
        for k in group:
            items[k].x = left + 0.5
            left += items[k].width


def _put(out: Layout, item: _Item, y: float) -> None:
    if item.node < 0:
        return
    out.x[item.node], out.y[item.node] = item.x, y
    for k, b in enumerate(item.folded):
        out.x[b], out.y[b] = item.x + 1 + k % FOLD, y + k // FOLD


def _fit(out: Layout, drawn: Sequence[int]) -> None:
    """From columns and ranks to drawing units, all at least half a box from the edge."""
    xs = [x for n in drawn if (x := out.x[n]) is not None]
    left = min(xs, default=0.0) - 0.5
    for n in drawn:
        x, y = out.x[n], out.y[n]
        if x is not None and y is not None:
            out.x[n], out.y[n] = round((x - left) * COLUMN, 1), round(y * ROW, 1)
    _measure(out)


def _measure(out: Layout) -> None:
    out.width = max([x for x in out.x if x is not None], default=0.0) + COLUMN / 2
    out.height = max([y for y in out.y if y is not None], default=0.0) + ROW / 2


def follow(base: Layout, alive: Sequence[int], frames: Sequence[Frames], total: int) -> Layout:
    """`base` with places for the nodes that rules made: by id, for all `total` nodes. `alive`: what is drawn at the start."""
    fill: list[float | None] = [None] * (total - len(base.x))
    out = Layout(base.x + fill, base.y + fill, base.width, base.height, base.stubs)
    taken: dict[tuple[int, int], int] = {}
    cell_of: dict[int, tuple[int, int]] = {}

    def take(n: int, x: float, y: float) -> None:
        cell = (round(x / COLUMN * 2), round(y / ROW * 2))  # half a box wide and high
        cell_of[n] = cell
        taken[cell] = taken.get(cell, 0) + 1

    for n in alive:
        x, y = out.x[n], out.y[n]
        if x is not None and y is not None:
            take(n, x, y)
    for f in frames:
        for k in range(len(f)):
            for n in f.removed[k]:
                cell = cell_of.get(n)
                if cell is not None:
                    taken[cell] -= 1
            old = f.replaced[k]
            x0, y0 = out.x[old] or COLUMN / 2, out.y[old] or ROW / 2
            for n in sorted(f.added[k], key=lambda n: (n != f.by[k], -n)):
                if out.x[n] is None:
                    out.x[n], out.y[n] = _free(taken, x0, y0)
                x, y = out.x[n], out.y[n]
                assert x is not None and y is not None
                take(n, x, y)
    _measure(out)
    return out


_RING = sorted([(dx, dy) for dx in range(-6, 7) for dy in range(-6, 7)], key=lambda d: (d[0] ** 2 + d[1] ** 2, d[1] > 0, d))


def _free(taken: dict[tuple[int, int], int], x: float, y: float) -> tuple[float, float]:
    """The nearest place where nothing stands; above before below. The place itself where all are full."""
    cx, cy = round(x / COLUMN * 2), round(y / ROW * 2)
    for dx, dy in _RING:
        fits = cx + dx > 0 and cy + dy > 0
        if fits and not any(taken.get((cx + dx + i, cy + dy + j), 0) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            return round(x + dx * COLUMN / 2, 1), round(y + dy * ROW / 2, 1)
    return x, y
