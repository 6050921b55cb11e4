"""jit: record a step function once, then replay its compiled program with one native call.

The contract, of which docs/jit.md gives each trap with an example:
- The function is traced once per signature: shapes and dtypes of its tensor arguments, and the values of all others (numbers,
  strings...). Another signature traces again. Python code inside runs only while tracing; a captured Python number is a constant.
- Tensor arguments are inputs by position and name. Tensors found elsewhere (parameters, optimizer state) are captured: the
  program reads and updates their memory, and every replay sees their newest content. A value that was recorded before and is
  captured is computed once, before the first run. Memory made inside is a constant.
- Updates in place (`assign`, `+=`, `x[i] = y`, `optim.step`), of captured tensors and of arguments, are done at every replay,
  and their views follow. An argument that shares memory with what is updated is refused, and so is a captured tensor that would
  take a value through which gradients flow.
- Everything that a tensor of the function depends on stays lazy while tracing: reading a value inside (`item`, `numpy`, `bool`,
  print of values) raises JitError. Memory from outside may be read, as a constant, unless the function also updates it.
- Results are tensors with memory of their own, or tuples, lists and dicts of them.
- Random draws inside take a new counter at every replay.
- An exception while tracing leaves every tensor as it was.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Container, Sequence
from typing import Any, Generic, TypeVar

from tinyengine import dtypes, hooks, origin, size
from tinyengine import realize as engine
from tinyengine.node import Graph, Node, reading, toposort
from tinyengine.pipeline import Compiled, Lowered
from tinyengine.replay import Entry, flatten
from tinyengine.runtime.buffer import Placeholder
from tinyengine.signature import JitError, changed, paths, signature, substitute, values
from tinyengine.size import Size
from tinyengine.tensor import core, force

F = TypeVar("F", bound=Callable[..., Any])


_tracing = threading.RLock()  # one function is traced at a time


def _after_fork() -> None:
    global _tracing
    _tracing = threading.RLock()  # a thread that does not exist here may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Trace(core.Trace):
    """What happens while a function is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.grads = [(t, t.grad) for r in core.leaves.values() if (t := r()) is not None]
        self.deferred: list[Any] = []
        self.assigned: list[weakref.ref[Any]] = []
        self.draws: list[
            tuple[Placeholder, Any]
        ] = []  # memory for the counter of each random draw, and how many numbers it takes

    def offset_node(self, n: Any) -> Node:
        """What `tensor.random.offset_node` says in a trace: the counter becomes an input of the program."""
        b = Placeholder(2, dtypes.uint32, "random_offset")
        self.draws.append((b, n))
        return Node("buffer", dtypes.uint32, (2,), (), b, (origin.capture(),))

    def undo(self) -> None:
        """Every tensor is again what it was when the trace began."""
        for t, node, flow, viewed in reversed(self.journal):
            t.node, t.flow, t.viewed = node, flow, viewed
            core.live.append(core._ref(t))
        for t, grad in self.grads:
            t.grad = grad
        force.updated = True  # what waited before waits again

    def settle(self, kept: Sequence[Any]) -> None:
        """Values that were recorded before the trace, and that `kept` tensors read, are computed now, once: what memory they read
        may change between replays."""
        nodes = toposort([t.node for t in kept])
        reads = reading([t.node for t in kept], _Any())
        recorded = {n for n in self.before.values() if n.op != "buffer" and n in reads}
        old = [core.make(n, core.NO_FLOW, True) for n in nodes if n in recorded]
        if old:
            force.realize(old, "read by a jitted function")


class _Any:
    """Contains everything."""

    def __contains__(self, x: object) -> bool:
        return True


def tracing() -> bool:
    """Whether a function is being traced right now, by this thread."""
    return core.state.trace is not None


def defer(tensors: Sequence[Any], cause: str) -> None:
    """Called by `realize` in a trace: updates wait for the program; reading a value is an error."""
    if cause not in ("step", "realize"):
        raise JitError(
            f"{cause}() was called inside a jitted function, on {origin.user_line()}; expected only lazy operations there. "
            "Return the tensor and read it outside."
        )
    core.state.trace.deferred += tensors


class _Escaped:
    """The memory of a tensor that was made inside a jitted function and not returned: there is none."""

    name = "escaped"

    def __init__(self, dtype: dtypes.DType, size: int) -> None:
        self.dtype, self.size = dtype, size

    def __getattr__(self, what: str) -> Any:
        raise JitError(
            "this tensor was made inside a jitted function and has no value outside it; "
            f"expected a tensor that the function returns. Return it; it was asked for on {origin.user_line()}"
        )


def _seal(memory: set[int]) -> None:
    """Tensors that still depend on the placeholders of a trace must not be computed from them later."""
    tensors = [(t, t.node) for t in engine.live()]  # another thread may change them meanwhile
    inside = reading([n for _, n in tensors], memory)
    for t, n in tensors:
        if n in inside:
            t.node = Node("buffer", t.dtype, t.shape, (), _Escaped(t.dtype, t.node.size), t.node.origin[:1])


