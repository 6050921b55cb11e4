"""What every Program must satisfy: sentences with predicates for `spec.check`. A predicate yields one text per violation."""

from __future__ import annotations

from collections.abc import Iterator

from tinyengine.program import Program
from tinyengine.spec import Sentence

ALIGN = 64


def _fits(p: Program) -> Iterator[str]:
    for i, c in enumerate(p.calls):
        if len(c.slots) != len(c.kernel.params):
            yield f"call {i} gives {len(c.slots)} slots to {len(c.kernel.params)} parameters of {c.kernel.name}"
            continue
        for b, s in zip(c.kernel.params, c.slots, strict=True):
            slot = p.slots[s]
            if slot.dtype is not b.dtype or slot.size != b.size:
                yield f"call {i}: {b.name} is {b.dtype}[{b.size}], slot {slot.name} is {slot.dtype}[{slot.size}]"


def _given_first(p: Program) -> Iterator[str]:
    for i, s in enumerate(p.slots):
        if (s.role == "temporary") != (i >= p.given):
            yield f"slot {i} {s.name} ({s.role})"


def _inputs(p: Program) -> Iterator[str]:
    for i, c in enumerate(p.calls):
        for b, s in zip(c.kernel.params, c.slots, strict=False):
            if b.name in c.kernel.outputs and p.slots[s].role == "input":
                yield f"call {i} writes input {p.slots[s].name}"


def _written(p: Program) -> Iterator[str]:
    done: set[int] = set()
    for i, c in enumerate(p.calls):
        outs = {s for b, s in zip(c.kernel.params, c.slots, strict=False) if b.name in c.kernel.outputs}
        for s in c.slots:
            if p.slots[s].role in ("temporary", "output") and s not in done and s not in outs:
                yield f"call {i} reads {p.slots[s].name} before anything has written it"
        done |= outs


def _inside(p: Program) -> Iterator[str]:
    for s in p.slots:
        if s.role == "temporary" and (s.offset % ALIGN or s.offset < 0 or s.offset + s.nbytes > p.arena_bytes):
            yield f"{s.name} at {s.offset} with {s.nbytes} bytes, arena of {p.arena_bytes}"


def _apart(p: Program) -> Iterator[str]:
    alive: dict[int, tuple[int, int]] = {}
    for i, c in enumerate(p.calls):
        for s in c.slots:
            if p.slots[s].role == "temporary":
                alive[s] = (alive.get(s, (i, i))[0], i)
    ordered = sorted(alive, key=lambda s: p.slots[s].offset)
    for n, a in enumerate(ordered):
        for b in ordered[n + 1 :]:
            x, y = p.slots[a], p.slots[b]
            if y.offset >= x.offset + x.nbytes:
                break
            if alive[a][0] <= alive[b][1] and alive[b][0] <= alive[a][1] and y.nbytes:
                yield f"{x.name} and {y.name} share bytes while both are needed"


SPEC: tuple[Sentence, ...] = (
    ("Each call gives every parameter memory of its dtype and size.", _fits),
    ("The caller's memory comes first, then temporaries.", _given_first),
    ("An input is never written.", _inputs),
    ("Nothing is read before it was written.", _written),
    ("Every temporary lies in the arena, aligned to 64 bytes.", _inside),
    ("Temporaries that are needed at the same time do not share bytes.", _apart),
)
