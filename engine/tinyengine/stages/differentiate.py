"""Stage 2, differentiate. Question: what does the gradient need? Input: a recorded loss. Output: nodes of the same primitives,
one sum of contributions for each value asked for, every node tied to its forward node and to the derivative rule that made it.
A user's function (`function`) brings its own rule, which is called once for all its results.

Reverse mode: from the loss down, each node hands its gradient on to its operands by the rule of its op. Because the result is
made of the same primitives, it can be differentiated again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyengine import dtypes, hooks
from tinyengine.node import Graph, Node
from tinyengine.origin import Origin, user_line
from tinyengine.stages import record
from tinyengine.stages.record import Where
from tinyengine.stages.specs.graph import SPEC

# (forward node, its gradient, number of the operand, origin of the new nodes) -> gradient of that operand, or None: zero
# everywhere
Build = Callable[[Node, Node, int, Where], Node | None]
Through = Callable[[Node], Node | None]  # a computed value -> the node that it was computed from, if that is still of interest


@dataclass(frozen=True, slots=True)
class Derivative:
    """`name` is kebab-case and begins with d-; `reason`: the derivation in one line."""

    name: str
    reason: str
    op: str
    build: Build


def _like(n: Node, value: float, o: Where) -> Node:
    return record.const(value, n.dtype, n.shape, o)


def _mul(a: Node, b: Node, o: Where) -> Node:
    return record.binary("mul", a, b, o)


def _div(n: Node, g: Node, i: int, o: Where) -> Node:
    q = record.binary("div", g, n.src[1], o)
    return q if i == 0 else record.unary("neg", _mul(q, n, o), o)


def _extremum(n: Node, g: Node, i: int, o: Where) -> Node:
    """The operand that was chosen takes the gradient; a tie is shared, but a constant takes no share and leaves none (relu at
    0)."""
    mine, other = n.src[i], n.src[1 - i]
    # against a constant, the result tells as much as the operand does, and is often kept anyway
    seen = n if other.op == "const" else mine
    pair = (other, seen) if n.op == "maximum" else (seen, other)
    zero = _like(g, 0.0, o)
    won = record.where(record.binary("lt", *pair, o), g, zero, o)
    if other.op == "const":
        return won
    shared = record.where(record.binary("eq", mine, other, o), _mul(g, _like(g, 0.5, o), o), zero, o)
    return record.binary("add", won, shared, o)


def _where(n: Node, g: Node, i: int, o: Where) -> Node | None:
    zero = _like(g, 0.0, o)
    return None if i == 0 else record.where(n.src[0], g, zero, o) if i == 1 else record.where(n.src[0], zero, g, o)


def _mod(n: Node, g: Node, i: int, o: Where) -> Node:
    if i == 0:
        return g
    quotient = record.binary("div", record.binary("sub", n.src[0], n, o), n.src[1], o)  # a whole number, up to rounding
    return record.unary("neg", _mul(g, quotient, o), o)


def _fma(n: Node, g: Node, i: int, o: Where) -> Node:
    return g if i == 2 else _mul(g, n.src[1 - i], o)


def _sin(n: Node, g: Node, i: int, o: Where) -> Node:
    x = n.src[0]
    return _mul(g, record.unary("sin", record.binary("add", x, _like(x, math.pi / 2, o), o), o), o)


def _exp(n: Node, g: Node, i: int, o: Where) -> Node:
    """Inside r = 1 / (exp(a) + 1), whose own gradient is -g r^2, exp(a) r^2 is r (1 - r): finite where exp(a) is not, and nothing
    but r need be kept for it."""
    if g.op == "neg" and g.src[0].op == "mul":
        outer, square = g.src[0].src
        r = square.src[0] if square.op == "mul" and square.src[0] is square.src[1] else square
        if r.op == "reciprocal" and r.src[0].op == "add" and r.src[0].src[0] is n and _is_one(r.src[0].src[1]):
            return record.unary("neg", _mul(outer, _mul(r, record.binary("sub", _like(r, 1.0, o), r, o), o), o), o)
    return _mul(g, n, o)


def _exp2(n: Node, g: Node, i: int, o: Where) -> Node:
    return _mul(_exp(n, g, i, o), _like(n, math.log(2), o), o)


def _is_one(n: Node) -> bool:
    return n.op == "const" and bool(n.arg == 1)


def _tanh(n: Node, g: Node, i: int, o: Where) -> Node:
    return _mul(g, record.binary("sub", _like(n, 1.0, o), _mul(n, n, o), o), o)


def _erf(n: Node, g: Node, i: int, o: Where) -> Node:
    x = n.src[0]
    bell = record.unary("exp", record.unary("neg", _mul(x, x, o), o), o)
    return _mul(g, _mul(bell, _like(x, 2 / math.sqrt(math.pi), o), o), o)


def _sqrt(n: Node, g: Node, i: int, o: Where) -> Node:
    return record.binary("div", _mul(g, _like(g, 0.5, o), o), n, o)


def _expand(n: Node, g: Node, i: int, o: Where) -> Node:
    s = n.src[0].shape
    return record.reduce("sum", g, tuple([d for d, (a, b) in enumerate(zip(s, n.shape, strict=True)) if a != b]), o)


def _permute(n: Node, g: Node, i: int, o: Where) -> Node:
    return record.permute(g, tuple(sorted(range(len(n.arg)), key=n.arg.__getitem__)), o)


def _slice(n: Node, g: Node, i: int, o: Where) -> Node:
    s = n.src[0].shape
    if 0 in n.shape:
        return record.const(0.0, g.dtype, s, o)
    widths = tuple(
        [(start, k - start - step * (m - 1) - 1, step - 1) for (start, step), m, k in zip(n.arg, n.shape, s, strict=True)]
    )
    return record.pad(g, widths, o)


def _pad(n: Node, g: Node, i: int, o: Where) -> Node:
    return record.slice_(g, tuple([(low, inner + 1) for low, _, inner in n.arg]), n.src[0].shape, o)


def _window(n: Node, g: Node, i: int, o: Where) -> Node:
    return record.place(g, n.arg, n.src[0].shape[n.arg[0]], o)


def _place(n: Node, g: Node, i: int, o: Where) -> Node:
    axis, kaxis, stride, dilation = n.arg
    w = record.window(g, axis, kaxis, stride, dilation, o)
    return record.slice_(w, ((0, 1),) * len(w.shape), n.src[0].shape, o)  # a stride may leave more windows than were placed


def _max(n: Node, g: Node, i: int, o: Where) -> Node:
    x = n.src[0]
    best = record.binary("eq", x, record.expand(n, x.shape, o), o)
    count = record.reduce("sum", record.cast(best, g.dtype, o), n.arg, o)
    share = record.expand(record.binary("div", g, count, o), x.shape, o)
    return record.where(best, share, _like(share, 0.0, o), o)


def _prod(n: Node, g: Node, i: int, o: Where) -> Node:
    """The product of all the others, also where there are zeros: beside one zero only that element has any, beside two none."""
    x = n.src[0]
    zero, one = _like(x, 0.0, o), _like(x, 1.0, o)
    is_zero = record.binary("eq", x, zero, o)
    safe = record.where(is_zero, one, x, o)
    zeros = record.reduce("sum", record.cast(is_zero, x.dtype, o), n.arg, o)
    others_zero = record.binary("sub", record.expand(zeros, x.shape, o), record.cast(is_zero, x.dtype, o), o)
    others = record.binary("div", record.expand(record.reduce("prod", safe, n.arg, o), x.shape, o), safe, o)
    live = record.where(record.binary("eq", others_zero, zero, o), others, zero, o)
    return _mul(record.expand(g, x.shape, o), live, o)


def _scan_add(n: Node, g: Node, i: int, o: Where) -> Node:
    axis, reverse = n.arg
    return record.scan("scan_add", g, axis, not reverse, o)


def _scan_mul(n: Node, g: Node, i: int, o: Where) -> Node:
    """g_j times the product of the other factors, summed over all j from i on, also where there are zeros: an element before the
    first zero has what comes before that zero, the first zero what comes before the second one, those behind it nothing."""
    x, (axis, reverse) = n.src[0], n.arg
    zero, one = _like(x, 0.0, o), _like(x, 1.0, o)
    is_zero = record.binary("eq", x, zero, o)
    safe = record.where(is_zero, one, x, o)
    zeros = record.scan("scan_add", record.cast(is_zero, x.dtype, o), axis, reverse, o)
    through_one = record.where(record.binary("eq", zeros, one, o), record.scan("scan_mul", safe, axis, reverse, o), zero, o)
    before, there = (record.scan("scan_add", _mul(g, y, o), axis, not reverse, o) for y in (n, through_one))
    first = record.where(record.binary("eq", zeros, one, o), there, zero, o)
    return record.where(is_zero, first, record.binary("div", before, safe, o), o)


def _scan_max(n: Node, g: Node, i: int, o: Where) -> Node:
    """Of equal elements the last one so far."""
    x, (axis, reverse) = n.src[0], n.arg
    here = record.iota(axis, dtypes.int32, x.shape, o)
    if reverse:  # the last one is the first here: positions count down
        here = record.unary("neg", here, o)
    least = _like(here, dtypes.int32.min, o)
    is_nan = record.binary("xor", record.binary("eq", x, x, o), record.const(True, dtypes.bool_, x.shape, o), o)
    best = record.binary("or", record.binary("eq", x, n, o), is_nan, o)
    at = record.scan("scan_max", record.where(best, here, least, o), axis, reverse, o)
    at = record.unary("neg", at, o) if reverse else at
    return record.scatter("scatter_add", _like(g, 0.0, o), at, g, axis, o)


def _gather(n: Node, g: Node, i: int, o: Where) -> Node | None:
    """With one index per row the scatter is a comparison with the position: elementwise, so it fuses with what follows."""
    if i == 1:
        return None
    table, index = n.src
    axis = n.arg
    rows = tuple([1 if d == axis else k for d, k in enumerate(table.shape)])
    if index.shape == rows:
        here = record.iota(axis, index.dtype, table.shape, o)
        hit = record.binary("eq", here, record.expand(index, table.shape, o), o)
        wide = record.expand(g, table.shape, o)
        return record.where(hit, wide, _like(wide, 0.0, o), o)
    return record.scatter("scatter_add", record.const(0.0, g.dtype, table.shape, o), index, g, axis, o)


def _scatter(n: Node, g: Node, i: int, o: Where) -> Node | None:
    """What was written last at a place takes its gradient; the base, where nothing was. Rows that are written whole have one
    position each."""
    if i == 1:
        return None
    index, axis, whole = n.src[1], n.arg, n.shape
    if index.op == "expand" and all(d == 1 or a == axis for a, d in enumerate(index.src[0].shape)):
        index, whole = index.src[0], tuple([d if a == axis else 1 for a, d in enumerate(n.shape)])
    number = record.iota(axis, dtypes.int32, index.shape, o)
    last = record.scatter("scatter", record.const(-1, dtypes.int32, whole, o), index, number, axis, o)
    if i == 0:
        here = record.binary("lt", last, _like(last, 0, o), o)
    else:
        here, g = record.binary("eq", record.gather(last, index, axis, o), number, o), record.gather(g, n.src[1], axis, o)
    return record.where(record.expand(here, g.shape, o), g, _like(g, 0.0, o), o)


def _scatter_add(n: Node, g: Node, i: int, o: Where) -> Node | None:
    return g if i == 0 else None if i == 1 else record.gather(g, n.src[1], n.arg, o)


def _scatter_max(n: Node, g: Node, i: int, o: Where) -> Node | None:
    """As torch.scatter_reduce: the base and all values that are as large as the result share its gradient."""
    if i == 1:
        return None
    base, index, values = n.src
    here, there = record.binary("eq", base, n, o), record.binary("eq", values, record.gather(n, index, n.arg, o), o)
    count = record.scatter("scatter_add", record.cast(here, g.dtype, o), index, record.cast(there, g.dtype, o), n.arg, o)
    share = record.binary("div", g, count, o)
    hit, share = (here, share) if i == 0 else (there, record.gather(share, index, n.arg, o))
    return record.where(hit, share, _like(share, 0.0, o), o)


def _scatter_mul(n: Node, g: Node, i: int, o: Where) -> Node | None:
    """The product of all the others, also where there are zeros, as of `prod`."""
    if i == 1:
        return None
    base, index, values = n.src
    is_zero = [record.binary("eq", x, _like(x, 0.0, o), o) for x in (base, values)]
    safe = [record.where(z, _like(x, 1.0, o), x, o) for z, x in zip(is_zero, (base, values), strict=True)]
    count = [record.cast(z, g.dtype, o) for z in is_zero]
    zeros = record.scatter("scatter_add", count[0], index, count[1], n.arg, o)
    whole = record.scatter("scatter_mul", safe[0], index, safe[1], n.arg, o)
    if i == 2:
        g, zeros, whole = (record.gather(x, index, n.arg, o) for x in (g, zeros, whole))
    mine = i // 2
    others_zero = record.binary("sub", zeros, count[mine], o)
    others = record.binary("div", whole, safe[mine], o)
    return _mul(g, record.where(record.binary("eq", others_zero, _like(others, 0.0, o), o), others, _like(others, 0.0, o), o), o)


def _cast(n: Node, g: Node, i: int, o: Where) -> Node | None:
    if n.arg == record.RESULT and g.dtype.itemsize <= 2:
        return record.operand(g, o)
    return record.result(g, n.src[0].dtype, o) if n.src[0].dtype.is_float and n.dtype.is_float else None


def _none(n: Node, g: Node, i: int, o: Where) -> None:
    return None


_TABLE = (
    Derivative("d-add", "d(a + b) = da + db", "add", lambda n, g, i, o: g),
    Derivative("d-sub", "d(a - b) = da - db", "sub", lambda n, g, i, o: g if i == 0 else record.unary("neg", g, o)),
    Derivative("d-mul", "d(a b) = b da + a db", "mul", lambda n, g, i, o: _mul(g, n.src[1 - i], o)),
    Derivative("d-div", "d(a / b) = da / b - (a / b) db / b", "div", _div),
    Derivative("d-fma", "d(a b + c) = b da + a db + dc", "fma", _fma),
    Derivative("d-neg", "d(-a) = -da", "neg", lambda n, g, i, o: record.unary("neg", g, o)),
    Derivative("d-exp", "d exp(a) = exp(a) da; inside a sigmoid r, exp(a) r^2 = r (1 - r)", "exp", _exp),
    Derivative("d-exp2", "2^a = exp(a ln 2), so d 2^a = 2^a ln 2 da", "exp2", _exp2),
    Derivative("d-log", "d log(a) = da / a", "log", lambda n, g, i, o: record.binary("div", g, n.src[0], o)),
    Derivative("d-sin", "d sin(a) = cos(a) da, and cos(a) = sin(a + pi/2)", "sin", _sin),
    Derivative("d-tanh", "d tanh(a) = (1 - tanh(a)^2) da", "tanh", _tanh),
    Derivative("d-erf", "d erf(a) = 2/sqrt(pi) exp(-a^2) da", "erf", _erf),
    Derivative("d-sqrt", "d sqrt(a) = da / (2 sqrt(a))", "sqrt", _sqrt),
    Derivative(
        "d-reciprocal", "d(1/a) = -(1/a)^2 da", "reciprocal", lambda n, g, i, o: record.unary("neg", _mul(g, _mul(n, n, o), o), o)
    ),
    Derivative("d-maximum", "The larger takes the gradient; a tie is shared; a constant takes none.", "maximum", _extremum),
    Derivative("d-minimum", "The smaller takes the gradient; a tie is shared; a constant takes none.", "minimum", _extremum),
    Derivative("d-mod", "a mod b = a - floor(a/b) b, and the floor is constant almost everywhere", "mod", _mod),
    Derivative("d-where", "Each element's gradient goes to the operand that was chosen.", "where", _where),
    Derivative("d-cast", "Rounding to another float type counts as no change; through ints no gradient flows.", "cast", _cast),
    Derivative("d-reshape", "Elements keep their order, so the gradient is reshaped back.", "reshape",
               lambda n, g, i, o: record.reshape(g, n.src[0].shape, o)),
    Derivative("d-permute", "The gradient's axes go back to where they were.", "permute", _permute),
    Derivative("d-expand", "A value that was repeated gets the sum over its copies.", "expand", _expand),
    Derivative("d-slice", "What was cut away had no influence: zeros in its place.", "slice", _slice),
    Derivative("d-pad", "The zeros that were added depend on nothing: they are cut away again.", "pad", _pad),
    Derivative("d-flip", "Reversing twice gives the order back.", "flip", lambda n, g, i, o: record.flip(g, n.arg, o)),
    Derivative("d-window", "Each window's gradient is placed where the window was read.", "window", _window),
    Derivative("d-place", "What was placed is read again by the same windows.", "place", _place),
    Derivative("d-sum", "Every summand has the sum's influence.", "sum", lambda n, g, i, o: record.expand(g, n.src[0].shape, o)),
    Derivative("d-max", "The largest element takes the gradient; equal largest ones share it (as torch.amax).", "max", _max),
    Derivative("d-prod", "Each factor's influence is the product of the others.", "prod", _prod),
    Derivative("d-scan-add", "An element is part of all sums from its own on: added up from the end.", "scan_add", _scan_add),
    Derivative("d-scan-max", "The gradient of every place goes to the element that is the largest there.", "scan_max", _scan_max),
    Derivative("d-scan-mul", "Each factor's influence on a product is the product of the others.", "scan_mul", _scan_mul),
    Derivative("d-gather", "An element gets the sum of the gradients of all places that it was read for.", "gather", _gather),
    Derivative("d-scatter", "What stands at a place in the end takes the gradient of that place.", "scatter", _scatter),
    Derivative("d-scatter-add", "Each value is read back from where it was added to the base.", "scatter_add", _scatter_add),
    Derivative("d-scatter-max", "What is as large as the result takes its gradient; equal ones share it.", "scatter_max",
               _scatter_max),
    Derivative("d-scatter-mul", "Each factor's influence is the product of the others.", "scatter_mul", _scatter_mul),
    Derivative("d-contiguous", "Storing a value does not change it.", "contiguous", lambda n, g, i, o: g),
    Derivative("d-assign", "A write to memory is the end of a history: no gradient flows through it.", "assign", _none),
    Derivative("d-bitcast", "The bits are taken as they are: no gradient flows (detach).", "bitcast", _none),
    *[
        Derivative(f"d-{op}", "Piecewise constant: the derivative is zero almost everywhere.", op, _none)
        for op in ("trunc", "round", "floordiv", "lt", "eq", "and", "or", "xor", "shl", "shr", "threefry")
    ],
)  # fmt: skip
RULES: dict[str, Derivative] = {d.op: d for d in _TABLE}
FAN_OUT = ("d-fan-out", "A value that is used twice gets the sum of both gradients.")
SEED = ("d-seed", "The derivative of the loss with respect to itself is 1.")


class GradientError(RuntimeError):
    """There is no gradient, and why."""


def _order(loss: Node, through: Through | None) -> tuple[list[Node], dict[Node, Node]]:
    """Nodes under the loss, operands first; computed values that are followed further -> the node that they came from."""
    order: list[Node] = []
    origin: dict[Node, Node] = {}
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(loss, False)]
    while stack:
        n, done = stack.pop()
        if done:
            order.append(n)
        elif n not in seen:
            seen.add(n)
            stack.append((n, True))
            below = n.src
            if n.op == "buffer" and through is not None:
                past = through(n)
                if past is not None:
                    origin[n] = past
                    below = (past,)
            stack += [(s, False) for s in reversed(below) if s not in seen]
    return order, origin


def gradient(loss: Node, wrt: Sequence[Node], seed: Node | None = None, through: Through | None = None) -> list[Node | None]:
    """The gradients of the sum of `loss` times `seed` (default: ones; shape and dtype of the loss) with respect to each of `wrt`.

    Each result has the shape and dtype of its node, or is None where the loss does not depend on it or its influence is zero
    everywhere (comparisons, rounding, detach). `through` leads from a computed value back to its history. Raises GradientError
    when the loss is not a float, or when an op on the way has no derivative rule."""
    if not loss.dtype.is_float:
        raise GradientError(f"gradients need a float loss, not {loss.dtype}{list(loss.shape)}\n  at {user_line()}")
    watching, began = hooks.watching, time.perf_counter()
    if watching:
        hooks.publish(hooks.StageStarted("differentiate", Graph([loss])))
    order, past = _order(loss, through)
    targets = set(wrt)
    needed: set[Node] = set()
    for n in order:
        if n in targets or (n in past and past[n] in needed) or any([s in needed for s in n.src]):
            needed.add(n)
    grads: dict[Node, Node] = {}
    if loss in needed:
        grads[loss] = seed if seed is not None else record.const(1.0, loss.dtype, loss.shape, _tie(loss, SEED[0]))
    applications = _applications(order)
    for n in reversed(order):
        if n.op == "function":
            results = applications[n.arg.call, n.src]
            if n is results[0] and n in needed:  # the others came before: their gradients are whole
                for s, mine in _own_rule(n, results, grads, needed):
                    _add(grads, s, mine)
            continue
        if n not in grads or n not in needed:
            continue
        g = grads[n]
        if n in past:
            _add(grads, past[n], g)
            continue
        if not n.src:
            continue
        rule = RULES.get(n.op)
        if rule is None:
            raise GradientError(
                f"{n.op} has no derivative rule, and the loss depends on it\n  at {n.origin[0] if n.origin else user_line()}"
            )
        o = _tie(n, rule.name)
        for i, s in enumerate(n.src):
            if s in needed:
                d = rule.build(n, g, i, o)
                if d is not None:
                    _add(grads, s, d)
    out = [grads.get(w) for w in wrt]
    if watching:
        result = Graph([loss, *[g for g in out if g is not None]])
        hooks.publish(hooks.StageFinished("differentiate", loss, result, time.perf_counter() - began))
    return out


def _applications(order: Sequence[Node]) -> dict[object, list[Node]]:
    """The results of each application of a user's function, in this order."""
    out: dict[object, list[Node]] = {}
    for n in order:
        if n.op == "function":
            out.setdefault((n.arg.call, n.src), []).append(n)
    return out


