"""What a call does, counted: calls and bytecode instructions by name. And the engine's code with the hooks taken out."""

from __future__ import annotations

import ast
import contextlib
import dis
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tinyengine.tensor import core

WARM = 5  # calls before one is counted: caches of the interpreter fill


@dataclass
class Measured:
    """Of one call. `calls`: Python and C functions by name; `instructions`: of the engine's bytecode, by name."""

    calls: Counter[str]
    instructions: Counter[str]


def measure(f: Callable[[], object]) -> Measured:
    """The garbage collector rests meanwhile: those who listen to it would be counted when it happens to run."""
    for _ in range(WARM):
        f()
    collects = gc.isenabled()
    gc.disable()
    try:
        return Measured(_calls(f), _instructions(f))
    finally:
        if collects:
            gc.enable()


def growth(f: Callable[[], object], times: int) -> int:
    """How many more blocks of memory are held after `times` calls, their results dropped. The engine's list of live tensors
    is swept now and then; here before each count."""
    for _ in range(WARM):
        f()
    gc.collect()
    core.prune()
    before = sys.getallocatedblocks()
    for _ in range(times):
        f()
    gc.collect()
    core.prune()
    return sys.getallocatedblocks() - before


def _calls(f: Callable[[], object]) -> Counter[str]:
    names: list[str] = []
    codes: list[CodeType] = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            codes.append(frame.f_code)
        elif event == "c_call":
            names.append(getattr(arg, "__qualname__", repr(type(arg))))

    sys.setprofile(profile)
    try:
        f()
    finally:
        sys.setprofile(None)
    names += [f"{c.co_filename.rpartition('/')[2]}:{c.co_qualname}" for c in codes]
    return Counter(names)


def _instructions(f: Callable[[], object]) -> Counter[str]:
    """Names of the bytecode instructions that run in functions of the engine; jumps and no-ops are left out, because the compiler
    lays out code around a removed branch differently."""
    out: Counter[str] = Counter()
    names: dict[CodeType, dict[int, str]] = {}

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if "tinyengine" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            code = frame.f_code
            table = names.get(code)
            if table is None:
                table = names[code] = {i.offset: i.opname for i in dis.get_instructions(code)}
            out[table[frame.f_lasti]] += 1
        return trace

    sys.settrace(trace)
    try:
        f()
    finally:
        sys.settrace(None)
    return Counter({k: n for k, n in out.items() if "JUMP" not in k and k != "NOP"})


@contextlib.contextmanager
def hooks_removed(f: Callable[[], object]) -> Iterator[None]:
    """Inside, every engine function that `f` runs is compiled anew with `hooks.watching` replaced by the constant False, so that
    the compiler drops what stands under it."""
    used: set[CodeType] = set()
    sys.setprofile(lambda frame, event, arg: used.add(frame.f_code) if event == "call" else None)
    try:
        f()
    finally:
        sys.setprofile(None)
    functions = [o for o in gc.get_objects() if isinstance(o, FunctionType) and o.__code__ in used]
    old: list[tuple[FunctionType, CodeType]] = []
    for function in functions:
        module = sys.modules.get(function.__module__)
        if module is None or not module.__name__.startswith("tinyengine.") or function.__code__.co_filename != module.__file__:
            continue
        new, n = _without(module, function.__code__)
        if n:
            old.append((function, function.__code__))
            function.__code__ = new
    try:
        yield
    finally:
        for function, code in old:
            function.__code__ = code


class _Remove(ast.NodeTransformer):
    def __init__(self, first: int, last: int) -> None:
        self.lines, self.places = range(first, last + 1), 0

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and (node.value.id, node.attr) == ("hooks", "watching"):
            self.places += node.lineno in self.lines
            return ast.copy_location(ast.Constant(False), node)
        return node


def _without(module: ModuleType, code: CodeType) -> tuple[CodeType, int]:
    """The function's code with the flag replaced by False, and in how many places it stood."""
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as f:
        tree = ast.parse(f.read())
    lines = [line for _, _, line in code.co_lines() if line]
    remove = _Remove(min(lines), max(lines))
    whole = compile(ast.fix_missing_locations(remove.visit(tree)), module.__file__, "exec")
    stack = [whole]
    while stack:
        c = stack.pop()
        if (c.co_qualname, c.co_firstlineno) == (code.co_qualname, code.co_firstlineno):
            return c, remove.places
        stack += [k for k in c.co_consts if isinstance(k, CodeType)]
    raise LookupError(f"{code.co_qualname} is not in {module.__file__}")
