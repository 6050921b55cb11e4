"""Recording in a notebook: %%watch, %watch on and off, and what the gutter is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.tinyviz.shells import new_shell
from tinyengine import backends, hooks, machine
from tinyviz import magics, wire
from tinyviz.explore import Explorer
from tinyviz.live import cell_costs
from tinyviz.recording import Recording

MODEL = """
import numpy as np
from tinyviz import Tensor

def double(x):
    return (x * 2).relu()
"""
USE = """
x = Tensor(np.arange(8, dtype=np.float32))
y = double(x)
z = (y + 1).sum()
total = z.item()
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[InteractiveShell]:
    known = mock.patch.object(machine, "current", lambda: machine.FIXTURE)
    with new_shell(tmp_path) as shell, known, backends.use("reference"):
        magics.load_ipython_extension(shell)
        book = magics.notebook()
        assert book is not None
        with mock.patch.object(book, "gutter") as gutter:
            shell.gutter = gutter
            yield shell
        magics.unload_ipython_extension(shell)


def run(shell: InteractiveShell, raw: str, cell: str) -> Any:
    result = shell.run_cell(raw, store_history=True, cell_id=cell)
    result.raise_error()
    # a cell that runs another cell inside has no result of its own in IPython, but shows it
    return shell.user_ns.get("_")


def shown(shell: Any) -> dict[str, Any]:
    return {call.args[0]: call for call in shell.gutter.show.call_args_list}


def test_watch_records_one_cell_and_fills_the_gutter(shell: InteractiveShell) -> None:
    run(shell, MODEL, "a")
    explorer = run(shell, "%%watch rec" + USE, "b")
    assert isinstance(explorer, Explorer) and not hooks.watching
    rec = shell.user_ns["rec"]
    assert isinstance(rec, Recording) and shell.user_ns["total"] == 64.0
    assert {(f.cell, f.name) for f in rec.data.files} == {("a", "In [1]"), ("b", "In [2]")}
    cells = shown(shell)
    assert set(cells) == {"a", "b"}
    lines = cells["b"].args[1]
    body = ("%%watch rec" + USE).split("\n")
    assert {body[n - 1].split(" ")[0] for n in lines} <= {"x", "y", "z", "total"}
    for n, id in cells["b"].kwargs["ids"].items():
        assert rec.data.lines.text[int(id)] == body[n - 1]
    assert MODEL.split("\n")[next(iter(cells["a"].args[1])) - 1].strip() == "return (x * 2).relu()"
    assert cells["b"].kwargs["recording"] == rec.data.id


def test_watch_takes_a_view(shell: InteractiveShell) -> None:
    run(shell, MODEL, "a")
    explorer = run(shell, "%%watch --view kernel" + USE, "b")
    assert explorer.view == "kernel" and explorer.text.startswith("Kernel 0")


@pytest.mark.parametrize("line", ["%%watch --view nonsense\n1", "%%watch a-b\n1", "%%watch 'x\n1", "%watch perhaps"])
def test_wrong_use_is_explained(shell: InteractiveShell, line: str) -> None:
    result = shell.run_cell(line, cell_id="a")
    assert isinstance(result.error_in_exec, ValueError) and "%watch on | off" in str(result.error_in_exec)


def test_an_error_in_the_cell_stays_the_cells_own(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("%%watch rec\n1 / 0", cell_id="a")
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert not hooks.watching
    assert "rec" in shell.user_ns


def test_watch_on_follows_every_cell_until_off(shell: Any) -> None:
    run(shell, MODEL, "a")
    run(shell, "%watch on", "b")
    run(shell, USE, "c")
    assert "c" in shown(shell)
    shell.gutter.show.reset_mock()
    run(shell, "total = 1", "d")
    assert not shell.gutter.show.called, "nothing was computed, so there is nothing to show"
    run(shell, USE.replace("+ 1", "+ 2"), "e")
    assert "e" in shown(shell)
    run(shell, "%watch off", "f")
    shell.gutter.show.reset_mock()
    run(shell, USE, "g")
    assert not shell.gutter.show.called and not hooks.watching


def test_a_gutter_that_cannot_be_filled_does_not_break_the_cell(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.gutter.show.side_effect = RuntimeError("no page")
    run(shell, MODEL, "a")
    assert isinstance(run(shell, "%%watch" + USE, "b"), Explorer)
    assert "the gutter cannot be filled: RuntimeError: no page" in capsys.readouterr().out


def test_costs_of_a_cell_add_up(sample: wire.Recording) -> None:
    """With all files in one cell, the lines of the cell take all of the kernels' time."""
    for f in sample.files:
        f.cell = "c"
    lines, ids, total = cell_costs(sample)["c"]
    p = sample.programs[0]
    assert total.seconds == pytest.approx(sum(p.launches.total))
    assert sum(c.seconds or 0.0 for c in lines.values()) == pytest.approx(total.seconds)
    assert sum(c.bytes_read or 0.0 for c in lines.values()) == pytest.approx(total.bytes_read)
    assert total.launches == len(p.calls) * p.launches.count
    assert total.flops == pytest.approx(p.launches.count * sum(k.flops or 0 for k in p.kernels))
    assert set(ids) == set(lines)


def test_without_clocks_no_time_is_shown(sample: wire.Recording) -> None:
    for f in sample.files:
        f.cell = "c"
    sample.programs[0].launches = wire.Launches()
    _, _, total = cell_costs(sample)["c"]
    assert total.seconds is None and total.launches is None and total.seconds_predicted
