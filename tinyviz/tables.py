"""The tables that a recording's programs share: the user's files and lines, and the rules that fired."""

from __future__ import annotations

import inspect
import linecache
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from tinyviz.wire import Lines, Rules, SourceFile

MAX_RULE_LINES = 80  # of how a rule is written
MAX_SOURCE_CHARS = 400_000  # of one file; more is cut, and the file says so

#: compiled name of a file -> (name to show, id of its notebook cell, lines to add); set by the notebook extension
NameFile = Callable[[str], tuple[str, str, int] | None]


def plain_name(path: str) -> tuple[str, str, int]:
    name = os.path.basename(path) or path
    if "ipykernel_" in path:
        name = "cell"
    return name, "", 0


def shown_path(path: str, cell: str) -> str:
    """What a recording says of a file's place: relative to the working folder, else its name alone; a recording may be shared."""
    if cell or "ipykernel_" in path:
        return ""
    inside = os.path.relpath(path)
    return inside.replace(os.sep, "/") if not inside.startswith(os.pardir) else os.path.basename(path)


class Tables:
    """Gives each line and each rule one id. Lines are looked up here, after the run, and not while it is watched."""

    def __init__(self, name_file: NameFile | None = None) -> None:
        self.files: list[SourceFile] = []
        self.lines = Lines()
        self.rules = Rules()
        self.sources: dict[str, str] = {}
        self._name_file = name_file
        self._files: dict[str, int] = {}
        self._offset: list[int] = []
        self._lines: dict[tuple[int, int], int] = {}
        self._frames: dict[tuple[CodeType, int], int] = {}
        self._rules: dict[tuple[str, str], int] = {}

    def file(self, path: str) -> int:
        found = self._files.get(path)
        if found is None:
            name, cell, offset = (self._name_file and self._name_file(path)) or plain_name(path)
            text = "\n" * offset + "".join(linecache.getlines(path))
            if len(text) > MAX_SOURCE_CHARS:
                text = text[:MAX_SOURCE_CHARS] + "\n... (cut: the file is larger than a recording keeps)\n"
            found = self._files[path] = len(self.files)
            self.files.append(SourceFile(name, shown_path(path, cell), text, cell))
            self._offset.append(offset)
        return found

    def line(self, frame: Any) -> int:
        """The id of the line of a `tinyengine.origin.Frame`."""
        key = (frame.code, frame.lasti)
        found = self._frames.get(key)
        if found is None:
            file = self.file(frame.file)
            number = frame.line + self._offset[file]
            found = self._lines.get((file, number))
            if found is None:
                found = self._lines[file, number] = len(self.lines.line)
                rows = self.files[file].text.split("\n")
                text = rows[number - 1].strip() if 0 < number <= len(rows) else ""
                self.lines.file.append(file)
                self.lines.line.append(number)
                self.lines.function.append(frame.function)
                self.lines.text.append(text[:400])
            self._frames[key] = found
        return found

    def rule(self, stage: str, name: str, reason: str, function: Callable[..., Any] | None = None) -> int:
        """The id of a rule; `function`: what does it, where that is not the function behind the rule of this name."""
        found = self._rules.get((stage, name))
        if found is None:
            found = self._rules[stage, name] = len(self.rules.name)
            function = function or _definition(name)
            file, line = _place(function)
            if file and (text := _text(function)):
                self.sources[f"{file}:{line}"] = text
            for column, value in zip(vars(self.rules).values(), (stage, name, reason, file, line), strict=True):
                column.append(value)
        return found


def _definition(rule: str) -> Callable[..., Any] | None:
    """The function behind a rule, found in the engine's stages; None when unknown."""
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("tinyengine.") or module is None:
            continue
        rules = getattr(module, "RULES", ())
        for r in [*(rules.values() if isinstance(rules, dict) else rules), getattr(module, "MERGE", None)]:
            if getattr(r, "name", None) == rule and hasattr(r, "build"):
                function: Callable[..., Any] = r.build
                if _place(function)[0]:
                    return function
    return None


def _place(function: Any) -> tuple[str, int]:
    """(file, line) of a function; ("", 0) of one that was not written in Python. Files of the engine are relative to it, of
    others the name alone."""
    code = getattr(function, "__code__", None)
    if code is None:
        return "", 0
    _, engine, inside = code.co_filename.rpartition("tinyengine" + os.sep)
    return inside.replace(os.sep, "/") if engine else plain_name(inside)[0], code.co_firstlineno


def _text(function: Any) -> str:
    """How a function is written, not indented; "" where its source is gone."""
    try:
        text = inspect.cleandoc("\n" + inspect.getsource(function))
    except (OSError, TypeError):
        return ""
    rows = text.split("\n")
    return "\n".join(rows[:MAX_RULE_LINES]) + ("\n..." if len(rows) > MAX_RULE_LINES else "")
