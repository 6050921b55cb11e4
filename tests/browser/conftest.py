"""Fixtures: `server` (one JupyterLab for all tests), `context` (a fresh browser profile), `open_notebook`, `pictures`; `show`: an
exported page, from file:// and without a network."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tinyviz import codec, wire
from tinyviz.export import document
from tinyviz.recording import Recording

from .jupyter import Notebook, Server

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "tinyviz" / "sample.json"
Show = Callable[..., Page]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    reason = "no Chromium: apt-get install --no-install-recommends chromium fonts-dejavu-core fonts-liberation"
    # On a person's machine this is a gap to know about; in CI it would hide that nothing was tested.
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go: out/browser, which git ignores."""
    return HERE.parents[1] / "out" / "browser"


@pytest.fixture
def open_notebook(server: Server, context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Callable[..., Notebook]]:
    """open_notebook(cells): writes and opens a new notebook. When the test ends, no script on its page may have failed."""
    opened: list[Notebook] = []

    def opener(cells: Sequence[str] = (), *, name: str | None = None, app: str = "lab/tree") -> Notebook:
        if name is None:
            name = f"{request.node.name}-{len(opened)}.ipynb"
            server.write(name, cells)
        opened.append(server.open(context, name, app=app))
        return opened[-1]

    yield opener
    errors = [error for notebook in opened for error in notebook.errors]
    for notebook in opened:
        notebook.close()
    assert not errors, errors


@pytest.fixture(scope="session")
def sample() -> dict[str, Any]:
    page: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="session")
def html(sample: dict[str, Any]) -> str:
    return document(Recording(codec.from_json(wire.Recording, sample["recording"])).view())


@pytest.fixture
def show(browser: Browser, html: str, tmp_path: Path) -> Iterator[Show]:
    """show(data): the page with that data in the place of the sample's. When the test ends, nothing on it may have failed."""
    errors: list[str] = []
    contexts = []

    def shower(data: dict[str, Any] | None = None, theme: Any = "light", width: int = 1200, text: str = "the text twin") -> Page:
        content = html
        if data is not None:
            bundle = {"view": "explorer", "recording": "r", "data": data, "text": text}
            packed = base64.b64encode(gzip.compress(json.dumps(bundle).encode())).decode()
            before, _, rest = html.partition('id="data">')
            content = before + 'id="data">' + packed + rest[rest.index("</script>") :]
        path = tmp_path / "page.html"
        path.write_text(content, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=theme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
        page.goto(path.as_uri())
        expect(page.locator(".tinyviz").first).to_be_visible()
        return page

    yield shower
    for context in contexts:
        context.close()
    assert not errors, errors
