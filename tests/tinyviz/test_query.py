"""A recording for scripts: tables, pandas, JSON and Perfetto's trace format."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tinyviz import cli, query, wire
from tinyviz.recording import Recording, watch


@pytest.mark.parametrize("name", query.TABLES)
def test_every_table_is_plain_data_with_equal_columns(name: str, recording: Recording) -> None:
    rows = recording.table(name)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    if name != "decisions":  # their numbers differ from kind to kind
        assert len({tuple(row) for row in rows}) <= 1
    assert query.text(rows).count("\n") == (len(rows) + 1 if rows else 0)


def test_kernels_table_says_what_the_recording_says(recording: Recording, sample: wire.Recording) -> None:
    rows = recording.table("kernels", 0)
    kernels = sample.programs[0].kernels
    assert [x["name"] for x in rows] == [k.name for k in kernels]
    assert [x["bytes_read"] for x in rows] == [k.bytes_read for k in kernels]
    assert sum(x["share"] for x in rows) == pytest.approx(1)
    assert sum(x["share"] for x in recording.table("lines", 0)) == pytest.approx(1)


def test_a_jitted_step_tells_its_kernels() -> None:
    """`assert len(step.kernels) == 8` in a test of the user's, and the same numbers from the recording."""
    import numpy as np

    from tests.tinyviz import training

    _, step = training.network()
    with pytest.raises(ValueError, match=r"step was not called yet, so it has no kernels"):
        _ = step.kernels
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 16), dtype=np.float32), rng.integers(0, 4, 32).astype(np.int32)
    with watch() as rec:
        step(*training.tensors(x, y))
    assert len(step.kernels) == len(rec.kernels) > 5
    assert [k.cost.bytes_read for k in step.kernels] == [k.bytes_read for k in rec.kernels]
    assert [k.name for k in step.kernels] == [k.name for k in rec.kernels]
    rec.count()
    rows = rec.table("kernels")
    assert [r["bytes_read_counted"] for r in rows] == [k.counted.bytes_read for k in rec.kernels if k.counted]
    assert all(r["bound_measured"] is None for r in rows), "nobody asked"
    step(*training.tensors(x[:8], y[:8]))
    assert step.kernels[0].name.endswith("_8x8"), "of the newest signature"


def test_wrong_names_say_which_there_are(recording: Recording) -> None:
    with pytest.raises(ValueError, match="no table 'kernel'; tables: programs, kernels"):
        recording.table("kernel")
    with pytest.raises(ValueError, match="there is no program 9: the recording has 1"):
        recording.table("kernels", 9)


def test_dataframe(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        recording.dataframe()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    frame = recording.dataframe("kernels")
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(recording.kernels)
    assert frame["seconds"].dtype == float


def test_perfetto_trace_holds_every_recorded_launch(recording: Recording, sample: wire.Recording, tmp_path: Path) -> None:
    trace = json.loads(recording.perfetto(tmp_path / "a.json").read_text())
    events = trace["traceEvents"]
    assert {e["ph"] for e in events} <= {"X", "M", "i"}
    assert all(e["dur"] >= 0 and e["ts"] >= 0 for e in events if e["ph"] == "X")
    launches = [e for e in events if e["ph"] == "X" and e["pid"] > 1]
    assert len(launches) == sum(len(run.seconds) for p in sample.programs for run in p.launches.runs if run.starts)
    for i, p in enumerate(sample.programs):
        mine = [e for e in launches if e["pid"] == 2 + i]
        assert sum(e["dur"] for e in mine) == pytest.approx(1e6 * sum(sum(x.seconds) for x in p.launches.runs))
        for run in (e for e in events if e["ph"] == "X" and e["pid"] == 1 and e["args"].get("program") == i):
            inside = [e for e in mine if run["ts"] <= e["ts"] <= run["ts"] + run["dur"]]
            assert len(inside) == len(p.calls), "the launches lie in their run"


def test_command_line(recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recording.save(tmp_path / "a.tvz"))
    assert cli.main(["show", path, "--table", "kernels", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == recording.table("kernels")
    assert cli.main(["show", path, "--table", "lines"]) == 0
    assert "not attributed" in capsys.readouterr().out
    assert cli.main(["show", path, "--perfetto", str(tmp_path / "t.json")]) == 0
    assert "wrote" in capsys.readouterr().out
