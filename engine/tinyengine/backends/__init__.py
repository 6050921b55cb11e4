"""Backends: each turns a Program into an Executable. All take the same Programs and are tested by the same tests."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tinyengine import machine as machines
from tinyengine.machine import Machine
from tinyengine.origin import user_line
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


MODULES = {
    "llvm": ("tinyengine.backends.llvm", "LLVMBackend"),
    "opencl": ("tinyengine.backends.opencl", "OpenCLBackend"),
    "reference": ("tinyengine.backends.reference", "ReferenceBackend"),
    "null": ("tinyengine.backends.null", "NullBackend"),
}
_made: dict[str, Backend] = {}
_current: list[str] = [os.environ.get("TINYENGINE_BACKEND", "llvm")]


class BackendError(RuntimeError):
    """A backend that does not exist or cannot be used here; the message says why."""


def get(name: str | None = None) -> Backend:
    """The backend called `name` (the current one when None); BackendError says what is wrong and what exists."""
    name = name or _current[-1]
    if name not in _made:
        if name not in MODULES:
            raise BackendError(f"unknown backend {name!r}; known: {', '.join(MODULES)}\n  at {user_line()}")
        module, cls = MODULES[name]
        try:
            backend: Backend = getattr(importlib.import_module(module), cls)()
        except ImportError as e:
            raise BackendError(f"backend {name!r} cannot be used here: {e}") from e
        why = backend.available()
        if why:
            raise BackendError(f"backend {name!r} cannot be used here: {why}")
        _made[name] = backend
    return _made[name]


def machine(name: str | None = None) -> Machine:
    """What programs for that backend (the current one when None) are scheduled for: this computer, or the device that the backend
    computes on where it has its own description. This computer too for a backend that cannot be used here."""
    with contextlib.suppress(BackendError):
        own = getattr(get(name), "machine", None)
        if own is not None:
            found: Machine = own()
            return found
    return machines.current()


def current() -> str:
    return _current[-1]


def select(name: str) -> None:
    """Compute with this backend from now on (inside a `use`: to its end)."""
    get(name)
    _current[-1] = name


@contextlib.contextmanager
def use(name: str) -> Iterator[Backend]:
    """Compute with this backend inside the with-block."""
    backend = get(name)
    _current.append(name)
    try:
        yield backend
    finally:
        _current.pop()
