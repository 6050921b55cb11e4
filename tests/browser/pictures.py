"""Renews the pictures of docs/explorer.md: each view of three real programs, as Chromium draws it.

Run `python -m tests.browser.pictures [VIEW...]` on a machine with Chromium, after a change of what the views look like.
`--record` only records (best while nothing else runs), `--draw` only draws what was recorded last, in out/pictures. `--lab`
renews docs/explorer.png instead: the first notebook in JupyterLab, run to its end.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Locator, Page, sync_playwright

import tinyviz as tv
from tests.browser import png
from tests.browser.conftest import FLAGS
from tests.browser.jupyter import PANEL, Server
from tests.browser.programs import cnn, slow, transformer
from tinyviz.explore import Explorer

ROOT = Path(__file__).parents[2]
DOCS, PAGES = ROOT / "docs" / "explorer", ROOT / "out" / "pictures"
SIZE = {"width": 1180, "height": 800}
LIMIT, TOTAL = 60_000, 600_000  # bytes


def digits() -> Explorer:
    with tv.watch("digits") as rec:
        cnn.train()
    return rec.view()


def text() -> Explorer:
    with tv.watch("a small transformer") as rec:
        transformer.train()
    return rec.view()


def learning() -> Explorer:
    with tv.watch("a small transformer, values of every third step", values=3) as rec:
        transformer.train()
    return rec.view()


def slowly() -> Explorer:
    with tv.watch("slow on purpose") as rec:
        slow.train()
    return rec.view()


def gathered() -> Explorer:
    """Rows of a table, picked by data: two inputs pick others."""
    table = tv.Tensor(np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32))

    def pick(rows: tv.Tensor) -> tv.Tensor:
        return table[rows] * 2

    first, second = (tv.Tensor(np.array(x, np.int32)) for x in ([3, 9, 9, 20, 30, 1], [3, 10, 11, 12, 13, 14]))
    return tv.addresses(pick, first, second)


def changed() -> Explorer:
    with tv.watch("relu") as before:
        cnn.train()
    with tv.watch("gelu") as after:
        cnn.train(network=cnn.Smoother)
    return tv.compare(before, after)


def overview(page: Page, view: Locator) -> None:
    view.get_by_role("option").filter(has_text="self.conv2(x)").first.click()


def graph(page: Page, view: Locator) -> None:
    view.get_by_role("combobox", name="mark").select_option("time")
    search = view.get_by_role("searchbox")
    search.fill("op:exp module:blocks.0")
    search.press("Enter")
    search.fill("")


def stages(page: Page, view: Locator) -> None:
    view.locator(".tv-rule").nth(2).click()


def fusion(page: Page, view: Locator) -> None:
    view.locator(".tv-edgerow").filter(has_text="at loop").or_(view.locator(".tv-edgerow").filter(has_text="again")).nth(
        1
    ).click()


def kernel(page: Page, view: Locator) -> None:
    lines = view.locator("[data-pane=loops] .tv-codeline")
    lines.filter(has_text="+=").or_(lines.filter(has_text="max=")).first.click()


def training(page: Page, view: Locator) -> None:
    """The program with most kernels: a forward pass alone may come first."""
    program = page.get_by_label("program", exact=True)
    name = program.locator("option").filter(has_text="training step").first.inner_text()
    program.select_option(label=name)


def timeline(page: Page, view: Locator) -> None:
    training(page, view)
    view.get_by_role("button", name="whole recording").click()


def values(page: Page, view: Locator) -> None:
    view.get_by_role("option").filter(has_text="softmax").first.click()


def memory(page: Page, view: Locator) -> None:
    view.get_by_role("application").focus()
    for _ in range(3):
        page.keyboard.press(".")


def nothing(page: Page, view: Locator) -> None:
    pass


# view -> (program, what is done before the picture is taken, theme)
PICTURES: dict[str, tuple[Callable[[], Explorer], Callable[[Page, Locator], None], str]] = {
    "overview": (digits, overview, "light"),
    "graph": (text, graph, "light"),
    "stages": (digits, stages, "light"),
    "fusion": (text, fusion, "light"),
    "kernel": (digits, kernel, "dark"),
    "timeline": (slowly, timeline, "light"),
    "lines": (text, nothing, "light"),
    "memory": (digits, memory, "light"),
    "roofline": (slowly, training, "light"),
    "values": (learning, values, "light"),
    "addresses": (gathered, nothing, "light"),
    "compare": (changed, nothing, "light"),
}


def lab() -> None:
    """The explorer at the end of the first notebook, in JupyterLab."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder))
        try:
            name = "00_whole_game.ipynb"
            shutil.copy(ROOT / "notebooks" / name, server.root / name)
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            notebook = server.open(browser.new_context(), name)
            notebook.page.set_default_timeout(300_000)
            notebook.run_all()
            notebook.page.set_viewport_size({"width": 1400, "height": 900})
            notebook.command("application:toggle-left-area")
            cells: list[str] = notebook.page.evaluate(
                f"() => {PANEL}.content.widgets.map(cell => cell.model.sharedModel.getSource())"
            )
            at = max(i for i, source in enumerate(cells) if source.strip() == "rec")
            notebook.page.evaluate(f"at => {PANEL}.content.scrollToItem(at, 'start')", at)
            notebook.cell(at).locator(".tv-overview .tv-kernelrow").first.wait_for()
            notebook.page.evaluate(f"at => {PANEL}.content.scrollToItem(at, 'start')", at)
            notebook.page.wait_for_timeout(1500)
            size = png.write(notebook.page, notebook.page.screenshot(), ROOT / "docs" / "explorer.png", 64)
            print(f"explorer.png: {size:,} bytes")
            browser.close()
        finally:
            server.stop()


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


def main(arguments: list[str]) -> None:
    if "--lab" in arguments:
        return lab()
    chosen = [x for x in arguments if not x.startswith("--")] or list(PICTURES)
    if "--draw" not in arguments:
        record(chosen)
    if "--record" not in arguments:
        draw(chosen)


def record(chosen: list[str]) -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    shown = [(program, program()) for program in dict.fromkeys(PICTURES[name][0] for name in chosen)]
    for program, explorer in shown:
        explorer.html(PAGES / f"{program.__name__}.html")


def draw(chosen: list[str]) -> None:
    DOCS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name in chosen:
            program, prepare, theme = PICTURES[name]
            context = browser.new_context(viewport=SIZE, color_scheme=theme, offline=True)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto((PAGES / f"{program.__name__}.html").as_uri())
            page.locator(".tv-tabs, .tv-crumbs").first.wait_for()
            if page.get_by_role("tab", name=name, exact=True).count():
                page.get_by_role("tab", name=name, exact=True).click()
            prepare(page, page.locator(f".tv-view.tv-{name}"))
            page.mouse.move(2, 2)
            page.wait_for_timeout(400)
            page.evaluate("scrollTo(0, 0)")
            shot, path = page.screenshot(), DOCS / f"{name}.png"
            size = next(
                size for colors in (40, 24, 16, 10) if (size := png.write(page, shot, path, colors)) <= LIMIT or colors == 10
            )
            print(f"{path.name}: {size:,} bytes")
            context.close()
        browser.close()
    sizes = [path.stat().st_size for path in DOCS.glob("*.png")]
    print(f"{len(sizes)} pictures, {sum(sizes):,} bytes; at most {LIMIT:,} each, {TOTAL:,} together")


if __name__ == "__main__":
    main(sys.argv[1:])
