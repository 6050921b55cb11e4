"""The timing gutter beside the lines of a cell, in a real JupyterLab."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from .jupyter import Notebook

Open = Callable[..., Notebook]

LOAD = "%load_ext tinyviz.magics"
COSTS = """
import tinyviz.magics
from tinyviz.gutter import Cost
def here():
    import sys
    frame = sys._getframe(1)
    return tinyviz.magics.notebook().cells.find(frame.f_code.co_filename, frame.f_lineno)
"""
SHOW = """
first = here()
second = here()
costs = {first.line: Cost(seconds=2e-3, bytes_read=4096), second.line: Cost(seconds=1e-3)}
total = Cost(seconds=3e-3, launches=2)
tinyviz.magics.notebook().gutter.show(first.cell, costs, total=total, recording="r1", ids={second.line: "7"})
"""


def test_numbers_stand_beside_their_lines(open_notebook: Open, pictures: Path) -> None:
    notebook = open_notebook([LOAD, COSTS, SHOW])
    notebook.run_all()
    marks = notebook.cell(2).locator(".tinyviz-cost")
    expect(marks).to_have_text(["2 ms", "1 ms"])
    expect(marks.first).to_have_attribute("title", "measured 2 ms · read 4 KiB")
    # The first line of the cell is empty, and not compiled: the numbers stand where the reader sees the code.
    for mark, line in zip(marks.all(), ("first = here()", "second = here()"), strict=True):
        code = notebook.cell(2).locator(".cm-line", has_text=line)
        box, beside = code.bounding_box(), mark.bounding_box()
        assert box and beside and abs(box["y"] - beside["y"]) < 3
    expect(notebook.cell(0).locator(".tinyviz-gutter")).to_have_count(0)
    expect(notebook.page.locator(".tinyviz-meter")).to_have_text("3 ms · 2 launches")
    notebook.shoot(pictures, "gutter")


def test_numbers_stay_with_their_lines_in_editing_and_after_a_reload(open_notebook: Open) -> None:
    notebook = open_notebook([LOAD, COSTS, SHOW])
    notebook.run_all()
    marks = notebook.cell(2).locator(".tinyviz-cost")
    expect(marks).to_have_count(2)
    notebook.save()
    notebook.reload()
    expect(marks).to_have_text(["2 ms", "1 ms"])

    notebook.cell(2).locator(".cm-line", has_text="second = here()").click()
    notebook.page.keyboard.press("Home")
    notebook.page.keyboard.press("Enter")
    code = notebook.cell(2).locator(".cm-line", has_text="second = here()").bounding_box()
    beside = marks.nth(1).bounding_box()
    assert code and beside and abs(code["y"] - beside["y"]) < 3


def test_a_cell_that_runs_again_loses_its_old_numbers(open_notebook: Open) -> None:
    only_once = "if 'first' not in globals():" + SHOW.replace("\n", "\n    ")
    notebook = open_notebook([LOAD, COSTS, only_once])
    notebook.run_all()
    expect(notebook.cell(2).locator(".tinyviz-cost")).to_have_count(2)
    notebook.run(2)
    expect(notebook.cell(2).locator(".tinyviz-cost")).to_have_count(0)


def test_a_click_on_a_number_selects_the_line_everywhere(open_notebook: Open) -> None:
    view = """
    from tinyviz.widget import ViewWidget
    line = {"kind": "line", "id": "7", "label": "the second line"}
    ViewWidget("outline", {"title": "lines", "items": [line]}, text="", recording="r1")
    """
    notebook = open_notebook([LOAD, COSTS, SHOW, view])
    notebook.run_all()
    notebook.cell(2).locator(".tinyviz-cost").nth(1).click()
    expect(notebook.cell(3).get_by_role("option")).to_have_attribute("aria-selected", "true")
