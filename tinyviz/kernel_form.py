"""A kernel apart from what its values are called: two recordings number them differently, though the code is the same."""

from __future__ import annotations

import re
from typing import NamedTuple

from tinyviz.wire import Kernel

HEAD = re.compile(r"^kernel \S*?\(")
PARAMETER = re.compile(r"[(,] ?(\w+): ")
LOCAL = re.compile(r"^\s*(?:(?:local|register) )?(\w+)(?::| =) ")
WORD = re.compile(r"[A-Za-z_]\w*")


class Form(NamedTuple):
    """What a kernel does (`loops`) and how (`schedule`); equal for kernels that differ in names alone."""

    loops: tuple[str, ...]
    schedule: tuple[str, ...]


def form(k: Kernel) -> Form:
    """Buffers and values in the order in which they are named: b0, b1, …; a loop or a copy that a primitive made is called after
    its buffer, and follows it."""
    lines = [HEAD.sub("kernel (", line) for line in k.loops.text]
    loops = {m[1] for line in lines if (m := re.match(r"\s*for (?:reduce )?(\w+) in ", line))}
    names: dict[str, str] = {}
    for line in lines:
        for name in PARAMETER.findall(line) if line.startswith("kernel (") else LOCAL.findall(line):
            if name not in loops:
                names.setdefault(name, f"b{len(names)}")

    def word(m: re.Match[str]) -> str:
        text = m[0]
        if text in names or text.rstrip("io") in loops:
            return names.get(text, text)
        name, _, rest = text.rpartition("_")
        return f"{names[name]}_{rest}" if name in names else text

    return Form(tuple(WORD.sub(word, x) for x in lines), tuple(WORD.sub(word, x) for x in k.schedule))
