"""The networks on scikit-learn's digits that the counts and the benchmarks use, and one training step of each."""

from __future__ import annotations

from typing import Any

from tinyengine import Tensor, jit, manual_seed, nn, optim
from tinyengine.state import get_parameters

BATCH = 128


class MLP(nn.Module):
    """64-256-10, ReLU: the network of `tinyviz demo`."""

    shape = (64,)

    def __init__(self) -> None:
        self.fc1 = nn.Linear(64, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x).relu()
        return self.fc2(h)


class CNN(nn.Module):
    """Two 3×3 convolutions (16, 32 channels), each with ReLU and 2×2 max pooling, then a linear layer."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x).relu().max_pool2d(2)
        h = self.conv2(h).relu().max_pool2d(2)
        return self.fc(h.flatten(1))


class Transformer(nn.Module):
    """A pre-norm transformer block of width 32 with 4 heads; each row of a digit is a token; their mean goes to a linear one."""

    shape = (8, 8)

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        self.heads = heads
        self.embed = nn.Linear(8, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attend(self.norm1(x))
        x = x + self.down(self.up(self.norm2(x)).gelu())
        return self.head(x.mean(1))

    def attend(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = q.scaled_dot_product_attention(k, v)
        return self.proj(y.permute(0, 2, 1, 3).reshape(n, t, c))


def training(kind: type[nn.Module], lr: float = 1e-3) -> tuple[nn.Module, Any]:
    """A model with fresh parameters and its jitted step: (images, labels) -> loss, by Adam."""
    manual_seed(0)
    model = kind()
    optimizer = optim.Adam(get_parameters(model), lr=lr)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    return model, step
