"""What this machine can do in this very round: the FMA rate, and the bandwidth of copying or reading as many bytes as a case
moves.

The probes are kernels of the engine's own, in their final form, timed by the clocks inside the native program. They run beside
the cases in every round, because bandwidth drifts with what the neighbours do."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tests.benchmarks.cases import Case
from tinyengine import dtypes, machine, probes
from tinyengine.backends import llvm
from tinyengine.loopnest import Kernel
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer

RUNS = 5  # of a probe; the fastest counts
SECONDS = 2e-3  # of one run of the FMA probe, about
F32 = dtypes.float32


def compiled(kernel: Kernel, *arrays: Buffer) -> Callable[[], float]:
    """Seconds of the kernel, the fastest of RUNS."""
    slots = tuple(Slot(p.name, p.dtype, p.shape, "output" if p.name in kernel.outputs else "input") for p in kernel.params)
    executable = llvm.LLVMBackend().compile(Program(kernel.name, slots, (Call(kernel, tuple(range(len(slots)))),), 0))

    def once() -> float:
        times = executable.run(arrays, clocks=True)
        assert times is not None
        return times.seconds[0]

    return lambda: min(once() for _ in range(RUNS))


class Limits:
    """`seconds(case)`: the least that any engine can need, measured now. Probes of equal size are built once."""

    def __init__(self) -> None:
        self.facts = machine.detect()
        self.lanes = self.facts.vector_bytes // F32.itemsize
        self.measured: dict[str, float] = {}

    def renew(self) -> None:
        """Forget the round's measurements."""
        self.measured.clear()

    def seconds(self, case: Case) -> float:
        """The products at the FMA rate, or the bytes: as much of what is read as is written at the rate of a copy of that size,
        what is read beyond it at the rate of reading."""
        copied = min(2 * case.written, case.nbytes)
        moved = self.rate("copy", copied) if copied else 0.0
        if case.nbytes > copied:
            moved += self.rate("read", case.nbytes - copied)
        return max(case.flops / self.flops, moved)

    @property
    def flops(self) -> float:
        """FLOP/s of fused multiply-adds on all cores."""
        if "fma" not in self.measured:
            self.measured["fma"] = self.fma[0] / self.fma[1]()
        return self.measured["fma"]

    def rate(self, what: str, nbytes: int) -> float:
        """Seconds to copy (half of `nbytes` read, half written, with plain or with streaming stores, whichever is quicker), or to
        read `nbytes`."""
        key = f"{what} {nbytes}"
        if key not in self.measured:
            self.measured[key] = min(p() for p in self.probes(what, nbytes))
        return self.measured[key]

    @functools.cached_property
    def fma(self) -> tuple[float, Callable[[], float]]:
        cores, trips = self.facts.cores, int(self.facts.fma_flops * SECONDS / (2 * self.lanes * probes.CHAINS))
        work = 2.0 * cores * trips * probes.CHAINS * self.lanes
        return work, compiled(probes._fma(cores, trips, self.lanes), Buffer(cores * self.lanes, F32, "y"))

    @functools.cache  # noqa: B019 (one object for the whole run)
    def probes(self, what: str, nbytes: int) -> list[Callable[[], float]]:
        cores, lanes = self.facts.cores, self.lanes
        step = lanes * probes.CHAINS if what == "read" else lanes
        n = max(1, nbytes // (2 if what == "copy" else 1) // F32.itemsize // cores // step) * step
        x = probes._filled(cores * n, "x")
        if what == "read":
            return [compiled(probes._read(cores, 1, n, lanes), x, Buffer(cores * lanes, F32, "y"))]
        z = probes._filled(cores * n, "z")
        return [compiled(probes._copy(cores, n, lanes, hint), x, z) for hint in ("", "stream")]
