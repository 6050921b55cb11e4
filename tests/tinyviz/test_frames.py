"""The recorded frames are the graphs that the engine has at these moments; blame goes back from a node to the user's line."""

from __future__ import annotations

import numpy as np

from tinyengine import Tensor, pipeline, realize
from tinyengine.backends.graph_eval import Evaluator
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.stages import simplify
from tinyviz.convert import Parts, program
from tinyviz.frames import graph_at
from tinyviz.tables import Tables


def lowered() -> pipeline.Lowered:
    x, w = (Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32)) for shape in ((6, 8), (8, 5)))
    w.requires_grad = True
    loss = ((x @ w).softmax(1).log() * -1.0).var(0).mean()
    tensors = [loss, *loss.gradient(w)]
    return pipeline.lower(Graph(realize.last_updates([t.node for t in tensors])), machine=FIXTURE)


def test_every_prefix_of_the_firings_keeps_the_values_and_is_the_recorded_frame() -> None:
    """Each firing is allowed by itself; and the recording's frames are the graphs that the engine has at these moments."""
    low = lowered()
    expected = Evaluator(low.graph).run()
    recorded = program(Parts.of(low, emit=False), Tables())
    stage = [s.name for s in recorded.stages].index("simplify")
    firings = len(recorded.stages[stage].frames)
    assert firings > 10
    for k in range(firings + 1):
        graph = simplify.partly(low.graph, k, FIXTURE)
        for a, b in zip(expected, Evaluator(graph).run(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        frame = graph_at(recorded, stage, k).reached()
        assert sorted(recorded.nodes.op[i] for i in frame) == sorted(n.op for n in graph.nodes), k
