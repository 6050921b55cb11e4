"""Random numbers from a counter: number i of draw d is threefry(counter_d + i, key), so a draw depends on nothing but the seed
and the numbers drawn before it, and never on threads or on what was fused (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3").

Counter and key stand in a small buffer, not in the graph: graphs of equal form share their compiled program.
Initial weights come from NumPy's Philox on the host (`host`), seeded alike, because a program for each of them would cost
start-up time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import dtypes
from tinyengine.node import Node, Shape
from tinyengine.origin import here, user_line
from tinyengine.runtime.buffer import Buffer
from tinyengine.size import Size, most
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import make, shape_of
from tinyengine.tensor.creation import Creation, leaf

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_WORD = 1 << 32


class _Generator:
    seed = 0
    counter = 0  # numbers drawn so far
    host: Any = None


_state = _Generator()


def manual_seed(seed: int = 0) -> None:
    """Start the generators (of tensors, of initial weights, of mini-batches) anew. `seed`: any int, else TypeError."""
    if not hasattr(seed, "__index__"):
        raise TypeError(f"manual_seed: a seed is an int, not {seed!r}\n  at {user_line()}")
    _state.seed, _state.counter, _state.host = int(seed), 0, None


def take(n: int) -> tuple[int, int]:
    """(counter, key) for `n` numbers; the counter moves on. Each 2^32 numbers the key changes."""
    if _state.counter % _WORD + n > _WORD:
        _state.counter += -_state.counter % _WORD
    epoch, counter = divmod(_state.counter, _WORD)
    _state.counter += n
    return counter, (_state.seed + 0x9E3779B9 * epoch) % _WORD


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What is drawn inside is drawn again after it."""
    seed, counter, host = _state.seed, _state.counter, _state.host
    at = None if host is None else host.bit_generator.state
    try:
        yield
    finally:
        _state.seed, _state.counter, _state.host = seed, counter, host
        if at is not None:
            host.bit_generator.state = at


def offset_node(n: Any) -> Node:
    """uint32[2]: counter and key of a draw of `n` numbers (an int, or a Size). The one place where host state enters a graph;
    inside jit the trace makes it an input of the program."""
    if core.state.trace is not None:
        return core.state.trace.offset_node(n)  # type: ignore[no-any-return]
    if isinstance(n, Size):
        n = most(n) if n.value is None else n.value
    b = Buffer.of(np.array(take(n), np.uint32), dtypes.uint32, "random_offset")
    return record.buffer(b, (2,), here())


def host() -> np.random.Generator:
    """NumPy's Philox, seeded by `manual_seed`: for initial weights and the order of mini-batches."""
    if _state.host is None:
        _state.host = np.random.Generator(np.random.Philox(key=_state.seed % (1 << 128)))
    return _state.host  # type: ignore[no-any-return]


def bits(shape: Shape) -> Node:
    """32 random bits for each element: uint32."""
    n = math.prod(shape)
    if most(n) > _WORD:
        raise RuntimeError(f"one draw gives at most 2^32 numbers, shape {list(shape)} has {n}\n  at {user_line()}")
    o = here()
    state = offset_node(n)
    counter, key = (record.expand(record.slice_(state, ((i, 1),), (1,), o), (n,), o) for i in (0, 1))
    at = record.binary("add", record.iota(0, dtypes.uint32, (n,), o), counter, o)
    return record.reshape(record.binary("threefry", at, key, o), shape, o)


_DIGITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 32}  # bits of a draw, none of which is rounded


def unit(shape: Shape, dtype: Any = None) -> Tensor:
    """In [0, 1), of a float dtype (default float32; others than these by way of it): as many of the bits as it holds exactly, at
    most 32."""
    d = core.dtype_of(dtype or dtypes.default_float)
    digits = _DIGITS.get(d.name, 24)
    o = here()
    b = bits(shape)
    high = record.binary("shr", b, record.const(32 - digits, dtypes.uint32, shape, o), o) if digits < 32 else b
    exact = make(record.cast(high, dtypes.float64 if digits == 32 else dtypes.float32, o), core.NO_FLOW)
    return (exact * (1.0 / (1 << digits))).cast(d)


