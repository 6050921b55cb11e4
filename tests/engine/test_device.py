"""Device and Context: the backend that computes, by device names, and settings that hold inside a with-block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyengine
from tinyengine import Context, Device, Tensor, backends, hooks, machine, spec
from tinyengine import realize as engine
from tinyengine.device import SETTINGS


def programs(f: Any) -> list[Any]:
    seen: list[Any] = []
    with hooks.subscribed(seen.append, hooks.Launch):
        f()
    return [e.program for e in seen]


def test_what_a_program_of_this_vocabulary_imports() -> None:
    for name in ("Tensor", "dtypes", "Device", "nn", "optim", "TinyJit", "jit", "Context"):
        assert hasattr(tinyengine, name) and name in dir(tinyengine)


def test_the_default_device_is_the_backend_that_computes() -> None:
    assert Device.DEFAULT == "CPU" and backends.current() == "llvm" and repr(Device) == "Device(DEFAULT='CPU')"
    with Context(DEVICE="python"):
        assert Device.DEFAULT == "PYTHON" and backends.current() == "reference"
        (p,) = programs(lambda: (Tensor([1.0, 2.0]) + 1).realize())
        assert p.backend == "reference"
        Device.DEFAULT = "CPU"  # to the end of the block
        assert backends.current() == "llvm"
    assert Device["PYTHON"] is backends.get("reference") and Device[Device.DEFAULT] is backends.get("llvm")
    assert [Device.canonicalize(n) for n in ("cpu:0", "clang", "gpu", None)] == ["CPU", "CPU", "CL", "CPU"]
    assert {"CPU", "PYTHON", "NULL"} <= set(Device.get_available_devices())
    for name in ("cuda", "CPU:1"):
        with pytest.raises(
            backends.BackendError, match=rf"no device '{name}'; there is one each of: CPU, LLVM.*\n  at test_device"
        ):
            Device[name]


def test_to_takes_devices_and_dtypes_as_pytorch_has_them() -> None:
    x = Tensor([1.5])
    assert x.to("cpu").dtype.name == x.to("CPU:0").dtype.name == "float32" and x.device == "CPU"
    assert x.to("float16").dtype.name == x.to("cpu", dtype="float16").dtype.name == x.to(x.half()).dtype.name == "float16"
    assert x.to(device="cpu", dtype=tinyengine.dtypes.int32).tolist() == [1]
    with pytest.raises(backends.BackendError, match="no device 'cuda'"):
        x.to("cuda")


def test_settings_hold_inside_and_go() -> None:
    x = Tensor(np.ones(64, np.float32), requires_grad=True)
    before = engine.current_choices(), spec.enabled, Tensor.training, machine.current().cores
    with Context(VECTOR_WIDTH=1, SPEC=0, TRAINING=0, GRAD=0):
        assert engine.current_choices().vector_width == 1 and not spec.enabled and not Tensor.training
        assert not (x * 2).requires_grad and x.dropout(1.0) is not x and x.dropout(0.9).tolist() == [1.0] * 64
        with Context(VECTOR_WIDTH=8):
            assert engine.current_choices().vector_width == 8 and not spec.enabled
        assert engine.current_choices().vector_width == 1
    assert (engine.current_choices(), spec.enabled, Tensor.training, machine.current().cores) == before
    assert (x * 2).requires_grad and (x.dropout(0.5) == 0).any().item()

    @Context(GRAD=0)
    def f() -> Tensor:
        return x * 2

    assert not f().requires_grad and not f().requires_grad


def test_one_thread() -> None:
    with Context(THREADS=1):
        assert machine.current().cores == 1
        (p,) = programs(lambda: (Tensor(np.ones((512, 512), np.float32)) * 3 + 1).realize())
        assert p.machine.cores == 1
        np.testing.assert_array_equal((Tensor(np.ones((300, 300), np.float32)) * 3).sum().item(), 270000)


def test_settings_that_there_are_not_are_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="Context has no setting DEBUG, BEAM; it has") as e:
        Context(DEBUG=2, BEAM=1, GRAD=1)
    assert all(f"{name}: " in str(e.value) for name in SETTINGS) and "tinyviz.watch()" in str(e.value)
    with pytest.raises(backends.BackendError), Context(VECTOR_WIDTH=1, DEVICE="cuda"):
        pass
    assert engine.current_choices().vector_width is None  # what was entered before the error is left again


def test_training_of_all_dropouts() -> None:
    x = Tensor(np.ones(100, np.float32))
    with Tensor.train(False):
        assert x.dropout().tolist() == [1.0] * 100 and x.dropout(0.5, training=True).sum().item() != 100
        with Tensor.train():
            assert x.dropout(0.5).sum().item() != 100
    assert x.dropout(0.5, training=False).tolist() == [1.0] * 100
