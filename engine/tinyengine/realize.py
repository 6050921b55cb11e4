"""realize: turn lazy tensors into memory. Graph -> program cache -> run.

A program is cached by the normalised graph, the choices, the machine and the backend: a new cell with the same model compiles
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tinyengine import backends, choices, hooks, origin, stored, tune_store, units, varying
from tinyengine.choices import Choices
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node, reading, toposort
from tinyengine.outline import Known, Outline
from tinyengine.pipeline import Lowered
from tinyengine.runtime.buffer import Buffer, Placeholder, SizePlaceholder
from tinyengine.size import SizeError

programs: dict[tuple[Any, ...], Lowered] = {}
_forms: dict[str, tuple[Graph, tuple[Any, ...]]] = {}  # ops of a graph, without shapes -> the last graph of that form
_known = Known()
_choices: list[Choices] = [choices.DEFAULT]
_current: tuple[Choices, Any, Choices] = (choices.DEFAULT, {}, choices.DEFAULT)


def live() -> list[Any]:
    """The tensors that are lazy right now."""
    from tinyengine.tensor.core import alive

    return [t for t in alive() if t.node.op != "buffer"]


def chosen() -> Choices:
    """What people have chosen: the pins."""
    return _choices[-1]


def current_choices(machine: Machine | None = None) -> Choices:
    """What the next program is compiled with: the pins, and what tuning found for this machine and backend."""
    global _current
    c, tuned = _choices[-1], tune_store.store(machine or backends.machine(), backends.current()).tuned
    if _current[0] is not c or _current[1] is not tuned:
        _current = (c, tuned, dataclasses.replace(c, tuned={**tuned, **c.tuned}) if tuned else c)
    return _current[2]


def pin(c: Choices) -> None:
    """From now on compile with these choices."""
    _choices[-1] = c


def targets(nodes: Iterable[Node]) -> set[int]:
    """Identities of the Buffers that the updates among `nodes` write."""
    return {id(n.src[0].arg) for n in nodes if n.op == "assign"}


def dependents(pending: Sequence[tuple[Any, Node]], written: set[int]) -> list[tuple[Any, Node]]:
    """Live lazy tensors beside `pending` that read memory (identities of Buffers) which these would overwrite, each with its
    node: another thread may give a tensor another one meanwhile."""
    extra: list[tuple[Any, Node]] = []
    chosen = {id(t) for t, _ in pending}
    others = [(t, t.node) for t in live() if id(t) not in chosen]
    while others:
        reads = reading([n for _, n in others], written)
        found = [(t, n) for t, n in others if n in reads]
        extra += found
        others = [(t, n) for t, n in others if n not in reads]
        more = targets(toposort([n for _, n in found])) - written
        if not more:
            break
        written = written | more
    return extra


def last_updates(roots: Sequence[Node]) -> list[Node]:
    """The roots, with every update that a later one of the same memory supersedes replaced by its value. The latest is a root:
    what its tensor is now; an older one may well come after it in the graph, if neither reads the other."""
    nodes = toposort(roots)
    last = {id(n.src[0].arg): n for n in (*nodes, *roots) if n.op == "assign"}
    if sum(n.op == "assign" for n in nodes) == len(last):
        return list(roots)
    new: dict[Node, Node] = {}
    for n in nodes:
        src = tuple(new[s] for s in n.src)
        m = n if src == n.src else n._replace(src=src)
        new[n] = m.src[1] if n.op == "assign" and last[id(n.src[0].arg)] is not n else m
    return [new[r] for r in roots]


def asked(roots: Sequence[Node], outline: Outline) -> tuple[Lowered, list[Buffer]]:
    """The program for values that are not jitted; and the buffers it takes first. Where one of this outline ran before and
    nobody watches, no graph is made."""
    if not hooks.watching:
        known = _known.find(outline)
        if known is not None:
            key, buffers = known
            m = backends.machine()
            found = programs.get(_full(key, buffers, m, current_choices(m)))
            if found is not None:
                return found.seen(roots, buffers), buffers
    return compiled(Graph(roots), True, outline)


def _full(key: str, buffers: Sequence[Buffer], machine: Machine, now: Choices) -> tuple[Any, ...]:
    """The key of a program in the cache. Names are seen in kernels and views: another model of the same form is another program
    (its kernels share their code)."""
    return key, tuple([b.name for b in buffers]), now.key(), machine.key(), backends.current()


def compiled(graph: Graph, vary: bool = False, outline: Outline | None = None) -> tuple[Lowered, list[Buffer]]:
    """The program for `graph`, from the cache when a graph of equal form was compiled before; and the buffers it takes first.
    `vary`: numbers that an earlier graph had otherwise become inputs (see `varying`). `outline`: that of the graph, whose key is
    noted for the next time."""
    key, buffers = graph.key()
    m = backends.machine()
    now = current_choices(m)
    full = _full(key, buffers, m, now)
    found = programs.get(full)
    noted = None if graph.sizes() else outline
    if found is None:
        general = varying.generalise(graph)
        if vary and general.graph is not graph:
            lowered, buffers = compiled(general.graph)
            lowered.note("record", general.decisions)
            if noted is not None:
                inputs = [(graph.nodes[i], axis, name) for i, axis, name in general.inputs]
                _known.note_general(noted, general.graph.key()[0], buffers, inputs)
            return lowered, buffers
    if noted is not None:
        _known.note(noted, key)
    if found is not None:
        if hooks.watching:
            hooks.publish(hooks.CacheHit("program", key))
        return found.rebind(graph, buffers), buffers
    # what is kept here must not keep the memory of those who asked first
    kept = graph.detached(lambda b: Placeholder(b.size, b.dtype, b.name))
    places = kept.key()[1]
    pinned = now.pinned
    if not hooks.watching and not pinned:  # else the stages are done now: to be seen, to say which pin matches nothing
        found = stored.load(full, kept, places, now, m, backends.current())
        if found is not None:
            programs[full] = found
            return found.rebind(graph, buffers), buffers
    form = "|".join(f"{n.op}:{len(n.src)}" for n in graph.nodes)
    if hooks.watching:
        guard, old, new = _difference(graph, _forms.get(form), full)
        hooks.publish(hooks.CacheMiss("program", key, guard, old, new))
    _forms[form] = (kept, full)
    lowered = Lowered(graph, buffers, now, m, backends.current())
    with uncollected():
        if not lowered.empty:
            stored.store(full, lowered)
    if pinned:
        from tinyengine.jit import tracing
        from tinyengine.pinned import warn

        warn(lowered, asked=tracing())
    _ = lowered.root_slots, lowered.updated_roots, lowered.slots  # shared from now on, as the plan is
    programs[full] = lowered.rebind(kept, places)
    return lowered, buffers


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python looks for no cycles: the stages make several hundred thousand objects that stay, and walking through them
    again and again took a tenth of the time. Afterwards they are old: the collections of what is young leave them out, which
    would take another tenth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what the user has frozen stays so
                gc.freeze()
                gc.unfreeze()  # to the oldest generation, without a look at any object
            gc.enable()


def _difference(graph: Graph, known: tuple[Graph, tuple[Any, ...]] | None, full: tuple[Any, ...]) -> tuple[str, Any, Any]:
    """Which guard of the program cache failed: (its name, old value, new value)."""
    if known is None:
        return "new graph", None, units.some(len(graph), "node")
    old, old_full = known
    for name, a, b in zip(("names", "choices", "machine", "backend"), old_full[1:], full[1:], strict=True):
        if a != b:
            return name, a, b
    for i, (a, b) in enumerate(zip(old.nodes, graph.nodes, strict=True)):
        for what in ("shape", "dtype", "arg"):
            if getattr(a, what) != getattr(b, what) and not (what == "arg" and a.op == "buffer"):
                return f"{what} of %{i} {b.op}", getattr(a, what), getattr(b, what)
    return "operands", None, None


def execute(lowered: Lowered, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Run the program on `buffers`; returns one Buffer per slot that the caller gives, the outputs freshly allocated."""
    memory = [*buffers, *[Buffer(s.size, s.dtype) for s in lowered.outputs]]
    launch(lowered, memory)
    return memory


