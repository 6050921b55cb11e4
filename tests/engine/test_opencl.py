"""The opencl backend: choice of a device, memory, source and its links, interrupts. What programs compute: test_backends.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyengine import Tensor, backends, dtypes, hooks, jit
from tinyengine.backends import BackendError
from tinyengine.backends import opencl_device as dev
from tinyengine.backends.graph_eval import evaluate
from tinyengine.backends.opencl import OpenCLBackend, OpenCLExecutable
from tinyengine.backends.opencl_device import Device
from tinyengine.backends.opencl_module import program_text
from tinyengine.backends.opencl_ops import literal
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    Store,
    apply,
    const,
    index,
    kernel_lines,
    load,
    name,
    ramp,
    var,
)  # fmt: skip
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime import native
from tinyengine.runtime.buffer import Buffer
from tinyengine.runtime.buffer import memory as kept_memory

from .test_backends import chain, graph_of, indexed, mlp, run_kernel, update

F32, I32 = dtypes.float32, dtypes.int32


@pytest.fixture
def device() -> Device:
    found = dev.find()
    if found.device is None:
        pytest.skip(found.why)
    return found.device


@pytest.fixture(params=["shared", "copies"])
def memory(request: pytest.FixtureRequest, device: Device) -> Device:
    """The device on the process's memory, and on memory of its own."""
    if request.param == "copies":
        return dev.with_copies(device)
    if not device.shared:
        pytest.skip(f"{device.name} does not work on the process's memory")
    return device


# ---- choosing a device


def platforms(monkeypatch: pytest.MonkeyPatch, *listed: Any) -> None:
    monkeypatch.setattr(dev, "cl", lambda: SimpleNamespace(get_platforms=lambda: list(listed)))


def platform(label: str, *devices: str) -> Any:
    return SimpleNamespace(name=label, get_devices=lambda: [SimpleNamespace(name=d) for d in devices])


def test_a_device_that_cannot_build_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    platforms(monkeypatch, platform("Old", "unknown CPU"), platform("Good", "first", "second"))

    def probe(handle: Any, label: str) -> Any:
        if label.endswith("of Old"):
            raise RuntimeError("clBuildProgram failed\n  error: unknown target CPU 'generic'\nmore")
        return label

    monkeypatch.setattr(dev, "probe", probe)
    found = dev.find.__wrapped__()
    assert found.device == "first of Good" and found.why == ""
    assert found.refused == ("unknown CPU of Old: error: unknown target CPU 'generic'",)


def test_one_sentence_says_why_no_device_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    find = dev.find.__wrapped__

    def missing() -> Any:
        raise ImportError("No module named 'pyopencl'")

    monkeypatch.setattr(dev, "cl", missing)
    assert find().why == "pyopencl is not installed (No module named 'pyopencl')."

    def no_driver() -> Any:
        raise RuntimeError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(dev, "cl", lambda: SimpleNamespace(get_platforms=no_driver))
    why = find().why
    assert why.startswith("no OpenCL driver is installed (clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR)") and "PoCL" in why
    platforms(monkeypatch)
    assert find().why == "no OpenCL driver lists a device."
    platforms(monkeypatch, platform("P", "d"))

    def wrong(handle: Any, label: str) -> Any:
        raise RuntimeError("the tiny kernel gave wrong numbers")

    monkeypatch.setattr(dev, "probe", wrong)
    why = find().why
    assert why == "no OpenCL device could build and run a tiny kernel (d of P: the tiny kernel gave wrong numbers)."
    monkeypatch.setattr(dev, "find", lambda: dev.Found(None, why, ()))
    assert OpenCLBackend().available() == why
    with pytest.raises(BackendError, match="tiny kernel gave wrong numbers"):
        OpenCLBackend().device()


