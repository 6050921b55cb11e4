"""What a live view may ask the kernel: another fusion verdict, another schedule, a tuning run. Answers are plain data.

A question is a dict with `what` and the place: {"what": "what_if", "program": 0, "decision": 4, "verdict": "whole"}; {"what":
"schedule", "program": 0, "kernel": 2, "lines": ["tile(i, 32)"]}; {"what": "tune", "program": 0, "kernel": 2, "budget": 2.0}. All
of it runs on copies: nothing of the user's changes; what tuning finds is kept by machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinyviz import asm, views, wire
from tinyviz.codec import to_json
from tinyviz.convert import attempt, loops_code
from tinyviz.steps import of_kernel
from tinyviz.viewdata import CountAnswer, ScheduleAnswer, Times, TriedAgain, TuneAnswer, UnderAnswer, WhatIfAnswer

LIVE_BYTES = 256 << 20  # of user memory that a recording keeps alive for questions
MOST_SECONDS = 60.0  # that a page may ask the tuner to take


class Answers:
    """Of one recording. `programs`: the engine's Lowered behind each of its programs; None where it is gone."""

    def __init__(self, data: wire.Recording, programs: Sequence[Any]) -> None:
        self.data, self.programs = data, list(programs)
        self._case: tuple[tuple[int, int], Any] | None = None
        left = LIVE_BYTES
        for i, lowered in enumerate(self.programs):
            left -= sum(getattr(b, "nbytes", 0) for b in lowered.buffers) if lowered is not None else 0
            if left < 0:
                self.programs[i] = None

    def __call__(self, question: dict[str, Any], say: Callable[[str], None] = lambda text: None) -> Any:
        """The answer, as JSON values. Raises ValueError, KeyError or TypeError for a question that makes no sense."""
        asked = (
            self.what_if, self.schedule, self.tune, self.ablate, self.count, self.bisect, self.recompute, self.recompute_under,
            self.page,
        )  # fmt: skip
        known: dict[Any, Callable[..., Any]] = {f.__name__: f for f in asked}
        what = question.get("what")
        if what not in known:
            raise ValueError(f"unknown question {what!r}; known: {', '.join(known)}")
        arguments = {k: v for k, v in question.items() if k not in ("what", "type", "id")}
        if what in ("tune", "recompute_under"):
            arguments["say"] = say
        return to_json(known[what](**arguments))

    def _program(self, program: int) -> tuple[wire.Program, Any]:
        p = self.data.programs[_index(program, len(self.data.programs), "program")]
        lowered = self.programs[program]
        if lowered is None:
            raise ValueError("the memory of this program is gone; record it again, or use tv.lower")
        return p, lowered

    def what_if(self, program: int, decision: int, verdict: str) -> WhatIfAnswer:
        p, lowered = self._program(program)
        d = p.decisions[_index(decision, len(p.decisions), "decision")]
        if d.kind != "edge" or not d.nodes:
            raise ValueError(f"decision {decision} is about no edge: {d.kind} {d.subject}")
        number = {n: i for i, n in enumerate(p.simplified)}
        w = lowered.what_if(tuple(number[n] for n in d.nodes), verdict)
        return WhatIfAnswer(
            w.subject, w.asked, w.verdict_before, w.verdict, w.followed, w.reason, w.kernels_before, w.kernels,
            list(w.recompiled), w.bytes_before, w.bytes, w.seconds_predicted_before, w.seconds_predicted, times(w.before),
            times(w.after), times(w.difference), w.ulp, w.result, w.pin if w.followed else "",
        )  # fmt: skip

    def _kernel(self, program: int, kernel: int) -> tuple[wire.Program, Any]:
        p, lowered = self._program(program)
        _index(kernel, len(p.kernels), "kernel")
        return p, lowered

    def schedule(self, program: int, kernel: int, lines: list[str]) -> ScheduleAnswer:
        from tinyengine.edits import try_schedule
        from tinyengine.trial import Isolated

        p, lowered = self._kernel(program, kernel)
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise TypeError("the lines of a schedule are a list of texts")
        if self._case is None or self._case[0] != (program, kernel):
            self._case = ((program, kernel), Isolated(lowered).case(kernel))
        t = try_schedule(lowered, kernel, lines, case=self._case[1])
        scheduled = loops_code(t.kernel, p.simplified)
        count = len(scheduled.text)
        none = wire.Code()
        return ScheduleAnswer(
            list(t.schedule), t.error_line, t.error, scheduled,
            asm.source(t.source, lowered.backend, count) if t.source else none,
            asm.assembly(t.assembly, count) if t.assembly else none,
            t.wrong, t.checked, t.error_relative, t.seconds_predicted, None if t.before is None else times(t.before),
            None if t.after is None else times(t.after), t.pin,
        )  # fmt: skip

    def tune(self, program: int, kernel: int, budget: float, say: Callable[[str], None]) -> TuneAnswer:
        from tinyengine.tune import tune

        _, lowered = self._kernel(program, kernel)
        budget = min(float(budget), MOST_SECONDS)
        done = tune(lowered, budget=budget, only=(lowered.kernels[kernel].name,), progress=say)
        return TuneAnswer([attempt(a, a.schedule) for k in done.kernels for a in k.attempts], done.text())


    def ablate(self, program: int, kernel: int) -> wire.Ablation:
        """Measure a kernel whole and in parts; kept in the recording."""
        from tinyengine.ablation import ablate

        p, lowered = self._kernel(program, kernel)
        a = ablate(lowered, kernel)
        whole, loads, arithmetic, empty = map(spread, (a.whole, a.loads, a.arithmetic, a.empty))
        found = p.kernels[kernel].ablation = wire.Ablation(
            whole, loads, arithmetic, empty, a.bound, a.predicted, a.sentence
        )  # fmt: skip
        return found

    def count(self, program: int) -> CountAnswer:
        """Count one run in the interpreter; kept in the recording."""
        from tinyviz.views.timeline import ledger

        p, lowered = self._program(program)
        counts = lowered.count()
        for k, c in zip(p.kernels, counts.kernels, strict=True):
            k.counted = wire.Counted(c.flops, c.bytes_read, c.bytes_written, c.bytes_issued)
        p.peak_bytes = counts.peak_bytes
        return CountAnswer(counts.peak_bytes, [k.counted for k in p.kernels if k.counted is not None], ledger(p))

    def recompute(self, program: int, slots: list[int]) -> wire.Recomputed:
        """Compute activations again instead of keeping them; the effect is kept in the recording."""
        p, lowered = self._program(program)
        if not isinstance(slots, list) or not slots:
            raise TypeError("the buffers to compute again are a list of their numbers, with one at least")
        for i in slots:
            if not p.slots[_index(i, len(p.slots), "buffer")].again:
                raise ValueError(f"buffer {p.slots[i].name} holds no activation that the gradient reads")
        return self._recomputed(p, lowered, slots, [p.slots[i].again for i in slots])

    def _recomputed(self, p: wire.Program, lowered: Any, slots: list[int], names: list[str]) -> wire.Recomputed:
        r = lowered.recompute(names)
        found = wire.Recomputed(
            list(slots), list(r.names), r.refused, r.kernels_before, r.kernels, r.flops_before, r.flops, r.peak_before, r.peak,
            r.counted_before, r.counted, r.seconds_predicted_before, r.seconds_predicted, spread(r.before), spread(r.after),
            spread(r.difference), r.ulp if math.isfinite(r.ulp) else None, r.result, list(r.pins),
        )  # fmt: skip
        p.recomputed = [x for x in p.recomputed if x.slots != found.slots] + [found]
        return found

    def recompute_under(self, program: int, limit: int, say: Callable[[str], None] = lambda text: None) -> UnderAnswer:
        """Search for the activations to compute again so that the peak is at most `limit` bytes, and measure what that does; the
        effect is kept in the recording."""
        from tinyengine.recompute_search import search

        p, lowered = self._program(program)
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"the limit is a number of bytes, not {limit!r}")
        found = search(lowered, limit, say)
        slot = {s.again: i for i, s in enumerate(p.slots) if s.again}
        tried = [
            TriedAgain(slot.get(t.name, -1), t.subject, t.per_flop, t.peak, t.flops, t.taken, t.reason) for t in found.tried
        ]
        slots = sorted(slot[name] for name in found.names if name in slot)
        say("measuring both programs in turn")
        measured = self._recomputed(p, lowered, slots, list(found.names)) if found.names else None
        return UnderAnswer(found.limit, found.peak_before, found.peak, slots, tried, measured)

    def page(self, program: int) -> Any:
        """The views of another program of the recording: what a page that is loaded carries of small ones only."""
        from tinyviz.explore import program_page

        return program_page(self.data, views.NAMES, _index(program, len(self.data.programs), "program"))

    def bisect(self, program: int) -> wire.Bisection:
        """Search for the first step that changes a value; kept in the recording."""
        p, lowered = self._program(program)
        b = lowered.bisect()
        error = b.error if math.isfinite(b.error) else None
        sentence = str(b).partition("\n")[0]
        step = b.firing if b.firing >= 0 or not b.kernel else of_kernel(p, b.stage, b.kernel, b.primitive)
        found = p.bisection = wire.Bisection(b.stage, b.step, step, error, b.tolerance, b.checked, sentence)
        return found


def spread(t: Any) -> wire.Spread:
    """The short wire form of a `tinyengine.trial.Timing`."""
    return wire.Spread(t.seconds, t.low, t.high, len(t.samples))


def times(t: Any) -> Times:
    """The wire form of a `tinyengine.trial.Timing`."""
    return Times(t.seconds, t.low, t.high, list(t.samples))


def _index(value: Any, size: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < size:
        raise ValueError(f"there is no {name} {value!r}: there are {size}")
    return value
