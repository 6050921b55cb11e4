"""Modules of LLVM IR text: functions of kernels, entries for the runtime, and debug locations that are kernel-IR lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tinyengine.backends.llvm_ir import Writer, identifier
from tinyengine.backends.llvm_jit import Target
from tinyengine.backends.llvm_memory import ZERO, ZERO_BYTES, NotRegister
from tinyengine.loopnest import Accumulate, Buf, Expr, Prefetch, Stmt, Store, kernel_lines, load_index, stmt_exprs, walk
from tinyengine.stages import affine as af
from tinyengine.stages.emit import Code, Part, line_numbers
from tinyengine.stages.expand import Expander, expander

ENTRY = "(ptr %slots, ptr %which, i64 %begin, i64 %end, ptr %scratch, ptr %status)"
FIRST_LOCATION = 10  # metadata numbers below are the module's own


def module(codes: Sequence[Code], target: Target, debug: bool = False) -> str:
    """The IR of several kernels as one module. `debug`: instructions carry the line of their kernel's text (one kernel only)."""
    assert not debug or len(codes) == 1
    functions: list[str] = []
    declared: dict[str, None] = {}
    for c in codes:
        numbers = line_numbers(c.kernel) if debug else {}
        for i, part in enumerate(c.parts):
            functions.append(_function(c, i, part, expander(target.scales, target.dots), numbers, declared))
    text = "\n\n".join(functions)
    head = [f'target triple = "{target.triple}"', f"{ZERO} = private constant [{ZERO_BYTES} x i8] zeroinitializer, align 64"]
    tail = [*declared, "!0 = !{i32 1}"]
    if debug:
        tail += _debug_info(codes[0])
    return "\n".join(head) + "\n\n" + text + "\n\n" + "\n".join(tail) + "\n"


def _function(c: Code, i: int, part: Part, lower: Expander, numbers: dict[int, int], declared: dict[str, None]) -> str:
    """The entry and the body of one part; register buffers that turn out not to be registers are tried again as memory."""
    widths: dict[str, set[int]] = {}
    for buf, lanes in accesses(part.body):
        if buf.space == "register":
            widths.setdefault(buf.name, set()).add(lanes)
    in_memory = frozenset(name for name, w in widths.items() if len(w) > 1)
    while True:
        try:
            return _try_function(c, i, part, lower, numbers, declared, {n: min(w) for n, w in widths.items()}, in_memory)
        except NotRegister as e:
            in_memory |= {e.name}


def _try_function(
    c: Code,
    i: int,
    part: Part,
    lower: Expander,
    numbers: dict[int, int],
    declared: dict[str, None],
    widths: dict[str, int],
    in_memory: frozenset[str],
) -> str:
    symbol = c.part_symbol(i)

    def location(s: Stmt) -> int:
        n = numbers.get(id(s), 0)
        return FIRST_LOCATION + n if n else 0

    w = Writer(location, c.aliases, lower, in_memory)
    w.widths = widths
    w.messages = list(c.messages)
    used = _used(part.body)
    params = [p for p in c.kernel.params if p.name in used]
    w.names.update({"slots": 0, "which": 0, "begin": 0, "end": 0, "scratch": 0, "status": 0, "entry": 0})
    for p in params:
        w.places[p.name] = f"%{w.fresh(p.name)}"
    written = {w.group(s.buf.name) for s in walk(part.body) if isinstance(s, (Store, Accumulate))}
    if numbers:
        w.debug = FIRST_LOCATION + 1
    if part.loop is not None:
        loop = part.loop
        w.block([s for s in part.body if s is not loop])
        w.debug = location(loop)
        line = w.at(0)
        first = line(f"mul i64 %begin, {loop.step}")
        start = line(f"add i64 {first}, {loop.start}")
        last = line(f"mul i64 %end, {loop.step}")
        stop = line(f"add i64 {last}, {loop.start}")
        w.counted(loop, start, stop)
    else:
        w.block(part.body)
    signature, loads, arguments = [], [], []
    for n, p in enumerate(c.kernel.params):
        if p.name not in used:
            continue
        place = w.places[p.name]
        shared = c.aliases.get(p.name, p.name)
        alone = all(c.aliases.get(q.name, q.name) != shared for q in params if q is not p)
        attributes = "noalias " if alone else ""
        attributes += "" if shared in written else "readonly "
        signature.append(f"ptr {attributes}align 64 {place}")
        loads += [
            f"  %w{n} = getelementptr i64, ptr %which, i64 {n}",
            f"  %o{n} = load i64, ptr %w{n}, align 8",
            f"  %s{n} = getelementptr i8, ptr %slots, i64 %o{n}",
            f"  %p{n} = load ptr, ptr %s{n}, align 8",
        ]
        arguments.append(f"ptr %p{n}")
    signature += ["i64 %begin", "i64 %end", "ptr noalias align 64 %scratch", "ptr noalias %status"]
    arguments += ["i64 %begin", "i64 %end", "ptr %scratch", "ptr %status"]
    declared.update(w.declared)
    scope = " !dbg !4" if numbers else ""
    end = f", !dbg !{FIRST_LOCATION + 1}" if numbers else ""
    body = [
        f"define internal void @{symbol}.body({', '.join(signature)}) nounwind{scope} {{",
        "entry:",
        *w.allocas,
        *w.scopes[0].lines,
    ]
    body += [f"  ret void{end}", "}"]
    entry = [
        f"define void @{symbol}{ENTRY} nounwind {{",
        *loads,
        f"  call void @{symbol}.body({', '.join(arguments)})",
        "  ret void",
        "}",
    ]
    return f"; {c.kernel.name}\n" + "\n".join(entry) + "\n\n" + "\n".join(body)


def accesses(body: Iterable[Stmt]) -> Iterator[tuple[Buf, int]]:
    """(buffer, lanes) of every load, store and accumulation below."""
    seen: set[Expr] = set()
    for s in walk(tuple(body)):
        if isinstance(s, (Store, Accumulate)):
            yield s.buf, max([i.lanes for i in s.index] + [1])
        for root in stmt_exprs(s):
            for e in af.order(root, seen):
                seen.add(e)
                if e.op == "load":
                    yield e.arg, max([i.lanes for i in load_index(e)] + [1])


def _used(body: tuple[Stmt, ...]) -> set[str]:
    return {buf.name for buf, _ in accesses(body)} | {s.buf.name for s in walk(body) if isinstance(s, Prefetch)}


def _debug_info(c: Code) -> list[str]:
    """One location per line of the kernel's text; every instruction names one of them."""
    lines = len(kernel_lines(c.kernel))
    out = [
        "!llvm.dbg.cu = !{!1}",
        "!llvm.module.flags = !{!2}",
        "!1 = distinct !DICompileUnit(language: DW_LANG_C99, file: !3, emissionKind: LineTablesOnly)",
        '!2 = !{i32 2, !"Debug Info Version", i32 3}',
        f'!3 = !DIFile(filename: "{identifier(c.kernel.name)}", directory: "")',
        f'!4 = distinct !DISubprogram(name: "{identifier(c.kernel.name)}", scope: !3, file: !3, line: 1, type: !5, unit: !1, '
        "spFlags: DISPFlagDefinition)",
        "!5 = !DISubroutineType(types: !6)",
        "!6 = !{}",
    ]
    return out + [f"!{FIRST_LOCATION + n} = !DILocation(line: {n}, scope: !4)" for n in range(1, lines + 1)]


__all__ = ["ENTRY", "module"]
