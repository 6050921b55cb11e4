"""The networks of the benchmark, as a user of tinyviz would write them."""

from __future__ import annotations

from tinyengine import Tensor, nn


class MLP(nn.Module):
    """784-512-10, ReLU."""

    def __init__(self) -> None:
        self.fc1, self.fc2 = nn.Linear(784, 512), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x).relu())


class CNN(nn.Module):
    """For MNIST: two blocks of two convolutions, batch norm and max pooling, then a linear layer."""

    def __init__(self) -> None:
        self.conv1, self.conv2, self.norm1 = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 32, 5), nn.BatchNorm2d(32)
        self.conv3, self.conv4, self.norm2 = nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)
        self.fc = nn.Linear(576, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv2(self.conv1(x).relu()).relu()).max_pool2d(2)
        x = self.norm2(self.conv4(self.conv3(x).relu()).relu()).max_pool2d(2)
        return self.fc(x.flatten(1))


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = q.scaled_dot_product_attention(k, v, is_causal=True)
        x = x + self.proj(y.permute(0, 2, 1, 3).reshape(n, t, c))
        return x + self.down(self.up(self.norm2(x)).gelu("tanh"))


class GPT(nn.Module):
    """4 blocks of width 128 with 4 heads, 64 positions, 65 letters."""

    def __init__(self) -> None:
        self.letters, self.places = nn.Embedding(65, 128), nn.Embedding(64, 128)
        self.blocks = [Block(128, 4) for _ in range(4)]
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 65)

    def forward(self, x: Tensor) -> Tensor:
        h = self.letters(x) + self.places(Tensor.arange(x.shape[1]))
        for b in self.blocks:
            h = b(h)
        return self.head(self.norm(h)).reshape(-1, 65)


NETWORKS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN, "gpt": GPT}
