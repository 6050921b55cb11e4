"""Modules of LLVM IR text: functions of kernels, entries for the runtime, and debug locations that are kernel-IR lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinyengine.backends.llvm_ir import Writer, identifier
from tinyengine.backends.llvm_jit import Target
from tinyengine.backends.llvm_memory import ZERO, ZERO_BYTES, NotRegister
from tinyengine.backends.moves import Moves
from tinyengine.loopnest import (
    Accumulate,
    Kernel,
    Loop,
    Prefetch,
    Stmt,
    Store,
    kernel_lines,
    walk,
)
from tinyengine.stages.arithmetic.expand import Expander, expander, powers_added
from tinyengine.stages.emit import Code, Part, accesses, line_numbers

ENTRY = "(ptr %slots, ptr %which, i64 %begin, i64 %end, ptr %scratch, ptr %status)"
FIRST_LOCATION = 10  # metadata numbers below are the module's own


def module(codes: Sequence[Code], target: Target, debug: bool = False) -> str:
    """The IR of several kernels as one module. `debug`: instructions carry the line of their kernel's text (one kernel only)."""
    assert not debug or len(codes) == 1
    lines = Lines(codes[0].kernel) if debug else None
    return joined([functions(c, target, lines) for c in codes], target, lines)


class Functions(NamedTuple):
    """The functions of a kernel as text, the declarations that they need, and how they load and store."""

    text: str
    declared: tuple[str, ...]
    moves: Moves


def functions(c: Code, target: Target, lines: Lines | None = None) -> Functions:
    """The functions of one kernel, for a module to be made of."""
    declared: dict[str, None] = {}
    moves = Moves()
    lower = expander(target.scales, target.dots)
    text = "\n\n".join([_function(c, i, part, lower, lines, declared, moves) for i, part in enumerate(c.parts)])
    return Functions(text, tuple(declared), moves)


def joined(parts: Sequence[Functions], target: Target, lines: Lines | None = None) -> str:
    """A module of the functions of several kernels."""
    head = [f'target triple = "{target.triple}"', f"{ZERO} = private constant [{ZERO_BYTES} x i8] zeroinitializer, align 64"]
    tail = [*dict.fromkeys(d for p in parts for d in p.declared), "!0 = !{i32 1}"]
    if lines is not None:
        tail += lines.metadata()
    return "\n".join(head) + "\n\n" + "\n\n".join([p.text for p in parts]) + "\n\n" + "\n".join(tail) + "\n"


