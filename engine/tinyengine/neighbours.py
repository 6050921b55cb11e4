"""Schedules near a given one: each differs by one primitive (a tile size, a vector width, an unrolled loop, the parallel axis, an
order, a copy left out or added). All of them are legal: what is not is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tinyengine.choices import DEFAULT
from tinyengine.loopnest import Accumulate, Kernel, Loop, Stmt, stmt_exprs, subexprs, walk
from tinyengine.machine import Machine
from tinyengine.stages import schedule
from tinyengine.stages.primitives.apply import Primitive, apply, parse
from tinyengine.stages.primitives.nest import ScheduleError

MOST_CODE = 1500  # statements after unrolling: more compile for too long to be tried


@dataclass(frozen=True, slots=True)
class Neighbour:
    """`kernel`: scheduled; `origin`: what was changed."""

    kernel: Kernel
    origin: str


def neighbours(nest: Kernel, lines: tuple[str, ...], machine: Machine) -> Iterator[Neighbour]:
    """Every legal schedule of `nest` that differs from `lines` by one step, each once; and the engine's own at half the width."""
    seen = {_made(nest, lines)}
    found: list[tuple[list[str], str]] = list(_changed(nest, parse(lines), machine))
    width = max(1, machine.vector_bytes // schedule.widest(nest)) // 2
    if width > 1:
        half = schedule.run(nest, replace(DEFAULT, vector_width=width), machine)[0]
        found.append((list(map(str, half.schedule)), f"vectors of {width} lanes throughout"))
    for given, origin in found:
        kernel = _made(nest, tuple(given))
        if kernel is not None and kernel not in seen:
            seen.add(kernel)
            yield Neighbour(replace(kernel, schedule=tuple(given)), origin)


def _made(nest: Kernel, lines: tuple[str, ...]) -> Kernel | None:
    """The kernel, without the record of its schedule; None where the schedule is not legal or the code would be too long."""
    try:
        kernel = replace(apply(nest, lines), schedule=())
    except ScheduleError:
        return None
    return kernel if code(kernel.body) <= MOST_CODE else None


def code(body: tuple[Stmt, ...]) -> int:
    """Statements in the machine code: unrolled loops count once per iteration."""
    return sum((s.trips if s.kind == "unroll" else 1) * code(s.body) if isinstance(s, Loop) else 1 for s in body)


Change = tuple[list[str], str]


def _changed(nest: Kernel, now: list[Primitive], machine: Machine) -> Iterator[Change]:
    text = [str(p) for p in now]
    for i, p in enumerate(now):
        for q in _sizes(p, machine):
            yield [*text[:i], str(q), *text[i + 1 :]], f"{p} -> {q}"
    for i, p in enumerate(now):
        if p.name == "reorder":
            for k in range(len(p.args) - 1):
                q = replace(p, args=(*p.args[:k], p.args[k + 1], p.args[k], *p.args[k + 2 :]))
                yield [*text[:i], str(q), *text[i + 1 :]], f"{p} -> {q}"
        if p.name not in ("tile", "merge", "vectorize"):  # later lines speak of the loops that these make
            yield [t for k, t in enumerate(text) if k != i and not _follows(p, now[k])], f"without {p}"
    yield from _added(nest, now, text)


def _sizes(p: Primitive, machine: Machine) -> Iterator[Primitive]:
    if len(p.args) != 2 or not isinstance(p.args[1], int):
        return
    loop, n = p.args
    least = {"tile": 2, "vectorize": 2, "unroll": 2, "accumulate": 2}.get(p.name, n)
    most = 2 * machine.vector_bytes if p.name == "vectorize" else 1 << 20
    for m in dict.fromkeys((2 * n, n // 2, n + n // 2, n - 1 if p.name == "tile" and n < 16 else n, n + 1 if n < 16 else n)):
        if m != n and least <= m <= most and (p.name != "vectorize" or m & (m - 1) == 0):
            yield replace(p, args=(loop, m))


def _follows(removed: Primitive, p: Primitive) -> bool:
    """Whether `p` is about the loops or the memory that `removed` makes."""
    if removed.name not in ("pack", "unpack"):
        return False
    return any(re.fullmatch(rf"{re.escape(str(removed.args[0]))}_\w+", str(a)) for a in p.args)


def _added(nest: Kernel, now: list[Primitive], text: list[str]) -> Iterator[Change]:
    scheduled = apply(nest, text)
    names = {p.name for p in now}
    loops = [s for s in walk(scheduled.body) if isinstance(s, Loop) and s.kind == "serial" and s.trips > 1]
    inner = [s for s in loops if not any(isinstance(b, Loop) for b in s.body)]

    def end(line: str) -> Change:
        return [*text, line], f"with {line}"

    for name in dict.fromkeys(s.name for s in inner):
        for n in (2, 4):
            yield end(f"unroll({name}, {n})")
    for name in dict.fromkeys(s.name for s in inner if any(isinstance(b, Accumulate) for b in s.body)):
        if "accumulate" not in names:
            for n in (2, 4):
                yield end(f"accumulate({name}, {n})")
    if "parallel" not in names:
        for s in scheduled.body:
            if isinstance(s, Loop):
                yield end(f"parallel({s.name})")
    if "streaming" not in names:
        for name in scheduled.outputs:
            yield end(f"streaming({name})")
    read = {x.arg.name for s in walk(nest.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"}
    first = next((i for i, p in enumerate(now) if p.name == "vectorize"), len(now))
    packed = {p.args[0] for p in now if p.name == "pack"}
    reduces = any(isinstance(s, Accumulate) for s in walk(nest.body))
    for b in nest.params if reduces else ():
        if b.name in read and b.name not in packed and len(b.shape) > 1:
            for outer in dict.fromkeys(p.args[0] + "o" for p in now if p.name == "tile"):
                line = f"pack({b.name}, at={outer})"
                yield [*text[:first], line, *text[first:]], f"with {line}"
