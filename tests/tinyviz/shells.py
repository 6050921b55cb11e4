"""IPython shells for tests."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipykernel.compiler import XCachingCompiler
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


@contextmanager
def new_shell(folder: Path) -> Iterator[InteractiveShell]:
    """IPython as in a notebook's kernel: cells are named by their raw text. It leaves no history behind, and nothing for the end
    of the process, where each shell would collect the garbage of the whole run."""
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell(config=quiet, ipython_dir=str(folder), compiler_class=XCachingCompiler)
    try:
        yield shell
    finally:
        atexit.unregister(shell.atexit_operations)
