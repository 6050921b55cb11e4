"""The names by which choices find what they are about: edges of the graph, and kernels. They survive a new session.

An edge is known by the normalised subgraph around it (what lies a few steps below its producer and beside it at its consumer,
without the names of buffers) and by the position of the operand; a kernel by its loop nest before scheduling. Equal forms have
equal names, so that one choice serves all layers of a kind."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from tinyengine.loopnest import Alloc, Kernel, Loop, walk
from tinyengine.node import Node
from tinyengine.stages.emit import fingerprint

BELOW, BESIDE = 6, 2  # steps that are looked at below the producer, and below the consumer
DIGITS = 10


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


# ---- edges


def around(n: Node, steps: int) -> str:
    """The graph up to `steps` below `n` as text: numbered in the order in which it is met, buffers without their names."""
    number: dict[Node, int] = {n: 0}
    rows: list[str] = []
    level = [n]
    for step in range(steps + 1):
        below: list[Node] = []
        for m in level:
            if step < steps:
                for s in m.src:
                    if s not in number:
                        number[s] = len(number)
                        below.append(s)
            arg = "" if m.op == "buffer" else repr(m.arg)
            rows.append(f"{m.op}|{m.dtype.name}|{m.shape}|{[number.get(s, '') for s in m.src]}|{arg}")
        level = below
    return "\n".join(rows)


def edge_key(producer: Node, consumer: Node, position: int) -> str:
    """"exp->sum.0 3fa94c21de": readable words, then what counts. `position`: of the operand; -1 where the value has no consumer
    (then `consumer` is the value itself)."""
    h = _digest(f"{around(producer, BELOW)}\n->{position}\n{around(consumer, BESIDE)}")
    return f"{producer.op} {h}" if position < 0 else f"{producer.op}->{consumer.op}.{position} {h}"


def edge_keys(n: Node, readers: Iterable[tuple[Node, int]]) -> list[str]:
    """The keys of the edges that leave `n` for its readers (see `fusion.groups.Fusion.readers`)."""
    return [edge_key(n, consumer, position) for consumer, position in readers] or [edge_key(n, n, -1)]


# ---- kernels


@lru_cache(maxsize=4096)
def kernel_key(kernel: Kernel) -> str:
    """What counts of a kernel's name: equal for loop nests of equal form and equal loop names, whatever their buffers are called.
    For nests before scheduling."""
    names = [s.name for s in walk(kernel.body) if isinstance(s, Loop)]
    return _digest(f"{fingerprint(kernel, {})}\n{names}")


def buffers(kernel: Kernel) -> list[str]:
    """The names of a nest's buffers: b0, b1... in general form."""
    own = [s.buf.name for s in walk(kernel.body) if isinstance(s, Alloc)]
    return list(dict.fromkeys([*(p.name for p in kernel.params), *own]))


def _taken(kernel: Kernel) -> set[str]:
    return {s.name for s in walk(kernel.body) if isinstance(s, Loop)}


def generalise(schedule: tuple[str, ...], kernel: Kernel) -> tuple[str, ...]:
    """A schedule of `kernel` with b0, b1... for its buffers, which are called otherwise in another kernel of the same form."""
    loops = _taken(kernel)
    number = {name: f"b{i}" for i, name in enumerate(buffers(kernel)) if name not in loops}
    return _renamed(schedule, number, loops)


def localise(schedule: tuple[str, ...], kernel: Kernel) -> tuple[str, ...]:
    """The counterpart of `generalise`: b0, b1... replaced by what `kernel` calls its buffers. Names that it knows stay."""
    loops, names = _taken(kernel), buffers(kernel)
    general = {f"b{i}": name for i, name in enumerate(names) if f"b{i}" not in names}
    return _renamed(schedule, general, loops)


def _renamed(schedule: tuple[str, ...], new: Mapping[str, str], loops: set[str]) -> tuple[str, ...]:
    """A name counts as a whole, or before an underscore: loops and copies that `pack` makes are called after their buffer. A loop
    that `tile` made is called after its loop."""
    longest = sorted(new, key=len, reverse=True)

    def word(m: re.Match[str]) -> str:
        text = m[0]
        if text.rstrip("oi") in loops or text in loops:
            return text
        found = next((n for n in longest if text == n or text.startswith(n + "_")), None)
        return text if found is None else new[found] + text[len(found) :]

    def line(text: str) -> str:
        head, bracket, rest = text.partition("(")
        return head + bracket + re.sub(r"[A-Za-z_]\w*(?!\w*=)", word, rest)

    return tuple(map(line, schedule))
