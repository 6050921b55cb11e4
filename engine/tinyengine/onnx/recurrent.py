"""LSTM, GRU and RNN: one layer, one or both directions, unrolled over the time steps. The products with the input are one
product for all steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from tinyengine import dtypes
from tinyengine.onnx.registry import op
from tinyengine.tensor import Tensor


class Activation(NamedTuple):
    """f(x, alpha, beta); a default of None: it takes no such number."""

    f: Callable[[Any, Any, Any], Any]
    alpha: float | None = None
    beta: float | None = None


ACTIVATIONS = {
    "relu": Activation(lambda x, a, b: x.relu()),
    "tanh": Activation(lambda x, a, b: x.tanh()),
    "sigmoid": Activation(lambda x, a, b: x.sigmoid()),
    "affine": Activation(lambda x, a, b: x * a + b, 1.0, 0.0),
    "leakyrelu": Activation(lambda x, a, b: x.leaky_relu(a), 0.01),
    "thresholdedrelu": Activation(lambda x, a, b: (x >= a).where(x, 0), 1.0),
    "scaledtanh": Activation(lambda x, a, b: (x * b).tanh() * a, 1.0, 1.0),
    "hardsigmoid": Activation(lambda x, a, b: (x * a + b).clamp(0, 1), 0.2, 0.5),
    "elu": Activation(lambda x, a, b: x.elu(a), 1.0),
    "softsign": Activation(lambda x, a, b: x.softsign()),
    "softplus": Activation(lambda x, a, b: x.softplus()),
}


def _applied(f: Callable[[Any, Any, Any], Any], alpha: Any, beta: Any, x: Any) -> Any:
    return f(x, alpha, beta)


def _activations(names: list[str], alphas: Any, betas: Any) -> list[Callable[[Any], Any]]:
    """Each with its numbers, which those that take some consume in order."""
    given = [iter(alphas or ()), iter(betas or ())]
    out: list[Callable[[Any], Any]] = []
    for name in names:
        a = ACTIVATIONS.get(name.lower())
        if a is None:
            raise NotImplementedError(f"no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
        numbers = [None if default is None else next(g, default) for g, default in zip(given, (a.alpha, a.beta), strict=True)]
        out.append(functools.partial(_applied, a.f, *numbers))
    return out


class Layer:
    """What the three have in common; `step(projected input, states, direction)` gives the next states, the first of which is the
    output."""

    def __init__(
        self, x: Any, w: Any, r: Any, b: Any, lens: Any, states: list[Any], direction: str, layout: int, names: list[str],
        given: tuple[Any, Any, Any], clip: float | None,
    ) -> None:  # fmt: skip
        self.x = x.transpose(0, 1) if layout else x
        self.w, self.r, self.b, self.lens, self.layout, self.clip = w, r, b, lens, layout, clip
        self.back = [direction == "reverse"] if direction != "bidirectional" else [False, True]
        asked, alphas, betas = given
        every = _activations(list(asked) if asked else names * len(self.back), alphas, betas)
        self.f = [every[d * len(names) : (d + 1) * len(names)] for d in range(len(self.back))]
        self.hidden = r.shape[-1]
        batch = self.x.shape[1]
        zero = Tensor.zeros(len(self.back), batch, self.hidden, dtype=x.dtype)
        self.states = [zero if s is None else s.transpose(0, 1) if layout else s for s in states]

    def bias(self, d: int, half: int) -> Any:
        """Of the products with the input (0) or with the state (1)."""
        if self.b is None:
            return 0.0
        n = self.b.shape[1] // 2
        return self.b[d, half * n : (half + 1) * n]

    def clipped(self, x: Any) -> Any:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def part(self, x: Any, k: int) -> Any:
        """Gate k of what lies side by side."""
        return x[..., k * self.hidden : (k + 1) * self.hidden]

    def _turned(self, x: Any) -> Any:
        """(T, B, ...) backwards in time, each element of the batch within its length."""
        if self.lens is None:
            return x.flip(0)
        t = Tensor.arange(x.shape[0]).reshape(-1, 1)
        n = self.lens.cast(dtypes.int32).reshape(1, -1)
        at = (t < n).where(n - 1 - t, t)
        return x.gather(0, at.reshape((*at.shape, *(1,) * (x.ndim - 2))).expand(x.shape))

    def run(self, step: Callable[[Any, list[Any], int], list[Any]], by_state: bool = True) -> tuple[Any, ...]:
        """(every output, last states...)."""
        outputs, last = [], []
        for d, back in enumerate(self.back):
            x = self._turned(self.x) if back else self.x
            projected = x.matmul(self.w[d].T) + (self.bias(d, 0) + self.bias(d, 1) if by_state else self.bias(d, 0))
            states = [s[d] for s in self.states]
            rows = []
            for t in range(x.shape[0]):
                new = step(projected[t], states, d)
                if self.lens is not None:
                    there = (self.lens > t).reshape(-1, 1)
                    rows.append(there.where(new[0], 0))
                    states = [there.where(a, b) for a, b in zip(new, states, strict=True)]
                else:
                    rows.append(new[0])
                    states = new
            y = Tensor.stack(rows, dim=0)
            outputs.append(self._turned(y) if back else y)
            last.append(states)
        whole = Tensor.stack(outputs, dim=2 if self.layout else 1)
        ends = [Tensor.stack(list(s), dim=1 if self.layout else 0) for s in zip(*last, strict=True)]
        return (whole.transpose(0, 1) if self.layout else whole, *ends)


@op("RNN", 7)
def rnn(
    x: Any, w: Any, r: Any, b: Any = None, lens: Any = None, h: Any = None, *, activation_alpha: Any = None,
    activation_beta: Any = None, activations: Any = None, clip: float | None = None, direction: str = "forward",
    hidden_size: int = 0, layout: int = 0,
) -> Any:  # fmt: skip
    layer = Layer(x, w, r, b, lens, [h], direction, layout, ["Tanh"], (activations, activation_alpha, activation_beta), clip)

    def step(p: Any, s: list[Any], d: int) -> list[Any]:
        return [layer.f[d][0](layer.clipped(p + s[0].matmul(r[d].T)))]

    return layer.run(step)


@op("GRU", 7)
def gru(
    x: Any, w: Any, r: Any, b: Any = None, lens: Any = None, h: Any = None, *, activation_alpha: Any = None,
    activation_beta: Any = None, activations: Any = None, clip: float | None = None, direction: str = "forward",
    hidden_size: int = 0, layout: int = 0, linear_before_reset: int = 0,
) -> Any:  # fmt: skip
    names = ["Sigmoid", "Tanh"]
    layer = Layer(x, w, r, b, lens, [h], direction, layout, names, (activations, activation_alpha, activation_beta), clip)
    n = layer.hidden

    def step(p: Any, s: list[Any], d: int) -> list[Any]:
        f, g = layer.f[d]
        old, bias = s[0], layer.bias(d, 1)
        if linear_before_reset:
            q = old.matmul(r[d].T) + bias
            z, u = (f(layer.clipped(layer.part(p, k) + layer.part(q, k))) for k in (0, 1))
            new = g(layer.clipped(layer.part(p, 2) + u * layer.part(q, 2)))
        else:
            q = old.matmul(r[d][: 2 * n].T)
            q = q + bias[: 2 * n] if b is not None else q
            z, u = (f(layer.clipped(layer.part(p, k) + layer.part(q, k))) for k in (0, 1))
            inner = (u * old).matmul(r[d][2 * n :].T)
            inner = inner + bias[2 * n :] if b is not None else inner
            new = g(layer.clipped(layer.part(p, 2) + inner))
        return [(1 - z) * new + z * old]

    return layer.run(step, by_state=False)


@op("LSTM", 7)
def lstm(
    x: Any, w: Any, r: Any, b: Any = None, lens: Any = None, h: Any = None, c: Any = None, peepholes: Any = None, *,
    activation_alpha: Any = None, activation_beta: Any = None, activations: Any = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int = 0, input_forget: int = 0, layout: int = 0,
) -> Any:  # fmt: skip
    names = ["Sigmoid", "Tanh", "Tanh"]
    layer = Layer(x, w, r, b, lens, [h, c], direction, layout, names, (activations, activation_alpha, activation_beta), clip)

    def step(p: Any, s: list[Any], d: int) -> list[Any]:
        f, g, last = layer.f[d]
        gates = p + s[0].matmul(r[d].T)
        i, o, forget, cell = (layer.part(gates, k) for k in range(4))
        if peepholes is not None:
            i, forget = i + layer.part(peepholes[d], 0) * s[1], forget + layer.part(peepholes[d], 2) * s[1]
        i = f(layer.clipped(i))
        forget = 1 - i if input_forget else f(layer.clipped(forget))
        now = forget * s[1] + i * g(layer.clipped(cell))
        if peepholes is not None:
            o = o + layer.part(peepholes[d], 1) * now
        return [f(layer.clipped(o)) * last(now), now]

    return layer.run(step)