def _own_rule(n: Node, results: Sequence[Node], grads: Mapping[Node, Node], needed: set[Node]) -> list[tuple[Node, Node]]:
    """(operand, gradient) pairs by the backward that came with a user's function; none where no result has a gradient."""
    given: dict[int, Node] = {}
    for r in results:
        if r in grads:
            known = given.get(r.arg.index)
            given[r.arg.index] = grads[r] if known is None else record.binary("add", known, grads[r], _tie(r, FAN_OUT[0]))
    pairs: list[tuple[Node, Node]] = n.arg.call.backward(n, given, needed) if given else []
    return [(s, d) for s, d in pairs if s in needed]


def _add(grads: dict[Node, Node], n: Node, g: Node) -> None:
    old = grads.get(n)
    grads[n] = g if old is None else record.binary("add", old, g, _tie(n, FAN_OUT[0]))


def _tie(forward: Node, rule: str) -> Where:
    """The origin of a backward node: the lines and module of its forward node."""
    f = forward.origin[0] if forward.origin else Origin((), "", "forward")
    return (Origin(f.frames, f.module, "backward", forward, rule),)


def ends(n: Node) -> bool:
    """Whether no gradient flows through this op to any operand."""
    rule = RULES.get(n.op)
    return rule is not None and (rule.build is _none or (n.op == "cast" and not (n.dtype.is_float and n.src[0].dtype.is_float)))


def reason(rule: str) -> str:
    """The derivation behind `Origin.derivative`."""
    known = {d.name: d.reason for d in _TABLE} | dict((FAN_OUT, SEED))
    return known.get(rule) or f"the backward of {rule.removeprefix('d-')}, as its author wrote it"


def explain(g: Graph) -> str:
    """Each backward node with its rule, the reason, and the forward node's line."""
    lines = []
    for i, n in enumerate(g.nodes):
        o = n.origin[0] if n.origin else None
        if o is not None and o.derivative:
            lines.append(f"%{i} {n.op}: {o.derivative} of {o.forward.op if o.forward else '?'} at {o}: {reason(o.derivative)}")
    return "\n".join(lines)


__all__ = ["RULES", "SPEC", "Derivative", "GradientError", "explain", "gradient", "reason"]
