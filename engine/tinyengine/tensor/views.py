"""Views: tensors that are parts of another, and updates in place that all of them see, as in PyTorch.

A recorded value never changes, so an update makes new values: what was written is moved to its place in the whole, and every
view that is still held is taken from the new whole. Nothing is shared that the engine does not know of: a value that was recorded
before the update keeps what it read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.node import Graph, Node, Shape
from tinyengine.origin import here, user_line
from tinyengine.stages import record
from tinyengine.tensor import core, force
from tinyengine.tensor.core import Base, make

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

_ref = weakref.ref
_view: Any = tuple.__new__
Step = tuple[str, Shape, Any]  # op, shape of its result, arg: one movement from the whole toward a view
Strides = tuple[int, ...]


class Storage:
    """What some tensors are views of: its shape, and the tensors, the whole included."""

    __slots__ = ("limit", "members", "shape")

    def __init__(self, whole: Base) -> None:
        self.shape, self.limit = whole.node.shape, 100
        self.members: list[weakref.ref[Base]] = [_ref(whole)]

    def add(self, t: Base) -> None:
        self.members.append(_ref(t))
        if len(self.members) > self.limit:
            self.members = [r for r in self.members if r() is not None]
            self.limit = 2 * len(self.members) + 100

    def alive(self) -> list[Base]:
        """The tensors that somebody still holds."""
        found = [(r, t) for r in self.members if (t := r()) is not None and t.viewed is not None and t.viewed.storage is self]
        self.members = [r for r, _ in found]
        return [t for _, t in found]


class View(NamedTuple):
    """How a tensor is taken from its storage. `by`: the strides (in elements) of what `diagonal` takes, which its steps do not
    tell."""

    storage: Storage
    path: tuple[Step, ...]
    by: tuple[int, Strides] | None = None  # after so many steps

    @property
    def stopped(self) -> bool:
        return any([op == "bitcast" for op, _, _ in self.path])


def derive(
    parent: Base, below: Node, node: Node, flow: int, by: Callable[[Strides], Strides] | None = None, stop: bool = False
) -> Tensor:
    """A tensor with `node`, a chain of movements over `below`, the node of `parent`: a view, unless PyTorch would copy here.
    `by`: strides of the parent -> of the view, where single steps do not tell; `stop`: gradients end here (detach)."""
    t = make(node, flow, node is below)
    steps: list[Step] = [("bitcast", node.shape, None)] if stop else []
    copies, n = False, node
    while n is not below:
        if len(n.src) != 1:
            return t  # a constant was made anew
        steps.append((n.op, n.shape, n.arg))
        if n.op == "reshape" and not copies:  # axes of extent 1 may always come and go
            copies = [d for d in n.shape if d != 1] != [d for d in n.src[0].shape if d != 1]
        n = n.src[0]
    known = parent.viewed
    if known is None:
        known = parent.viewed = _view(View, (Storage(parent), (), None))
    steps.reverse()
    path = known.path + tuple(steps)
    exact = known.by
    if by is not None:
        strides = _walk(known.storage.shape, known.path, exact)
        assert strides is not None
        exact = (len(path), by(strides))
    elif copies and len(path) > 1 and _walk(known.storage.shape, path, exact) is None:
        return t
    t.viewed = _view(View, (known.storage, path, exact))
    known.storage.add(t)
    return t


def share(t: Base, other: Base) -> None:
    """`t` becomes another name for the elements of `other`."""
    view = derive(other, other.node, other.node, other.flow).viewed
    core.become(t, other.node)
    t.viewed = view
    if view is not None:
        view.storage.add(t)


def update(t: Base, new: Any, memory: bool = False) -> None:
    """`t` and all that share its elements get the content of `new` (a tensor of its shape and dtype). Computed memory is
    overwritten, unless a gradient flows through the new content. `memory`: give `t` memory if it has none."""
    view = t.viewed
    if view is None:
        _leaf(t, memory)
        _set(t, new.node, new.flow, memory)
        return
    members = view.storage.alive()
    whole = t if not view.path else next((m for m in members if not m.viewed.path), None)  # type: ignore[union-attr]
    if whole is None:
        whole = _recovered(view.storage, members)
    if whole is None:  # what it was taken from is not known any more: this part stands alone, if it does not overlap another
        _apart(t, members)
        _set(t, new.node, new.flow, memory)
        return
    if not view.stopped:
        _leaf(whole, memory)
    node, flow = (new.node, new.flow) if whole is t else _placed(whole, view.path, new)
    _set(whole, node, flow, memory)
    for m in members:
        if m is not whole:
            assert m.viewed is not None
            core.become(m, _replay(m.viewed.path, whole.node))
            m.flow = core.NO_FLOW if m.viewed.stopped else whole.flow


def refresh(t: Base) -> None:
    """The views of `t` read its newest memory: a compiled program has updated it."""
    if t.viewed is not None and not t.viewed.path:
        for m in t.viewed.storage.alive():
            if m is not t and m.viewed is not None and m.node.op != "assign":
                core.become(m, _replay(m.viewed.path, t.node))


def watched(tensors: Sequence[Base]) -> set[int]:
    """Identities of the views of these tensors: they follow what is written."""
    return {id(m) for t in tensors if t.viewed is not None for m in t.viewed.storage.alive()}


def _recovered(storage: Storage, members: Sequence[Base]) -> Base | None:
    """The whole again, where nobody holds it but a part still is the movements that took it from there."""
    views = [(m, m.viewed) for m in members if m.viewed is not None]
    flowing = [(m, v) for m, v in views if not v.stopped]
    for m, v in flowing or views:
        n = m.node
        for op, _, _ in reversed(v.path):
            if n.op == op:
                n = n.src[0]
            elif op != "bitcast":  # where gradients stop, which the graph need not say
                break
        else:
            if n.shape == storage.shape:
                whole = make(n, m.flow, True)
                whole.viewed = _view(View, (storage, (), None))
                storage.members.append(_ref(whole))
                return whole
    return None


def _leaf(t: Base, memory: bool) -> None:
    if id(t) in core.leaves and core.state.limit == core.FLOWS and not memory:
        raise RuntimeError(
            "in place: a leaf that requires a gradient would no longer be what the loss was computed from; update it (or a view"
            f" of it) under no_grad, or with assign\n  at {user_line()}"
        )


def _set(t: Base, node: Node, flow: int, memory: bool) -> None:
    leaf = id(t) in core.leaves
    if memory or (force.has_memory(t) and (flow != core.FLOWS or leaf)):
        force.assign(t, node)
        return
    if core.state.trace is not None and force.has_memory(t):
        raise RuntimeError(
            "in place: inside a jitted function, a tensor from outside cannot take a value through which gradients flow: detach"
            f" the value, or update under no_grad\n  at {user_line()}"
        )
    core.become(t, node)
    if not leaf:
        t.flow = flow


def _placed(whole: Base, path: tuple[Step, ...], new: Any) -> tuple[Node, int]:
    """The whole with the view at `path` replaced."""
    flow, (old, value) = core.settle(whole, new)
    o = here()
    mask = record.const(True, dtypes.bool_, value.shape, o)
    shapes = [whole.node.shape, *[s for _, s, _ in path]]
    for (op, shape, arg), before in zip(reversed(path), reversed(shapes[:-1]), strict=True):
        value, mask = (_back(n, op, shape, arg, before, o) for n in (value, mask))
    if mask.op == "const":
        return (value if mask.arg else old), flow
    return record.where(mask, value, old, o), flow


def _back(n: Node, op: str, shape: Shape, arg: Any, before: Shape, o: record.Where) -> Node:
    """`n`, of a view's shape, at its places in what the view was taken from; zeros elsewhere."""
    if op == "bitcast":
        return n
    if op == "reshape":
        return record.const(n.arg, n.dtype, before, o) if n.op == "const" else record.reshape(n, before, o)
    if op == "permute":
        return record.permute(n, tuple(np.argsort(arg).tolist()), o) if n.op != "const" else _like(n, before, o)
    if op == "flip":
        return n if n.op == "const" else record.flip(n, arg, o)
    if op == "slice":
        if 0 in shape:
            return record.const(0, n.dtype, before, o)
        widths = [(a, k - a - step * (m - 1) - 1, step - 1) for (a, step), m, k in zip(arg, shape, before, strict=True)]
        return record.pad(n, tuple(widths), o)
    raise RuntimeError(
        f"in place: more than one element of the tensor that is written to, shape {list(shape)}, is the same place of what it was"
        f" made from, shape {list(before)}; clone() it first\n  at {user_line()}"
    )


