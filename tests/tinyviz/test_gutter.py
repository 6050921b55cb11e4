"""From compiled lines to the lines of a cell, and from there to the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.tinyviz.shells import new_shell
from tinyviz.cells import CellLine, CellLines
from tinyviz.gutter import TARGET, Cost, Gutter
from tinyviz.magics import load_ipython_extension, notebook, unload_ipython_extension


class FakeComm:
    def __init__(self, target_name: str) -> None:
        self.target_name = target_name
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def on_msg(self, callback: Any) -> None:
        self.page = callback

    def send(self, data: dict[str, Any]) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[InteractiveShell]:
    with new_shell(tmp_path) as shell:
        shell.user_ns["here"] = here
        yield shell


PLACES: list[tuple[str, int]] = []


def here() -> None:
    import sys

    frame = sys._getframe(1)
    PLACES.append((frame.f_code.co_filename, frame.f_lineno))


def lines_of(shell: InteractiveShell, cells: CellLines, raw: str, cell: str = "c1") -> list[CellLine | None]:
    """Runs a cell; where tinyviz says that each call of here() stands."""
    PLACES.clear()
    shell.run_cell(raw, cell_id=cell).raise_error()
    return [cells.find(*place) for place in PLACES]


@pytest.fixture
def cells(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> CellLines:
    cells = CellLines(shell)
    # A notebook's front end names the cell in the request, and so a cell run within a cell has the outer one's id.
    monkeypatch.setattr("tinyviz.cells.parent_cell_id", lambda _: "c1")
    shell.events.register("pre_run_cell", cells.started)
    shell.events.register("post_run_cell", cells.finished)
    return cells


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        ("here()\nhere()", [1, 2]),
        ("\n \n\nhere()\n\nhere()", [4, 6]),
        ("def f():\n    here()\nf()", [2]),
        ("if 1:\n  here()\n", [2]),
        ("  here()\n  here()", [1, 2]),
        ("%%time\nx = 1\nhere()", [3]),
        ("%%time\n\n\nhere()\nhere()", [4, 5]),
        ("%%time\nhere()", [2]),
        ("%%capture\n\nhere()\nhere()", [3, 4]),
        ("%%capture\n%%time\n\nhere()\nx = 2\nhere()", [4, 6]),
        ("%time here()", [None]),  # compiled apart from the cell, with no line of it
        ("x = 'a\\nb'; here()", [1]),
    ],
)
def test_a_line_is_where_the_reader_sees_it(shell: InteractiveShell, cells: CellLines, raw: str, lines: list[int | None]) -> None:
    assert lines_of(shell, cells, raw) == [None if line is None else CellLine("c1", line) for line in lines]
    assert cells.current is None


def test_a_function_is_in_the_cell_that_defined_it(shell: InteractiveShell, cells: CellLines) -> None:
    assert lines_of(shell, cells, "\ndef f():\n    here()", "c1") == []
    assert lines_of(shell, cells, "f(); here()", "c2") == [CellLine("c1", 3), CellLine("c2", 1)]


def test_of_two_equal_cells_the_one_that_runs_is_meant(shell: InteractiveShell, cells: CellLines) -> None:
    assert lines_of(shell, cells, "here()", "c1") == [CellLine("c1", 1)]
    assert lines_of(shell, cells, "here()", "c2") == [CellLine("c2", 1)]


def test_a_cell_that_fails_is_over(shell: InteractiveShell, cells: CellLines) -> None:
    shell.run_cell("1 / 0", cell_id="c1")
    assert cells.current is None
    assert lines_of(shell, cells, "here()", "c2") == [CellLine("c2", 1)]


def test_without_a_cell_id_nothing_is_claimed(shell: InteractiveShell) -> None:
    cells = CellLines(shell)
    shell.events.register("pre_run_cell", cells.started)
    PLACES.clear()
    shell.run_cell("here()")
    assert [cells.find(*place) for place in PLACES] == [None]
    assert cells.find(__file__, 3) is None


def test_the_gutter_says_what_was_recorded_and_nothing_else() -> None:
    opened: list[FakeComm] = []
    gutter = Gutter(lambda **name: opened.append(FakeComm(**name)) or opened[-1])
    gutter.clear("c1")
    assert opened == []  # nothing to say, nobody called

    gutter.show("c1", {3: Cost(seconds=0.5, bytes_read=0), 1: Cost()}, total=Cost(launches=2), recording="r", ids={3: "9"})
    (comm,) = opened
    assert comm.target_name == TARGET
    lines = [{"line": 1, "id": None}, {"line": 3, "id": "9", "seconds": 0.5, "bytes_read": 0}]
    said = {"type": "lines", "cell": "c1", "recording": "r", "lines": lines, "total": {"launches": 2}}
    assert comm.sent == [said]

    comm.page({"content": {"data": {"type": "hello"}}})  # a page that was loaded again
    assert comm.sent == [said, said]
    gutter.clear("c1")
    gutter.clear("c1")
    assert comm.sent[2:] == [{"type": "clear", "cell": "c1"}]
    gutter.close()
    assert comm.closed and len(opened) == 1


def test_the_extension_follows_the_cells_of_its_shell(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    load_ipython_extension(shell)
    load_ipython_extension(shell)
    try:
        book = notebook()
        assert book is not None
        cleared: list[str] = []
        monkeypatch.setattr(book.gutter, "clear", cleared.append)
        assert lines_of(shell, book.cells, "here()", "c7") == [CellLine("c7", 1)]
        assert cleared == ["c7"]
    finally:
        unload_ipython_extension(shell)
    assert notebook() is None
    assert lines_of(shell, book.cells, "here() # again", "c8") == [None]


def test_the_cell_that_loads_the_extension_has_lines_too(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = "\n%load_ext tinyviz.magics\nhere()"
    monkeypatch.setattr("tinyviz.magics.parent_cell_id", lambda _: "c1")
    monkeypatch.setattr("tinyviz.cells.parent_cell_id", lambda _: "c1")
    monkeypatch.setattr(InteractiveShell, "parent_header", SimpleNamespace(get=lambda *_: {"code": raw}), raising=False)
    try:
        PLACES.clear()
        shell.run_cell(raw, cell_id="c1").raise_error()
        book = notebook()
        assert book is not None
        assert [book.cells.find(*place) for place in PLACES] == [CellLine("c1", 3)]
    finally:
        unload_ipython_extension(shell)
