"""What would change if one decision were another: a fusion verdict (`what_if`), an activation that is computed again instead of
being kept (`recompute`), or the schedule of a kernel (`try_schedule`).

Only the kernels that the edit touches are compiled; everything runs on copies, so parameters, buffers and random state of the
user stay as they are. Both programs are measured in turn, run by run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import hooks, oracle, pinned, timing, units
from tinyengine.choices import RECOMPUTE, VERDICTS, word
from tinyengine.loopnest import Kernel
from tinyengine.node import Node
from tinyengine.stages.emit import fingerprint
from tinyengine.stages.fusion.groups import Fusion
from tinyengine.stages.keys import edge_key, generalise, kernel_key
from tinyengine.stages.primitives.apply import apply_one, parse
from tinyengine.stages.primitives.nest import ScheduleError, tidy
from tinyengine.trial import Case, Isolated, Timing, Whole, duel

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

Array = np.ndarray[Any, Any]
Edge = tuple[Node, Node, int]  # producer, consumer (the producer itself where nobody reads it), position of the operand


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A program (`lowered`) beside the one that it was made from: what both kinds of what-if below tell. Seconds are of one run
    of the whole program; `difference`: of `after` and `before`, run by run. `ulp`: the largest difference of any element of a
    result, in units of its last place (of integers: their difference); `result`: which one."""

    kernels_before: int
    kernels: int
    seconds_predicted_before: float
    seconds_predicted: float
    before: Timing
    after: Timing
    difference: Timing
    ulp: float
    result: str
    lowered: Lowered

    def measured(self) -> list[str]:
        """Times and results as lines."""
        d, p = self.difference, self.seconds_predicted - self.seconds_predicted_before
        return [
            f"  predicted {_s(self.seconds_predicted_before)} -> {_s(self.seconds_predicted)} ({_s(p, True)})",
            f"  measured {_s(self.before.seconds)} -> {_s(self.after.seconds)}"
            f" ({_s(d.seconds, True)}, half of the runs {_s(d.low, True)} to {_s(d.high, True)})",
            f"  results differ by at most {self.ulp:g} ulp" + (f" ({self.result})" if self.ulp else ""),
        ]


def _beside(lowered: Lowered, other: Lowered, limit: float) -> dict[str, Any]:
    """The fields of `Beside`, measured on copies within `limit` seconds."""
    a, b = Whole(lowered), Whole(other)
    before, after = duel(a.seconds, b.seconds, limit)
    gaps = Timing.of([y - x for x, y in zip(before.samples, after.samples, strict=True)])
    ulp, result = furthest(a, b)
    predicted = lowered.certificate.seconds, other.certificate.seconds
    return vars(
        Beside(
            kernels_before=len(lowered.plan.calls), kernels=len(other.plan.calls), seconds_predicted_before=predicted[0],
            seconds_predicted=predicted[1], before=before, after=after, difference=gaps, ulp=ulp, result=result, lowered=other,
        )
    )  # fmt: skip


# ---- fusion


@dataclass(frozen=True, kw_only=True)
class WhatIf(Beside):
    """One edge under another verdict. `name`: of the edge, for a pin; `subject`: for people; `followed`: whether the engine could
    do what was asked, else `reason` says why not. `recompiled`: kernels that were compiled anew. `lowered`: the program under the
    verdict."""

    name: str
    subject: str
    asked: str
    verdict_before: str
    verdict: str
    followed: bool
    reason: str
    recompiled: tuple[str, ...]
    bytes_before: int
    bytes: int

    @property
    def pin(self) -> str:
        """The line of Python that keeps it."""
        return pinned.line(self.name, self.asked)

    def text(self) -> str:
        out = [
            f"what if {self.subject} were {self.asked}? (now: {self.verdict_before})",
            f"  {self.verdict}: {self.reason}" if self.followed else f"  not followed, {self.verdict} stays: {self.reason}",
            f"  kernels {self.kernels_before} -> {self.kernels}; compiled anew: {', '.join(self.recompiled) or 'none'}",
            f"  bytes moved {self.bytes_before:,} -> {self.bytes:,}",
            *self.measured(),
        ]
        return "\n".join([*out, f"  to keep it: {self.pin}"] if self.followed else out)

    __repr__ = text


def what_if(lowered: Lowered, edge: Any, verdict: str, limit: float = 0.2) -> WhatIf:
    """The program with `verdict` for one edge, beside the program as it is.

    `edge`: numbers of the simplified graph, (producer, consumer), or the name of an edge as pins have it. `limit`: seconds for
    measuring. Raises ValueError for an edge or a verdict that there is not."""
    if verdict not in VERDICTS:
        raise ValueError(f"what_if: {verdict!r} is none of {', '.join(VERDICTS)}")
    producer, consumer, position = find(lowered.fusion, edge)
    name = edge_key(producer, consumer, position)
    other = lowered.with_fusion(name, verdict)
    now, then = (_decision(low.fusion, producer, consumer) for low in (lowered, other))
    followed = then.verdict.startswith(verdict)
    known = {fingerprint(k, {}) for k in lowered.scheduled}
    anew = tuple(k.name for k in other.scheduled if fingerprint(k, {}) not in known)
    was, now_is = lowered.certificate, other.certificate
    numbers = lowered.fusion.graph.number
    ends = [producer] if consumer is producer else [producer, consumer]
    return WhatIf(
        **_beside(lowered, other, limit), name=name, subject=" -> ".join(f"%{numbers[n]} {n.op}" for n in ends), asked=verdict,
        verdict_before=now.verdict, verdict=then.verdict, followed=followed,
        reason=then.reason if followed else then.alternatives.get(verdict, then.reason), recompiled=anew,
        bytes_before=was.bytes_read + was.bytes_written, bytes=now_is.bytes_read + now_is.bytes_written,
    )  # fmt: skip


