"""A recording as a trace for Perfetto (https://ui.perfetto.dev): the JSON form of the Trace Event Format, times in microseconds.

One process for the host (what forced a computation, waits, runs) and one for each program (its launches). Only runs that were
kept in full are there; the folded ones have no times of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyviz import analysis
from tinyviz.views.lines import where
from tinyviz.wire import Recording

HOST = 1
Event = dict[str, Any]


def events(r: Recording) -> Iterator[Event]:
    """The trace's events, in no order."""
    yield _name("process", HOST, 0, "host")
    for thread, name in enumerate(("runs", "forced by", "waits")):
        yield _name("thread", HOST, thread, name)
    for x in r.realized:
        line = where(r, x.line) if x.line >= 0 else ""
        yield {**_at(HOST, 1, x.cause, x.began), "ph": "i", "s": "t", "args": {"line": line, "times": x.count}}
    for w in r.waits:
        yield _span(HOST, 2, w.reason, w.began, w.seconds, {"times": w.count})
    for i, p in enumerate(r.programs):
        pid = HOST + 1 + i
        yield _name("process", pid, 0, f"program {i}: {p.name}")
        yield _name("thread", pid, 0, "kernels")
        phases = [analysis.kernel_phases(p, k) for k in p.kernels]
        for n, run in enumerate(p.launches.runs):
            yield _span(HOST, 0, p.name, run.began, run.host_seconds, {"program": i, "run": n})
            for c, call in enumerate(p.calls):
                if c >= min(len(run.starts), len(run.seconds)):
                    break
                k = p.kernels[call.kernel]
                lines = list(dict.fromkeys(where(r, x) for x in k.shares.line if x >= 0))
                facts = {"kernel": call.kernel, "call": c, "phase": phases[call.kernel][:1], "lines": lines, "bound": k.bound}
                facts |= {name: getattr(k, name) for name in ("flops", "bytes_read", "bytes_written", "seconds_predicted")}
                yield _span(pid, 0, k.name, run.began + run.starts[c], run.seconds[c], facts)


def write(r: Recording, path: str | os.PathLike[str]) -> Path:
    """Write the trace; returns its path."""
    path = Path(path)
    facts = {"title": r.title, "created": r.created, "machine": r.machine.name, "backend": r.backend, "recording": r.id}
    trace = {"traceEvents": list(events(r)), "displayTimeUnit": "ns", "otherData": facts}
    path.write_text(json.dumps(trace, allow_nan=False), encoding="utf-8")
    return path


def _name(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": f"{what}_name", "pid": pid, "tid": tid, "args": {"name": name}}


def _at(pid: int, tid: int, name: str, seconds: float) -> Event:
    return {"pid": pid, "tid": tid, "name": name, "ts": seconds * 1e6}


def _span(pid: int, tid: int, name: str, start: float, seconds: float, facts: Event) -> Event:
    return {**_at(pid, tid, name, start), "ph": "X", "dur": seconds * 1e6, "args": facts}
