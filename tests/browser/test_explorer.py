"""The explorer in a real JupyterLab, on a training step that the engine really compiles and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, expect

from .jupyter import Notebook

Open = Callable[..., Notebook]

LOAD = "%load_ext tinyviz"
NETWORK = """
import numpy as np
from tinyviz import Tensor, jit, manual_seed, nn, optim, state
class Network(nn.Module):
    def __init__(self):
        self.fc1 = nn.Linear(16, 8)
        self.fc2 = nn.Linear(8, 4)
    def forward(self, x):
        h = self.fc1(x).relu()
        return self.fc2(h)
manual_seed(0)
model = Network()
optimizer = optim.SGD(state.get_parameters(model), lr=0.1)
@jit
def step(x, y):
    optimizer.zero_grad()
    loss = model(x).cross_entropy(y)
    loss.backward()
    optimizer.step()
    return loss
"""
TRAIN = """%%watch rec
rng = np.random.default_rng(0)
x, y = Tensor(rng.random((32, 16), dtype=np.float32)), Tensor(rng.integers(0, 4, 32).astype(np.int32))
for _ in range(5):
    loss = step(x, y)
loss.item()
"""
FIRST_LAYER = "h = self.fc1(x).relu()"


def trained(open_notebook: Open, *more: str) -> Notebook:
    notebook = open_notebook([LOAD, NETWORK, TRAIN, *more])
    notebook.run_all()
    return notebook


def show(notebook: Notebook, view: str, cell: int = 2) -> Locator:
    """Turns to a view, and gives its place."""
    notebook.cell(cell).get_by_role("tab", name=view, exact=True).click()
    return notebook.cell(cell).locator(f".tv-view.tv-{view}")


def kernel(place: Locator, number: int) -> Locator:
    """The row of a kernel in a list of kernels."""
    return place.locator(f".tv-kernelrow[title^='k{number} ']")


def test_a_kernel_lights_the_lines_that_it_serves_and_a_line_its_kernels(open_notebook: Open, pictures: Path) -> None:
    notebook = trained(open_notebook, "widget = rec.view().selection")
    explorer = notebook.cell(2).locator(".tinyviz-explorer")
    expect(explorer).to_have_attribute("data-live", "true")
    graph = show(notebook, "graph")
    graph.get_by_role("button", name="open all").click()
    boxes = graph.locator(".tv-box")
    assert boxes.count() > 40
    expect(boxes.filter(has_text="maximum").first).to_be_visible()

    # from the kernel to the user's line
    shown = show(notebook, "kernel")
    row = kernel(shown, 0)
    row.click()
    expect(row).to_have_attribute("aria-selected", "true")
    lit = notebook.cell(1).locator(".tinyviz-lit-line")
    expect(lit).to_have_text([FIRST_LAYER])
    for pane in ("loops", "llvm", "assembly"):
        expect(shown.locator(f"[data-pane='{pane}'] .tv-codeline.tv-lit").first).to_be_attached()
    notebook.shoot(pictures, "explorer-kernel")

    # from the line, through the gutter, to its kernels
    mark = notebook.cell(1).locator(".tinyviz-cost")
    assert mark.count() >= 3
    code = notebook.cell(1).locator(".cm-line", has_text="loss = model(x).cross_entropy(y)").bounding_box()
    assert code
    beside = next(m for m in mark.all() if (box := m.bounding_box()) and abs(box["y"] - code["y"]) < 3)
    beside.click()
    expect(explorer.locator(".tv-crumb")).to_contain_text("loss = model(x).cross_entropy(y)")
    assert shown.locator(".tv-kernelrow.tv-lit").count() >= 3

    # and away again
    shown.locator(".tv-code").first.focus()
    notebook.page.keyboard.press("Escape")
    expect(notebook.page.locator(".tinyviz-lit-line")).to_have_count(0)
    expect(explorer.locator(".tv-crumbs")).to_contain_text("select anything")


def test_a_saved_notebook_keeps_its_views_and_fills_its_gutter(open_notebook: Open) -> None:
    notebook = trained(open_notebook)
    numbers = notebook.cell(1).locator(".tinyviz-cost")
    expect(numbers.first).to_be_visible()
    notebook.save()
    outputs = json.loads(notebook.path.read_text())["cells"][2]["outputs"]
    assert any("application/vnd.tinyviz+json" in output.get("data", {}) for output in outputs)
    notebook.restart()
    notebook.reload()
    explorer = notebook.cell(2).locator(".tinyviz-explorer")
    expect(explorer).to_have_attribute("data-live", "false")
    expect(numbers.first).to_be_visible()
    kernel(show(notebook, "kernel"), 0).click()
    expect(notebook.cell(1).locator(".tinyviz-lit-line")).to_have_text([FIRST_LAYER])
    # A line that reads differently now is not the one that was recorded.
    notebook.cell(1).locator(".cm-line", has_text=FIRST_LAYER).click()
    notebook.page.keyboard.press("End")
    notebook.page.keyboard.type(".abs()")
    kernel(show(notebook, "kernel"), 1).click()
    kernel(show(notebook, "kernel"), 0).click()
    expect(notebook.cell(1).locator(".tinyviz-lit-line")).to_have_count(0)


def test_the_stepper_goes_by_keyboard_and_nothing_else_moves(open_notebook: Open) -> None:
    notebook = trained(open_notebook)
    stages = show(notebook, "stages")
    forth = stages.get_by_role("button", name="next step")
    forth.click()
    number = stages.locator(".tv-stepnumber")
    first = number.inner_text()

    def places() -> dict[str, str]:
        found: dict[str, str] = stages.locator(".tv-side").first.evaluate(
            """side => Object.fromEntries([...side.querySelectorAll('.tv-box')].map(box => {
                const body = box.querySelector('.tv-body');
                return [box.dataset.id, body.getAttribute('x') + ' ' + body.getAttribute('y')];
            }))"""
        )
        return found

    before = places()
    forth.focus()
    notebook.page.keyboard.press("j")
    expect(number).not_to_have_text(first)
    second = number.inner_text()
    after = places()
    common = before.keys() & after.keys()
    assert len(common) > 40 and all(before[id] == after[id] for id in common)
    notebook.page.keyboard.press("ArrowRight")
    expect(number).not_to_have_text(second)
    notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press("k")
    expect(number).to_have_text(first)
    assert stages.locator(".tv-rulename").inner_text()
    # The notebook did not take the keys for its own.
    assert notebook.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex") == 2


def test_the_explorer_docks_beside_and_follows(open_notebook: Open, pictures: Path) -> None:
    notebook = trained(open_notebook)
    notebook.command("tinyviz:open-explorer")
    docked = notebook.page.locator(".tinyviz-docked .tinyviz-explorer")
    expect(docked).to_be_visible()
    docked.get_by_role("tab", name="kernel", exact=True).click()
    kernel(docked, 0).click()
    expect(notebook.cell(2).locator(".tv-crumb")).to_contain_text("k0")
    expect(notebook.cell(1).locator(".tinyviz-lit-line")).to_have_text([FIRST_LAYER])
    notebook.page.screenshot(path=pictures / "explorer-docked.png")
    notebook.page.evaluate(
        """() => [...jupyterapp.shell.widgets('main')].filter(each => each.title.label === 'tinyviz')
            .forEach(each => each.close())"""
    )
    expect(docked).to_have_count(0)


def test_a_selection_reaches_python_and_comes_from_it(open_notebook: Open) -> None:
    notebook = trained(
        open_notebook, "shown = rec.view('kernel')\nshown", "shown.selection = ('kernel', '0.1')", "print(shown.selection)"
    )
    row = kernel(notebook.cell(3), 1)
    expect(row).to_have_attribute("aria-selected", "true")
    kernel(notebook.cell(3), 0).click()
    notebook.run(5)
    assert notebook.text(5).strip() == "Selection(kind='kernel', id='0.0')"
