"""OpenCL devices: which one works here, and memory on it. pyopencl is imported on first use.

A device is chosen by what it does, never by its name: the first on which a tiny kernel builds, runs and gives the right
numbers. Drivers may list devices for which they cannot compile; those are passed over, and `Found.why` quotes their error.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from tinyengine import dtypes
from tinyengine.machine import Machine
from tinyengine.program import Program
from tinyengine.runtime.buffer import Buffer

PROBE = """
kernel void probe(global const float* x, global float* out) {
  long i = (long)get_global_id(0) * 4;
  vstore4(fma(vload4(0, x + i), (float4)(2.0f), (float4)(1.0f)), 0, out + i);
}
"""
OPTIONS = ("-cl-std=CL1.2", "-w")  # warnings are not for whoever runs the program
_LANES = 4
WORK_ITEMS = 256  # of a group: enough to hide waiting, and several groups find room on a compute unit


forked = False  # whether this is the child of a process that had a device: the driver's threads stayed behind


def _after_fork() -> None:
    global forked
    forked = forked or find.cache_info().currsize > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def cl() -> Any:
    """The module pyopencl. Raises ImportError where it is missing."""
    import pyopencl

    return pyopencl


@dataclass(eq=False)
class Device:
    """A device that passed the probe. `shared`: it works on the process's own memory, without copies; `doubles`: it has float64;
    `cpu`: work-items are iterations of a thread, so that one at a time is right, and groups of them bring nothing; `units`:
    compute units; `items`: of a group at most; `local_bytes`: memory that the work-items of a group share."""

    handle: Any
    context: Any
    name: str
    shared: bool
    doubles: bool
    cpu: bool
    units: int
    align: int
    options: tuple[str, ...]
    items: int
    local_bytes: int
    queues: dict[bool, Any] = field(default_factory=dict)

    def text(self) -> str:
        """One line for people: what it is, and how far this way of using it is tested."""
        if self.cpu:
            return f"{self.name}, {self.units} compute units, a CPU: no work-groups"
        groups = f"work-groups of up to {self.items} work-items with {self.local_bytes >> 10} KiB"
        return f"{self.name}, {self.units} compute units, {groups}: tested on PoCL, not yet on GPU hardware"

    def queue(self, clocks: bool) -> Any:
        """An in-order queue; with `clocks` one whose events carry times."""
        if clocks not in self.queues:
            kind = cl().command_queue_properties.PROFILING_ENABLE if clocks else 0
            self.queues[clocks] = cl().CommandQueue(self.context, self.handle, properties=kind)
        return self.queues[clocks]

    def group(self, kernel: Any, items: int) -> int:
        """Work-items of a group for `kernel`, which has work for `items`: a multiple of 32, as far as the device lets it."""
        info = cl().kernel_work_group_info.WORK_GROUP_SIZE
        return max(1, min(-(-items // 32) * 32, WORK_ITEMS, self.items, int(kernel.get_work_group_info(info, self.handle))))

    def build(self, text: str) -> Any:
        """A built cl.Program. The binaries are kept on disk by pyopencl, or by the driver. Raises pyopencl.RuntimeError with the
        compiler's log."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of the compiler
            return cl().Program(self.context, text).build(options=list(self.options), devices=[self.handle])


@dataclass(frozen=True, slots=True)
class Found:
    """The chosen device, or why there is none; `refused`: what was passed over, with the reason."""

    device: Device | None
    why: str
    refused: tuple[str, ...]


@functools.cache
def find() -> Found:
    """The first device of the first platform that passes the probe."""
    try:
        platforms = cl().get_platforms()
    except ImportError as e:
        return Found(None, f"pyopencl is not installed ({e}).", ())
    except Exception as e:  # the loader raises when it knows of no driver
        why = f"no OpenCL driver is installed ({first_line(e)}); PoCL is one for CPUs (Debian: apt install pocl-opencl-icd)."
        return Found(None, why, ())
    refused: list[str] = []
    for at, p in enumerate(platforms):
        try:
            devices = p.get_devices()
        except Exception as e:
            refused.append(f"{p.name.strip()}: {first_line(e)}")
            continue
        for k, d in enumerate(devices):
            label = f"{d.name.strip()} of {p.name.strip()}"
            try:
                survives(at, k)
                return Found(probe(d, label), "", tuple(refused))
            except Exception as e:
                refused.append(f"{label}: {first_line(e)}")
    if not refused:
        return Found(None, "no OpenCL driver lists a device.", ())
    return Found(None, f"no OpenCL device could build and run a tiny kernel ({'; '.join(refused)}).", tuple(refused))


def first_line(e: BaseException) -> str:
    lines = [x.strip() for x in str(e).splitlines() if x.strip()]
    errors = [x for x in lines if "error:" in x]
    return (errors or lines or [type(e).__name__])[0][:200]


