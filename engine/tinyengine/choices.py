"""Choices: every decision that a person, a pin, the tuner or a what-if makes instead of the engine, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

VERDICTS = ("inline", "at loop", "whole")


@dataclass(frozen=True)
class Choices:
    """`fusion`: value key (see `stages.fuse.value_key`) -> verdict; `schedules`: kernel name -> list of primitives, in text form;
    `vector_width`: lanes for new schedules (None: the machine's; 1: the readable scalar form)."""

    fusion: Mapping[str, str] = field(default_factory=dict)
    schedules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vector_width: int | None = None

    def __post_init__(self) -> None:
        for key, verdict in self.fusion.items():
            if verdict not in VERDICTS:
                raise ValueError(f"fusion choice for {key}: {verdict!r} is none of {', '.join(VERDICTS)}")

    def with_fusion(self, key: str, verdict: str) -> Choices:
        """The same choices, and `verdict` for the value called `key`."""
        return replace(self, fusion={**self.fusion, key: verdict})

    def with_schedule(self, kernel: str, primitives: Any) -> Choices:
        """The same choices, and this schedule for the kernel called `kernel`."""
        lines = (
            tuple(p.strip() for p in primitives.split("\n") if p.strip())
            if isinstance(primitives, str)
            else tuple(map(str, primitives))
        )
        return replace(self, schedules={**self.schedules, kernel: lines})

    def key(self) -> str:
        """Text that is equal exactly when the choices are: a part of every cache key."""
        return repr((sorted(self.fusion.items()), sorted((k, tuple(v)) for k, v in self.schedules.items()), self.vector_width))


DEFAULT = Choices()
