"""The opencl backend: any device whose driver builds and runs a tiny kernel.

Tested on PoCL on x86-64 CPUs, on the process's own memory and, on the same device, with copies. On a GPU programs run with
copies, and kernels whose parallel loops have parallel loops inside run in work-groups with local memory (opencl_groups). That
path is tested on PoCL, with groups, and has not yet been run on GPU hardware; nor have devices without float64 or fused
multiply-add.

All kernels of a program are one cl.Program, equal kernels one function. A run queues everything in order and waits once. What
is written in place is held back until all of it is queued: an interrupt before that leaves no update half done, and neither
does a failed Check, because what follows it returns at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyengine import dtypes, hooks
from tinyengine import machine as machines
from tinyengine.backends import BackendError, Times
from tinyengine.backends import opencl_device as dev
from tinyengine.backends.llvm import shared_memory
from tinyengine.backends.moves import Moves
from tinyengine.backends.opencl_device import Device, Memory
from tinyengine.backends.opencl_module import Function, Source, identifier, program_text, source, uses_doubles
from tinyengine.machine import Machine
from tinyengine.program import Program
from tinyengine.runtime import native, threads
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages.arithmetic.expand import Expander, Step, explain
from tinyengine.stages.emit import prepare

ITEMS_PER_UNIT = 4  # work-items at once for each compute unit, where each needs scratch memory
GROUPS_PER_UNIT = 64  # groups for each compute unit; each takes several iterations where there are more
CANCELLED = -1


@dataclass(eq=False)
class _Step:
    """One enqueue. `items`: work-items in all, `local`: of a group, None where the driver chooses; `given`: (argument, slot) for
    the memory that the caller gives; `bound`: what these arguments hold now."""

    kernel: Any
    items: int
    local: tuple[int] | None
    call: int
    given: tuple[tuple[int, int], ...]
    bound: list[Any] = field(default_factory=list)


def expander(doubles: bool) -> Expander:
    """Without float64, integers are divided as integers."""
    e = Expander()
    if not doubles:
        for op in ("floordiv", "mod"):
            e.table[op] = [x for x in e.table[op] if x.name not in ("divide-integers-as-floats", "remainder-as-floats")]
    return e


class OpenCLExecutable:
    """A compiled Program. One runs at a time: a kernel's arguments are set for one run."""

    def __init__(self, program: Program, device: Device) -> None:
        self.program, self.device = program, device
        began = time.perf_counter()
        self._lower = lower = expander(device.doubles)
        codes = [prepare(c.kernel, shared_memory(program, c)) for c in program.calls]
        self.messages: list[str] = []
        in_place = {i for i, s in enumerate(program.slots) if s.role == "state"}
        guarded = bool(in_place) or any(c.messages for c in codes)
        known: dict[str, Source] = {}
        names: set[str] = set()
        self.sources: list[Source] = []
        for code in codes:
            found = known.get(code.symbol)
            if found is None:
                if not device.doubles and uses_doubles(code.kernel, lower):
                    raise BackendError(f"kernel {code.kernel.name} needs float64, which {device.name} has not; use float32")
                name = _free(_function_name(code.kernel.name), names)
                local = None if device.cpu else device.local_bytes
                found = known[code.symbol] = source(code, name, lower, guarded, local)
            self.sources.append(found)
        self._built = device.build(program_text(list(known.values()))) if known else None
        self._memory: Memory = dev.SharedMemory(device) if device.shared else dev.CopiedMemory(device, program)
        self._temporaries, self._arena = dev.temporaries(device, program)
        self._status = Buffer(1, dtypes.int32, "status")
        c = dev.cl()
        if device.shared:
            self._status_memory = dev.view(device, self._status)
        else:
            self._status_memory = c.Buffer(device.context, c.mem_flags.READ_WRITE, size=64)
        self._guarded = guarded
        self._scratch: Any = None
        self._steps = self._prepare()
        self._first_write = next((n for n, s in enumerate(self._steps) if in_place & self._outputs(s.call)), len(self._steps))
        if hooks.watching:
            spent = (time.perf_counter() - began) / max(1, len(known))
            for x in known.values():
                hooks.publish(hooks.KernelEmitted("opencl", x.code.kernel, x.text(), spent, False))

    def _outputs(self, call: int) -> set[int]:
        c = self.program.calls[call]
        return {s for p, s in zip(c.kernel.params, c.slots, strict=True) if p.name in c.kernel.outputs}

    def _prepare(self) -> list[_Step]:
        """Kernels with everything set that is the same in each run."""
        c = dev.cl()
        steps: list[tuple[_Step, Function]] = []
        for n, (call, text) in enumerate(zip(self.program.calls, self.sources, strict=True)):
            first = len(self.messages) + 1
            self.messages += text.code.messages
            for f in text.functions:
                kernel = c.Kernel(self._built, f.name)
                given = []
                for at, p in enumerate(f.params):
                    slot = call.slots[p]
                    if slot < self.program.given:
                        given.append((at, slot))
                    else:
                        kernel.set_arg(at, self._temporaries[slot - self.program.given])
                at = len(f.params)
                if f.guarded:
                    kernel.set_arg(at, self._status_memory)
                    at += 1
                if f.checks:
                    kernel.set_arg(at, dtypes.int32.numpy.type(first))
                items, local = self._items(kernel, f)
                steps.append((_Step(kernel, items, local, n, tuple(given), [None] * len(given)), f))
        nbytes = max([s.items * f.scratch_bytes + s.items // (s.local or (1,))[0] * f.group_scratch for s, f in steps], default=0)
        if nbytes:
            self._scratch = c.Buffer(self.device.context, c.mem_flags.READ_WRITE, size=nbytes)
            for s, f in steps:
                if f.scratch_bytes or f.group_scratch:
                    s.kernel.set_arg(s.kernel.num_args - 1, self._scratch)
        return [s for s, _ in steps]

    def _items(self, kernel: Any, f: Function) -> tuple[int, tuple[int] | None]:
        """Work-items in all, and of a group."""
        few = ITEMS_PER_UNIT * self.device.units
        if f.items:
            size = self.device.group(kernel, f.items)
            most = few if f.scratch_bytes or f.group_scratch else GROUPS_PER_UNIT * self.device.units
            return size * min(f.trips, most), (size,)
        if not self.device.cpu:
            return min(f.trips, few) if f.scratch_bytes else f.trips, None
        _, runs = native.chunks(native.Step(0, (), f.trips, f.work, 0), self.device.units)
        return min(runs, few) if f.scratch_bytes else runs, (1,)

    def run(self, buffers: Sequence[Buffer], clocks: bool = False) -> Times | None:
        """Run all kernels on `buffers`, memory for the first `program.given` slots. Raises ValueError for a wrong number of them,
        IndexError with the message of a failed Check, KeyboardInterrupt when interrupted: nothing is written in place after a
        failed Check, and all or nothing after an interrupt. With `clocks`, times by the device's clock; a kernel of several parts
        lasts from the begin of the first to the end of the last."""
        if len(buffers) != self.program.given:
            raise ValueError(f"program {self.program.name} takes {self.program.given} buffers, {len(buffers)} were given")
        if not self._steps:
            return Times((), ()) if clocks else None
        _not_forked()
        with threads.lock:
            return self._run(buffers, clocks)

    def _run(self, buffers: Sequence[Buffer], clocks: bool) -> Times | None:
        c, queue = dev.cl(), self.device.queue(clocks)
        self._memory.before(queue, buffers)
        if self._guarded:
            self._status.array[0] = 0
            if not self.device.shared:
                c.enqueue_copy(queue, self._status_memory, self._status.array, is_blocking=False)
        events = self._enqueue(queue, buffers)
        try:
            if self._guarded and not self.device.shared:
                c.enqueue_copy(queue, self._status.array, self._status_memory, is_blocking=False)
        finally:  # whatever interrupts, nothing runs on after this call
            began = time.perf_counter() if hooks.watching else 0.0
            self._memory.after(queue, buffers)
            if hooks.watching:
                hooks.publish(hooks.HostWait("the OpenCL device", time.perf_counter() - began))
        if self._guarded and self._status.array[0]:
            raise IndexError(self.messages[int(self._status.array[0]) - 1])
        return self._times(events) if clocks else None

    def _enqueue(self, queue: Any, buffers: Sequence[Buffer]) -> list[Any]:
        c, bind = dev.cl(), self._memory.bind
        memory = [bind(i, b) for i, b in enumerate(buffers)]
        events: list[Any] = []
        gate: Any = None
        try:
            for n, s in enumerate(self._steps):
                for k, (at, slot) in enumerate(s.given):
                    if s.bound[k] is not memory[slot]:
                        s.kernel.set_arg(at, memory[slot])
                        s.bound[k] = memory[slot]
                wait = None
                if n == self._first_write:
                    gate = c.UserEvent(self.device.context)
                    wait = [gate]
                events.append(c.enqueue_nd_range_kernel(queue, s.kernel, (s.items,), s.local, wait_for=wait))
        except BaseException:
            # nothing has been written in place: what waits behind the gate returns at once when it opens
            self._cancel()
            if gate is not None:
                gate.set_status(c.command_execution_status.COMPLETE)
            queue.finish()
            raise
        if gate is not None:
            gate.set_status(c.command_execution_status.COMPLETE)
            queue.flush()
        return events

    def _cancel(self) -> None:
        self._status.array[0] = CANCELLED
        if self._guarded and not self.device.shared:
            aside = dev.cl().CommandQueue(self.device.context, self.device.handle)
            dev.cl().enqueue_copy(aside, self._status_memory, self._status.array, is_blocking=True)

    def _times(self, events: Sequence[Any]) -> Times:
        began = events[0].profile.queued
        starts: list[float] = [0.0] * len(self.program.calls)
        ends = list(starts)
        for s, e in zip(reversed(self._steps), reversed(events), strict=True):
            starts[s.call] = (e.profile.start - began) * 1e-9
            ends[s.call] = max(ends[s.call], (e.profile.end - began) * 1e-9)
        return Times(tuple(starts), tuple(e - s for s, e in zip(starts, ends, strict=True)))

    def source(self, call: int) -> str:
        """OpenCL C, with the helpers that this kernel uses; `#line N` says that what follows does line N of the kernel's text."""
        return self.sources[call].text()

    def expansions(self, call: int) -> Iterator[Step]:
        """What a kernel becomes where OpenCL C has no operator for an op, one rule after the other."""
        return explain(self.program.calls[call].kernel, self._lower)

    def moves(self, call: int) -> Iterator[hooks.Decision]:
        """How a kernel does loads and stores whose lanes are no neighbours."""
        found = Moves()
        for f in self.sources[call].functions:
            found.add(f.moves)
        return found.decisions(self.program.calls[call].kernel.name)

    def assembly(self, call: int) -> str:
        """Empty: OpenCL does not define one."""
        return ""


def _not_forked() -> None:
    if dev.forked:
        raise BackendError(
            "backend 'opencl' cannot be used in a forked process: the driver's threads stayed in the parent. Start processes"
            " with the method 'spawn', or compute with llvm in them"
        )


def _function_name(kernel: str) -> str:
    """A name that no builtin function has: with a number after an underscore, as in exp_1000, or ending in _k."""
    name = identifier(kernel)
    return name if re.search(r"_\d", name) else f"{name}_k"


def _free(name: str, taken: set[str]) -> str:
    out, n = name, 1
    while out in taken:
        n += 1
        out = f"{name}__{n}"
    taken.add(out)
    return out


class OpenCLBackend:
    """`copies`: use memory of the device's own even where the device can work on the process's memory."""

    name = "opencl"

    def __init__(self, copies: bool = False) -> None:
        self.copies = copies

    def available(self) -> str:
        """Empty when some device built and ran a tiny kernel, else one sentence that says why none did."""
        return dev.find().why

    def device(self) -> Device:
        _not_forked()
        found = dev.find()
        if found.device is None:
            raise BackendError(f"backend 'opencl' cannot be used here: {found.why}")
        return found.device if not self.copies else dev.with_copies(found.device)

    def about(self) -> str:
        """The device in one line."""
        return self.device().text()

    def machine(self) -> Machine:
        """What programs are scheduled for: this computer where the device is its CPU, else a description of the device."""
        d = self.device()
        return machines.current() if d.cpu else dev.machine(d)

    def compile(self, program: Program) -> OpenCLExecutable:
        """Raises BackendError for a kernel that needs float64 on a device that has none."""
        return OpenCLExecutable(program, self.device())
