"""The schedule primitives: Kernel → Kernel, each with a text form that a person can read, type, save and replay.

    tile(i, 32)             for i in 0..100 → for io in 0..96 step 32: for ii in 0..32 (and a static tail: io in 96..100)
    split(j, 1024)          for j in 0..2048 → for j in 0..1024 and for j in 1024..2048, each without the masks that it settles
    phases(i, 2)            for i in 0..100 → for io in 0..50: for ip in 0..2, i = 2 * io + ip: no divisions of i by 2
    reorder(j, i)           another order of nested loops; reorder(k, i, j) with a reduction k inside makes the register tile
    vectorize(j, 16)        the iterations as lanes of vectors
    unroll(k) unroll(k, 4)  no loop in the machine code; or only of every 4 iterations
    parallel(i)             iterations on several cores; of a loop inside: on the work-items of a group, where there are groups
    pack(w, at=jo)          a contiguous local copy of what the loop touches; pack(w, at=jo, axes=(1, 0)) transposes;
                            pack(w, at=jo, of=j) only what the reads that move with j touch; pack(x, at=jo, by=(k, j)) an axis
                            for each of these loops: windows beside each other (im2col); pack(w, at=jo, dtype=float32)
                            converted once, not at each read
    unpack(out, at=mo)      the counterpart: results into a local tile first, then to their places
    partial(acc, at=k)      sum up in registers inside a loop, add to the accumulator once
    spill(acc, at=i)        finished sums leave the registers, so that what follows is a loop and not written out for each
    accumulate(k, 4)        independent accumulators; accumulate(k, 64, memory=local) in local memory, joined by a tree
    dot(k)                  pairs of bfloat16 products by the machine's dot product
    fission(i, c)           the loop c inside i and what stands before and after it in loops of their own: i, i_1, i_2
    merge(i, j)             one loop over a flattened view
    streaming(out)          stores that go past the caches
    clip(r)                 no iterations whose terms a mask makes 0: for r in 0..min(256, i + 1)
    prefetch(x, i, at=j)    hints to fetch what the next iteration of i needs, while j runs

A primitive applies to every loop of that name: a tail has the names of its main part, and so gets the same schedule.
Each one raises ScheduleError, in words, when it does not apply or would change the meaning. Reductions may be reassociated;
nothing else changes.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tinyengine import index
from tinyengine.dependence import accesses, apart, carried, inner_variables
from tinyengine.loopnest import Alloc, Expr, Kernel, Let, Loop, Stmt, Store, name, var, walk
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.clip import clip
from tinyengine.stages.primitives.dot import dot
from tinyengine.stages.primitives.fission import fission
from tinyengine.stages.primitives.groups import parted
from tinyengine.stages.primitives.nest import (
    Body,
    Path,
    ScheduleError,
    at,
    closure,
    limits,
    listing,
    loops,
    rewrite,
    sinkable,
    substitution,
    tidy,
    used_buffers,
    used_names,
    written,
)
from tinyengine.stages.primitives.pack import pack
from tinyengine.stages.primitives.partial import partial
from tinyengine.stages.primitives.phases import phases
from tinyengine.stages.primitives.prefetch import prefetch
from tinyengine.stages.primitives.reorder import merge, reorder
from tinyengine.stages.primitives.scan import scan
from tinyengine.stages.primitives.spill import spill
from tinyengine.stages.primitives.unpack import unpack
from tinyengine.stages.primitives.vectorize import accumulate, vectorize


def tile(kernel: Kernel, loop: str, size: int, inner: str = "i") -> Kernel:
    """for i in 0..100: S(i) → for io in 0..96 step 32: for ii in 0..32: S(io + ii)
                                for io in 96..100 step 32: for ii in 0..4: S(96 + ii)

    Always legal. `size` counts iterations; the inner loop has step 1."""
    if size < 1:
        raise ScheduleError(f"tile({loop}, {size}): the size must be at least 1")
    names = {s.name for s in loops(kernel.body)}
    taken = names & {loop + "o", loop + inner}
    if taken and loop in names:
        raise ScheduleError(f"tile({loop}, {size}): a loop {', '.join(sorted(taken))} exists already")

    def change(s: Loop, path: Path) -> list[Loop]:
        main = s.start + s.trips // size * size * s.step
        out: list[Loop] = []
        for start, stop, n in ((s.start, main, size), (main, s.stop, s.trips % size)):
            if start >= stop or n == 0:
                continue
            span = size * s.step
            count = max(1, -(-(stop - start) // span))
            outer = var(loop + "o", start, start + (count - 1) * span)
            base = outer if count > 1 else constant(start)
            part = var(loop + inner, 0, n - 1)
            body = rewrite(s.body, substitution({s.var: index.add(base, index.mul(part, s.step))}))
            rest = None if s.limit is None or s.step != 1 else index.sub(s.limit, base)
            below = Loop(part, 0, n, 1, body, "serial" if s.kind == "parallel" else s.kind, s.reduce, s.nodes, rest)
            out.append(Loop(outer, start, stop, span, (below,), s.kind, s.reduce, s.nodes, s.limit))
        return out

    return at(kernel, loop, change)


def split(kernel: Kernel, loop: str, where: int) -> Kernel:
    """for j in 0..100: S(j)  →  for j in 0..40: S(j); for j in 40..100: S(j)     (`split(j, 40)`)

    Conditions that hold, or fail, in a whole part vanish there, with the values that are constants then. Always legal; `where`
    must be a value that j takes."""

    def change(s: Loop, path: Path) -> list[Loop] | None:
        if not s.start < where < s.stop or (where - s.start) % s.step:
            return None
        out: list[Loop] = []
        for start, stop in ((s.start, where), (where, s.stop)):
            part = var(loop, start, start + (-(-(stop - start) // s.step) - 1) * s.step)
            body = rewrite(s.body, substitution({s.var: part if part.arg[1] < part.arg[2] else constant(start)}))
            out.append(replace(s, var=part, start=start, stop=stop, body=_spelled_out(body, {})))
        return out

    return at(kernel, loop, change, f"split({loop}, {where}): {loop} never has the value {where} after its first iteration")


def _spelled_out(body: Body, known: dict[Expr, Expr]) -> Body:
    """Constants in place of the names of values that are constants. `known`: name -> constant, from the blocks around."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, Loop):
            out.append(replace(s, body=_spelled_out(s.body, dict(known))))
            continue
        for x in rewrite((s,), substitution(known)):
            if isinstance(x, Let) and x.value.op == "const":
                known[name(x.name, x.value.dtype, x.value.lanes)] = x.value
            else:
                out.append(x)
    return tuple(out)


