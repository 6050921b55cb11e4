"""What bounds a kernel, by measurement: it is built again without its arithmetic, without its memory traffic, and empty.

No hardware counter is read, so this works on every backend that has values."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyengine import units
from tinyengine.trial import Isolated, Timing, in_turn
from tinyengine.variants import arithmetic_only, empty, loads_only

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

HOLDS = 0.8  # of the kernel's time: what takes as much by itself is what holds it up
LAUNCH = 0.5  # of the kernel's time: an empty kernel that takes as much leaves little to gain elsewhere
LAUNCHES = 5  # in one program; the first wakes the threads and is not counted


@dataclass(frozen=True)
class Ablation:
    """Seconds of one launch: of the kernel (`whole`), of its loads and stores alone, of its arithmetic alone, and of nothing
    (see `variants`). `predicted`: the limit that the certificate names: 'compute', 'L2', 'L3', 'memory' or 'launch'."""

    name: str
    whole: Timing
    loads: Timing
    arithmetic: Timing
    empty: Timing
    predicted: str

    def share(self, part: Timing) -> float:
        """Of the kernel's time, by the lower quartiles: what disturbs a run only adds to it."""
        return part.low / self.whole.low if self.whole.low else 0.0

    @property
    def bound(self) -> str:
        """'launch', 'memory', 'arithmetic', 'both' (each alone takes as long), or 'neither' (they wait for each other)."""
        if self.share(self.empty) >= LAUNCH:
            return "launch"
        memory, arithmetic = self.share(self.loads) >= HOLDS, self.share(self.arithmetic) >= HOLDS
        if memory == arithmetic:
            return "both" if memory else "neither"
        return "memory" if memory else "arithmetic"

    @property
    def sentence(self) -> str:
        """The bound with its evidence."""
        loads, arithmetic, empty = (f"{self.share(t):.0%}" for t in (self.loads, self.arithmetic, self.empty))
        apart = f"loads and stores alone take {loads} of its time, arithmetic alone {arithmetic}"
        return {
            "launch": f"bound by its launch: an empty kernel takes {empty} of its time",
            "memory": f"bound by memory: {apart}",
            "arithmetic": f"bound by arithmetic: {apart}",
            "both": f"bound by memory and arithmetic alike: {apart}, so making one cheaper gains little",
            "neither": f"bound by neither alone: {apart}; they wait for each other",
        }[self.bound]

    def text(self) -> str:
        rows = {"whole": self.whole, "loads": self.loads, "arithmetic": self.arithmetic, "empty": self.empty}
        out = [f"{self.name}: {self.sentence} (predicted: {self.predicted})"]
        for label, t in rows.items():
            spread = f"half of the runs {units.seconds(t.low)} to {units.seconds(t.high)}"
            out.append(f"  {label:<10} {units.seconds(t.seconds):>12}  {self.share(t):>5.0%}  {spread}")
        return "\n".join(out)

    __repr__ = text


def ablate(lowered: Lowered, call: int, limit: float = 0.2) -> Ablation:
    """Kernel number `call` of the program, measured whole and in parts, in turn, for about `limit` seconds. Runs on copies:
    nothing of the user's memory changes. Raises ValueError on a backend that computes nothing, IndexError where there is no such
    kernel."""
    if lowered.backend == "null":
        raise ValueError("ablate: the null backend computes nothing, so nothing can be timed; use llvm, opencl or reference")
    made = lowered.kernels[call]
    kernel = made.scheduled
    case = Isolated(lowered).case(call)
    variants = (kernel, loads_only(kernel), arithmetic_only(kernel, lowered.machine.l1_bytes // 2), empty(kernel))
    executables = [case.compile(k, LAUNCHES, like=kernel) for k in variants]
    runs = [functools.partial(case.seconds, e) for e in executables]
    began = time.perf_counter()
    for run in runs:
        run()
    slow = time.perf_counter() - began > limit
    whole, loads, arithmetic, nothing = in_turn(runs, limit, least=3 if slow else 9)
    return Ablation(made.name, whole, loads, arithmetic, nothing, lowered.certificate.kernels[call].bound)


__all__ = ["Ablation", "ablate"]
