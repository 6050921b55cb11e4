"""axe-core's rules (WCAG 2 A and AA, and its best practices for a part of a page), on each view with all that it can unfold open
and something selected: on the exported page and in JupyterLab, light and dark."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import tinyviz as tv
from tinyviz import codec, views, wire
from tinyviz.recording import Recording

from .jupyter import MINUTE, THEMES, Notebook

AXE = Path(__file__).parents[2] / "extension" / "node_modules" / "axe-core" / "axe.min.js"
Show = Callable[..., Page]

PROGRAM = """
import numpy as np
import tinyviz as tv
%load_ext tinyviz
x = tv.Tensor(np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32))
with tv.watch(values=1) as rec:
    x.softmax(1).numpy()
rec
"""


def violations(page: Page) -> list[str]:
    """What axe finds in the explorer, one line each: rule, element, why."""
    if not page.evaluate("'axe' in globalThis"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("axe.run('.tinyviz-explorer', {resultTypes: ['violations']})")
    assert len(found["passes"]) > 20, "axe looked at next to nothing"
    return [f"{x['id']}: {n['html'][:200]}: {n['failureSummary']}" for x in found["violations"] for n in x["nodes"]]


def unfold(page: Page, name: str) -> None:
    """Open a view, its explanation and its details, and select its first row."""
    page.get_by_role("tab", name=name, exact=True).click()
    view = page.locator(f".tv-view.tv-{name}")
    expect(view).to_be_visible()
    view.get_by_role("button", name="How to read this").click()
    for details in view.locator("details").all():
        details.evaluate("details => { details.open = true; }")
    row = view.locator("[role=option], tr[tabindex='0']")
    if row.count():
        row.first.click()
    page.wait_for_timeout(150)  # for what follows a resize


@pytest.mark.parametrize("theme", THEMES)
def test_no_view_of_a_page_breaks_a_rule(show: Show, sample: dict[str, Any], theme: str) -> None:
    before, after = (Recording(codec.from_json(wire.Recording, copy.deepcopy(sample["recording"]))) for _ in range(2))
    after.data.programs[0].kernels[0].schedule = ["vectorize(j, 4)"]
    after.data.programs[0].launches.host_median = 1.0
    page = show(tv.compare(before, after).page, theme=theme)
    for name in views.ALL:
        unfold(page, name)
        assert violations(page) == [], name


def test_no_view_in_a_notebook_breaks_a_rule(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook([PROGRAM])
    notebook.run(0)
    expect(notebook.cell(0).locator("[data-live=true]").first).to_be_visible(timeout=MINUTE)
    for theme in THEMES:
        notebook.theme(theme)
        notebook.page.wait_for_timeout(400)  # colours follow the theme's style sheet
        for name in views.NAMES:
            unfold(notebook.page, name)
            assert violations(notebook.page) == [], (theme, name)