def _like(n: Node, shape: Shape, o: record.Where) -> Node:
    return record.const(n.arg, n.dtype, shape, o)


def _replay(path: tuple[Step, ...], n: Node) -> Node:
    o = here()
    for op, shape, arg in path:
        n = Node(op, n.dtype, shape, (n,), arg, o)
    return n


def _apart(t: Base, members: Sequence[Base]) -> None:
    others = [m for m in members if m is not t]
    if not others:
        return
    from tinyengine.backends.graph_eval import evaluate

    assert t.viewed is not None
    shape = t.viewed.storage.shape
    o = here()
    size = int(np.prod(shape))
    every = record.reshape(record.iota(0, dtypes.int32, (size,), o), shape, o)
    mine, *theirs = evaluate(Graph([_replay(m.viewed.path, every) for m in (t, *others)]))  # type: ignore[union-attr]
    for m, places in zip(others, theirs, strict=True):
        if np.intersect1d(mine, places).size:
            raise RuntimeError(
                f"in place: this view of shape {list(t.shape)} and another of shape {list(m.shape)} overlap, and the tensor that"
                f" they were taken from is gone; keep it, or clone() one of them\n  at {user_line()}"
            )


# ---- what PyTorch makes without a copy


def _contiguous(shape: Shape) -> Strides:
    out, step = [], 1
    for d in reversed(shape):
        out.append(step)
        step *= d
    return tuple(reversed(out))


