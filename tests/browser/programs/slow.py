"""A training loop that is slow in the ways that training loops are: not compiled as a whole, a number asked for in every step,
a shape that changes, rows gathered from a large table, and a matrix read against the grain."""

import numpy as np

from tinyviz import Tensor, manual_seed, nn, optim


class Ranker(nn.Module):
    def __init__(self):
        self.table = nn.Embedding(20_000, 32)
        self.fc1 = nn.Linear(8 * 32, 64)
        self.fc2 = nn.Linear(64, 1)

    def forward(self, x):
        h = self.table(x).flatten(1)
        h = self.fc1(h).tanh()
        return self.fc2(h).squeeze(1)


def train(steps=8):
    manual_seed(0)
    model = Ranker()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    history = []
    for i in range(steps):
        size = 60 + 4 * (i % 3)
        x = Tensor(rng.integers(0, 20_000, (size, 8)).astype(np.int32))
        y = Tensor(rng.standard_normal(size).astype(np.float32))
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
        if model.table.weight.T.contiguous().sum(1).max().item() > 1e6:
            break
    return history
