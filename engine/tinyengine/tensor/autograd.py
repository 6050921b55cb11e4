"""backward, gradient, requires_grad, and the values of a tensor: item, numpy, tolist, print. Reading a value computes it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine.node import Node, toposort
from tinyengine.origin import here, user_line
from tinyengine.runtime.buffer import Placeholder
from tinyengine.stages import record
from tinyengine.stages.differentiate import ends, gradient
from tinyengine.tensor import core, force
from tinyengine.tensor.core import Base, make
from tinyengine.tensor.decompose import Decomposition
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.functional import Functional
from tinyengine.tensor.order import Order
from tinyengine.tensor.refused import Refused
from tinyengine.tensor.symbolic import valued, whole
from tinyengine.tensor.views import share, update
from tinyengine.tensor.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


_KIND = {"bool": 0, "uint": 1, "int": 1, "float": 2}


def _hold(table: dict[int, weakref.ref[Base]], t: Base) -> None:
    """Put `t` there as long as it lives."""
    key = id(t)
    table[key] = weakref.ref(t, lambda _: table.pop(key, None))


class Autograd(Functional, Decomposition, Order, Vocabulary, Refused):
    """Gradients and values."""

    __slots__ = ()

    @property
    def requires_grad(self) -> bool:
        """True when `backward` leaves a gradient here (a leaf that was told so) or passes one on."""
        return self.flow == core.FLOWS

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not value:
            if core.leaves.pop(id(self), None) is not None:
                _hold(core.frozen, self)
            self.flow = core.NO_FLOW
            return
        if not self.dtype.is_float:
            raise RuntimeError(f"only float tensors can require gradients, this one is {self.dtype}\n  at {user_line()}")
        if self.flow == core.STOPPED or (self.flow == core.FLOWS and not self.is_leaf):
            if self.flow == core.FLOWS:
                return
            core.become(self, record.bitcast(self.node, self.dtype, here()))  # a value of its own, differentiated no further
        self.flow = core.FLOWS
        core.frozen.pop(id(self), None)
        _hold(core.leaves, self)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad`; returns the tensor."""
        self.requires_grad = requires_grad
        return self  # type: ignore[return-value]

    @property
    def is_leaf(self) -> bool:
        """True for a tensor that was not computed from one that requires a gradient."""
        return self.flow != core.FLOWS or id(self) in core.leaves

    @property
    def is_param(self) -> bool:
        """True for a leaf that requires a gradient: what an optimizer would update."""
        return id(self) in core.leaves

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add the gradient of this scalar (or of sum(self * gradient)) to `.grad` of every leaf that requires one and that it
        depends on, or of `inputs` alone. Records nodes; computes nothing. The graph is always kept: `retain_graph` changes
        nothing, and a second call adds the gradient again. `create_graph`: `.grad` can itself be differentiated. RuntimeError
        when this is no scalar and no `gradient` is given, or when nothing below requires a gradient; it names the op where the
        way ends."""
        if self.flow != core.FLOWS:
            raise RuntimeError(
                "backward: this value does not depend on a tensor that requires a gradient: give requires_grad=True to one, and"
                f" see that nothing on the way was detached or made under no_grad{_dead_end(self.node)}\n  at {user_line()}"
            )
        found: list[Any] = [t for r in list(core.leaves.values()) if (t := r()) is not None]
        if inputs is not None:
            found = [inputs] if isinstance(inputs, Base) else list(inputs)
        grads = self._gradients(found, gradient)
        if not any(used for used, _ in grads):
            raise RuntimeError(
                f"backward: no tensor with requires_grad is part of this value any more (were they updated since?)\n"
                f"  at {user_line()}"
            )
        with core.no_grad():
            for t, (used, g) in zip(found, grads, strict=True):
                if used:
                    n = g if g is not None else record.const(0.0, t.dtype, t.shape, here())
                    if t.grad is not None:
                        n = record.binary("add", t.grad.node, n, n.origin)
                    t.grad = make(n, core.FLOWS if create_graph else core.STOPPED)

    def gradient(self, *targets: Tensor, gradient: Any = None) -> list[Tensor]:
        """The gradients of this scalar (or of sum(self * gradient)) with respect to each target, which need not require
        gradients. They can be differentiated again. RuntimeError when this does not depend on a target."""
        out = []
        for t, g in zip(targets, self.partial(targets, gradient), strict=True):
            if g is None:
                raise RuntimeError(f"gradient: this value does not depend on the target {t!r}\n  at {user_line()}")
            out.append(g)
        return out

    def partial(self, targets: Sequence[Tensor], gradient: Any = None) -> list[Tensor | None]:
        """As `gradient`, with None for each target on which this does not depend."""
        out: list[Tensor | None] = []
        for t, (used, g) in zip(targets, self._gradients(targets, gradient), strict=True):
            n = g if g is not None else record.const(0.0, t.dtype, t.shape, here())
            out.append(make(n, self.flow) if used else None)
        return out

    def _gradients(self, targets: Sequence[Base], seed: Any) -> list[tuple[bool, Any]]:
        """For each target: whether this value depends on it, and the gradient's node (None: zero)."""
        if seed is None:
            if self.shape != () and self.numel() != 1:
                raise RuntimeError(
                    f"backward: gradients start from a scalar, this has shape {list(self.shape)}; reduce it, as in .sum(), or"
                    f" give a gradient of that shape\n  at {user_line()}"
                )
            start = None
        else:
            s = seed if isinstance(seed, Base) else core._cls(seed, dtype=self.dtype)
            if s.shape != self.shape:
                raise RuntimeError(
                    f"backward: a gradient of shape {list(s.shape)} for a value of shape {list(self.shape)}\n  at {user_line()}"
                )
            start = record.cast(s.node, self.dtype, here())
        used = _reached(self.node, {t.node for t in targets})
        wrt = [t.node for t in targets if t.node in used]
        grads = dict(zip(wrt, gradient(self.node, wrt, start, force.history), strict=True))
        return [(t.node in used, grads.get(t.node)) for t in targets]

    # Values.
    def realize(self, *others: Any) -> Tensor:
        """Compute this tensor (and the others, in the same program) now."""
        force.realize([self, *others], "realize")
        return self  # type: ignore[return-value]

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as they are now, read-only and without a copy: the memory stays the engine's, and what is computed or
        updated later does not change them. For an array to write to: `np.array(t)`. TypeError for bfloat16 and 8-bit floats,
        which NumPy has not."""
        if self.dtype.layout is not None:
            raise TypeError(f"NumPy has no {self.dtype}: use x.float().numpy() or x.tolist()\n  at {user_line()}")
        self._values("numpy")
        return valued(self.node.arg.lend(whole(self.shape)), self.shape)

    def _values(self, cause: str) -> np.ndarray[Any, Any]:
        if self.node.op != "buffer":
            force.realize([self], cause)
        if self.node.op != "buffer" or isinstance(self.node.arg, Placeholder):
            raise RuntimeError(
                f"the value of this tensor is not known yet: inside jit no value can be read ({cause})\n  at {user_line()}"
            )
        if core.state.trace is not None and id(self.node.arg) not in core.state.trace.made:
            core.state.trace.read.append((self.node.arg, user_line()))
        shape = whole(self.shape)
        return valued(self.node.arg.values[: math.prod(shape)].reshape(shape), self.shape)

    def data(self) -> memoryview:
        """The values as a memoryview, read-only."""
        return memoryview(self.numpy())  # type: ignore[arg-type]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """What `np.array(t)` (a copy) and `np.asarray(t)` (none, read-only, unless `dtype` is another) call."""
        a = self.numpy()
        return np.array(a, dtype, copy=copy) if copy is not None else np.asarray(a, dtype)

    def item(self) -> Any:
        """The only element as a Python number. RuntimeError when there is not exactly one."""
        if self.numel() != 1:
            raise RuntimeError(
                f"item: a tensor of {self.numel()} elements, shape {list(self.shape)}, is no single number\n  at {user_line()}"
            )
        return self._values("item").item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a tensor without axes."""
        return self._values("tolist").tolist()

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise RuntimeError(
                f"the truth of a tensor of {self.numel()} elements is not defined; use any() or all()\n  at {user_line()}"
            )
        return bool(self._values("bool").item())

    def __int__(self) -> int:
        return int(self._only())

    def __float__(self) -> Any:
        return float(self._only())

    def _only(self) -> Any:
        if self.numel() != 1:
            raise ValueError(f"a tensor of shape {list(self.shape)} is no single number\n  at {user_line()}")
        return self.item()

    def __index__(self) -> int:
        if not self.dtype.is_int:
            raise TypeError(f"only an integer tensor can be an index, not {self.dtype}\n  at {user_line()}")
        return int(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError(f"len() of a tensor without axes\n  at {user_line()}")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError(f"iteration over a tensor without axes\n  at {user_line()}")
        return iter([self[i] for i in range(self.shape[0])])

    def __contains__(self, x: Any) -> bool:
        return bool((self == x).any())

    def allclose(self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Whether all elements are close, as `isclose` has it: a bool, computed at once."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def nonzero(self, size: int | None = None, fill_value: int = 0) -> Tensor:
        """int32 (count, axes): the positions of the elements that are not zero; computed at once. With a `size`: that many rows,
        those that are too many filled with `fill_value`; not computed, so that it can stand in a jitted function."""
        if size is None:
            return core._cls(np.argwhere(self._values("nonzero")).astype(np.int32))  # type: ignore[no-any-return]
        at, there = self.bool()._first_true(size)
        rows: list[Any] = []
        rest: Any = at
        for n in reversed(self.shape):
            rows.insert(0, rest % n)
            rest = rest // n
        found = core._cls.stack(rows, dim=-1) if rows else core._cls.zeros(size, 0, dtype="int32")
        return choose(there.unsqueeze(-1), found, fill_value)

    # Assignment.
    def assign(self, value: Any) -> Tensor:
        """This tensor's memory gets the elements of `value` (broadcast, cast to this dtype), when either is next computed. Takes
        no part in gradients. RuntimeError when the shapes do not fit. Values recorded before this read the old content."""
        v = value if isinstance(value, Base) else core._cls(value, dtype=self.dtype)
        o = here()
        if core.broadcast_shape(v.shape, self.shape) != self.shape:
            raise RuntimeError(
                f"assign: a value of shape {list(v.shape)} does not fit shape {list(self.shape)}\n  at {user_line()}"
            )
        n = core.broadcast_node(record.cast(v.node, self.dtype, o), self.shape, o)
        if self.viewed is None:
            force.assign(self, n)
        else:
            update(self, make(n, core.STOPPED if v.flow else core.NO_FLOW), memory=True)
        return self  # type: ignore[return-value]

    def replace(self, other: Tensor) -> Tensor:
        """This tensor becomes the same value as `other`, without a copy. RuntimeError when shape or dtype differ."""
        if other.shape != self.shape or other.dtype is not self.dtype:
            given, wanted = f"{other.dtype}{list(other.shape)}", f"{self.dtype}{list(self.shape)}"
            raise RuntimeError(f"replace: got {given}, expected {wanted}\n  at {user_line()}")
        share(self, other)
        return self  # type: ignore[return-value]

    def become(self, new: Tensor) -> Tensor:
        """For x += y and x[i] = y: computed memory is overwritten, a recorded value is replaced by another. RuntimeError for
        another shape, for floats into ints or numbers into bools, and, outside no_grad, for a leaf that requires a gradient."""
        if _KIND[new.dtype.kind] > _KIND[self.dtype.kind]:
            raise RuntimeError(f"in place: a result of {new.dtype} cannot be stored in {self.dtype}\n  at {user_line()}")
        new = new.cast(self.dtype) if new.dtype is not self.dtype else new
        if new.shape != self.shape:
            raise RuntimeError(
                f"in place: a result of shape {list(new.shape)} does not fit shape {list(self.shape)}\n  at {user_line()}"
            )
        update(self, new)
        return self  # type: ignore[return-value]

    def __iadd__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self + other)

    def __isub__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self - other)

    def __imul__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self * other)

    def __itruediv__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self / other)

    def __ifloordiv__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self // other)

    def __imod__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self % other)

    def __ipow__(self, other: Any) -> Tensor:
        return self.become(self**other)

    def __imatmul__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self @ other)

    def __iand__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self & other)

    def __ior__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self | other)

    def __ixor__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self ^ other)

    def __ilshift__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self << other)

    def __irshift__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self.become(self >> other)

    def clone(self) -> Tensor:
        """The same value in memory of its own."""
        return self.contiguous()

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def __repr__(self) -> str:
        """Computes nothing: values are shown only when they are known."""
        extra = ", requires_grad=True" if self.flow == core.FLOWS and id(self) in core.leaves else ""
        if self.node.op == "buffer":
            text = np.array2string(self._values("print"), separator=", ", prefix="Tensor(", precision=4, threshold=200)
            return f"Tensor({text}, dtype={self.dtype}{extra})"
        return f"Tensor(<not computed: {self.node.op}>, shape={self.shape}, dtype={self.dtype}{extra})"


def _dead_end(root: Node) -> str:
    """Where the way from a leaf that requires a gradient to `root` ends, as words for an error; empty where no leaf is below."""
    leaves = {t.node for r in core.leaves.values() if (t := r()) is not None}
    depends: set[Node] = set()
    for n in toposort([root]):
        if n in leaves:
            depends.add(n)
        elif any([s in depends for s in n.src]):
            if ends(n):
                where = f" ({n.origin[0]}: {n.origin[0].frames[0].text})" if n.origin and n.origin[0].frames else ""
                return f"; the way from a leaf ends at {n.op}{where}, through which no gradient flows"
            depends.add(n)
    return ""


def _reached(root: Any, wanted: set[Any]) -> set[Any]:
    """Which of these nodes lie under `root`, histories included."""
    seen: set[Any] = set()
    stack = [root]
    while stack:
        n = stack.pop()
        if n not in seen:
            seen.add(n)
            if n.op == "buffer" and n not in wanted:
                past = force.history(n)
                if past is not None:
                    stack.append(past)
            stack += n.src
    return seen & wanted


__all__ = ["Autograd"]
