"""Tensor: lazy arrays with the names and semantics of PyTorch. Each file of this folder holds one family of methods; `Tensor` is
all of them. Building a tensor records nodes; `item`, `numpy`, `tolist`, `bool`, `realize` and `optim` steps compute.

What differs from PyTorch, everywhere: the default integer is int32, positions too; `max` and `min` with `axis=` (not `dim`)
give the values only, as in NumPy; integers divided by elements that are 0 give 0; indices to gather or scatter are checked
when it runs, and raise IndexError; of several values written to one place the last stays, and takes the gradient; shapes that
PyTorch's pooling, padding and `linear` interpolation refuse are accepted where they have a meaning, products of two dtypes
are promoted, and numbers stand where PyTorch wants a tensor; `view` copies where the elements do not lie so that it need not;
what only values tell (probabilities outside 0 to 1) is not looked at; `ignore_index` of the methods is None (-100 in
nn.functional). Views are views, as in PyTorch: updates in place of either side are seen in both (views.py). Names that the
engine does not have are listed with the reason in refused.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.origin import here, user_line
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import record
from tinyengine.tensor import core, halves, keywords
from tinyengine.tensor.autograd import Autograd
from tinyengine.tensor.core import enable_grad, no_grad
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.function import Function
from tinyengine.tensor.movement import join, stack
from tinyengine.tensor.random import manual_seed

_KINDS = {np.dtype(np.float64): dtypes.float32, np.dtype(np.int64): dtypes.int32}  # of Python numbers, which NumPy makes wide


class Tensor(Autograd):
    """`Tensor(data)`: data is a number, a nested list, a NumPy array (keeps its dtype) or a tensor. Python floats become float32
    and ints int32. The data is copied at once. TypeError for other data and unknown dtypes; ValueError for ragged lists."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool | None = None) -> None:
        self.grad = self.viewed = None
        self.flow = core.NO_FLOW
        o = here()
        d = core.dtype_of(dtype) if dtype is not None else None
        if isinstance(data, Tensor):
            self.node = record.contiguous(data.node, o) if d is None or d is data.dtype else record.cast(data.node, d, o)
            self.flow = core.STOPPED if data.flow else core.NO_FLOW
        else:
            a = _array(data)
            if d is None:
                d = (
                    dtypes.as_dtype(a.dtype)
                    if isinstance(data, (np.ndarray, np.generic))
                    else _KINDS.get(a.dtype) or core.dtype_of(a.dtype)
                )
            self.node = record.buffer(Buffer.of(a, d), a.shape, o)
            if core.state.trace is not None:
                core.state.trace.made.add(id(self.node.arg))
                core.state.trace.memory.append(self.node.arg)
        if requires_grad:
            self.requires_grad = True
        if self.node.op != "buffer":
            core.live.append(core._ref(self))

    def cat(self: Any, *others: Any, dim: int = 0) -> Tensor:
        """Joined along `dim`: a.cat(b, dim=1), Tensor.cat(a, b, dim=1) or Tensor.cat([a, b], dim=1)."""
        if isinstance(self, (list, tuple)):
            return join(self, *others) if others else join(self, dim)
        return join([self, *others], dim)

    def stack(self: Any, *others: Any, dim: int = 0) -> Tensor:
        """Tensors of one shape along a new axis, called like `cat`."""
        if isinstance(self, (list, tuple)):
            return stack(self, *others) if others else stack(self, dim)
        return stack([self, *others], dim)

    @staticmethod
    def no_grad() -> Any:
        """`with Tensor.no_grad():` what is recorded inside takes no part in `backward`."""
        return no_grad()


def _array(data: Any) -> np.ndarray[Any, Any]:
    if isinstance(data, (list, tuple)) and _holds_tensor(data):
        data = _unwrap(data)
    try:
        a = np.asarray(data)
    except ValueError as e:
        raise ValueError(f"the nested lists are not rectangular: {e}\n  at {user_line()}") from None
    if a.dtype.kind not in "biuf":
        if a.size == 0:
            return a.astype(np.float32)
        if isinstance(data, int):
            raise OverflowError(f"{data} is no int of 64 bits\n  at {user_line()}")
        raise TypeError(
            f"a tensor cannot be made of {type(data).__name__} (NumPy calls it {a.dtype}); expected numbers or booleans\n"
            f"  at {user_line()}"
        )
    return a


def _holds_tensor(data: Any) -> bool:
    return any(isinstance(x, Tensor) or (isinstance(x, (list, tuple)) and _holds_tensor(x)) for x in data)


def _unwrap(data: Any) -> Any:
    return data.tolist() if isinstance(data, Tensor) else [_unwrap(x) for x in data] if isinstance(data, (list, tuple)) else data


halves.bind(Tensor)
keywords.bind(Tensor)
core.bind(Tensor)
where, cat = choose, join

__all__ = ["Function", "Tensor", "cat", "enable_grad", "manual_seed", "no_grad", "stack", "where"]
