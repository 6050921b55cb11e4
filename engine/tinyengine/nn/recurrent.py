"""Recurrent cells."""

from __future__ import annotations

import math

from tinyengine.nn.layers import uniform
from tinyengine.nn.module import Module
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


class LSTMCell(Module):
    """Hochreiter and Schmidhuber 1997, as in PyTorch: gates i, f, g, o = x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh;
    c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c'). x (N, input_size) or (input_size,); the state is a pair
    (h, c) of (N, hidden_size), zeros if not given. Returns (h', c'). All parameters uniform in ±1/sqrt(hidden_size)."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(hidden_size) if hidden_size else 0.0
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih = uniform((4 * hidden_size, input_size), bound)
        self.weight_hh = uniform((4 * hidden_size, hidden_size), bound)
        self.bias_ih = uniform((4 * hidden_size,), bound) if bias else None
        self.bias_hh = uniform((4 * hidden_size,), bound) if bias else None

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise RuntimeError(f"{self!r} takes (N, {self.input_size}), got shape {list(x.shape)}\n  at {user_line()}")
        if state is None:
            zero = Tensor.zeros(*x.shape[:-1], self.hidden_size, dtype=x.dtype)
            state = (zero, zero)
        h, c = state
        gates = x.linear(self.weight_ih, self.bias_ih) + h.linear(self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


__all__ = ["LSTMCell"]
