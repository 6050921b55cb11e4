"""Fixtures: `server` (one JupyterLab for all tests), `context` (a fresh browser profile), `open_notebook`, `pictures`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from .jupyter import Notebook, Server

HERE = Path(__file__).parent
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
