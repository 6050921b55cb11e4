"""Machine: what is known about the computer, as plain data: facts (cores, vectors, caches) and peaks (FLOP/s, bytes/s, launch
seconds).

`detect` reads the facts in a few milliseconds and estimates the peaks; `measure` runs kernels of the engine's own
and keeps the result on disk with its date; `current` is the measured machine where there is one, else the detected one, so
nobody waits for probes; `measure_once` is for whoever has a second, before the first look."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyengine import units
from tinyengine.runtime import cache
from tinyengine.runtime.threads import thread_count

LEVELS = ("l1", "l2", "l3", "dram")
L3_OF_A_CORE = 32 << 20  # no processor has more; a virtual machine of a few cores reports what the whole chip has
FORMAT = 3  # of the JSON on disk
BUSY = 0.3  # a spread from which on somebody else was using the machine while it was measured
OPTIONAL = ("work_items", "local_bytes", "hertz")  # left out where there are none, or it is not known
FACTS = (
    "target",
    "cores",
    "threads",
    "vector_bytes",
    "vector_registers",
    "l1_bytes",
    "l2_bytes",
    "l3_bytes",
    "dots",
)  # not measured


@dataclass(frozen=True)
class Machine:
    """`cores`: physical, as far as this process may use them; `threads`: how many the engine runs. Caches: `l1_bytes` and
    `l2_bytes` of one core, `l3_bytes` of all. `fma_flops`: float32 FLOP/s of one core with full vectors, an FMA counted as 2;
    `fma_flops_all` of all. Bandwidths in bytes/s, one core and all: per level of LEVELS, for data that lies there. `spread`:
    relative, of the peaks (error bars).
    `source`: 'fixture', 'estimated' or 'measured'; `date`: when, ISO 8601, or ''."""

    name: str
    target: str  # architecture: x86_64, aarch64...
    cores: int
    threads: int
    vector_bytes: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    fma_flops: float
    fma_flops_all: float
    read: Mapping[str, float]
    read_all: Mapping[str, float]
    write_all: float  # to DRAM, all cores, plain stores
    stream_all: float  # to DRAM, all cores, past the caches
    copy_all: float  # DRAM to DRAM, all cores, plain stores, bytes read plus bytes written
    launch_seconds: float  # of one kernel inside a running program, all cores
    start_seconds: float  # of one program, from Python
    spread: float
    source: str
    date: str = ""
    dots: str = ""  # the dtype of which one instruction adds pairs of products in float32: "bfloat16", or none
    work_items: int = 0  # of a work-group, for a device that has them: then a core is a compute unit
    local_bytes: int = 0  # of memory that the work-items of a group share
    hertz: float = 0.0  # cycles per second of a core at work; 0: not measured

    @property
    def clock(self) -> float:
        """Cycles per second of one core: measured, or as far as the FMA peak tells, with two units for full vectors."""
        return self.hertz or self.fma_flops / (2 * 2 * self.vector_bytes / 4)

    @property
    def unit_bytes(self) -> int:
        """Bytes of a vector that one unit takes in a cycle. Less than `vector_bytes` where the FMA peak says that a core does
        full vectors in parts."""
        parts = self.clock * 2 * 2 * self.vector_bytes / 4 / self.fma_flops
        return self.vector_bytes // (2 if parts > 1.5 else 1)

    @property
    def masks(self) -> bool:
        """Whether a store of some lanes costs what one of all lanes does: vectors of 64 bytes have registers for masks."""
        return self.vector_bytes >= 64

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT} | {k: v for k, v in dataclasses.asdict(self).items() if v or k not in OPTIONAL}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """Raises ValueError when `data` is of another format, lacks a field or has one of a wrong type."""
        types = {f.name: f.type for f in dataclasses.fields(cls)}
        if not isinstance(data, Mapping) or data.get("format") != FORMAT or {*data, *OPTIONAL} != {*types, "format"}:
            raise ValueError(f"not a machine of format {FORMAT}: {str(data)[:80]}")
        types = {k: v for k, v in types.items() if k in data}
        for name, kind in types.items():
            value = data[name]
            accepted: Any = {"int": int, "float": (int, float), "str": str}.get(str(kind), Mapping)
            if not isinstance(value, accepted) or (isinstance(value, Mapping) and set(value) != set(LEVELS)):
                raise ValueError(f"not a machine of format {FORMAT}: {name} is {value!r}")
        return cls(**{k: v for k, v in data.items() if k != "format"})

    @property
    def bandwidth(self) -> float:
        """Bytes/s, read plus written, of all cores between memory and the caches."""
        return self.copy_all

    def key(self) -> str:
        """Equal exactly when all that decisions depend on is: the facts and the peaks, not the name, the source or the date."""
        return self._key

    @functools.cached_property
    def _key(self) -> str:
        facts = {k: v for k, v in self.to_json().items() if k not in ("name", "source", "date", "format")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def text(self) -> str:
        """A few lines for people."""
        gb = 1e9
        lines = [
            f"{self.name} ({self.target}), {units.some(self.cores, 'core')}, {units.some(self.threads, 'thread')},"
            f" vectors of {self.vector_bytes} bytes",
            f"caches: L1 {self.l1_bytes >> 10} KiB, L2 {self.l2_bytes >> 10} KiB per core; L3 {self.l3_bytes >> 20} MiB",
            f"peaks ({self.source}{' ' + self.date if self.date else ''}, ±{self.spread:.0%}):"
            f" {self.fma_flops / gb:.0f} GFLOP/s on one core, {self.fma_flops_all / gb:.0f} on all",
            "read, all cores, GB/s: " + ", ".join(f"{level} {self.read_all[level] / gb:.0f}" for level in LEVELS)
            + f"; write {self.write_all / gb:.0f}, copy {self.copy_all / gb:.0f}",
            f"launch {units.seconds(self.launch_seconds)} per kernel, {units.seconds(self.start_seconds)} per program",
        ]  # fmt: skip
        return "\n".join(lines)


FIXTURE = Machine(
    name="fixture: two Zen 5 cores", target="x86_64", cores=2, threads=2, vector_bytes=64, vector_registers=32,
    l1_bytes=48 << 10, l2_bytes=1 << 20, l3_bytes=32 << 20, fma_flops=256e9, fma_flops_all=506e9,
    read={"l1": 500e9, "l2": 250e9, "l3": 122e9, "dram": 37e9}, read_all={"l1": 1000e9, "l2": 490e9, "l3": 196e9, "dram": 82e9},
    write_all=69e9, stream_all=150e9, copy_all=75e9, launch_seconds=0.3e-6, start_seconds=2e-6,
    spread=0.15, source="fixture", date="2026-11-01", dots="bfloat16",
)  # fmt: skip
"""The machine of the tests: two cores with AVX-512, peaks as measured in November 2026."""


# ---- facts


def _read(path: str) -> str:
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return ""


def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor."""
    first = _read("/proc/cpuinfo").split("\n\n")[0]
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}


