"""The driver of the rules: firings, origins, merging, errors. The values that rules keep are in test_rules_values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine import graphs as g
from tinyengine import hooks, rules, spec
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node
from tinyengine.origin import Origin, here
from tinyengine.rules import RewriteError, Rule
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import simplify
from tinyengine.stages.specs import graph as graph_spec


def buffer(*shape: int) -> Node:
    b = Buffer(int(np.prod(shape)), g.F32)
    return Node("buffer", g.F32, shape, (), b, here())


def line(n: int) -> tuple[Origin]:
    """Origins that differ in the module path only, to tell them apart."""
    return (here()[0]._replace(module=f"line{n}"),)


def at(n: Node, k: int) -> Node:
    return n._replace(origin=line(k))


def lines(n: Node) -> list[str]:
    return [o.module for o in n.origin]


def counts(graph: Graph) -> dict[str, int]:
    out: dict[str, int] = {}
    for e in simplify.explain(graph, machine=FIXTURE):
        out[e.rule] = out.get(e.rule, 0) + 1
    return out


def complete(*roots: Node) -> Graph:
    new: dict[Node, Node] = {}
    for n in Graph(roots):
        new[n] = n._replace(src=tuple(new[s] for s in n.src), origin=n.origin or here())
    return Graph(new[r] for r in roots)


# ---- firings


def test_linear_relu_needs_few_firings() -> None:
    x, w, b = buffer(4, 8), buffer(8, 16), buffer(16)
    z = g.expand(g.reshape(g.num(0.0), 1, 1), 4, 16)
    y = g.ew("maximum", g.ew("add", g.matmul(x, w), g.expand(g.reshape(b, 1, 16), 4, 16)), z)
    assert counts(complete(y)) == {"move-constant": 2}
    assert sum(counts(complete(y)).values()) <= 150


def test_firing_counts_of_a_known_graph() -> None:
    x = buffer(4, 8)
    a = g.ew("mul", g.num(1.0, 4, 8), x)  # constant-right, multiply-by-one
    c = g.ew("neg", g.ew("neg", g.ew("exp", a)))  # negate-twice
    d = g.ew("exp", g.reshape(g.reshape(x, 32), 4, 8))  # reshape-of-reshape; then equal to exp(x)
    assert counts(complete(g.ew("add", c, d))) == {
        "constant-right": 1, "multiply-by-one": 1, "negate-twice": 1, "reshape-of-reshape": 1, "merge-equal": 1,
    }  # fmt: skip


def test_explain_replays_what_a_subscriber_saw_and_publishes_nothing() -> None:
    graph = complete(g.ew("neg", g.ew("neg", g.ew("mul", buffer(3), g.num(1.0, 3)))))
    seen: list[Any] = []
    with hooks.subscribed(seen.append, hooks.RuleApplied):
        simplify.run(graph, machine=FIXTURE)
        watched = len(seen)
        again = simplify.explain(graph, machine=FIXTURE)
    assert watched == len(seen) == len(again) == 2
    assert [(e.rule, e.number, repr(e.before), repr(e.after)) for e in seen] == [
        (e.rule, e.number, repr(e.before), repr(e.after)) for e in again
    ]
    assert [e.number for e in again] == [0, 1] and all(e.stage == "simplify" and e.reason for e in again)


def test_split_firings_are_numbered_on() -> None:
    graph = complete(g.red("sum", g.ew("mul", buffer(1 << 16), g.num(1.0, 1 << 16)), 0))
    assert [(e.number, e.rule) for e in simplify.explain(graph, machine=FIXTURE)] == [
        (0, "multiply-by-one"), (1, "split-large-reduction"),
    ]  # fmt: skip


def test_the_same_graph_gives_the_same_firings() -> None:
    def build() -> Graph:
        x = buffer(4, 4)
        return complete(g.ew("add", g.softmax(x), g.ew("mul", g.softmax(x), g.num(1.0, 4, 4))))

    assert [(e.rule, repr(e.after)) for e in simplify.explain(build(), machine=FIXTURE)] == [
        (e.rule, repr(e.after)) for e in simplify.explain(build(), machine=FIXTURE)
    ]


# ---- origins


def test_merging_unites_origins_and_what_stands_above_sees_them() -> None:
    x = at(buffer(3), 1)
    a, b = at(g.ew("exp", x), 2), at(g.ew("exp", x), 3)
    out, _ = simplify.run(Graph([at(g.ew("add", a, b), 4)]), machine=FIXTURE)
    (root,) = out.roots
    assert root.src[0] is root.src[1] and lines(root.src[0]) == ["line2", "line3"] and lines(root) == ["line4"]


def test_a_replaced_node_hands_its_origin_on() -> None:
    x = at(g.ew("exp", at(buffer(3), 1)), 2)
    gone = at(g.ew("mul", x, at(g.num(1.0, 3), 3)), 3)
    out, _ = simplify.run(Graph([gone]), machine=FIXTURE)
    assert lines(out.roots[0]) == ["line2", "line3"]


def test_a_new_node_carries_the_origins_of_what_it_absorbed() -> None:
    inner = at(g.red("sum", at(buffer(4, 5), 1), 1), 2)
    out, _ = simplify.run(Graph([at(g.red("sum", inner, 0), 3)]), machine=FIXTURE)
    assert out.roots[0].arg == (0, 1) and lines(out.roots[0]) == ["line3", "line2"]


def test_inner_nodes_of_a_replacement_get_origins() -> None:
    out, _ = simplify.run(Graph([at(g.red("sum", at(buffer(1 << 16), 1), 0), 2)]), machine=FIXTURE)
    assert [lines(n) for n in out] == [["line1"]] + [["line2"]] * (len(out) - 1)


# ---- merging


def test_contiguous_is_never_merged_and_buffers_are_by_memory() -> None:
    b = Buffer(3, g.F32)
    x, y = Node("buffer", g.F32, (3,), (), b, here()), Node("buffer", g.F32, (3,), (), b, here())
    out, _ = simplify.run(complete(g.op("contiguous", (3,), x), g.op("contiguous", (3,), y)), machine=FIXTURE)
    assert len(out) == 3 and out.roots[0] is not out.roots[1]
    other = Node("buffer", g.F32, (3,), (), Buffer(3, g.F32), here())
    assert len(simplify.run(complete(g.ew("add", x, other)), machine=FIXTURE)[0]) == 3


def test_zeros_of_both_signs_stay_apart() -> None:
    x = buffer(3)
    both = g.ew("where", g.ew("lt", x, x), g.num(0.0, 3), g.num(-0.0, 3))
    assert [n.arg for n in simplify.run(complete(both), machine=FIXTURE)[0] if n.op == "const"] == [0.0, -0.0]
    assert len(simplify.run(complete(both), machine=FIXTURE)[0]) == 5


def test_a_reduction_with_two_users_is_not_computed_twice() -> None:
    inner = g.red("sum", buffer(4, 5), 1)
    both = complete(g.red("sum", inner, 0), g.ew("exp", inner))
    assert "reduce-of-reduce" not in counts(both)
    as_root = complete(g.red("sum", inner, 0), inner)
    assert "reduce-of-reduce" not in counts(as_root)
    assert counts(complete(g.red("sum", inner, 0))) == {"reduce-of-reduce": 1}


def test_rewrite_map_tells_what_became_of_each_node() -> None:
    x = buffer(3)
    dead = g.num(1.0, 3)
    e = g.ew("exp", g.ew("mul", x, dead))
    graph = Graph([e])
    out, became, _ = rules.rewrite_map(graph, simplify.RULES, "simplify")
    assert became[e] is out.roots[0] and became[e.src[0]] is out.roots[0].src[0] and dead not in became


# ---- mistakes of a rule


def bad(build: Any) -> list[Rule]:
    return [Rule("bad-rule", "For a test.", ("exp",), build)]


def test_rules_that_never_rest_are_stopped() -> None:
    grow = bad(lambda n: g.ew("exp", g.ew("exp", g.ew("neg", n.src[0]))))
    with pytest.raises(RewriteError, match="more than 64 deep"):
        rules.rewrite(complete(g.ew("exp", buffer(3))), grow, "simplify")


def test_a_rule_that_changes_shape_or_dtype_is_named() -> None:
    with pytest.raises(RewriteError, match="rule bad-rule changed"):
        rules.rewrite(complete(g.ew("exp", buffer(3))), bad(lambda n: g.reshape(n.src[0], 3, 1)), "simplify")


def test_a_rule_that_breaks_the_spec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = bad(lambda n: Node("sum", n.dtype, n.shape, n.src, (7,), ()))
    monkeypatch.setattr(simplify, "RULES", (*simplify.RULES, *broken))
    graph = complete(g.ew("exp", g.ew("mul", buffer(3), g.num(1.0, 3))))
    with pytest.raises(spec.SpecError) as e:
        simplify.run(graph, machine=FIXTURE)
    assert e.value.rule == "bad-rule" and "reduction names distinct axes" in e.value.sentence
    assert "the rule that broke it: rule bad-rule" in str(e.value)


def test_an_input_that_breaks_the_spec_blames_no_rule() -> None:
    graph = complete(Node("exp", g.F32, (3,), (buffer(4),), None, here()))
    with pytest.raises(spec.SpecError) as e:
        simplify.run(graph, machine=FIXTURE)
    assert e.value.rule == "" and e.value.sentence == graph_spec.SPEC[1][0]


@pytest.mark.parametrize("reason", ["", "x" * 91])
def test_a_rule_needs_a_reason_of_one_sentence(reason: str) -> None:
    with pytest.raises(ValueError, match="1 to 90 characters"):
        Rule("some-rule", reason, ("add",), lambda n: None)
