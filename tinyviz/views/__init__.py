"""The views: each file makes one, as data (`data`), as text (`text`) and as a static drawing (`svg`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from tinyviz import palette
from tinyviz.viewdata import ViewData
from tinyviz.wire import Program, Recording, Selection

NAMES = ("overview", "graph", "stages", "fusion", "kernel", "timeline", "lines", "memory", "roofline", "values", "addresses")
#: `compare` needs a second recording, so it stands only on pages that have one: see `tinyviz.compare`
ALL = (*NAMES, "compare")


class View(Protocol):
    """What each module of this folder offers. `program`: which of the recording; None: the one with the most time in it."""

    NAME: str

    def data(self, r: Recording, program: int | None = None, selection: Selection | None = None) -> Any: ...
    def text(self, r: Recording, d: Any) -> str: ...
    def svg(self, r: Recording, d: Any) -> str: ...


def get(name: str) -> View:
    """The view called `name`; ValueError says which there are."""
    if name not in ALL:
        raise ValueError(f"there is no view {name!r}; views: {', '.join(ALL)}")
    module: Any = import_module(f"tinyviz.views.{name}")
    return module  # type: ignore[no-any-return]


class NothingRecorded(ValueError):
    """The recording holds no program, so there is nothing that a view could show."""


def choose(r: Recording, program: int | None, selection: Selection | None) -> int:
    """Which program to show: the one asked for, the selection's, or the one that took most of the time."""
    if not r.programs:
        raise NothingRecorded("; ".join(r.missing) or "no program was recorded")
    if program is None and selection is not None and selection.kind not in ("line", "rule"):
        program = int(selection.id.split(".")[0])
    if program is None:
        return max(range(len(r.programs)), key=lambda i: (weight(r.programs[i]), -i))
    if not 0 <= program < len(r.programs):
        raise ValueError(f"there is no program {program}: the recording has {len(r.programs)}, counted from 0")
    return program


def weight(p: Program) -> tuple[float, int]:
    """Seconds in all runs, then size."""
    return (p.launches.host_median or 0.0) * p.launches.count, len(p.nodes)


def base(name: str, title: str, howto: tuple[str, str, str], legend: tuple[str, ...], program: int) -> dict[str, Any]:
    """The fields that all views share."""
    return {"view": name, "title": title, "howto": list(howto), "legend": palette.legend(legend), "program": program}


__all__ = ["ALL", "NAMES", "NothingRecorded", "View", "ViewData", "base", "choose", "get"]
