"""Base: what every tensor is (a node and how gradients flow through it), how new ones are made, and which of them are alive.

`flow` says what `backward` may do here: 0 = nothing below needs a gradient, 1 = gradients flow, 2 = something below needs one but
the flow is stopped (detach, no_grad). A stop is written into the graph, as a bitcast to the same dtype, only when such a tensor
meets one that is differentiated, so a graph recorded under `no_grad` has no extra nodes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.node import Node, Shape
from tinyengine.origin import here, user_line
from tinyengine.size import Size
from tinyengine.stages import record

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor
    from tinyengine.tensor.views import View

NO_FLOW, FLOWS, STOPPED = 0, 1, 2
Number = bool | int | float
F = TypeVar("F", bound=Callable[..., Any])


class Trace:
    """What a compiled function must know of what happens while it is traced."""

    def __init__(self) -> None:
        self.journal: list[tuple[Base, Node, int, View | None]] = []  # what tensors were before they became something else
        self.before = {id(t): t.node for t in alive()}  # what was recorded when the trace began
        self.made: set[int] = set()  # identities of memory made in the trace: constants of the program
        self.memory: list[Any] = []  # keeps these identities taken
        self.read: list[tuple[Any, str]] = []  # memory whose values Python has read, and on which line


class _State(threading.local):
    """Of each Python thread."""

    limit = FLOWS  # the largest flow that an operand may have without further thought: NO_FLOW while gradients are off
    trace: Any = None  # the trace of a jitted function that is going on (`jit._Trace`)


state = _State()
_prune_at = 2000  # tensors in `live`
_pruning = threading.Lock()
live: list[weakref.ref[Base]] = []  # every tensor that may still be alive and not computed, in order of creation; see `alive`
leaves: dict[int, weakref.ref[Base]] = {}  # id(tensor) -> tensors with requires_grad=True
frozen: dict[int, weakref.ref[Base]] = {}  # id(tensor) -> tensors that were among `leaves` and were told to be no more
_ref = weakref.ref
_append = live.append
_object_new = object.__new__
_cls: type[Any] = object


class Base:
    """`node`: the value, recorded or (a `buffer`) computed. `grad`: what `backward` left here, or None. `viewed`: how it is taken
    from another tensor, or None."""

    __slots__ = ("__weakref__", "flow", "grad", "node", "viewed")
    node: Node
    flow: int
    grad: Tensor | None
    viewed: View | None

    @property
    def shape(self) -> Shape:
        """The extents, as a tuple of int; where an axis is symbolic, a Size."""
        return self.node.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.node.dtype

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.node.shape)

    @property
    def device(self) -> str:
        """Where results live: this engine computes on the host."""
        return "CPU"

    def detach(self) -> Tensor:
        """The same elements; no gradient flows through them. Updates in place of either are seen in both."""
        from tinyengine.tensor.views import derive

        return derive(self, self.node, self.node, STOPPED if self.flow else NO_FLOW, stop=True)


def bind(cls: type[Any]) -> None:
    """Tell `make` which class is the Tensor."""
    global _cls
    _cls = cls


def tensor_class() -> type[Any]:
    """The class that `make` makes: Tensor, once the package is loaded."""
    if _cls is object:
        import tinyengine.tensor  # noqa: F401
    return _cls


def make(node: Node, flow: int, shared: bool = False) -> Tensor:
    """A new tensor with this node. Memory that another tensor holds is not shared unseen: of it only the value is taken, unless
    the caller takes care of both (`shared`)."""
    t = _object_new(_cls)
    if not shared and (node.op == "buffer" or node.op == "assign"):
        node = Node("reshape", node.dtype, node.shape, (node,), None, node.origin)
    t.node = node
    t.flow = flow
    t.grad = t.viewed = None
    if node.op != "buffer":
        _append(_ref(t))
        if len(live) > _prune_at:
            prune()
    return t  # type: ignore[no-any-return]


def computed(node: Node) -> Tensor:
    """A new tensor with a `buffer` node, whose memory is its own; no gradient flows through it."""
    t = _object_new(_cls)
    t.node = node
    t.flow = NO_FLOW
    t.grad = t.viewed = None
    return t  # type: ignore[no-any-return]


def same(x: Base) -> Tensor:
    """The value of `x` as a tensor of its own, where a function has nothing to do: an update in place of one leaves the other."""
    return make(Node("reshape", x.dtype, x.shape, (x.node,), None, x.node.origin), x.flow)


def become(t: Base, node: Node) -> None:
    """Give a tensor another node."""
    if state.trace is not None:
        state.trace.journal.append((t, t.node, t.flow, t.viewed))
    t.node = node
    _append(_ref(t))


def alive() -> list[Base]:
    """Every tensor that somebody still holds and that is not computed; the others are forgotten. Cheap when there are few."""
    global _prune_at
    with _pruning:
        known = len(live)  # another thread may append to it meanwhile
        found = {id(t): t for r in live[:known] if (t := r()) is not None and t.node.op != "buffer"}
        live[:known] = [_ref(t) for t in found.values()]
        _prune_at = 2 * len(live) + 2000
    return list(found.values())


def prune() -> None:
    """Forget the tensors that have died or are computed."""
    alive()


def settle(*xs: Base) -> tuple[int, tuple[Node, ...]]:
    """(flow of the result, operand nodes) where the quick test `flow <= state.limit` fails."""
    if state.limit == NO_FLOW:
        return (STOPPED if any(x.flow for x in xs) else NO_FLOW), tuple([x.node for x in xs])
    for x in xs:
        if x.flow == STOPPED:
            become(x, record.bitcast(x.node, x.node.dtype, here()))
            x.flow = NO_FLOW
    return (FLOWS if any(x.flow for x in xs) else NO_FLOW), tuple([x.node for x in xs])


def operand(x: Base) -> tuple[int, Node]:
    """(flow of the result, operand node) of a function of one tensor; integers and bools carry no gradient."""
    if x.flow <= state.limit:
        return x.flow, x.node
    flow, (n,) = settle(x)
    return flow, n


@contextlib.contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    """Inside, new tensors are differentiable or not."""
    old, state.limit = state.limit, FLOWS if enabled else NO_FLOW
    try:
        yield
    finally:
        state.limit = old


class no_grad:
    """`with no_grad():`, `@no_grad()` or `@no_grad`: what is recorded inside takes no part in `backward`. As torch.no_grad."""

    _limit = NO_FLOW

    def __new__(cls, f: Any = None) -> Any:
        self: Any = object.__new__(cls)
        return self if f is None else self(f)

    def __enter__(self) -> None:
        self._old = state.limit
        state.limit = self._limit

    def __exit__(self, *exc: object) -> None:
        state.limit = self._old

    def __call__(self, f: F) -> F:
        if inspect.isgeneratorfunction(f):
            raise TypeError(
                f"{type(self).__name__} cannot decorate the generator {f.__qualname__}: it would end at the first yield; put a"
                f" with-block inside\n  at {user_line()}"
            )

        @functools.wraps(f)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return f(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


class enable_grad(no_grad):
    """The reverse of `no_grad`, for use inside it. Same as torch.enable_grad."""

    _limit = FLOWS


# Shapes and axes, with the errors that users meet.


def broadcast_shape(*shapes: Shape) -> Shape:
    """The common shape by NumPy's rule. Raises RuntimeError, as PyTorch does, when there is none."""
    out: list[Any] = []
    for s in shapes:
        out = list(s) if len(s) > len(out) else out
    for s in shapes:
        for d, k in enumerate(s, len(out) - len(s)):
            n = out[d]
            if k != n and k != 1:
                if n != 1:
                    given = " and ".join(str(list(s)) for s in shapes)
                    raise RuntimeError(
                        f"shapes {given} do not broadcast: axis {d - len(out)} has {n} and {k}, and extents must be equal or 1\n"
                        f"  at {user_line()}"
                    )
                out[d] = k
    return tuple(out)