class jit(Generic[F]):
    """`step = jit(step)` or `@jit`. See the module's docstring for the contract."""

    def __init__(self, f: F) -> None:
        self.f = f
        self.entries: dict[Any, Entry] = {}
        self._last: tuple[Entry, list[tuple[Any, Any]]] | None = None  # of the newest call: shapes and dtypes of its arguments
        functools.update_wrapper(self, f, updated=())  # what a callable object holds is not ours

    def __get__(self, obj: Any, kind: Any = None) -> Any:
        return functools.partial(self, obj) if obj is not None else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if core.state.trace is not None:
            return self.f(*args, **kwargs)  # a jitted function inside another becomes a part of it
        last = self._last
        if last is not None and not kwargs and len(args) == len(last[1]):
            # the same arguments as the last time, all of them computed tensors
            entry, known = last
            k = 0  # counted by hand: making a zip or enumerate takes as long as all that is asked
            for t in args:
                if type(t) is not core._cls:
                    break
                n = t.node
                shape, dtype = known[k]
                if n.op != "buffer" or n.dtype is not dtype or n.shape != shape:
                    break
                k += 1  # noqa: SIM113 (see above)
            else:
                if hooks.watching:
                    hooks.publish(hooks.CacheHit("jit", getattr(self.f, "__qualname__", "function")))
                return entry.replay(args)
        return self._call(args, kwargs)

    def _call(self, args: Any, kwargs: Any) -> Any:
        """Whatever the arguments are."""
        entry, leaves, now = self._entry(args, kwargs)
        tensor = core.tensor_class()
        if not kwargs and not now and all([type(t) is tensor for t in args]):
            self._last = (entry, [(t.node.shape, t.node.dtype) for t in args])
        return entry.replay(leaves, now)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The program for these arguments, traced and not run (as in JAX). Running it later works on copies; the random state and
        the gradients that tensors hold stay as they are."""
        from tinyengine.tensor import random

        params = [t for r in list(core.leaves.values()) if (t := r()) is not None]
        grads = [t.grad for t in params]
        try:
            with random.kept():
                entry, leaves, now = self._entry(args, kwargs)
                return entry.lowered.rebind(entry.lowered.graph, entry.memory(leaves, now))
        finally:
            for t, grad in zip(params, grads, strict=True):
                t.grad = grad

    def tune(self, *args: Any, budget: float = 2.0, **kwargs: Any) -> Any:
        """`tinyengine.tune` for these arguments; later calls use what was found. Returns a `tinyengine.tune.Tuning`."""
        from tinyengine.tune import tune

        return tune(self, *args, budget=budget, **kwargs)

    def renew(self) -> None:
        """Compile what was traced again with the choices of now: pins, and what tuning found."""
        now = engine.current_choices()
        for key, e in self.entries.items():
            lowered = e.lowered.with_choices(now)
            self.entries[key] = Entry(
                lowered, e.buffers, e.inputs, e.draws, e.roots, e.updates, e.tree, e.results, e.names, e.guards
            )
        self._last = None

    def _entry(self, args: Any, kwargs: Any) -> tuple[Entry, list[Any], dict[str, int]]:
        """The compiled signature of these arguments, traced when it is new; their tensors, and the values of their variables."""
        tensor = core.tensor_class()
        leaves: list[Any] = []
        sizes: list[Size] = []
        key: Any = (signature(args, leaves, tensor, sizes), signature(kwargs, leaves, tensor, sizes) if kwargs else ())
        now = values(sizes) if sizes else {}
        lazy = [t for t in leaves if t.node.op != "buffer"]
        if lazy:
            force.realize(lazy, "jit argument")
        entry, broken = self.entries.get(key), None
        while entry is not None and (failed := next((g for g in entry.guards if not g.holds(now)), None)) is not None:
            key, broken = (*key, failed), failed  # another program, for the other answer
            entry = self.entries.get(key)
        if entry is None:
            if hooks.watching:
                old = next(reversed(self.entries), None)
                guard, a, b = ("first call", None, None) if old is None else changed(old, key)
                if broken is not None:
                    guard, a, b = f"{broken}, asked on {broken.line}", broken.answer, not broken.answer
                hooks.publish(hooks.CacheMiss("jit", getattr(self.f, "__qualname__", "function"), guard, a, b))
            with _tracing:  # what a function captures is lazy while it is traced: another thread would take it for its own
                entry = self.entries.get(key)
                if entry is None:
                    try:
                        entry = self._trace(args, kwargs, leaves, tensor)
                    except _Late as e:
                        force.realize([t for t in core.alive() if t.node in e.updates], "jit: updates that came before")
                        entry = self._trace(args, kwargs, leaves, tensor)
                    self.entries[key] = entry
        elif hooks.watching:
            hooks.publish(hooks.CacheHit("jit", getattr(self.f, "__qualname__", "function")))
        return entry, leaves, now

    @property
    def lowered(self) -> list[Lowered]:
        """The programs compiled so far, one per signature."""
        return [e.lowered for e in self.entries.values()]

    @property
    def kernels(self) -> tuple[Compiled, ...]:
        """The kernels of the newest signature, in the order in which they run: `assert len(step.kernels) == 8`. Raises ValueError
        before the first call."""
        if not self.entries:
            raise ValueError(f"{getattr(self.f, '__qualname__', 'the function')} was not called yet, so it has no kernels")
        return next(reversed(self.entries.values())).lowered.kernels

    def _trace(self, args: Any, kwargs: Any, leaves: list[Any], tensor: type) -> Entry:
        names: list[str] = []
        form = inspect.signature(self.f)
        try:
            given = form.bind(*args, **kwargs).arguments
        except TypeError as e:
            name = getattr(self.f, "__qualname__", "the function")
            raise TypeError(f"{name}{form}: {e}\n  at {origin.user_line()}") from None
        for name, value in given.items():
            paths(value, name, names, tensor)
        slots = [Placeholder(t.node.arg.size, t.dtype, name) for t, name in zip(leaves, names, strict=True)]
        inner = [_inner(t, b) for t, b in zip(leaves, slots, strict=True)]
        inside = iter(inner)
        trace = core.state.trace = _Trace()
        memory = {id(b) for b in slots}
        results: list[Any] = []
        size.state.guards = []
        try:
            tree = flatten(self.f(*substitute(args, inside, tensor), **substitute(kwargs, inside, tensor)), results, tensor)
            guards, size.state.guards = list(dict.fromkeys(size.state.guards)), None  # what the function asked, not the compiler
            assigned = [t for r in trace.assigned if (t := r()) is not None and t.node.op == "assign"]
            updates = list({id(t): t for t in (*trace.deferred, *assigned) if t.node.op != "buffer"}.values())
            memory |= {id(b) for b, _ in trace.draws}
            _on_time(trace, [*results, *updates])
            with force.untraced():
                trace.settle([*results, *updates])
            roots = engine.last_updates([t.node for t in (*results, *updates)])
            _unread(trace, roots)
            lowered, buffers = engine.compiled(Graph(roots), vary=bool(self.entries))
        except BaseException:
            core.state.trace = size.state.guards = None
            trace.undo()
            _seal(memory | {id(b) for b, _ in trace.draws})
            raise
        core.state.trace = None
        # parameters and state, under all of their names, keep their own memory
        after = {t.node: r.src[0] for t, r in zip(updates, roots[len(results) :], strict=True) if r.op == "assign"}
        for t in core.alive():
            if t.node in after:  # others are left alone: another thread may be giving them a node
                t.node = after[t.node]
        _seal(memory)
        slot_of = {id(b): i for i, b in enumerate(buffers)}
        inputs = {slot_of[id(b)]: i for i, b in enumerate(slots) if id(b) in slot_of}
        draws = {slot_of[id(b)]: n for b, n in trace.draws if id(b) in slot_of}
        roots = [r._replace(origin=engine.untied(r.origin)) for r in roots]
        guards += _captured(lowered.graph, inputs)
        return Entry(lowered, buffers, inputs, draws, roots, updates, tree, len(results), names, guards)


def _captured(graph: Graph, inputs: Container[int]) -> list[size.Guard]:
    """What the program takes for granted of the sizes of captured tensors: that they are what they were."""
    place = {id(b): i for i, b in enumerate(graph.key()[1])}
    out = []
    for n in graph.nodes:
        if n.op == "buffer" and place[id(n.arg)] not in inputs:
            for d in n.shape:
                if isinstance(d, size.Size) and d.value is not None:
                    out.append(size.Guard(d, "==", d.value, True, f"{n.origin[0]}" if n.origin else "an unknown line"))
    return out


def _inner(t: Any, memory: Placeholder) -> Any:
    """What the traced function gets for a tensor argument. A parameter stays a leaf."""
    leaf = id(t) in core.leaves
    inner = core.make(Node("buffer", t.dtype, t.shape, (), memory, t.node.origin), core.NO_FLOW if leaf else t.flow, True)
    if leaf:
        inner.requires_grad = True
    return inner


class _Late(Exception):
    """The function reads updates that were recorded before the trace and have not run."""

    def __init__(self, updates: set[Node]) -> None:
        self.updates = updates


def _on_time(trace: _Trace, tensors: Sequence[Any]) -> None:
    """Updates that came before must have run: they are no part of the program."""
    pending = {n for n in trace.before.values() if n.op == "assign"}
    found = pending.intersection(toposort([t.node for t in tensors])) if pending else pending
    if found:
        raise _Late(found)


def _unread(trace: _Trace, roots: Sequence[Node]) -> None:
    """Refuses a program that updates memory whose value Python has read while tracing: that value would stay what it was."""
    written = engine.targets(toposort(roots))
    for b, line in trace.read:
        if id(b) in written:
            raise JitError(
                f"the value of {b!r} was read inside a jitted function that also updates it, on {line}; the program would keep"
                " the value of now. Compute with the tensor instead"
            )


def lowered(f: Any, *args: Any, **kwargs: Any) -> Lowered:
    """The program of a function, jitted or not, for these arguments: traced and not run."""
    return (f if isinstance(f, jit) else jit(f)).lower(*args, **kwargs)


__all__ = ["JitError", "jit", "lowered", "tracing"]
