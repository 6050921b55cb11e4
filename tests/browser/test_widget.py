"""The path Python → widget → page, and back: in a real JupyterLab, live and saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from .jupyter import Notebook

Open = Callable[..., Notebook]

OUTLINE = """
from tinyviz.widget import ViewWidget
svg = '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="40"><text x="4" y="24">two kernels</text></svg>'
items = [{"kind": "kernel", "id": f"k{i}", "label": f"kernel {i}", "detail": f"{i} ms"} for i in range(2)]
widget = ViewWidget("outline", {"title": "two kernels", "items": items}, text="two kernels", svg=svg, recording="r1")
widget
"""


def test_a_click_reaches_the_kernel_and_the_kernel_selects_on_the_page(open_notebook: Open, pictures: Path) -> None:
    notebook = open_notebook([OUTLINE, "widget.selection", "widget.selection = {'kind': 'kernel', 'id': 'k0'}"])
    notebook.run(0)
    view = notebook.cell(0).locator(".tinyviz-outline")
    expect(view).to_have_attribute("data-live", "true")
    expect(view.locator(".tinyviz-title")).to_have_text("two kernels")
    expect(view.get_by_role("option")).to_have_count(2)

    second = view.get_by_role("option", name="kernel 1")
    second.click()
    expect(second).to_have_attribute("aria-selected", "true")
    notebook.run(1)
    assert notebook.text(1) == "{'kind': 'kernel', 'id': 'k1'}"

    notebook.run(2)
    expect(view.get_by_role("option", name="kernel 0")).to_have_attribute("aria-selected", "true")
    expect(second).to_have_attribute("aria-selected", "false")
    notebook.shoot(pictures, "outline")


def test_two_views_of_one_recording_share_the_selection(open_notebook: Open) -> None:
    notebook = open_notebook([OUTLINE, OUTLINE.replace("widget", "other").replace("tinyviz.other", "tinyviz.widget")])
    notebook.run_all()
    notebook.cell(0).get_by_role("option", name="kernel 1").click()
    expect(notebook.cell(1).get_by_role("option", name="kernel 1")).to_have_attribute("aria-selected", "true")


def test_a_saved_notebook_is_drawn_again_without_its_kernel(open_notebook: Open) -> None:
    notebook = open_notebook([OUTLINE])
    notebook.run_all()
    notebook.save()
    outputs = json.loads(notebook.path.read_text())["cells"][0]["outputs"]
    assert set(outputs[0]["data"]) == {
        "application/vnd.tinyviz+json", "application/vnd.jupyter.widget-view+json", "text/html", "image/svg+xml", "text/plain",
    }  # fmt: skip

    view = notebook.cell(0).locator(".tinyviz-outline")
    notebook.restart()
    expect(view).to_have_attribute("data-live", "false")
    view.get_by_role("option", name="kernel 1").click()
    expect(view.get_by_role("option", name="kernel 1")).to_have_attribute("aria-selected", "true")


def test_a_reloaded_page_finds_the_live_widget_again(open_notebook: Open) -> None:
    notebook = open_notebook([OUTLINE, "widget.selection"])
    notebook.run(0)
    notebook.cell(0).get_by_role("option", name="kernel 1").click()
    notebook.save()
    notebook.reload()
    view = notebook.cell(0).locator(".tinyviz-outline")
    expect(view).to_have_attribute("data-live", "true")
    expect(view.get_by_role("option", name="kernel 1")).to_have_attribute("aria-selected", "true")
    view.get_by_role("option", name="kernel 0").click()
    notebook.run(1)
    assert notebook.text(1) == "{'kind': 'kernel', 'id': 'k0'}"


def test_a_payload_in_parts_arrives_whole(open_notebook: Open) -> None:
    small = "import tinyviz.widget\ntinyviz.widget.PAYLOAD_LIMIT_BYTES = tinyviz.widget.PART_BYTES = 64"
    # Without the extension's own form of the output the widget is what is drawn.
    only_widget = OUTLINE.strip().removesuffix("widget") + "from ipywidgets import VBox\nVBox([widget])"
    notebook = open_notebook([small, only_widget])
    notebook.run_all()
    expect(notebook.cell(1).get_by_role("option")).to_have_count(2)


def test_a_view_that_fails_leaves_its_text(open_notebook: Open) -> None:
    code = "from tinyviz.widget import ViewWidget\nViewWidget('no-such-view', {}, text='the text twin')"
    notebook = open_notebook([code])
    notebook.run_all()
    expect(notebook.cell(0).get_by_role("alert")).to_contain_text("no view called “no-such-view”")
    expect(notebook.cell(0).locator(".tinyviz-text")).to_have_text("the text twin")
    assert any("tinyviz: a view failed" in error for error in notebook.errors)
    notebook.errors.clear()


def test_notebook_7_draws_the_widget_too(open_notebook: Open) -> None:
    notebook = open_notebook([OUTLINE, "widget.selection"], app="notebooks")
    notebook.run(0)
    notebook.cell(0).get_by_role("option", name="kernel 1").click()
    notebook.run(1)
    assert notebook.text(1) == "{'kind': 'kernel', 'id': 'k1'}"
