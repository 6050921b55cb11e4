"""A real JupyterLab and the notebooks in it, driven through a real Chromium."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import nbformat
from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Locator, Page, expect

MINUTE = 60_000  # milliseconds: what the slowest step of a slow machine may take

WIDE, NARROW = {"width": 1400, "height": 1000}, {"width": 720, "height": 1000}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

# The panel of the open notebook, in JupyterLab and in Notebook 7.
PANEL = "jupyterapp.shell.currentWidget"


class Server:
    """JupyterLab on a free port, with no folder shared with the user's own Jupyter."""

    def __init__(self, home: Path) -> None:
        self.root, self.token = home / "notebooks", secrets.token_hex(16)
        self.log = home / "server.log"
        self.root.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        private = {
            "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }  # fmt: skip
        environment = os.environ | {name: str(home / folder) for name, folder in private.items()}
        # JupyterLab asks whether it may show news; the answer must not wait for a reader.
        labconfig = home / "config" / "labconfig"
        labconfig.mkdir(parents=True)
        news = "@jupyterlab/apputils-extension:announcements"
        (labconfig / "page_config.json").write_text(f'{{"disabledExtensions": {{"{news}": true}}}}')
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", *(["--allow-root"] if os.geteuid() == 0 else []),
            "--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}",
            "--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._await_answer()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api?token={self.token}", timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-4000:]}") from None
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def write(self, name: str, cells: Sequence[str]) -> Path:
        """A notebook with these code cells, not trusted."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.root / name
        nbformat.write(book, path)
        return path

    def open(self, context: BrowserContext, name: str, *, app: str = "lab/tree") -> Notebook:
        page = context.new_page()
        page.set_default_timeout(MINUTE)
        page.set_viewport_size(WIDE)
        notebook = Notebook(page, self.root / name)
        page.goto(f"http://127.0.0.1:{self.port}/{app}/{name}?token={self.token}&reset")
        notebook.await_kernel()
        return notebook


class Notebook:
    """One open notebook. `errors`: what tinyviz's scripts on the page could not do."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.path = page, path
        self.errors: list[str] = []
        page.on("pageerror", self._failed)
        page.on("console", self._heard)

    def _failed(self, error: Error) -> None:
        # The stack names the extension's files, or the blob that a widget's module is loaded from.
        if "tinyviz" in (error.stack or "") or "blob:" in (error.stack or ""):
            self.errors.append(f"{error}\n{error.stack}")

    def _heard(self, note: ConsoleMessage) -> None:
        if note.type == "error" and "tinyviz" in note.text:
            self.errors.append(note.text)

    def await_kernel(self) -> None:
        self.page.wait_for_function(
            f"""() => {{
                const panel = globalThis.jupyterapp && {PANEL};
                const session = panel?.sessionContext;
                const kernel = session?.session?.kernel;
                const ready = panel?.context?.isReady && session?.isReady;
                const answers = kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
                return Boolean(ready && answers && jupyterapp.commands.hasCommand('notebook:run-all-cells'));
            }}"""
        )

    def command(self, name: str, arguments: str = "{}") -> None:
        """Runs a command of JupyterLab to its end. (Its promise stays on the page: returned from there, it can hang.)"""
        self.page.evaluate(
            f"""() => {{
                globalThis.tinyvizDone = null;
                jupyterapp.commands.execute('{name}', {arguments})
                    .then(() => globalThis.tinyvizDone = 'done', error => globalThis.tinyvizDone = String(error));
            }}"""
        )
        done = self.page.wait_for_function("globalThis.tinyvizDone").json_value()
        if done != "done":
            raise RuntimeError(f"{name}: {done}")

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        self.raise_errors()

    def run(self, index: int) -> None:
        """Runs one cell and waits for its end."""
        self.page.evaluate(f"{PANEL}.content.activeCellIndex = {index}")
        self.command("notebook:run-cell")
        self.raise_errors()

    def replace(self, index: int, source: str) -> None:
        """Writes another text into a cell."""
        self.page.evaluate(f"source => {PANEL}.content.widgets[{index}].model.sharedModel.setSource(source)", source)

    def raise_errors(self) -> None:
        """A cell that failed fails the test, with its own traceback."""
        failed = self.page.evaluate(
            f"""() => {PANEL}.content.widgets.filter(cell => cell.model.type === 'code')
                .flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error')"""
        )
        if failed:
            raise AssertionError("\n".join(failed[0]["traceback"]))

    def text(self, index: int) -> str:
        """What the cell's outputs say as text."""
        said: str = self.page.evaluate(
            f"""() => {PANEL}.content.widgets[{index}].model.outputs.toJSON()
                .map(output => [output.text ?? output.data?.['text/plain'] ?? ''].flat().join('')).join('')"""
        )
        return said

    def cell(self, index: int) -> Locator:
        return self.page.locator(f".jp-Cell[data-windowed-list-index='{index}']")

    def save(self) -> None:
        self.command("docmanager:save")

    def restart(self) -> None:
        """A new kernel, as after an hour's pause; outputs stay."""
        self.page.evaluate(
            f"""() => {{
                globalThis.tinyvizDone = null;
                {PANEL}.sessionContext.restartKernel().then(() => globalThis.tinyvizDone = 'done');
            }}"""
        )
        self.page.wait_for_function("globalThis.tinyvizDone")
        self.await_kernel()

    def reload(self) -> None:
        self.page.reload()
        self.await_kernel()

    def close(self) -> None:
        """Ends the kernel too: a machine with two cores feels each one that idles."""
        self.page.evaluate(f"() => void {PANEL}?.sessionContext?.shutdown()")
        self.page.close()

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", f"{{theme: '{THEMES[name]}'}}")
        expect(self.page.locator(f"body[data-jp-theme-light='{'true' if name == 'light' else 'false'}']")).to_be_attached()

    def shoot(self, folder: Path, name: str) -> list[Path]:
        """Light and dark, wide and narrow: four pictures for a person to look at."""
        folder.mkdir(parents=True, exist_ok=True)
        shots = []
        for theme in THEMES:
            self.theme(theme)
            for width, size in {"wide": WIDE, "narrow": NARROW}.items():
                self.page.set_viewport_size(size)
                self.page.wait_for_timeout(300)  # for what follows a resize
                shots.append(folder / f"{name}-{theme}-{width}.png")
                self.page.screenshot(path=shots[-1])
        self.theme("light")
        self.page.set_viewport_size(WIDE)
        return shots

