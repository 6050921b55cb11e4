"""The notebooks: source and saved form agree, saved views need no kernel, and every cell runs and shows what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(p.stem for p in FOLDER.glob("[0-9]*.py"))
VIEW = "application/vnd.tinyviz+json"
LARGEST = 2_000_000  # bytes of a saved notebook


def builder() -> Any:
    spec = importlib.util.spec_from_file_location("build_notebooks", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def views(notebook: Any) -> list[Any]:
    found = [o.get("data", {}) for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return [d for d in found if VIEW in d]


def printed(notebook: Any) -> str:
    """Everything that the cells print."""
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


def test_there_are_notebooks() -> None:
    assert "00_whole_game" in NAMES
    assert sorted(p.stem for p in FOLDER.glob("[0-9]*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_notebook_has_the_cells_of_its_source(name: str) -> None:
    pytest.importorskip("jupytext")
    source, kept = ([(c.cell_type, c.source) for c in n.cells] for n in (builder().source(name), saved(name)))
    assert source == kept, "they drifted apart: python notebooks/build.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_views_need_no_kernel(name: str) -> None:
    notebook = saved(name)
    assert len(views(notebook)) >= 5
    for data in views(notebook):
        assert {"text/plain", "text/html", "image/svg+xml"} <= set(data)
        assert "application/vnd.jupyter.widget-view+json" not in data  # it would be a model that is not there
    assert not [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_notebook_is_small_and_tells_nothing_of_where_it_was_made(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(?:root|home|Users|var)/", text)
    assert "widgets" not in saved(name).metadata


@pytest.mark.slow
def test_the_whole_game_runs() -> None:
    """With the exercise solved. Counts and values are asserted, no time."""
    pytest.importorskip("jupytext")
    build = builder()
    notebook = build.source("00_whole_game")
    (exercise,) = [c for c in notebook.cells if c.source.startswith("def standardize")]
    exercise.source = exercise.source.replace(".contiguous()", "")
    build.execute(notebook)
    text = printed(notebook)
    assert "kernels run: 0" in text  # lazy
    assert "kernels: 2" in text  # three lines, fused
    assert "FLOPs: 536,576" in text  # as the text below it adds up
    assert "peak of this machine" in text
    assert "the same on other inputs: True" in text and "the same on other inputs: False" in text
    accuracy = re.search(r"test accuracy ([\d.]+)%", text)
    assert accuracy and float(accuracy[1]) >= 97
    assert text.count("✓") == 4 and "✗" not in text  # of the exercise
    steps, flops = re.search(r"steps in one petaFLOP: ([\d,]+)", text), re.search(r"FLOPs of one step: ([\d,]+)", text)
    assert steps and flops
    product = int(steps[1].replace(",", "")) * int(flops[1].replace(",", ""))
    assert product == pytest.approx(10**15, rel=1e-6)
    assert len(views(notebook)) >= 8


def test_the_saved_exercise_is_not_solved() -> None:
    text = printed(saved("00_whole_game"))
    assert "✓ the result is right" in text and "✗ 1 kernel" in text
