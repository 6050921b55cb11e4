"""The null backend: compiles and launches nothing, touches no memory. For tests and tools that need no values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyengine.backends import Times
from tinyengine.program import Program
from tinyengine.runtime.buffer import Buffer


@dataclass
class NullExecutable:
    program: Program

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        if len(buffers) != self.program.given:
            raise ValueError(f"program {self.program.name} takes {self.program.given} buffers, got {len(buffers)}")
        zeros = (0.0,) * len(self.program.calls)
        return Times(zeros, zeros) if clocks else None

    def source(self, call: int) -> str:
        return ""

    def assembly(self, call: int) -> str:
        return ""


class NullBackend:
    name = "null"

    def available(self) -> str:
        return ""

    def compile(self, program: Program) -> NullExecutable:
        return NullExecutable(program)