def test_a_driver_that_would_end_the_process_is_passed_over(tmp_path: Path, device: Device) -> None:
    """PoCL aborts where it finds no linker, though it may still have the probe from a day when there was one."""
    code = """
import numpy as np
from tinyengine import Tensor, backends
try:
    with backends.use("opencl"):
        print((Tensor(np.ones(1000, np.float32)) * 2).sum().item())
except backends.BackendError as e:
    print(e)
"""
    kept = {**os.environ, "POCL_CACHE_DIR": str(tmp_path), "PYOPENCL_NO_CACHE": "1"}
    probe = "from tinyengine.backends import opencl_device as dev; assert dev.find().device"
    subprocess.run([sys.executable, "-c", probe], env=kept, check=True)
    out = subprocess.run([sys.executable, "-c", code], env=kept | {"PATH": ""}, capture_output=True, text=True)
    assert out.returncode == 0 and ("program ld, which is not on PATH" in out.stdout or out.stdout == "2000.0\n"), out.stderr


def test_without_a_linker_a_child_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command[-1])
        return SimpleNamespace(returncode=codes.pop(), stderr='error: unable to execute command: "ld" does not exist\n')

    monkeypatch.setattr(dev.subprocess, "run", run)
    monkeypatch.setattr(dev.shutil, "which", lambda name: "/usr/bin/ld")
    codes = [1, 0, -6]
    dev.survives(0, 0)
    monkeypatch.setattr(dev.shutil, "which", lambda name: None)
    assert not asked
    with pytest.raises(RuntimeError, match=r"needs the program ld, which is not on PATH .*unable to execute command"):
        dev.survives(2, 3)
    assert "get_platforms()[2].get_devices()[3]" in asked[0]
    dev.survives(0, 0)  # a driver that links by itself
    dev.survives(0, 0)  # one whose error is seen in this process
    assert not codes


