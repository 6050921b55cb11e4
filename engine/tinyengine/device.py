"""Device and Context: which backend computes, and settings that hold inside a with-block, by the names that the field knows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

from tinyengine import backends, spec
from tinyengine.origin import user_line

# device -> backend; the first of a backend is the name that Device.DEFAULT gives
DEVICES = {
    "CPU": "llvm", "LLVM": "llvm", "CLANG": "llvm", "CL": "opencl", "OPENCL": "opencl", "GPU": "opencl", "PYTHON": "reference",
    "REFERENCE": "reference", "NULL": "null",
}  # fmt: skip


class _Device:
    """`Device.DEFAULT`: the device that computes, a name; assign to it to change it. `Device[name]`: its backend.

    "CPU" (also "LLVM", "CLANG") is compiled code on all cores, "CL" ("OPENCL", "GPU") the first OpenCL driver that passes
    a probe, "PYTHON" the interpreter that is the reference, "NULL" has no values. Tensors lie in the host's memory whatever
    computes."""

    @property
    def DEFAULT(self) -> str:
        return next(d for d, b in DEVICES.items() if b == backends.current())

    @DEFAULT.setter
    def DEFAULT(self, name: str) -> None:
        backends.select(self.backend(name))

    def backend(self, name: str | None) -> str:
        """The name of the backend for a device's; None: the default. BackendError for a device that there is not."""
        if name is None:
            return backends.current()
        kind, _, number = str(name).upper().partition(":")
        if kind not in DEVICES or number not in ("", "0"):
            raise backends.BackendError(f"no device {name!r}; there is one each of: {', '.join(DEVICES)}\n  at {user_line()}")
        return DEVICES[kind]

    def canonicalize(self, name: str | None) -> str:
        """The first name of that device: "cpu:0" -> "CPU"."""
        wanted = self.backend(name)
        return next(d for d, b in DEVICES.items() if b == wanted)

    def __getitem__(self, name: str) -> backends.Backend:
        return backends.get(self.backend(name))

    def get_available_devices(self) -> Iterator[str]:
        """Names of the devices that can be used here; each is probed."""
        for backend in dict.fromkeys(DEVICES.values()):
            with contextlib.suppress(backends.BackendError):
                backends.get(backend)
                yield next(d for d, b in DEVICES.items() if b == backend)

    def __repr__(self) -> str:
        return f"Device(DEFAULT={self.DEFAULT!r})"


Device = _Device()


@contextlib.contextmanager
def _threads(value: int) -> Iterator[None]:
    old = os.environ.get("TINYENGINE_THREADS")
    os.environ["TINYENGINE_THREADS"] = str(value)
    try:
        yield
    finally:
        os.environ.pop("TINYENGINE_THREADS")
        if old is not None:
            os.environ["TINYENGINE_THREADS"] = old


@contextlib.contextmanager
def _specs(value: Any) -> Iterator[None]:
    old, spec.enabled = spec.enabled, bool(value)
    try:
        yield
    finally:
        spec.enabled = old


@contextlib.contextmanager
def _width(value: int | None) -> Iterator[None]:
    from tinyengine import realize as engine

    engine._choices.append(dataclasses.replace(engine.chosen(), vector_width=value))
    try:
        yield
    finally:
        engine._choices.pop()


@contextlib.contextmanager
def _training(value: Any) -> Iterator[None]:
    from tinyengine.tensor import Tensor

    with Tensor.train(bool(value)):
        yield


def _gradients(value: Any) -> contextlib.AbstractContextManager[Any]:
    from tinyengine.tensor import core

    return core.grad_mode(bool(value))


# setting -> (what makes it hold, what it says)
SETTINGS: dict[str, tuple[Callable[[Any], contextlib.AbstractContextManager[Any]], str]] = {
    "DEVICE": (lambda v: backends.use(Device.backend(v)), "the device that computes, as in Device.DEFAULT"),
    "GRAD": (_gradients, "0: what is recorded takes no part in backward, as under no_grad"),
    "SPEC": (_specs, "1: every stage's output is checked against its spec"),
    "THREADS": (_threads, "how many cores compute"),
    "TRAINING": (_training, "0: dropout without an argument of its own does nothing, as in Tensor.train(False)"),
    "VECTOR_WIDTH": (_width, "lanes of new schedules; 1 is the readable scalar form, None the machine's"),
}


class Context(contextlib.ContextDecorator):
    """`with Context(THREADS=1, VECTOR_WIDTH=1):` or `@Context(GRAD=0)`: settings for what is recorded and computed inside.
    ValueError for a setting that there is not; it lists those that there are (SETTINGS)."""

    def __init__(self, **settings: Any) -> None:
        unknown = [k for k in settings if k not in SETTINGS]
        if unknown:
            known = "\n  ".join(f"{k}: {what}" for k, (_, what) in SETTINGS.items())
            raise ValueError(
                f"Context has no setting {', '.join(unknown)}; it has\n  {known}\n"
                f"What was computed, why and how long it took is shown by tinyviz.watch().\n  at {user_line()}"
            )
        self.settings = settings
        self._entered: list[contextlib.ExitStack] = []

    def __enter__(self) -> Context:
        with contextlib.ExitStack() as stack:
            for name, value in self.settings.items():
                stack.enter_context(SETTINGS[name][0](value))
            self._entered.append(stack.pop_all())
        return self

    def __exit__(self, *exc: Any) -> None:
        self._entered.pop().close()


__all__ = ["DEVICES", "SETTINGS", "Context", "Device"]
