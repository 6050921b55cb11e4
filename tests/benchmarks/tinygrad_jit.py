"""The same in tinygrad: every case is a TinyJit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinygrad import Context, Device, Tensor, TinyJit, nn

from tests.benchmarks.by_hand import A, Array, B, C, D
from tests.benchmarks.by_hand_networks import EPS, LR, SGD_LR


class MLP:
    def __init__(self) -> None:
        self.fc1, self.fc2 = nn.Linear(784, 512), nn.Linear(512, 10)

    def __call__(self, x: Any) -> Any:
        return self.fc2(self.fc1(x).relu())


class CNN:
    def __init__(self) -> None:
        self.conv1, self.conv2, self.norm1 = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 32, 5), nn.BatchNorm(32)
        self.conv3, self.conv4, self.norm2 = nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 3), nn.BatchNorm(64)
        self.fc = nn.Linear(576, 10)

    def __call__(self, x: Any) -> Any:
        x = self.norm1(self.conv2(self.conv1(x).relu()).relu()).max_pool2d(2)
        x = self.norm2(self.conv4(self.conv3(x).relu()).relu()).max_pool2d(2)
        return self.fc(x.flatten(1))


class Block:
    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def __call__(self, x: Any) -> Any:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = qkv[0].scaled_dot_product_attention(qkv[1], qkv[2], is_causal=True)
        x = x + self.proj(y.permute(0, 2, 1, 3).reshape(n, t, c))
        return x + self.down(self.up(self.norm2(x)).gelu())  # its tanh form


class GPT:
    def __init__(self) -> None:
        self.letters, self.places = nn.Embedding(65, 128), nn.Embedding(64, 128)
        self.blocks = [Block(128, 4) for _ in range(4)]
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 65)

    def __call__(self, x: Any) -> Any:
        h = self.letters(x) + self.places.weight
        for b in self.blocks:
            h = b(h)
        return self.head(self.norm(h)).reshape(-1, 65)


NETWORKS: dict[str, Callable[[], Any]] = {"mlp": MLP, "cnn": CNN, "gpt": GPT}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "chain": lambda x: (x * A + B).gelu() * C + D,
    "sum": lambda x: x.sum(),
    "softmax": lambda x: x.softmax(-1),
    "layernorm": lambda x: x.layernorm(),
    "matmul": lambda a, b: a @ b,
    "conv": lambda x, w: x.conv2d(w, padding=1),
    "attention": lambda q, k, v: q.scaled_dot_product_attention(k, v),
}


def make(work: str, inputs: Mapping[str, Array]) -> tuple[Any, Any]:
    """(call, read), as in `by_hand`."""
    given = {k: Tensor(v).realize() for k, v in inputs.items()}
    results: list[Any] = []
    wait = Device[Device.DEFAULT].synchronize
    if work in FUNCTIONS:
        f, arguments = TinyJit(lambda *a: FUNCTIONS[work](*a).realize()), list(given.values())

        def call() -> None:
            results[:] = [f(*arguments)]
            wait()

        return call, lambda: [t.numpy() for t in results]
    model = NETWORKS[work]()
    parameters = nn.state.get_state_dict(model)
    if len(inputs) > 2:
        nn.state.load_state_dict(model, {k: v for k, v in given.items() if k not in "xy"}, strict=False, verbose=False)
    trained = nn.state.get_parameters(model)
    optimizer = nn.optim.SGD(trained, lr=SGD_LR) if work == "mlp" else nn.optim.Adam(trained, lr=LR, eps=EPS)

    @TinyJit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).sparse_categorical_crossentropy(y).backward()
        return loss.realize(*optimizer.schedule_step())

    def train() -> None:
        with Context(TRAINING=1):
            results[:] = [step(given["x"], given["y"])]
        wait()

    names = [k for k in inputs if k not in "xy"]
    return train, lambda: [t.numpy() for t in (*results, *(parameters[k] for k in names))]


def small_op() -> Any:
    """One lazy operation on a small tensor, not executed."""
    x = Tensor([0.0] * 8).realize()
    return lambda: x + 1.0
