"""Layout: no boxes on top of each other, gradients beside their forward node, long graphs in near-linear work."""

from __future__ import annotations

import itertools
import random

import pytest

from tinyviz import layout, wire


def nodes(phases: list[str], forward: list[int]) -> wire.Nodes:
    n = len(phases)
    out = wire.Nodes(phase=phases, forward=forward)
    for name in ("op", "dtype", "arg", "module", "derivative"):
        setattr(out, name, [""] * n)
    for name in ("shape", "src", "lines", "origins"):
        setattr(out, name, [[]] * n)
    return out


def training(size: int, wide: int, seed: int = 0) -> tuple[wire.Nodes, list[list[int]]]:
    """A forward pass with skips, its gradients, and an optimizer step for each leaf."""
    rng = random.Random(seed)
    half = size // 2
    src: list[list[int]] = [
        sorted({rng.randrange(max(0, i - wide), i) for _ in range(1 + (rng.random() < 0.45))}) if i > 4 else []
        for i in range(half)
    ]
    phases, forward = ["forward"] * half, [-1] * half
    for i in range(half):
        src.append([half + i - 1 if i else half - 1, half - 1 - i])
        phases.append("backward")
        forward.append(half - 1 - i)
    for leaf in range(5):
        src.append([leaf, 2 * half - 1 - leaf])
        phases.append("optimizer")
        forward.append(-1)
    return nodes(phases, forward), src


@pytest.mark.parametrize(("size", "wide"), [(10, 3), (200, 8), (1000, 100)])
def test_no_two_boxes_overlap(size: int, wide: int) -> None:
    n, src = training(size, wide)
    at = layout.layout(n, range(len(src)), src)
    spots = {}
    for i in range(len(src)):
        x, y = at.x[i], at.y[i]
        assert x is not None and y is not None
        assert layout.COLUMN / 2 - 1 <= x <= at.width and 0 < y < at.height
        spots[i] = (x, y)
    rows: dict[float, list[float]] = {}
    for x, y in spots.values():
        rows.setdefault(y, []).append(x)
    for xs in rows.values():
        xs.sort()
        assert all(b - a >= layout.COLUMN - 1 for a, b in itertools.pairwise(xs))


def test_values_flow_downwards_and_gradients_stand_beside() -> None:
    n, src = training(300, 8)
    at = layout.layout(n, range(len(src)), src)
    for i, operands in enumerate(src):
        x, y = at.x[i], at.y[i]
        assert x is not None and y is not None
        for s in operands:
            if n.phase[i] != "backward" and n.phase[s] != "backward":
                assert (at.y[s] or 0) < y
        if n.phase[i] == "backward":
            fx, fy = at.x[n.forward[i]], at.y[n.forward[i]]
            assert fx is not None and fy is not None
            assert 0 < x - fx <= layout.FOLD * layout.COLUMN + 1 and y >= fy
    lowest = max(y for i, y in enumerate(at.y) if n.phase[i] == "forward" and y is not None)
    assert all((at.y[i] or 0) > lowest for i in range(len(src)) if n.phase[i] == "optimizer")


def test_stubs_are_edges_from_forward_to_backward() -> None:
    n, src = training(60, 4)
    at = layout.layout(n, range(len(src)), src)
    for a, b in at.stubs:
        assert n.phase[a] != "backward" and n.phase[b] == "backward" and a in src[b]


def test_work_grows_like_the_graph() -> None:
    """Counted, not timed: ten times the nodes need about ten times the items, long edges included."""
    counts = []
    for size in (1000, 10_000):
        n, src = training(size, 8)
        items, item_of = layout._items(n, range(len(src)), src)
        place = {i: i for i in range(len(src))}
        counts.append(len(layout._link(items, range(len(src)), src, place, item_of)))
    assert counts[1] < 12 * counts[0]
    assert counts[1] < 40_000


def test_a_deep_chain_is_no_problem() -> None:
    n = nodes(["forward"] * 20_000, [-1] * 20_000)
    at = layout.layout(n, range(20_000), [[i - 1] if i else [] for i in range(20_000)])
    assert len({x for x in at.x}) == 1


def test_nothing_gives_an_empty_layout() -> None:
    at = layout.layout(nodes([], []), [], [])
    assert at.x == [] and at.stubs == []


def test_new_nodes_stand_where_the_replaced_one_stood_and_near_it() -> None:
    n = nodes(["forward"] * 6, [-1] * 6)
    src = [[], [0], [1], [], [], []]
    base = layout.layout(n, range(3), src[:3])
    frames = wire.Frames([0, 0], [2, 1], [3, 4], [[3], [4, 5]], [[2], [1]], [None, None])
    at = layout.follow(base, range(3), [frames], 6)
    assert (at.x[:3], at.y[:3]) == (base.x[:3], base.y[:3])
    assert (at.x[3], at.y[3]) == (base.x[2], base.y[2])
    assert (at.x[4], at.y[4]) == (base.x[1], base.y[1])
    x, y = at.x[5], at.y[5]
    assert x is not None and y is not None and base.x[1] is not None and base.y[1] is not None
    assert 0 < abs(x - base.x[1]) + abs(y - base.y[1]) < 4 * layout.COLUMN
