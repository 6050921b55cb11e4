"""jit: record a step function once, then replay its compiled program with one native call.

The contract:
- The function is traced once per signature: shapes and dtypes of its tensor arguments, and the values of all others (numbers, strings...).
  Another signature traces again. Python code inside runs only while tracing; a captured Python number is a constant of the program.
- Tensor arguments are inputs by position and name, and are only read. Tensors found elsewhere (parameters, optimizer state) are captured:
  the program reads and updates their memory in place. Every replay sees their newest content.
- Everything that a tensor of the function depends on must stay lazy while tracing: reading a value inside (`item`, `numpy`, `bool`, print of
  values) raises JitError. Updates (`assign`, `optim.step`) become part of the program.
- Results are tensors with fresh memory, or tuples, lists and dicts of them.
- Random draws inside take a new counter at every replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from tinyengine import hooks, origin
from tinyengine import realize as engine
from tinyengine.node import Graph, Node
from tinyengine.pipeline import Lowered
from tinyengine.runtime.buffer import Buffer

F = TypeVar("F", bound=Callable[..., Any])


class JitError(RuntimeError):
    """The traced function did what a compiled program cannot do; the message says what, and on which line."""


class _Trace:
    """What happens while a function is traced."""

    def __init__(self) -> None:
        self.deferred: list[Any] = []


_trace: _Trace | None = None


def tracing() -> bool:
    """Whether a function is being traced right now."""
    return _trace is not None


def defer(tensors: Sequence[Any], cause: str) -> None:
    """Called by `realize` in a trace: updates wait for the program; reading a value is an error."""
    assert _trace is not None
    if cause not in ("step", "realize"):
        raise JitError(
            f"{cause}() was called inside a jitted function, on {origin.user_line()}; expected only lazy operations there. "
            "Return the tensor and read it outside."
        )
    _trace.deferred += [t for t in tensors if not any(t is d for d in _trace.deferred)]


class _Entry:
    """A compiled signature: the program, and where each thing it touches comes from."""

    def __init__(self, lowered: Lowered, buffers: list[Buffer], inputs: dict[int, int], roots: list[Node], tree: Any, counter: int | None, draws: int) -> None:
        self.lowered, self.buffers, self.inputs, self.roots, self.tree = lowered, buffers, inputs, roots, tree
        self.counter, self.draws = counter, draws
        self.results = [i for i, t in enumerate(roots) if t is not None]


class jit(Generic[F]):
    """`step = jit(step)` or `@jit`. See the module's docstring for the contract."""

    def __init__(self, f: F) -> None:
        self.f = f
        self.entries: dict[Any, _Entry] = {}
        functools.update_wrapper(self, f)

    def __get__(self, obj: Any, kind: Any = None) -> Any:
        return functools.partial(self, obj) if obj is not None else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tinyengine.tensor import Tensor

        if tracing():
            return self.f(*args, **kwargs)  # a jitted function inside another becomes a part of it
        leaves: list[Any] = []
        key = (_signature(args, leaves, Tensor), _signature(kwargs, leaves, Tensor))
        lazy = [t for t in leaves if t.node.op != "buffer"]
        if lazy:
            engine.realize(lazy, "jit argument")
            for t in lazy:
                if t.node.op != "buffer":  # a view of realised memory: the program takes plain memory
                    t.node = _plain(t)
        entry = self.entries.get(key)
        if entry is None:
            if hooks.watching:
                old = next(reversed(self.entries), None)
                guard, a, b = ("first call", None, None) if old is None else _changed(old, key)
                hooks.publish(hooks.CacheMiss("jit", getattr(self.f, "__qualname__", "function"), guard, a, b))
            entry = self.entries[key] = self._trace(args, kwargs, leaves, Tensor)
        elif hooks.watching:
            hooks.publish(hooks.CacheHit("jit", getattr(self.f, "__qualname__", "function")))
        return self._replay(entry, leaves, Tensor)

    @property
    def lowered(self) -> list[Lowered]:
        """The programs compiled so far, one per signature."""
        return [e.lowered for e in self.entries.values()]

    def _trace(self, args: Any, kwargs: Any, leaves: list[Any], tensor: type) -> _Entry:
        from tinyengine.tensor import random

        global _trace
        placeholders: dict[int, Any] = {}
        slots: list[Buffer] = []
        for t in leaves:
            slots.append(Buffer(t.node.size, t.dtype, f"arg{len(slots)}"))
            p = tensor._of(Node("buffer", t.dtype, t.shape, (), slots[-1], t.node.origin))
            p.requires_grad = t.requires_grad
            placeholders[id(t)] = p
        before = {id(t): t.node for t in engine.live()}
        _trace = _Trace()
        try:
            with random.program_counter() as counter:
                result = self.f(*_substitute(args, placeholders, tensor), **_substitute(kwargs, placeholders, tensor))
                tree_tensors: list[Any] = []
                tree = _flatten(result, tree_tensors, tensor)
                updated = [t for t in engine.live() if t.node.op == "assign" and before.get(id(t)) is not t.node]
                wanted = [*tree_tensors, *(t for t in _trace.deferred if t.node.op != "buffer"), *updated]
                seen: set[int] = set()
                updates = [t for t in wanted[len(tree_tensors) :] if not (id(t) in seen or seen.add(id(t)))]  # type: ignore[func-returns-value]
                roots = engine.last_updates([t.node for t in (*tree_tensors, *updates)])
                graph = Graph(roots)
                lowered, buffers = engine.compiled(graph)
        finally:
            _trace = None
        # parameters and state keep their own memory: the program updates it in place
        for t, r in zip(updates, roots[len(tree_tensors) :], strict=True):
            if r.op == "assign":
                t.node = r.src[0]
        position = {id(b): i for i, b in enumerate(slots)}
        inputs = {i: position[id(b)] for i, b in enumerate(buffers) if id(b) in position}
        at = next((i for i, b in enumerate(buffers) if b is counter.buffer), None)
        entry = _Entry(lowered, buffers, inputs, roots, (tree, len(tree_tensors), updates), at, counter.draws)
        return entry

    def _replay(self, entry: _Entry, leaves: list[Any], tensor: Any) -> Any:
        from tinyengine.tensor import random

        buffers = list(entry.buffers)
        for slot, leaf in entry.inputs.items():
            buffers[slot] = leaves[leaf].node.arg
        if entry.counter is not None:
            buffers[entry.counter] = random.next_counter(entry.draws)
        memory = engine.run_roots(entry.lowered, entry.roots, buffers)
        tree, count, updates = entry.tree
        for t, r, m in zip(updates, entry.roots[count:], memory[count:], strict=True):
            if r.op != "assign":
                t.node = engine.memory_node(r, m)
        results = [tensor._of(engine.memory_node(r, m)) for r, m in zip(entry.roots[:count], memory[:count], strict=True)]
        return _unflatten(tree, results)


