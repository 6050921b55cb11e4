"""Recurrent cells and layers: PyTorch's parameters, values and gradients; and how often a sequence is multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.peer import draw, torch, value
from tests.engine.test_nn import twin
from tinyengine import Tensor, jit, nn, state
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower

LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "bias": False}),
    ("GRU", {"batch_first": True}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"num_layers": 2}),
    ("LSTM", {"bidirectional": True, "batch_first": True}),
]


def flat(out: Any) -> list[Any]:
    return [t for o in out for t in (o if isinstance(o, tuple) else (o,))]


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name, options", LAYERS)
def test_layers_are_pytorchs(name: str, options: dict[str, Any], batched: bool, start: bool) -> None:
    ours, theirs = getattr(nn, name)(3, 4, **options), getattr(torch.nn, name)(3, 4, **options)
    twin(ours, theirs)
    x = draw((3, 2, 3) if batched else (3, 3), -1, 1, 1)
    places = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    n = (x.shape[0] if options.get("batch_first") else x.shape[1],) if batched else ()
    given = [draw((places, *n, 4), -1, 1, k) for k in range(2 if name == "LSTM" else 1)]

    def run(layer: Any, make: Any) -> list[Any]:
        s = tuple(map(make, given))
        return flat(layer(make(x), (s if name == "LSTM" else s[0]) if start else None))

    found, expected = run(ours, Tensor), run(theirs, torch.tensor)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(value(a), b.detach().numpy(), atol=1e-5)
    for out in (found, expected):
        sum((t * t).sum() for t in out).backward()
    for p, q in zip(state.get_parameters(ours), theirs.parameters(), strict=True):
        np.testing.assert_allclose(value(p.grad), q.grad.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["RNNCell", "GRUCell"])
def test_cells_are_pytorchs(name: str) -> None:
    ours, theirs = getattr(nn, name)(4, 3), getattr(torch.nn, name)(4, 3)
    twin(ours, theirs)
    x, h = draw((2, 4), -1, 1, 1), draw((2, 3), -1, 1, 2)
    for state_ in ((), (h,)):
        a, b = ours(*map(Tensor, (x, *state_))), theirs(*map(torch.tensor, (x, *state_)))
        np.testing.assert_allclose(value(a), b.detach().numpy(), atol=1e-5)


def test_inputs_of_all_steps_are_one_product() -> None:
    """And each step after it one kernel: the product with the state, the gates and the next state."""
    layer, x = nn.GRU(8, 16, batch_first=True), Tensor(draw((4, 6, 8), -1, 1, 1))
    f = jit(lambda x: layer(x)[0])
    f(x)
    assert sum(c.flops for c in f.lowered[0].certificate.kernels[:1]) >= 2 * 4 * 6 * 8 * 48
    assert len(f.kernels) <= 2 * 6 + 3


def test_a_state_of_zeros_is_multiplied_once_for_all_of_the_batch() -> None:
    """It is not left out: 0 times what is not finite is not 0."""
    w = Tensor(draw((48, 16), -1, 1, 1))
    found = lower(Graph([Tensor.zeros(64, 16).linear(w).node]), machine=FIXTURE)
    assert found.certificate.flops == 2 * 48 * 16
    assert not found.run()[0].any()


def test_what_they_refuse() -> None:
    layer = nn.LSTM(3, 4)
    with pytest.raises(RuntimeError, match=r"LSTM takes \(T, N, 3\), got shape \[2, 2, 4\]\n  at .*test_recurrent"):
        layer(Tensor(np.zeros((2, 2, 4), np.float32)))
    with pytest.raises(RuntimeError, match=r"LSTM: the state is \[1, 2, 4\], got shape \[1, 2, 5\]"):
        layer(*(Tensor(np.zeros(s, np.float32)) for s in ((2, 2, 3),)), (Tensor(np.zeros((1, 2, 5), np.float32)),) * 2)
    with pytest.raises(ValueError, match=r"'tanh' or 'relu', not 'gelu'\n  at .*test_recurrent"):
        nn.RNN(3, 4, nonlinearity="gelu")
    with pytest.raises(ValueError, match="num_layers=0"):
        nn.GRU(3, 4, num_layers=0)
