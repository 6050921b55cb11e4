"""How the writer of a backend does loads and stores that are no plain one of neighbouring lanes, and which loads it puts in front
of a loop: counted while it writes, as Decisions of stage emit for whoever asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tinyengine.hooks import Decision
from tinyengine.stages.arithmetic.affine import NEAR

ONE_BY_ONE = "lane by lane"

#: verb, way -> why it is right, or why there is nothing better
WAYS = {
    ("load", "lines shared"): "an unrolled loop reads what lies between the lanes: each line is loaded once for all iterations",
    ("load", "block turned"): "an unrolled loop reads neighbouring columns: whole rows are loaded once and turned in registers",
    ("load", "lines and shuffles"): f"loading what lies between lanes at most {NEAR} apart is cheaper than a load for each",
    ("load", "elements repeated"): "several lanes share each element: fewer elements are loaded, and a shuffle repeats them",
    ("load", "reversed"): "the lanes are neighbours in the opposite order: one load, turned round",
    ("load", ONE_BY_ONE): "nothing but the elements of the lanes themselves may be read, or is worth it",
    ("store", "woven"): "the iterations of an unrolled loop write every element between the lanes, which nothing else touches:"
    " the last one writes whole vectors of what all have",
    ("store", "lines with gaps"): f"of vectors over lanes at most {NEAR} apart only the lanes' elements are switched on",
    ("store", ONE_BY_ONE): "of lanes with the same address the later one must win, or see the sum of the earlier",
}


class Move(NamedTuple):
    """`step`: elements from lane to lane; 0 where that is no constant."""

    verb: str  # load, store
    buffer: str
    way: str
    step: int
    lanes: int


def refused(m: Move) -> dict[str, str]:
    """The better way that was not taken -> why."""
    if m.way == "lines with gaps":
        return {"woven": f"no unrolled loop of {m.step} iterations writes every element between the lanes, under one mask"}
    if m.way != ONE_BY_ONE:
        return {}
    better = "lines and shuffles" if m.verb == "load" else "lines with gaps"
    if m.step == 0:
        return {better: "it is no constant number of elements from lane to lane"}
    if not 0 < m.step <= NEAR:
        return {better: f"{m.step} elements lie from lane to lane: it pays for 2 to {NEAR}"}
    return {better: "it is not written for this backend under such a mask"}


class Moves:
    """What a writer has noted of one function."""

    def __init__(self) -> None:
        self.lanes: Counter[Move] = Counter()
        self.held: Counter[tuple[str, bool]] = Counter()  # (loop, whether the load stands in front of it) -> loads

    def note(self, verb: str, buffer: str, way: str, step: int, lanes: int) -> None:
        """One access of the written code."""
        self.lanes[Move(verb, buffer, way, step, lanes)] += 1

    def add(self, other: Moves) -> None:
        self.lanes += other.lanes
        self.held += other.held

    def decisions(self, kernel: str, most: int = 0) -> Iterator[Decision]:
        """What was chosen in a kernel. `most`: loads that are put in front of one loop."""
        for m, count in self.lanes.items():
            numbers = {"lanes": float(m.lanes), "accesses": float(count)} | ({"elements_apart": float(m.step)} if m.step else {})
            yield Decision("emit", m.verb, (kernel, m.buffer), m.way, WAYS[m.verb, m.way], numbers, refused(m))
        for loop in dict.fromkeys(loop for loop, _ in self.held):
            front, inside = self.held[loop, True], self.held[loop, False]
            why = "what they read is not written in the loop; an innermost loop is where a register pays for itself"
            left = {"in the loop": f"{inside} are, because {most} are held in front of it already"} if inside else {}
            yield Decision("emit", "hoist", (kernel, loop), f"{front} in front", why, {"loads": float(front + inside)}, left)
