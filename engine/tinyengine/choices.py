"""Choices: every decision that a person, a pin, the tuner or a what-if makes instead of the engine, as one value.

What a choice is about is named by text whose last word counts and whose other words are for the reader:
  an edge of the graph   "exp->sum.0 3fa94c21"        (`stages.keys.edge_key`)
  a kernel               "softmax_8192x1024 7ab3c1d2" (`stages.keys.kernel_key`), or its name alone within one program
  a value                "maximum 90c1fe3a77"         (`stages.fusion.recompute.key`)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

VERDICTS = ("inline", "at loop", "whole")
RECOMPUTE = "recompute"
# the derivative of the origin of such a copy, and of a copy of what lies below it (see `stages.fusion.recompute`)
AGAIN, ON_THE_WAY = "computed again", "computed again on the way"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found for a kernel: `schedule` in general form (see `stages.keys.generalise`), or None where the engine's own
    was the fastest; seconds of one launch, medians, under the engine's own schedule and under the found one; `tried`: how many
    schedules were measured."""

    schedule: tuple[str, ...] | None
    seconds_before: float
    seconds_after: float
    tried: int


def word(name: str) -> str:
    """The part of a name that counts: the last word."""
    return name.split()[-1] if name.strip() else ""


def primitives(schedule: str | Iterable[object]) -> tuple[str, ...]:
    """A schedule as one text per primitive, from lines, from text separated by ';', or from a list."""
    rows = schedule.replace(";", "\n").split("\n") if isinstance(schedule, str) else map(str, schedule)
    return tuple(p.strip() for p in rows if p.strip())


@dataclass(frozen=True)
class Choices:
    """`fusion`: edge -> verdict; `schedules`: kernel -> list of primitives, in text form; `tuned`: key of a kernel -> what tuning
    found for it; `recompute`: values that are computed again for their gradient instead of being kept; `vector_width`: lanes for
    new schedules (None: the machine's; 1: the readable scalar form)."""

    fusion: Mapping[str, str] = field(default_factory=dict)
    schedules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vector_width: int | None = None
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    recompute: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, verdict in self.fusion.items():
            if verdict not in VERDICTS:
                raise ValueError(f"fusion choice for {name}: {verdict!r} is none of {', '.join(VERDICTS)}")

    def with_fusion(self, edge: str, verdict: str) -> Choices:
        """The same choices, and `verdict` for the value that flows along `edge`."""
        return replace(self, fusion={**self.fusion, edge: verdict})

    def with_schedule(self, kernel: str, schedule: str | Iterable[object]) -> Choices:
        """The same choices, and this schedule for the kernel called `kernel`."""
        return replace(self, schedules={**self.schedules, kernel: primitives(schedule)})

    def with_recompute(self, *values: str) -> Choices:
        """The same choices, and these values are computed again for their gradient."""
        return replace(self, recompute=tuple(dict.fromkeys((*self.recompute, *values))))

    @property
    def pinned(self) -> bool:
        """Whether any of them is about something by name."""
        return bool(self.fusion or self.schedules or self.recompute)

    @functools.cached_property
    def fusion_by_word(self) -> dict[str, str]:
        return {word(name): verdict for name, verdict in self.fusion.items()}

    @functools.cached_property
    def schedule_by_word(self) -> dict[str, tuple[str, ...]]:
        return {word(name): lines for name, lines in self.schedules.items()}

    @functools.cached_property
    def _key(self) -> str:
        chosen = sorted(self.fusion.items()), sorted((k, tuple(v)) for k, v in self.schedules.items())
        tuned = sorted((k, t.schedule) for k, t in self.tuned.items())
        return repr((*chosen, self.vector_width, tuned, sorted(self.recompute)))

    def key(self) -> str:
        """Text that is equal exactly when the choices are: a part of every cache key."""
        return self._key


DEFAULT = Choices()
