"""The rules of `simplify` for sums over windows, as in gradients of convolutions: what is cut off is not summed up, and a stride
is taken apart into its phases."""

from __future__ import annotations

from tinyengine.extent import symbolic
from tinyengine.node import Node, Shape
from tinyengine.ops import REDUCE
from tinyengine.rules import Rule
from tinyengine.stages.rules.movement import view


def _of_reduction(x: Node) -> bool:
    return x.is_reduce or (x.op in ("permute", "reshape") and _of_reduction(x.src[0]))


def _slice_permute(n: Node) -> Node | None:
    (p,) = n.src
    if p.op != "permute" or not _of_reduction(p):
        return None
    to = {a: d for d, a in enumerate(p.arg)}
    shape = tuple([n.shape[to[a]] for a in range(len(n.shape))])
    inner = view("slice", p.src[0], shape, tuple([n.arg[to[a]] for a in range(len(n.shape))]))
    return view("permute", inner, n.shape, p.arg)


def _slice_reshape(n: Node) -> Node | None:
    """Where the reshape only adds or drops axes of extent 1."""
    (r,) = n.src
    if r.op != "reshape" or not _of_reduction(r):
        return None
    x = r.src[0]
    inside = [a for a, d in enumerate(x.shape) if d != 1]
    outside = [a for a, d in enumerate(r.shape) if d != 1]
    if [x.shape[a] for a in inside] != [r.shape[a] for a in outside] or 0 in n.shape:
        return None
    shape, arg = list(x.shape), [(0, 1)] * len(x.shape)
    for a, d in zip(inside, outside, strict=True):
        shape[a], arg[a] = n.shape[d], n.arg[d]
    return view("reshape", view("slice", x, tuple(shape), tuple(arg)), n.shape)


def _slice_reduction(n: Node) -> Node | None:
    (x,) = n.src
    if x.op not in REDUCE or 0 in n.shape:
        return None
    terms = x.src[0]
    shape = tuple([terms.shape[a] if a in x.arg else d for a, d in enumerate(n.shape)])
    arg = tuple([(0, 1) if a in x.arg else part for a, part in enumerate(n.arg)])
    return Node(x.op, x.dtype, n.shape, (view("slice", terms, shape, arg),), x.arg, ())


# ---- the phases of a stride


def _factors(product: Node, places: list[Node]) -> tuple[Node, Node] | None:
    """(the factor that is placed, the factor with the taps) of a product, each before it was expanded; None where the axes of the
    places do not part them so."""
    if product.op != "mul":
        return None
    a, b = (f.src[0] if f.op == "expand" else f for f in product.src)
    for x, w in ((a, b), (b, a)):
        if all(x.shape[p.arg[1]] == 1 and w.shape[p.arg[0]] == 1 for p in places):
            return x, w
    return None


def _phases(n: Node) -> Node | None:
    """A place with stride s puts tap u * s + q of element i at (i + u) * s + q: for each phase q a place without a stride. The
    phases become axes in front, and are laid between each other at the end."""
    places, m = list[Node](), n.src[0]
    while m.op == "place":
        places.append(m)
        m = m.src[0]
    strided = [p for p in places if p.arg[2] > 1]
    if not strided or any(p.arg[3] != 1 for p in strided) or symbolic((*n.shape, *m.shape)):
        return None
    if any(p.arg[1] not in n.arg and m.shape[p.arg[1]] != 1 for p in strided):
        return None
    if 0 in n.shape:
        return None
    x, w = _factors(m, strided) or (None, m)
    count, rank = len(strided), len(m.shape)
    phases, steps = [], []  # of each stride: the phases that have taps, and taps per phase
    for p in strided:
        taps, stride = m.shape[p.arg[1]], p.arg[2]
        steps.append(-(-taps // stride))
        phases.append(min(taps, stride))
    # the taps as [phase, tap of the phase]: zeros fill the last ones
    kept = {p.arg[1]: (steps[i], phases[i]) for i, p in enumerate(strided)}
    full = tuple([kept[a][0] * kept[a][1] if a in kept else d for a, d in enumerate(w.shape)])
    if full != w.shape:
        w = view("pad", w, full, tuple([(0, f - d, 0) for f, d in zip(full, w.shape, strict=True)]))
    parts: list[int] = []
    where: list[int] = []  # axis of `w` -> where it is when taps are two axes
    for a, d in enumerate(full):
        where.append(len(parts))
        parts += kept.get(a, (d,))
    w = view("reshape", w, tuple(parts))
    order = [*(where[p.arg[1]] + 1 for p in strided), *where]
    w = view("permute", w, tuple([parts[a] for a in order]), tuple(order))
    out = w
    if x is not None:
        x = view("reshape", x, (*(1,) * count, *x.shape))
        shape = (*phases, *(kept[a][0] if a in kept else d for a, d in enumerate(m.shape)))
        out = Node("mul", m.dtype, shape, (_expand(x, shape), _expand(w, shape)), None, ())
    for p in reversed(places):
        axis, tap, stride, dilation = p.arg
        extents = list(out.shape)
        extents[count + axis] = p.src[0].shape[axis] + extents[count + tap] - 1 if p in strided else p.shape[axis]
        out = view("place", out, tuple(extents), (count + axis, count + tap, 1 if p in strided else stride, dilation))
    axes = tuple(count + a for a in n.arg)
    out = Node(n.op, n.dtype, tuple([1 if a in axes else d for a, d in enumerate(out.shape)]), (out,), axes, ())
    # missing phases are zeros; then [phase, .., i, ..] -> [.., i, phase, ..] -> [.., i * stride + phase, ..]
    strides = tuple(p.arg[2] for p in strided)
    if strides != tuple(phases):
        widths = tuple([(0, s - q, 0) for s, q in zip(strides, phases, strict=True)]) + ((0, 0, 0),) * rank
        out = view("pad", out, (*strides, *out.shape[count:]), widths)
    front = {p.arg[0]: i for i, p in enumerate(strided)}
    order, merged = [], list[int]()
    for a, d in enumerate(out.shape[count:]):
        order += [count + a, *([front[a]] if a in front else [])]
        merged.append(d * strides[front[a]] if a in front else d)
    out = view("permute", out, tuple([out.shape[a] for a in order]), tuple(order))
    out = view("reshape", out, tuple(merged))
    cut = tuple(min(d, e) for d, e in zip(merged, n.shape, strict=True))
    if cut != out.shape:
        out = view("slice", out, cut, ((0, 1),) * rank)
    if cut != n.shape:
        out = view("pad", out, n.shape, tuple([(0, e - d, 0) for d, e in zip(cut, n.shape, strict=True)]))
    return out


def _expand(x: Node, shape: Shape) -> Node:
    return view("expand", x, shape) if x.shape != shape else x


RULES: tuple[Rule, ...] = (
    Rule("slice-past-permute", "The same elements are taken before the axes change places.", ("slice",), _slice_permute),
    Rule("slice-past-reshape", "Axes of extent 1 come and go; the same elements are taken.", ("slice",), _slice_reshape),
    Rule("slice-before-reduction", "What is cut off need not be combined.", ("slice",), _slice_reduction, sole=True),
    Rule("stride-in-phases", "Between the elements are zeros, which add nothing; taps go by phase.", ("sum",), _phases),
)
