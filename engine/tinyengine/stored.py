"""Compiled programs on disk: a process that compiles what another one compiled before it starts to run at once.

An entry holds what a run needs and nothing else: the slots of the program and the image of its executable, as JSON; the object
code stands beside it. The key is that of the program cache (the normalised graph, names, choices, machine, backend) with a hash
of the engine's source. Stages are done again when somebody looks at them: they are pure, so they say what was done then. An
entry that is damaged, of another key or without its object code is a miss. Where specs are checked, every stage is done.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyengine import backends, dtypes, spec
from tinyengine.choices import Choices
from tinyengine.machine import Machine
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered
from tinyengine.program import Slot
from tinyengine.runtime import cache
from tinyengine.runtime.buffer import Buffer


@functools.cache
def engine_version() -> str:
    """A hash of the engine's source."""
    here = Path(__file__).parent
    h = hashlib.sha256()
    for p in sorted([*here.rglob("*.py"), *here.rglob("*.ll")]):
        h.update(p.read_bytes())
    return h.hexdigest()[:16]


def _key(full: tuple[Any, ...]) -> str:
    return f"program {cache.digest(repr(full).encode())} engine {engine_version()}"


def load(
    full: tuple[Any, ...], graph: Graph, buffers: Sequence[Buffer], choices: Choices, machine: Machine, backend: str
) -> Lowered | None:
    """The program with the cache key `full`, ready to run, or None on a miss."""
    if spec.enabled:
        return None
    restore = getattr(backends.get(backend), "restore", None)
    found, _ = cache.default().find(_key(full)) if restore is not None else (None, "")
    if found is None or restore is None:
        return None
    lowered = Lowered(graph, buffers, choices, machine, backend)
    try:
        data = json.loads(found.code)
        if data["key"] != _key(full):
            return None
        slots = tuple(Slot(str(n), dtypes.by_name(d), tuple(map(int, shape)), str(role)) for n, d, shape, role in data["slots"])
        root_slots = [int(i) for i in data["root_slots"]]
        updated = [bool(u) for u in data["updated_roots"]]
        if not len(updated) == len(root_slots) == len(graph.roots) or not all(0 <= i < len(slots) for i in root_slots):
            return None
        executable = restore(data["image"], lambda: lowered.plan)
    except (KeyError, TypeError, ValueError):
        return None
    if executable is None or executable.image.given != len(slots):
        return None
    return lowered.restored(slots, root_slots, updated, executable)


def store(full: tuple[Any, ...], lowered: Lowered) -> None:
    """Keep a compiled program for other processes, where its backend can restore one."""
    image = getattr(lowered.executable, "image", None)
    if image is None or lowered.empty:
        return
    slots = [[s.name, s.dtype.name, list(s.shape), s.role] for s in lowered.slots]
    data = {"key": _key(full), "slots": slots, "root_slots": lowered.root_slots,
            "updated_roots": lowered.updated_roots, "image": image.to_json()}
    cache.default().store([_key(full)], json.dumps(data).encode())