def broadcast_node(n: Node, shape: Shape, o: record.Where) -> Node:
    """`n` repeated to `shape`, which it is known to fit."""
    if n.shape == shape:
        return n
    if n.op == "const":
        return record.const(n.arg, n.dtype, shape, o)
    missing = len(shape) - len(n.shape)
    if missing:
        n = record.reshape(n, (1,) * missing + n.shape, o)
    return record.expand(n, shape, o)


def axis_of(dim: int, rank: int, what: str = "dim") -> int:
    """`dim` counted from the front. Raises IndexError when there is no such axis, TypeError for what is no int."""
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"{what} must be an int, not {dim!r}\n  at {user_line()}")
    r = max(rank, 1)
    if not -r <= dim < r:
        raise IndexError(
            f"{what} {dim} is out of range: the tensor has {rank} axes, so {-r} to {r - 1} are allowed\n  at {user_line()}"
        )
    return dim % r


def axes_of(dim: Any, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in order; None means all. `dim`: an int or several. Raises IndexError, TypeError or
    RuntimeError (an axis twice)."""
    if dim is None:
        return tuple(range(rank))
    if isinstance(dim, str) or not hasattr(dim, "__iter__"):
        axis = axis_of(dim, rank)
        return (axis,) if rank else ()
    axes = [axis_of(d, rank) for d in dim]
    if len(set(axes)) < len(axes):
        raise RuntimeError(f"dim {tuple(dim)} names an axis twice\n  at {user_line()}")
    return tuple(sorted(axes)) if rank else ()


def shape_of(shape: tuple[Any, ...]) -> Shape:
    """From f(2, 3) or f((2, 3)). Raises TypeError for what is no int and RuntimeError for negative extents."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    out: list[Any] = []
    for s in shape:
        if isinstance(s, Size):
            out.append(s)
            continue
        try:
            out.append(s.__index__())
        except (AttributeError, TypeError):
            raise TypeError(f"a shape holds ints, not {s!r}\n  at {user_line()}") from None
    if any(s < 0 for s in out):
        raise RuntimeError(f"shape {out} has a negative extent\n  at {user_line()}")
    return tuple(out)


def count_of(n: Any, what: str) -> Any:
    """`n`, an int or a Size. Raises TypeError for others."""
    if isinstance(n, Size) or hasattr(n, "__index__"):
        return n
    raise TypeError(f"{what} is an int, not {n!r}\n  at {user_line()}")


def dtype_of(dtype: Any) -> DType:
    """A DType from what a user gives. Raises TypeError with the user's line."""
    try:
        return dtypes.as_dtype(dtype)
    except TypeError as e:
        raise TypeError(f"{e}\n  at {user_line()}") from None


def wide(dtype: DType) -> DType:
    """The dtype in which products are summed: float32 for floats of one or two bytes."""
    return dtypes.float32 if dtype.is_float and dtype.itemsize <= 2 else dtype


def widened(t: Base) -> Any:
    """A float of one or two bytes as float32, in which its op computes."""
    flow, n = operand(t)
    return make(record.operand(n, here(2)), flow)


def narrowed(t: Base, dtype: DType) -> Any:
    """A result computed in float32 as the narrower dtype that it was asked for in."""
    flow, n = operand(t)
    return make(record.result(n, dtype, here(2)), flow)


def float_of(dtype: DType) -> DType:
    """The dtype in which functions like exp are computed: ints and bools become the default float."""
    return dtype if dtype.is_float else dtypes.default_float
