"""The same in PyTorch, eager."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from tests.benchmarks.by_hand import EPS, LR, A, Array, B, C, D


class MLP(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(64, 256), torch.nn.Linear(256, 10)

    def forward(self, x: Any) -> Any:
        return self.fc2(F.relu(self.fc1(x)))


class CNN(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.Conv2d(16, 32, 3, padding=1)
        self.fc = torch.nn.Linear(128, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


def make(name: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read), as in `by_hand`."""
    given = {k: torch.from_numpy(v.copy()) for k, v in inputs.items()}
    results: list[Any] = []
    if name in ("mlp", "cnn"):
        model = MLP() if name == "mlp" else CNN()
        model.load_state_dict({k: v for k, v in given.items() if k not in "xy"})
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, eps=EPS)
        x, y = given["x"], given["y"].long()

        def step() -> None:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            results[:] = [loss]

        return step, lambda: [t.detach().numpy() for t in (*results, *model.parameters())]
    fs: dict[str, Any] = {
        "chain": lambda: F.gelu(given["x"] * A + B, approximate="tanh") * C + D,
        "softmax": lambda: torch.softmax(given["x"], -1),
        "layernorm": lambda: F.layer_norm(given["x"], given["x"].shape[-1:]),
    }
    f = fs.get(name, lambda: given["a"] @ given["b"])

    @torch.no_grad()
    def call() -> None:
        results[:] = [f()]

    return call, lambda: [t.numpy() for t in results]


def small_op() -> Any:
    """One operation on a small tensor, executed at once."""
    x = torch.zeros(8)
    return lambda: x + 1.0