def unroll(kernel: Kernel, loop: str, size: int | None = None) -> Kernel:
    """for k in 0..8: S(k) → unroll k in 0..8: S(k); with a size: for ko in 0..8 step 4: unroll ki in 0..4: S(ko + ki).

    Always legal."""
    if size is not None:
        kernel, loop = tile(kernel, loop, size), loop + "i"
    return at(kernel, loop, lambda s, path: [replace(s, kind="unroll")])


def parallel(kernel: Kernel, loop: str) -> Kernel:
    """for i: S → parallel i: S; the loop's own tail is shared in the same way, beside it. Other statements of the outermost
    level run before them, on one thread, and what follows and touches the same elements after them. Of a loop inside a parallel
    one: each iteration of that one is a work-group, whose work-items share the iterations of this one (see `primitives.groups`).

    Illegal inside a serial outermost loop, or where iterations depend on each other, on memory that the outermost level
    allocates, or, inside, on registers of the group."""
    text = f"parallel({loop})"
    top = [s for s in kernel.body if isinstance(s, Loop) and s.name == loop]
    if not top:
        if not any(s.name == loop for s in loops(kernel.body)):
            raise ScheduleError(f"{text}: no loop is called {loop!r}; {listing(kernel)}")
        return _work_items(kernel, loop, text)
    if kernel.parallel is not None:
        raise ScheduleError(f"{text}: {kernel.parallel.name} is parallel already")
    main = max(top, key=lambda s: s.trips)
    lets = [s for s in kernel.body if isinstance(s, Let)]
    allocated = {s.buf for s in kernel.body if isinstance(s, Alloc)}

    def sunk(s: Loop) -> Loop:
        """The loop with the values of the outermost level that it needs, on the threads."""
        own = closure(used_names((s,)), lets)
        why = carried(s) or sinkable(own, s.body)
        memory = allocated & (used_buffers((s,)) | used_buffers(own))
        if why or memory:
            raise ScheduleError(f"{text} is not legal: {why or ', '.join(b.name for b in memory) + ' is memory of one thread'}")
        return replace(s, kind="parallel", body=(*own, *s.body))

    shared, moved = [sunk(main)], [main]
    for s in top:
        if s is not main and not any(_clash(x, s) for x in moved):
            with contextlib.suppress(ScheduleError):
                shared.append(sunk(s))
                moved.append(s)
    before: list[Stmt] = []
    behind: list[Stmt] = []
    seen: list[Stmt] = []  # loops that are shared and what stays behind them
    for stmt in kernel.body:
        mine = any(stmt is x for x in moved)
        clash = next((c for x in (behind if mine else seen) if (c := _clash(x, stmt))), "")
        if clash and (mine or isinstance(stmt, Let)):
            raise ScheduleError(f"{text} is not legal: what follows {loop} touches the same elements of {clash}")
        if mine or clash:
            seen.append(stmt)
        if not mine:
            (behind if clash else before).append(stmt)
    needed = closure(used_names(x for x in (*before, *behind) if not isinstance(x, Let)), lets)
    before = [x for x in before if not isinstance(x, Let) or x in needed]
    return replace(kernel, body=(*before, *shared, *behind))