def find(fusion: Fusion, edge: Any) -> Edge:
    """The edge meant by (producer, consumer) numbers or by a name. Raises ValueError, with an example, when there is none."""
    nodes, readers = fusion.graph.nodes, fusion.readers
    if isinstance(edge, str):
        for n, who in readers.items():
            for reader, at in who or [(n, -1)]:
                if word(edge_key(n, reader, at)) == word(edge):
                    return n, reader, at
    elif isinstance(edge, Sequence) and 1 <= len(edge) <= 2 and all(isinstance(i, int) and 0 <= i < len(nodes) for i in edge):
        n, reader = nodes[edge[0]], nodes[edge[-1]]
        at = next((at for r, at in readers[n] if r is reader), -1)
        if (at >= 0 or (n is reader and not readers[n])) and n in fusion.verdicts:
            return n, reader, at
    known = next((d.subject for d in fusion.decisions if d.kind == "edge" and len(d.subject) > 1), ())
    raise ValueError(
        f"there is no edge {edge!r}; expected the numbers of a value and its reader, such as {known}, or the name of a pin"
    )


def _decision(fusion: Fusion, producer: Node, consumer: Node) -> hooks.Decision:
    number = fusion.graph.number
    subject = (number[producer], number[consumer]) if consumer is not producer else (number[producer],)
    return next(d for d in fusion.decisions if d.kind == "edge" and d.subject == subject)


def furthest(a: Whole, b: Whole) -> tuple[float, str]:
    """(largest difference in ulp of any element of the results of one run, which result)."""
    worst = (0.0, "")
    for (name, is_float, x), (_, _, y) in zip(a.results(), b.results(), strict=True):
        far = ulps(x, y, is_float)
        if far > worst[0]:
            worst = (far, name)
    return worst


def ulps(a: Array, b: Array, is_float: bool) -> float:
    """The largest distance of two elements, in representable numbers between them; inf where one of them alone is NaN."""
    if a.size == 0:
        return 0.0
    if not is_float:
        return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    nan = np.isnan(a) != np.isnan(b)
    if nan.any():
        return float("inf")
    kind = np.dtype(f"i{a.dtype.itemsize}")
    low = np.int64(np.iinfo(kind).min)
    x, y = (np.ascontiguousarray(v).view(kind).astype(np.int64) for v in (a, b))
    x, y = (np.where(v < 0, low - v, v) for v in (x, y))  # in the order of the numbers, -0 beside +0
    gap = np.where(x > y, x.astype(np.uint64) - y.astype(np.uint64), y.astype(np.uint64) - x.astype(np.uint64))
    return float(np.where(np.isnan(a), np.uint64(0), gap).max())


# ---- recomputation


@dataclass(frozen=True, kw_only=True)
class Recompute(Beside):
    """Activations that are computed again for their gradient instead of being kept, beside the program as it is. `names`: of the
    values, for pins; `subjects`: for people; `refused`: value -> why it stays. Bytes of peak memory are predicted by the
    certificate, and `counted` in a run of the interpreter (None where that would take long)."""

    names: tuple[str, ...]
    subjects: tuple[str, ...]
    refused: dict[str, str]
    flops_before: int
    flops: int
    peak_before: int
    peak: int
    counted_before: int | None
    counted: int | None

    @property
    def pins(self) -> tuple[str, ...]:
        """The lines of Python that keep it."""
        return tuple(pinned.line(name, RECOMPUTE) for name in self.names)

    def text(self) -> str:
        counted = "" if self.counted is None else f"; counted {self.counted_before:,} -> {self.counted:,}"
        out = [
            f"what if {', '.join(self.subjects)} were computed again instead of kept?",
            *(f"  {name} stays: {why}" for name, why in self.refused.items()),
            f"  peak memory {self.peak_before:,} -> {self.peak:,} bytes predicted{counted}",
            f"  kernels {self.kernels_before} -> {self.kernels}, FLOPs {self.flops_before:,} -> {self.flops:,}",
            *self.measured(),
        ]
        return "\n".join([*out, "  to keep it: " + "; ".join(self.pins)])

    __repr__ = text


COUNTED = 50_000_000  # accesses that are counted for an answer: some seconds