def _plain(t: Any) -> Node:
    n = t.node
    b = n
    while b.op == "reshape":
        b = b.src[0]
    return Node("buffer", n.dtype, n.shape, (), b.arg, n.origin)


def _signature(x: Any, leaves: list[Any], tensor: type) -> Any:
    """A hashable form of an argument; its tensors go to `leaves` in order."""
    if isinstance(x, tensor):
        leaves.append(x)
        return ("tensor", x.shape, x.dtype.name)  # type: ignore[attr-defined]
    if isinstance(x, (tuple, list)):
        return (type(x).__name__, *(_signature(i, leaves, tensor) for i in x))
    if isinstance(x, dict):
        return ("dict", *((k, _signature(v, leaves, tensor)) for k, v in x.items()))
    try:
        hash(x)
    except TypeError:
        raise JitError(f"an argument of a jitted function is neither a tensor nor hashable: {type(x).__name__}; on {origin.user_line()}") from None
    return (type(x).__name__, x)


def _changed(old: Any, new: Any, path: str = "arguments") -> tuple[str, Any, Any]:
    """The first difference of two signatures."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                if old[0] == "tensor":
                    return f"{('kind', 'shape', 'dtype')[i]} of {path}", a, b
                return _changed(a, b, f"{path}[{i}]")
    return path, old, new


def _substitute(x: Any, placeholders: dict[int, Any], tensor: type) -> Any:
    if isinstance(x, tensor):
        return placeholders[id(x)]
    if isinstance(x, (tuple, list)):
        return type(x)(_substitute(i, placeholders, tensor) for i in x)
    if isinstance(x, dict):
        return {k: _substitute(v, placeholders, tensor) for k, v in x.items()}
    return x


def _flatten(x: Any, out: list[Any], tensor: type) -> Any:
    """The shape of a result with its tensors replaced by their positions in `out`."""
    if isinstance(x, tensor):
        out.append(x)
        return ("tensor", len(out) - 1)
    if isinstance(x, (tuple, list)):
        return (type(x), [_flatten(i, out, tensor) for i in x])
    if isinstance(x, dict):
        return (dict, {k: _flatten(v, out, tensor) for k, v in x.items()})
    return ("value", x)


def _unflatten(tree: Any, tensors: Sequence[Any]) -> Any:
    kind, inner = tree
    if kind == "tensor":
        return tensors[inner]
    if kind == "value":
        return inner
    if kind is dict:
        return {k: _unflatten(v, tensors) for k, v in inner.items()}
    return kind(_unflatten(v, tensors) for v in inner)


__all__ = ["JitError", "jit", "tracing"]