def launch(lowered: Lowered, memory: Sequence[Buffer]) -> None:
    """Run the program on `memory`, one Buffer per slot that the caller gives; with somebody watching, timed."""
    if lowered.empty:
        return
    if hooks.Launching in hooks.heard:
        hooks.publish(hooks.Launching(lowered, memory))
    began = time.perf_counter()
    try:
        times = lowered.executable.run(memory, clocks=hooks.watching)
    except IndexError as e:
        raise bad_index(lowered, memory, e) from None
    if hooks.watching:
        spent = time.perf_counter() - began
        starts, seconds = (times.starts, times.seconds) if times else ((), ())
        hooks.publish(hooks.Launch(lowered, starts, seconds, spent, began))


def bad_index(lowered: Lowered, memory: Sequence[Buffer], error: IndexError) -> IndexError:
    """The error that names the index, its place and the user's line."""
    from tinyengine import diagnose

    given = {id(b): m for b, m in zip(lowered.buffers, memory, strict=False)}
    return IndexError(diagnose.bad_index(lowered.graph, given) or str(error))


def memory_node(root: Node, memory: Buffer) -> Node:
    """The node that replaces a realised root: its buffer, without ties to the graph that made it."""
    return tuple.__new__(Node, ("buffer", root.dtype, root.shape, (), memory, untied(root.origin)))


