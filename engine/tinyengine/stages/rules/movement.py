"""The movement rules of `simplify`: chains of views become one view, views that move nothing go, and constants take any shape.

A view costs nothing by itself (`loops` makes it index arithmetic), so no rule moves views past arithmetic: it would change the
fusion."""

from __future__ import annotations

from typing import Any

from tinyengine.extent import plain, symbolic
from tinyengine.node import Node, Shape, const
from tinyengine.ops import SCATTER
from tinyengine.rules import Rule
from tinyengine.size import bounds


def view(op: str, x: Node, shape: Shape, arg: Any = None) -> Node:
    """A movement of `x`; `x` itself where a reshape has nothing to do."""
    return x if op == "reshape" and x.shape == shape else Node(op, x.dtype, shape, (x,), arg, ())


def _constant(n: Node) -> Node | None:
    (x,) = n.src
    if x.op != "const" or (n.op in ("pad", "place") and repr(x.arg) not in ("0", "0.0", "False")):
        return None
    return const(x.arg, n.dtype, n.shape)


def _pad_nothing(n: Node) -> Node | None:
    return const(0, n.dtype, n.shape) if n.src[0].size == 0 and n.size else None


def _scatter_nothing(n: Node) -> Node | None:
    return n.src[0] if n.src[2].size == 0 else None


def _nothing(n: Node) -> Node | None:
    (x,) = n.src
    if n.shape != x.shape:
        return None
    if n.op == "permute" and n.arg != tuple(range(len(n.shape))):
        return None
    if n.op == "slice" and any([start != 0 for start, _ in n.arg]):
        return None
    if n.op == "flip" and any([n.shape[a] > 1 for a in n.arg]):
        return None
    return x  # expand, reshape and pad to the same shape do nothing


def _reshape_reshape(n: Node) -> Node | None:
    (x,) = n.src
    return view("reshape", x.src[0], n.shape) if x.op == "reshape" else None


def _expand_expand(n: Node) -> Node | None:
    (x,) = n.src
    return view("expand", x.src[0], n.shape) if x.op == "expand" else None


def _permute_permute(n: Node) -> Node | None:
    (x,) = n.src
    return view("permute", x.src[0], n.shape, tuple([x.arg[a] for a in n.arg])) if x.op == "permute" else None


def _permute_units(n: Node) -> Node | None:
    (x,) = n.src
    moved = [a for a in n.arg if x.shape[a] != 1]
    return view("reshape", x, n.shape) if moved == sorted(moved) else None


def _flip_flip(n: Node) -> Node | None:
    (x,) = n.src
    if x.op != "flip":
        return None
    axes = tuple(sorted(set(n.arg) ^ set(x.arg)))
    return view("flip", x.src[0], n.shape, axes) if axes else x.src[0]


def _flip_units(n: Node) -> Node | None:
    axes = tuple([a for a in n.arg if n.shape[a] > 1])
    return view("flip", n.src[0], n.shape, axes) if axes != n.arg else None


def _slice_slice(n: Node) -> Node | None:
    (x,) = n.src
    if x.op != "slice":
        return None
    arg = tuple([(s0 + t0 * s1, t0 * t1) for (s0, t0), (s1, t1) in zip(x.arg, n.arg, strict=True)])
    return view("slice", x.src[0], n.shape, arg)


def _unsettled(n: Node, p: Node) -> bool:
    """Whether a symbolic size decides what a slice takes of a padded value."""
    for part, widths, extent, inner in zip(n.arg, p.arg, n.shape, p.src[0].shape, strict=True):
        if symbolic((*part, *widths)):
            return True
        if symbolic((extent, inner)) and (part != (0, 1) or widths[:1] != (0,) or widths[2] or extent != inner):
            return True
    return False


