"""``%load_ext tinyviz``: what a notebook's kernel keeps for tinyviz: which cell a line is in, and the channel to the gutter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tinyengine.machine import measure_once
from tinyviz.cells import CellLines, parent_cell_id
from tinyviz.gutter import Gutter
from tinyviz.live import Live


class Notebook:
    """Of one IPython shell: ``cells`` finds the cell line of a compiled line, ``gutter`` shows costs beside it."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.cells = CellLines(shell)
        self.gutter = Gutter()
        self.live = Live(self)
        self.name_file = self.live.name_file

    def attach(self) -> None:
        self.shell.events.register("pre_run_cell", self._started)
        self.shell.events.register("post_run_cell", self._finished)
        self.shell.register_magic_function(self.live.line_magic, "line", "watch")
        self.shell.register_magic_function(self.live.cell_magic, "cell", "watch")
        # The cell that loads the extension began before anyone listened.
        parent = self.shell.parent_header if hasattr(self.shell, "parent_header") else {}
        code = parent.get("content", {}).get("code")
        if code is not None and parent_cell_id(self.shell) is not None:
            self.cells.started(SimpleNamespace(cell_id=None, raw_cell=code))

    def detach(self) -> None:
        self.shell.events.unregister("pre_run_cell", self._started)
        self.shell.events.unregister("post_run_cell", self._finished)
        self.gutter.close()

    def _started(self, info: Any) -> None:
        self.cells.started(info)
        if self.cells.current is not None:
            # Numbers of an earlier run must not stand beside a cell that runs again.
            self.gutter.clear(self.cells.current)
        self.live.started(info)

    def _finished(self, result: Any) -> None:
        self.live.finished(result)
        self.cells.finished(result)


_notebook: Notebook | None = None


def notebook() -> Notebook | None:
    """The notebook of this process, once ``%load_ext tinyviz`` ran."""
    return _notebook


def load_ipython_extension(shell: Any) -> None:
    global _notebook
    if _notebook is None:
        measure_once()  # about a second, for the roofs that the views show; nothing is compiled yet that depends on them
        _notebook = Notebook(shell)
        _notebook.attach()


def unload_ipython_extension(_shell: Any) -> None:
    global _notebook
    if _notebook is not None:
        _notebook.detach()
        _notebook = None
