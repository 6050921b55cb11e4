"""What every loop nest must satisfy, scheduled or not: sentences with predicates for `spec.check`, which yield one text
per violation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinyengine import index
from tinyengine.dtypes import bool_
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Check,
    Expr,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Stmt,
    Store,
    load_index,
    load_mask,
    stmt_exprs,
    stmt_lines,
    subexprs,
)  # fmt: skip
from tinyengine.ops import ELEMENTWISE
from tinyengine.spec import Sentence
from tinyengine.stages.primitives.groups import parted


@dataclass(frozen=True)
class Scope:
    """What is known at a statement: loops around it, values and memory defined before it on its path."""

    loops: tuple[Loop, ...]
    values: dict[str, Expr]
    memory: frozenset[Buf]


def visit(k: Kernel) -> Iterator[tuple[Stmt, Scope]]:
    """Every statement with its scope, in order."""

    def block(body: tuple[Stmt, ...], scope: Scope) -> Iterator[tuple[Stmt, Scope]]:
        for s in body:
            yield s, scope
            if isinstance(s, Loop):
                yield from block(s.body, Scope((*scope.loops, s), scope.values, scope.memory))
            elif isinstance(s, Let):
                scope = Scope(scope.loops, {**scope.values, s.name: s.value}, scope.memory)
            elif isinstance(s, Alloc):
                scope = Scope(scope.loops, scope.values, scope.memory | {s.buf})

    yield from block(k.body, Scope((), {}, frozenset(k.params)))


def line(s: Stmt) -> str:
    return stmt_lines(s)[0][0].strip()


def touched(s: Stmt) -> Iterator[tuple[Buf, tuple[Expr, ...], Expr | None]]:
    """(buffer, index, mask) of every access of a statement; hints are none."""
    if isinstance(s, (Loop, Alloc, Prefetch)):
        return
    for e in stmt_exprs(s):
        for x in subexprs(e):
            if x.op == "load":
                yield x.arg, load_index(x), load_mask(x)
    if isinstance(s, (Store, Accumulate)):
        yield s.buf, s.index, s.mask


def _defined(k: Kernel) -> Iterator[str]:
    for s, scope in visit(k):
        around = {x.var for x in scope.loops}
        for e in s.ends if isinstance(s, Loop) else stmt_exprs(s):
            for x in subexprs(e):
                if x.op == "var" and x not in around:
                    yield f"{line(s)}: {x.arg[0]} is no loop around it"
                elif x.op == "name":
                    value = scope.values.get(x.arg)
                    if value is None:
                        yield f"{line(s)}: {x.arg} has no value here"
                    elif (value.dtype, value.lanes) != (x.dtype, x.lanes):
                        yield f"{line(s)}: {x.arg} is {value.dtype} of {value.lanes} lanes, used as {x.dtype} of {x.lanes}"
        for buf, _, _ in touched(s):
            if buf not in scope.memory:
                yield f"{line(s)}: {buf.name} is not memory of the kernel here"


def _once(k: Kernel) -> Iterator[str]:
    for s, scope in visit(k):
        if isinstance(s, Loop) and s.name in {x.name for x in scope.loops}:
            yield f"{line(s)}: a loop around it has this name"
        if isinstance(s, Let) and s.name in scope.values:
            yield f"{line(s)}: {s.name} has a value already"
        if isinstance(s, Alloc) and s.buf.name in {b.name for b in scope.memory}:
            yield f"{line(s)}: {s.buf.name} is memory already"


def _ranges(k: Kernel) -> Iterator[str]:
    for s, _ in visit(k):
        if isinstance(s, Loop):
            last = s.start + max(0, s.trips - 1) * s.step
            if s.step < 1 or s.var.arg[1:] != (s.start, max(last, s.start)):
                yield f"{line(s)}: the variable claims {s.var.arg[1]} to {s.var.arg[2]}"


def _masks(k: Kernel) -> Iterator[str]:
    for s, _ in visit(k):
        for buf, at, mask in touched(s):
            width = max([e.lanes for e in at], default=1)
            if mask is not None and (mask.dtype is not bool_ or (mask.lanes not in (1, width))):
                yield f"{line(s)}: the mask of {buf.name} is {mask.dtype} of {mask.lanes} lanes, the access has {width}"


def _lanes(k: Kernel) -> Iterator[str]:
    for s, _ in visit(k):
        for e in stmt_exprs(s):
            for x in subexprs(e):
                if x.op in ELEMENTWISE and any(a.lanes != x.lanes for a in x.args):
                    have = ", ".join(str(a.lanes) for a in x.args)
                    yield f"{line(s)}: the operands of {x.op} have {have} lanes, the result {x.lanes}"
        if isinstance(s, (Store, Accumulate)):
            width = max([e.lanes for e in s.index], default=1)
            if s.value.lanes != width:
                yield f"{line(s)}: {s.value.lanes} lanes go to {width} places"


def _types(k: Kernel) -> Iterator[str]:
    for s, _ in visit(k):
        if isinstance(s, (Store, Accumulate)) and s.value.dtype is not s.buf.dtype:
            yield f"{line(s)}: {s.value.dtype} into {s.buf.dtype}"
        if isinstance(s, Check) and s.condition.dtype is not bool_:
            yield f"{line(s)}: the condition is {s.condition.dtype}"


def _bounds(k: Kernel) -> Iterator[str]:
    for s, scope in visit(k):
        for buf, at, mask in touched(s):
            if mask is not None or index.proven(at, buf.shape, None):
                continue
            grid = {x.name: (x.start, x.step) for x in scope.loops}
            if not index.proven([index.stepped(e, grid) for e in at], buf.shape, None):
                yield f"{line(s)}: {buf.name}[{', '.join(map(str, at))}] in {list(buf.shape)}"


def _registers(k: Kernel) -> Iterator[str]:
    for s, scope in visit(k):
        free = {x.var for x in scope.loops if x.kind == "unroll"}
        for buf, at, _ in touched(s):
            if buf.space == "register" and any(
                x.op == "name" or (x.op == "var" and x not in free) for e in at for x in subexprs(e)
            ):
                yield f"{line(s)}: {buf.name}[{', '.join(map(str, at))}]"


def _ends(k: Kernel) -> Iterator[str]:
    for s, scope in visit(k):
        if isinstance(s, Loop) and s.kind == "unroll":
            free = {x.var for x in scope.loops if x.kind == "unroll"}
            for e in s.ends:
                if any(x.op in ("name", "load") or (x.op == "var" and x not in free) for x in subexprs(e)):
                    yield f"{line(s)}: {e}"


def _one_width(k: Kernel) -> Iterator[str]:
    widths: dict[str, int] = {}
    for s, _ in visit(k):
        for buf, at, _mask in touched(s):
            if buf.space == "register":
                width = max([e.lanes for e in at], default=1)
                if widths.setdefault(buf.name, width) != width:
                    yield f"{line(s)}: {buf.name} by {width} lanes, elsewhere by {widths[buf.name]}"


def _parallel(k: Kernel) -> Iterator[str]:
    for s, scope in visit(k):
        if isinstance(s, Loop) and s.kind == "parallel" and scope.loops and scope.loops[0].kind != "parallel":
            yield line(s)
    shared = [i for i, s in enumerate(k.body) if isinstance(s, Loop) and s.kind == "parallel"]
    names = {s.name for s in k.body if isinstance(s, Loop) and s.kind == "parallel"}
    if len(names) > 1:
        yield f"{k.name} has {', '.join(sorted(names))}"
    elif shared and shared[-1] - shared[0] >= len(shared):
        yield f"{k.name}: the parts of {names.pop()} are not beside each other"


def _items(k: Kernel) -> Iterator[str]:
    for s in k.body:
        why = parted(s) if isinstance(s, Loop) and s.kind == "parallel" else ""
        if why:
            yield why


def _outputs(k: Kernel) -> Iterator[str]:
    for s, _ in visit(k):
        if isinstance(s, (Store, Accumulate)) and s.buf.space == "global" and s.buf.name not in k.outputs:
            yield f"{line(s)}: {s.buf.name} is no output"


SPEC: list[Sentence] = [
    ("every variable, value and buffer is defined before it is used", _defined),
    ("on each path from the root a name is defined once", _once),
    ("a loop variable's bounds are those of its loop", _ranges),
    ("a mask is bool and has one lane or those of its access", _masks),
    ("operands, results and places have equal lanes", _lanes),
    ("what is stored has the dtype of its buffer", _types),
    ("an access without a mask is in bounds by intervals", _bounds),
    ("every global buffer that is written is an output", _outputs),
]

SCHEDULED: list[Sentence] = [
    *SPEC,
    ("the index of a register is constant once loops are unrolled", _registers),
    ("the ends of an unrolled loop are numbers once the loops around it are unrolled", _ends),
    ("a register buffer is accessed by one number of lanes", _one_width),
    ("only one loop of the outermost level, with its tail beside it, is parallel", _parallel),
    ("work-items of a group share no loop where each goes its own way", _items),
]
