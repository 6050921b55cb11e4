"""`tv.addresses`: every access of a computation, run on the reference backend, for one input or for two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyviz import wire

if TYPE_CHECKING:
    from tinyviz.explore import Explorer

MOST = 20_000  # elements of one access that are kept


def addresses(f: Any, *inputs: Any) -> Explorer:
    """The view `addresses` of `f` with what it really touched on each of the inputs, side by side.

    `f`: a function of tensors; `inputs`: one or two of its argument lists (a tensor stands for a list of one). Or a lazy tensor
    alone, traced on the values that it has. The reference backend runs it: take small sizes. Nothing of the user's changes.

    Raises TypeError for something else, ValueError for more than two inputs."""
    from tinyengine.tensor import Tensor
    from tinyviz.lowering import lower

    if len(inputs) > 2:
        raise ValueError(f"addresses compares two inputs, got {len(inputs)}")
    if isinstance(f, Tensor) == bool(inputs) or not (callable(f) or isinstance(f, Tensor)):
        raise TypeError(f"addresses takes a function and one or two inputs, or a lazy tensor; got {type(f).__name__}")
    lists = [x if isinstance(x, tuple) else (x,) for x in inputs]
    made = [lower(f, *args) for args in lists] or [lower(f, gradients=False)]
    first = made[0].recording
    p = first.data.programs[0]
    for i, low in enumerate(made):
        p.traces += traces(low.engine, f"input {i + 1}" if inputs else "", p)
    return first.view("addresses")


def traces(lowered: Any, name: str, p: wire.Program) -> list[wire.Trace]:
    """Run the program kernel by kernel, before scheduling, on copies of its memory."""
    from tinyengine.backends.reference import Interpreter, Touched
    from tinyengine.loopnest import kernel_lines

    plan = lowered.plan
    arrays: list[Any] = [np.array(b.array) for b in lowered.buffers]
    arrays += [np.zeros(s.size, s.dtype.numpy) for s in plan.slots[len(arrays) :]]
    before = {n.kernel.name: n.kernel for n in lowered.nests}
    out = []
    for i, call in enumerate(plan.calls):
        kernel = before.get(call.kernel.name, call.kernel)
        touched: list[Touched] = []
        Interpreter(kernel, touched).run([arrays[s][: q.size] for q, s in zip(kernel.params, call.slots, strict=True)])
        line = {id(s): j for j, (_, s) in enumerate(kernel_lines(kernel)) if s is not None}
        found: dict[int, list[Any]] = {}
        for t in touched:
            at = _access(p.kernels[i], line.get(id(t.stmt), -1), t.buffer, t.write)
            if at >= 0:
                found.setdefault(at, []).append(t.elements)
        for at, parts in sorted(found.items()):
            elements = np.concatenate(parts)
            out.append(wire.Trace(name, i, at, elements[:MOST].tolist(), len(elements)))
    return out


def _access(k: wire.Kernel, line: int, buffer: str, write: bool) -> int:
    """The first access of that statement to that buffer."""
    if k.space is None:
        return -1
    names = [x.name for x in k.space.operands]
    found = enumerate(k.space.accesses)
    return next((i for i, a in found if (a.line, names[a.operand], a.write) == (line, buffer, write)), -1)
