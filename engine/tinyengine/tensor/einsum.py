"""einsum: operands with their axes in one common order, multiplied, and summed over the letters that nobody needs any more; two
at a time where there are more."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine.origin import user_line
from tinyengine.size import most
from tinyengine.tensor import core

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_ALL_WAYS = 5  # operands whose contractions are tried in every order
_SPARE = "0123456789"  # names for the axes that '...' stands for, from the last one


def _letters(term: str, rank: int, formula: str) -> str:
    """The axes of an operand, one letter each: '...ij' of 4 axes -> '10ij'."""
    if term.count("...") > 1 or (not term.replace("...", "", 1).isalpha() and term not in ("", "...")):
        raise RuntimeError(f"einsum {formula!r}: {term!r} is not made of letters and at most one '...'\n  at {user_line()}")
    if "..." in term:
        more = rank - (len(term) - 3)
        term = term.replace("...", _SPARE[:more][::-1]) if 0 <= more <= len(_SPARE) else term
    if len(term) != rank:
        raise RuntimeError(f"einsum {formula!r}: {term!r} does not fit an operand of {rank} axes\n  at {user_line()}")
    return term


def _diagonals(x: Any, term: str, formula: str) -> tuple[Any, str]:
    """An axis for each letter, once: those with the same letter become their diagonal."""
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            a = term.index(c)
            b = term.index(c, a + 1)
            if x.shape[a] != x.shape[b]:
                raise RuntimeError(f"einsum {formula!r}: {c} has extents {x.shape[a]} and {x.shape[b]}\n  at {user_line()}")
            x = x.diagonal(0, a, b)  # comes last
            term = term[:a] + term[a + 1 : b] + term[b + 1 :] + c
    return x, term


def einsum(formula: str, operands: list[Any]) -> Tensor:
    """See Linalg.einsum."""
    if not isinstance(formula, str):
        raise TypeError(f"einsum: the formula comes first, a str, not {type(formula).__name__}\n  at {user_line()}")
    ins, arrow, out = formula.replace(" ", "").partition("->")
    terms = ins.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum {formula!r} has {len(terms)} operands, {len(operands)} were given\n  at {user_line()}")
    dtype = operands[0].dtype
    if core.wide(dtype) is not dtype and all(x.dtype is dtype for x in operands):  # no product is rounded before it is added
        return einsum(formula, [core.widened(x) for x in operands]).cast(dtype)
    terms = [_letters(t, x.ndim, formula) for t, x in zip(terms, operands, strict=True)]
    every = "".join(terms)
    spare = "".join(c for c in reversed(_SPARE) if c in every)
    if arrow:
        out = out.replace("...", spare)
    else:
        out = spare + "".join(sorted(c for c in set(every) - set(spare) if every.count(c) == 1))
    if len(set(out)) < len(out) or not set(out) <= set(every):
        raise RuntimeError(f"einsum {formula!r}: the output names an axis twice, or one that no operand has\n  at {user_line()}")
    extent: dict[str, int] = {}
    pairs = [_diagonals(x, t, formula) for t, x in zip(terms, operands, strict=True)]
    for x, t in pairs:
        for c, s in zip(t, x.shape, strict=True):
            if extent.setdefault(c, s) not in (1, s) and s != 1:
                raise RuntimeError(f"einsum {formula!r}: {c} has extents {extent[c]} and {s}\n  at {user_line()}")
            extent[c] = s if extent[c] == 1 else extent[c]
    for *step, last in _path([t for _, t in pairs], out, extent):
        taken = [pairs.pop(i) for i in sorted((*step, last), reverse=True)][::-1]
        needed = set(out).union(*(t for _, t in pairs))
        inner = "".join(c for c in extent if c in needed and any(c in t for _, t in taken)) if pairs else out
        pairs.append((_contracted(taken, inner, extent), inner))
    return pairs[0][0]  # type: ignore[no-any-return]


def _path(terms: list[str], out: str, extent: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Which operands are contracted together, one step after the other: the result goes to the end of the list. NumPy's search:
    the fewest products, or a greedy choice among many operands."""
    if len(terms) < 3:
        return [tuple(range(len(terms)))]
    name = dict(zip(extent, string.ascii_letters, strict=False))
    ins = ",".join("".join(name[c] for c in t) for t in terms)
    shapes = [np.broadcast_to(0.0, [most(extent[c]) for c in t]) for t in terms]
    how = "optimal" if len(terms) <= _ALL_WAYS else "greedy"
    path, _ = np.einsum_path(f"{ins}->{''.join(name[c] for c in out)}", *shapes, optimize=how)
    return path[1:]


def _contracted(pairs: list[tuple[Any, str]], out: str, extent: Mapping[str, Any]) -> Any:
    """The product of all operands, summed over the letters that `out` lacks."""
    letters = [c for c in extent if any(c in t for _, t in pairs)]
    order = out + "".join(c for c in letters if c not in out)  # summed letters last
    product: Any = None
    for x, t in pairs:
        held = [c for c in order if c in t]
        y = x.permute([t.index(c) for c in held]) if t else x
        sizes = dict(zip(held, y.shape, strict=True))
        y = y.reshape([sizes.get(c, 1) for c in order])
        product = y if product is None else product * y
    product = product.expand([extent[c] for c in order])
    if len(order) == len(out):
        return product
    total = None if product.dtype.kind == "bool" else product.dtype  # small ints stay small, as in PyTorch
    return product.sum(tuple(range(len(out), len(order))), dtype=total)


__all__ = ["einsum"]