def test_the_probe_notices_wrong_numbers(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dev.probe(device.handle, "again").shared == device.shared
    monkeypatch.setattr(dev, "PROBE", dev.PROBE.replace("(float4)(1.0f)", "(float4)(3.0f)"))
    with pytest.raises(RuntimeError, match="wrong numbers"):
        dev.probe(device.handle, "wrong")
    monkeypatch.setattr(dev, "PROBE", "no OpenCL C")
    with pytest.raises(Exception, match="BUILD_PROGRAM_FAILURE"):
        dev.probe(device.handle, "broken")


def test_pyopencl_is_imported_when_needed_and_not_before() -> None:
    code = "import sys, tinyengine.backends.opencl; print('pyopencl' in sys.modules, 'llvmlite' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_a_forked_child_is_told_and_the_parent_goes_on(device: Device) -> None:
    with backends.use("opencl"):
        f = jit(lambda x: x * 2 + 1)
        x = Tensor(np.arange(40, dtype=np.float32))
        want = f(x).numpy()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # where the driver would wait for threads that do not exist
            said = []
            for compute in (lambda: f(x), lambda: (x * 3).numpy()):
                try:
                    compute()
                except BackendError as e:
                    said.append(str(e))
            os.write(write, "\n".join(said).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read().splitlines()
        assert os.waitpid(child, 0)[1] == 0
        assert len(said) == 2 and all("cannot be used in a forked process" in s and "llvm" in s for s in said)
        np.testing.assert_array_equal(f(x).numpy(), want)


def test_two_python_threads_call_one_function(device: Device) -> None:
    """Each gets the result for its own argument, whoever set the kernel's arguments last."""
    with backends.use("opencl"):
        f = jit(lambda x: x * 2 + 1)
        f(Tensor(np.zeros(40, np.float32)))
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        wrong: list[float] = []

        def work(k: int) -> None:
            x = Tensor(np.full(40, k, np.float32))
            for _ in range(300):
                wrong.extend(v for v in set(f(x).numpy().tolist()) if v != 2 * k + 1)

        try:
            workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
            for w in workers:
                w.start()
            for w in workers:
                w.join()
        finally:
            sys.setswitchinterval(interval)
        assert not wrong


# ---- memory


def test_a_program_on_both_kinds_of_memory(memory: Device) -> None:
    e = OpenCLExecutable(chain(), memory)
    x, s = Buffer.of(np.arange(40) % 20, I32), Buffer.of(np.arange(40), I32)
    for _ in range(2):
        e.run([x, s])
    x.array[:] = 1  # what the caller changes between two runs is seen
    times = e.run([x, s], clocks=True)
    assert times is not None and len(times.starts) == 5
    np.testing.assert_array_equal(s.array, np.arange(40) + 32 * (np.arange(40) % 20) + 16)
    x.array[3] = 50
    before = s.array.copy()
    with pytest.raises(IndexError, match="x must stay below 50"):
        e.run([x, s])
    np.testing.assert_array_equal(s.array, before)


@pytest.mark.parametrize("graph", [mlp, indexed, update], ids=lambda f: f.__name__)
def test_graphs_with_copies_give_what_they_give_without(device: Device, graph: Any) -> None:
    compiled = lower(graph_of(graph()), machine=FIXTURE, backend="opencl")
    want = compiled.run()
    assert dev.with_copies(device) is OpenCLBackend(copies=True).device()
    compiled.executable = OpenCLBackend(copies=True).compile(compiled.plan)
    for a, b in zip(compiled.run(), want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("align", [64, 128, 4096])
def test_temporaries_where_buffers_must_begin_far_apart(memory: Device, align: int) -> None:
    """Offsets of the plan that the device does not allow are found anew; what is never needed together shares memory."""
    offsets = dev.placed(chain(), align)
    assert all(at % align == 0 for at in offsets) and len(set(offsets)) == 2 and offsets[0] == offsets[2]
    real = memory.align
    e = OpenCLExecutable(chain(), replace(memory, align=max(align, real), queues={}))
    assert e._temporaries[0] is e._temporaries[2] and e._temporaries[0] is not e._temporaries[1]
    x, s = Buffer.of(np.arange(40) % 20, I32), Buffer.of(np.zeros(40), I32)
    e.run([x, s])
    np.testing.assert_array_equal(s.array, 16 * (np.arange(40) % 20))


def test_an_interrupt_leaves_no_update_half_done(memory: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two updates in place; interrupted while the n-th kernel is queued, for every n."""
    i = var("i", 0, 39)
    x, s = Buf("x", I32, (40,)), Buf("s", I32, (40,))
    add = Kernel("add", (x, s), (Loop(i, 0, 40, 1, (Accumulate(s, (i,), "add", load(x, (i,))),)),), ("s",))
    slots = (
        Slot("x", I32, (40,), "input"),
        Slot("a", I32, (40,), "state"),
        Slot("b", I32, (40,), "state"),
        Slot("t", I32, (40,), "temporary"),
    )
    copy = Kernel("copy", (x, s), (Loop(i, 0, 40, 1, (Store(s, (i,), load(x, (i,))),)),), ("s",))
    e = OpenCLExecutable(Program("two", slots, (Call(copy, (0, 3)), Call(add, (3, 1)), Call(add, (3, 2))), 192), memory)
    given = [Buffer.of(np.ones(40), I32), Buffer.of(np.zeros(40), I32), Buffer.of(np.zeros(40), I32)]
    real = dev.cl().enqueue_nd_range_kernel
    for n in range(3):
        count = iter(range(100))

        def interrupted(*args: Any, n: int = n, count: Iterator[int] = count, **kwargs: Any) -> Any:
            if next(count) == n:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(dev.cl(), "enqueue_nd_range_kernel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            e.run(given)
        assert not given[1].array.any() and not given[2].array.any()
    monkeypatch.setattr(dev.cl(), "enqueue_nd_range_kernel", real)
    e.run(given)
    assert (given[1].array == 1).all() and (given[2].array == 1).all()


# ---- devices that have less


def divisions() -> Kernel:
    a, b, q, r = (Buf(n, I32, (64,)) for n in "abqr")
    place = ramp(index(0), 64)
    x, y = load(a, (place,)), load(b, (place,))
    body = (Store(q, (place,), apply("floordiv", (x, y))), Store(r, (place,), apply("mod", (x, y))))
    return Kernel("divisions", (a, b, q, r), body, ("q", "r"))


def test_without_float64_integers_are_divided_as_integers(device: Device) -> None:
    less = replace(device, doubles=False, queues={})
    a = np.concatenate([[-(2**31), 2**31 - 1, -7, 7, -8, 8, 0, 1], np.random.default_rng(0).integers(-1000, 1000, 56)]).astype(
        np.int32
    )
    b = np.concatenate([[-1, -1, 2, -2, 4, -4, 3, 0], np.random.default_rng(1).integers(-9, 9, 56)]).astype(np.int32)

    class Less(OpenCLBackend):
        def device(self) -> Device:
            return less

    got = run_kernel(Less(), divisions(), a=a, b=b)
    safe = np.where(b == 0, 1, b).astype(np.int64)
    np.testing.assert_array_equal(got["q"], np.where(b == 0, 0, a // safe).astype(np.int32))
    np.testing.assert_array_equal(got["r"], np.where(b == 0, 0, a % safe).astype(np.int32))
    slots = tuple(Slot(p.name, p.dtype, p.shape, "input" if p.name in "ab" else "output") for p in divisions().params)
    program = Program("p", slots, (Call(divisions(), (0, 1, 2, 3)),), 0)
    assert "double" not in OpenCLExecutable(program, less).source(0)


def test_without_float64_a_kernel_that_needs_it_is_refused(device: Device) -> None:
    x, out = Buf("x", dtypes.float64, (8,)), Buf("out", F32, (8,))
    place = ramp(index(0), 8)
    k = Kernel("wide", (x, out), (Store(out, (place,), apply("cast", (load(x, (place,)),), F32)),), ("out",))
    program = Program("p", (Slot("x", dtypes.float64, (8,), "input"), Slot("out", F32, (8,), "output")), (Call(k, (0, 1)),), 0)
    with pytest.raises(BackendError, match=r"kernel wide needs float64, which .* has not"):
        OpenCLExecutable(program, replace(device, doubles=False, queues={}))


# ---- source


def test_equal_kernels_are_built_once_in_one_program(device: Device) -> None:
    e = OpenCLExecutable(chain(), device)
    assert e.sources[2] is e.sources[3] and e.sources[0] is e.sources[1]
    distinct = list({id(s): s for s in e.sources}.values())
    text = program_text(distinct)
    assert len(distinct) == 3 and text.count("kernel void") == 3
    assert re.findall(r"kernel void (\w+)", text) == ["double_50", "double_1000", "add_k"]


def test_every_line_is_linked_to_the_kernel_line_that_it_does(device: Device) -> None:
    x, out, acc = Buf("x", F32, (4, 32)), Buf("out", F32, (4,)), Buf("acc", F32, (16,), "register")
    lanes = ramp(index(0), 16)
    i, j, u = var("i", 0, 3), var("j", 0, 31), var("u", 0, 15)
    body = (
        Loop(i, 0, 4, 1, (
            Alloc(acc, 0.0),
            Loop(j, 0, 32, 16, (Let("v", load(x, (i, ramp(j, 16)))), Accumulate(acc, (lanes,), "add", name("v", F32, 16)))),
            Loop(u, 0, 2, 1, (Accumulate(out, (i,), "add", apply("cast", (u,), F32)),), "unroll"),
            Store(out, (i,), Expr("lanes_reduce", F32, 1, (load(acc, (ramp(index(0), 16),)),), "add")),
        ), "parallel"),
    )  # fmt: skip
    k = Kernel("linked", (x, out), body, ("out",))
    program = Program("p", (Slot("x", F32, (4, 32), "input"), Slot("out", F32, (4,), "output")), (Call(k, (0, 1)),), 0)
    source = OpenCLExecutable(program, device).source(0)
    number, linked = 0, {}
    for row in source.splitlines():
        at = re.match(r"#line (\d+)", row)
        if at:
            number = int(at[1])
        elif row.strip():
            linked.setdefault(number, []).append(row.strip())
    lines = kernel_lines(k)
    assert set(linked) - {0} <= set(range(1, len(lines) + 1))
    said = {number: lines[number - 1][0].strip() for number in linked if number}
    assert said[2].startswith("parallel i") and linked[2][2].startswith("for (long i = begin; i < end; ++i)")
    assert said[3].startswith("register acc") and linked[3] == ["float16 acc = (float16)(0.0f);"]
    assert said[5].startswith("v = ") and linked[5] == ["const float16 v = vload16(0, x + i * 32 + j);"]
    assert said[6].startswith("acc[") and linked[6] == ["acc = acc + v;"]
    assert said[8].startswith("out[i] +=") and linked[8] == ["out[i] = out[i] + (float)0L;", "out[i] = out[i] + (float)1L;"]
    assert said[9].startswith("out[i] =") and linked[9] == ["out[i] = lanes_add_float16(acc);"]
    assert all(not row.startswith("kernel void") for row in linked[0])  # only helpers stand before the first link


def test_any_number_of_work_items_shares_all_iterations(device: Device) -> None:
    """Of a loop and its tails, each iteration once, in runs; how many work-items there are depends on the work."""
    out = Buf("out", F32, (90,))
    i, j = var("i", 5, 40), var("j", 50, 79)
    loops = (Loop(i, 5, 41, 3, (Accumulate(out, (i,), "add", const(1.0, F32)),), "parallel"),
             Loop(j, 50, 80, 7, (Accumulate(out, (j,), "add", const(1.0, F32)),), "parallel"))  # fmt: skip
    program = Program("p", (Slot("out", F32, (90,), "state"),), (Call(Kernel("twice", (out,), loops, ("out",)), (0,)),), 0)
    e = OpenCLExecutable(program, device)
    assert e._steps[0].items == 1, "too little work for a second thread"
    memory = Buffer.of(np.zeros(90), F32)
    for n, items in enumerate((1, 2, 3, 5, 16, 17, 18, 40), 1):
        e._steps[0].items = items
        e.run([memory])
        want = np.zeros(90)
        want[5:41:3] = want[50:80:7] = n
        np.testing.assert_array_equal(memory.array, want)
    many = lower(Graph([(Tensor(np.ones((3000, 700), np.float32)) * 2).sum(1).node]), machine=FIXTURE, backend="opencl")
    assert 1 < many.executable._steps[0].items <= native.CHUNKS_PER_THREAD * device.units


def vector_loads(x: Tensor) -> tuple[int, int]:
    """(loads of whole vectors, loads of a single element) in the text of the only kernel that computes `x`."""
    compiled = lower(Graph([x.node]), machine=FIXTURE, backend="opencl")
    (source,) = [compiled.executable.source(k) for k in range(len(compiled.plan.calls))]
    np.testing.assert_array_equal(compiled.run()[0], evaluate(compiled.graph)[0])
    return len(re.findall(r"vload\d+\(", source)), len(re.findall(r"\bp\[", source))


@pytest.mark.usefixtures("device")
def test_lanes_a_small_step_apart_are_picked_from_whole_vectors() -> None:
    for step in (2, 3, 5, 8):
        x = Tensor(np.random.default_rng(0).standard_normal((6, step * 64)).astype(np.float32))
        whole, single = vector_loads(x[:, ::step] + 1)
        assert whole >= step and single == 0
    for dtype in ("float16", "bool", "int64"):
        x = Tensor((np.arange(6 * 128).reshape(6, 128) % 3).astype(dtype))
        whole, single = vector_loads(x[:, 1::2].contiguous())
        assert whole >= 2 and single == 0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "bool"])
def test_a_transposing_copy_turns_blocks(dtype: str) -> None:
    x = Tensor(np.random.default_rng(0).integers(0, 2, (160, 96)).astype(dtype))
    whole, single = vector_loads(x.transpose(0, 1).contiguous())
    assert whole >= 16 and single == 0


def test_names_that_mean_something_in_opencl_c(device: Device) -> None:
    """Parameters, loops and values called like keywords, types, builtins, helpers and temporaries."""
    n = 32
    labels = [
        "float",
        "kernel",
        "global",
        "float16",
        "e1",
        "max",
        "maximum_float16",
        "lanes_add_float16",
        "a.b",
        "1x",
        "status",
        "half_bits8",
    ]
    params = [Buf(label, F32, (n,)) for label in labels]
    out = Buf("out", F32, (n,))
    i = var("for", 0, n - 16)
    place = ramp(i, 16)
    body: list[Stmt] = [Let("int", load(params[0], (place,)))]
    value = name("int", F32, 16)
    for k, p in enumerate(params[1:]):
        body.append(Let(f"v{k}" if k else "return", apply("maximum", (value, load(p, (place,))))))
        value = name(f"v{k}" if k else "return", F32, 16)
    body.append(Store(out, (place,), value))
    data = {label: np.random.default_rng(k).standard_normal(n).astype(np.float32) for k, label in enumerate(labels)}
    got = run_kernel(backends.get("opencl"), Kernel("while", (*params, out), (Loop(i, 0, n, 16, tuple(body)),), ("out",)), **data)
    np.testing.assert_array_equal(got["out"], np.max(list(data.values()), axis=0))


def test_a_name_defined_again_further_in_is_another_value(device: Device) -> None:
    x, out = Buf("x", I32, (8,)), Buf("out", I32, (8,))
    i, u = var("i", 0, 7), var("u", 0, 1)
    again = (Let("v", apply("add", (name("v", I32), const(10, I32)))), Accumulate(out, (i,), "add", name("v", I32)))
    body = Loop(i, 0, 8, 1, (Let("v", load(x, (i,))), Store(out, (i,), name("v", I32)), Loop(u, 0, 2, 1, again, "unroll")))
    got = run_kernel(backends.get("opencl"), Kernel("shadow", (x, out), (body,), ("out",)), x=np.arange(8))
    np.testing.assert_array_equal(got["out"], 3 * np.arange(8) + 20)


def test_literals_are_exact() -> None:
    assert (
        literal(0.1, F32) == "0.1f" and literal(0.1, dtypes.float64) == "0.1" and literal(0.1, dtypes.float16) == "0.099975586f"
    )
    assert literal(-(2**31), I32) == "(-2147483647 - 1)" and literal(2**64 - 1, dtypes.uint64) == "18446744073709551615uL"
    assert literal(-3, dtypes.int8) == "(char)-3" and literal(float("-inf"), F32) == "(-INFINITY)"
    assert (
        literal(float("nan"), F32) == "as_float(0x7fc00000)" and literal(-0.0, F32) == "(-0.0f)" and literal(3.0, F32) == "3.0f"
    )


def test_float16_is_right_for_all_bits_and_all_ties(device: Device) -> None:
    """Every float16 through a register and back; rounding of what lies between, at and beside every pair of neighbours."""
    size = 1 << 16
    bits, same = Buf("bits", dtypes.float16, (size,)), Buf("same", dtypes.float16, (size,))
    wide, narrow = Buf("wide", F32, (6 * size,)), Buf("narrow", dtypes.float16, (6 * size,))
    i, j = var("i", 0, size - 16), var("j", 0, 6 * size - 16)
    body = (
        Loop(i, 0, size, 16, (Store(same, (ramp(i, 16),), load(bits, (ramp(i, 16),))),)),
        Loop(j, 0, 6 * size, 16, (Store(narrow, (ramp(j, 16),), apply("cast", (load(wide, (ramp(j, 16),)),), dtypes.float16)),)),
    )
    everything = np.arange(size, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        here = everything.astype(np.float32)
        middle = (here + np.nextafter(everything, np.float16(np.inf)).astype(np.float32)) / 2
        near = [
            here,
            middle,
            np.nextafter(middle, np.float32(np.inf)),
            np.nextafter(middle, np.float32(-np.inf)),
            here * 1.0001,
            here * 300,
        ]
        values = np.concatenate(near).astype(np.float32)
        want = values.astype(np.float16)
    got = run_kernel(
        backends.get("opencl"),
        Kernel("halves", (bits, same, wide, narrow), body, ("same", "narrow")),
        bits=everything,
        wide=values,
    )
    numbers = ~np.isnan(everything)
    np.testing.assert_array_equal(got["same"].view(np.uint16)[numbers], everything.view(np.uint16)[numbers])
    assert np.isnan(got["same"][~numbers]).all()
    real = ~np.isnan(want)
    np.testing.assert_array_equal(got["narrow"].view(np.uint16)[real], want.view(np.uint16)[real])
    assert np.isnan(got["narrow"][~real]).all()


def test_products_are_added_in_one_operation_even_by_name(device: Device) -> None:
    """acc += v, v = a * b: the product has a name in the kernel, none in the source."""
    a, b, out, acc = Buf("a", F32, (8,)), Buf("b", F32, (8,)), Buf("out", F32, ()), Buf("acc", F32, (), "register")
    i = var("i", 0, 7)
    product = Let("v", apply("mul", (load(a, (i,)), load(b, (i,)))))
    body = (
        Alloc(acc, 0.0),
        Loop(i, 0, 8, 1, (product, Accumulate(acc, (), "add", name("v", F32)))),
        Store(out, (), load(acc, ())),
    )
    k = Kernel("dot", (a, b, out), body, ("out",))
    slots = (Slot("a", F32, (8,), "input"), Slot("b", F32, (8,), "input"), Slot("out", F32, (), "output"))
    source = OpenCLExecutable(Program("p", slots, (Call(k, (0, 1, 2)),), 0), device).source(0)
    assert "acc = muladd_float(" in source and " v = " not in source
    got = run_kernel(backends.get("opencl"), k, a=np.arange(8), b=np.arange(8))
    assert got["out"] == 140
    if device.cpu:  # the product's last bits are kept there too where this CPU keeps them: no rounding between the two
        x = np.array([-1 - 2.0**-11, 1 + 2.0**-12] + 6 * [0], np.float32)
        y = np.array([1, 1 + 2.0**-12] + 6 * [0], np.float32)
        (here, native) = (run_kernel(backends.get(b), k, a=x, b=y)["out"] for b in ("opencl", "llvm"))
        assert here == native and native in (0, 2.0**-24)


def test_a_steady_loop_takes_no_fresh_memory(device: Device) -> None:
    """What the driver made of a memory serves the next result that lies there, and keeps nobody from using it again."""
    with backends.use("opencl"):
        f = jit(lambda x: (x * 2 + 1).relu())
        x = Tensor(np.ones((512, 512), np.float32))
        for _ in range(3):
            y = f(x)
        before = kept_memory.fresh
        for _ in range(10):
            y = f(x)
        assert kept_memory.fresh == before
        assert y.numpy()[0, 0] == 3


def test_what_was_built_is_published(device: Device) -> None:
    seen: list[hooks.KernelEmitted] = []
    with hooks.subscribed(lambda e: seen.append(e), hooks.KernelEmitted):  # type: ignore[arg-type]
        e = OpenCLExecutable(chain(), device)
    assert [x.kernel.name for x in seen] == ["double_50", "double_1000", "add"]
    assert seen[0].backend == "opencl" and seen[0].source == e.source(0) and e.assembly(0) == ""


def test_graphs_name_their_kernels_in_the_source(device: Device) -> None:
    compiled = lower(Graph(graph_of(mlp()).roots), machine=FIXTURE, backend="opencl")
    for k in compiled.kernels:
        assert f"kernel void {k.name}" in k.source