class Lines:
    """Debug metadata: every function of a kernel has a location for each line of the kernel's text."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.numbers, self.count = kernel, line_numbers(kernel), len(kernel_lines(kernel))
        self.functions = 0

    def function(self) -> int:
        """The number of the next function; those of its lines follow it."""
        self.functions += 1
        return FIRST_LOCATION + (self.functions - 1) * (self.count + 1)

    def metadata(self) -> list[str]:
        name = identifier(self.kernel.name)
        out = [
            "!llvm.dbg.cu = !{!1}",
            "!llvm.module.flags = !{!2}",
            "!1 = distinct !DICompileUnit(language: DW_LANG_C99, file: !3, emissionKind: LineTablesOnly)",
            '!2 = !{i32 2, !"Debug Info Version", i32 3}',
            f'!3 = !DIFile(filename: "{name}", directory: "")',
            "!5 = !DISubroutineType(types: !6)",
            "!6 = !{}",
        ]
        for first in range(FIRST_LOCATION, FIRST_LOCATION + self.functions * (self.count + 1), self.count + 1):
            out.append(
                f'!{first} = distinct !DISubprogram(name: "{name}", scope: !3, file: !3, line: 1, type: !5, unit: !1, '
                "spFlags: DISPFlagDefinition)"
            )
            out += [f"!{first + n} = !DILocation(line: {n}, scope: !{first})" for n in range(1, self.count + 1)]
        return out


def _function(
    c: Code, i: int, part: Part, lower: Expander, lines: Lines | None, declared: dict[str, None], moves: Moves
) -> str:
    """The entry of one part and a function for each of its parallel loops, which takes its own share of the iterations."""
    symbol = c.part_symbol(i)
    before = tuple(s for s in part.body if not any(s is t for t in part.loops))
    runs = [(*before, s) for s in part.loops] or [part.body]
    used = _used(part.body)
    names = [f"{symbol}.body{n or ''}" for n in range(len(runs))]
    bodies = [
        _body(c, name, run, loop, used, lower, lines, declared, moves)
        for name, run, loop in zip(names, runs, part.loops or (None,), strict=True)
    ]
    loads, arguments = [], []
    for n, p in enumerate(c.kernel.params):
        if p.name in used:
            loads += [
                f"  %w{n} = getelementptr i64, ptr %which, i64 {n}",
                f"  %o{n} = load i64, ptr %w{n}, align 8",
                f"  %s{n} = getelementptr i8, ptr %slots, i64 %o{n}",
                f"  %p{n} = load ptr, ptr %s{n}, align 8",
            ]
            arguments.append(f"ptr %p{n}")

    def call(n: int, begin: str, end: str) -> str:
        given = ", ".join([*arguments, f"i64 {begin}", f"i64 {end}", "ptr %scratch", "ptr %status"])
        return f"  call void @{names[n]}({given})"

    calls = [call(0, "%begin", "%end")]
    if len(part.loops) > 1:
        calls, done = [], 0
        for n, s in enumerate(part.loops):
            calls += [
                f"  %b{n} = sub i64 %begin, {done}",
                f"  %e{n} = sub i64 %end, {done}",
                f"  %begin{n} = call i64 @llvm.smax.i64(i64 %b{n}, i64 0)",
                f"  %end{n} = call i64 @llvm.smin.i64(i64 %e{n}, i64 {s.trips})",
                f"  %some{n} = icmp slt i64 %begin{n}, %end{n}",
                f"  br i1 %some{n}, label %do{n}, label %done{n}",
                f"do{n}:",
                call(n, f"%begin{n}", f"%end{n}"),
                f"  br label %done{n}",
                f"done{n}:",
            ]
            done += s.trips
        declared.update(dict.fromkeys(f"declare i64 @llvm.{m}.i64(i64, i64)" for m in ("smax", "smin")))
    entry = [f"define void @{symbol}{ENTRY} nounwind {{", *loads, *calls, "  ret void", "}"]
    moved = "".join([f", {name} moved on by {n} bytes" for name, n in c.moved.items()])
    return f"; {c.kernel.name}{moved}\n" + "\n\n".join(["\n".join(entry), *bodies])


def _body(
    c: Code,
    name: str,
    body: tuple[Stmt, ...],
    loop: Loop | None,
    used: set[str],
    lower: Expander,
    lines: Lines | None,
    declared: dict[str, None],
    moves: Moves,
) -> str:
    """The function of `body`, of which the loop, if there is one, runs from %begin to %end. Register buffers that turn out not
    to be registers are tried again as memory."""
    widths: dict[str, set[int]] = {}
    for buf, lanes in accesses(body):
        if buf.space == "register":
            widths.setdefault(buf.name, set()).add(lanes)
    in_memory = frozenset(name for name, w in widths.items() if len(w) > 1)
    numbers, first = (lines.numbers, lines.function()) if lines is not None else ({}, 0)
    while True:
        least = {n: min(w) for n, w in widths.items()}
        try:
            return _try_body(c, name, body, loop, used, lower, numbers, first, declared, moves, least, in_memory)
        except NotRegister as e:
            in_memory |= {e.name}


def _try_body(
    c: Code,
    symbol: str,
    body: tuple[Stmt, ...],
    loop: Loop | None,
    used: set[str],
    lower: Expander,
    numbers: dict[int, int],
    first_location: int,
    declared: dict[str, None],
    moves: Moves,
    widths: dict[str, int],
    in_memory: frozenset[str],
) -> str:

    def location(s: Stmt) -> int:
        n = numbers.get(id(s), 0)
        return first_location + n if n else 0

    w = Writer(location, c.aliases, lower, in_memory, powers_added(body))
    w.widths = widths
    w.messages = list(c.messages)
    params = [p for p in c.kernel.params if p.name in used]
    w.names.update({"slots": 0, "which": 0, "begin": 0, "end": 0, "scratch": 0, "status": 0, "entry": 0})
    for p in params:
        w.places[p.name] = f"%{w.fresh(p.name)}"
    written = {w.group(s.buf.name) for s in walk(body) if isinstance(s, (Store, Accumulate))}
    if numbers:
        w.debug = first_location + 1
    if loop is not None:
        w.block([s for s in body if s is not loop])
        w.debug = location(loop)
        line = w.at(0)
        first = line(f"mul i64 %begin, {loop.step}")
        start = line(f"add i64 {first}, {loop.start}")
        last = line(f"mul i64 %end, {loop.step}")
        stop = line(f"add i64 {last}, {loop.start}")
        if loop.limit is not None:  # a piece beyond the limit does nothing
            work = line(f"icmp slt i64 {start}, {w.value(loop.limit)}")
            w.put(f"br i1 {work}, label %within, label %beyond")
            w.begin_block("within")
            stop = w.nearer(stop, loop.limit, "smin")
        w.counted(loop, start, stop)
        if loop.limit is not None:
            w.put("br label %beyond")
            w.begin_block("beyond")
    else:
        w.block(body)
    signature = []
    for p in params:
        shared = c.aliases.get(p.name, p.name)
        alone = all(c.aliases.get(q.name, q.name) != shared for q in params if q is not p)
        attributes = "noalias " if alone else ""
        attributes += "" if shared in written else "readonly "
        signature.append(f"ptr {attributes}align 64 {w.places[p.name]}")
    signature += ["i64 %begin", "i64 %end", "ptr noalias align 64 %scratch", "ptr noalias %status"]
    declared.update(w.declared)
    moves.add(w.moves)
    scope = f" !dbg !{first_location}" if numbers else ""
    end = f", !dbg !{first_location + 1}" if numbers else ""
    lines = [
        f"define internal void @{symbol}({', '.join(signature)}) nounwind{scope} {{",
        "entry:",
        *w.allocas,
        *w.scopes[0].lines,
        f"  ret void{end}",
        "}",
    ]
    return "\n".join(lines)


def _used(body: tuple[Stmt, ...]) -> set[str]:
    return {buf.name for buf, _ in accesses(body)} | {s.buf.name for s in walk(body) if isinstance(s, Prefetch)}


__all__ = ["ENTRY", "module"]