def recompute(lowered: Lowered, values: Any, limit: float = 0.2) -> Recompute:
    """The program with some activations computed again for their gradient, beside the program as it is.

    `values`: numbers of the simplified graph or names as pins have them, or one of these; of values of the forward pass that are
    stored and that the gradient reads. `limit`: seconds for measuring. Raises ValueError where there is no such value."""
    from tinyengine.stages.fusion import recompute as stage

    possible = stage.candidates(lowered.fusion)
    known, numbers = stage.names(possible), lowered.simplified.number
    by_name = {word(name): n for n, name in known.items()}
    found: list[Node] = []
    for v in values if isinstance(values, (list, tuple)) else (values,):
        n = lowered.simplified.nodes[v] if isinstance(v, int) and 0 <= v < len(numbers) else by_name.get(word(str(v)))
        if n is None or n not in possible:
            example = next((f", such as %{numbers[n]} or {known[n]!r}" for n in possible), "; there is none here")
            raise ValueError(f"recompute: {v!r} is no stored value that the gradient reads{example}")
        found.append(n)
    other = lowered.with_recompute(*(known[n] for n in found))
    was, now = lowered.certificate, other.certificate
    issued = sum(x.elements for c in (was, now) for k in c.kernels for x in k.addresses)
    counts = [low.count().peak_bytes for low in (lowered, other)] if issued <= COUNTED else [None, None]
    return Recompute(
        **_beside(lowered, other, limit), names=tuple(known[n] for n in found),
        subjects=tuple(f"%{numbers[n]} {n.op}" for n in found), refused={known[n]: possible[n] for n in found if possible[n]},
        flops_before=was.flops, flops=now.flops, peak_before=was.peak_bytes, peak=now.peak_bytes, counted_before=counts[0],
        counted=counts[1],
    )  # fmt: skip


# ---- schedules


@dataclass(frozen=True)
class ScheduleTrial:
    """One kernel under another schedule. `error_line`: the first line (from 0) that is not legal, or -1; `error`: why. What
    follows is there only when all lines are legal: `wrong` says which elements differ from the reference ("" when none do),
    `error_relative`: the largest difference beside the largest value; seconds are of one launch."""

    name: str
    schedule: tuple[str, ...]
    kernel: Kernel
    error_line: int = -1
    error: str = ""
    source: str = ""
    assembly: str = ""
    wrong: str = ""
    checked: str = ""
    error_relative: float | None = None
    seconds_predicted: float | None = None
    before: Timing | None = None
    after: Timing | None = None
    pin: str = ""

    def text(self) -> str:
        lines = "\n".join(f"  {s}" for s in self.schedule)
        if self.error:
            return f"{self.name}\n{lines}\n  line {self.error_line + 1}: {self.error}"
        assert self.before is not None and self.after is not None
        right = self.wrong or f"equal to {self.checked}, off by {self.error_relative:.2g}"
        times = f"{_s(self.before.seconds)} -> {_s(self.after.seconds)} ({_s(self.after.low)} to {_s(self.after.high)})"
        return f"{self.name}\n{lines}\n  {times}\n  {right}\n  to keep it: {self.pin}"

    __repr__ = text


def try_schedule(
    lowered: Lowered, call: int, lines: Iterable[str], limit: float = 0.1, case: Case | None = None
) -> ScheduleTrial:
    """Kernel number `call` of the program under the schedule `lines`, beside the one that it has. `limit`: seconds for measuring;
    `case`: from an earlier trial of the same kernel. Never raises for what stands in the lines."""
    given = tuple(line.strip() for line in lines)
    made = lowered.kernels[call]
    kernel, done = made.loops, []
    for i, line in enumerate(given):
        try:
            for p in parse(line):
                kernel = apply_one(kernel, p)
                done.append(str(p))
        except ScheduleError as e:
            return ScheduleTrial(made.name, given, replace(tidy(kernel), schedule=tuple(done)), i, str(e))
    kernel = replace(tidy(kernel), schedule=tuple(done))
    case = case or Isolated(lowered).case(call)
    want = oracle.answer(made.loops, case.given(), lowered.backend)
    new, old = case.compile(kernel), case.compile(made.scheduled)
    verdict = oracle.compare(kernel, case.results(new), want, case.results(old))
    before, after = case.duel(old, new, limit)
    name = f"{made.name} {kernel_key(made.loops)}"
    return ScheduleTrial(
        made.name, tuple(done), kernel, source=new.source(0), assembly=new.assembly(0), wrong=verdict.wrong, checked=want.how,
        error_relative=verdict.error, seconds_predicted=timing.predict(kernel, lowered.machine).seconds, before=before,
        after=after, pin=pinned.line(name, generalise(tuple(done), made.loops)),
    )  # fmt: skip


def _s(seconds: float, sign: bool = False) -> str:
    mark = ("+" if seconds >= 0 else "-") if sign else "-" if seconds < 0 else ""
    return mark + units.seconds(abs(seconds))


__all__ = ["Recompute", "ScheduleTrial", "WhatIf", "find", "furthest", "recompute", "try_schedule", "ulps", "what_if"]
