"""Stage 8, emit: what does the machine get?

Input: the scheduled kernels of a Program. Output: for each distinct kernel the text of a function in LLVM IR, and what the
runtime must know to launch it (`Code`). Equal kernels (same structure under other names) share one function; `fingerprint`
decides what is equal, without generating any text, so that a warm start finds its object code in the disk cache before the
emitter has run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from tinyengine import units
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
    kernel_lines,
    load_index,
    stmt_exprs,
    walk,
)
from tinyengine.spec import Sentence
from tinyengine.stages.arithmetic.affine import order

QUESTION = "What does the machine get?"


@dataclass(frozen=True, slots=True)
class Part:
    """What one native call of a kernel does: some of the `trips` iterations of parallel loops (a loop and its tail, counted one
    after the other), in any order and on any thread, each call after the values that stand before the loops; or (no `loops`) a
    run of statements on one thread."""

    body: tuple[Stmt, ...]
    loops: tuple[Loop, ...] = ()

    @property
    def trips(self) -> int:
        return sum(s.trips for s in self.loops) if self.loops else 1


@dataclass(frozen=True, slots=True)
class Code:
    """A kernel ready to be emitted. `symbol`: its name in object code, equal for equal kernels; `aliases`: buffer -> the
    buffer that stands for all that share its memory; `messages[i]` belongs to status i + 1; `work`: estimated cycles of each
    part on one core; `moved`: by how many bytes the pointer of a parameter is moved on (see `arithmetic.displace`)."""

    kernel: Kernel
    symbol: str
    aliases: Mapping[str, str]
    parts: tuple[Part, ...]
    messages: tuple[str, ...]
    scratch_bytes: int
    work: tuple[float, ...]
    moved: Mapping[str, int] = field(default_factory=dict)

    def part_symbol(self, i: int) -> str:
        return self.symbol if i == 0 else f"{self.symbol}.{i}"


def prepare(kernel: Kernel, aliases: Mapping[str, str] | None = None, like: Kernel | None = None) -> Code:
    """Everything about a kernel but its text. `aliases` names parameters that may share memory (see `Code`); `like`: the kernel
    whose parallel loop has the work that counts, in place of its own."""
    aliases = dict(aliases or {})
    parts = split(kernel)
    symbol = "k_" + hashlib.sha256(fingerprint(kernel, aliases).encode()).hexdigest()[:24]
    messages = tuple(dict.fromkeys(s.message for s in walk(kernel.body) if isinstance(s, Check)))
    shared = next((work(p.body) for p in split(like) if p.loops), None) if like is not None else None
    cycles = tuple(work(p.body) if shared is None or not p.loops else shared for p in parts)
    return Code(kernel, symbol, aliases, parts, messages, scratch_bytes(kernel.body), cycles)


def split(kernel: Kernel) -> tuple[Part, ...]:
    """The parallel loops by themselves, and what stands before and after them on one thread. Values of the outermost level are
    computed again in each part. A kernel that keeps memory of its own there, or values of what it overwrites, is one part:
    neither can be shared between native calls."""
    top = kernel.body
    if not any(isinstance(s, Loop) and s.kind == "parallel" for s in top):
        return (Part(top),)
    lets = tuple(s for s in top if isinstance(s, Let))
    read = {x.arg.name for s in lets for x in order(s.value, set()) if x.op == "load"}
    if any(isinstance(s, Alloc) for s in top) or read & set(kernel.outputs):
        return (Part(top),)
    parts: list[Part] = []
    rest = (s for s in top if not isinstance(s, Let))
    for shared, group in groupby(rest, lambda s: isinstance(s, Loop) and s.kind == "parallel"):
        run = tuple(group)
        loops = tuple(s for s in run if isinstance(s, Loop) and s.trips) if shared else ()
        if loops or not shared:
            parts.append(Part((*lets, *(loops or run)), loops))
    return tuple(parts) or (Part(lets),)


def scratch_bytes(body: Iterable[Stmt]) -> int:
    """Bytes that the local buffers need at once: those of blocks that follow each other share the space."""
    held = most = 0
    for s in body:
        if isinstance(s, Alloc) and s.buf.space == "local":
            held += (s.buf.nbytes + 63) // 64 * 64
            most = max(most, held)
        elif isinstance(s, Loop):
            most = max(most, held + scratch_bytes(s.body))
    return most


_COST = {
    "exp": 8.0,
    "exp2": 6.0,
    "log": 12.0,
    "sin": 12.0,
    "tanh": 14.0,
    "erf": 20.0,
    "threefry": 100.0,
    "div": 5.0,
    "sqrt": 5.0,
    "reciprocal": 5.0,
    "floordiv": 10.0,
    "mod": 10.0,
}


def work(body: Iterable[Stmt]) -> float:
    """Estimated cycles on one core: half a cycle per vector operation, one per access. Only its order of magnitude matters: it
    decides whether waking another thread pays."""
    total = 0.0
    for s in body:
        if isinstance(s, Loop):
            total += s.trips * (work(s.body) + (1.0 if s.kind == "serial" else 0.0))
            continue
        seen: set[Expr] = set()
        for root in stmt_exprs(s):
            for e in order(root, seen):
                seen.add(e)
                if e.op == "load":
                    total += 1.0 if e.lanes == 1 or any(i.op in ("ramp", "add") for i in e.args) else float(e.lanes)
                elif e.op not in ("const", "var", "name", "ramp", "splat"):
                    total += _COST.get(e.op, 0.5)
        if isinstance(s, (Store, Accumulate)):
            total += 1.0 if isinstance(s, Store) or s.buf.space == "register" else 2.0
    return total


# ---- the structure of a kernel, without its names


def fingerprint(kernel: Kernel, aliases: Mapping[str, str]) -> str:
    """Text that is equal exactly for kernels that may share code: names of buffers, variables, values and the kernel do not
    count."""
    bufs: dict[str, int] = {}
    names: dict[str, int] = {}
    numbers: dict[Expr, int] = {}
    out: list[str] = []

    def name(text: str) -> int:
        return names.setdefault(text, len(names))

    def buffer(text: str) -> int:
        return bufs.setdefault(text, len(bufs))

    def expr(root: Expr) -> int:
        for e in order(root, numbers):
            if e.op == "load":
                arg = f"b{buffer(e.arg.name)}:{len(e.arg.shape)}" + (f":{e.arg.within}" if e.arg.within is not None else "")
            elif e.op == "var":
                arg = f"v{name(e.arg[0])}:{e.arg[1]}:{e.arg[2]}"
            elif e.op == "name":
                arg = f"v{name(e.arg)}"
            else:
                arg = "" if e.arg is None else repr(e.arg)
            numbers[e] = len(numbers)
            out.append(f"{e.op} {e.dtype.name} {e.lanes} {','.join([str(numbers[a]) for a in e.args])} {arg}")
        return numbers[root]

    def block(body: Iterable[Stmt]) -> None:
        for s in body:
            if isinstance(s, Loop):
                limit = "".join(f" {word} {expr(e)}" for word, e in (("to", s.limit), ("from", s.first)) if e is not None)
                out.append(f"loop v{name(s.name)}:{s.var.arg[1]}:{s.var.arg[2]} {s.start} {s.stop} {s.step} {s.kind}{limit}")
                block(s.body)
                out.append("end")
                continue
            roots = [expr(e) for e in stmt_exprs(s)]
            if isinstance(s, Alloc):
                head = f"alloc {buffer(s.buf.name)} {s.buf.dtype.name} {s.buf.shape} {s.buf.space} {s.init!r}"
            elif isinstance(s, Let):
                head = f"let v{name(s.name)}"
            elif isinstance(s, Store):
                head = f"store {buffer(s.buf.name)} {s.hint} {s.mask is not None}"
            elif isinstance(s, Accumulate):
                head = f"accumulate {buffer(s.buf.name)} {s.op} {s.mask is not None}"
            elif isinstance(s, Check):
                head = f"check {messages.setdefault(s.message, len(messages))}"
            else:
                assert isinstance(s, Prefetch)
                head = f"prefetch {buffer(s.buf.name)}"
            out.append(f"{head} {roots}")

    messages: dict[str, int] = {}
    for p in kernel.params:
        out.append(f"param {buffer(p.name)} {p.dtype.name} {p.shape} {bufs.get(aliases.get(p.name, p.name))}")
    block(kernel.body)
    return "\n".join(out)


def line_numbers(kernel: Kernel) -> dict[int, int]:
    """id of a statement -> its line in `loopnest.kernel_lines(kernel)`, counted from 1."""
    return {id(s): n for n, (_, s) in enumerate(kernel_lines(kernel), 1) if s is not None}


# ---- spec: what a kernel must satisfy to be emitted


def _outer_parallel(k: Kernel) -> Iterable[str]:
    for top in k.body:
        for s in walk(top.body) if isinstance(top, Loop) and top.kind != "parallel" else ():
            if isinstance(s, Loop) and s.kind == "parallel":
                yield f"{k.name}: loop {s.name}"


def _outputs_are_params(k: Kernel) -> Iterable[str]:
    params = {p.name for p in k.params}
    yield from (f"{k.name}: {o}" for o in k.outputs if o not in params)


def _writes_are_outputs(k: Kernel) -> Iterable[str]:
    for s in walk(k.body):
        if isinstance(s, (Store, Accumulate)) and s.buf.space == "global" and s.buf.name not in k.outputs:
            yield f"{k.name}: {s.buf.name}"


SPEC: list[Sentence] = [
    ("only an outermost loop, or one inside a parallel one, is parallel", _outer_parallel),
    ("every output is a parameter", _outputs_are_params),
    ("every global buffer that is written is an output", _writes_are_outputs),
]


def accesses(body: Iterable[Stmt]) -> Iterator[tuple[Buf, int]]:
    """(buffer, lanes) of every load, store and accumulation below."""
    seen: set[Expr] = set()
    for s in walk(tuple(body)):
        if isinstance(s, (Store, Accumulate)):
            yield s.buf, max([i.lanes for i in s.index] + [1])
        for root in s.ends if isinstance(s, Loop) else stmt_exprs(s):
            for e in order(root, seen):
                seen.add(e)
                if e.op == "load":
                    yield e.arg, max([i.lanes for i in load_index(e)] + [1])


def explain(code: Code) -> str:
    """The parts of a kernel, their trips and their estimated work, in words."""
    out = [f"{code.kernel.name} is {code.symbol}: {len(code.parts)} part(s), {code.scratch_bytes} bytes of scratch per thread"]
    for i, (p, cycles) in enumerate(zip(code.parts, code.work, strict=True)):
        how = f"parallel loop {p.loops[0].name} of {units.some(p.trips, 'iteration')}" if p.loops else "on one thread"
        out.append(f"  {code.part_symbol(i)}: {how}, about {cycles:.3g} cycles")
    return "\n".join(out)
