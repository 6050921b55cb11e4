"""A small transformer learns to continue a text, character by character."""

import numpy as np

from tinyviz import Tensor, jit, manual_seed, nn, optim

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. " * 8
LETTERS = sorted(set(TEXT))


class Block(nn.Module):
    def __init__(self, width, heads):
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
        mixed = q.scaled_dot_product_attention(k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.down(self.up(self.norm2(x)).gelu())


class Transformer(nn.Module):
    def __init__(self, letters, width=32, heads=4, blocks=2, length=32):
        self.tokens = nn.Embedding(letters, width)
        self.places = nn.Embedding(length, width)
        self.blocks = [Block(width, heads) for _ in range(blocks)]
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, letters)

    def forward(self, x):
        h = self.tokens(x) + self.places.weight
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def train(steps=30, **shape):
    manual_seed(0)
    model = Transformer(len(LETTERS), **shape)
    length = model.places.weight.shape[0]
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    codes = np.array([LETTERS.index(letter) for letter in TEXT], np.int32)
    rng = np.random.default_rng(0)

    @jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model(x).reshape(-1, len(LETTERS)).cross_entropy(y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    for _ in range(steps):
        begins = rng.integers(0, len(codes) - length - 1, 16)
        pieces = codes[begins[:, None] + np.arange(length + 1)]
        losses.append(step(Tensor(pieces[:, :-1].copy()), Tensor(pieces[:, 1:].copy())).item())
    return losses
