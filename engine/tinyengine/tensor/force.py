"""When a value is computed: `realize` hands tensors to the engine and keeps everything else that is recorded consistent with it.

After a computation, other recorded values that contain what was computed read it from memory. A tensor that needs a gradient and
was computed keeps the graph that it came from (`history`), so that `backward` can go on below it. Memory that is overwritten in
place is no danger to recorded values that read it: the engine computes them first, in the same program.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Container, Iterator, Sequence

from tinyengine import dtypes
from tinyengine.extent import same_memory
from tinyengine.node import Node, reading
from tinyengine.origin import here, user_line
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import Base

_history: weakref.WeakKeyDictionary[Buffer, tuple[Node, int]] = weakref.WeakKeyDictionary()
_overwritten: weakref.WeakKeyDictionary[Buffer, int] = weakref.WeakKeyDictionary()
_clock = 0  # counts computations: orders histories and overwrites
updated = False  # whether an update was recorded since `late` last saw none waiting


def realize(tensors: Sequence[Base], cause: str) -> None:
    """Compute these tensors, all in one program. `cause` says what asked for it (item, numpy, print, step...), for the hooks.
    Inside jit nothing is computed and their nodes stay as they are."""
    global _clock
    if all([t.node.op == "buffer" for t in tensors]):
        return
    from tinyengine import realize as engine

    done = engine.realize([t for t in tensors if t.node.op != "buffer"], cause)
    _clock += 1
    changed: dict[Node, Node] = {}
    history: list[tuple[Buffer, Node]] = []
    for t, old in done:
        if t.node.op == "assign":  # another thread has recorded an update of it meanwhile
            continue
        n = t.node = changed.setdefault(old, _plain(t.node))
        if old.op == "assign":
            _overwritten[n.arg] = _clock
        elif t.flow == core.STOPPED:
            t.flow = core.NO_FLOW
        elif t.flow == core.FLOWS and id(t) not in core.leaves:
            history.append((n.arg, old))
    del done
    if changed:
        del t, old
    # `changed`, and `history`, hold each node; one that is held more often is in another graph
    held = {id(old) for _, old in history}
    counts = [c - (id(old) in held) for c, old in zip(_references(changed), changed, strict=True)]
    for memory, old in history:
        _history[memory] = (old, _clock)
    if any([c > _ALONE for c in counts]):
        _substitute(changed)


def _references(nodes: dict[Node, Node]) -> list[int]:
    return [sys.getrefcount(n) for n in nodes]


_ALONE = _references({Node("const", dtypes.bool_, (), (), bool(i), ()): i for i in range(1)})[0]  # type: ignore[misc]


def overwriting(memory: Sequence[Buffer], following: Container[int] = ()) -> None:
    """A program that was compiled before is about to write this memory: recorded values that read it are computed first (not the
    views, by identity, that follow what is written), histories that do are at an end, and arrays that were lent keep their
    content."""
    global _clock
    recorded = [(t, t.node) for t in core.alive()]
    if recorded:
        reads = reading([n for _, n in recorded], set(map(id, memory)))
        stale = [t for t, n in recorded if n in reads and id(t) not in following]
        if stale:
            realize(stale, "an update of its memory")
    for b in memory:
        b.unshare()
    if _history:
        _clock += 1
        for b in memory:
            _overwritten[b] = _clock


def late(memory: Container[int]) -> list[Base]:
    """The tensors whose recorded update of this memory (identities of buffers) has not run."""
    global updated
    updated = False  # first: another thread may record one meanwhile
    waiting = [t for t in core.alive() if t.node.op == "assign"]
    if waiting:
        updated = True
    return [t for t in waiting if id(t.node.src[0].arg) in memory]


def overwrites() -> int:
    """Grows whenever memory is updated in place (and may fall when memory is given up)."""
    return max(_overwritten.values(), default=0)


def _plain(n: Node) -> Node:
    """Memory as one buffer node of the right shape."""
    b = n
    while b.op == "reshape" and same_memory(b.src[0].shape, b.shape):
        b = b.src[0]
    return n if b is n or b.op != "buffer" else record.buffer(b.arg, n.shape, n.origin)


def history(n: Node) -> Node | None:
    """The graph that a computed value came from. RuntimeError when that has been overwritten since."""
    found = _history.get(n.arg)
    if found is None:
        return None
    node, then = found
    if _overwritten:
        for b in _read(node):
            if _overwritten.get(b, 0) >= then:
                raise RuntimeError(
                    f"backward needs the old content of {b!r}, which has been updated in place since this value was computed\n"
                    f"  at {user_line()}"
                )
    return node


def _substitute(changed: dict[Node, Node]) -> None:
    """Put computed values into every recorded graph, and every history, that contains their nodes."""
    new = dict(changed)
    for t in core.alive():
        old = t.node
        n = _rebuilt(old, new)
        if n is not old and t.node is old:  # another thread may have given it another
            t.node = n
    for memory, (n, then) in list(_history.items()):
        src = tuple([_rebuilt(s, new) for s in n.src])
        if any([a is not b for a, b in zip(src, n.src, strict=True)]):
            _history[memory] = (n._replace(src=src), then)


def _rebuilt(root: Node, new: dict[Node, Node]) -> Node:
    """`root` with the nodes of `new` replaced; `new` remembers what was seen."""
    stack = [root]
    while stack:
        n = stack[-1]
        if n in new:
            stack.pop()
            continue
        missing = [s for s in n.src if s not in new]
        if missing:
            stack += missing
            continue
        stack.pop()
        src = tuple([new[s] for s in n.src])
        new[n] = n if all([a is b for a, b in zip(src, n.src, strict=True)]) else n._replace(src=src)
    return new[root]


def _read(root: Node) -> set[Buffer]:
    """All memory that is read by this graph itself, not by an update that it waits for."""
    seen: set[Node] = set()
    out: set[Buffer] = set()
    stack = [root]
    while stack:
        n = stack.pop()
        if n not in seen:
            seen.add(n)
            if n.op == "buffer":
                out.add(n.arg)
            elif n.op != "assign":
                stack += n.src
    return out


def assign(t: Base, value: Node) -> None:
    """`t` becomes an assign of `value` (of its shape and dtype) to its memory, which it gets first if it has none. A second
    assign before anything is computed replaces the first; whoever reads the value of the first keeps it. In a trace, only what is
    older than the trace has memory."""
    global updated
    if not has_memory(t):
        if core.state.trace is not None and core.state.trace.before.get(id(t)) is not t.node:
            core.become(t, value)
            return
        held = core.make(value, core.NO_FLOW, True)  # so that it is kept consistent with what is computed now
        with untraced():
            realize([t], "assign")
        value = held.node
    core.become(t, record.assign(t.node if t.node.op == "buffer" else t.node.src[0], value, here()))
    updated = True
    if core.state.trace is not None:
        core.state.trace.assigned.append(weakref.ref(t))


def has_memory(t: Base) -> bool:
    """Whether `t` is memory, or an update of it; what was made in a trace is a constant of the program."""
    n = t.node if t.node.op != "assign" else t.node.src[0]
    return n.op == "buffer" and (core.state.trace is None or id(n.arg) not in core.state.trace.made)


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Inside, what is older than the trace can be computed."""
    trace, core.state.trace = core.state.trace, None
    try:
        yield
    finally:
        core.state.trace = trace
