"""Which activations to compute again so that the peak of memory stays under a limit: those first that free the most bytes for
each FLOP of computing them again, as long as each one frees memory where there is too much of it.

A greedy search. What a set does to the peak is not estimated but read off the certificate of the program compiled with it
(nothing is emitted and nothing runs), so that chains, whose links need one another, show themselves. (Chen et al., "Training deep
nets with sublinear memory cost", 2016, take segments of equal size; with costs that differ the ratio is the better guide: Jain
et al., "Checkmate", 2020, whose optimum needs an integer program.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from tinyengine import pinned
from tinyengine.choices import RECOMPUTE
from tinyengine.node import Node
from tinyengine.ops import OPS
from tinyengine.stages.fusion import recompute as stage

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered


@dataclass(frozen=True)
class Tried:
    """One step of the search. `name`: of the value, as pins have it; `per_flop`: its bytes for each FLOP of computing it alone
    again; `peak` and `flops`: of the whole program, certified, with what was taken before and this."""

    name: str
    subject: str
    nbytes: int
    per_flop: float
    peak: int
    flops: int
    taken: bool
    reason: str


@dataclass(frozen=True)
class Search:
    """`names`: the values to compute again, for pins, in the order in which they were taken; `tried`: every step."""

    limit: int
    peak_before: int
    peak: int
    flops_before: int
    flops: int
    names: tuple[str, ...]
    tried: tuple[Tried, ...]
    lowered: Lowered

    @property
    def reached(self) -> bool:
        return self.peak <= self.limit

    @property
    def pins(self) -> tuple[str, ...]:
        """The lines of Python that keep it."""
        return tuple(pinned.line(name, RECOMPUTE) for name in self.names)

    def text(self) -> str:
        found = "found" if self.reached else "not found: the least that was found is"
        out = [
            f"computed again until the peak is under {self.limit:,} bytes: {found} {self.peak:,}",
            f"  peak {self.peak_before:,} -> {self.peak:,} bytes, FLOPs {self.flops_before:,} -> {self.flops:,}",
        ]
        for t in self.tried:
            verdict = "taken" if t.taken else "not taken"
            out.append(f"  {t.subject} ({t.nbytes:,} bytes, {t.per_flop:.3g} per FLOP): {verdict}, {t.reason}; peak {t.peak:,}")
        return "\n".join(out + (["  to keep it: " + "; ".join(self.pins)] if self.names else []))

    __repr__ = text


def search(lowered: Lowered, limit: int, say: Callable[[str], None] = lambda text: None) -> Search:
    """The activations to compute again so that the predicted peak of `lowered` is at most `limit` bytes. `say` hears of each
    step. Nothing runs. Where the limit cannot be reached this way, the result is the lowest peak that was found (`reached` is
    False). Raises ValueError for a limit that is not positive."""
    if limit <= 0:
        raise ValueError(f"recompute_under: {limit} bytes; expected a positive number of bytes")
    possible = stage.candidates(lowered.fusion)
    names, number = stage.names(possible), lowered.simplified.number
    stays = {n for n, v in lowered.fusion.verdicts.items() if v == "whole"}
    ratio = {n: n.nbytes / (1 + flops_again(n, stays)) for n, refused in possible.items() if not refused}
    tried: list[Tried] = []
    chosen: list[Node] = []
    now, over = lowered, above(lowered, limit)

    def attempt(n: Node, of: list[Node]) -> tuple[Lowered, tuple[int, int]]:
        say(f"{len(tried) + 1}: %{number[n]} {n.op}; the peak is {now.certificate.peak_bytes:,} bytes")
        other = lowered.with_recompute(*(names[m] for m in of))
        return other, above(other, limit)

    def note(n: Node, other: Lowered, taken: bool, reason: str) -> None:
        peak, flops = other.certificate.peak_bytes, other.certificate.flops
        tried.append(Tried(names[n], f"%{number[n]} {n.op}", n.nbytes, ratio[n], peak, flops, taken, reason))

    waiting, went_on = sorted(ratio, key=lambda n: (-ratio[n], number[n])), True
    while waiting and went_on and over > (0, limit):
        went_on = False
        for n in list(waiting):
            other, left = attempt(n, [*chosen, n])
            better = left < over
            note(n, other, better, f"{'memory' if better else 'nothing'} is freed where there is too much")
            if better:
                went_on, now, over = True, other, left
                chosen.append(n)
                waiting.remove(n)
                if over <= (0, limit):
                    break
    if over <= (0, limit):
        for n in sorted(chosen[:-1], key=lambda n: ratio[n]):  # what was taken early may be needless now
            rest = [m for m in chosen if m is not n]
            other, left = attempt(n, rest)
            if left <= (0, limit):
                note(n, other, False, "not needed any more: without it the peak is under the limit too")
                chosen, now = rest, other
    was, is_ = lowered.certificate, now.certificate
    return Search(
        limit, was.peak_bytes, is_.peak_bytes, was.flops, is_.flops, tuple(names[n] for n in chosen), tuple(tried), now
    )  # fmt: skip


def above(lowered: Lowered, limit: int) -> tuple[int, int]:
    """(bytes above the limit that are alive, added up over the calls; the peak, but at least the limit). The first falls before
    the second does where several calls share the peak; (0, limit) is a program that keeps to the limit."""
    plan = lowered.plan
    spans: dict[int, tuple[int, int]] = {}
    for i, call in enumerate(plan.calls):
        for s in call.slots:
            spans[s] = (spans.get(s, (i, i))[0], i)
    change = [0] * (len(plan.calls) + 1)
    for s, (first, last) in spans.items():
        if plan.slots[s].role == "temporary":
            change[first] += plan.slots[s].nbytes
            change[last + 1] -= plan.slots[s].nbytes
    room = limit - lowered.certificate.given_bytes
    return sum(max(alive - room, 0) for alive in accumulate(change[:-1])), max(lowered.certificate.peak_bytes, limit)


def flops_again(n: Node, stays: set[Node]) -> int:
    """FLOPs of computing `n` again from what stays in memory."""
    total, seen, stack = 0, {n}, [n]
    while stack:
        m = stack.pop()
        total += OPS[m.op].flops * (m.src[0].size if m.is_reduce else m.size)
        for s in m.src:
            if s not in seen and s not in stays and s.src:
                seen.add(s)
                stack.append(s)
    return total


__all__ = ["Search", "Tried", "above", "flops_again", "search"]
