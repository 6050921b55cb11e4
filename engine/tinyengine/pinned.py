"""Pins: choices that hold from now on, by name. A name survives a new session, because it is that of a form (`stages.keys`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from tinyengine import realize, units
from tinyengine.choices import RECOMPUTE, VERDICTS, Choices, primitives
from tinyengine.stages.primitives.apply import parse

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered


class PinWarning(UserWarning):
    """A pin matched nothing in a program that it should have been meant for."""


_matched: set[str] = set()


def pin(name: str | Choices, choice: str | Iterable[object] | None = None) -> None:
    """From now on compile with this choice.

    `pin("exp->sum.0 3fa94c21de", "whole")`: the value of that edge is kept inline, at loop or whole; a what-if prints the name.
    `pin("softmax_8192x1024 7ab3c1d2ef", "vectorize(j, 16); parallel(i)")`: that kernel gets this schedule; b0, b1... stand for
    its buffers. `pin("maximum 90c1fe3a77.1", "recompute")`: that activation is computed again for its gradient instead of being
    kept (the second of equal form; without the ".1" all of them). The last word of a name counts. `pin(Choices(...))` replaces
    all choices at once.
    Raises TypeError for another kind of argument, ValueError for a name without words, ScheduleError for a text that is neither a
    verdict nor a schedule. A pin that matches nothing in a program warns (PinWarning)."""
    if isinstance(name, Choices):
        realize.pin(name)
        return
    if not isinstance(name, str) or choice is None:
        raise TypeError(
            "pin takes the name of an edge or kernel and a verdict or schedule, or one tinyengine.choices.Choices; "
            f"got {type(name).__name__}{'' if choice is None else f' and {type(choice).__name__}'}"
        )
    if not name.strip():
        raise ValueError("pin: the name is empty; a what-if prints the name of an edge, a kernel's pin_line that of a kernel")
    now = realize.chosen()
    if isinstance(choice, str) and choice in VERDICTS:
        realize.pin(now.with_fusion(name, choice))
    elif choice == RECOMPUTE:
        realize.pin(now.with_recompute(name))
    else:
        lines = primitives(choice)
        parse(lines)
        realize.pin(now.with_schedule(name, lines))


def pins() -> dict[str, str]:
    """Every pin: name -> verdict, "recompute" or schedule."""
    now = realize.chosen()
    again = dict.fromkeys(now.recompute, RECOMPUTE)
    return {**now.fusion, **again, **{name: "; ".join(lines) for name, lines in now.schedules.items()}}


def unpin(name: str | None = None) -> None:
    """Take one pin back, or all of them. KeyError, with what is pinned, when there is none of this name."""
    now = realize.chosen()
    if name is None:
        _matched.clear()
        realize.pin(replace(now, fusion={}, schedules={}, recompute=()))
        return
    if name not in pins():
        raise KeyError(f"nothing is pinned as {name!r}; pinned: {', '.join(pins()) or 'nothing'}")
    fusion = {k: v for k, v in now.fusion.items() if k != name}
    schedules = {k: v for k, v in now.schedules.items() if k != name}
    realize.pin(replace(now, fusion=fusion, schedules=schedules, recompute=tuple(v for v in now.recompute if v != name)))


def line(name: str, choice: str | Iterable[str]) -> str:
    """The line of Python that pins it."""
    text = choice if isinstance(choice, str) else "; ".join(choice)
    return f'tv.pin("{name}", "{text}")'


def warn(lowered: Lowered, asked: bool) -> None:
    """Warn of each pin that matches nothing in this program. A process compiles many programs, and a pin is meant for one: where
    nobody `asked` for this one, only a pin that never matched, and whose words (not its form) are found here, is worth a word."""
    for d in lowered.decisions:
        if d.kind != "pin":
            continue
        name = str(d.subject[0])
        if d.verdict != "matches nothing":
            _matched.add(name)
        elif name not in _matched and (asked or _alike(name, lowered)):
            told = f"the pin {name!r} matches nothing in a program of {units.some(len(lowered.plan.calls), 'kernel')}: {d.reason}"
            warnings.warn(told + "; tv.unpin() takes it back", PinWarning, stacklevel=3)


def _alike(name: str, lowered: Lowered) -> bool:
    words = name.split()[:-1]
    fusion = lowered.fusion
    edges = (f"{n.op}->{r.op}.{pos}" for n, readers in fusion.readers.items() for r, pos in readers)
    return not words or words[0] in edges or any(n.kernel.name == words[0] for n in lowered.nests)