def _slice_pad(n: Node) -> Node | None:
    """The part of a padded value that a slice takes lies inside the value, or all in the padding."""
    (p,) = n.src
    if p.op != "pad" or n.size == 0 or _unsettled(n, p):
        return None
    x, arg = p.src[0], []
    for (start, step), (low, _, interior), extent, inner in zip(n.arg, p.arg, n.shape, x.shape, strict=True):
        first, last = start - low, start + step * (extent - 1) - low
        pitch = interior + 1  # the elements of x stand this far apart
        if last < 0 or first > pitch * (inner - 1):
            return const(0, n.dtype, n.shape)
        if first < 0 or last > pitch * (inner - 1) or first % pitch or (step % pitch and extent > 1):
            return None
        arg.append((first // pitch, max(1, step // pitch)))
    return view("slice", x, n.shape, tuple(arg))


def _slice_where(n: Node) -> Node | None:
    """slice(where(position < 4, a, b)) -> slice(a), of a condition that is `pad` of True; symbolic sizes by their bounds."""
    (w,) = n.src
    if w.op != "where" or w.src[0].op != "pad" or w.src[0].src[0].arg is not True:
        return None
    c = w.src[0]
    holds = True
    for (start, step), (low, _, interior), extent, inner in zip(n.arg, c.arg, n.shape, c.src[0].shape, strict=True):
        first = start - low
        last, end = first + step * (plain(extent) - 1), plain(inner)
        if not interior and (bounds(last)[1] < 0 or bounds(first - end)[0] >= 0):
            return view("slice", w.src[2], n.shape, n.arg)
        holds &= not interior and bounds(first)[0] >= 0 and bounds(last - end)[1] < 0
    return view("slice", w.src[1], n.shape, n.arg) if holds else None


def _slice_expand(n: Node) -> Node | None:
    """Only where every sliced axis is one that repeats: the slice then only sets the extent."""
    (e,) = n.src
    if e.op != "expand":
        return None
    x = e.src[0]
    for (start, step), extent, inner, full in zip(n.arg, n.shape, x.shape, e.shape, strict=True):
        if inner == full and (start, step, extent) != (0, 1, full) and full != 1:
            return None
    return view("expand", x, n.shape) if x.shape != n.shape else x


def _pad_pad(n: Node) -> Node | None:
    (x,) = n.src
    if x.op != "pad" or any([i for _, _, i in x.arg]) or any([i for _, _, i in n.arg]):
        return None
    arg = tuple([(a + c, b + d, 0) for (a, b, _), (c, d, _) in zip(x.arg, n.arg, strict=True)])
    return view("pad", x.src[0], n.shape, arg)


def _iota_one(n: Node) -> Node | None:
    return const(0, n.dtype, n.shape) if n.shape[n.arg] == 1 else None


def _contiguous_twice(n: Node) -> Node | None:
    return n.src[0] if n.src[0].op == "contiguous" else None


RULES: tuple[Rule, ...] = (
    Rule("move-constant", "A constant is the same at every position; padding adds the zero it is.",
         ("reshape", "permute", "expand", "slice", "pad", "flip", "window", "place"), _constant),
    Rule("move-nothing", "Every element stays where it is.", ("reshape", "permute", "expand", "slice", "pad", "flip"), _nothing),
    Rule("pad-nothing", "Around no elements there is only padding, which is zero.", ("pad", "place"), _pad_nothing),
    Rule("scatter-nothing", "No values are added: the base stays.", tuple(sorted(SCATTER)), _scatter_nothing),
    Rule("reshape-of-reshape", "Row-major order stays through both, so one reshape does it.", ("reshape",), _reshape_reshape),
    Rule("expand-of-expand", "Repeating a repetition is one repetition.", ("expand",), _expand_expand),
    Rule("permute-of-permute", "Two permutations are one.", ("permute",), _permute_permute),
    Rule("permute-of-unit-axes", "Only axes of extent 1 change place: the order stays.", ("permute",), _permute_units),
    Rule("flip-of-flip", "Flipping an axis twice restores it.", ("flip",), _flip_flip),
    Rule("flip-of-unit-axes", "An axis of extent 1 has no other end.", ("flip",), _flip_units),
    Rule("slice-of-slice", "A slice of a slice is a slice: starts add, steps multiply.", ("slice",), _slice_slice),
    Rule("slice-of-pad", "The slice takes only what was there, or only zeros.", ("slice",), _slice_pad),
    Rule("slice-of-where", "The condition, on position, is the same for all that the slice takes.", ("slice",), _slice_where),
    Rule("slice-of-expand", "Along a repeated axis every part is the same, only fewer.", ("slice",), _slice_expand),
    Rule("pad-of-pad", "Zeros around zeros: the widths add.", ("pad",), _pad_pad),
    Rule("iota-of-one", "The only position along an axis of extent 1 is 0.", ("iota",), _iota_one),
    Rule("contiguous-twice", "The value already has memory of its own.", ("contiguous",), _contiguous_twice),
)  # fmt: skip
