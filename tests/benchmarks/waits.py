"""How long a person waits: python -m tests.benchmarks.waits

One lazy op, one call of a jitted function, what recording costs a jitted step, and the time from the start of a process to the
end of its first training step, with an empty cache and with the one that the process before it left. Medians (and the least)
of interleaved rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyengine import Tensor, jit, manual_seed, nn, optim


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
        return x + self.down(self.up(self.norm2(x)).gelu())


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


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "MLP": (MLP, (128, 784)), "CNN": (CNN, (128, 1, 28, 28)), "GPT": (GPT, (16, 64)),
}  # fmt: skip
ROOT = Path(__file__).parents[2]
SMALL = 1000  # elements of the call that is timed


def training(name: str) -> Callable[[], Tensor]:
    """A jitted training step on one batch of random data: SGD for the MLP, else Adam."""
    manual_seed(0)
    kind, shape = NETWORKS[name]
    rng = np.random.default_rng(0)
    model = kind()
    optimizer = optim.SGD(model.parameters(), lr=0.01) if name == "MLP" else optim.Adam(model.parameters(), lr=1e-3)
    x = rng.integers(0, 65, shape).astype(np.int32) if name == "GPT" else rng.standard_normal(shape, np.float32)
    y = Tensor(rng.integers(0, 10, x.size if name == "GPT" else len(x)).astype(np.int32))
    given = Tensor(x)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    return lambda: step(given, y)


def each(f: Callable[[], Any], times: int) -> float:
    """Seconds of one call, of `times` in a row."""
    f()
    began = time.perf_counter()
    for _ in range(times):
        f()
    return (time.perf_counter() - began) / times


def first_step(name: str, cache: str) -> float:
    """Seconds from the start of a process to the end of its first training step."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.waits", name]
    env = {**os.environ, "TINYENGINE_CACHE": cache, "PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), str(ROOT)])}
    done = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    loss = done.stdout.readline()
    seconds = time.perf_counter() - began
    if done.wait(60) or not np.isfinite(float(loss)):
        raise RuntimeError(f"the first step of {name} gave no loss")
    return seconds


def recorded(step: Callable[[], Any], times: int) -> tuple[float, float]:
    """(seconds of a step unwatched, watched), one after the other."""
    import tinyviz as tv

    off = each(step, times)
    with tv.watch():
        return off, each(step, times)


def run(rounds: int = 9, names: Sequence[str] = tuple(NETWORKS), times: int = 2000) -> dict[str, list[float]]:
    """Row -> seconds, one per round; the rows "+" hold ratios."""
    x = Tensor(np.linspace(-3, 3, SMALL, dtype=np.float32))
    chain = jit(lambda x: (x * 1.5 + 0.5).gelu("tanh") * 2.0 + 1.0)
    steps = {n: training(n) for n in names}
    out: dict[str, list[float]] = {}

    def add(row: str, value: float) -> None:
        out.setdefault(row, []).append(value)

    for _ in range(rounds):
        add("one lazy op", each(lambda: x + 1.0, times))
        add(f"one call of a jitted chain, {SMALL} floats", each(lambda: chain(x), times))
        for n, step in steps.items():
            off, on = recorded(step, max(1, times // (1000 if n == "CNN" else 100)))
            add(f"{n}: jitted step", off)
            add(f"{n}: + recording", on / off)
        for n in names:
            with tempfile.TemporaryDirectory() as cache:
                add(f"{n}: first step, empty cache", first_step(n, cache))
                add(f"{n}: first step, warm cache", first_step(n, cache))
    return out


def row_text(row: str, value: float) -> str:
    """A duration, or in the rows "+" what is added."""
    if "+" in row:
        return f"{100 * (value - 1):+.1f} %"
    return f"{value * 1e6:.2f} µs" if value < 1e-3 else f"{value * 1e3:.1f} ms" if value < 0.2 else f"{value:.2f} s"


def text(found: dict[str, list[float]]) -> str:
    """One line per row: median and least."""
    width = max(map(len, found))
    return "\n".join(
        f"{r:<{width}}  {row_text(r, statistics.median(v)):>10}  (least {row_text(r, min(v))})" for r, v in found.items()
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(float(training(sys.argv[1])().item()), flush=True)
    else:
        print(text(run()))
