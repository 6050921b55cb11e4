"""The same with tinyviz's engine: every case is a jitted function, as a user would write it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tests.benchmarks.by_hand import A, Array, B, C, D
from tests.benchmarks.by_hand_networks import EPS, LR, SGD_LR
from tests.benchmarks.networks import NETWORKS
from tinyengine import Tensor, jit, optim
from tinyengine.state import load_state_dict

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "chain": lambda x: (x * A + B).gelu("tanh") * C + D,
    "sum": lambda x: x.sum(),
    "softmax": lambda x: x.softmax(-1),
    "layernorm": lambda x: x.layernorm(),
    "matmul": lambda a, b: a @ b,
    "conv": lambda x, w: x.conv2d(w, padding=1),
    "attention": lambda q, k, v: q.scaled_dot_product_attention(k, v),
}


def make(work: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read), as in `by_hand`. A network without parameters among its inputs makes its own."""
    given = {k: Tensor(v) for k, v in inputs.items()}
    results: list[Any] = []
    if work in FUNCTIONS:
        f, arguments = jit(FUNCTIONS[work]), list(given.values())
        return functools.partial(f, *arguments), lambda: [f(*arguments).numpy()]
    model = NETWORKS[work]()
    if len(inputs) > 2:
        load_state_dict(model, {k: v for k, v in inputs.items() if k not in "xy"}, strict=False)
    parameters = dict(model.named_parameters())
    sgd = work == "mlp"
    optimizer = optim.SGD(model.parameters(), lr=SGD_LR) if sgd else optim.Adam(model.parameters(), lr=LR, eps=EPS)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = given["x"], given["y"]
    names = [k for k in inputs if k not in "xy"]
    return (lambda: results.__setitem__(slice(None), [step(x, y)])), lambda: [
        t.numpy() for t in (*results, *(parameters[k] for k in names))
    ]


def small_op() -> Any:
    """One lazy operation on a small tensor, recorded with its origin and not executed."""
    x = Tensor([0.0] * 8)
    return lambda: x + 1.0