def _work_items(kernel: Kernel, loop: str, text: str) -> Kernel:
    """The iterations of a loop inside a parallel one, shared by the work-items of a group."""

    def change(s: Loop, path: Path) -> list[Loop] | None:
        if not path or path[0].kind != "parallel":
            return None
        why = carried(s) if s.kind == "serial" else f"{loop} is {'parallel already' if s.kind == 'parallel' else 'unrolled'}"
        own = {x.buf for x in walk(s.body) if isinstance(x, Alloc)}
        kept = [b.name for b in written(s.body) - own if b.space == "register"]
        if kept and not why and s.trips == 1:
            return [s]  # every work-item does it, on its own registers
        if why or kept:
            raise ScheduleError(f"{text} is not legal: {why or f'each work-item would have {kept[0]} of its own'}")
        return [replace(s, kind="parallel")]

    kernel = at(kernel, loop, change, f"{text}: {loop} stands inside another loop")
    for s in kernel.body:
        why = parted(s) if isinstance(s, Loop) and s.kind == "parallel" else ""
        if why:
            raise ScheduleError(f"{text} is not legal: {why}")
    return kernel


def _clash(a: Stmt, b: Stmt) -> str:
    """The name of a buffer of which `a` and `b` may touch the same element, one of them writing; empty when there is none."""
    once = Loop(var("", 0, 1), 0, 2, 1, (a, b))
    inner = inner_variables(once)
    own = {s.buf for s in walk((a, b)) if isinstance(s, Alloc)}
    for x in accesses((a,)):
        for y in accesses((b,)):
            if x.buf == y.buf and x.buf not in own and not (x.op == y.op == "read") and not apart(once, x, y, inner):
                return x.buf.name
    return ""


def streaming(kernel: Kernel, buf: str) -> Kernel:
    """out[i] = v → out[i] = v (stream): for results far larger than the caches. Masked stores stay as they are.

    Illegal where the kernel reads `out`."""
    text, found = f"streaming({buf})", 0
    if any(a.buf.name == buf and a.op != "write" for a in accesses(kernel.body)):
        raise ScheduleError(f"{text} is not legal: the kernel reads {buf} too")

    def visit(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        nonlocal found
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                s = replace(s, body=visit(s.body))
            elif isinstance(s, Store) and s.buf.name == buf and s.buf.space == "global" and s.mask is None:
                found += 1
                s = replace(s, hint="stream")
            out.append(s)
        return tuple(out)

    body = visit(kernel.body)
    if not found:
        raise ScheduleError(f"{text}: no unmasked store goes to {buf}")
    return replace(kernel, body=body)


# ---- text form


@dataclass(frozen=True, slots=True)
class Primitive:
    """A named primitive with its arguments; `str()` is its text form, which `parse` reads."""

    name: str
    args: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join([*map(str, self.args), *(f'{k}={_text(v)}' for k, v in self.options)])})"

    __repr__ = __str__


def _text(value: Any) -> str:
    """Of an option; names stand without quotes."""
    return str(value).replace("'", "") if isinstance(value, tuple) else str(value)


def pack_of(
    kernel: Kernel, buf: str, at: str, axes: tuple[int, ...] | None = None, of: str | None = None,
    by: tuple[str, ...] | None = None, dtype: str | None = None,
) -> Kernel:  # fmt: skip
    return pack(kernel, buf, at, axes, of, by, dtype)


# name -> (function, kinds of the positional arguments ('name', 'int', '*name'), how many must be there, options by keyword)
TABLE: dict[str, tuple[Callable[..., Kernel], tuple[str, ...], int, dict[str, str]]] = {
    "tile": (tile, ("name", "int"), 2, {}),
    "split": (split, ("name", "int"), 2, {}),
    "reorder": (reorder, ("*name",), 2, {"memory": "name"}),
    "phases": (phases, ("name", "int"), 2, {}),
    "fission": (fission, ("*name",), 2, {}),
    "merge": (merge, ("*name",), 2, {}),
    "vectorize": (vectorize, ("name", "int"), 2, {}),
    "scan": (scan, ("name", "int"), 2, {}),
    "unroll": (unroll, ("name", "int"), 1, {}),
    "parallel": (parallel, ("name",), 1, {}),
    "dot": (dot, ("name",), 1, {}),
    "accumulate": (accumulate, ("name", "int"), 2, {"memory": "name"}),
    "clip": (clip, ("name",), 1, {}),
    "streaming": (streaming, ("name",), 1, {}),
    "pack": (pack_of, ("name",), 1, {"at": "name", "axes": "axes", "of": "name", "by": "names", "dtype": "name"}),
    "partial": (lambda k, b, at: partial(k, b, at), ("name",), 1, {"at": "name"}),
    "spill": (lambda k, b, at: spill(k, b, at), ("name",), 1, {"at": "name"}),
    "unpack": (lambda k, b, at, axes=None: unpack(k, b, at, axes), ("name",), 1, {"at": "name", "axes": "axes"}),
    "prefetch": (lambda k, b, i, at: prefetch(k, b, i, at), ("name", "name"), 2, {"at": "name"}),
}


