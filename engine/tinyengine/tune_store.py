"""What tuning found, by machine: JSON beside the kernel cache, plain enough to read, written atomically, never trusted.

One file per machine and backend; in it, per key of a kernel (`stages.keys.kernel_key`), the schedule that won and every attempt.
Schedules stand in general form (`stages.keys.generalise`). A file that is missing, damaged or of another format is empty."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyengine.choices import Tuned
from tinyengine.machine import FACTS, Machine
from tinyengine.runtime import cache

FORMAT = 1
VERDICTS = ("default", "faster", "slower", "wrong", "failed")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One schedule that was tried. `origin`: what was changed ("tile(j, 64) -> tile(j, 128)"); `seconds`: median of one launch,
    with its quartiles, None where it was not timed; `verdict`: one of VERDICTS, `reason` in words; `error`: largest difference
    from the reference, relative to the largest value of the reference."""

    schedule: tuple[str, ...]
    origin: str
    verdict: str
    reason: str
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one kernel: `schedule` is None where the engine's own was the fastest."""

    name: str
    date: str  # ISO 8601
    schedule: tuple[str, ...] | None
    seconds_before: float
    seconds_after: float
    attempts: tuple[Attempt, ...]

    @property
    def tuned(self) -> Tuned:
        return Tuned(self.schedule, self.seconds_before, self.seconds_after, len(self.attempts))


@dataclass
class Store:
    """The results of one machine and backend. `path`: None keeps them in memory alone."""

    path: Path | None
    machine: str
    backend: str
    entries: dict[str, Entry] = field(default_factory=dict)
    tuned: dict[str, Tuned] = field(default_factory=dict)  # replaced, never changed: it is part of Choices

    def read(self) -> Store:
        """Take in what the file holds; returns itself."""
        if self.path is not None:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                self.entries |= parse(json.loads(self.path.read_text()))
        self.tuned = {key: e.tuned for key, e in self.entries.items()}
        return self

    def add(self, found: Mapping[str, Entry]) -> None:
        """Keep these too. What other processes have stored meanwhile stays; a disk that cannot be written is no error."""
        self.read()
        self.entries |= found
        self.tuned = {key: e.tuned for key, e in self.entries.items()}
        if self.path is not None:
            with contextlib.suppress(OSError):
                _write(self.path, json.dumps(self.to_json(), indent=1))

    def to_json(self) -> dict[str, Any]:
        kernels = {key: dataclasses.asdict(e) for key, e in sorted(self.entries.items())}
        return {"format": FORMAT, "machine": self.machine, "backend": self.backend, "kernels": kernels}


def parse(data: Any) -> dict[str, Entry]:
    """The entries of a file's content; those that are damaged are left out. ValueError when it is of another format."""
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("kernels"), dict):
        raise ValueError(f"not a tuning file of format {FORMAT}")
    out = {}
    for key, e in data["kernels"].items():
        with contextlib.suppress(TypeError, ValueError, KeyError):
            attempts = tuple(
                Attempt(_lines(a["schedule"]), _text(a["origin"]), _verdict(a["verdict"]), _text(a["reason"]),
                        *(_maybe(a[name]) for name in ("seconds", "seconds_low", "seconds_high", "error")))
                for a in e["attempts"]
            )  # fmt: skip
            schedule = None if e["schedule"] is None else _lines(e["schedule"])
            before, after = _number(e["seconds_before"]), _number(e["seconds_after"])
            out[_text(key)] = Entry(_text(e["name"]), _text(e["date"]), schedule, before, after, attempts)
    return out


def _text(x: Any) -> str:
    if not isinstance(x, str):
        raise TypeError(x)
    return x


def _verdict(x: Any) -> str:
    if x not in VERDICTS:
        raise ValueError(x)
    return _text(x)


def _lines(x: Any) -> tuple[str, ...]:
    if not isinstance(x, list):
        raise TypeError(x)
    return tuple(map(_text, x))


def _number(x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, (int, float)) or not 0 <= x < float("inf"):
        raise ValueError(x)
    return float(x)


def _maybe(x: Any) -> float | None:
    return None if x is None else _number(x)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="t-")
    try:
        with os.fdopen(handle, "w") as f:
            f.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


_stores: dict[tuple[str, str, str], Store] = {}
_newest: tuple[Machine, str, Path | None, Store] | None = None  # who was asked for last


def store(machine: Machine, backend: str) -> Store:
    """The results of this machine and backend; read from disk once per process."""
    global _newest
    folder, known = cache.location(), _newest
    if known is not None and known[0] is machine and known[1] == backend and known[2] is folder:
        return known[3]
    facts = repr((machine.name, [getattr(machine, f) for f in FACTS]))
    at = (str(folder), facts, backend)
    if at not in _stores:
        digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        path = None if folder is None else folder / f"tuned-{digest}-{backend}.json"
        _stores[at] = Store(path, machine.name, backend).read()
    _newest = (machine, backend, folder, _stores[at])
    return _stores[at]


def forget() -> None:
    """Read the files again when they are next asked for; what was kept in memory alone is gone."""
    global _newest
    _newest = None
    _stores.clear()
