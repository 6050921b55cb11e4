"""Recorded deltas: every frame of a rewriting is rebuilt exactly, by ids that stay."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.engine.graphs import F32, ew, num, op, red
from tinyengine.node import Graph, Node
from tinyengine.origin import Origin
from tinyengine.rules import Rule, rewrite
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import simplify
from tinyviz import frames, layout, wire
from tinyviz.identity import Identities


def buf(name: str, *shape: int) -> Node:
    size = 1
    for d in shape:
        size *= d
    return Node("buffer", F32, shape, (), Buffer(size, F32, name), ())


def firings(graph: Graph, rules: list[Rule], merge: bool = True) -> tuple[Graph, list[Any]]:
    events: list[Any] = []
    out, n = rewrite(graph, rules, "simplify", merge=merge, observe=events.append)
    assert n == len(events)
    return out, events


def record(graph: Graph, out: Graph, events: list[Any]) -> wire.Program:
    """A program of which only nodes and the frames of one stage are known."""
    ids = Identities()
    recorded = ids.graph(graph.nodes, fresh=True)
    roots = [ids.id(r) for r in graph.roots]
    ids.hold(roots)
    f = wire.Frames()
    for e in events:
        ids.fire(f, 0, e.before, e.after, e.seconds)
    after = ids.graph(out.nodes)
    nodes = wire.Nodes(
        [n.op for n in ids.node_of], [n.dtype.name for n in ids.node_of], [list(n.shape) for n in ids.node_of], ids.src,
        [repr(n.arg) for n in ids.node_of], *[["forward"] * len(ids.src)] * 2, *[[[] for _ in ids.src]] * 2,
        [-1] * len(ids.src), [""] * len(ids.src),
    )  # fmt: skip
    stage = wire.Stage("simplify", "", None, recorded, after, roots, f)
    return wire.Program(
        "p", "", nodes, wire.Origins(), recorded, after, [ids.find(r) for r in roots], {}, [stage], [], [], [], [], None, None,
        wire.Certificate(), wire.Launches(),
    )  # fmt: skip


def form(roots: list[Any], key: Any, src: Any) -> list[Any]:
    """A graph as a tree of numbers: equal for equal graphs, whatever the ids."""
    number: dict[Any, int] = {}
    rows: list[Any] = []

    def visit(n: Any) -> int:
        if n not in number:
            operands = [visit(s) for s in src(n)]
            number[n] = len(rows)
            rows.append((key(n), operands))
        return number[n]

    return [[visit(r) for r in roots], rows]


def of_graph(g: Graph) -> list[Any]:
    return form(list(g.roots), lambda n: (n.op, n.dtype.name, list(n.shape), repr(n.arg)), lambda n: n.src)


def of_frame(p: wire.Program, k: int) -> list[Any]:
    s = frames.graph_at(p, 0, k)
    assert s.alive == s.reached()
    n = p.nodes
    return form(s.roots, lambda i: (n.op[i], n.dtype[i], n.shape[i], n.arg[i]), s.src)


def network() -> Graph:
    """Enough to simplify: neutral elements, double views, equal nodes, constants."""
    x, w, b = buf("x", 8, 4), buf("w", 4, 5), buf("b", 5)
    xe = op("expand", (8, 4, 5), op("reshape", (8, 4, 1), x))
    we = op("expand", (8, 4, 5), op("reshape", (1, 4, 5), w))
    y = op("reshape", (8, 5), op("sum", (8, 1, 5), ew("mul", xe, we), arg=(1,)))
    be = op("expand", (8, 5), op("reshape", (1, 5), b))
    y = ew("add", ew("mul", y, num(1.0, 8, 5)), be)
    z = ew("maximum", ew("mul", num(1.0, 8, 5), y), num(0.0, 8, 5))
    two = ew("add", ew("mul", z, num(1.0, 8, 5)), ew("mul", z, num(1.0, 8, 5)))
    turned = op("permute", (8, 5), op("permute", (5, 8), two, arg=(1, 0)), arg=(1, 0))
    return Graph([red("sum", ew("mul", turned, ew("add", num(2.0, 8, 5), num(3.0, 8, 5))), 0, 1), two])


def test_the_frames_of_simplify_lead_from_its_input_to_its_output() -> None:
    g = with_origins(network(), 5)
    out, events = firings(g, list(simplify.RULES))
    assert len(events) >= 8
    p = record(g, out, events)
    assert len(p.stages[0].frames) == len(events)
    assert of_frame(p, 0) == of_graph(g)
    assert of_frame(p, -1) == of_graph(out)
    assert frames.graph_at(p, 0, -1).alive == set(p.simplified)
    with pytest.raises(IndexError, match=f"frames 0 to {len(events)}, not {len(events) + 1}"):
        frames.graph_at(p, 0, len(events) + 1)


def stopped(rules: list[Rule], after: int) -> list[Rule]:
    """The same rules, which fire no more once they fired `after` times."""
    left = [after]

    def limited(build: Any) -> Any:
        def f(n: Node) -> Node | None:
            new = build(n) if left[0] else None
            if new is not None and new is not n:
                left[0] -= 1
            return new

        return f

    return [Rule(r.name, r.reason, r.pattern, limited(r.build)) for r in rules]


def test_every_frame_is_the_graph_that_the_engine_had() -> None:
    g = with_origins(network(), 5)
    rules = [r for r in simplify.RULES if not r.sole]
    out, events = firings(g, rules, merge=False)
    p = record(g, out, events)
    assert len(events) >= 5
    for k in range(len(events) + 1):
        partial, n = rewrite(g, stopped(rules, k), "simplify", merge=False, observe=lambda e: None)
        assert n == k
        assert of_frame(p, k) == of_graph(partial), f"frame {k}"


def with_origins(g: Graph, lines: int) -> Graph:
    """As recorded by a user's program of so many lines, in which several nodes come from one line."""
    origins = [(Origin((), f"m{i}", "forward"),) for i in range(lines)]
    new: dict[Node, Node] = {}
    for i, n in enumerate(g.nodes):
        new[n] = n._replace(src=tuple(new[s] for s in n.src), origin=origins[i * lines // len(g)])
    return Graph(new[r] for r in g.roots)


def random_graph(rng: random.Random, size: int) -> Graph:
    nodes = [buf(f"b{i}", 4, 4) for i in range(3)] + [num(1.0, 4, 4), num(0.0, 4, 4)]
    for _ in range(size):
        kind = rng.choice(["add", "mul", "sub", "maximum", "neg", "permute", "reshape"])
        a, b = rng.choice(nodes[-12:] + nodes[:5]), rng.choice(nodes[-12:] + nodes[:5])
        if kind == "permute":
            nodes.append(op("permute", (4, 4), a, arg=(1, 0)))
        elif kind == "reshape":
            nodes.append(op("reshape", (4, 4), op("reshape", (16,), a)))
        else:
            nodes.append(ew(kind, a) if kind == "neg" else ew(kind, a, b))
    return Graph(nodes[-3:])


@pytest.mark.parametrize("lines", [1, 6, 1000])
@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_followed_through_all_rules(seed: int, lines: int) -> None:
    g = with_origins(random_graph(random.Random(seed), 60), lines)
    out, events = firings(g, list(simplify.RULES))
    p = record(g, out, events)
    assert of_frame(p, 0) == of_graph(g)
    for k in range(len(p.stages[0].frames)):
        of_frame(p, k)  # asserts that added and removed nodes are those that the roots reach
    assert frames.graph_at(p, 0, -1).alive == set(p.simplified)
    assert of_frame(p, -1) == of_graph(out)


def test_a_pass_of_4000_firings_is_small_and_nothing_moves() -> None:
    """4,000 firings, sent as deltas, stay under 1 MB; positions are of nodes, so a node has one for all frames."""
    import json

    from tinyviz.codec import to_json

    x = buf("x", 4, 4)
    for _ in range(4000):
        x = ew("mul", ew("add", x, buf("y", 4, 4)), num(1.0, 4, 4))
    g = with_origins(Graph([x]), 4000)
    out, events = firings(g, [r for r in simplify.RULES if r.name == "multiply-by-one"], merge=False)
    assert len(events) == 4000
    p = record(g, out, events)
    f = p.stages[0].frames
    base = layout.layout(p.nodes, p.recorded, [p.nodes.src[i] for i in p.recorded])
    all_places = layout.follow(base, p.recorded, [f], len(p.nodes))
    assert all_places.x[: len(base.x)] == base.x and all_places.y[: len(base.y)] == base.y
    new = set(range(len(p.nodes))) - set(p.recorded)
    columns = [{k: [v[i] for i in new] for k, v in vars(p.nodes).items()}, [all_places.x[i] for i in new], to_json(f)]
    assert len(json.dumps(columns)) < 1_000_000
    assert frames.graph_at(p, 0, -1).alive == set(p.simplified)


def test_blame_leads_back_to_the_recorded_node() -> None:
    g = with_origins(network(), 5)
    out, events = firings(g, list(simplify.RULES))
    p = record(g, out, events)
    made = [i for i in p.simplified if i not in p.recorded]
    assert made
    for i in made:
        chain = frames.blame(p, i)
        assert chain
        stage, k = chain[-1]
        assert p.stages[stage].frames.replaced[k] in p.recorded
    gone = [i for i in p.recorded if i not in p.simplified]
    assert gone and all(frames.became(p, i) == i or frames.became(p, i) not in p.stages[0].frames.replaced for i in gone)