def survives(platform: int, device: int) -> None:
    """Raises RuntimeError where the driver would end this process: PoCL does when it finds no `ld` to link a kernel with. Where
    there is none a child asks the driver, of which some do without, for a kernel that it cannot have kept."""
    if shutil.which("ld") is not None or not sys.executable:
        return
    code = (
        "from tinyengine.backends import opencl_device as dev\n"
        f"dev.PROBE = dev.PROBE.replace('probe(', 'probe(/* {time.time_ns()} */ ')\n"
        f"dev.probe(dev.cl().get_platforms()[{platform}].get_devices()[{device}], '')"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYOPENCL_NO_CACHE": "1"}
    child = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if child.returncode < 0:  # what is less than the end of the process is seen here
        said = next((x for x in child.stderr.splitlines() if "error:" in x), f"signal {-child.returncode}")
        raise RuntimeError(f"it needs the program ld, which is not on PATH (Debian: apt install binutils): {said}")


def probe(handle: Any, label: str) -> Device:
    """`handle` as a Device. Raises what the driver raises, or RuntimeError when the numbers are wrong."""
    c = cl()
    context = c.Context([handle])
    config = int(handle.single_fp_config)
    exact = int(c.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT)
    options = OPTIONS + (("-cl-fp32-correctly-rounded-divide-sqrt",) if config & exact else ())
    cpu = bool(int(handle.type) & int(c.device_type.CPU))
    d = Device(
        handle, context, label, False, "cl_khr_fp64" in handle.extensions.split(), cpu, int(handle.max_compute_units),
        max(1, int(handle.mem_base_addr_align) // 8), options, int(handle.max_work_group_size), int(handle.local_mem_size),
    )  # fmt: skip
    kernel = c.Kernel(d.build(PROBE), "probe")
    _try(d, kernel, False)
    if cpu:
        try:
            _try(d, kernel, True)
            d.shared = True
        except Exception:
            d.shared = False
    return d


def _try(d: Device, kernel: Any, shared: bool) -> None:
    """Run the probe twice on memory that changes in between, in the way in which programs will use it."""
    c, q = cl(), d.queue(False)
    n = 16 * _LANES
    x, out = np.zeros(n, np.float32), np.zeros(n, np.float32)
    flags = c.mem_flags.READ_WRITE
    if shared:
        a, b = (c.Buffer(d.context, flags | c.mem_flags.USE_HOST_PTR, hostbuf=v) for v in (x, out))
    else:
        a, b = (c.Buffer(d.context, flags, size=x.nbytes) for _ in range(2))
    kernel.set_args(a, b)
    for start in (0.0, 100.0):
        x[:] = np.arange(n, dtype=np.float32) + np.float32(start)
        if not shared:
            c.enqueue_copy(q, a, x)
        c.enqueue_nd_range_kernel(q, kernel, (n // _LANES,), (1,) if d.cpu else None)
        q.finish()
        if not shared:
            c.enqueue_copy(q, out, b)
        if not np.array_equal(out, 2 * x + 1):
            raise RuntimeError("the tiny kernel gave wrong numbers")


FLOPS_PER_CYCLE = 256  # of a compute unit: 128 fused multiply-adds, as is usual
VECTOR_BYTES = 16  # the widest load of one work-item


@functools.cache
def machine(d: Device) -> Machine:
    """A device with work-groups as the stages see it: what it says of itself, and peaks that are estimated from that. A core is
    a compute unit; its L1 and L2 are its local memory, where the rows of a group lie; L3 is the device's cache. The estimates
    have not yet been compared with a GPU."""
    h = d.handle
    fma = max(1, int(h.max_clock_frequency)) * 1e6 * FLOPS_PER_CYCLE
    cache = int(h.global_mem_cache_size) or 1 << 20
    near, far = 64 * fma / FLOPS_PER_CYCLE, 2e9 * d.units
    bandwidth = {"l1": 2 * near, "l2": 2 * near, "l3": near / 2, "dram": far}
    return Machine(
        name=d.name, target="opencl", cores=d.units, threads=d.units, vector_bytes=VECTOR_BYTES, vector_registers=64,
        l1_bytes=d.local_bytes, l2_bytes=d.local_bytes, l3_bytes=cache, fma_flops=fma, fma_flops_all=fma * d.units,
        read=bandwidth, read_all={k: v * d.units if k != "dram" else v for k, v in bandwidth.items()},
        write_all=far, stream_all=far, copy_all=far, launch_seconds=5e-6, start_seconds=2e-5, spread=0.5, source="estimated",
        work_items=min(WORK_ITEMS, d.items), local_bytes=d.local_bytes,
    )  # fmt: skip


# ---- memory


class Memory(Protocol):
    """The memory of one program on a device: an object to pass to kernels for each slot that the caller gives."""

    def bind(self, i: int, b: Buffer) -> Any:
        """The device's memory for slot i, given as `b` in this run."""
        ...

    def before(self, queue: Any, buffers: Sequence[Buffer]) -> None:
        """Bring the caller's values to the device."""
        ...

    def after(self, queue: Any, buffers: Sequence[Buffer]) -> None:
        """Bring results back, waiting for them."""
        ...


def view(device: Device, b: Buffer) -> Any:
    """The memory of `b` itself, as the device sees it; made once for each memory and size, and kept with it."""
    if b.nbytes == 0:
        return cl().Buffer(device.context, cl().mem_flags.READ_WRITE, size=64)
    key = (id(device), b.nbytes)
    seen = b.views.get(key)
    if seen is None:
        flags = cl().mem_flags.READ_WRITE | cl().mem_flags.USE_HOST_PTR
        # by its address: an array of the Buffer would keep the memory from being used again
        memory = (ctypes.c_byte * b.nbytes).from_address(b.address)
        seen = b.views[key] = cl().Buffer(device.context, flags, hostbuf=memory)
    return seen


class SharedMemory:
    """The caller's buffers themselves; only for devices on which the probe saw this work."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def bind(self, i: int, b: Buffer) -> Any:
        return view(self.device, b)

    def before(self, queue: Any, buffers: Sequence[Buffer]) -> None:
        """Nothing: they are the same memory."""

    def after(self, queue: Any, buffers: Sequence[Buffer]) -> None:
        queue.finish()


class CopiedMemory:
    """Memory of the device's own: what is read is copied there before each run, what is written is copied back after it."""

    def __init__(self, device: Device, program: Program) -> None:
        c = cl()
        self.slots = program.slots[: program.given]
        self.own = [c.Buffer(device.context, c.mem_flags.READ_WRITE, size=max(64, s.nbytes)) for s in self.slots]

    def bind(self, i: int, b: Buffer) -> Any:
        return self.own[i]

    def before(self, queue: Any, buffers: Sequence[Buffer]) -> None:
        for s, b, m in zip(self.slots, buffers, self.own, strict=True):
            if s.role != "output" and s.nbytes:
                cl().enqueue_copy(queue, m, b.array[: s.size], is_blocking=False)

    def after(self, queue: Any, buffers: Sequence[Buffer]) -> None:
        for s, b, m in zip(self.slots, buffers, self.own, strict=True):
            if s.role != "input" and s.nbytes:
                cl().enqueue_copy(queue, b.array[: s.size], m, is_blocking=False)
        queue.finish()


def temporaries(device: Device, program: Program) -> tuple[list[Any], Any]:
    """(memory of each temporary slot, what has to be kept alive): parts of one arena, placed as the program says, or anew where
    the device lets buffers begin only further apart."""
    c = cl()
    slots = program.slots[program.given :]
    if not slots:
        return [], None
    offsets = [s.offset for s in slots]
    if any(at % device.align for at in offsets):
        offsets = placed(program, device.align)
    size = max(64, *(at + max(1, s.nbytes) for at, s in zip(offsets, slots, strict=True)))
    if device.shared:
        keep = Buffer(size, dtypes.uint8, "arena")
        arena = view(device, keep)
    else:
        keep = arena = c.Buffer(device.context, c.mem_flags.READ_WRITE, size=size)
    parts: dict[tuple[int, int], Any] = {}
    for at, s in zip(offsets, slots, strict=True):
        key = (at, max(1, s.nbytes))
        if key not in parts:
            parts[key] = arena.get_sub_region(*key)
    return [parts[at, max(1, s.nbytes)] for at, s in zip(offsets, slots, strict=True)], (keep, arena)


def placed(program: Program, align: int) -> list[int]:
    """Offsets of the temporaries, multiples of `align`: the largest first, each at the lowest place free while it is used."""
    spans: dict[int, list[int]] = {}
    for n, call in enumerate(program.calls):
        for s in call.slots:
            if s >= program.given:
                spans.setdefault(s, [n, n])[1] = n
    offsets = [0] * (len(program.slots) - program.given)
    taken: list[tuple[int, int, int, int]] = []  # offset, end, first call, last call
    for s, (first, last) in sorted(spans.items(), key=lambda kv: (-program.slots[kv[0]].nbytes, kv)):
        nbytes = -(-max(1, program.slots[s].nbytes) // align) * align
        at = 0
        for offset, end, f, la in sorted(taken):
            if f <= last and first <= la and offset < at + nbytes and at < end:
                at = end
        taken.append((at, at + nbytes, first, last))
        offsets[s - program.given] = at
    return offsets


@functools.cache
def with_copies(device: Device) -> Device:
    """The same device, on memory of its own."""
    return replace(device, shared=False, queues={})
