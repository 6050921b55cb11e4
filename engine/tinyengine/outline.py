"""The outline of recorded values: all that their programs may depend on, gathered in one walk, so that code which is not jitted
finds its program at every turn without a graph that is numbered, written down and hashed.

`form` is equal exactly for graphs that differ in memory, in origins and in numbers (of constants, and the positions at which
slices and pads begin); with equal `numbers` too they have one key. What a form has been compiled to is remembered in `Known`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.node import Node
from tinyengine.runtime.buffer import Buffer, size_memory

_BY_TEXT = frozenset({"function", "size"})  # ops whose argument holds more than numbers: what counts of it is its text


class Outline:
    """`nodes`: all of them, users before operands, each with its number. `buffers`: the memory that they read, in the order of
    `Graph.key`. `writes`: the assigns."""

    __slots__ = ("buffers", "form", "nodes", "numbers", "writes")

    def __init__(self, roots: Sequence[Node]) -> None:
        nodes: dict[Node, int] = {}
        slots: dict[int, int] = {}
        buffers: list[Any] = []
        writes: list[Node] = []
        numbers: list[Any] = []
        parts: list[Any] = [len(roots)]
        stack = [*reversed(roots)]
        while stack:
            n = stack.pop()
            known = nodes.get(n)
            if known is not None:
                parts.append(known)
                continue
            nodes[n] = len(nodes)
            op, dtype, shape, src, arg, _ = n
            if src:
                stack += src[::-1]
                if op in ("slice", "pad"):
                    numbers += [a[0] for a in arg]
                    arg = tuple([a[-1] for a in arg])  # what else a pad has follows from the shapes
                elif op == "assign":
                    writes.append(n)
                elif op in _BY_TEXT:
                    arg = (repr(arg), len(src))
            elif op == "buffer":
                known = slots.setdefault(id(arg), len(buffers))
                if known == len(buffers):
                    buffers.append(arg)
                arg = known
            elif op == "const" and dtype is not dtypes.bool_:
                # 0.0 and -0.0 are equal, and differ; nan and nan are not, and do not
                numbers.append(arg if arg and arg == arg else repr(arg))
                arg = "#"
            elif op in _BY_TEXT:
                arg = repr(arg)
            parts += (op, dtype.name, shape, arg)
        self.nodes, self.buffers, self.writes = nodes, buffers, writes
        self.form, self.numbers = tuple(parts), tuple(numbers)


class Place(NamedTuple):
    """Memory that a program is given first: buffer number `buffer` of the outline, or one number: `like` is what held it the
    first time, `at` where it stands among the numbers."""

    buffer: int
    at: int = 0
    like: Any = None


class General(NamedTuple):
    """A program for every value of some numbers: its key and memory. `fixed`: the other numbers, which must be what they were
    (None in place of one that varies); `equal`: pairs of numbers that are one input."""

    key: str
    places: tuple[Place, ...]
    fixed: tuple[Any, ...]
    equal: tuple[tuple[int, int], ...]

    def memory(self, o: Outline) -> list[Any] | None:
        """The memory for that outline, or None where a number differs that may not."""
        for a, b in zip(self.fixed, o.numbers, strict=True):
            if a is not None and a != b:
                return None
        for i, k in self.equal:
            if o.numbers[i] != o.numbers[k]:
                return None
        out = []
        for buffer, at, like in self.places:
            if like is None:
                out.append(o.buffers[buffer])
                continue
            symbol = getattr(like, "symbol", None)
            value = o.numbers[at]
            if symbol is not None:
                out.append(size_memory(symbol, value))
            else:
                number = float(value) if type(value) is str else value
                out.append(Buffer.of(np.array([number]), like.dtype, like.name))
        return out


class Known:
    """The keys of programs by outline. It knows no program: who asks looks whether there is one."""

    def __init__(self) -> None:
        self.keys: dict[Any, dict[Any, str]] = {}
        self.general: dict[Any, General] = {}

    def find(self, o: Outline) -> tuple[str, list[Any]] | None:
        """(key, memory) as `Graph.key` gives them for the graph that was compiled for such an outline."""
        key = self.keys.get(o.form, {}).get(o.numbers)
        if key is not None:
            return key, o.buffers
        general = self.general.get(o.form)
        memory = general.memory(o) if general is not None else None
        return None if general is None or memory is None else (general.key, memory)

    def note(self, o: Outline, key: str) -> None:
        """A graph of this outline has this key."""
        self.keys.setdefault(o.form, {})[o.numbers] = key

    def note_general(self, o: Outline, key: str, memory: Sequence[Any], inputs: Iterable[tuple[Node, int, str]]) -> None:
        """A graph of this outline was compiled as one of this key, which takes `memory`. `inputs`: the numbers that vary: node,
        axis (-1 for a constant), and the name of what holds it."""
        at = _places(o)
        held: dict[str, list[int]] = {}
        for n, axis, name in inputs:
            held.setdefault(name, []).append(at[n, axis])
        varying = {i for group in held.values() for i in group}
        fixed = tuple([None if i in varying else x for i, x in enumerate(o.numbers)])
        number = {id(b): i for i, b in enumerate(o.buffers)}
        places = tuple([Place(number[id(b)]) if id(b) in number else Place(-1, held[b.name][0], b) for b in memory])
        equal = tuple([(group[0], i) for group in held.values() for i in group[1:]])
        self.general[o.form] = General(key, places, fixed, equal)


def _places(o: Outline) -> dict[tuple[Node, int], int]:
    """Where the numbers of an outline stand: (node, axis) -> place among them."""
    out: dict[tuple[Node, int], int] = {}
    for n in o.nodes:
        if n.op in ("slice", "pad"):
            for axis in range(len(n.arg)):
                out[n, axis] = len(out)
        elif n.op == "const" and n.dtype is not dtypes.bool_:
            out[n, -1] = len(out)
    return out
