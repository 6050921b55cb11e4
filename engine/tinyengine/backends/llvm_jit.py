"""From LLVM IR text to callable machine code: the target, the code generator, the in-process linker. llvmlite is imported on
first use.

LLVM serves as an assembler here: vectors, unrolling and invariant code are decided before it. No optimisation pipeline runs by
default; `Target.passes = 3` runs LLVM's O3 instead, for comparison.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """For whom code is generated. `features` in LLVM's +a,-b form. `passes`: 0, or the level of LLVM's own optimisations."""

    triple: str
    cpu: str
    features: str = ""
    passes: int = 0

    @property
    def scales(self) -> bool:
        """Whether one instruction multiplies by 2**n, n a float, in vectors of every width (AVX-512's scalef)."""
        return "+avx512f" in self.features and "+avx512vl" in self.features

    @property
    def dots(self) -> bool:
        """Whether one instruction multiplies pairs of bfloat16 and adds them to float32 (AVX512_BF16's vdpbf16ps)."""
        return "+avx512bf16" in self.features and "+avx512vl" in self.features

    def key(self) -> str:
        """Text that is equal exactly when the code for a kernel is."""
        return f"{self.triple} {self.cpu} {self.features} O{self.passes} llvm {llvm_version()}"


@functools.cache
def binding() -> Any:
    """llvmlite.binding, with every target of this machine's kind initialised."""
    import llvmlite.binding as b

    b.initialize_native_target()
    b.initialize_native_asmprinter()
    return b


def llvm_version() -> str:
    return ".".join(map(str, binding().llvm_version_info))


@functools.cache
def host() -> Target:
    """The machine that this process runs on."""
    b = binding()
    return Target(b.get_default_triple(), b.get_host_cpu_name(), b.get_host_cpu_features().flatten())


def _new_machine(target: Target) -> Any:
    b = binding()
    try:
        t = b.Target.from_triple(target.triple)
    except RuntimeError:
        b.initialize_all_targets()
        b.initialize_all_asmprinters()
        t = b.Target.from_triple(target.triple)
    return t.create_target_machine(cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small")


_machine = functools.cache(_new_machine)
_context_lock = threading.Lock()  # LLVM's global context is not safe with two threads; llvmlite locks only single calls


def _parsed(ir: str, target: Target, context: Any = None) -> Any:
    b = binding()
    module = b.parse_assembly(ir, context)
    module.verify()
    if target.passes:
        options = b.create_pipeline_tuning_options(speed_level=target.passes)
        builder = b.create_pass_builder(_machine(target), options)
        builder.getModulePassManager().run(module, builder)
    return module


def object_code(ir: str, target: Target) -> bytes:
    """Relocatable object code for a module. Raises RuntimeError with LLVM's message for IR that is not valid. Several threads may
    call this at once: each module has a context and a target machine of its own."""
    with _context_lock:
        module, machine = _parsed(ir, target, binding().create_context()), _new_machine(target)
    return _emit(machine, module)


def _emit(machine: Any, module: Any) -> bytes:
    """`machine.emit_object(module)` without llvmlite's lock, which lets one thread at a time into LLVM."""
    library = _library()
    error = ctypes.c_char_p()
    memory = library.LLVMPY_TargetMachineEmitToMemory(machine, module, 1, ctypes.byref(error))
    if not memory:
        raise RuntimeError((error.value or b"LLVM generated no code").decode(errors="replace"))
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(memory), library.LLVMPY_GetBufferSize(memory))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(memory)


@functools.cache
def _library() -> ctypes.CDLL:
    """llvmlite's library; ctypes lets other threads run during its calls."""
    library = ctypes.CDLL(binding().ffi.lib._name)
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("LLVMPY_TargetMachineEmitToMemory", pointer, [pointer, pointer, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]),
        ("LLVMPY_GetBufferStart", pointer, [pointer]),
        ("LLVMPY_GetBufferSize", ctypes.c_size_t, [pointer]),
        ("LLVMPY_DisposeMemoryBuffer", None, [pointer]),
    ):
        f = getattr(library, name)
        f.restype, f.argtypes = result, arguments
    return library


def assembly(ir: str, target: Target) -> str:
    """The assembly text of a module, with `.loc` lines where the IR has debug locations."""
    with _context_lock:
        return str(_machine(target).emit_assembly(_parsed(ir, target)))


class Linker:
    """Object code in this process. It stays until the process ends: programs and worker threads hold addresses in it."""

    def __init__(self, target: Target) -> None:
        self._jit = binding().create_lljit_compiler(_machine(target))
        self._libraries: list[Any] = []
        self._names = itertools.count()  # a name is spent even when linking fails

    def link(self, code: bytes, symbols: tuple[str, ...]) -> dict[str, int]:
        """The addresses of `symbols` in `code`. Raises RuntimeError when one is missing."""
        with _context_lock:
            builder = binding().JITLibraryBuilder().add_object_img(code).add_current_process()
            for s in symbols:
                builder.export_symbol(s)
            library = builder.link(self._jit, f"library{next(self._names)}")
            self._libraries.append(library)
            return {s: int(library[s]) for s in symbols}


@functools.cache
def linker() -> Linker:
    return Linker(host())