def _usable_cpus() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return list(range(os.cpu_count() or 1))


def _cores(cpus: list[int]) -> int:
    """Distinct physical cores among `cpus`."""
    base = "/sys/devices/system/cpu/cpu"
    cores = {(_read(f"{base}{c}/topology/physical_package_id"), _read(f"{base}{c}/topology/core_id") or str(c)) for c in cpus}
    return len(cores)


def _caches() -> dict[int, int]:
    """level -> bytes of the data or unified cache of the first CPU; empty where the system does not say."""
    sizes = {}
    for i in range(8):
        at = f"/sys/devices/system/cpu/cpu0/cache/index{i}/"
        level, kind, size = _read(at + "level"), _read(at + "type"), _read(at + "size")
        m = re.fullmatch(r"(\d+)([KMG]?)", size)
        if level and kind != "Instruction" and m:
            sizes[int(level)] = int(m[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[m[2]]
    return sizes


def _vectors(target: str, flags: set[str]) -> tuple[int, int]:
    """(bytes, registers) of the widest float vectors."""
    if "avx512f" in flags:
        return 64, 32
    if target in ("aarch64", "arm64"):
        return 16, 32
    return (32, 16) if "avx2" in flags or "avx" in flags else (16, 16)


def _hertz(info: Mapping[str, str]) -> float:
    khz = _read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if khz:
        return int(khz) * 1e3
    mhz = re.search(r"([\d.]+)", info.get("cpu MHz", ""))
    return max(float(mhz[1]) * 1e6 if mhz else 0.0, 2.5e9)


def detect() -> Machine:
    """The facts of this computer, from the operating system, with peaks that are estimated from them (two FMA units per core;
    typical bytes per cycle and level). Runs nothing; a few milliseconds."""
    target, info, cpus = platform.machine().lower(), _cpuinfo(), _usable_cpus()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    threads = thread_count()
    cores = max(1, min(_cores(cpus), threads))
    vector_bytes, registers = _vectors(target, flags)
    caches = _caches()
    hertz = _hertz(info)
    fma = hertz * 2 * 2 * vector_bytes / 4
    l3 = min(caches.get(3, caches.get(2, 512 << 10)), L3_OF_A_CORE * cores)
    read = {"l1": hertz * 2 * vector_bytes, "l2": hertz * vector_bytes * 0.9, "l3": hertz * 28, "dram": 20e9}
    dram_all = 20e9 * min(cores, 2) if cores <= 2 else min(20e9 * cores, 40e9 + 10e9 * cores)
    return Machine(
        name=info.get("model name") or platform.processor() or target, target=target, cores=cores, threads=threads,
        vector_bytes=vector_bytes, vector_registers=registers,
        l1_bytes=caches.get(1, 32 << 10), l2_bytes=caches.get(2, 512 << 10), l3_bytes=l3,
        fma_flops=fma, fma_flops_all=fma * cores,
        read=read, read_all={"l1": read["l1"] * cores, "l2": read["l2"] * cores, "l3": read["l3"] * cores, "dram": dram_all},
        write_all=dram_all * 0.8, stream_all=dram_all * 1.6, copy_all=dram_all * 0.9,
        launch_seconds=1e-6, start_seconds=3e-6, spread=0.5, source="estimated",
        dots="bfloat16" if {"avx512_bf16", "avx512vl"} <= flags else "",
    )  # fmt: skip


# ---- the cached measurement


def _file(facts: Machine) -> Path | None:
    """Where the measurement of this computer is kept; None with the disk cache switched off."""
    folder = cache.location()
    name = hashlib.sha256(repr((facts.name, [getattr(facts, f) for f in FACTS])).encode()).hexdigest()[:16]
    return None if folder is None else folder / f"machine-{name}.json"


def save(machine: Machine) -> None:
    """Keep a measurement for `current`; written atomically; where nothing can be written, nothing is kept."""
    path = _file(detect())
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(machine.to_json()))
            temporary.replace(path)
    _current.cache_clear()


def measure() -> Machine:
    """Run the probes (about a second, wants a quiet machine) and keep the result. RuntimeError without the llvm backend."""
    from tinyengine import probes

    return probes.measure()


def measure_once(say: Callable[[str], None] = lambda _: None) -> Machine:
    """`current`, measured before where there is nothing but estimates, or where the machine was busy when it was measured, on
    another day: of both measurements the better, as peaks are what it can do at best. Where nothing is kept or can be measured,
    the estimates stay, and `say` gets the reason."""
    kept = current()
    busy = kept.source == "measured" and kept.spread >= BUSY and kept.date != datetime.date.today().isoformat()
    if _file(kept) is not None and (busy or kept.source == "estimated"):
        say("measuring this machine, once: arithmetic, memory, launches")
        try:
            new = measure()
        except RuntimeError as e:
            say(f"the peaks stay estimated: {e}")
        else:
            if busy:
                save(better(kept, new))
    return current()


def better(a: Machine, b: Machine) -> Machine:
    """Of two measurements of one machine the higher peaks and the shorter launches; facts and date are those of `b`."""
    best: dict[str, Any] = {}
    for f in dataclasses.fields(Machine):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(y, Mapping):
            best[f.name] = {level: max(x[level], y[level]) for level in y}
        elif isinstance(y, float):
            best[f.name] = (min if f.name in ("launch_seconds", "start_seconds", "spread") else max)(x, y)
    return dataclasses.replace(b, **best)


def current() -> Machine:
    """This machine: with measured peaks where a measurement is kept on disk, else with estimated ones (`source` says which)."""
    return _current(*map(os.environ.get, ("TINYENGINE_CACHE", "XDG_CACHE_HOME", "TINYENGINE_THREADS")))


@functools.cache
def _current(*environment: str | None) -> Machine:
    facts = detect()
    path = _file(facts)
    try:
        kept = Machine.from_json(json.loads(path.read_text())) if path is not None else facts
    except (OSError, ValueError):  # none, damaged, or of another format
        return facts
    return kept if all(getattr(kept, f) == getattr(facts, f) for f in FACTS) else facts
