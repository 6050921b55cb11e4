"""Recurrent cells, and layers that run them along a sequence."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from tinyengine.nn.layers import uniform
from tinyengine.nn.module import Module
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor, stack

State = Tensor | tuple[Tensor, Tensor]  # h, or (h, c) where there are cells


def _rnn(x: Tensor, h: Tensor, act: str) -> Tensor:
    return getattr(x + h, act)()  # type: ignore[no-any-return]


def _lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """(h', c') from the sums of the gates i, f, g, o, side by side."""
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(x: Tensor, h: Tensor, old: Tensor) -> Tensor:
    """h' from the parts of the gates r, z, n that come from the input and from the state, and the state itself."""
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), h.chunk(3, -1)
    z = (xz + hz).sigmoid()
    n = (xn + (xr + hr).sigmoid() * hn).tanh()
    return n + z * (old - n)


class _Cell(Module):
    """One step: parameters as PyTorch has them, all uniform in ±1/sqrt(hidden_size)."""

    gates: ClassVar[int]

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(hidden_size) if hidden_size else 0.0
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih = uniform((self.gates * hidden_size, input_size), bound)
        self.weight_hh = uniform((self.gates * hidden_size, hidden_size), bound)
        self.bias_ih = uniform((self.gates * hidden_size,), bound) if bias else None
        self.bias_hh = uniform((self.gates * hidden_size,), bound) if bias else None

    def _start(self, x: Tensor) -> Tensor:
        """The state that stands for none: zeros. RuntimeError where x does not fit."""
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise RuntimeError(f"{self!r} takes (N, {self.input_size}), got shape {list(x.shape)}\n  at {user_line()}")
        return Tensor.zeros(*x.shape[:-1], self.hidden_size, dtype=x.dtype)

    def _sums(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x.linear(self.weight_ih, self.bias_ih), h.linear(self.weight_hh, self.bias_hh)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(_Cell):
    """h' = act(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh) (Elman 1990), `nonlinearity` 'tanh' or 'relu'. x
    (N, input_size) or (input_size,); h (N, hidden_size), zeros if not given. All parameters uniform in ±1/sqrt(hidden_size)."""

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh") -> None:
        self.nonlinearity = _known(nonlinearity)
        super().__init__(input_size, hidden_size, bias)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        zero = self._start(x)
        return _rnn(*self._sums(x, zero if h is None else h), self.nonlinearity)


class GRUCell(_Cell):
    """Cho et al. 2014, as in PyTorch: r, z from x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh through a sigmoid, n =
    tanh(x's part + r * h's part); h' = (1 - z) n + z h. x (N, input_size) or (input_size,); h (N, hidden_size), zeros if not
    given. All parameters uniform in ±1/sqrt(hidden_size)."""

    gates = 3

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        zero = self._start(x)
        old = zero if h is None else h
        return _gru(*self._sums(x, old), old)


class LSTMCell(_Cell):
    """Hochreiter and Schmidhuber 1997, as in PyTorch: gates i, f, g, o = x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh;
    c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c'). x (N, input_size) or (input_size,); the state is a pair
    (h, c) of (N, hidden_size), zeros if not given. Returns (h', c'). All parameters uniform in ±1/sqrt(hidden_size)."""

    gates = 4

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        zero = self._start(x)
        h, c = (zero, zero) if state is None else state
        a, b = self._sums(x, h)
        return _lstm(a + b, c)


class _Recurrent(Module):
    """Cells along a sequence. The products with the inputs of all steps are one; the steps are unrolled, so that the time of
    compiling grows with their number."""

    gates: ClassVar[int]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
    ) -> None:  # fmt: skip
        if num_layers < 1 or hidden_size < 1:
            given = f"num_layers={num_layers}, hidden_size={hidden_size}"
            raise ValueError(f"{type(self).__name__} has layers and features, not {given}\n  at {user_line()}")
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self._ways = ("", "_reverse") if bidirectional else ("",)
        bound = 1 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            features = input_size if layer == 0 else len(self._ways) * hidden_size
            for way in self._ways:
                for name, shape in (("ih", (features,)), ("hh", (hidden_size,))):
                    setattr(self, f"weight_{name}_l{layer}{way}", uniform((self.gates * hidden_size, *shape), bound))
                for name in ("ih", "hh") if bias else ():
                    setattr(self, f"bias_{name}_l{layer}{way}", uniform((self.gates * hidden_size,), bound))

    def _step(self, x: Tensor, h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next states, h first, from the sums of the input and of h."""
        raise NotImplementedError

    def _along(self, x: Tensor, states: tuple[Tensor, ...], end: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One layer in one direction: (T, N, ..) to the h of every step (T, N, hidden_size), and the last states."""
        w: dict[str, Any] = {k: getattr(self, f"{k}_{end}", None) for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        sums: Any = x.linear(w["weight_ih"], w["bias_ih"])
        steps = range(x.shape[0])
        found = {}
        for t in reversed(steps) if end.endswith("_reverse") else steps:
            states = self._step(sums[t], states[0].linear(w["weight_hh"], w["bias_hh"]), states)
            found[t] = states[0]
        return stack([found[t] for t in steps]), states

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        name, batched = type(self).__name__, x.ndim == 3
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or 0 in x.shape:
            axes = "N, T" if self.batch_first else "T, N"
            raise RuntimeError(f"{name} takes ({axes}, {self.input_size}), got shape {list(x.shape)}\n  at {user_line()}")
        y: Any = x.transpose(0, 1) if batched and self.batch_first else x
        y = y if batched else y.unsqueeze(1)
        places = self.num_layers * len(self._ways)
        shape = (places, y.shape[1], self.hidden_size)
        pairs = self.gates == 4
        given: Any = (state if pairs else (state,)) if state is not None else (Tensor.zeros(*shape, dtype=x.dtype),) * (1 + pairs)
        given = [s if batched or state is None else s.unsqueeze(1) for s in given]
        wrong = next((s for s in given if tuple(s.shape) != shape), None)
        if wrong is not None:
            want = list(shape if batched else (shape[0], shape[2]))
            raise RuntimeError(f"{name}: the state is {want}, got shape {list(wrong.shape)}\n  at {user_line()}")
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                y = y.dropout(self.dropout, self.training)
            out = []
            for way in self._ways:
                h, end = self._along(y, tuple([s[len(last)] for s in given]), f"l{layer}{way}")
                out.append(h)
                last.append(end)
            y = out[0] if len(out) == 1 else Tensor.cat(*out, dim=-1)
        ends = [stack(list(s)) for s in zip(*last, strict=True)]
        if not batched:
            y, ends = y.squeeze(1), [e.squeeze(1) for e in ends]
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, tuple(ends) if pairs else ends[0]

    def extra_repr(self) -> str:
        more = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        changed = [f"{k}={getattr(self, k)}" for k, usual in more.items() if getattr(self, k) != usual]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *changed])


class RNN(_Recurrent):
    """RNNCell along a sequence, as in PyTorch. x (T, N, input_size), with batch_first (N, T, input_size), or (T, input_size);
    h (num_layers * directions, N, hidden_size), zeros if not given. Returns (h of the last layer at every step, h of every
    layer after the last step). The steps are unrolled."""

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
    ) -> None:  # fmt: skip
        self.nonlinearity = _known(nonlinearity)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def _step(self, x: Tensor, h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_rnn(x, h, self.nonlinearity),)


class GRU(_Recurrent):
    """GRUCell along a sequence: shapes and results are those of `RNN`."""

    gates = 3

    def _step(self, x: Tensor, h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_gru(x, h, states[0]),)


class LSTM(_Recurrent):
    """LSTMCell along a sequence: shapes and results are those of `RNN`, with (h, c) for h."""

    gates = 4

    def _step(self, x: Tensor, h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return _lstm(x + h, states[1])


def _known(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"the nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}\n  at {user_line()}")
    return nonlinearity


__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
