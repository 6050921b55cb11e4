"""The same with tinyviz's engine: every case is a jitted function, as a user would write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.by_hand import EPS, LR, A, Array, B, C, D
from tests.networks import CNN, MLP
from tinyengine import Tensor, jit, optim
from tinyengine.state import load_state_dict


def make(name: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read), as in `by_hand`."""
    given = {k: Tensor(v) for k, v in inputs.items()}
    results: list[Any] = []
    if name in ("mlp", "cnn"):
        model = MLP() if name == "mlp" else CNN()
        load_state_dict(model, {k: v for k, v in inputs.items() if k not in "xy"})
        optimizer = optim.Adam(model.parameters(), lr=LR, eps=EPS)

        @jit
        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = model(x).cross_entropy(y)
            loss.backward()
            optimizer.step()
            return loss

        x, y = given["x"], given["y"]
        return (lambda: results.__setitem__(slice(None), [step(x, y)])), lambda: [
            t.numpy() for t in (*results, *model.parameters())
        ]
    fs: dict[str, Any] = {
        "chain": lambda x: (x * A + B).gelu("tanh") * C + D,
        "softmax": lambda x: x.softmax(-1),
        "layernorm": lambda x: x.layernorm(),
    }
    f = jit(fs.get(name, lambda a, b: a @ b))
    arguments = list(given.values())
    return (lambda: results.__setitem__(slice(None), [f(*arguments)])), lambda: [t.numpy() for t in results]


def small_op() -> Any:
    """One lazy operation on a small tensor, recorded and not executed."""
    x = Tensor([0.0] * 8)
    return lambda: x + 1.0
