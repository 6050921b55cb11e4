"""The llvm backend: the CPU, all cores, through LLVM's code generator."""
from __future__ import annotations

import ctypes
from collections.abc import Sequence

from tinyengine.backends import Times, llvm_jit
from tinyengine.backends.llvm_module import module
from tinyengine.program import Program
from tinyengine.runtime.buffer import Buffer
from tinyengine import dtypes
from tinyengine.stages.emit import prepare

_ENTRY = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 2)


class LLVMExecutable:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.codes = [prepare(c.kernel) for c in program.calls]
        unique = {c.symbol: c for c in self.codes}
        target = llvm_jit.host()
        ir = module(list(unique.values()), target)
        symbols = tuple(c.part_symbol(i) for c in unique.values() for i in range(len(c.parts)))
        self.addresses = llvm_jit.linker().link(llvm_jit.object_code(ir, target), symbols)
        self.arena = Buffer(program.arena_bytes, dtypes.uint8, "arena")
        self.scratch = Buffer(max([c.scratch_bytes for c in self.codes] + [64]), dtypes.uint8, "scratch")
        n = len(program.slots)
        self.slots = (ctypes.c_uint64 * n)()
        for i, s in enumerate(program.slots):
            if s.role == "temporary":
                self.slots[i] = self.arena.address + s.offset
        self.status = ctypes.c_uint64(0)
        self.steps = []
        for call, code in zip(program.calls, self.codes, strict=True):
            which = (ctypes.c_int64 * len(call.slots))(*[8 * s for s in call.slots])
            for i, p in enumerate(code.parts):
                self.steps.append((_ENTRY(self.addresses[code.part_symbol(i)]), which, p.trips, code))

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        for i, b in enumerate(buffers):
            self.slots[i] = b.address
        for f, which, trips, code in self.steps:
            f(self.slots, which, 0, trips, self.scratch.address, ctypes.byref(self.status))
            if self.status.value:
                m = code.messages[self.status.value - 1]
                self.status.value = 0
                raise IndexError(m)
        return None

    def source(self, call: int) -> str:
        return module([self.codes[call]], llvm_jit.host(), debug=True)

    def assembly(self, call: int) -> str:
        return llvm_jit.assembly(self.source(call), llvm_jit.host())


class LLVMBackend:
    name = "llvm"

    def available(self) -> str:
        return ""

    def compile(self, program: Program) -> LLVMExecutable:
        return LLVMExecutable(program)
