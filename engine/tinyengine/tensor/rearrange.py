"""rearrange: reshape and permute by a formula such as 'b (h d) t -> b h t d' (Rogozhnikov 2022, einops)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from tinyengine.origin import user_line

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor


def _axes(side: str, formula: str) -> list[list[str]]:
    """'b (h d)' -> [['b'], ['h', 'd']]."""
    tokens = re.findall(r"\([^()]*\)|\w+|\S", side)
    out = [t[1:-1].split() if t.startswith("(") else [t] for t in tokens]
    names = [n for group in out for n in group if n != "1"]
    if len(set(names)) < len(names) or not all(n.isidentifier() or n == "1" for group in out for n in group):
        raise RuntimeError(
            f"rearrange {formula!r}: each side lists names, each once, and groups in parentheses\n  at {user_line()}"
        )
    return out


def rearrange(x: Any, formula: str, sizes: dict[str, int]) -> Tensor:
    """See Movement.rearrange."""
    left, arrow, right = formula.partition("->")
    before, after = _axes(left, formula), _axes(right, formula)
    names = [[n for g in side for n in g if n != "1"] for side in (before, after)]
    if not arrow or len(before) != x.ndim or sorted(names[0]) != sorted(names[1]):
        raise RuntimeError(
            f"rearrange {formula!r} does not fit shape {list(x.shape)}: both sides need the same names\n  at {user_line()}"
        )
    extent = dict(sizes) | {"1": 1}
    for group, size in zip(before, x.shape, strict=True):
        unknown = [n for n in group if n not in extent]
        known = math.prod(extent[n] for n in group if n in extent)
        if len(unknown) > 1 or (known and size % known) or (not unknown and known != size):
            raise RuntimeError(
                f"rearrange {formula!r}: ({' '.join(group)}) with {sizes} does not fit extent {size}\n  at {user_line()}"
            )
        if unknown:
            extent[unknown[0]] = size // known if known else 0
    split = x.reshape([extent[n] for n in names[0]])
    moved = split.permute([names[0].index(n) for n in names[1]])
    return moved.reshape([math.prod(extent[n] for n in g) for g in after])  # type: ignore[no-any-return]
