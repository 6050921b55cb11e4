"""Where a node came from: the user's frames, the module path and the phase. Captured for every node; united when nodes merge."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tinyengine.node import Node

PHASES = ("forward", "backward", "optimizer")
MAX_FRAMES = 6  # how many of the user's frames are kept, innermost first
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_hidden_roots: list[str] = [_HERE]
_is_user: dict[CodeType, bool] = {}


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
    """`frames` innermost first; `module` like 'model.fc1'; `forward` and `derivative` tie a backward node to its forward node and rule."""

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


class _State:
    module: str = ""
    phase: str = "forward"


_state = _State()


def hide(root: str) -> None:
    """Frames of files under `root` (a folder) are never the user's: a front end built on the engine hides itself."""
    _hidden_roots.append(os.path.abspath(root) + os.sep)
    _is_user.clear()


def _check(code: CodeType) -> bool:
    name = code.co_filename
    user = not any(name.startswith(r) for r in _hidden_roots) and not name.startswith("<frozen")
    _is_user[code] = user
    return user


def capture(depth: int = 1) -> Origin:
    """The origin of a node made right now: the user's frames above the engine's, the current module path and phase."""
    f = sys._getframe(depth)
    frames: list[Frame] = []
    while f is not None:
        code = f.f_code
        user = _is_user.get(code)
        if user if user is not None else _check(code):
            frames.append(Frame(code, f.f_lasti))
            if len(frames) == MAX_FRAMES:
                break
        f = f.f_back  # type: ignore[assignment]
    return Origin(tuple(frames), _state.module, _state.phase)


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


def current_module() -> str:
    return _state.module


def unite(a: tuple[Origin, ...], b: tuple[Origin, ...]) -> tuple[Origin, ...]:
    """Both sets of origins, in order, each once."""
    if a is b or not b:
        return a
    return a + tuple(o for o in b if o not in a)


def user_line() -> str:
    """'file.py, line 12: the source text' of the innermost user frame, for error messages."""
    o = capture(2)
    if not o.frames:
        return "(no line of yours on the stack)"
    f = o.frames[0]
    return f"{os.path.basename(f.file)}, line {f.line}: {f.text}"
