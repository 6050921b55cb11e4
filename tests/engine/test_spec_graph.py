"""The spec of graphs: for each sentence the programs that break it, and one that keeps them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.engine import graphs as g
from tinyengine import dtypes, spec
from tinyengine.node import Graph, Node
from tinyengine.origin import here
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages.specs.graph import SPEC

F32, I32, BOOL = dtypes.float32, dtypes.int32, dtypes.bool_


def buf(*shape: int, dtype: dtypes.DType = F32) -> Node:
    return Node("buffer", dtype, shape, (), Buffer(int(np.prod(shape)), dtype), here())


def node(op: str, dtype: dtypes.DType, shape: tuple[int, ...], *src: Node, arg: Any = None) -> Node:
    return Node(op, dtype, shape, src, arg, here())


X, Y, I, B = buf(2, 3), buf(2, 3), buf(2, 3, dtype=I32), buf(2, 3, dtype=BOOL)
O = here()[0]
E = node("exp", F32, (2, 3), X)

BROKEN: dict[str, list[Node]] = {
    "Every op stands in the op table": [
        node("relu", F32, (2, 3), X), node("add", F32, (2, 3), X), node("exp", F32, (2, 3), X, Y),
        node("const", F32, (), X, arg=1.0),
    ],
    "The operands of an elementwise op have the shape": [
        node("add", F32, (2, 3), X, buf(3)), node("exp", F32, (3, 2), X), node("where", F32, (2, 3), buf(2, 1, dtype=BOOL), X, Y),
    ],
    "The operands of an elementwise op have the dtype": [
        node("add", F32, (2, 3), X, I), node("lt", F32, (2, 3), X, Y), node("lt", BOOL, (2, 3), X, I),
        node("where", F32, (2, 3), X, X, Y), node("exp", I32, (2, 3), I), node("div", I32, (2, 3), I, I),
        node("and", F32, (2, 3), X, Y), node("shl", BOOL, (2, 3), B, B), node("neg", BOOL, (2, 3), B),
        node("threefry", I32, (2, 3), I, I), node("bitcast", dtypes.int64, (2, 3), X),
    ],
    "A constant is a number": [
        node("const", F32, (), arg=1), node("const", I32, (), arg=1.0), node("const", dtypes.uint8, (), arg=256),
        node("const", BOOL, (), arg=1), node("const", I32, (), arg=True), node("const", F32, (), arg=None),
    ],
    "The memory of a buffer node": [
        X._replace(shape=(2, 4)), X._replace(dtype=I32),
    ],
    "An iota counts": [node("iota", I32, (3,), arg=1), node("iota", I32, (3,), arg=None), node("iota", BOOL, (3,), arg=0)],
    "A movement keeps the dtype": [
        node("reshape", I32, (6,), X), node("reshape", F32, (5,), X), node("reshape", F32, (6,), X, arg=(6,)),
        node("permute", F32, (2, 3), X, arg=(1, 0)), node("permute", F32, (2, 2), X, arg=(0, 0)), node("expand", F32, (4, 3), X),
        node("expand", F32, (1, 2, 3), X), node("slice", F32, (2, 3), X, arg=((0, 1), (1, 1))),
        node("slice", F32, (2, 3), X, arg=((0, 1),)), node("slice", F32, (2, 1), X, arg=((0, 1), (-1, 1))),
        node("pad", F32, (2, 3), X, arg=((0, 0, 0), (1, 0, 0))), node("pad", F32, (2, 2), X, arg=((0, 0, 0), (-1, 0, 0))),
        node("flip", F32, (2, 3), X, arg=(2,)), node("flip", F32, (2, 3), X, arg=(1, 1)),
        node("window", F32, (2, 3), X, arg=(1, 0, 1, 1)), node("window", F32, (2, 2), X, arg=(1, 1, 1, 1)),
        node("place", F32, (2, 3), X, arg=(1, 0, 1, 1)),
    ],
    "A reduction names distinct axes": [
        node("sum", F32, (2,), X, arg=(1,)), node("sum", F32, (2, 3), X, arg=(1,)), node("sum", F32, (2, 1), X, arg=(2,)),
        node("sum", F32, (2, 1), X, arg=(1, 1)), node("sum", F32, (2, 1), X, arg=1), node("max", I32, (2, 1), X, arg=(1,)),
    ],
    "A scan goes": [
        node("scan_add", F32, (2, 3), X, arg=(2, False)), node("scan_add", F32, (2, 1), X, arg=(1, False)),
        node("scan_max", I32, (2, 3), X, arg=(1, True)), node("scan_mul", F32, (2, 3), X, arg=(1, 0)),
    ],
    "A gather or scatter": [
        node("gather", F32, (2, 3), X, Y, arg=0), node("gather", F32, (2, 3), X, I, arg=2),
        node("gather", F32, (2, 1), X, I, arg=0), node("gather", I32, (2, 3), X, I, arg=0),
        node("gather", F32, (2, 3), buf(2), I, arg=0), node("gather", F32, (2, 3), buf(4, 2), I, arg=0),
        node("scatter_add", F32, (2, 3), X, I, buf(3, 3), arg=0), node("scatter_add", F32, (2, 3), X, I, I, arg=0),
        node("scatter_add", F32, (4, 3), X, I, Y, arg=0),
    ],
    "An effect keeps": [
        node("assign", F32, (2, 3), node("exp", F32, (2, 3), X), Y), node("assign", F32, (2, 3), X, I),
        node("assign", F32, (2, 3), X, buf(3, 2)), node("contiguous", F32, (3, 2), X),
    ],
    "A user's function has": [
        node("function", F32, (2, 3), X, Y, arg=SimpleNamespace(index=2)),
        node("function", F32, (3, 2), X, Y, arg=SimpleNamespace(index=1)),
        node("function", F32, (2, 3), I, arg=SimpleNamespace(index=0)),
    ],
    "Every node has an origin": [X._replace(origin=()), X._replace(origin=(O._replace(phase="sideways"),))],
    "A backward node names": [
        E._replace(origin=(O._replace(phase="backward"),)), E._replace(origin=(O._replace(phase="backward", forward=Y),)),
        E._replace(origin=(O, O._replace(phase="backward", derivative="d-add"))),
    ],
}  # fmt: skip


@pytest.mark.parametrize("sentence", BROKEN)
def test_what_breaks_a_sentence_is_told_so(sentence: str) -> None:
    for bad in BROKEN[sentence]:
        with pytest.raises(spec.SpecError) as e:
            spec.check("record", SPEC, Graph([bad]))
        assert e.value.sentence.startswith(sentence), f"{bad!r} broke: {e.value.sentence}"
        assert f"%{Graph([bad]).number[bad]} {bad!r}" in e.value.where and e.value.stage == "record"


def test_every_sentence_has_a_program_that_breaks_it() -> None:
    for sentence, _ in SPEC:
        assert sum(sentence.startswith(start) for start in BROKEN) == 1
    assert len(SPEC) == len(BROKEN)


def test_graphs_that_keep_every_sentence() -> None:
    backward = (O._replace(phase="backward", forward=X, derivative="d-exp"),)
    roots = [
        g.softmax(X), g.layernorm(X), g.conv2d(buf(1, 2, 5, 5), buf(3, 2, 3, 3), 1), node("cast", I32, (2, 3), X),
        node("bitcast", I32, (2, 3), X), node("gather", F32, (2, 3), buf(9, 3), I, arg=0), node("assign", F32, (2, 3), X, Y),
        node("scatter_add", F32, (9, 3), buf(9, 3), I, X, arg=0), node("iota", I32, (2, 3), arg=1),
        node("and", BOOL, (2, 3), B, B), node("pad", F32, (8, 3), X, arg=((2, 2, 2), (0, 0, 0))),
        node("slice", F32, (1, 0), X, arg=((1, 3), (0, 1))), node("place", F32, (4, 3), buf(2, 3), arg=(0, 1, 1, 1)),
        node("exp", F32, (2, 3), X)._replace(origin=backward), node("reshape", F32, (0, 3), buf(3, 0)),
    ]  # fmt: skip
    new: dict[Node, Node] = {}
    for n in Graph(roots):
        new[n] = n._replace(src=tuple(new[s] for s in n.src), origin=n.origin or here())
    spec.check("record", SPEC, Graph(new[r] for r in roots))


def test_a_disabled_spec_checks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spec.enabled
    monkeypatch.setattr(spec, "enabled", False)
    spec.check("record", SPEC, Graph([BROKEN["Every op stands in the op table"][0]]))


def test_the_error_names_stage_sentence_place_and_line() -> None:
    bad = node("add", F32, (2, 3), X, I)
    with pytest.raises(spec.SpecError) as e:
        spec.check("simplify", SPEC, Graph([bad]), "some-rule")
    text = str(e.value)
    assert "stage simplify broke its spec: The operands" in text and "the rule that broke it: rule some-rule" in text
    assert "%2 Node(add, float32, (2, 3))" in text and "test_spec_graph.py" in text