class Random(Creation):
    """Random tensors. Every call gives other numbers; `manual_seed` starts the sequence anew."""

    __slots__ = ()

    @staticmethod
    def rand(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Uniform in [0, 1), float32 unless another dtype is given."""
        return leaf(unit(shape_of(shape), dtype), requires_grad)

    @staticmethod
    def uniform(*shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Uniform in [low, high), float32 unless another dtype is given."""
        return leaf((unit(shape_of(shape)) * (high - low) + low).cast(dtype or dtypes.default_float), requires_grad)

    @staticmethod
    def randn(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Normal with mean 0 and variance 1 (Box and Muller 1958)."""
        s = shape_of(shape)
        radius = ((1 - unit(s)).log() * -2).sqrt()
        return leaf((radius * (unit(s) * (2 * math.pi)).sin()).cast(dtype or dtypes.default_float), requires_grad)

    @staticmethod
    def normal(*shape: Any, mean: float = 0.0, std: float = 1.0, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Normal with this mean and standard deviation."""
        return leaf((Random.randn(*shape) * std + mean).cast(dtype or dtypes.default_float), requires_grad)

    @staticmethod
    def randint(*shape: Any, low: int = 0, high: int = 10, dtype: Any = None) -> Tensor:
        """Whole numbers low <= i < high, by the remainder of 32 bits (bias below (high - low) / 2^32). int32 by default."""
        if not low < high or high - low > _WORD:
            raise RuntimeError(f"randint: no whole number from {low} to below {high}\n  at {user_line()}")
        s = shape_of(shape)
        o = here()
        rest = record.binary("mod", bits(s), record.const(high - low, dtypes.uint32, s, o), o) if high - low < _WORD else bits(s)
        wide = dtypes.int64 if not low >= -(1 << 31) or high > 1 << 31 else dtypes.int32
        return (make(record.cast(rest, wide, o), core.NO_FLOW) + low).cast(dtype or dtypes.default_int)

    @staticmethod
    def randperm(n: int, dtype: Any = None) -> Tensor:
        """The numbers 0 to n - 1 in random order: positions of random bits in order (two equal ones, of 2^32, keep theirs). int32
        by default. RuntimeError for a negative n."""
        (n,) = shape_of((n,))
        order: Any = make(bits((n,)), core.NO_FLOW).argsort()
        return order.cast(dtype or dtypes.default_int)  # type: ignore[no-any-return]

    def rand_like(self, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """`rand` of this shape, and dtype unless another is given."""
        return Random.rand(*self.shape, dtype=dtype or self.dtype, requires_grad=requires_grad)

    def randn_like(self, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """`randn` of this shape, and dtype unless another is given."""
        return Random.randn(*self.shape, dtype=dtype or self.dtype, requires_grad=requires_grad)

    @staticmethod
    def scaled_uniform(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Uniform in ±1/sqrt(number of elements)."""
        s = shape_of(shape)
        b = 1 / math.sqrt(max(math.prod(s), 1))
        return Random.uniform(*s, low=-b, high=b, dtype=dtype, requires_grad=requires_grad)

    @staticmethod
    def glorot_uniform(*shape: Any, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Uniform in ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
        s = shape_of(shape)
        b = math.sqrt(6 / (s[0] + math.prod(s[1:])))
        return Random.uniform(*s, low=-b, high=b, dtype=dtype, requires_grad=requires_grad)

    @staticmethod
    def kaiming_uniform(*shape: Any, a: float = 0.01, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Uniform in ±sqrt(6 / ((1 + a^2) fan_in)) (He et al. 2015)."""
        s = shape_of(shape)
        b = math.sqrt(6 / ((1 + a * a) * math.prod(s[1:])))
        return Random.uniform(*s, low=-b, high=b, dtype=dtype, requires_grad=requires_grad)

    @staticmethod
    def kaiming_normal(*shape: Any, a: float = 0.01, dtype: Any = None, requires_grad: bool | None = None) -> Tensor:
        """Normal with the standard deviation sqrt(2 / ((1 + a^2) fan_in)) (He et al. 2015)."""
        s = shape_of(shape)
        return Random.normal(*s, std=math.sqrt(2 / ((1 + a * a) * math.prod(s[1:]))), dtype=dtype, requires_grad=requires_grad)

    manual_seed = staticmethod(manual_seed)

    training = True  # what dropout does without an argument of its own; see `train`

    @staticmethod
    @contextlib.contextmanager
    def train(mode: bool = True) -> Iterator[None]:
        """`with Tensor.train(False):` dropout that is not told otherwise does nothing inside."""
        old, core._cls.training = core._cls.training, mode
        try:
            yield
        finally:
            core._cls.training = old

    def dropout(self, p: float = 0.5, training: bool | None = None) -> Tensor:
        """Each element is 0 with probability p, else divided by 1 - p. Not training (None: `Tensor.training`), or p = 0:
        unchanged. ValueError when p is no probability."""
        training = self.training if training is None else training
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p is a probability, not {p}\n  at {user_line()}")
        if not training or p == 0:
            return core.same(self)
        if p == 1:
            return self * 0.0
        keep = unit(self.shape) >= p
        return keep.where(self * (1 / (1 - p)), 0)
