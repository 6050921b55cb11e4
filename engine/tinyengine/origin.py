"""Where a node came from: the user's frames, the module path and the phase. Captured for every node; united when nodes merge."""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
import threading
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tinyengine.node import Node

PHASES = ("forward", "backward", "optimizer")
MAX_FRAMES = 6  # how many of the user's frames are kept, innermost first
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_hidden_roots: list[str] = [_HERE]
_BETWEEN = (contextlib.__file__, functools.__file__)  # their frames stand between the engine's own
# id(code) -> (0 the engine's or a launcher's | 1 the user's | 2 the user's outermost, the code itself: it keeps the id taken).
# Not keyed by the code object: hashing one hashes its whole bytecode.
_kinds: dict[int, tuple[int, CodeType]] = {}
_interned: dict[tuple[Any, ...], tuple[Origin]] = {}


class Frame(NamedTuple):
    """One frame of the user's stack: a code object and the bytecode offset in it; the line is looked up when asked for."""

    code: CodeType
    lasti: int

    @property
    def file(self) -> str:
        return self.code.co_filename

    @property
    def line(self) -> int:
        for start, end, line in self.code.co_lines():
            if start <= self.lasti < end and line is not None:
                return line
        return self.code.co_firstlineno

    @property
    def function(self) -> str:
        return self.code.co_qualname

    @property
    def text(self) -> str:
        """The source line, stripped; empty when the source is gone."""
        return linecache.getline(self.file, self.line).strip()


class Origin(NamedTuple):
    """`frames` innermost first; `module` like 'model.fc1'; `forward` and `derivative` tie a backward node to its forward node and
    rule."""

    frames: tuple[Frame, ...]
    module: str
    phase: str
    forward: Node | None = None
    derivative: str = ""

    @property
    def file(self) -> str:
        return self.frames[0].file if self.frames else ""

    @property
    def line(self) -> int:
        return self.frames[0].line if self.frames else 0

    def __str__(self) -> str:
        where = f"{os.path.basename(self.file)}:{self.line}" if self.frames else "?"
        return f"{where} {self.phase}" + (f" in {self.module}" if self.module else "")


class _State(threading.local):
    """Of each Python thread."""

    module: str = ""
    phase: str = "forward"


_state = _State()


def hide(root: str) -> None:
    """Frames of files under `root` (a folder) are never the user's: a front end built on the engine hides itself."""
    _hidden_roots.append(os.path.abspath(root) + os.sep)
    _kinds.clear()
    _interned.clear()


def _classify(code: CodeType) -> int:
    name = code.co_filename
    if name.startswith((*_hidden_roots, "<frozen")) or name in _BETWEEN:
        kind = 0
    else:  # above a module's or a cell's top level stands only what started it
        kind = 2 if code.co_name == "<module>" or code.co_name.startswith("<cell line") else 1
    _kinds[id(code)] = (kind, code)
    return kind


def here(depth: int = 1) -> tuple[Origin]:
    """The origin of a node made right now, as the tuple that `Node.origin` holds: the user's frames above the engine's (up to the
    top level of their script or cell), the current module path and phase. The same place gives the same object; about 1 µs."""
    key: list[Any] = [_state.module, _state.phase]
    codes: list[CodeType] = []
    f = sys._getframe(depth)
    while f is not None:
        code = f.f_code
        known = _kinds.get(id(code))
        kind = known[0] if known is not None else _classify(code)
        if kind:
            key += (id(code), f.f_lasti)
            codes.append(code)
            if kind == 2 or len(codes) == MAX_FRAMES:
                break
        f = f.f_back  # type: ignore[assignment]
    found = _interned.get(tuple(key))
    if found is None:
        frames = tuple([Frame(c, lasti) for c, lasti in zip(codes, key[3::2], strict=True)])
        if len(_interned) > 50_000:  # a program that generates code without end must not grow us without end
            _interned.clear()
        found = _interned[tuple(key)] = (Origin(frames, _state.module, _state.phase),)
    return found


def capture(depth: int = 1) -> Origin:
    """`here` without the tuple."""
    return here(depth + 1)[0]


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Nodes made inside belong to `name`: one of PHASES."""
    old, _state.phase = _state.phase, name
    try:
        yield
    finally:
        _state.phase = old


@contextlib.contextmanager
def module(path: str) -> Iterator[None]:
    """Nodes made inside belong to the module at `path`; nested paths join with a dot."""
    old, _state.module = _state.module, path
    try:
        yield
    finally:
        _state.module = old


def enter(path: str) -> str:
    """Nodes made from now on belong to the module at `path`; returns the path that it replaces. `module` as a plain function."""
    old, _state.module = _state.module, path
    return old


def is_user(code: CodeType) -> bool:
    """Whether a frame of this code is the user's."""
    known = _kinds.get(id(code))
    return bool(known[0] if known is not None else _classify(code))


def current_module() -> str:
    return _state.module


def unite(*parts: tuple[Origin, ...]) -> tuple[Origin, ...]:
    """All the origins in order, each once; the first part itself when the others add nothing. Linear in the number of origins."""
    first = parts[0]
    if all(p is first or not p for p in parts):
        return first
    # keyed by identity of the code objects: hashing a code object hashes its whole bytecode
    out: dict[Any, Origin] = {}
    for part in parts:
        for o in part:
            out.setdefault((tuple([(id(f.code), f.lasti) for f in o.frames]), o.module, o.phase, id(o.forward), o.derivative), o)
    return first if len(out) == len(first) else tuple(out.values())


def user_line() -> str:
    """'file.py, line 12: the source text' of the innermost user frame, for error messages."""
    o = capture(2)
    if not o.frames:
        return "(no line of yours on the stack)"
    f = o.frames[0]
    return f"{os.path.basename(f.file)}, line {f.line}" + (f": {f.text}" if f.text else "")
