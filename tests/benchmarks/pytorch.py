"""The same in PyTorch, eager and compiled. Optimizers are its fused ones, its quickest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.benchmarks.by_hand import A, Array, B, C, D
from tests.benchmarks.by_hand_networks import EPS, LR, SGD_LR


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 512), nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        return self.fc2(F.relu(self.fc1(x)))


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm1 = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 32, 5), nn.BatchNorm2d(32)
        self.conv3, self.conv4, self.norm2 = nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)
        self.fc = nn.Linear(576, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(self.norm1(F.relu(self.conv2(F.relu(self.conv1(x))))), 2)
        x = F.max_pool2d(self.norm2(F.relu(self.conv4(F.relu(self.conv3(x))))), 2)
        return self.fc(x.flatten(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(65, 128), nn.Embedding(64, 128)
        self.blocks = nn.ModuleList(Block(128, 4) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 65)

    def forward(self, x: Any) -> Any:
        h = self.letters(x) + self.places.weight
        for b in self.blocks:
            h = b(h)
        return self.head(self.norm(h)).reshape(-1, 65)


NETWORKS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN, "gpt": GPT}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "chain": lambda x: F.gelu(x * A + B, approximate="tanh") * C + D,
    "sum": lambda x: x.sum(),
    "softmax": lambda x: torch.softmax(x, -1),
    "layernorm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "matmul": lambda a, b: a @ b,
    "conv": lambda x, w: F.conv2d(x, w, padding=1),
    "attention": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
}


def make(work: str, inputs: Mapping[str, Array], compile: bool = False) -> tuple[Any, Any]:
    """(call, read), as in `by_hand`."""
    given = {k: torch.from_numpy(v.copy()) for k, v in inputs.items()}
    results: list[Any] = []
    if work in FUNCTIONS:
        f = torch.compile(FUNCTIONS[work], dynamic=False) if compile else FUNCTIONS[work]
        arguments = list(given.values())
        return functools.partial(f, *arguments), lambda: [f(*arguments).numpy()]
    model = NETWORKS[work]()
    if len(inputs) > 2:
        model.load_state_dict({k: v for k, v in given.items() if k not in "xy"}, strict=False)
    parameters = dict(model.named_parameters())
    sgd = work == "mlp"
    optimizer: Any = (
        torch.optim.SGD(model.parameters(), lr=SGD_LR, fused=True)
        if sgd
        else torch.optim.Adam(model.parameters(), lr=LR, eps=EPS, fused=True)
    )
    x, y = given["x"], given["y"].long()

    def loss_of(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y)

    loss_function = torch.compile(loss_of, dynamic=False) if compile else loss_of

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_function(x, y)
        loss.backward()
        optimizer.step()
        results[:] = [loss]

    names = [k for k in inputs if k not in "xy"]
    return step, lambda: [t.detach().numpy() for t in (*results, *(parameters[k] for k in names))]


def small_op() -> Any:
    """One operation on a small tensor, executed at once."""
    x = torch.zeros(8)
    return lambda: x + 1.0
