"""Node: the one node type of the graph stages (record, differentiate, simplify, fuse). Graph: several roots and all below
them."""

from __future__ import annotations

import hashlib
from collections import namedtuple
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.extent import extents, plain, values_of
from tinyengine.ops import MOVEMENT, OPS, REDUCE, SCAN
from tinyengine.origin import Origin
from tinyengine.size import Size

Shape = tuple[Any, ...]  # ints; where an axis is symbolic, a Size, and in the stages an Extent


class Node(namedtuple("Node", "op dtype shape src arg origin")):
    """Immutable. `src`: operand nodes; `arg`: what the op table says; `origin`: tuple of Origin. Compared by identity:
    equal nodes become one in `simplify`, by a named rule, because merging is a rewrite that must be seen."""

    __slots__ = ()
    op: str
    dtype: DType
    shape: Shape
    src: tuple[Node, ...]
    arg: Any
    origin: tuple[Origin, ...]

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Node({self.op}, {self.dtype}, {self.shape}" + (f", arg={self.arg!r})" if self.arg is not None else ")")

    @property
    def size(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_movement(self) -> bool:
        return self.op in MOVEMENT

    @property
    def is_reduce(self) -> bool:
        return self.op in REDUCE

    @property
    def is_scan(self) -> bool:
        return self.op in SCAN

    @property
    def phase(self) -> str:
        return self.origin[0].phase if self.origin else "forward"


def at(n: Node, values: Mapping[str, int]) -> Node:
    """A node where the variables have these values: every extent and position a number. Its operands stay as they are."""

    def number(x: Any) -> Any:
        size = plain(x)
        return size.at(values) if isinstance(size, Size) else size

    shape = tuple([number(d) for d in n.shape])
    if n.op == "size":
        return const(number(n.arg), n.dtype, shape, n.origin)
    arg = tuple([tuple(map(number, part)) for part in n.arg]) if n.op in ("slice", "pad") else n.arg
    return n._replace(shape=shape, arg=arg)


def toposort(roots: Iterable[Node]) -> list[Node]:
    """Every node under `roots` once, operands before users; the order depends only on the graph. Iterative: depth is no limit."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = [*reversed(tuple(roots))]
    while stack:
        n = stack.pop()
        if n is None:  # all operands of the node below stand in `order`
            n = stack.pop()
            assert n is not None
            order.append(n)
        elif n not in seen:
            seen.add(n)
            if n.src:
                stack.append(n)
                stack.append(None)
                stack += n.src[::-1]
            else:
                order.append(n)
    return order


def reading(roots: Iterable[Node], memory: Container[int]) -> set[Node]:
    """The nodes under `roots` whose value comes, directly or not, from one of these buffers (by identity)."""
    reads: set[Node] = set()
    for n in toposort(roots):
        if not reads.isdisjoint(n.src) or (n.op == "buffer" and id(n.arg) in memory):
            reads.add(n)
    return reads


class Graph:
    """Roots and everything below them, numbered in topological order: node i is written %i."""

    def __init__(self, roots: Iterable[Node]) -> None:
        self.roots: tuple[Node, ...] = tuple(roots)
        self.nodes: list[Node] = toposort(self.roots)
        self.number: dict[Node, int] = {n: i for i, n in enumerate(self.nodes)}
        self._sizes: dict[Any, int | None] | None = None

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def users(self) -> dict[Node, list[Node]]:
        """For every node the nodes that read it, once per operand position."""
        out: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for n in self.nodes:
            for s in n.src:
                out[s].append(n)
        return out

    def sizes(self) -> dict[Any, int | None]:
        """The variables in shapes and positions (size.Symbol), in order, each with its value. SizeError where one has two."""
        if self._sizes is None:
            self._sizes = values_of(self.nodes)
        return self._sizes

    def key(self) -> tuple[str, list[Any]]:
        """(content hash, buffers in order of first use, then the memory of each variable): equal for graphs that differ only in
        buffers, values of variables, and origins."""
        slots: dict[int, int] = {}
        buffers: list[Any] = []
        parts: list[str] = []
        number = self.number
        for n in self.nodes:
            arg = n.arg
            if n.op == "buffer":
                if id(arg) not in slots:
                    slots[id(arg)] = len(buffers)
                    buffers.append(arg)
                arg = slots[id(arg)]
            parts.append(f"{n.op}|{n.dtype.name}|{n.shape}|{[number[s] for s in n.src]}|{arg!r}")
        parts.append(repr([number[r] for r in self.roots]))
        sizes = self.sizes()
        if sizes:
            from tinyengine.runtime.buffer import size_memory

            parts.append(repr([tuple(s) for s in sizes]))
            buffers += [size_memory(s, v) for s, v in sizes.items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest(), buffers

    def widened(self) -> Graph:
        """This graph as the stages have it: extents are ints, those of a symbolic axis the largest (`size.Extent`)."""
        if not self.sizes():
            return self
        new: dict[Node, Node] = {}
        for n in self.nodes:
            src = tuple([new[s] for s in n.src])
            shape = extents(n.shape)
            new[n] = (
                n
                if shape is n.shape and all([a is b for a, b in zip(src, n.src, strict=True)])
                else n._replace(shape=shape, src=src)
            )
        return Graph(new[r] for r in self.roots)

    def detached(self, stand_in: Callable[[Any], Any]) -> Graph:
        """This graph without the memory and the origins that it keeps alive; `stand_in` gives what replaces a buffer."""
        new: dict[Node, Node] = {}
        held: dict[int, Any] = {}
        for n in self.nodes:
            arg = n.arg
            if n.op == "buffer":
                if id(arg) not in held:
                    held[id(arg)] = stand_in(arg)
                arg = held[id(arg)]
            new[n] = Node(n.op, n.dtype, n.shape, tuple([new[s] for s in n.src]), arg, ())
        return Graph(new[r] for r in self.roots)

    def text(self, origins: bool = False) -> str:
        """One line per node: number, op, operands, dtype[shape]."""
        lines = []
        for i, n in enumerate(self.nodes):
            args = [f"%{self.number[s]}" for s in n.src]
            if n.op == "buffer":
                args.append(getattr(n.arg, "name", None) or "buffer")
            elif n.arg is not None:
                args.append(f"{n.arg!r}".replace(" ", ""))
            mark = "  <- root" if n in self.roots else ""
            where = f"   # {n.origin[0]}" if origins and n.origin else ""
            lines.append(f"%{i:<3} = {n.op}({', '.join(args)})  {n.dtype}{list(n.shape)}{mark}{where}")
        return "\n".join(lines)

    __repr__ = text


def const(value: Any, dtype: DType, shape: Shape = (), origin: tuple[Origin, ...] = ()) -> Node:
    """`value` everywhere, as `dtype`; -0.0 and 0.0 stay different in keys because repr() does."""
    v = bool(value) if dtype is dtypes.bool_ else float(value) if dtype.is_float else int(value)
    return Node("const", dtype, shape, (), v, origin)


__all__ = ["OPS", "Graph", "Node", "Shape", "const", "reading", "toposort"]
