"""What the native runner needs of a compiled program, as plain data: no kernel, no graph. It may be kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyengine.program import Program
from tinyengine.runtime import native
from tinyengine.stages.emit import Code


@dataclass(frozen=True, slots=True)
class Part:
    """One native call: its symbol in the object code, the slots of its parameters, the trips of its parallel loops (None: one
    thread), its estimated cycles, and the call of the program that it belongs to."""

    symbol: str
    slots: tuple[int, ...]
    trips: int | None
    work: float
    call: int


@dataclass(frozen=True, slots=True)
class Image:
    """`given`: slots whose memory the caller gives; `offsets`: places of the others in the arena; `first_write`: the first part
    that writes memory in place; `messages`: for each call those of its checks."""

    given: int
    offsets: tuple[int, ...]
    arena_bytes: int
    parts: tuple[Part, ...]
    first_write: int
    scratch_bytes: int
    messages: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, program: Program, codes: Sequence[Code]) -> Image:
        """`codes[i]`: what the kernel of call i became."""
        parts: list[Part] = []
        first_write = None
        for n, (call, code) in enumerate(zip(program.calls, codes, strict=True)):
            outputs = set(call.kernel.outputs)
            written = [program.slots[s] for p, s in zip(call.kernel.params, call.slots, strict=True) if p.name in outputs]
            if first_write is None and any(s.role == "state" for s in written):
                first_write = len(parts)
            for i, part in enumerate(code.parts):
                trips = part.trips if part.loops else None
                parts.append(Part(code.part_symbol(i), call.slots, trips, code.work[i], n))
        return cls(
            program.given, tuple(s.offset for s in program.slots[program.given :]), program.arena_bytes, tuple(parts),
            len(parts) if first_write is None else first_write, max([c.scratch_bytes for c in codes], default=0),
            tuple(c.messages for c in codes),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        parts = [[p.symbol, list(p.slots), p.trips, p.work, p.call] for p in self.parts]
        return {
            "given": self.given, "offsets": list(self.offsets), "arena_bytes": self.arena_bytes, "parts": parts,
            "first_write": self.first_write, "scratch_bytes": self.scratch_bytes, "messages": [list(m) for m in self.messages],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Image:
        """Raises KeyError, TypeError or ValueError for what is no image."""
        parts = tuple(Part(str(s), tuple(map(int, w)), None if t is None else int(t), float(c), int(n))
                      for s, w, t, c, n in data["parts"])  # fmt: skip
        out = cls(
            int(data["given"]), tuple(map(int, data["offsets"])), int(data["arena_bytes"]), parts, int(data["first_write"]),
            int(data["scratch_bytes"]), tuple(tuple(map(str, m)) for m in data["messages"]),
        )  # fmt: skip
        slots, calls = out.given + len(out.offsets), len(out.messages)
        if not all(0 <= p.call < calls and all(0 <= s < slots for s in p.slots) for p in parts):
            raise ValueError("a part names a slot or a call that does not exist")
        if not all(0 <= o <= out.arena_bytes for o in out.offsets):
            raise ValueError("a slot lies outside the arena")
        return out

    def steps(self, addresses: Mapping[str, int]) -> list[native.Step]:
        """For the native runner: byte offsets of slots, and the address of each part."""
        return [native.Step(addresses[p.symbol], tuple(8 * s for s in p.slots), p.trips, p.work, p.call) for p in self.parts]