def untied(where: tuple[origin.Origin, ...]) -> tuple[origin.Origin, ...]:
    """The first of the origins, without the forward node that it may name."""
    if len(where) < 2 and not (where and where[0].forward is not None):
        return where
    return (where[0]._replace(forward=None, derivative=""),)


def realize(tensors: Sequence[Any], cause: str) -> list[tuple[Any, Node]]:
    """Compute `tensors` now. `cause` says what forced it (item, numpy, print, step, ...). Returns every tensor that was computed
    with the node that it had. Inside a jit trace updates are collected instead."""
    from tinyengine.jit import defer, tracing  # the function jit hides the module of that name in the package

    if tracing():
        defer(tensors, cause)
        return []
    pending = [(t, t.node) for t in {id(t): t for t in tensors}.values() if t.node.op != "buffer"]
    if not pending:
        return []
    written = targets([n for _, n in pending])
    while True:
        extra = dependents(pending, written) if written else []
        everything = pending + extra
        roots = [n for _, n in everything]
        outline = Outline(roots)
        more = targets(outline.writes) - written  # updates below the roots
        if not more:
            break
        written |= more
    if len(written) < len(outline.writes):
        roots = last_updates(roots)
        outline = Outline(roots)
    if hooks.watching:
        hooks.publish(hooks.Realized(cause, origin.capture(2), tuple(roots)))
        if extra:
            hooks.publish(hooks.Realized("an update of its memory", origin.capture(2), tuple(roots[len(pending) :])))
    lowered, buffers = asked(roots, outline)
    last: Any = buffers[-1] if buffers else None
    if isinstance(last, SizePlaceholder):
        name = last.symbol.name
        raise SizeError(f"a tensor has no values while {name} has none; expected {name}.bind(...)\n  at {origin.user_line()}")
    for n in outline.writes:
        n.src[0].arg.unshare()
    with uninterrupted() if outline.writes else contextlib.nullcontext():
        nodes = run_roots(lowered, roots, buffers, range(len(everything)))
        for (t, old), n in zip(everything, nodes, strict=True):
            if t.node is old:
                t.node = n
    return everything


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C inside waits until the end: weights must not be new in memory and old in their tensors."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, Any]] = []
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[0])


def run_roots(lowered: Lowered, roots: Sequence[Node], buffers: Sequence[Buffer], which: Sequence[int]) -> list[Node]:
    """Run; returns the buffer nodes of the roots numbered in `which`. A root that is nothing but a view of given memory gets a
    copy: of its old content, made before the run, or of what an update leaves there, made after it."""
    slots, updated = lowered.root_slots, lowered.updated_roots
    given = [i for i in which if slots[i] < len(buffers) and roots[i].op != "assign"]
    copies = {i: buffers[slots[i]].copy() for i in given if not updated[i]}
    memory = execute(lowered, buffers)
    copies |= {i: buffers[slots[i]].copy() for i in given if updated[i]}
    return owned([roots[i] for i in which], [copies.get(i) or memory[slots[i]] for i in which])


def owned(roots: Sequence[Node], memory: Sequence[Buffer]) -> list[Node]:
    """The buffer node of each root. Two roots that turned out to be one value get memory each: either may be updated in place."""
    out: list[Node] = []
    first: dict[int, tuple[Node, Node]] = {}
    for r, m in zip(roots, memory, strict=True):
        known = first.get(id(m))
        if known is None:
            out.append(memory_node(r, m))
            first[id(m)] = (r, out[-1])
        else:
            out.append(known[1] if known[0] is r else memory_node(r, m.copy()))
    return out


__all__ = ["chosen", "compiled", "current_choices", "execute", "live", "pin", "programs", "realize"]
