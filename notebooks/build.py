"""Make the .ipynb files from the .py files beside them, with outputs: python notebooks/build.py [NAME...]

The .py file (jupytext's percent format) is the source. Outputs come from a run in a fresh kernel of this Python. Views keep the
forms that need no live kernel: the extension's own, SVG and text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TIMEOUT = 300  # seconds per cell
LIVE = "application/vnd.jupyter.widget-view+json"


def source(name: str) -> Any:
    """The notebook of NAME.py, without outputs."""
    import jupytext

    notebook = jupytext.read(HERE / f"{name}.py")
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
        cell.metadata = {}
    return notebook


def execute(notebook: Any) -> Any:
    """The same notebook after a run. Raises nbclient's CellExecutionError when a cell fails."""
    from nbclient import NotebookClient

    folder = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", store_widget_state=False, resources=folder).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE, None)
    return notebook


def main(names: list[str]) -> None:
    import nbformat

    for name in names or sorted(p.stem for p in HERE.glob("[0-9]*.py")):
        path = HERE / f"{name}.ipynb"
        nbformat.write(execute(source(name)), path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main([Path(a).stem for a in sys.argv[1:]])
