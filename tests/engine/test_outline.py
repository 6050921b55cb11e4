"""Code that is not jitted finds its program by its outline: no graph is made at a turn like an earlier one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, dtypes, hooks, varying
from tinyengine import realize as engine
from tinyengine.node import Graph, Node, const
from tinyengine.outline import Known, Outline
from tinyengine.pipeline import lower


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the graphs that are made."""
    varying.forget()
    sizes: list[int] = []
    init = Graph.__init__

    def counted(self: Graph, roots: Any) -> None:
        init(self, roots)
        sizes.append(len(self))

    monkeypatch.setattr(Graph, "__init__", counted)
    yield sizes
    varying.forget()


def f32(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32)).realize()


@pytest.mark.parametrize(
    "turn",
    [
        lambda x, i: ((x @ x).relu() * 2.0 + 1.0).sum(),
        lambda x, i: (x * (i + 0.5)).softmax(-1) + (i + 0.5),
        lambda x, i: x[i] + x[i : i + 2].sum(),
        lambda x, i: (x == float(i)) & (x > -0.0),
        lambda x, i: x.pad((0, 0, i, 4 - i)) * 3.0,
    ],
)
def test_a_turn_like_an_earlier_one_makes_no_graph(made: list[int], turn: Callable[[Tensor, int], Tensor]) -> None:
    x = f32(6, 6)
    for i in range(3):
        turn(x, i).realize()
    expected = [turn(Tensor(x.numpy()), i).numpy() for i in range(4)]  # of another memory
    made.clear()
    found = [turn(x, i).numpy() for i in (0, 1, 2, 3)]
    assert made == []
    varying.forget()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_update_in_place_makes_no_graph_either(made: list[int]) -> None:
    w = f32(4)
    before = w.numpy()
    for i in range(4):
        if i == 2:
            made.clear()
        w.assign(w * 0.5 + 1.0)
        assert w.sum().item() == pytest.approx(float(w.numpy().sum()))
    assert made == []
    np.testing.assert_allclose(w.numpy(), before / 16 + 1.875, rtol=1e-6)


def test_numbers_that_were_equal_and_differ_are_no_longer_one_input(made: list[int]) -> None:
    x = f32(5)
    for a, b in [(1.5, 1.5), (2.5, 2.5), (3.5, 3.5), (4.5, 0.5), (5.5, 0.25), (0.0, -0.0), (float("inf"), float("nan"))]:
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal((x * a + b).numpy(), x.numpy() * np.float32(a) + np.float32(b))


def test_one_outline_is_one_key() -> None:
    x, y = f32(3), f32(3)

    def key(*roots: Node) -> tuple[Any, Any]:
        o = Outline(roots)
        return (o.form, o.numbers), Graph(roots).key()[0]

    graphs: list[tuple[Node, ...]] = [
        ((x + y).node,), ((x + x).node,), ((y + x).node,), ((x + y).node, (x + y).node), ((x + 1.0).node,), ((x + 2.0).node,),
        ((x + 0.0).node,), ((x + -0.0).node,), (x[0:2].node,), (x[1:3].node,), (x.pad((1, 0)).node,), (x.pad((0, 1)).node,),
        (const(1, dtypes.bool_),), (const(1, dtypes.int32),), (const(1, dtypes.float32),), (const(0, dtypes.bool_),),
    ]  # fmt: skip
    pairs = [key(*g) for g in graphs]
    for a, b in pairs:
        for c, d in pairs:
            assert (a == c) == (b == d)
    assert Outline(graphs[0]).buffers == [x.node.arg, y.node.arg] == Graph(graphs[0]).key()[1]


def test_what_is_watched_is_told_as_ever() -> None:
    x = f32(3)
    for _ in range(2):
        (x + 7.0).realize()
    heard: list[Any] = []
    with hooks.subscribed(heard.append):
        (x + 7.0).realize()
    assert {type(e).__name__ for e in heard} >= {"Realized", "CacheHit", "Launch"}


def test_a_bad_index_names_the_line_of_this_turn() -> None:
    x = f32(4)
    where = Tensor([0, 1])
    for _ in range(2):
        x[where].realize()
    with pytest.raises(IndexError, match="far_off"):
        far_off = Tensor([9, 1])
        x[far_off].realize()  # far_off


def test_an_outline_alone_finds_no_program() -> None:
    x = f32(7)
    (x * 1.25).realize()
    o = Outline([(x * 1.25).node])
    assert engine._known.find(o) is not None and Known().find(o) is None
    engine.programs.clear()
    np.testing.assert_array_equal((x * 1.25).numpy(), x.numpy() * np.float32(1.25))


def test_what_a_compilation_leaves_is_old_for_the_collector() -> None:
    x = f32(11, 13)
    y = (x.softmax(-1) @ x.T).layernorm().gelu().sum(0)
    gc.collect()
    before = len(gc.get_objects())
    made = lower(Graph([y.node]), backend="null")
    with engine.uncollected():
        assert made.plan.calls
        kept = len(gc.get_objects()) - before
    young = len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1))
    assert young < 1000 < kept
