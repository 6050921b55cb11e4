"""Sizes as the stages see them. An `Extent` is an int, the largest value of a size, for which memory and addresses are made; and
it knows what it is the largest value of.

Memory always has the strides of the largest values. What lies beyond the values of now is undefined, and nobody reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tinyengine.origin import user_line
from tinyengine.size import Size, SizeError, Symbol

if TYPE_CHECKING:
    from tinyengine.node import Node


class Extent(int):
    """The largest value of a size, as an int; equal only to an extent of the same size."""

    size: Size

    def __new__(cls, size: Size) -> Extent:
        self = super().__new__(cls, size.max)
        self.size = size
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extent) and other.size.terms == self.size.terms

    def __ne__(self, other: object) -> bool:
        return not (isinstance(other, Extent) and other.size.terms == self.size.terms)

    def __hash__(self) -> int:
        return hash(self.size)

    def __repr__(self) -> str:
        return repr(self.size)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self.size), spec) if not spec or spec[-1] not in "dxX" else int.__format__(self, spec)


def plain(d: Any) -> Any:
    """An extent of the stages as the Size that it is the largest value of; a Size or an int as it is."""
    return d.size if type(d) is Extent else d


def symbolic(xs: Iterable[Any]) -> bool:
    """Whether a size is among these numbers."""
    return any([isinstance(x, (Size, Extent)) for x in xs])


def same_memory(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    """Whether a reshape leaves every element where it is. A symbolic axis has the stride of its largest extent, so it must be the
    first of those that are cut or joined."""
    if not symbolic(old) and not symbolic(new):
        return True
    a, b = [d for d in old if d != 1], [d for d in new if d != 1]
    while a and b and a[-1] == b[-1]:
        a.pop(), b.pop()
    while a and b and a[0] == b[0]:
        a.pop(0), b.pop(0)
    return not symbolic(a[1:]) and not symbolic(b[1:])


def valued(array: Any, shape: tuple[Any, ...], values: Mapping[str, int]) -> Any:
    """The part of an array of the largest extents that has values."""
    cut = [d.at(values) if isinstance(d := plain(x), Size) else d for x in shape]
    return array[tuple(map(slice, cut))] if symbolic(shape) else array


def extents(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """A shape as the stages have it."""
    for d in shape:
        if isinstance(d, Size):
            return tuple([Extent(d) if isinstance(d, Size) else d for d in shape])
    return shape


_ARGS = frozenset({"slice", "pad", "size"})  # ops whose arguments may hold sizes


def sizes_of(n: Node) -> list[Size]:
    """The sizes in a node's shape and argument."""
    out: list[Size] = [size for d in n.shape if isinstance(size := plain(d), Size)]
    if n.op in ("slice", "pad"):
        out += [x for part in n.arg for x in part if isinstance(x, Size)]
    elif n.op == "size":
        out.append(n.arg)
    return out


def values_of(nodes: Iterable[Node]) -> dict[Symbol, int | None]:
    """The variables of a graph, each with its value. SizeError where one has two values, or two ranges."""
    out: dict[Symbol, int | None] = {}
    names: dict[str, Symbol] = {}
    for n in nodes:
        if n.op not in _ARGS and all([type(d) is int for d in n.shape]):
            continue
        for size in sizes_of(n):
            bound = dict(size._bound)
            for s in size.symbols:
                known = names.setdefault(s.name, s)
                if known != s:
                    raise SizeError(
                        f"{s.name} goes from {known.min} to {known.max} and from {s.min} to {s.max} in one program; expected"
                        f" one variable of that name\n  at {user_line()}"
                    )
                v = bound.get(s.name)
                old = out.setdefault(s, v)
                if old is None:
                    out[s] = v
                elif v is not None and v != old:
                    raise SizeError(
                        f"{s.name} is bound to {old} and to {v} in one program; expected one value. The first node with the"
                        f" second is {n.op}, from {n.origin[0] if n.origin else 'an unknown line'}\n  at {user_line()}"
                    )
    return out
