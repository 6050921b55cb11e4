"""Which addresses one iteration of a kernel touches: the arithmetic of its `wire.Space`, evaluated without the engine.
extension/src/parts/space.ts evaluates the same."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence

from tinyviz.wire import Access, Space, SpaceLoop

MOST_POINTS = 1 << 13  # iterations that are evaluated for one picture

_TWO: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": lambda a, b: a // b if b else 0,
    "%": lambda a, b: a % b if b else 0, "min": min, "max": max, "<": lambda a, b: int(a < b), "=": lambda a, b: int(a == b),
    "&": lambda a, b: int(bool(a and b)), "|": lambda a, b: int(bool(a or b)),
}  # fmt: skip


def evaluate(postfix: str, at: Mapping[str, int]) -> int | None:
    """The value at these loop variables; None where it depends on data. ValueError for what is no arithmetic."""
    return _evaluate(postfix.split(), at)


def _evaluate(tokens: Sequence[str], at: Mapping[str, int]) -> int | None:
    stack: list[int] = []
    try:
        for token in tokens:
            if token == "?":
                return None
            if token in _TWO:
                b, a = stack.pop(), stack.pop()
                stack.append(_TWO[token](a, b))
            elif token == "neg":
                stack.append(-stack.pop())
            else:
                stack.append(at[token] if token in at else int(token))
        (value,) = stack
    except (IndexError, ValueError):
        raise ValueError(f"no index arithmetic: {' '.join(tokens)[:80]!r}") from None
    return value


def values(loop: SpaceLoop) -> range:
    return range(loop.start, loop.stop, loop.step)


def shared(space: Space) -> list[tuple[int, Access]]:
    """The accesses to memory that other kernels see, with their numbers."""
    return [(i, a) for i, a in enumerate(space.accesses) if not space.operands[a.operand].local]


def middle(space: Space) -> dict[int, int]:
    """The middle of the loops around the last write: loop -> value. Loops that combine run through."""
    writes = [a for _, a in shared(space) if a.write]
    loops = [i for i in writes[-1].loops if not space.loops[i].reduce and len(values(space.loops[i]))] if writes else []
    return {i: values(space.loops[i])[len(values(space.loops[i])) // 2] for i in loops}


def touched(space: Space, a: Access, chosen: Mapping[int, int], most: int = MOST_POINTS) -> tuple[list[int] | None, bool]:
    """(flat element numbers that an access touches in iterations that agree with `chosen`, in order; whether they are all).
    None: they depend on data."""
    loops = [space.loops[i] for i in a.loops]
    ranges: list[Sequence[int]] = [[chosen[i]] if i in chosen else values(space.loops[i]) for i in a.loops]
    index, mask, shape = [x.split() for x in a.index], a.mask.split(), space.operands[a.operand].shape
    out: list[int] = []
    # `product` makes lists of what it is given; the first `most` points need the first `most` values of each loop at most
    for point in itertools.islice(itertools.product(*(r[:most] for r in ranges)), most):
        at = {loop.name: value for loop, value in zip(loops, point, strict=True)}
        inside = _evaluate(mask, at) if mask else 1
        if inside is None:
            return None, True
        if not inside:
            continue
        flat = 0
        for extent, tokens in zip(shape, index, strict=True):
            value = _evaluate(tokens, at)
            if value is None:
                return None, True
            flat = flat * extent + value
        out.append(flat)
    return out, math.prod(len(r) for r in ranges) <= most


def executions(space: Space, a: Access) -> int:
    """How often the statement of an access runs; a mask may skip some."""
    n = 1
    for i in a.loops:
        n *= len(values(space.loops[i]))
    return n


def ranges_text(flat: Sequence[int], shape: Sequence[int]) -> str:
    """'row 3, columns 0 to 63', 'elements 0, 64, 128, 192 … 448 (8 in all)': touched elements in words."""
    ids = sorted(set(flat))
    if not ids:
        return "nothing"
    columns = max(shape[-1], 1) if shape else 1
    rows, cols = sorted({i // columns for i in ids}), sorted({i % columns for i in ids})
    if len(rows) * len(cols) == len(ids) and len(shape) > 1:
        return f"{_named('row', rows)}, {_named('column', cols)}"
    return _named("element", ids)


def _named(what: str, ids: Sequence[int]) -> str:
    return f"{what}{'s' if len(ids) > 1 else ''} {_span(ids)}"


def _span(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return str(ids[0])
    step = ids[1] - ids[0]
    if all(b - a == step for a, b in itertools.pairwise(ids)):
        return f"{ids[0]} to {ids[-1]}" + (f" by {step}" if step > 1 else "")
    return ", ".join(str(i) for i in ids[:4]) + (f" … {ids[-1]} ({len(ids)} in all)" if len(ids) > 4 else "")
