"""A kernel as OpenCL C functions, and several kernels as one program text.

A kernel is one function per part (see `emit.split`). Work-items share the iterations of its parallel loops, and any number of
them is right: each takes a run of neighbouring iterations where work-items are threads, else every n-th. Local buffers are
private memory up to PRIVATE_BYTES in all; larger ones are a slice of `scratch` in global memory per work-item, so that no limit
of a device applies and the launcher bounds how many work-items there are. Kernels with parallel loops inside the parallel one
are written by opencl_groups on devices with groups.

`#line N` in front of a function's lines says that what follows does line N of the kernel's text (`loopnest.kernel_lines`, from
1), as debug information does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tinyengine import dtypes
from tinyengine.backends import opencl_ops as ops
from tinyengine.backends.moves import Moves
from tinyengine.backends.opencl_groups import GroupWriter
from tinyengine.backends.opencl_ops import Helpers
from tinyengine.backends.opencl_source import Writer
from tinyengine.backends.opencl_values import Line, NotRegister, identifier
from tinyengine.loopnest import Accumulate, Alloc, Check, Expr, Kernel, Stmt, Store, stmt_exprs, walk
from tinyengine.stages.arithmetic import affine as af
from tinyengine.stages.arithmetic.expand import Expander
from tinyengine.stages.emit import Code, Part, accesses, line_numbers, scratch_bytes
from tinyengine.stages.primitives.groups import grid, grid_of, outermost

PRIVATE_BYTES = 16 << 10
PRAGMA = "#pragma OPENCL FP_CONTRACT OFF"
DOUBLES = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable"


@dataclass(frozen=True, slots=True)
class Function:
    """One part. `params`: positions of the kernel's parameters that it takes, in order; then the status word (`guarded`), the
    number of the kernel's first message (`checks`), and scratch if `scratch_bytes`, per work-item, or `group_scratch`, per group,
    is not 0. `trips`: groups, or iterations for work-items without groups. `work`: estimated cycles of all of it on one core of a
    CPU. `items`: for how many work-items of a group there are iterations; 0 for a function without groups. `local_bytes`: per
    group; `barriers`: in the text; `moves`: how it loads and stores."""

    name: str
    part: Part
    params: tuple[int, ...]
    checks: bool
    guarded: bool
    scratch_bytes: int
    lines: tuple[Line, ...]
    trips: int
    work: float
    items: int = 0
    local_bytes: int = 0
    group_scratch: int = 0
    barriers: int = 0
    moves: Moves = field(default_factory=Moves)


@dataclass(frozen=True, slots=True)
class Source:
    """The functions of one kernel and the helpers that they call."""

    code: Code
    functions: tuple[Function, ...]
    helpers: Helpers
    doubles: bool

    def text(self) -> str:
        return program_text([self])


def program_text(sources: Sequence[Source]) -> str:
    """One translation unit."""
    helpers = Helpers()
    for s in sources:
        helpers |= s.helpers
    out = [PRAGMA] + ([DOUBLES] if any(s.doubles for s in sources) else [])
    out += ["", *(text + "\n" for text in helpers.values())]
    for s in sources:
        for f in s.functions:
            at = 0
            for line in f.lines:
                if line.number and line.number != at:
                    at = line.number
                    out.append(f"#line {at}")
                out.append(line.text)
            out.append("")
    return "\n".join(out)


def uses_doubles(kernel: Kernel, lower: Expander) -> bool:
    """Whether a device without float64 cannot run it."""
    if any(p.dtype is dtypes.float64 for p in kernel.params):
        return True
    seen: set[Expr] = set()
    for s in walk(kernel.body):
        if isinstance(s, Alloc) and s.buf.dtype is dtypes.float64:
            return True
        for root in stmt_exprs(s):
            for e in af.order(lower(root), seen):
                seen.add(e)
                if e.dtype is dtypes.float64:
                    return True
    return False


def source(code: Code, name: str, lower: Expander, guarded: bool, local_bytes: int | None = None) -> Source:
    """`name` is that of the first function. `guarded`: return at once when the status word is set, be it by a failed Check or by
    an interrupt: nothing is written in place after either. `local_bytes`: of local memory that a group may take; None where
    work-items of a group bring nothing."""
    helpers = Helpers()
    numbers = line_numbers(code.kernel)
    names = [name if i == 0 else f"{name}_{i + 1}" for i in range(len(code.parts))]
    functions = []

    def writer(part: Part, in_memory: frozenset[str]) -> Writer:
        if local_bytes is None or all(grid(s) is None for s in part.loops):
            return Writer(helpers, lower, numbers, in_memory)
        return GroupWriter(helpers, lower, numbers, in_memory, local_bytes, code.aliases)

    for part, n, cycles in zip(code.parts, names, code.work, strict=True):
        functions.append(_function(code, part, n, writer, guarded, cycles, local_bytes is None))
    return Source(code, tuple(functions), helpers, uses_doubles(code.kernel, lower))


def _function(
    code: Code, part: Part, name: str, writer: Callable[[Part, frozenset[str]], Writer], guarded: bool, cycles: float, runs: bool
) -> Function:
    """Register buffers that turn out not to be registers are tried again as arrays."""
    widths: dict[str, set[int]] = {}
    for buf, lanes in accesses(part.body):
        if buf.space == "register":
            widths.setdefault(buf.name, set()).add(lanes)
    in_memory = frozenset(n for n, w in widths.items() if len(w) > 1)
    while True:
        w = writer(part, in_memory)
        w.widths = {n: min(x) for n, x in widths.items()}
        try:
            return _try_function(code, part, name, w, guarded, cycles, runs)
        except NotRegister as e:
            assert e.name not in in_memory, e.name
            in_memory |= {e.name}


def _try_function(code: Code, part: Part, name: str, w: Writer, guarded: bool, cycles: float, runs: bool) -> Function:
    """`runs`: each work-item takes a run of neighbouring iterations."""
    body, kernel = part.body, code.kernel
    used = {buf.name for buf, _ in accesses(part.body)}
    params = tuple(i for i, p in enumerate(kernel.params) if p.name in used)
    written = {code.aliases.get(s.buf.name, s.buf.name) for s in walk(body) if isinstance(s, (Store, Accumulate))}
    signature = []
    for i in params:
        p = kernel.params[i]
        shared = code.aliases.get(p.name, p.name)
        alone = sum(code.aliases.get(kernel.params[j].name, kernel.params[j].name) == shared for j in params) == 1
        text = w.fresh(p.name)
        w.places[p.name] = (text, "global")
        const = "" if shared in written else "const "
        signature.append(f"global {const}{ops.MEMORY[p.dtype.name]}* {'restrict ' if alone else ''}{text}")
    w.messages = code.messages
    private: list[Sequence[Stmt]] = [body]  # each by itself on a work-item
    if isinstance(w, GroupWriter):
        private = [s.body for loop in part.loops for s in outermost(grid_of(loop).body)]
    w.in_scratch = max(map(scratch_bytes, private), default=0) > PRIVATE_BYTES
    w.summands, w.needed = uses_of_names(body)
    checks = _has_checks(part)
    if guarded:
        signature.append("global int* restrict status")
        if isinstance(w, GroupWriter):
            w.guard()
        else:
            w.put("if (*status) return;")
    if checks:
        signature.append("int first")
    start = len(w.lines)
    if isinstance(w, GroupWriter):
        w.block(tuple(s for s in body if not any(s is t for t in part.loops)))
        w.grids(part.loops)
    elif part.loops:
        w.block(tuple(s for s in body if not any(s is t for t in part.loops)))
        _shared(w, part, runs and all(s.limit is s.first is None for s in part.loops))
    else:
        w.block(body)
    if w.scratch_bytes or (isinstance(w, GroupWriter) and w.group_scratch):
        signature.append("global uchar* restrict scratch")
    opening = Line(f"kernel void {name}({', '.join(signature)}) {{", 1)
    if isinstance(w, GroupWriter):
        lines = (opening, *w.header(), *w.lines, Line("}", 1))
        trips = sum(grid_of(s).trips for s in part.loops)
        sizes = (w.scratch_bytes, lines, trips, cycles, w.items, w.local_bytes, w.group_scratch, w.barriers, w.moves)
        return Function(name, part, params, checks, guarded, *sizes)
    mine = f"  global uchar* mine = scratch + get_global_id(0) * {w.scratch_bytes};"
    head = [Line(mine, 1)] if w.scratch_bytes else []
    lines = (opening, *w.lines[:start], *head, *w.lines[start:], Line("}", 1))
    return Function(name, part, params, checks, guarded, w.scratch_bytes, lines, part.trips, cycles, moves=w.moves)


def _shared(w: Writer, part: Part, runs: bool) -> None:
    """The iterations of all loops, counted one after the other: a run of them for each work-item, so that a thread keeps to its
    part of memory, or every n-th. Where a loop ends is known only when it runs, if sizes are symbolic: then every n-th."""
    size, done = "(long)get_global_size(0)", 0
    w.number = w.numbers.get(id(part.loops[0]), 0)
    if runs:
        w.put(f"const long share = ({part.trips} + {size} - 1) / {size};")
        w.put(f"const long begin = (long)get_global_id(0) * share, end = min((long){part.trips}, begin + share);")
    for loop in part.loops:
        w.number = w.numbers.get(id(loop), 0)
        plus, times = (f"{loop.start} + " if loop.start else ""), (f" * {loop.step}" if loop.step != 1 else "")
        if runs:
            first, last = (f"max(begin - {done}, 0L)", f"end - {done}") if done else ("begin", "end")
            last = f"min({last}, (long){loop.trips})" if len(part.loops) > 1 else last
            w.counted(loop, f"{plus}{first}{times}", str(loop.step), end=f"{plus}{last}{times}")
        else:
            first = f"((long)get_global_id(0) + {size} - {done} % {size}) % {size}" if done else "(long)get_global_id(0)"
            w.counted(loop, f"{plus}{first}{times}", f"{size}{times}")
        done += loop.trips


def _has_checks(part: Part) -> bool:
    return any(isinstance(s, Check) for s in walk(part.body))


def uses_of_names(body: Iterable[Stmt]) -> tuple[frozenset[str], frozenset[str]]:
    """(names that are added to something as they are, names that are used in any other way)."""
    summands: set[str] = set()
    needed: set[str] = set()
    seen: set[Expr] = set()
    for s in walk(tuple(body)):
        roots = stmt_exprs(s)
        if isinstance(s, Accumulate) and s.op == "add" and s.value.op == "name":
            summands.add(s.value.arg)
            roots = tuple(r for r in roots if r is not s.value)
        for root in roots:
            for e in af.order(root, seen):
                if e.op == "name":
                    needed.add(e.arg)
                else:
                    seen.add(e)
    return frozenset(summands), frozenset(needed)


__all__ = ["Function", "Source", "identifier", "program_text", "source", "uses_doubles"]
