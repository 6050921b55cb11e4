"""Training steps by hand: gradients are written out, one line per derivative. The shapes of the parameters stand here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.benchmarks.by_hand import Array, unfold

SGD_LR, LR, BETA1, BETA2, EPS, NORM_EPS = 0.01, 1e-3, 0.9, 0.999, 1e-8, 1e-5
LAYERS, WIDTH, HEADS, TIME, LETTERS = 4, 128, 4, 64, 65  # of the GPT


def linear(name: str, n: int, m: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (m, n), f"{name}.bias": (m,)}


def conv2d(name: str, n: int, m: int, k: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (m, n, k, k), f"{name}.bias": (m,)}


def norm(name: str, n: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n,), f"{name}.bias": (n,)}


def block(name: str) -> dict[str, tuple[int, ...]]:
    return {
        **norm(f"{name}.norm1", WIDTH), **norm(f"{name}.norm2", WIDTH), **linear(f"{name}.qkv", WIDTH, 3 * WIDTH),
        **linear(f"{name}.proj", WIDTH, WIDTH), **linear(f"{name}.up", WIDTH, 4 * WIDTH),
        **linear(f"{name}.down", 4 * WIDTH, WIDTH),
    }  # fmt: skip


PARAMETERS: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {**linear("fc1", 784, 512), **linear("fc2", 512, 10)},
    "cnn": {
        **conv2d("conv1", 1, 32, 5), **conv2d("conv2", 32, 32, 5), **norm("norm1", 32), **conv2d("conv3", 32, 64, 3),
        **conv2d("conv4", 64, 64, 3), **norm("norm2", 64), **linear("fc", 576, 10),
    },
    "gpt": {
        "letters.weight": (LETTERS, WIDTH), "places.weight": (TIME, WIDTH),
        **{k: v for i in range(LAYERS) for k, v in block(f"blocks.{i}").items()},
        **norm("norm", WIDTH), **linear("head", WIDTH, LETTERS),
    },
}  # fmt: skip


def initial(name: str) -> dict[str, Array]:
    """Weights uniform in ±1/√(fan in), embeddings normal, norms one and zero."""
    rng = np.random.default_rng(0)
    shapes, out = PARAMETERS[name], {}
    for p, shape in shapes.items():
        if "norm" in p:
            value = np.full(shape, float(p.endswith("weight")))
        elif p in ("letters.weight", "places.weight"):
            value = rng.standard_normal(shape)
        else:
            value = rng.uniform(-1, 1, shape) / np.sqrt(np.prod(shapes[p.replace("bias", "weight")][1:]))
        out[p] = value.astype(np.float32)
    return out


class Network:
    """Parameters by name, updated by Adam; `gradients` gives the loss and the gradients by name. Given no parameters, it makes
    them."""

    name = ""

    def __init__(self, inputs: Mapping[str, Array]) -> None:
        self.x, self.y = inputs["x"], inputs["y"]
        given = inputs if len(inputs) > 2 else initial(self.name)
        self.parameters = {k: np.array(given[k]) for k in PARAMETERS[self.name]}
        self.moments = {k: (np.zeros_like(p), np.zeros_like(p)) for k, p in self.parameters.items()}
        self.t = 0

    def gradients(self) -> tuple[Array, dict[str, Array]]:
        raise NotImplementedError

    def step(self) -> Array:
        loss, gradients = self.gradients()
        self.t += 1
        c1, c2 = 1 - BETA1**self.t, 1 - BETA2**self.t
        for k, p in self.parameters.items():
            g, (m, v) = gradients[k], self.moments[k]
            m += (1 - BETA1) * (g - m)
            v += (1 - BETA2) * (g * g - v)
            p -= LR / c1 * m / (np.sqrt(v / c2) + EPS)
        return loss

    def linear(self, x: Array, name: str) -> Array:
        return x @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]  # type: ignore[no-any-return]

    def linear_back(self, d: Array, x: Array, name: str, out: dict[str, Array]) -> Array:
        """Puts the gradients of the layer into `out`; returns that of its input."""
        w = self.parameters[f"{name}.weight"]
        out[f"{name}.weight"] = d.reshape(-1, d.shape[-1]).T @ x.reshape(-1, x.shape[-1])
        out[f"{name}.bias"] = d.reshape(-1, d.shape[-1]).sum(0)
        return d @ w  # type: ignore[no-any-return]

    def norm(self, x: Array, name: str, axes: tuple[int, ...]) -> tuple[Array, tuple[Array, Array]]:
        """Normalised over `axes`, the features last; and what the gradient needs."""
        d = x - x.mean(axes, keepdims=True)
        r = 1 / np.sqrt((d * d).mean(axes, keepdims=True) + NORM_EPS)
        n = d * r
        return n * self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"], (n, r)

    def norm_back(self, d: Array, kept: tuple[Array, Array], name: str, axes: tuple[int, ...], out: dict[str, Array]) -> Array:
        n, r = kept
        out[f"{name}.weight"] = (d * n).reshape(-1, d.shape[-1]).sum(0)
        out[f"{name}.bias"] = d.reshape(-1, d.shape[-1]).sum(0)
        d = d * self.parameters[f"{name}.weight"]
        return r * (d - d.mean(axes, keepdims=True) - n * (d * n).mean(axes, keepdims=True))  # type: ignore[no-any-return]

    def cross_entropy(self, logits: Array) -> tuple[Array, Array]:
        """(mean loss, its gradient with respect to the logits)."""
        n = len(logits)
        shifted = logits - logits.max(1, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(1, keepdims=True)
        loss = (np.log(total[:, 0]) - shifted[np.arange(n), self.y]).mean()
        d = e / total
        d[np.arange(n), self.y] -= 1
        return loss, d / n


class MLP(Network):
    """784-512-10, ReLU, SGD."""

    name = "mlp"

    def gradients(self) -> tuple[Array, dict[str, Array]]:
        out: dict[str, Array] = {}
        h = np.maximum(self.linear(self.x, "fc1"), 0)
        loss, d = self.cross_entropy(self.linear(h, "fc2"))
        d = self.linear_back(d, h, "fc2", out) * (h > 0)
        out["fc1.weight"], out["fc1.bias"] = d.T @ self.x, d.sum(0)
        return loss, out

    def step(self) -> Array:
        loss, gradients = self.gradients()
        for k, p in self.parameters.items():
            p -= SGD_LR * gradients[k]
        return loss


class CNN(Network):
    """For MNIST: two blocks of two convolutions with ReLU, batch norm and max pooling, then a linear layer. Channels last
    inside."""

    name = "cnn"

    def gradients(self) -> tuple[Array, dict[str, Array]]:
        out: dict[str, Array] = {}
        x, kept = self.x.transpose(0, 2, 3, 1), []
        for a, b, n in (("conv1", "conv2", "norm1"), ("conv3", "conv4", "norm2")):
            ca, z1 = self.conv(x, a)
            h1 = np.maximum(z1, 0)
            cb, z2 = self.conv(h1, b)
            h2, normed = self.norm(np.maximum(z2, 0), n, (0, 1, 2))
            x, route = max_pool(h2)
            kept.append((a, b, n, ca, h1 > 0, cb, z2 > 0, normed, route))
        flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        loss, d = self.cross_entropy(self.linear(flat, "fc"))
        d = self.linear_back(d, flat, "fc", out).reshape(x.transpose(0, 3, 1, 2).shape).transpose(0, 2, 3, 1)
        for a, b, n, ca, positive1, cb, positive2, normed, route in reversed(kept):
            d = self.norm_back(unpool(d, route), normed, n, (0, 1, 2), out) * positive2
            d = self.conv_back(d, cb, b, out) * positive1
            d = self.conv_back(d, ca, a, out, a != "conv1")
        return loss, out

    def conv(self, x: Array, name: str) -> tuple[Array, Array]:
        """(N, H, W, C) -> (the columns, the convolution)."""
        w = self.parameters[f"{name}.weight"]
        columns = unfold(x.transpose(0, 3, 1, 2), w.shape[-1])
        return columns, columns @ w.reshape(len(w), -1).T + self.parameters[f"{name}.bias"]

    def conv_back(self, d: Array, columns: Array, name: str, out: dict[str, Array], more: bool = True) -> Array:
        w = self.parameters[f"{name}.weight"]
        out[f"{name}.weight"] = (d.reshape(-1, len(w)).T @ columns.reshape(-1, columns.shape[-1])).reshape(w.shape)
        out[f"{name}.bias"] = d.sum((0, 1, 2))
        return fold(d @ w.reshape(len(w), -1), w.shape[1], w.shape[-1]) if more else d


def fold(columns: Array, c: int, k: int) -> Array:
    """The adjoint of `unfold`, channels last: (N, h, w, C k k) -> (N, h+k-1, w+k-1, C)."""
    n, h, w, _ = columns.shape
    columns = columns.reshape(n, h, w, c, k, k)
    out = np.zeros((n, h + k - 1, w + k - 1, c), columns.dtype)
    for i in range(k):
        for j in range(k):
            out[:, i : i + h, j : j + w] += columns[..., i, j]
    return out


def max_pool(x: Array) -> tuple[Array, Array]:
    """(N, H, W, C) -> the largest of each 2×2 block, and the share of its gradient that each element gets: all of it goes to
    one of the largest, the first, as in PyTorch."""
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, c, 4)
    first = blocks.argmax(-1)
    return np.take_along_axis(blocks, first[..., None], -1)[..., 0], np.eye(4, dtype=x.dtype)[first]


def unpool(d: Array, route: Array) -> Array:
    """The adjoint of `max_pool`."""
    n, h, w, c = d.shape
    blocks = (d[..., None] * route).reshape(n, h, w, c, 2, 2)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c)


class GPT(Network):
    """4 pre-norm blocks of width 128 with 4 heads, causal attention and gelu (its tanh form)."""

    name = "gpt"

    def gradients(self) -> tuple[Array, dict[str, Array]]:
        out: dict[str, Array] = {}
        n, t = self.x.shape
        x = self.parameters["letters.weight"][self.x] + self.parameters["places.weight"]
        kept = []
        for i in range(LAYERS):
            b = f"blocks.{i}"
            h, normed1 = self.norm(x, f"{b}.norm1", (-1,))
            y, attended = self.attend(h, b)
            x = x + y
            g, normed2 = self.norm(x, f"{b}.norm2", (-1,))
            u = self.linear(g, f"{b}.up")
            s = np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u * u * u))
            a = 0.5 * u * (1 + s)
            x = x + self.linear(a, f"{b}.down")
            kept.append((b, h, normed1, attended, g, normed2, u, s, a))
        h, normed = self.norm(x, "norm", (-1,))
        loss, d = self.cross_entropy(self.linear(h, "head").reshape(n * t, -1))
        d = self.linear_back(d.reshape(n, t, -1), h, "head", out)
        d = self.norm_back(d, normed, "norm", (-1,), out)
        for b, h, normed1, attended, g, normed2, u, s, a in reversed(kept):
            slope = 0.5 * (1 + s) + 0.5 * u * (1 - s * s) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * u * u)
            e = self.linear_back(d, a, f"{b}.down", out) * slope.astype(u.dtype)
            d = d + self.norm_back(self.linear_back(e, g, f"{b}.up", out), normed2, f"{b}.norm2", (-1,), out)
            d = d + self.norm_back(self.attend_back(d, h, attended, b, out), normed1, f"{b}.norm1", (-1,), out)
        out["letters.weight"] = np.zeros_like(self.parameters["letters.weight"])
        np.add.at(out["letters.weight"], self.x, d)
        out["places.weight"] = d.sum(0)
        return loss, out

    def attend(self, x: Array, b: str) -> tuple[Array, Any]:
        n, t, _ = x.shape
        q, k, v = self.linear(x, f"{b}.qkv").reshape(n, t, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(WIDTH // HEADS, dtype=x.dtype)
        scores = np.where(np.tri(t, dtype=bool), scores, -np.inf)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        y = (p @ v).transpose(0, 2, 1, 3).reshape(n, t, WIDTH)
        return self.linear(y, f"{b}.proj"), (q, k, v, p, y)

    def attend_back(self, d: Array, x: Array, attended: Any, b: str, out: dict[str, Array]) -> Array:
        q, k, v, p, y = attended
        n, t, _ = x.shape
        d = self.linear_back(d, y, f"{b}.proj", out).reshape(n, t, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)
        dp = d @ v.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(WIDTH // HEADS, dtype=x.dtype)
        each = np.stack([ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ d])  # of q, k and v
        return self.linear_back(each.transpose(1, 3, 0, 2, 4).reshape(n, t, 3 * WIDTH), x, f"{b}.qkv", out)


NETWORKS: dict[str, type[Network]] = {"mlp": MLP, "cnn": CNN, "gpt": GPT}
