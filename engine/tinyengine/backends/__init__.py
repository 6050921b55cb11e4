"""Backends: each turns a Program into an Executable. All take the same Programs and are tested by the same tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tinyengine.program import Program
from tinyengine.runtime.buffer import Buffer


@dataclass(frozen=True, slots=True)
class Times:
    """Per call of the program: start (from the launch) and duration, in seconds, by clocks inside the native program."""

    starts: tuple[float, ...]
    seconds: tuple[float, ...]


class Executable(Protocol):
    """A compiled Program."""

    program: Program

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        """Run all kernels. `buffers`: memory for the first `program.given` slots. Raises IndexError when a Check failed,
        with the message of the Check. Returns times when `clocks`."""
        ...

    def source(self, call: int) -> str:
        """What was handed to the compiler for that kernel (LLVM IR, OpenCL C, Python)."""
        ...

    def assembly(self, call: int) -> str:
        """The machine's instructions with `.loc`-style links to the lines of the source; empty where there are none."""
        ...


class Backend(Protocol):
    name: str

    def available(self) -> str:
        """Empty when usable (a tiny kernel was built and run), else one sentence that says why not."""
        ...

    def compile(self, program: Program) -> Executable: ...
