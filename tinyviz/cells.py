"""From a compiled file and line to a notebook cell and the line that the reader sees there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

#: the names under which IPython compiles the body of %%time
TIMED = ("<timed exec>", "<timed eval>")


@dataclass(frozen=True)
class CellLine:
    """``line`` counts from 1 in the cell as it stands in the notebook."""

    cell: str
    line: int


@dataclass(frozen=True)
class _Running:
    cell: str
    raw: str
    offset: int  # of `raw` in the cell, in lines


@dataclass(frozen=True)
class _Source:
    cell: str
    offset: int  # what to add to a compiled line number
    last: int


class CellLines:
    """Remembers which cell each compiled source came from.

    `started` and `finished` belong to IPython's pre_run_cell and post_run_cell.
    ipykernel names a compiled cell by its text, so cells with the same text share one name; the one that ran last has it.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._running: list[_Running] = []
        self._sources: dict[str, _Source] = {}

    @property
    def current(self) -> str | None:
        """The id of the cell that is running."""
        return self._running[-1].cell if self._running else None

    def started(self, info: Any) -> None:
        """Without a cell id (nbclient sends none) there is no cell to show anything beside, and so nothing to remember."""
        cell, raw = info.cell_id or parent_cell_id(self._shell), info.raw_cell
        if cell is None or not isinstance(raw, str):
            return
        offset = 0
        if self._running and self._running[-1].cell == cell:
            # A cell magic that runs its body as a cell: the body, now with a line end behind it, starts further down.
            outer = self._running[-1]
            whole, part = outer.raw.rstrip(), raw.rstrip()
            if whole.endswith(part):
                offset = outer.offset + whole[: len(whole) - len(part)].count("\n")
        self._running.append(_Running(cell, raw, offset))
        source = _Source(cell, offset + empty_lines(raw), offset + raw.count("\n") + 1)
        # ipykernel's compiler looks at the raw text only.
        self._sources[self._shell.compile.get_code_name(raw, raw, self._shell.execution_count)] = source
        if (body := timed_body(raw)) is not None:
            for name in TIMED:
                self._sources[name] = _Source(cell, offset + raw.count("\n") - body.count("\n") + empty_lines(body), source.last)

    def finished(self, _result: Any = None) -> None:
        if self._running:
            self._running.pop()

    def find(self, filename: str, line: int) -> CellLine | None:
        """The place in a notebook of ``line`` (from 1) of the compiled ``filename``; None when it is no cell's."""
        source = self._sources.get(filename)
        if source is None or not 1 <= line + source.offset <= source.last:
            return None
        return CellLine(source.cell, line + source.offset)


def parent_cell_id(shell: Any) -> str | None:
    """The id of the cell that is running, as the front end gave it with its request."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    cell = kernel.get_parent().get("metadata", {}).get("cellId")
    return cell if isinstance(cell, str) else None


def empty_lines(text: str) -> int:
    """How many lines IPython drops from the start."""
    return text[: len(text) - len(text.lstrip())].count("\n") if text.strip() else 0


def timed_body(raw: str) -> str | None:
    """What ``%%time`` compiles of a cell; None for any other cell."""
    found = re.match(r"\s*%%time\b[^\n]*\n(.*)\Z", raw, re.DOTALL)
    return found.group(1) if found else None