def _walk(shape: Shape, path: Sequence[Step], exact: tuple[int, Strides] | None) -> Strides | None:
    """Strides at the end of a path; None where the elements would have to be copied."""
    strides: Strides | None = _contiguous(shape)
    for k, (op, out, arg) in enumerate(path):
        assert strides is not None
        if exact is None or k >= exact[0]:
            strides = _strides(op, shape, strides, out, arg)
            if strides is None:
                return None
        elif k == exact[0] - 1:
            strides = exact[1]
        shape = out
    return strides


def _strides(op: str, shape: Shape, strides: Strides, out: Shape, arg: Any) -> Strides | None:
    """Strides after one movement; None where it copies."""
    if op == "reshape":
        return _reshaped(shape, strides, out)
    if op == "permute":
        return tuple([strides[a] for a in arg])
    if op == "slice":
        return tuple([s * step for s, (_, step) in zip(strides, arg, strict=True)])
    if op == "expand":
        return tuple([s if a == b else 0 for s, a, b in zip(strides, shape, out, strict=True)])
    if op == "flip":
        return tuple([-s if d in arg else s for d, s in enumerate(strides)])
    if op == "bitcast":
        return strides
    if op == "window":
        axis, kaxis, stride, dilation = arg
        by = list(strides)
        by[axis], by[kaxis] = strides[axis] * stride, strides[axis] * dilation
        return tuple(by)
    return None


def _reshaped(shape: Shape, strides: Strides, out: Shape) -> Strides | None:
    """Strides of a reshape: each run of axes that lie in memory as one may be cut anew; None where axes would have to join that
    do not."""
    if 0 in shape:
        return _contiguous(out)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    new: list[int] = []
    i = j = 0
    while j < len(out):
        if out[j] == 1:
            new.append(0)
            j += 1
            continue
        n, s = old[i]
        run, i = n, i + 1
        first, k = j, out[j]
        while k != run:
            if k < run:
                j += 1
                k *= out[j]
            else:
                m, t = old[i]
                if s != m * t:
                    return None
                run, s, i = run * m, t, i + 1
        step = s
        part: list[int] = []
        for d in reversed(out[first : j + 1]):
            part.append(step)
            step *= d
        new += reversed(part)
        j += 1
    return tuple(new)


__all__ = ["Storage", "View", "derive", "refresh", "share", "update", "watched"]
