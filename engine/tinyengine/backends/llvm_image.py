"""What the native runner needs of a compiled program, as plain data: no kernel, no graph. It may be kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyengine.program import Program
from tinyengine.runtime import native

if TYPE_CHECKING:
    from tinyengine.loopnest import Loop
    from tinyengine.stages.emit import Code


@dataclass(frozen=True, slots=True)
class Part:
    """One native call: its symbol in the object code, the slots of its parameters, the trips of its parallel loops (None: one
    thread), its estimated cycles, the call of the program that it belongs to, and where its loops end if at symbolic sizes."""

    symbol: str
    slots: tuple[int, ...]
    trips: int | None
    work: float
    call: int
    end: native.End | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """`given`: slots whose memory the caller gives; `offsets`: places of the others in the arena; `moved`: further slots, each
    another one and by how many bytes it is moved on; `first_write`: the first part that writes memory in place; `messages`: for
    each call those of its checks."""

    given: int
    offsets: tuple[int, ...]
    moved: tuple[tuple[int, int], ...]
    arena_bytes: int
    parts: tuple[Part, ...]
    first_write: int
    scratch_bytes: int
    messages: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, program: Program, codes: Sequence[Code]) -> Image:
        """`codes[i]`: what the kernel of call i became."""
        parts: list[Part] = []
        moved: dict[tuple[int, int], int] = {}
        first_write = None
        for n, (call, code) in enumerate(zip(program.calls, codes, strict=True)):
            outputs = set(call.kernel.outputs)
            written = [program.slots[s] for p, s in zip(call.kernel.params, call.slots, strict=True) if p.name in outputs]
            if first_write is None and any(s.role == "state" for s in written):
                first_write = len(parts)
            slots = tuple(
                [
                    len(program.slots) + moved.setdefault((s, by), len(moved)) if (by := code.moved.get(p.name)) else s
                    for p, s in zip(call.kernel.params, call.slots, strict=True)
                ]
            )
            for i, part in enumerate(code.parts):
                trips = part.trips if part.loops else None
                end = _end(part.loops, {p.name: s for p, s in zip(call.kernel.params, call.slots, strict=True)})
                parts.append(Part(code.part_symbol(i), slots, trips, code.work[i], n, end))
        return cls(
            program.given, tuple(s.offset for s in program.slots[program.given :]), tuple(moved), program.arena_bytes,
            tuple(parts), len(parts) if first_write is None else first_write,
            max([c.scratch_bytes for c in codes], default=0), tuple(c.messages for c in codes),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        ends = [None if p.end is None else [p.end.loops, p.end.terms] for p in self.parts]
        parts = [[p.symbol, list(p.slots), p.trips, p.work, p.call, e] for p, e in zip(self.parts, ends, strict=True)]
        return {
            "given": self.given, "offsets": list(self.offsets), "moved": [list(m) for m in self.moved],
            "arena_bytes": self.arena_bytes, "parts": parts, "first_write": self.first_write,
            "scratch_bytes": self.scratch_bytes, "messages": [list(m) for m in self.messages],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Image:
        """Raises KeyError, TypeError or ValueError for what is no image."""
        parts = tuple(Part(str(s), tuple(map(int, w)), None if t is None else int(t), float(c), int(n), _read_end(e))
                      for s, w, t, c, n, e in data["parts"])  # fmt: skip
        out = cls(
            int(data["given"]), tuple(map(int, data["offsets"])), tuple((int(s), int(by)) for s, by in data["moved"]),
            int(data["arena_bytes"]), parts, int(data["first_write"]), int(data["scratch_bytes"]),
            tuple(tuple(map(str, m)) for m in data["messages"]),
        )  # fmt: skip
        slots, calls = out.given + len(out.offsets), len(out.messages)
        sizes = [s for p in parts if p.end is not None for slots_, _ in p.end.terms for s in slots_]
        if not all(0 <= s < out.given for s in sizes):
            raise ValueError("a size is no slot that is given")
        if not all(0 <= s < slots and by >= 0 for s, by in out.moved):
            raise ValueError("a slot that is moved on does not exist")
        slots += len(out.moved)
        if not all(0 <= p.call < calls and all(0 <= s < slots for s in p.slots) for p in parts):
            raise ValueError("a part names a slot or a call that does not exist")
        if not all(0 <= o <= out.arena_bytes for o in out.offsets):
            raise ValueError("a slot lies outside the arena")
        return out

    def steps(self, addresses: Mapping[str, int]) -> list[native.Step]:
        """For the native runner: byte offsets of slots, and the address of each part."""
        return [
            native.Step(addresses[p.symbol], tuple(8 * s for s in p.slots), p.trips, p.work, p.call, p.end) for p in self.parts
        ]


def _end(loops: Sequence[Loop], slots: Mapping[str, int]) -> native.End | None:
    """Where parallel loops end, if all end at one symbolic size. `slots`: of the kernel's parameters."""
    limits = {s.limit for s in loops}
    limit = limits.pop() if len(limits) == 1 else None
    if limit is None:
        return None
    from tinyengine.index import size_of

    of = size_of(limit)
    terms = tuple((tuple(slots[s.name] for s in factors), c) for factors, c in of.terms)
    return native.End(tuple((s.start, s.step, s.trips) for s in loops), terms)


def _read_end(data: Any) -> native.End | None:
    if data is None:
        return None
    loops, terms = data
    made = tuple((int(a), int(b), int(n)) for a, b, n in loops)
    if not all(step > 0 for _, step, _ in made):
        raise ValueError("a loop has no step")
    return native.End(made, tuple((tuple(map(int, slots)), int(c)) for slots, c in terms))