_PLAIN = re.compile(r"(\w+)\((\w+(?:, \w+)*)\)")


def parse(text: str | Iterable[str | Primitive]) -> list[Primitive]:
    """Primitives from text, one per line (or separated by ';'); `#` begins a comment. Raises ScheduleError with the line."""
    lines: list[str | Primitive] = []
    for part in [text] if isinstance(text, str) else text:
        lines += [part] if isinstance(part, Primitive) else [x for row in part.split("\n") for x in row.split("#")[0].split(";")]
    return [x if isinstance(x, Primitive) else _parse_one(x.strip()) for x in lines if isinstance(x, Primitive) or x.strip()]


@lru_cache(maxsize=10_000)
def _parse_one(line: str) -> Primitive:
    plain = _PLAIN.fullmatch(line)  # the common form, without Python's parser
    if plain is not None and plain[1] in TABLE and "at" not in TABLE[plain[1]][3]:
        _, kinds, least, _ = TABLE[plain[1]]
        words = plain[2].split(", ")
        of = [kinds[min(i, len(kinds) - 1)] for i in range(len(words))]
        count = least <= len(words) and (len(words) <= len(kinds) or of[0].startswith("*"))
        if count and all(w.isdigit() == (x == "int") for w, x in zip(words, of, strict=True)):
            return Primitive(plain[1], tuple(int(w) if x == "int" else w for w, x in zip(words, of, strict=True)))
    try:
        call = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError) as e:
        raise ScheduleError(f"{line!r} is not a schedule primitive: expected something like tile(i, 32)") from e
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ScheduleError(f"{line!r} is not a schedule primitive: expected something like tile(i, 32)")
    name = call.func.id
    if name not in TABLE:
        raise ScheduleError(f"{line!r}: unknown primitive {name!r}; known: {', '.join(TABLE)}")
    _, kinds, least, options = TABLE[name]
    if len(call.args) < least or (len(call.args) > len(kinds) and not kinds[0].startswith("*")):
        raise ScheduleError(f"{line!r}: {name} takes {least} arguments, got {len(call.args)}")
    args = tuple(_value(a, kinds[min(i, len(kinds) - 1)].lstrip("*"), line) for i, a in enumerate(call.args))
    given = []
    for k in call.keywords:
        if k.arg is None or k.arg not in options:
            known = f"; it has {', '.join(options)}" if options else ""
            raise ScheduleError(f"{line!r}: {name} has no option {k.arg!r}{known}")
        given.append((k.arg, _value(k.value, options[k.arg], line)))
    if "at" in options and "at" not in dict(given):
        raise ScheduleError(f"{line!r}: {name} needs at=LOOP")
    return Primitive(name, args, tuple(given))


def _value(node: ast.expr, kind: str, line: str) -> Any:
    if kind == "name" and isinstance(node, ast.Name):
        return node.id
    if kind == "int" and isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if kind == "axes" and isinstance(node, ast.Tuple):
        values = [e.value for e in node.elts if isinstance(e, ast.Constant) and type(e.value) is int]
        if len(values) == len(node.elts):
            return tuple(values)
    if kind == "names" and isinstance(node, ast.Tuple):
        names = [e.id for e in node.elts if isinstance(e, ast.Name)]
        if len(names) == len(node.elts):
            return tuple(names)
    expected = {
        "name": "the name of a loop or buffer", "int": "a whole number", "axes": "a tuple of axes such as (1, 0)",
        "names": "a tuple of loops such as (k, j)",
    }[kind]  # fmt: skip
    raise ScheduleError(f"{line!r}: expected {expected}, got {ast.unparse(node)!r}")


def apply_one(kernel: Kernel, p: Primitive) -> Kernel:
    return limits(TABLE[p.name][0](kernel, *p.args, **dict(p.options)))


def apply(kernel: Kernel, primitives: str | Iterable[str | Primitive]) -> Kernel:
    """The kernel after these primitives, in order, which `Kernel.schedule` tells. Raises ScheduleError at an illegal one."""
    for p in parse(primitives):
        kernel = replace(apply_one(kernel, p), schedule=(*kernel.schedule, str(p)))
    return tidy(kernel)


__all__ = ["TABLE", "Primitive", "ScheduleError", "apply", "apply_one", "parse"]
